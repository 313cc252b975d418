"""The three bounds: by hand, and above what real SGD on random quadratics does."""

from dataclasses import replace
from math import inf, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from protocol.theory.bounds import (
    Coefficients,
    analog_bound,
    averaging_bound,
    best_gossip_learning_rate,
    coefficients,
    gossip_bound,
    largest_gossip_learning_rate,
    plain_averaging_bias,
    varying_averaging_bound,
    violated_conditions,
)
from protocol.theory.constants import Constants, Training
from protocol.theory.contraction import consensus_rate, contraction

fixed = settings(derandomize=True, deadline=None, max_examples=200)
CONSTANTS = Constants(smoothness=3.0, gradient_variance=3.0, heterogeneity=5.0, initial_gap=7.0)
TRAINING = Training(learning_rate=0.5, num_devices=4, num_local_rounds=3, num_rounds=10)


def test_b1_by_hand():
    """Of devices with 1, 2 and 6 local rounds: tbar = 3, m_inv = 5/9, A = 32/3."""
    shape = coefficients(CONSTANTS, learning_rate=0.5, num_devices=3)
    assert shape == Coefficients(a=56.0, b=6.0, c=27.0, h=pytest.approx(120))
    bound = averaging_bound(shape, [1, 2, 6], num_rounds=10)
    assert bound == pytest.approx(56 / 30 + 6 * 3 * 5 / 9 + 27 * 2 + 120 * 32 / 3)


def test_b1_of_rounds_that_do_not_vary_is_b1():
    shape = coefficients(CONSTANTS, learning_rate=0.5, num_devices=3)
    same = varying_averaging_bound(shape, [[1, 2, 6]] * 10)
    assert same == pytest.approx(averaging_bound(shape, [1, 2, 6], num_rounds=10))


def test_b1_of_varying_rounds_weighs_them_by_their_mean():
    """Two rounds of two devices, tbar = 1 and 3: the second counts three times."""
    shape = Coefficients(a=8.0, b=3.0, c=5.0, h=7.0)
    bound = varying_averaging_bound(shape, [[1, 1], [2, 4]])
    second = 3 * 3 * 3 / 8 + 5 * 2 + 7 * 7
    assert bound == pytest.approx(8 / 4 + (1 * 3 + 3 * second) / 4)


def test_b1_is_about_devices_that_train():
    with pytest.raises(AssertionError, match="no part of the mean"):
        averaging_bound(coefficients(CONSTANTS, learning_rate=0.1, num_devices=2), [0, 1], num_rounds=1)


@pytest.mark.parametrize(
    ("local_rounds", "step", "names"),
    [
        ([4, 4], 0.08, []),
        ([1], 0.51, ["eta L tbar"]),
        # tbar = 1.9 and A = 9; only the busiest device is beyond its limit
        ([1] * 9 + [10], 0.06, ["eta^2 L^2 tau_max (tau_max - 1)"]),
        ([10] * 4, 0.04, ["eta^2 L^2 A"]),
        ([10] * 4, 0.2, ["eta L tbar", "eta^2 L^2 tau_max (tau_max - 1)", "eta^2 L^2 A"]),
    ],
)
def test_says_which_condition_of_b1_is_violated_and_by_how_much(local_rounds, step, names):
    violated = violated_conditions(CONSTANTS, local_rounds, learning_rate=step / 3)
    assert [one.condition for one in violated] == names
    assert all(one.value > one.limit for one in violated)


def test_conditions_of_b1_by_hand():
    violated = violated_conditions(CONSTANTS, [2, 4], learning_rate=0.5)
    assert [tuple(one)[1:] for one in violated] == [(4.5, 0.5), (27.0, 0.25), (15.75, 3 / 32)]


def test_b2_and_b3_by_hand():
    drift = 80 * 9 * 5 + 40 * 3 * 3
    b2 = 2 * 7 / (0.5 * 10 * 3) + 3 * 0.5 * 3 / 4 + 9 * 0.25 * drift / 0.25**2
    assert gossip_bound(CONSTANTS, TRAINING, consensus_rate=0.25) == pytest.approx(b2)
    b3 = b2 + 0.1 * (3 / (0.5 * 3 * 4) + 20 / 7 * 9 / 0.25)
    assert analog_bound(CONSTANTS, TRAINING, consensus_rate=0.25, noise_power=0.1) == pytest.approx(b3)
    limit = largest_gossip_learning_rate(CONSTANTS, num_local_rounds=3, consensus_rate=0.25)
    assert limit == pytest.approx(0.25 / (4 * sqrt(10) * 3 * 3))


def test_without_mixing_there_is_no_bound():
    assert gossip_bound(CONSTANTS, TRAINING, consensus_rate=0.0) == inf
    assert analog_bound(CONSTANTS, TRAINING, consensus_rate=0.0, noise_power=1.0) == inf


sizes = st.floats(-2, 2).map(lambda exponent: 10**exponent)
tasks = st.builds(
    Constants, smoothness=sizes, gradient_variance=sizes, heterogeneity=sizes, initial_gap=sizes
)
trainings = st.builds(
    Training,
    learning_rate=sizes,
    num_devices=st.integers(2, 50),
    num_local_rounds=st.integers(1, 20),
    num_rounds=st.integers(1, 10_000),
)


@fixed
@given(tasks, trainings, st.floats(0.01, 1))
def test_the_best_learning_rate_is_that_of_an_optimiser(task, training, rate):
    tau = training.num_local_rounds
    limit = largest_gossip_learning_rate(task, num_local_rounds=tau, consensus_rate=rate)

    def bound(eta):
        return gossip_bound(task, replace(training, learning_rate=eta), consensus_rate=rate)

    best = best_gossip_learning_rate(task, training, consensus_rate=rate)
    assert 0 < best <= limit
    found = minimize_scalar(
        lambda log_eta: bound(np.exp(log_eta)), bounds=(np.log(limit) - 15, np.log(limit))
    )
    assert bound(best) <= found.fun * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(10))
def test_plain_averaging_is_biased_by_no_more(seed):
    """Gradients of any direction: mean and mean weighted by tau; the bound is met where they align."""
    rng = np.random.default_rng(seed)
    tau = rng.integers(1, 20, 8)
    gradients = rng.standard_normal((8, 3))
    apart = gradients - gradients.mean(axis=0)
    task = replace(CONSTANTS, heterogeneity=float((apart**2).sum(axis=1).mean()))
    bias = gradients.mean(axis=0) - np.average(gradients, axis=0, weights=tau)
    assert (bias**2).sum() <= plain_averaging_bias(task, tau)

    aligned = tau - tau.mean()
    task = replace(CONSTANTS, heterogeneity=float((aligned**2).mean()))
    bias = aligned.mean() - np.average(aligned, weights=tau)
    assert bias**2 == pytest.approx(plain_averaging_bias(task, tau))


# Simulations. F_i(x) = (x - c_i)^T A_i (x - c_i) / 2 with 0 <= A_i <= L, gradients with Gaussian noise, all
# replicas at once. zeta^2 is the largest on the way, which is all that the proofs use. Replicas leave a
# standard error of a few per cent in the mean, and no bound is tighter than a factor of 2.

NUM_REPLICAS, NUM_DEVICES, DIM, L = 32, 6, 3, 2.0


class Quadratics:
    """Random quadratics of NUM_DEVICES devices, and the largest zeta^2 met so far."""

    def __init__(self, rng, *, spread, variance):
        self.rng, self.variance = rng, variance
        bases = np.linalg.qr(rng.standard_normal((NUM_DEVICES, DIM, DIM)))[0]
        spectra = rng.uniform(0.05, 1, (NUM_DEVICES, DIM))
        spectra[:, 0] = 1
        self.hessians = L * np.einsum("nij,nj,nkj->nik", bases, spectra, bases)
        self.centres = spread * rng.standard_normal((NUM_DEVICES, DIM))
        self.mean_hessian = self.hessians.mean(axis=0)
        pulled = np.einsum("nij,nj->i", self.hessians, self.centres) / NUM_DEVICES
        self.optimum = np.linalg.solve(self.mean_hessian, pulled)
        self.heterogeneity = 0.0

    def gradients(self, x):
        """Return true gradients, each device at its own x; shape (replicas, devices, DIM)."""
        return np.einsum("nij,rnj->rni", self.hessians, x - self.centres)

    def noisy_gradients(self, x):
        noise = self.rng.standard_normal(x.shape) * sqrt(self.variance / DIM)
        return self.gradients(x) + noise

    def measure(self, mean, *, of):
        """||grad F||^2 at the mean models, shape (replicas, DIM); notes how the devices differ there."""
        own = self.gradients(np.repeat(mean[:, None], NUM_DEVICES, axis=1))
        gradient = own.mean(axis=1)
        apart = of(((own - gradient[:, None]) ** 2).sum(axis=2), axis=1)
        self.heterogeneity = max(self.heterogeneity, float(apart.max()))
        return float((gradient**2).sum(axis=1).mean())

    def constants(self, start):
        away = start - self.optimum
        return Constants(
            smoothness=L,
            gradient_variance=self.variance,
            heterogeneity=self.heterogeneity,
            initial_gap=float(away @ self.mean_hessian @ away) / 2,
        )


def drawn(seed):
    """Draw one instance: quadratics, a start, and one term of the bound or all of them at work."""
    rng = np.random.default_rng(seed)
    spread, variance, distance = rng.choice([0.0, 1.0], 3) * 10 ** rng.uniform(-1, 1, 3)
    task = Quadratics(rng, spread=spread, variance=variance)
    return task, task.optimum + (distance + 0.1) * rng.standard_normal(DIM)


@pytest.mark.parametrize("seed", range(24))
def test_b1_holds_for_normalised_updates(seed):
    task, start = drawn(seed)
    rng, num_rounds = task.rng, int(task.rng.integers(5, 60))
    tau = rng.integers(1, 9, (1 if seed % 2 else num_rounds, NUM_DEVICES))
    tau = np.broadcast_to(tau, (num_rounds, NUM_DEVICES))
    learning_rate = rng.uniform(0.3, 1) * 0.3 / (L * tau.max())
    x = np.tile(start, (NUM_REPLICAS, 1))
    measured = []
    for own in tau:
        measured.append(task.measure(x, of=np.max))
        y = np.repeat(x[:, None], NUM_DEVICES, axis=1)
        for step in range(own.max()):
            y -= learning_rate * task.noisy_gradients(y) * (step < own)[:, None]
        x = x + own.mean() * ((y - x[:, None]) / own[:, None]).mean(axis=1)
    assert not any(
        violated_conditions(task.constants(start), own, learning_rate=learning_rate) for own in tau
    )
    shape = coefficients(task.constants(start), learning_rate=learning_rate, num_devices=NUM_DEVICES)
    assert 2 * np.average(measured, weights=tau.mean(axis=1)) < varying_averaging_bound(shape, tau)


def mixing(rng, *, kind):
    """Return a mixing matrix with Metropolis weights: a ring, a star or all with all."""
    i = np.arange(NUM_DEVICES)
    links = {
        "ring": np.isin((i[:, None] - i) % NUM_DEVICES, (1, NUM_DEVICES - 1)),
        "star": (i[:, None] == 0) ^ (i == 0),
        "complete": i[:, None] != i,
    }[kind]
    degrees = links.sum(axis=1)
    W = links / (1 + np.maximum.outer(degrees, degrees))
    return W + np.diag(1 - W.sum(axis=1))


def mixed(x, W, p, rng):
    """Mix once over links that fail in both directions at once."""
    alive = np.triu(rng.random((NUM_REPLICAS, *W.shape)) < p, 1)
    weights = W * (alive | alive.transpose(0, 2, 1))
    return x + weights @ x - weights.sum(axis=2)[..., None] * x


def gossip(seed, *, noise):
    """Run one instance of gossip; return constants, training, consensus rate, noise power and the mean."""
    task, start = drawn(seed)
    rng = task.rng
    W, p = mixing(rng, kind=("ring", "star", "complete")[seed % 3]), rng.choice([1.0, rng.uniform(0.3, 1)])
    tau, num_sweeps = int(rng.integers(1, 6)), int(rng.integers(1, 3))
    rate = consensus_rate(contraction(W, p), num_sweeps=num_sweeps)
    training = Training(
        learning_rate=rate / (4 * sqrt(10) * L * tau),
        num_devices=NUM_DEVICES,
        num_local_rounds=tau,
        num_rounds=int(rng.integers(5, 40)),
    )
    noise_power = noise * 10 ** rng.uniform(-3, 0)
    x, measured = np.tile(start, (NUM_REPLICAS, NUM_DEVICES, 1)), []
    for _ in range(training.num_rounds):
        for _ in range(tau):
            measured.append(task.measure(x.mean(axis=1), of=np.mean))
            x = x - training.learning_rate * task.noisy_gradients(x)
        for _ in range(num_sweeps):
            x = mixed(x, W, p, rng)
        x = x + sqrt(noise_power / DIM) * rng.standard_normal(x.shape)
    return task.constants(start), training, rate, noise_power, float(np.mean(measured))


@pytest.mark.parametrize("seed", range(24))
def test_b2_holds_for_gossip_over_failing_links(seed):
    task, training, rate, _, measured = gossip(seed, noise=0.0)
    assert 2 * measured < gossip_bound(task, training, consensus_rate=rate)


@pytest.mark.parametrize("seed", range(24))
def test_b3_holds_for_gossip_with_noisy_receivers(seed):
    task, training, rate, noise_power, measured = gossip(seed, noise=1.0)
    assert 2 * measured < analog_bound(task, training, consensus_rate=rate, noise_power=noise_power)
