"""The one trade-off behind every choice of local rounds: few exchanges against much drift.

    f(tau, K) = gain / (K tau) + linear tau + quadratic tau^2

With given rounds K, or with K set by what a budget affords, f is convex in tau and its derivative vanishes
at the positive root of one cubic. B1 with equal local rounds, B1 per budget and B2 per budget all have this
shape; derived for this project from the models of Yan and Li, arXiv 2403.20075 and arXiv 2308.06496.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import acos, acosh, asinh, cbrt, cos, cosh, inf, sinh, sqrt
from typing import NamedTuple

import numpy as np

from protocol.theory.constants import MAX_LOCAL_ROUNDS, MAX_ROUNDS

_NEGLIGIBLE = 1e-18  # moves y by a third of it


@dataclass(frozen=True, kw_only=True)
class Tradeoff:
    """Coefficients of f: gain >= 0, quadratic >= 0, linear >= -quadratic, so that drift rises with tau."""

    gain: float
    linear: float
    quadratic: float


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A budget, and what one local round and one aggregation take of it, all in the same unit."""

    budget: float
    local_round: float
    aggregation: float


class Pair(NamedTuple):
    """So many local rounds in each of so many rounds, f there, and which resource allows no more rounds."""

    num_local_rounds: int
    num_rounds: int
    value: float
    resource: int


def stationary_point(*, linear: float, quadratic: float, pull: float) -> float:
    """Return where pull / tau + linear tau + quadratic tau^2 is least over tau > 0; inf where it only falls.

    The positive root of 2 quadratic tau^3 + linear tau^2 = pull; pull >= 0, quadratic >= 0. With t the root
    for linear = 0 and tau = t / y, y^3 = kappa y + 1: Viete's and Cardano's formulas without cancellation.
    """
    if quadratic == 0:
        return sqrt(pull / linear) if linear > 0 else inf
    t = cbrt(pull / (2 * quadratic))
    if t == 0:
        return max(0.0, -linear / (2 * quadratic))
    kappa = linear / (2 * quadratic * t)
    if abs(kappa) < _NEGLIGIBLE:
        return t
    r = sqrt(abs(kappa) / 3)
    x = 1 / (2 * r * r * r)
    if kappa < 0:
        return t / (2 * r * sinh(asinh(x) / 3))
    return t / (2 * r * (cosh(acosh(x) / 3) if x > 1 else cos(acos(x) / 3)))


def best_local_rounds(tradeoff: Tradeoff, *, num_rounds: int) -> int:
    """Return the whole tau >= 1 with the least f for given rounds: the better neighbour of the root.

    f(n + 1) < f(n) exactly where gain / (K n (n + 1)) > linear + (2 n + 1) quadratic.
    """
    pull = tradeoff.gain / num_rounds
    root = stationary_point(linear=tradeoff.linear, quadratic=tradeoff.quadratic, pull=pull)
    if root >= MAX_LOCAL_ROUNDS:
        return MAX_LOCAL_ROUNDS
    n = max(1, int(root))
    return n + (pull / (n * (n + 1)) > tradeoff.linear + (2 * n + 1) * tradeoff.quadratic)


def best_pair(
    tradeoff: Tradeoff, resources: Sequence[Resource], *, max_local_rounds: int = MAX_LOCAL_ROUNDS
) -> Pair | None:
    """Return the whole tau and K with the least f that no resource forbids; None where not even (1, 1) fits.

    K (tau local_round + aggregation) <= budget for each resource. For a given tau the most rounds are
    best, so every tau that affords one round is tried.
    """
    most = min((_most_local_rounds(resource, max_local_rounds) for resource in resources), default=0)
    if most < 1:
        return None
    tau = np.arange(1, most + 1, dtype=np.float64)
    with np.errstate(divide="ignore"):
        affordable = [one.budget / (tau * one.local_round + one.aggregation) for one in resources]
    num_rounds = np.clip(np.floor(np.min(affordable, axis=0)), 1, MAX_ROUNDS)
    f = tradeoff.gain / (num_rounds * tau) + tradeoff.linear * tau + tradeoff.quadratic * tau**2
    best = int(f.argmin())
    limiting = int(np.argmin([rounds[best] for rounds in affordable]))
    return Pair(best + 1, int(num_rounds[best]), float(f[best]), limiting)


def _most_local_rounds(resource: Resource, limit: int) -> int:
    """Local rounds that fit into one round beside its aggregation, at most `limit`."""
    left = resource.budget - resource.aggregation
    if left < resource.local_round or resource.budget <= 0:
        return 0
    return int(min(limit, left / resource.local_round)) if resource.local_round > 0 else limit
