"""Means and their intervals, by hand, against scipy, and by how often they hold."""

from math import isnan, sqrt

import numpy as np
import pytest
from scipy import stats

from coordinator.sweep.intervals import Estimate, estimate


def test_by_hand():
    # 1, 2, 3: mean 2, s = 1, and Student's table has 4.303 for 95 % and 2 degrees of freedom.
    found = estimate([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half_width == pytest.approx(4.303 / sqrt(3), rel=1e-3)
    # Two values: s = |a - b| / sqrt(2), and 12.706 for one degree of freedom.
    assert estimate([0.0, 2.0]).half_width == pytest.approx(12.706, rel=1e-4)


@pytest.mark.parametrize("confidence", [0.9, 0.95, 0.99])
def test_as_scipy_has_it(confidence):
    rng = np.random.default_rng(4)
    for n in (2, 3, 5, 30):
        values = rng.normal(7, 3, n)
        found = estimate(values.tolist(), confidence=confidence)
        low, high = stats.t.interval(confidence, n - 1, values.mean(), stats.sem(values))
        assert found.mean - found.half_width == pytest.approx(low, rel=1e-12)
        assert found.mean + found.half_width == pytest.approx(high, rel=1e-12)
        assert found.n == n


def test_an_interval_holds_as_often_as_it_says():
    rng = np.random.default_rng(5)
    num_trials = 4000
    held = 0
    for values in rng.normal(1.5, 2.0, (num_trials, 3)).tolist():
        found = estimate(values)
        held += abs(found.mean - 1.5) <= found.half_width
    # A count of Bernoulli trials: within 2.58 standard deviations, which is its 99 % interval.
    assert abs(held - 0.95 * num_trials) < 2.58 * sqrt(num_trials * 0.95 * 0.05)


def test_one_value_has_no_interval_and_none_have_no_mean():
    assert estimate([0.25]) == Estimate(0.25, None, 1)
    assert estimate([]) is None


def test_values_that_are_the_same_have_an_interval_of_no_width():
    assert estimate([2.5] * 4) == Estimate(2.5, 0.0, 4)


@pytest.mark.parametrize("broken", [float("nan"), float("inf"), -float("inf")])
def test_a_value_that_is_not_finite_is_not_averaged_away(broken):
    found = estimate([1.0, broken])
    assert isnan(found.mean)
    assert isnan(found.half_width)
    assert found.n == 2
    alone = estimate([broken])
    assert isnan(alone.mean)
    assert alone.half_width is None
