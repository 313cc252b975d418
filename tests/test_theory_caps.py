"""What budgets afford: against what will be paid, and which budget is to blame."""

from dataclasses import replace
from math import inf

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.theory.caps import Budget, LocalRounds, RoundCosts, affordable, cap, shortfall
from protocol.theory.constants import MAX_LOCAL_ROUNDS

fixed = settings(derandomize=True, deadline=None, max_examples=300)
amounts = st.floats(1e-6, 10, allow_subnormal=False)


@fixed
@given(amounts, st.floats(0, 10), amounts)
@example(0.7, 0.2, 0.1)  # (0.7 - 0.2) / 0.1 is less than 5, but 0.2 + 5 * 0.1 no more than 0.7
@example(0.9, 0.3, 0.2)  # (0.9 - 0.3) / 0.2 is 3, but 0.3 + 3 * 0.2 more than 0.9
@example(1e-6, 0.0, 10.0)
def test_affords_what_can_be_paid_and_not_one_more(budget, reserved, each):
    n = affordable(budget, reserved, each=each)
    assert n == 0 or reserved + n * each <= budget
    assert n == MAX_LOCAL_ROUNDS or reserved + (n + 1) * each > budget


COSTS = RoundCosts(local_j=0.5, local_air_s=0.25, aggregation_j=1.0, aggregation_air_s=0.5)


@pytest.mark.parametrize(
    ("budget", "expected"),
    [
        (Budget(energy_j=30.0, air_s=100.0), LocalRounds(4, "joules")),  # (3 - 1) / 0.5 against 38
        (Budget(energy_j=100.0, air_s=12.5), LocalRounds(3, "seconds")),  # 18 against (1.25 - 0.5) / 0.25
        (Budget(energy_j=25.0, air_s=12.5), LocalRounds(3, "joules")),  # one of the two must be named
        (Budget(energy_j=14.9, air_s=100.0), LocalRounds(0, "joules")),
        (Budget(energy_j=100.0, air_s=5.0), LocalRounds(0, "seconds")),
        (Budget(energy_j=5.0), LocalRounds(0, "joules")),  # not even the aggregation
        (Budget(), LocalRounds(MAX_LOCAL_ROUNDS, "joules")),
    ],
)
def test_caps_by_hand(budget, expected):
    assert cap(budget, COSTS, num_rounds=10) == expected


def test_rounds_that_cost_nothing_are_without_end_if_aggregation_is_paid():
    free = replace(COSTS, local_j=0.0, local_air_s=0.0)
    assert cap(Budget(energy_j=10.0), free, num_rounds=10).num_local_rounds == MAX_LOCAL_ROUNDS
    assert cap(Budget(energy_j=9.0), free, num_rounds=10) == LocalRounds(0, "joules")


def test_a_shortfall_is_what_one_local_round_per_round_lacks():
    assert shortfall(Budget(energy_j=12.0, air_s=7.0), COSTS, num_rounds=10) == Budget(
        energy_j=3.0, air_s=0.5
    )
    assert shortfall(Budget(energy_j=15.0, air_s=inf), COSTS, num_rounds=10) == Budget(
        energy_j=0.0, air_s=0.0
    )
