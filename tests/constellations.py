"""Constellations and fades built from scratch: what the closed forms of the library are held against."""

import math

import numpy as np
from scipy.integrate import quad
from scipy.special import gammaln, i0e, ndtr

from protocol.fading import Fading
from protocol.radio import Radio

BITS = {"bpsk": 1, "qpsk": 2, "qam16": 4, "qam64": 6, "qam256": 8}
# Es/N0 [dB] at which the bit-error rate over AWGN is about 0.2, 0.05, 0.01, 0.001 and 0.0001.
AWGN_SNRS_DB = {
    "bpsk": (-4.5, 1.5, 4.5, 7.0, 8.5),
    "qpsk": (-1.5, 4.5, 7.5, 10.0, 11.5),
    "qam16": (3.5, 10.5, 14.0, 16.5, 18.0),
    "qam64": (8.0, 16.0, 19.5, 22.5, 24.5),
    "qam256": (12.0, 21.0, 25.5, 28.5, 30.0),
}
FADES = (Fading("rayleigh"), Fading("rician", 6.0), Fading("nakagami", 2.0), Fading("nakagami", 0.5))


def name(fading):
    """Name a kind of fading and its shape in a test's id."""
    return f"{fading.kind}-{fading.shape:g}" if isinstance(fading, Fading) else None


def faded(fading, **radio):
    """Return a radio with a kind of fading and its shape."""
    shape = {"rician": "rician_k", "nakagami": "nakagami_m"}.get(fading.kind)
    return Radio(fading=fading.kind, **({shape: fading.shape} if shape else {}), **radio)


def linear(db):
    return 10 ** (db / 10)


def amplitudes(modulation):
    """Amplitudes of one dimension, in order, their Gray labels, and the number of dimensions; Es = 1."""
    num_dimensions = 1 if modulation == "bpsk" else 2
    side = 2 ** (BITS[modulation] // num_dimensions)
    levels = 2.0 * np.arange(side) - (side - 1)
    levels /= math.sqrt(num_dimensions * np.mean(levels**2))
    return levels, np.arange(side) ^ np.arange(side) >> 1, num_dimensions


def decisions(modulation):
    """Edges of the decision regions as seen from each sent level, low and high, and the bits that are wrong.

    All of shape (levels, levels): row of the level that was sent, column of the one that is decided.
    """
    levels, labels, _ = amplitudes(modulation)
    edges = np.concatenate(([-math.inf], (levels[1:] + levels[:-1]) / 2, [math.inf]))
    away = edges - levels[:, np.newaxis]
    return away[:, :-1], away[:, 1:], np.bitwise_count(labels[:, np.newaxis] ^ labels)


def enumerated_ber(modulation, snr):
    """Bit-error probability of nearest-neighbour decisions: every sent level against every decided one.

    Unit energy per symbol, so the noise has variance N0 / 2 = 1 / (2 snr) in each dimension.
    """
    low, high, bits_wrong = decisions(modulation)
    low, high = low * math.sqrt(2 * snr), high * math.sqrt(2 * snr)
    mass = np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))  # keeps small upper tails
    return np.sum(bits_wrong * mass) / len(low) / math.log2(len(low))


def simulated_errors(modulation, snr, rng):
    """Send a symbol through noise at each Es/N0 in snr, shape (n,): bits to the nearest symbol and back.

    Returns the share of wrong bits in each symbol, shape (n,).
    """
    levels, labels, num_dimensions = amplitudes(modulation)
    sent = rng.integers(len(levels), size=(len(snr), num_dimensions))
    noise = rng.standard_normal(sent.shape) / np.sqrt(2 * snr)[:, np.newaxis]
    decided = np.rint((levels[sent] + noise - levels[0]) / (levels[1] - levels[0]))
    decided = np.clip(decided, 0, len(levels) - 1).astype(int)
    return np.bitwise_count(labels[sent] ^ labels[decided]).sum(axis=1) / BITS[modulation]


def density(fading, gain):
    """Density of the power gain (Simon and Alouini, 2nd ed., table 2.2), mean 1."""
    match fading.kind:
        case "rayleigh":
            return math.exp(-gain)
        case "rician":
            k = fading.shape
            root = math.sqrt(k * (k + 1) * gain)
            return (1 + k) * math.exp(2 * root - k - (1 + k) * gain) * i0e(2 * root)
        case "nakagami":
            m = fading.shape
            return math.exp(m * math.log(m) + (m - 1) * math.log(gain) - m * gain - gammaln(m))


def averaged(of_gain, fading):
    """Integrate of_gain(g) over the density of g = exp(t): whatever happens takes about one unit of t.

    Below exp(-60) lies less than 1e-13 of every fade here, and above exp(5) as little.
    """
    return quad(
        lambda t: of_gain(math.exp(t)) * density(fading, math.exp(t)) * math.exp(t),
        *(-60, 5),
        epsabs=0,
        epsrel=1e-8,
        limit=400,
        points=(-20, -10, -5, -2, 0, 1),
    )[0]
