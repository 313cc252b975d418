"""One link: from geometry to mean signal-to-noise ratio to the share of packets it can be expected to lose.

Legend: d distance [m], g power gain of the fade (mean 1), snr Es/N0 (energy per symbol over noise
density, linear), ber bit-error probability. The symbol rate equals the bandwidth, so Es/N0 is the ratio
of received to noise power.
"""

from math import log10, pi

import numpy as np

from protocol.fading import Floats, equally_likely_gains
from protocol.modulation import bit_error_probability, coded_snr
from protocol.packet_errors import PacketErrorTable, packet_loss
from protocol.radio import Modulation, Radio
from protocol.streams import Purpose, link_stream

LIGHT_M_S = 299_792_458.0


def path_loss_db(distance_m: float, radio: Radio) -> float:
    """Path loss [dB] at a distance d, held at its value below 1 m.

    log_distance: PL(1 m) + 10 n log10(d / 1 m) (Rappaport, "Wireless Communications", 2nd ed., eq. 4.68).
    free_space: 20 log10(4 pi d f / c) (Friis; Rappaport, eq. 4.6).
    3gpp: 128.1 + 37.6 log10(d / 1 km) (3GPP TR 36.814, table A.2.1.1-3, macro cell at 2 GHz).
    """
    d = max(distance_m, 1.0)
    match radio.path_loss:
        case "log_distance":
            return radio.reference_loss_db + 10 * radio.path_loss_exponent * log10(d)
        case "free_space":
            return 20 * log10(4 * pi * d * radio.carrier_hz / LIGHT_M_S)
        case "3gpp":
            return 128.1 + 37.6 * log10(d / 1000)


def noise_dbm(radio: Radio, bandwidth_hz: float) -> float:
    """Noise power in the receiver's bandwidth [dBm]: N0 + 10 log10(B) + noise figure."""
    return radio.noise_density_dbm_hz + 10 * log10(bandwidth_hz) + radio.noise_figure_db


def shadowing_db(radio: Radio, *, seed: int, pair: tuple[int, int]) -> float:
    """Log-normal shadowing of a pair of devices [dB]: X ~ N(0, sigma^2), the same in both directions."""
    if radio.shadowing_std_db == 0:
        return 0.0
    return radio.shadowing_std_db * link_stream(seed, Purpose.SHADOWING, *pair).standard_normal()


def mean_snr_db(
    distance_m: float,
    radio: Radio,
    bandwidth_hz: float,
    *,
    tx_power_dbm: float,
    shadowing_db: float = 0.0,
) -> float:
    """Mean Es/N0 at one end of the other's signal, over its fading [dB]: the link budget.

    P_tx + G_tx + G_rx - PL(d) - X - (N0 + 10 log10(B) + F), with the sender's transmit power.
    """
    radiated_dbm = tx_power_dbm + radio.tx_antenna_gain_dbi + radio.rx_antenna_gain_dbi
    received_dbm = radiated_dbm - path_loss_db(distance_m, radio) - shadowing_db
    return received_dbm - noise_dbm(radio, bandwidth_hz)


def packet_loss_probability(
    radio: Radio, modulation: Modulation, snr: Floats, packet_bits: int, table: PacketErrorTable | None = None
) -> Floats:
    """Probability that a packet fails its CRC at instantaneous Es/N0 snr (linear), any shape.

    1 - (1 - ber)^bits, since bit errors are independent given the fade, or as the table of a code has
    it; in a Gilbert-Elliott burst the bit-error probability is at least that of the burst.
    """
    ber = bit_error_probability(modulation, coded_snr(radio, snr))
    loss = _loss(ber, packet_bits) if table is None else packet_loss(table, 10 * np.log10(snr))
    if radio.burst_packets:
        if table is None:
            in_burst = _loss(np.maximum(ber, radio.burst_ber), packet_bits)
        else:  # what the code corrected, the burst may still spoil
            in_burst = loss + (1 - loss) * _loss(np.full_like(ber, radio.burst_ber), packet_bits)
        loss = (1 - radio.burst_share) * loss + radio.burst_share * in_burst
    return loss


def mean_packet_loss(
    radio: Radio,
    mean_snr_db: float,
    packet_bits: int,
    *,
    modulation: Modulation | None = None,
    table: PacketErrorTable | None = None,
) -> float:
    """Return the expected share of packets that fail their CRC, over the fading.

    Over fading the mean is taken over 20,000 equally likely gains; the loss lies in [0, 1] and is
    monotone in g, so the error is below 5e-5. An analog radio loses what stays silent: P(g < threshold).
    """
    if radio.scheme == "ideal":
        return 0.0
    gains = equally_likely_gains(radio.fade)
    if radio.scheme == "analog":
        return float(np.mean(gains < radio.analog.gain_threshold))
    snr = 10 ** (mean_snr_db / 10) * gains
    return float(
        np.mean(packet_loss_probability(radio, modulation or radio.modulation, snr, packet_bits, table))
    )


def loss_after_attempts(loss: Floats, attempts: int, *, fresh: bool) -> float:
    """Share of packets still bad after a number of attempts, from the loss at equally likely gains.

    fresh: every attempt meets an independent fade, (E loss)^n; else all meet the same one, E[loss^n].
    """
    return float(np.mean(loss) ** attempts if fresh else np.mean(loss**attempts))


def mean_attempts(loss: Floats, attempts: int, *, fresh: bool) -> float:
    """Return the expected number of times a packet is sent: 1 + p + ... + p^(n - 1)."""
    return float(sum(loss_after_attempts(loss, n, fresh=fresh) for n in range(attempts)))


def _loss(ber: Floats, packet_bits: int) -> Floats:
    loss: Floats = -np.expm1(packet_bits * np.log1p(-ber))
    return loss
