"""The least probability of success and the fewest sweeps: against scans over all p, and examples."""

from dataclasses import replace
from itertools import combinations, product
from math import sqrt

import networkx as nx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_theory_contraction import GRAPHS, closed, metropolis, weight

from coordinator.weights import mixing_matrix
from protocol.theory.bounds import gossip_bound, largest_gossip_learning_rate
from protocol.theory.constants import Constants, Training
from protocol.theory.contraction import consensus_rate, contraction, laplacian_modes
from protocol.theory.minimum import (
    MinimumSuccess,
    equal_weight_minimum_success,
    minimum_success,
    minimum_success_probability,
    minimum_sweeps,
    required_consensus_rate,
)

fixed = settings(derandomize=True, deadline=None, max_examples=200)
sizes = st.floats(-2, 2).map(lambda exponent: 10**exponent)
BIPARTITE = mixing_matrix(nx.complete_bipartite_graph(5, 5), "metropolis")


def rate_at(W, p, num_sweeps=1):
    return consensus_rate(contraction(W, p), num_sweeps=num_sweeps)


@st.composite
def networks(draw):
    """Draw two to six devices with any weights, dense or not."""
    n = draw(st.integers(2, 6))
    W = np.zeros((n, n))
    for i, j in combinations(range(n), 2):
        W[i, j] = W[j, i] = draw(st.just(0.0) | st.floats(0.01, 1 / (n - 1)))
    return closed(W)


@fixed
@given(networks(), st.floats(1e-3, 1), st.integers(1, 3))
def test_p_min_is_the_first_p_of_a_scan(W, required, num_sweeps):
    p_min = minimum_success_probability(W, required, num_sweeps=num_sweeps)
    grid = np.linspace(0, 1, 201)
    enough = [rate_at(W, p, num_sweeps) >= required for p in grid]
    if p_min is None:
        assert not any(enough)
        return
    assert rate_at(W, p_min, num_sweeps) >= required - 1e-9
    assert not any(enough[: np.searchsorted(grid, p_min)])


@fixed
@given(networks())
def test_enough_is_enough_up_to_a_last_p(W):
    """What makes p_min findable: delta(p) rises, and then perhaps falls, but has no second peak."""
    rates = np.array([rate_at(W, p) for p in np.linspace(0, 1, 101)])
    peak = rates.argmax()
    assert (np.diff(rates[: peak + 1]) >= -1e-12).all()
    assert (np.diff(rates[peak:]) <= 1e-12).all()


def test_perfect_links_may_be_worse_than_failing_ones():
    """Two groups that only talk across swap their models: p = 0.7 agrees faster than p = 1."""
    assert rate_at(BIPARTITE, 1.0) == pytest.approx(5 / 9)
    assert rate_at(BIPARTITE, 0.7) > 0.75
    p_min = minimum_success_probability(BIPARTITE, 0.7)
    assert rate_at(BIPARTITE, p_min) == pytest.approx(0.7, abs=1e-9)
    assert rate_at(BIPARTITE, p_min - 0.01) < 0.7


@pytest.mark.parametrize(
    ("name", "examples"),
    [
        ("ring", (0.058, 0.166, 0.491)),
        ("ring-20", (0.209, 0.547, None)),
        ("torus", (0.016, 0.047, 0.156)),
        ("complete", (0.006, 0.017, 0.057)),
    ],
)
def test_examples(name, examples):
    """For delta_min of 0.01, 0.03 and 0.1; computed independently of this project."""
    W = mixing_matrix(nx.cycle_graph(20), "metropolis") if name == "ring-20" else metropolis(name)
    for required, expected in zip((0.01, 0.03, 0.1), examples, strict=True):
        general = minimum_success_probability(W, required)
        closed_form = equal_weight_minimum_success(laplacian_modes(W), weight=weight(W), required=required)
        if expected is None:
            assert general is closed_form is None
        else:
            assert general == pytest.approx(closed_form, abs=1e-9)
            assert general == pytest.approx(expected, abs=6e-4)


@fixed
@given(st.sampled_from(["ring", "star", "complete", "torus", "bipartite"]), st.floats(0, 1))
def test_the_closed_form_is_that_of_equal_weights(name, required):
    W = BIPARTITE if name == "bipartite" else metropolis(name)
    closed_form = equal_weight_minimum_success(laplacian_modes(W), weight=weight(W), required=required)
    general = minimum_success_probability(W, required)
    assert closed_form == (general if general is None else pytest.approx(general, abs=1e-9))


def test_a_mode_without_a_linear_root():
    """The mode mu = 2 w of the torus: p_min = delta_min / (2 mu (1 - w)), by hand."""
    assert equal_weight_minimum_success(np.array([0.4]), weight=0.2, required=0.32) == pytest.approx(0.5)


def test_nothing_is_required_of_links_where_nothing_need_agree():
    assert minimum_success_probability(metropolis("ring"), 0.0) == 0
    assert minimum_success_probability(np.ones((1, 1)), 0.5) == 0
    assert equal_weight_minimum_success(laplacian_modes(metropolis("ring")), weight=1 / 3, required=0.0) == 0
    assert minimum_success_probability(metropolis("complete"), 1.0) == pytest.approx(1)
    assert minimum_success_probability(metropolis("complete"), 1.01) is None


@fixed
@given(st.floats(1e-6, 0.999) | st.just(1.0), st.floats(0, 0.999))
def test_sweeps_are_enough_and_one_less_is_not(rho, required):
    q = minimum_sweeps(rho, required)
    if q is None:
        assert rho == 1
        assert required > 0
        return
    assert consensus_rate(rho, num_sweeps=q) >= required
    assert q == 1 or consensus_rate(rho, num_sweeps=q - 1) < required


@pytest.mark.parametrize(
    ("rho", "required", "num_sweeps"),
    [(0.5, 0.75, 2), (0.5, 0.76, 3), (0.9, 0.0, 1), (0.0, 1.0, 1), (0.5, 1.0, None), (0.0, 1.1, None)],
)
def test_sweeps_by_hand(rho, required, num_sweeps):
    assert minimum_sweeps(rho, required) == num_sweeps


def test_rates_that_sweeps_reach_exactly_take_no_sweep_more():
    """The logarithms of many of these are rounded upwards."""
    for rho, q in product(np.linspace(0.05, 0.95, 19).tolist(), range(1, 10)):
        assert minimum_sweeps(rho, consensus_rate(rho, num_sweeps=q)) == q


TASK = Constants(smoothness=2.0, gradient_variance=3.0, heterogeneity=5.0, initial_gap=7.0)
TRAINING = Training(learning_rate=0.001, num_devices=10, num_local_rounds=3, num_rounds=40_000)


def test_the_required_rate_by_hand():
    left = 0.5 - 2 * 7 / (0.001 * 40_000 * 3) - 2 * 0.001 * 3 / 10
    by_drift = 0.002 * sqrt((80 * 9 * 5 + 40 * 3 * 3) / left)
    assert required_consensus_rate(TASK, TRAINING, target=0.5) == pytest.approx(by_drift)
    by_step = 4 * sqrt(10) * 0.002 * 3
    assert required_consensus_rate(TASK, TRAINING, target=50.0) == pytest.approx(by_step)
    assert required_consensus_rate(TASK, TRAINING, target=0.117) is None


@fixed
@given(st.floats(0.13, 100))
def test_the_required_rate_is_where_b2_begins_to_meet_the_target(target):
    required = required_consensus_rate(TASK, TRAINING, target=target)
    bound = gossip_bound(TASK, TRAINING, consensus_rate=required)
    limit = largest_gossip_learning_rate(TASK, num_local_rounds=3, consensus_rate=required)
    assert bound <= target * (1 + 1e-9)
    assert TRAINING.learning_rate <= limit * (1 + 1e-12)
    assert bound == pytest.approx(target) or TRAINING.learning_rate == pytest.approx(limit)


def test_without_noise_and_heterogeneity_only_the_learning_rate_requires_agreement():
    alike = replace(TASK, gradient_variance=0.0, heterogeneity=0.0)
    required = required_consensus_rate(alike, TRAINING, target=14 / 120 + 1e-9)
    assert required == pytest.approx(4 * sqrt(10) * 0.002 * 3)
    assert required_consensus_rate(alike, TRAINING, target=0.1) is None


@pytest.mark.parametrize("name", GRAPHS)
def test_links_of_least_success_meet_the_target(name):
    W = metropolis(name)
    found = minimum_success(TASK, TRAINING, W, target=0.9)
    assert found.num_sweeps is found.learning_rate is None
    at_least = gossip_bound(TASK, TRAINING, consensus_rate=rate_at(W, found.probability))
    assert at_least == pytest.approx(0.9) or rate_at(W, found.probability) == pytest.approx(
        4 * sqrt(10) * 0.002 * 3
    )


def test_says_what_would_help_where_no_link_is_good_enough():
    """On a ring of 20, delta(1) = 0.064: more sweeps, or a lower learning rate."""
    W = mixing_matrix(nx.cycle_graph(20), "metropolis")
    training = replace(TRAINING, learning_rate=0.002, num_rounds=400_000)
    found = minimum_success(TASK, training, W, target=0.5)
    assert found.probability is None
    more = minimum_success(TASK, training, W, target=0.5, num_sweeps=found.num_sweeps)
    assert more.probability is not None
    fewer = minimum_success(TASK, training, W, target=0.5, num_sweeps=found.num_sweeps - 1)
    assert fewer.probability is None
    assert found.learning_rate < training.learning_rate
    slower = replace(training, learning_rate=found.learning_rate)
    assert minimum_success(TASK, slower, W, target=0.5).probability is not None


def test_promises_nothing_where_nothing_helps():
    hopeless = minimum_success(TASK, replace(TRAINING, num_rounds=1), metropolis("ring"), target=0.01)
    assert hopeless == MinimumSuccess(probability=None)
    apart = closed(np.kron(np.eye(2), [[0, 0.5], [0.5, 0]]))
    assert minimum_success(TASK, TRAINING, apart, target=0.5) == MinimumSuccess(probability=None)
