"""The least probability of correct communication, or the least number of sweeps, that meets a target.

B2 stays below the target where the consensus rate reaches delta_min: sufficient, not necessary. Derived for
this project from the model of Yan and Li, arXiv 2308.06496.

In p, the square norm v^T E[W~^T W~] v of a unit vector v without a mean is 1 - 2 B p + C p^2 with
B = v^T (Lw - D) v >= 0, C = v^T (Lw^2 - 2 D) v, Lw = I - W, D = sum_e W_e^2 L_e. It is convex in p or falls,
so those p where it is at most 1 - delta_min are an interval; so is their intersection over all v, where
delta(p) >= delta_min. delta(p) itself need not rise up to p = 1: on dense bipartite graphs it falls again.
"""

from dataclasses import dataclass, replace
from math import ceil, inf, log, sqrt

import numpy as np

from protocol.theory.bounds import (
    GOSSIP_STEP_LIMIT,
    Floats,
    best_gossip_learning_rate,
    drift_power,
    gossip_bound,
)
from protocol.theory.constants import Constants, Training
from protocol.theory.contraction import (
    consensus_rate,
    contraction,
    laplacian,
    mean_square_mixing,
)

_TOLERANCE = 1e-12
_MAX_CUTS = 200


@dataclass(frozen=True, kw_only=True)
class MinimumSuccess:
    """The least p that suffices; where there is none, what would help at p = 1."""

    probability: float | None
    """p_min, in [0, 1]; None: no p is enough."""
    num_sweeps: int | None = None
    """Without p_min: sweeps that are enough over links without loss; None: no number is."""
    learning_rate: float | None = None
    """Without p_min: a learning rate with which links without loss are enough; None: none is."""


def minimum_success(
    constants: Constants, training: Training, W: Floats, *, target: float, num_sweeps: int = 1
) -> MinimumSuccess:
    """Return the least success probability of all links with which B2 stays below the target."""
    required = required_consensus_rate(constants, training, target=target)
    if required is not None:
        probability = minimum_success_probability(W, required, num_sweeps=num_sweeps)
        if probability is not None:
            return MinimumSuccess(probability=probability)
    perfect = contraction(W, 1.0)
    return MinimumSuccess(
        probability=None,
        num_sweeps=None if required is None else minimum_sweeps(perfect, required),
        learning_rate=_learning_rate_that_suffices(
            constants, training, rate=consensus_rate(perfect, num_sweeps=num_sweeps), target=target
        ),
    )


def required_consensus_rate(constants: Constants, training: Training, *, target: float) -> float | None:
    """Return delta_min; None where not even exact averaging brings B2 below the target.

    delta_min = max(4 sqrt(10) eta L tau, eta L sqrt((80 tau^2 zeta^2 + 40 tau sigma^2) / eps_r)),
    eps_r = target - 2 Delta / (eta K tau) - L eta sigma^2 / N. Above 1 no consensus rate is enough.
    """
    eta, tau = training.learning_rate, training.num_local_rounds
    step = eta * constants.smoothness
    left = target - gossip_bound(constants, training, consensus_rate=inf)
    if left <= 0:
        return None
    return max(GOSSIP_STEP_LIMIT * step * tau, step * sqrt(drift_power(constants, tau) / left))


def minimum_success_probability(W: Floats, required: float, *, num_sweeps: int = 1) -> float | None:
    """Return the least p with 1 - rho(p)^q >= required; None if there is none in [0, 1].

    A vector v that shrinks too little at p proves that p_min is at least where v's parabola meets the
    requirement, or that there is no p_min: go there, take the vector that now shrinks least, and repeat.
    """
    if required <= 0:
        return 0.0
    if required > 1:
        return None
    n = len(W)
    if n == 1:
        return 0.0
    per_sweep = 1 - (1 - required) ** (1 / num_sweeps)
    Lw, D = np.eye(n) - W, laplacian(W**2)
    lines, parabolas, J = Lw - D, Lw @ Lw - 2 * D, np.full_like(W, 1 / n)
    v: Floats = np.linalg.eigh(lines + J * n)[1][:, 0]  # J n moves the mean's zero out of the way
    p = 0.0
    for _ in range(_MAX_CUTS):
        cut = _least_root(float(v @ lines @ v), float(v @ parabolas @ v), per_sweep)
        if cut is None or not p - _TOLERANCE <= cut <= 1 + _TOLERANCE:
            return None
        p = min(max(cut, p), 1.0)
        values, vectors = np.linalg.eigh(mean_square_mixing(W, p) - J)
        if 1 - values[-1] >= per_sweep - _TOLERANCE:
            return p
        v = vectors[:, -1]
    raise AssertionError("cutting parabolas did not converge")


def equal_weight_minimum_success(modes: Floats, *, weight: float, required: float) -> float | None:
    """p_min in closed form where all edges have the same weight w, for one sweep; None if there is none.

    p_min = delta_min / (mu (1 - w) + sqrt(mu^2 (1 - w)^2 + mu (2 w - mu) delta_min)) of the binding mode
    mu: the largest over the `laplacian_modes`, if all modes shrink enough there.
    """
    if required <= 0:
        return 0.0
    lines, parabolas = modes * (1 - weight), modes * (modes - 2 * weight)
    p = 0.0
    for line, parabola in zip(lines.tolist(), parabolas.tolist(), strict=True):
        root = _least_root(line, parabola, required)
        if root is None or root > 1 + _TOLERANCE:
            return None
        p = max(p, min(root, 1.0))
    shrinking = 2 * p * lines - p**2 * parabolas
    return p if (shrinking >= required - _TOLERANCE).all() else None


def minimum_sweeps(contraction: float, required: float) -> int | None:
    """Return the least q with 1 - rho^q >= required, ceil(ln(1 - delta_min) / ln rho); None if none."""
    if consensus_rate(contraction) >= required:
        return 1
    if required >= 1 or contraction >= 1:
        return None
    q = ceil(log(1 - required) / log(contraction))
    # The quotient may round to the other side of a whole number.
    return q - 1 if consensus_rate(contraction, num_sweeps=q - 1) >= required else q


def _least_root(line: float, parabola: float, required: float) -> float | None:
    """Least p >= 0 with 2 line p - parabola p^2 = required; None if there is none."""
    discriminant = line**2 - parabola * required
    if line <= 0 or discriminant < 0:
        return None
    return required / (line + sqrt(discriminant))


def _learning_rate_that_suffices(
    constants: Constants, training: Training, *, rate: float, target: float
) -> float | None:
    if rate <= 0:
        return None
    best = best_gossip_learning_rate(constants, training, consensus_rate=rate)
    bound = gossip_bound(constants, replace(training, learning_rate=best), consensus_rate=rate)
    return best if bound <= target else None
