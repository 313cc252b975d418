"""Noise of analog gossip: what is sent, tolerated and damped; and the choice between digital and analog."""

from dataclasses import replace
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from test_theory_contraction import GRAPHS, closed, metropolis

from protocol.theory.bounds import analog_bound, gossip_bound
from protocol.theory.constants import MAX_ROUNDS, Constants, Training
from protocol.theory.contraction import contraction
from protocol.theory.noise import best_damping, noise_power, tolerable_noise
from protocol.theory.scheme import Candidate, best_candidate, forecast

fixed = settings(derandomize=True, deadline=None, max_examples=200)
TASK = Constants(smoothness=2.0, gradient_variance=3.0, heterogeneity=5.0, initial_gap=7.0)
TRAINING = Training(learning_rate=0.001, num_devices=10, num_local_rounds=3, num_rounds=40_000)


def test_noise_power_by_hand():
    """The sender that needs the most power sets the scale: 0.25^2 * 8 / 2 against 0.5^2 * 4 / 10."""
    power = noise_power(np.array([0.25, 0.5]), np.array([8.0, 4.0]), np.array([2.0, 10.0]))
    assert power == pytest.approx(0.25)
    assert noise_power(np.array([]), np.array([]), np.array([])) == 0


def test_noise_power_is_that_of_a_simulated_receiver():
    """Truncated inversion over 200 blocks of d symbols: everybody within mean power 1, one at it."""
    rng, d = np.random.default_rng(1), 1000
    h = (rng.standard_normal(4) + 1j * rng.standard_normal(4)) / sqrt(2)
    W, s, sigma_sq = rng.uniform(0.1, 0.3, 4), rng.standard_normal((4, d)), 0.05
    symbols = s[:, ::2] + 1j * s[:, 1::2]
    nu_sq = noise_power(W, (s**2).sum(axis=1), np.abs(h) ** 2 / sigma_sq)
    gamma = d * sigma_sq / (2 * nu_sq)
    sent = sqrt(gamma) * W[:, None] / h[:, None] * symbols
    assert (np.abs(sent) ** 2).mean(axis=1).max() == pytest.approx(1)
    z = rng.standard_normal((200, d // 2, 2)).view(complex)[..., 0] * sqrt(sigma_sq / 2)
    errors = ((h[:, None] * sent).sum(axis=0) + z) / sqrt(gamma) - (W[:, None] * symbols).sum(axis=0)
    # 200,000 real numbers: a standard error of 0.3 %.
    assert (np.abs(errors) ** 2).sum(axis=1).mean() == pytest.approx(nu_sq, rel=0.01)


@fixed
@given(st.floats(0.13, 100), st.floats(0.03, 1))
def test_the_tolerable_noise_is_where_b3_meets_the_target(target, rate):
    total = tolerable_noise(TASK, TRAINING, consensus_rate=rate, target=target)
    bound = analog_bound(TASK, TRAINING, consensus_rate=rate, noise_power=total / TRAINING.num_rounds)
    if gossip_bound(TASK, TRAINING, consensus_rate=rate) >= target:
        assert total == 0
    else:
        assert bound == pytest.approx(target)


def test_without_mixing_no_noise_is_tolerable():
    assert tolerable_noise(TASK, TRAINING, consensus_rate=0.0, target=1e9) == 0


powers = st.floats(-12, 6).map(lambda exponent: 10**exponent)


@fixed
@given(
    powers,
    st.floats(0.05, 1),
    st.integers(1, 2000),
    st.sampled_from([replace(TASK, smoothness=3.0), replace(TASK, heterogeneity=0.0)]),
)
def test_the_best_damping_is_that_of_an_optimiser(nu_sq, rate, num_devices, task):
    """B3 with g delta for delta and g^2 nu^2 for nu^2, over those g with which it holds."""
    training = replace(TRAINING, num_devices=num_devices)

    def bound(g):
        return analog_bound(task, training, consensus_rate=g * rate, noise_power=g**2 * nu_sq)

    lowest = 4 * sqrt(10) * 0.001 * task.smoothness * 3 / rate
    g = best_damping(task, training, consensus_rate=rate, noise_power=nu_sq)
    if lowest >= 1:
        assert g == 1
        return
    assert lowest * (1 - 1e-12) <= g <= 1
    found = minimize_scalar(bound, bounds=(lowest, 1), options={"xatol": 1e-10})
    assert bound(g) <= min(found.fun, bound(lowest), bound(1.0)) * (1 + 1e-9)


def test_damping_in_closed_form_where_one_kind_of_noise_dominates():
    drift = 0.002**2 * (80 * 9 * 5 + 40 * 3 * 3)
    few = replace(TRAINING, num_devices=1, learning_rate=0.001)
    rate, nu_sq = 0.9, 1e-3
    by_mean = (drift * 0.001 * 3 * 1 / (rate**2 * nu_sq * 2)) ** 0.25
    assert best_damping(TASK, few, consensus_rate=rate, noise_power=nu_sq) == pytest.approx(by_mean, rel=0.02)
    many = replace(few, num_devices=10**9)
    by_spread = (0.7 * drift / (4 * 1e-1 * rate)) ** (1 / 3)
    assert best_damping(TASK, many, consensus_rate=rate, noise_power=1e-1) == pytest.approx(
        by_spread, rel=1e-4
    )


def test_without_noise_nothing_is_damped_and_without_drift_as_much_as_b3_allows():
    assert best_damping(TASK, TRAINING, consensus_rate=0.5, noise_power=0.0) == 1
    alike = replace(TASK, gradient_variance=0.0, heterogeneity=0.0)
    lowest = 4 * sqrt(10) * 0.001 * 2 * 3 / 0.5
    assert best_damping(alike, TRAINING, consensus_rate=0.5, noise_power=1.0) == pytest.approx(lowest)


@pytest.mark.parametrize("name", GRAPHS)
@pytest.mark.parametrize("p", [1.0, 0.6, 0.2])
@pytest.mark.parametrize("g", [0.9, 0.5, 0.1, 0.01])
def test_damped_mixing_agrees_at_least_at_g_times_the_rate(name, p, g):
    W = metropolis(name)
    damped = closed(g * (W - np.diag(np.diag(W))))
    assert 1 - contraction(damped, p) >= g * (1 - contraction(W, p)) - 1e-12


DIGITAL = Candidate(scheme="digital", consensus_rate=0.2, round_cost=10.0)
ANALOG = Candidate(scheme="analog", consensus_rate=0.15, round_cost=1.0, noise_power=1e-4)


def test_a_forecast_is_the_bound_after_the_rounds_that_are_paid():
    found = forecast(TASK, TRAINING, ANALOG, budget=100.9)
    expected = analog_bound(TASK, replace(TRAINING, num_rounds=100), consensus_rate=0.15, noise_power=1e-4)
    assert found == (ANALOG, 100, expected)
    assert forecast(TASK, TRAINING, DIGITAL, budget=10.0).bound < inf  # one round is a run
    assert forecast(TASK, TRAINING, replace(ANALOG, round_cost=0.0), budget=1.0).num_rounds == MAX_ROUNDS


@pytest.mark.parametrize(
    ("candidate", "budget"),
    [
        (DIGITAL, 9.9),
        (replace(DIGITAL, consensus_rate=0.07), 100.0),  # eta <= 0.0009
        (replace(DIGITAL, consensus_rate=0.0), 100.0),
    ],
)
def test_there_is_no_forecast_where_no_bound_holds(candidate, budget):
    assert forecast(TASK, TRAINING, candidate, budget=budget).bound == inf
    assert best_candidate(TASK, TRAINING, [candidate], budget=budget) is None
    other = best_candidate(TASK, TRAINING, [candidate, ANALOG], budget=budget)
    assert other.candidate.scheme == "analog"


def test_analog_while_the_budget_is_short_and_digital_where_noise_would_stay():
    """Ten times as many rounds now, or no floor of noise later."""
    short, long = (best_candidate(TASK, TRAINING, [DIGITAL, ANALOG], budget=budget) for budget in (1e4, 1e6))
    assert short.candidate.scheme == "analog"
    assert long.candidate.scheme == "digital"
    clean = replace(ANALOG, noise_power=0.0, consensus_rate=0.2)
    assert best_candidate(TASK, TRAINING, [DIGITAL, clean], budget=1e6).candidate.scheme == "analog"
