"""Local rounds for given rounds: uniform and per device, against exhaustive search."""

from itertools import product

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.theory.bounds import Coefficients, averaging_bound
from protocol.theory.caps import LocalRounds
from protocol.theory.constants import MAX_LOCAL_ROUNDS
from protocol.theory.rounds import device_rounds, uniform_rounds

fixed = settings(derandomize=True, deadline=None, max_examples=300)
weights = st.floats(-2.5, 1.5).map(lambda exponent: 10**exponent if exponent > -2 else 0.0)
shapes = st.builds(Coefficients, a=weights.map(lambda a: 10 * a), b=weights, c=weights, h=weights)
caps_of = st.lists(
    st.builds(LocalRounds, st.integers(1, 7), st.sampled_from(("joules", "seconds"))), min_size=1
)
NEVER = Coefficients(a=1.0, b=0.0, c=0.0, h=0.0)


def counts(rounds):
    return [one.num_local_rounds for one in rounds]


def joules(*limits):
    return [LocalRounds(limit, "joules") for limit in limits]


def bounds_of_all(coefficients, tau, num_rounds):
    """B1 written out, for many allocations at once; tau of shape (allocations, N)."""
    tbar = tau.mean(axis=1)
    return (
        coefficients.a / (num_rounds * tbar)
        + coefficients.b * tbar * (1 / tau).mean(axis=1)
        + coefficients.c * (tbar - 1)
        + coefficients.h * (tau * (tau - 1)).mean(axis=1)
    )


@fixed
@given(shapes, caps_of.filter(lambda caps: len(caps) <= 4), st.integers(1, 5))
def test_device_rounds_are_those_of_exhaustive_search(coefficients, caps, num_rounds):
    found = device_rounds(coefficients, caps, num_rounds=num_rounds)
    every = np.array(list(product(*(range(1, limit + 1) for limit in counts(caps)))))
    least = bounds_of_all(coefficients, every, num_rounds).min()
    assert all(1 <= n <= limit for n, limit in zip(counts(found), counts(caps), strict=True))
    assert averaging_bound(coefficients, counts(found), num_rounds=num_rounds) == pytest.approx(
        least, rel=1e-12
    )


def most_even(limits):
    """Yield the most even allocation of each sum: always the lowest that may rises by one."""
    tau = np.ones(len(limits), dtype=int)
    yield tau.copy()
    while (free := np.flatnonzero(tau < limits)).size:
        tau[free[tau[free].argmin()]] += 1
        yield tau.copy()


@settings(fixed, max_examples=60)
@given(shapes, st.lists(st.integers(1, 60), min_size=5, max_size=12), st.integers(1, 5))
def test_many_devices_find_the_best_of_all_sums(coefficients, limits, num_rounds):
    """The search leaves out levels that cannot be best; one allocation a sum is enough, as seen above."""
    found = counts(device_rounds(coefficients, joules(*limits), num_rounds=num_rounds))
    least = bounds_of_all(coefficients, np.array(list(most_even(limits))), num_rounds).min()
    assert averaging_bound(coefficients, found, num_rounds=num_rounds) == pytest.approx(least, rel=1e-12)


@fixed
@given(shapes, caps_of, st.integers(1, 5))
def test_a_budget_binds_where_a_device_would_do_one_round_more(coefficients, caps, num_rounds):
    found = device_rounds(coefficients, caps, num_rounds=num_rounds)
    now = averaging_bound(coefficients, counts(found), num_rounds=num_rounds)
    for device, (one, limit) in enumerate(zip(found, caps, strict=True)):
        more = np.array(counts(found))
        more[device] += 1
        change = averaging_bound(coefficients, more, num_rounds=num_rounds) / now - 1 if now else 0.0
        if abs(change) > 1e-12:  # else the two sides of the comparison are rounded differently
            bound_by_budget = one.num_local_rounds == limit.num_local_rounds and change < 0
            assert one.binding == (limit.binding if bound_by_budget else "drift")


def test_some_devices_do_one_round_more_where_no_level_is_best():
    """A mean of 2.5 is best of all, tau = 2, 3: those with the larger caps work more."""
    coefficients = Coefficients(a=12.5, b=0.0, c=2.0, h=0.0)
    assert counts(device_rounds(coefficients, joules(8, 9), num_rounds=1)) == [2, 3]
    assert counts(device_rounds(coefficients, joules(9, 8), num_rounds=1)) == [3, 2]


def test_caps_are_not_used_up_where_unequal_rounds_cost_more_than_they_bring():
    noisy = Coefficients(a=100.0, b=10.0, c=0.0, h=0.0)
    found = device_rounds(noisy, joules(1, 1, 1, 50), num_rounds=10)
    assert counts(found)[:3] == [1, 1, 1]
    assert 1 < counts(found)[3] < 50
    assert [one.binding for one in found] == ["joules", "joules", "joules", "drift"]


@pytest.mark.parametrize("limit", [3, MAX_LOCAL_ROUNDS])
def test_without_drift_and_noise_every_cap_is_used_up(limit):
    assert counts(device_rounds(NEVER, joules(2, limit), num_rounds=1)) == [2, limit]


def test_unlimited_budgets_leave_all_devices_at_the_best_equal_rounds():
    coefficients = Coefficients(a=100.0, b=1.0, c=0.01, h=0.002)
    best = uniform_rounds(coefficients, joules(MAX_LOCAL_ROUNDS), num_rounds=10)
    found = device_rounds(coefficients, joules(*[MAX_LOCAL_ROUNDS] * 5), num_rounds=10)
    assert found == (best,) * 5


@fixed
@given(shapes, caps_of, st.integers(1, 5))
@example(NEVER, joules(5), 1)
def test_uniform_rounds_are_those_of_exhaustive_search(coefficients, caps, num_rounds):
    found = uniform_rounds(coefficients, caps, num_rounds=num_rounds)
    limit = min(counts(caps))
    every = np.arange(1, limit + 1)
    least = bounds_of_all(coefficients, every[:, None], num_rounds).min()
    assert 1 <= found.num_local_rounds <= limit
    assert averaging_bound(coefficients, [found.num_local_rounds], num_rounds=num_rounds) == pytest.approx(
        least, rel=1e-12
    )


def test_uniform_rounds_name_the_budget_of_the_poorest_only_if_it_binds():
    coefficients = Coefficients(a=100.0, b=1.0, c=1.0, h=0.0)  # sqrt(100 / 4) = 5
    rich, poor = LocalRounds(9, "joules"), LocalRounds(4, "seconds")
    assert uniform_rounds(coefficients, [rich, poor], num_rounds=4) == poor
    assert uniform_rounds(coefficients, [rich, rich], num_rounds=4) == LocalRounds(5, "drift")


@pytest.mark.parametrize("plan", [uniform_rounds, device_rounds])
def test_devices_that_cannot_pay_for_a_round_are_not_planned(plan):
    with pytest.raises(AssertionError, match="leave out"):
        plan(NEVER, joules(3, 0), num_rounds=1)
