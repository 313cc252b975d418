"""Analog transmission: truncated channel inversion, superposition over the air, and receiver noise.

Receiver i of d real numbers per fading block, two of them to one complex symbol:

    y_i = sum_j h_ij b_ij s_j + z_i,    b_ij = sqrt(gamma_i) W_ij / h_ij  if g_ij >= g_th, else silent
    y_i / sqrt(gamma_i) = sum_j W_ij beta_ij s_j + n_i,    var(n_i) = nu_i^2 / d per real number
    nu_i^2 = max_j W_ij^2 ||s_j||^2 / SNR_ij,   SNR_ij = P g_ij / sigma_z^2 times the mean path gain

gamma_i is the largest that keeps every sender's power, averaged over the block, at or below P. Derived for
this project from the model of Yan and Li (arXiv 2308.06496); truncated inversion as in Goldsmith and
Varaiya, "Capacity of fading channels with channel side information", IEEE Trans. Inf. Theory 43(6), 1997.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import numpy as np

from protocol.codec import Float32s
from protocol.fading import Floats

_TILE = 16_384
"""Numbers worked on at a time, so that they stay in cache; even, so that no symbol is cut in two."""


@dataclass(frozen=True)
class Signal:
    """What one sender contributes to a block: its numbers s_j, shape (d,), and what scales them.

    `energy`: ||s_j||^2 as its header says. `gain_error`: complex relative error of the inversion.
    """

    s: Float32s
    weight: float
    energy: float
    snr: float
    gain_error: complex = 0j


@dataclass(frozen=True)
class Power:
    """How a block is sent: noise_energy nu^2 = E||n||^2 at the receiver, and each sender's share of P."""

    noise_energy: float
    shares: tuple[float, ...]


def power_control(signals: Sequence[Signal]) -> Power:
    """Find the common receive scale of senders that are on the air together.

    noise_energy = max_j W_j^2 ||s_j||^2 / SNR_j; the sender that attains it sends at full power P, each
    other at the share (W_j^2 ||s_j||^2 / SNR_j) / noise_energy of it. All silent: nothing is sent.
    """
    needs = [signal.weight**2 * signal.energy / signal.snr for signal in signals]
    most = max(needs, default=0.0)
    return Power(most, tuple(need / most if most else 0.0 for need in needs))


def superpose_(out: Float32s, signals: Sequence[Signal]) -> None:
    """Add the weighted signals to out, shape (d,), as they add up in the air; no noise yet.

    Numbers 2k and 2k + 1 are one complex symbol, which W (1 + gain_error) scales and turns; an odd last
    number is the real part of its own.
    """
    scratch = np.empty(min(_TILE, len(out)), dtype=np.float32)
    for start in range(0, len(out), _TILE):
        heard = out[start : start + _TILE]
        part = scratch[: len(heard)]
        pairs = len(heard) // 2
        for signal in signals:
            s = signal.s[start : start + _TILE]
            factor = signal.weight * (1 + signal.gain_error)
            np.multiply(s, np.float32(factor.real), out=part)
            heard += part
            if factor.imag:  # real arithmetic: numpy's complex product rounds otherwise on other processors
                turned = np.float32(factor.imag)
                heard[: 2 * pairs : 2] -= turned * s[1::2]
                heard[1::2] += turned * s[: 2 * pairs : 2]


def add_noise_(out: Float32s, noise_energy: float, rng: np.random.Generator) -> None:
    """Add white Gaussian noise of E||n||^2 = noise_energy to out, shape (d,)."""
    if not noise_energy:
        return
    std = np.float32(sqrt(noise_energy / len(out)))
    scratch = np.empty(min(_TILE, len(out)), dtype=np.float32)
    for start in range(0, len(out), _TILE):
        heard = out[start : start + _TILE]
        noise = scratch[: len(heard)]
        rng.standard_normal(dtype=np.float32, out=noise)
        noise *= std
        heard += noise


def energies(x: Float32s, block_values: int) -> Floats:
    """Return ||x||^2 of each block of block_values numbers, shape (num_blocks,), the last may be shorter."""
    whole = len(x) // block_values * block_values
    rows = x[:whole].reshape(-1, block_values)
    found = np.einsum("ij,ij->i", rows, rows, dtype=np.float64)
    rest = x[whole:]
    return np.append(found, np.einsum("i,i->", rest, rest, dtype=np.float64)) if len(rest) else found
