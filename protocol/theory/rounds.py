"""Local rounds for a given number of rounds: the same for all devices, or each device its own.

Both minimise B1 in its shape a / (K tbar) + b tbar m_inv + c (tbar - 1) + h A under the caps of
protocol/theory/caps.py. Derived for this project from the model of Yan and Li, arXiv 2403.20075.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np
import numpy.typing as npt

from protocol.theory.bounds import Coefficients, Floats
from protocol.theory.caps import LocalRounds
from protocol.theory.tradeoff import Tradeoff, best_local_rounds, stationary_point


def equal_rounds_tradeoff(coefficients: Coefficients) -> Tradeoff:
    """B1 with equal local rounds, up to its constant b - c: a / (K tau) + (c - h) tau + h tau^2."""
    return Tradeoff(gain=coefficients.a, linear=coefficients.c - coefficients.h, quadratic=coefficients.h)


def uniform_rounds(
    coefficients: Coefficients, caps: Sequence[LocalRounds], *, num_rounds: int
) -> LocalRounds:
    """Return the best number of local rounds that all devices can pay for in each round.

    tau = min(min_i u_i, tau_hat), tau_hat the better whole neighbour of the positive root of
    2 h tau^3 + (c - h) tau^2 = a / K. All caps must be at least 1.
    """
    least = min(caps)
    assert least.num_local_rounds >= 1, "leave out devices that cannot pay for one local round"
    best = best_local_rounds(equal_rounds_tradeoff(coefficients), num_rounds=num_rounds)
    return least if least.num_local_rounds < best else LocalRounds(best, "drift")


def device_rounds(
    coefficients: Coefficients, caps: Sequence[LocalRounds], *, num_rounds: int
) -> tuple[LocalRounds, ...]:
    """Return the best number of local rounds of each device: cap water-filling, exactly optimal.

    For a given sum of all tau_i, 1 / tau and tau (tau - 1) are convex, so the most even allocation under
    the caps is best: tau_i = min(u_i, nu), and some of the devices with u_i > nu do one round more (those
    with the largest caps). One such allocation for each sum: the best of them is the best of all. All caps
    must be at least 1.
    """
    limits = np.array([one.num_local_rounds for one in caps], dtype=np.int64)
    assert limits.min() >= 1, "leave out devices that cannot pay for one local round"
    water = _Water(coefficients, limits, num_rounds)
    level, num_higher = water.best()
    tau = np.minimum(limits, level)
    tau[np.argsort(-limits, kind="stable")[:num_higher]] += 1
    gains = water.gains_by_one_more(tau)
    return tuple(
        LocalRounds(n, one.binding if n == one.num_local_rounds and gains_more else "drift")
        for n, one, gains_more in zip(tau.tolist(), caps, gains.tolist(), strict=True)
    )


class _Water:
    """B1 over the levels of the water, by the sums that it needs: total tau_i, 1 / tau_i, tau_i (tau_i - 1).

    Rising from level v to v + 1, each of the devices with u_i > v goes from v to v + 1 local rounds: the
    sums change by 1, -1 / (v (v + 1)) and 2 v.
    """

    def __init__(self, coefficients: Coefficients, limits: npt.NDArray[np.int64], num_rounds: int) -> None:
        self._coefficients, self._num_rounds, self._n = coefficients, num_rounds, len(limits)
        in_order = np.sort(limits)
        self._steps = np.arange(1, self._highest_useful_level(in_order), dtype=np.float64)
        self._movers = (self._n - np.searchsorted(in_order, self._steps, side="right")).astype(np.float64)
        self._total = self._sums(self._n, self._movers)
        self._inverse = self._sums(self._n, -self._movers / (self._steps * (self._steps + 1)))
        self._drift = self._sums(0, 2 * self._steps * self._movers)

    def best(self) -> tuple[int, int]:
        """Return the level, and how many devices do one local round more."""
        at_levels = self._bound(self._total, self._inverse, self._drift)
        best = int(at_levels.argmin())
        least, place = float(at_levels[best]), (best + 1, 0)
        # Between two levels the gain and the drift are monotone and the noise is concave in the number of
        # devices that have risen: no such allocation is better than this.
        gain, noise, drift = self._terms(self._total, self._inverse, self._drift)
        at_best_between = gain[1:] + np.minimum(noise[:-1], noise[1:]) + drift[:-1]
        for index in np.flatnonzero((at_best_between < least) & (self._movers > 1)):
            risen, v = np.arange(1, self._movers[index]), self._steps[index]
            between = self._bound(
                self._total[index] + risen,
                self._inverse[index] - risen / (v * (v + 1)),
                self._drift[index] + 2 * v * risen,
            )
            num_higher = int(between.argmin())
            if between[num_higher] < least:
                least, place = float(between[num_higher]), (int(v), num_higher + 1)
        return place

    def gains_by_one_more(self, tau: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """Tell for each device whether the bound would fall if it alone did one local round more."""
        t = tau.astype(np.float64)
        total, inverse, drift = (
            t.sum(keepdims=True),
            (1 / t).sum(keepdims=True),
            (t * (t - 1)).sum(keepdims=True),
        )
        more = self._bound(total + 1, inverse + 1 / (t + 1) - 1 / t, drift + 2 * t)
        return more < self._bound(total, inverse, drift)

    def _highest_useful_level(self, in_order: npt.NDArray[np.int64]) -> int:
        """Level from which on nothing is gained: the mean has reached the best equal tau.

        Beyond it the bound of equal local rounds rises with the mean, and allocations become less even.
        """
        tradeoff = equal_rounds_tradeoff(self._coefficients)
        pull = tradeoff.gain / self._num_rounds
        mean = stationary_point(linear=tradeoff.linear, quadratic=tradeoff.quadratic, pull=pull)
        if in_order.mean() <= mean:
            return int(in_order[-1])
        # With the j lowest caps full, the rest lies at the level that makes up the mean.
        full = np.concatenate(([0], np.cumsum(in_order[:-1])))
        levels = (self._n * mean - full) / np.arange(self._n, 0, -1)
        return max(1, ceil(float(levels[np.argmax(levels <= in_order)])))

    @staticmethod
    def _sums(start: float, changes: Floats) -> Floats:
        return np.concatenate(([start], start + np.cumsum(changes)))

    def _terms(self, total: Floats, inverse: Floats, drift: Floats) -> tuple[Floats, Floats, Floats]:
        shape, n = self._coefficients, self._n
        gain: Floats = shape.a * n / (self._num_rounds * total)
        noise: Floats = shape.b * total * inverse / n**2
        return gain, noise, shape.c * (total / n - 1) + shape.h * drift / n

    def _bound(self, total: Floats, inverse: Floats, drift: Floats) -> Floats:
        gain, noise, drifted = self._terms(total, inverse, drift)
        return gain + noise + drifted
