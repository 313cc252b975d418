"""The decision of each round: against brute force, and over whole runs with costs that vary."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.theory.bounds import Coefficients
from protocol.theory.caps import Budget, RoundCosts
from protocol.theory.online import Decision, Outlook, decide

fixed = settings(derandomize=True, deadline=None, max_examples=300)
amounts = st.floats(0.01, 2)
OUTLOOK = Outlook(
    left=Budget(energy_j=30.0, air_s=60.0),
    rounds_left=10,
    costs=RoundCosts(local_j=0.5, local_air_s=0.5, aggregation_j=1.0, aggregation_air_s=1.0),
    coefficients=Coefficients(a=1e4, b=1.0, c=0.0, h=0.1),
)


@st.composite
def outlooks(draw):
    costs = RoundCosts(
        local_j=draw(amounts),
        local_air_s=draw(amounts),
        aggregation_j=draw(amounts),
        aggregation_air_s=draw(amounts),
    )
    return Outlook(
        left=Budget(energy_j=draw(st.floats(0, 50)), air_s=draw(st.floats(0, 50))),
        rounds_left=draw(st.integers(1, 20)),
        costs=costs,
        coefficients=Coefficients(
            a=draw(st.floats(0, 100)), b=1.0, c=draw(st.floats(0, 1)), h=draw(st.floats(0, 1))
        ),
    )


@fixed
@given(outlooks())
def test_decides_as_brute_force_does(outlook):
    """The most that an even share of both budgets pays for, or fewer if that makes the bound better."""
    left, costs, rounds, shape = outlook.left, outlook.costs, outlook.rounds_left, outlook.coefficients
    tau = np.arange(1, 5001)
    drift = shape.a / (rounds * tau) + shape.c * (tau - 1) + shape.h * tau * (tau - 1)
    limits = {
        "drift": int(tau[drift.argmin()]),
        "joules": int((costs.aggregation_j + tau * costs.local_j <= left.energy_j / rounds).sum()),
        "seconds": int((costs.aggregation_air_s + tau * costs.local_air_s <= left.air_s / rounds).sum()),
    }
    binding = min(limits, key=limits.get)  # the first of equals
    aggregates = costs.aggregation_j <= left.energy_j and costs.aggregation_air_s <= left.air_s
    assert decide(outlook) == Decision(limits[binding], binding, aggregates)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Decision(4, "joules", True)),
        ({"left": Budget(energy_j=90.0, air_s=45.0)}, Decision(7, "seconds", True)),
        ({"left": Budget()}, Decision(17, "drift", True)),
        ({"left": Budget(energy_j=14.0)}, Decision(0, "joules", True)),  # relays: 10 joules are reserved
        ({"left": Budget(energy_j=0.9)}, Decision(0, "joules", False)),
        ({"left": Budget(air_s=0.9)}, Decision(0, "seconds", False)),
    ],
)
def test_decisions_by_hand(change, expected):
    """Without budgets, B1 over the ten rounds is least at 17: 2 * 0.1 * 17^3 is near 1e4 / 10."""
    assert decide(replace(OUTLOOK, **change)) == expected


def test_drift_shrinks_with_the_loss_but_never_stops_learning():
    rounds = [
        decide(
            replace(OUTLOOK, left=Budget(), coefficients=replace(OUTLOOK.coefficients, a=a))
        ).num_local_rounds
        for a in (1e4, 1e3, 1e2, 1e1, 0.0)
    ]
    assert rounds == sorted(rounds, reverse=True)
    assert len(set(rounds)) > 3
    assert rounds[-1] == 1


def test_half_a_round_at_a_time_is_a_round_every_other_time():
    outlook = replace(OUTLOOK, left=Budget(energy_j=12.5), rounds_left=10)
    done = []
    for rounds_left in range(10, 0, -1):
        tau = decide(replace(outlook, rounds_left=rounds_left)).num_local_rounds
        done.append(tau)
        outlook = replace(outlook, left=Budget(energy_j=outlook.left.energy_j - 0.5 * tau - 1.0))
    assert sum(done) == 5
    assert max(done) == 1


@fixed
@given(outlooks(), st.integers(0, 2**32))
def test_no_budget_is_ever_exceeded_and_every_aggregation_is_paid(outlook, seed):
    """Aggregations cost up to their reserve; who could pay all reserves at the start never has to leave."""
    rng, costs = np.random.default_rng(seed), outlook.costs
    energy_j = outlook.left.energy_j + costs.aggregation_j * outlook.rounds_left
    air_s = outlook.left.air_s + costs.aggregation_air_s * outlook.rounds_left
    for rounds_left in range(outlook.rounds_left, 0, -1):
        decision = decide(
            replace(outlook, left=Budget(energy_j=energy_j, air_s=air_s), rounds_left=rounds_left)
        )
        # An ulp of what was left may be missing after so many subtractions.
        assert (
            decision.aggregates
            or min(energy_j - costs.aggregation_j, air_s - costs.aggregation_air_s) > -1e-12
        )
        share = rng.choice([1.0, rng.uniform(0.2, 1)])
        energy_j -= decision.num_local_rounds * costs.local_j + share * costs.aggregation_j
        air_s -= decision.num_local_rounds * costs.local_air_s + share * costs.aggregation_air_s
        assert min(energy_j, air_s) > -1e-12


def test_what_cheap_aggregations_save_is_computed_with():
    """Half the reserve comes back each round: 20 joules for 10 reserves of 1 buy 30 rounds of 0.5, not 20."""
    energy_j, done = 20.0, 0
    for rounds_left in range(10, 0, -1):
        tau = decide(
            replace(OUTLOOK, left=Budget(energy_j=energy_j), rounds_left=rounds_left)
        ).num_local_rounds
        energy_j -= 0.5 * tau + 0.5
        done += tau
    assert done == 29  # the last reserve cannot be spent twice
