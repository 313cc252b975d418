"""One link: from geometry to signal-to-noise ratio to the probability of a bit error.

Legend: d distance [m], snr mean or instantaneous Es/N0 (energy per symbol over noise density,
linear), g power gain of the fade (mean 1), ber bit-error probability.
"""

from dataclasses import dataclass
from functools import cache
from math import log2, sqrt

import numpy as np
import numpy.typing as npt
from scipy.special import erfc

from protocol.config import Modulation, Radio
from protocol.streams import Purpose, link_stream

Floats = npt.NDArray[np.float64]

BITS_PER_SYMBOL: dict[Modulation, int] = {"bpsk": 1, "qpsk": 2, "qam16": 4, "qam64": 6, "qam256": 8}


def path_loss_db(distance_m: float, radio: Radio) -> float:
    """Log-distance path loss [dB]: PL(d) = PL(1 m) + 10 n log10(d / 1 m), held at its value below 1 m.

    Source: Rappaport, "Wireless Communications", 2nd ed., eq. 4.68.
    """
    return radio.reference_loss_db + 10 * radio.path_loss_exponent * float(np.log10(max(distance_m, 1.0)))


def noise_dbm(radio: Radio) -> float:
    """Noise power in the receiver's bandwidth [dBm]: N0 + 10 log10(B) + noise figure."""
    return radio.noise_density_dbm_hz + 10 * float(np.log10(radio.bandwidth_hz)) + radio.noise_figure_db


def mean_snr_db(distance_m: float, radio: Radio, *, seed: int, pair: tuple[int, int]) -> float:
    """Mean Es/N0 of a link over its fading [dB], with the pair's log-normal shadowing drawn in.

    The symbol rate equals the bandwidth, so Es/N0 is the ratio of received to noise power.
    """
    shadowing_db = 0.0
    if radio.shadowing_std_db > 0:
        shadowing_db = radio.shadowing_std_db * link_stream(seed, Purpose.SHADOWING, *pair).standard_normal()
    received_dbm = radio.tx_power_dbm - path_loss_db(distance_m, radio) - shadowing_db
    return received_dbm - noise_dbm(radio)


def bit_rate_bps(radio: Radio) -> float:
    """Bits per second on the air: bandwidth (= symbol rate) times bits per symbol."""
    return radio.bandwidth_hz * BITS_PER_SYMBOL[radio.modulation]


def fading_gains(radio: Radio, *, seed: int, round_: int, pair: tuple[int, int], num_packets: int) -> Floats:
    """Power gain g of each packet of a frame, shape (num_packets,); reciprocal: both ends draw the same.

    Rayleigh block fading: g ~ Exp(1), constant over `coherence_packets` packets (0: the round) and
    independent from block to block.
    """
    if radio.fading == "none":
        return np.ones(num_packets)
    block = radio.coherence_packets or num_packets
    num_blocks = -(-num_packets // block)
    gains = link_stream(seed, Purpose.FADING, *pair, round_=round_).standard_exponential(num_blocks)
    return np.repeat(gains, block)[:num_packets]


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


def rayleigh_bit_error_probability(modulation: Modulation, mean_snr: float) -> float:
    """Bit-error probability averaged over Rayleigh fading with mean Es/N0 mean_snr (linear).

    E[erfc(sqrt(b g snr))] = 1 - sqrt(b snr / (1 + b snr)) for g ~ Exp(1)
    (Proakis, "Digital Communications", 4th ed., eq. 14.3-7), term by term.
    """
    terms = constellation(modulation)
    return float(
        sum(
            weight * (1 - sqrt(slope * mean_snr / (1 + slope * mean_snr)))
            for weight, slope in zip(terms.weights, terms.slopes, strict=True)
        )
    )


def packet_loss_probability(radio: Radio, mean_snr_db: float, packet_bits: int) -> float:
    """Return the expected share of packets with at least one bit error: E_g[1 - (1 - ber(g snr))^bits].

    Bit errors are independent given the fade. Over Rayleigh fading the mean is taken over 20,000
    equally likely fades; the loss lies in [0, 1] and is monotone in g, so the error is below 5e-5.
    """
    snr = 10 ** (mean_snr_db / 10)
    if radio.scheme == "ideal":
        return 0.0
    if radio.fading == "none":
        return float(_loss(radio.modulation, np.array([snr]), packet_bits)[0])
    # Midpoints of equally likely slices: g = -ln(1 - u) inverts the distribution of Exp(1).
    u = (np.arange(20_000) + 0.5) / 20_000
    return float(_loss(radio.modulation, -np.log1p(-u) * snr, packet_bits).mean())


def _loss(modulation: Modulation, snr: Floats, packet_bits: int) -> Floats:
    loss: Floats = -np.expm1(packet_bits * np.log1p(-bit_error_probability(modulation, snr)))
    return loss
