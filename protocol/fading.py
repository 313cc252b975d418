"""Small-scale fading: the power gain g of a link, of mean 1, constant over a coherence block.

One complex Gaussian process per link, the scattered waves s ~ CN(0, 1), drives every kind:

    rayleigh   g = |s|^2                                            Exp(1)
    rician     g = |sqrt(K / (K + 1)) + sqrt(1 / (K + 1)) s|^2       K: direct over scattered power
    nakagami   g = Q^-1(m, exp(-|s|^2)) / m                          Gamma(m, 1 / m)
    none       g = 1

Q is the regularised upper incomplete gamma function: exp(-|s|^2) is uniform, so Nakagami's marginal is
exact for every m and its blocks inherit the order of the Rayleigh ones (a translation process).

Sources: Simon and Alouini, "Digital Communication over Fading Channels", 2nd ed., section 2.2;
Gauss-Markov blocks: Baddour and Beaulieu, "Autoregressive modeling for fading channel simulation",
IEEE Trans. Wireless Commun. 4(4), 2005, of order 1.
"""

from functools import cache
from itertools import accumulate
from math import inf, isinf, pi, sqrt
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import chndtr, chndtrix, gammaincc, gammainccinv, j0

from protocol.streams import Purpose, link_stream

Floats: TypeAlias = npt.NDArray[np.float64]
Complexes: TypeAlias = npt.NDArray[np.complex128]
FadingKind: TypeAlias = Literal["none", "rayleigh", "rician", "nakagami"]

NUM_SLICES = 20_000
"""Equally likely gains over which means are taken."""


class Fading(NamedTuple):
    """A kind of fading and its shape: K of Rician fading, m of Nakagami fading, 0 elsewhere."""

    kind: FadingKind
    shape: float = 0.0


def gains_of(fading: Fading, scatter: Complexes) -> Floats:
    """Turn scattered waves s ~ CN(0, 1) into power gains g of mean 1, same shape."""
    power: Floats = scatter.real**2 + scatter.imag**2
    gains: Floats
    match fading.kind:
        case "none":
            gains = np.ones(scatter.shape)
        case "rayleigh":
            gains = power
        case "rician":
            k = fading.shape
            gains = np.abs(sqrt(k / (k + 1)) + sqrt(1 / (k + 1)) * scatter) ** 2
        case "nakagami":
            gains = np.asarray(gammainccinv(fading.shape, np.exp(-power)), dtype=np.float64) / fading.shape
    return gains


def survival_probability(fading: Fading, gain: float) -> float:
    """P(g >= gain): the chance that a fade is at least this strong; 1 minus it is the outage."""
    if gain <= 0:
        return 1.0
    match fading.kind:
        case "none":
            return float(gain <= 1)
        case "rayleigh":
            return float(np.exp(-gain))
        case "rician":  # 2 (K + 1) g is noncentral chi-squared: 2 degrees of freedom, noncentrality 2 K
            k = fading.shape
            return float(1 - chndtr(2 * (k + 1) * gain, 2, 2 * k))
        case "nakagami":
            return float(gammaincc(fading.shape, fading.shape * gain))


@cache
def equally_likely_gains(fading: Fading) -> Floats:
    """Return the gains at the middle of NUM_SLICES equally likely slices, rising; 1 where nothing fades."""
    u: Floats = (np.arange(NUM_SLICES) + 0.5) / NUM_SLICES
    gains: Floats
    match fading.kind:
        case "none":
            gains = np.ones(1)
        case "rayleigh":
            gains = -np.log1p(-u)
        case "rician":
            k = fading.shape
            gains = chndtrix(u, 2, 2 * k) / (2 * (k + 1))
        case "nakagami":
            gains = np.asarray(gammainccinv(fading.shape, 1 - u), dtype=np.float64) / fading.shape
    gains.setflags(write=False)
    return gains


def laplace_transform(fading: Fading, s: Floats) -> Floats:
    """E[exp(-s g)], the moment-generating function at -s, any shape (Simon and Alouini, table 2.2)."""
    transform: Floats
    match fading.kind:
        case "none":
            transform = np.exp(-s)
        case "rayleigh":
            transform = 1 / (1 + s)
        case "rician":
            k = fading.shape
            transform = (1 + k) / (1 + k + s) * np.exp(-k * s / (1 + k + s))
        case "nakagami":
            transform = (1 + s / fading.shape) ** -fading.shape
    return transform


def block_correlation(doppler_hz: float, block_s: float) -> float:
    """Correlation of the scattered waves of consecutive blocks: J0(2 pi f T) (Clarke's model)."""
    return 0.0 if isinf(doppler_hz) or block_s == inf else float(j0(2 * pi * doppler_hz * block_s))


class FadingProcess:
    """One link's fades, round by round: the same at both ends, a function of seed and pair alone.

    Gauss-Markov over the blocks of all rounds, s_b = rho s_(b-1) + sqrt(1 - rho^2) w_b with innovations
    w ~ CN(0, 1) from one stream per round. It walks forward; asked for an earlier round, it starts anew.
    """

    def __init__(
        self, fading: Fading, *, seed: int, pair: tuple[int, int], blocks_per_round: int, correlation: float
    ) -> None:
        self._fading = fading
        self._seed = seed
        self._pair = pair
        self._blocks = blocks_per_round
        self._rho = correlation
        self._round = -1
        self._scatter: Complexes = np.empty(0, dtype=np.complex128)
        self._known: tuple[int, Floats] = (-1, np.ones(blocks_per_round))

    def gains(self, round_: int) -> Floats:
        """Power gain of each block of a round, shape (blocks_per_round,)."""
        if self._fading.kind == "none":
            return np.ones(self._blocks)
        if round_ != self._known[0]:  # both directions and every attempt of a round ask for the same
            self._known = round_, gains_of(self._fading, self._scatter_of(round_))
        return self._known[1]

    def _scatter_of(self, round_: int) -> Complexes:
        if self._rho == 0:
            return self._innovations(round_)
        if round_ < self._round:
            self._round = -1
        while self._round < round_:
            self._round += 1
            self._step(self._innovations(self._round))
        return self._scatter

    def _step(self, innovations: Complexes) -> None:
        rho, fresh = self._rho, sqrt(1 - self._rho**2)
        if self._round == 0:
            start, rest = complex(innovations[0]), innovations[1:]
        else:
            start, rest = rho * complex(self._scatter[-1]) + fresh * complex(innovations[0]), innovations[1:]
        walked = accumulate(rest.tolist(), lambda s, w: rho * s + fresh * w, initial=start)
        self._scatter = np.fromiter(walked, dtype=np.complex128, count=self._blocks)

    def _innovations(self, round_: int) -> Complexes:
        normals = link_stream(self._seed, Purpose.FADING, *self._pair, round_=round_).standard_normal(
            (self._blocks, 2)
        )
        innovations: Complexes = normals.view(np.complex128)[:, 0] / sqrt(2)
        return innovations
