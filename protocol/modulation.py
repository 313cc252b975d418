"""Modulation: exact bit-error probabilities of Gray-mapped constellations, and which one to use.

Legend: snr instantaneous Es/N0 (energy per symbol over noise density, linear), mean_snr its mean over
the fading, ber bit-error probability.
"""

from dataclasses import dataclass
from functools import cache
from math import log2, pi, sqrt

import numpy as np
from scipy.special import erfc

from protocol.fading import Fading, Floats, laplace_transform
from protocol.radio import Modulation, Radio

BITS_PER_SYMBOL: dict[Modulation, int] = {"bpsk": 1, "qpsk": 2, "qam16": 4, "qam64": 6, "qam256": 8}
"""From the most robust to the fastest."""
ROBUST: Modulation = "bpsk"
"""Headers, bitmaps and other side information are sent with it."""


@dataclass(frozen=True)
class Constellation:
    """ber(snr) = sum_i weights[i] * erfc(sqrt(slopes[i] * snr)): exact for every Gray-mapped square QAM."""

    weights: tuple[float, ...]
    slopes: tuple[float, ...]


@cache
def constellation(modulation: Modulation) -> Constellation:
    """Expand the exact bit-error probability of a Gray-mapped constellation into erfc terms.

    M-QAM: Cho and Yoon, "On the general BER expression of one- and two-dimensional amplitude
    modulations", IEEE Trans. Commun. 50(7), 2002, eqs. 14 and 16, rewritten in Es/N0.
    BPSK: 0.5 erfc(sqrt(snr)).
    """
    if modulation == "bpsk":
        return Constellation((0.5,), (1.0,))
    order = 2 ** BITS_PER_SYMBOL[modulation]
    side = round(sqrt(order))
    num_bits = round(log2(side))
    weights = np.zeros(side)
    for k in range(1, num_bits + 1):
        for i in range(round((1 - 2.0**-k) * side)):
            sign = (-1) ** (i * 2 ** (k - 1) // side)
            weights[i] += sign * (2 ** (k - 1) - int(i * 2 ** (k - 1) / side + 0.5)) / (side * num_bits)
    kept = [i for i in range(side) if weights[i]]
    slopes = tuple((2 * i + 1) ** 2 * 3 / (2 * (order - 1)) for i in kept)
    return Constellation(tuple(float(weights[i]) for i in kept), slopes)


def bit_error_probability(modulation: Modulation, snr: Floats) -> Floats:
    """Bit-error probability over AWGN at instantaneous Es/N0 snr (linear), any shape."""
    terms = constellation(modulation)
    ber = np.zeros_like(snr, dtype=np.float64)
    for weight, slope in zip(terms.weights, terms.slopes, strict=True):
        ber += weight * erfc(np.sqrt(slope * snr))
    return np.clip(ber, 0.0, 0.5)


def mean_bit_error_probability(modulation: Modulation, mean_snr: float, fading: Fading) -> float:
    """Bit-error probability averaged over the fading at mean Es/N0 mean_snr (linear), by quadrature.

    Craig's form erfc(sqrt(x)) = (2 / pi) int_0^(pi/2) exp(-x / sin^2 t) dt turns the mean over g into
    the Laplace transform of its density (Simon and Alouini, "Digital Communication over Fading
    Channels", 2nd ed., section 8.2). The integrand is smooth: 200 Gauss-Legendre nodes leave less
    than 2e-9 of the value wherever it exceeds 1e-12, from -20 dB up.
    """
    terms = constellation(modulation)
    nodes, weights = _quadrature()
    inverse_sine2 = 1 / np.sin(nodes) ** 2
    return float(
        sum(
            weight * 2 / pi * np.dot(weights, laplace_transform(fading, slope * mean_snr * inverse_sine2))
            for weight, slope in zip(terms.weights, terms.slopes, strict=True)
        )
    )


@cache
def _quadrature() -> tuple[Floats, Floats]:
    nodes, weights = np.polynomial.legendre.leggauss(200)
    return (nodes + 1) * pi / 4, weights * pi / 4


def coded_snr(radio: Radio, snr: Floats) -> Floats:
    """Es/N0 at which uncoded transmission errs as rarely as the coded one does at snr (both linear).

    A code of rate R spends 1 / R as much symbol energy on each information bit, and its coding gain G
    is what it saves of Eb/N0 at equal error rate: the equivalent is snr G / R (Proakis, "Digital
    Communications", 4th ed., section 8.1).
    """
    return snr * (10 ** (radio.coding_gain_db / 10) / radio.code_rate)


def bit_rate_bps(radio: Radio, modulation: Modulation, bandwidth_hz: float) -> float:
    """Information bits per second on the air: a symbol per hertz, times bits per symbol times code rate."""
    return bandwidth_hz * BITS_PER_SYMBOL[modulation] * radio.code_rate


def permitted(radio: Radio) -> tuple[Modulation, ...]:
    """Return the modulations that frames may use, from the most robust to the fastest."""
    return tuple(BITS_PER_SYMBOL) if radio.rate == "adaptive" else (radio.modulation,)
