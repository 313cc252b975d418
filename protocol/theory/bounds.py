"""Convergence bounds: what the mean of E||grad F||^2 over a run is at most.

B1 exact averaging of normalised updates, B2 digital gossip, B3 analog gossip. Derived for this project from
the models of Yan and Li, arXiv 2403.20075 (B1) and arXiv 2308.06496 (B2, B3); docs/theory.md has the
derivations. Used to rank choices, not to predict losses. Symbols as in protocol/theory/constants.py;
delta is the consensus rate of protocol/theory/contraction.py.
"""

from dataclasses import dataclass
from math import inf, sqrt
from typing import Final, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from protocol.theory.constants import Constants, Training
from protocol.theory.tradeoff import stationary_point

Floats: TypeAlias = npt.NDArray[np.float64]
Condition: TypeAlias = Literal["eta L tbar", "eta^2 L^2 tau_max (tau_max - 1)", "eta^2 L^2 A"]

GOSSIP_STEP_LIMIT: Final = 4 * sqrt(10)
"""B2 needs eta <= delta / (4 sqrt(10) L tau)."""


@dataclass(frozen=True, kw_only=True)
class Coefficients:
    """The shape of B1: a / (K tbar) + b tbar m_inv + c (tbar - 1) + h A, see `averaging_bound`."""

    a: float
    """4 Delta / eta: what is left to learn."""
    b: float
    """4 L eta sigma^2 / N: noise that averaging leaves."""
    c: float
    """4 L^2 eta^2 sigma^2: noise that local rounds collect."""
    h: float
    """(32/3) L^2 eta^2 zeta^2: drift towards the own data."""


class Violation(NamedTuple):
    """A condition of B1 that does not hold: its left side, and what that may be at most."""

    condition: Condition
    value: float
    limit: float


def coefficients(constants: Constants, *, learning_rate: float, num_devices: int) -> Coefficients:
    """Return the coefficients of B1."""
    L, eta = constants.smoothness, learning_rate
    return Coefficients(
        a=4 * constants.initial_gap / eta,
        b=4 * L * eta * constants.gradient_variance / num_devices,
        c=4 * L**2 * eta**2 * constants.gradient_variance,
        h=32 / 3 * L**2 * eta**2 * constants.heterogeneity,
    )


def averaging_bound(coefficients: Coefficients, local_rounds: npt.ArrayLike, *, num_rounds: int) -> float:
    """B1, exact averaging of updates normalised by each device's local rounds, the same in each round.

    B1 = a / (K tbar) + b tbar m_inv + c (tbar - 1) + h A
    tbar = mean tau_i,  m_inv = mean 1 / tau_i,  A = mean tau_i (tau_i - 1)

    local_rounds: tau_i >= 1, shape (N,); with momentum FedNova's sum of step weights in its place. Holds
    where `violated_conditions` is empty, and zeta^2 for each device unless all tau_i are equal.
    """
    tau = np.asarray(local_rounds, dtype=np.float64)
    return coefficients.a / (num_rounds * float(tau.mean())) + float(_per_round(coefficients, tau))


def varying_averaging_bound(coefficients: Coefficients, local_rounds: npt.ArrayLike) -> float:
    """B1 with local rounds that vary; bounds the mean of E||grad F||^2 with weights tbar^k.

    local_rounds: tau_i^k >= 1, shape (K, N).
    """
    tau = np.asarray(local_rounds, dtype=np.float64)
    tbar = tau.mean(axis=1)
    return coefficients.a / float(tbar.sum()) + float(np.average(_per_round(coefficients, tau), weights=tbar))


def _per_round(coefficients: Coefficients, tau: Floats) -> Floats:
    assert tau.min() >= 1, "a device without local rounds is no part of the mean"
    tbar = tau.mean(axis=-1)
    drift = (tau * (tau - 1)).mean(axis=-1)
    per_round: Floats = (
        coefficients.b * tbar * (1 / tau).mean(axis=-1) + coefficients.c * (tbar - 1) + coefficients.h * drift
    )
    return per_round


def violated_conditions(
    constants: Constants, local_rounds: npt.ArrayLike, *, learning_rate: float
) -> tuple[Violation, ...]:
    """Return the conditions of B1 on the learning rate that do not hold: empty where B1 does.

    eta L tbar <= 1/2,  eta^2 L^2 tau_max (tau_max - 1) <= 1/4,  eta^2 L^2 A <= 3/32
    """
    tau = np.asarray(local_rounds, dtype=np.float64)
    step = learning_rate * constants.smoothness
    drifts = tau * (tau - 1)
    conditions = (
        Violation("eta L tbar", step * float(tau.mean()), 1 / 2),
        Violation("eta^2 L^2 tau_max (tau_max - 1)", step**2 * float(drifts.max()), 1 / 4),
        Violation("eta^2 L^2 A", step**2 * float(drifts.mean()), 3 / 32),
    )
    return tuple(condition for condition in conditions if condition.value > condition.limit)


def plain_averaging_bias(constants: Constants, local_rounds: npt.ArrayLike) -> float:
    """Return what ||grad F - grad F_plain||^2 is at most when updates are averaged without normalising.

    CV^2(tau) zeta^2, CV^2 = var(tau_i) / tbar^2: plain averaging descends on F_plain, the mean of F_i
    weighted by tau_i.
    """
    tau = np.asarray(local_rounds, dtype=np.float64)
    return float(tau.var() / tau.mean() ** 2) * constants.heterogeneity


def drift_power(constants: Constants, num_local_rounds: float) -> float:
    """80 tau^2 zeta^2 + 40 tau sigma^2: disagreement after tau local rounds, for eta = delta = 1."""
    return (
        80 * num_local_rounds**2 * constants.heterogeneity
        + 40 * num_local_rounds * constants.gradient_variance
    )


def gossip_bound(constants: Constants, training: Training, *, consensus_rate: float) -> float:
    """B2, digital gossip: bounds the mean of E||grad F||^2 at the mean model over all K tau local rounds.

    B2 = 2 Delta / (eta K tau) + L eta sigma^2 / N + L^2 eta^2 (80 tau^2 zeta^2 + 40 tau sigma^2) / delta^2

    consensus_rate: delta in (0, 1]; inf leaves the disagreement out, at 0 there is no bound: inf. Holds
    where eta <= `largest_gossip_learning_rate`.
    """
    if consensus_rate <= 0:
        return inf
    L, eta, tau = constants.smoothness, training.learning_rate, training.num_local_rounds
    return (
        2 * constants.initial_gap / (eta * training.num_rounds * tau)
        + L * eta * constants.gradient_variance / training.num_devices
        + (L * eta / consensus_rate) ** 2 * drift_power(constants, tau)
    )


def analog_bound(
    constants: Constants, training: Training, *, consensus_rate: float, noise_power: float
) -> float:
    """B3, analog gossip: B2 and what the receivers' noise adds.

    B3 = B2 + nu^2 (L / (eta tau N) + (20/7) L^2 / delta)

    noise_power: nu^2, E||n_i||^2 over all parameters, its mean over devices and rounds.
    """
    digital = gossip_bound(constants, training, consensus_rate=consensus_rate)
    if digital == inf:
        return inf
    return digital + noise_power * noise_gain(constants, training, consensus_rate=consensus_rate)


def noise_gain(constants: Constants, training: Training, *, consensus_rate: float) -> float:
    """L / (eta tau N) + (20/7) L^2 / delta: what a unit of noise power per round adds to B3."""
    L = constants.smoothness
    steps = training.learning_rate * training.num_local_rounds * training.num_devices
    return L / steps + 20 / 7 * L**2 / consensus_rate


def largest_gossip_learning_rate(
    constants: Constants, *, num_local_rounds: int, consensus_rate: float
) -> float:
    """Return the learning rate up to which B2 and B3 hold, delta / (4 sqrt(10) L tau)."""
    return consensus_rate / (GOSSIP_STEP_LIMIT * constants.smoothness * num_local_rounds)


def best_gossip_learning_rate(constants: Constants, training: Training, *, consensus_rate: float) -> float:
    """Return the learning rate with the least B2 for given tau and K, whatever `training` says of eta.

    B2 is convex in eta; its derivative vanishes at the positive root of
    2 q eta^3 + s eta^2 = 2 Delta / (K tau), s = L sigma^2 / N, q = L^2 (80 tau^2 zeta^2 + ...) / delta^2.
    """
    tau = training.num_local_rounds
    root = stationary_point(
        linear=constants.smoothness * constants.gradient_variance / training.num_devices,
        quadratic=(constants.smoothness / consensus_rate) ** 2 * drift_power(constants, tau),
        pull=2 * constants.initial_gap / (training.num_rounds * tau),
    )
    limit = largest_gossip_learning_rate(constants, num_local_rounds=tau, consensus_rate=consensus_rate)
    return min(root, limit)
