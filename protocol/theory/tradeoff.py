"""The one trade-off behind every choice of local rounds: few exchanges against much drift.

    f(tau, K) = gain / (K tau) + linear tau + quadratic tau^2

With given rounds K, or with K set by what a budget affords, f is convex in tau and its derivative vanishes
at the positive root of one cubic. B1 with equal local rounds, B1 per budget and B2 per budget all have this
shape; derived for this project from the models of Yan and Li, arXiv 2403.20075 and arXiv 2308.06496.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import acos, cbrt, cos, inf, sqrt
from typing import NamedTuple

import numpy as np

from protocol.theory.constants import MAX_LOCAL_ROUNDS, MAX_ROUNDS


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

    The positive root of 2 quadratic tau^3 + linear tau^2 = pull; quadratic >= 0, pull >= 0. Cardano's
    formula for y = 1 / tau, which satisfies the depressed cubic y^3 = p y + q.
    """
    if quadratic == 0:
        if linear <= 0:
            return inf
        return sqrt(pull / linear)
    if pull == 0:
        return max(0.0, -linear / (2 * quadratic))
    p, q = linear / pull, 2 * quadratic / pull
    scale = max(sqrt(abs(p)), cbrt(q))  # y = scale z: no power overflows
    third, half = p / scale / scale / 3, q / scale / scale / scale / 2
    discriminant = half**2 - third**3
    if discriminant >= 0:
        u = cbrt(half + sqrt(discriminant))
        return 1 / (scale * (u + third / u))
    radius = sqrt(third)
    return 1 / (scale * 2 * radius * cos(acos(half / radius**3) / 3))


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
    per_round = np.zeros_like(tau)
    for resource in resources:
        share = (tau * resource.local_round + resource.aggregation) / resource.budget
        np.maximum(per_round, share, out=per_round)
    with np.errstate(divide="ignore"):
        num_rounds = np.clip(np.floor(1 / per_round), 1, MAX_ROUNDS)
    f = tradeoff.gain / (num_rounds * tau) + tradeoff.linear * tau + tradeoff.quadratic * tau**2
    best = int(f.argmin())
    shares = [((best + 1) * one.local_round + one.aggregation) / one.budget for one in resources]
    return Pair(best + 1, int(num_rounds[best]), float(f[best]), int(np.argmax(shares)))


def _most_local_rounds(resource: Resource, limit: int) -> int:
    """Local rounds that fit into one round beside its aggregation, at most `limit`."""
    left = resource.budget - resource.aggregation
    if left < resource.local_round or resource.budget <= 0:
        return 0
    return int(min(limit, left / resource.local_round)) if resource.local_round > 0 else limit
