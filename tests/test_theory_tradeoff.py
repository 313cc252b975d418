"""The trade-off behind every choice of local rounds: its root, and its best whole numbers by brute force."""

from math import inf

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from protocol.theory.constants import MAX_LOCAL_ROUNDS, MAX_ROUNDS
from protocol.theory.tradeoff import Resource, Tradeoff, best_local_rounds, best_pair, stationary_point

fixed = settings(derandomize=True, deadline=None, max_examples=300)
sizes = st.floats(-3, 3).map(lambda exponent: 10**exponent)
quarters = st.integers(1, 40).map(lambda n: n / 4)  # exact in binary: no doubt about what a budget affords


def value(tradeoff, tau, num_rounds):
    return tradeoff.gain / (num_rounds * tau) + tradeoff.linear * tau + tradeoff.quadratic * tau**2


@st.composite
def tradeoffs(draw):
    prices = st.just(0.0) | st.floats(-2, 1).map(lambda exponent: 10**exponent)
    gain, c, h = 10 ** draw(st.floats(-1, 4)), draw(prices), draw(prices)
    return Tradeoff(gain=gain, linear=c - h, quadratic=h)


@fixed
@given(sizes, st.floats(-1, 1e6), sizes)
@example(1.0, -1.0, 1e-9)
@example(1e-9, 0.0, 1e12)
def test_the_root_is_that_of_the_cubic(quadratic, ratio, pull):
    linear = quadratic * ratio
    root = stationary_point(linear=linear, quadratic=quadratic, pull=pull)
    upper = 1 + (pull / (2 * quadratic)) ** (
        1 / 3
    )  # where the cubic is positive whatever linear >= -quadratic
    expected = brentq(
        lambda tau: 2 * quadratic * tau**3 + linear * tau**2 - pull, 0, upper, xtol=1e-300, rtol=1e-14
    )
    assert root == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("linear", "quadratic", "pull", "root"),
    [
        (0.25, 0.0, 4.0, 4.0),  # sqrt(pull / linear)
        (0.0, 0.5, 27.0, 3.0),  # (pull / 2 quadratic)^(1/3)
        (1.0, 1.0, 3.0, 1.0),  # 2 + 1 = 3
        (0.0, 0.0, 1.0, inf),
        (1.0, 0.0, 0.0, 0.0),
        (1.0, 1.0, 0.0, 0.0),
        (-1.0, 2.0, 0.0, 0.25),
        (1e-150, 1e-150, 3e-150, 1.0),  # squares and cubes of these are no numbers
        (1e150, 0.5, 1e-150, 1e-150),
        (-1.0, 1.0, 1e-223, 0.5),
        (-1.0, 1.0, 5e-324, 0.5),
        (1.0, 1e-300, 4.0, 2.0),
    ],
)
def test_roots_by_hand(linear, quadratic, pull, root):
    assert stationary_point(linear=linear, quadratic=quadratic, pull=pull) == pytest.approx(root, rel=1e-12)


@fixed
@given(tradeoffs(), st.integers(1, 10))
def test_best_local_rounds_for_given_rounds_are_those_of_exhaustive_search(tradeoff, num_rounds):
    assume(tradeoff.linear or tradeoff.quadratic)
    best = best_local_rounds(tradeoff, num_rounds=num_rounds)
    everything = np.arange(1, 2001)  # no root is larger: sqrt(gain / linear) <= 1e3
    least = value(tradeoff, everything, num_rounds).min()
    assert value(tradeoff, best, num_rounds) == pytest.approx(
        least, rel=1e-12, abs=1e-12 * tradeoff.quadratic
    )


def test_without_drift_there_is_no_end_of_local_rounds():
    free = Tradeoff(gain=1.0, linear=0.0, quadratic=0.0)
    assert best_local_rounds(free, num_rounds=1) == MAX_LOCAL_ROUNDS
    almost_free = Tradeoff(gain=1.0, linear=1e-14, quadratic=0.0)
    assert best_local_rounds(almost_free, num_rounds=1) == MAX_LOCAL_ROUNDS


@st.composite
def purses(draw):
    """Draw up to three resources of which at least the first is finite and asked for."""
    prices = st.just(0.0) | quarters
    first = Resource(budget=draw(quarters) * 4, local_round=draw(quarters), aggregation=draw(prices))
    more = [
        Resource(budget=draw(st.just(inf) | quarters) * 4, local_round=draw(prices), aggregation=draw(prices))
        for _ in range(draw(st.integers(0, 2)))
    ]
    return [first, *more]


def fits(resource, tau, num_rounds):
    return num_rounds * (tau * resource.local_round + resource.aggregation) <= resource.budget


@fixed
@given(tradeoffs(), purses(), st.integers(1, 200))
def test_best_pairs_are_those_of_exhaustive_search(tradeoff, resources, limit):
    tau = np.arange(1, limit + 1)[:, None]
    num_rounds = np.arange(1, 641)  # 160 to spend on at least 0.25 at a time
    allowed = np.all([fits(one, tau, num_rounds) for one in resources], axis=0)
    best = best_pair(tradeoff, resources, max_local_rounds=limit)
    if not allowed.any():
        assert best is None
        return
    assert allowed[best.num_local_rounds - 1, best.num_rounds - 1]
    assert best.value == pytest.approx(value(tradeoff, best.num_local_rounds, best.num_rounds), rel=1e-12)
    least = np.where(allowed, value(tradeoff, tau, num_rounds), inf).min()
    assert best.value == pytest.approx(least, rel=1e-12, abs=1e-12 * tradeoff.quadratic)
    named = resources[best.resource]
    assert not fits(named, best.num_local_rounds, best.num_rounds + 1), (
        "the resource named allows more rounds"
    )


def test_a_pair_that_is_not_paid_for_has_all_the_rounds_there_are():
    free = Resource(budget=1.0, local_round=0.0, aggregation=0.0)
    tradeoff = Tradeoff(gain=1.0, linear=1.0, quadratic=0.0)
    assert best_pair(tradeoff, [free])[:2] == (1, MAX_ROUNDS)


def test_an_empty_budget_affords_nothing():
    tradeoff = Tradeoff(gain=1.0, linear=1.0, quadratic=0.0)
    assert best_pair(tradeoff, [Resource(budget=0.0, local_round=0.0, aggregation=0.0)]) is None
