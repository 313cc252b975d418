"""Local rounds and rounds together: the closed form against an optimiser, whole numbers exhaustively."""

from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from protocol.theory.bounds import Coefficients, averaging_bound
from protocol.theory.caps import Budget, RoundCosts, cap
from protocol.theory.joint import joint_rounds, relaxed_joint_rounds

fixed = settings(derandomize=True, deadline=None, max_examples=200)
weights = st.floats(-3, 2).map(lambda exponent: 10**exponent)
shapes = st.builds(Coefficients, a=weights, b=weights, c=weights, h=st.just(0.0) | weights)
quarters = st.integers(1, 20).map(lambda n: n / 4)  # exact in binary: no doubt about what a budget affords


def bound(coefficients, tau, num_rounds):
    """B1 with equal local rounds, real or whole."""
    return (
        coefficients.a / (num_rounds * tau)
        + coefficients.b
        + coefficients.c * (tau - 1)
        + coefficients.h * tau * (tau - 1)
    )


@fixed
@given(shapes, st.floats(0.01, 20), st.floats(22, 1e4))
def test_the_relaxed_pair_is_the_minimum_under_the_budget(coefficients, price, budget):
    best = relaxed_joint_rounds(coefficients, affordable=budget, aggregation_price=price)
    assert best.num_local_rounds >= 1
    assert best.num_rounds >= 1 - 1e-12
    assert best.num_rounds * (best.num_local_rounds + price) == pytest.approx(budget, rel=1e-12)
    found = minimize_scalar(
        lambda tau: bound(coefficients, tau, budget / (tau + price)),
        bounds=(1, budget - price),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert bound(coefficients, *best) <= found.fun * (1 + 1e-12)


def test_the_closed_form_without_heterogeneity():
    coefficients = Coefficients(a=50.0, b=1.0, c=0.02, h=0.0)
    tau = sqrt(50 * 6 / (0.02 * 500))
    best = relaxed_joint_rounds(coefficients, affordable=500.0, aggregation_price=6.0)
    assert best == pytest.approx((tau, 500 / (6 + tau)), rel=1e-12)


def test_free_aggregation_means_one_local_round_and_dear_aggregation_many():
    coefficients = Coefficients(a=50.0, b=1.0, c=0.02, h=0.0)
    assert relaxed_joint_rounds(coefficients, affordable=500.0, aggregation_price=0.0) == (1, 500)
    assert relaxed_joint_rounds(coefficients, affordable=500.0, aggregation_price=499.0) == (1, 1)
    assert relaxed_joint_rounds(coefficients, affordable=500.0, aggregation_price=499.5) is None


@st.composite
def fleets(draw):
    budget = st.builds(
        Budget, energy_j=quarters.map(lambda j: 8 * j), air_s=quarters.map(lambda s: 8 * s) | st.just(inf)
    )
    costs = st.builds(
        RoundCosts, local_j=quarters, local_air_s=quarters, aggregation_j=quarters, aggregation_air_s=quarters
    )
    return draw(st.lists(st.tuples(budget, costs), min_size=1, max_size=3))


@fixed
@given(shapes, fleets())
def test_whole_pairs_are_those_of_exhaustive_search(coefficients, fleet):
    budgets, costs = zip(*fleet, strict=True)
    tau, num_rounds = np.arange(1, 161)[:, None], np.arange(1, 81)  # 40 joules for at least 0.25, and 0.5
    allowed = np.all(
        [
            (num_rounds * (tau * cost.local_j + cost.aggregation_j) <= budget.energy_j)
            & (num_rounds * (tau * cost.local_air_s + cost.aggregation_air_s) <= budget.air_s)
            for budget, cost in fleet
        ],
        axis=0,
    )
    best = joint_rounds(coefficients, budgets, costs)
    if not allowed.any():
        assert best is None
        return
    assert allowed[best.num_local_rounds - 1, best.num_rounds - 1]
    least = np.where(allowed, bound(coefficients, tau, num_rounds), inf).min()
    found = averaging_bound(coefficients, [best.num_local_rounds], num_rounds=best.num_rounds)
    assert found == pytest.approx(least, rel=1e-12)


def test_names_the_device_and_the_budget_that_allow_no_more_rounds():
    coefficients = Coefficients(a=50.0, b=1.0, c=0.02, h=0.0)
    costs = RoundCosts(local_j=1.0, local_air_s=1.0, aggregation_j=2.0, aggregation_air_s=2.0)
    rich, late, poor = Budget(energy_j=500.0), Budget(energy_j=500.0, air_s=60.0), Budget(energy_j=50.0)
    assert joint_rounds(coefficients, [rich, late], [costs] * 2)[2:] == (1, "seconds")
    found = joint_rounds(coefficients, [rich, late, poor], [costs] * 3)
    assert found[2:] == (2, "joules")
    assert cap(poor, costs, num_rounds=found.num_rounds).num_local_rounds >= found.num_local_rounds
