"""What theory says of a link on the bench, and how far a measurement may be from it.

Legend: g power gain of a fade (mean 1), ber(g) and loss(g) the probabilities that a bit flips and that a
packet fails its CRC, given the fade; n attempts at most. Means are taken over 20,000 equally likely g.
"""

from dataclasses import dataclass
from math import inf

import numpy as np
from scipy.special import betaincinv

from coordinator.link.bench import Batch, Bench, batches
from protocol.codec import BODY_DTYPE
from protocol.fading import Floats, equally_likely_gains
from protocol.link import loss_after_attempts, mean_attempts, packet_loss_probability
from protocol.modulation import bit_error_probability, coded_snr, mean_bit_error_probability
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Radio

CONFIDENCE = 0.99


@dataclass(frozen=True)
class Expected:
    """What a bench should measure; None where that has no closed form.

    The `effect`s say how many times more variable a measured share is than that of independent trials;
    None where neighbouring fades depend on each other.
    """

    ber: float | None
    per: float
    per_after_arq: float | None
    attempts_mean: float | None
    airtime_s: float | None
    delivered_bits: float | None
    ber_effect: float | None
    per_effect: float | None
    per_after_arq_effect: float | None


def expect(bench: Bench, table: PacketErrorTable | None = None) -> Expected:
    """Work out what a bench should measure.

    Per: E[loss(g)]. After ARQ: (E loss)^n if every attempt meets a fade of its own, E[loss^n] if all meet
    the same one. Attempts: the sum of the same over fewer attempts. Bits: E[ber], or where repeats meet the
    fade that had spoilt the packet before, E[ber a] / E[a] with a(g) = 1 + loss + ... + loss^(n - 1).
    """
    radio = bench.experiment.radio
    full, *_ = frames = batches(bench)
    snr = 10 ** (radio.snr_db / 10) * equally_likely_gains(radio.fade)
    packet_bits = int(full.layout.packet_bits[0])
    loss = packet_loss_probability(radio, radio.modulation, snr, packet_bits, table)
    ber = None
    if table is None:
        ber = _with_bursts(radio, bit_error_probability(radio.modulation, coded_snr(radio, snr)))
    fresh = _fresh(bench)
    after = attempts_mean = None
    if fresh is not None:
        after = loss_after_attempts(loss, radio.attempts, fresh=fresh)
        attempts_mean = mean_attempts(loss, radio.attempts, fresh=fresh)
    value_bits = 8 * BODY_DTYPE[full.layout.kind].itemsize * full.layout.values_per_packet
    return Expected(
        ber=_mean_ber(radio, ber, loss, fresh),
        per=float(np.mean(loss)),
        per_after_arq=after,
        attempts_mean=attempts_mean,
        airtime_s=_airtime_s(bench, frames, loss, fresh),
        delivered_bits=None if after is None else bench.packets * value_bits * (1 - after),
        # Bits of repeats are counted too; where their fade is the same, they add to what it spoils.
        ber_effect=None
        if ber is None
        else _effect(bench, _spread(ber), packet_bits * (1 if fresh else radio.attempts)),
        per_effect=_effect(bench, _spread(loss)),
        per_after_arq_effect=_effect(bench, _spread_after(loss, radio.attempts, fresh)),
    )


def interval(count: int, total: int, effect: float | None) -> tuple[float, float] | None:
    """Return the 99 % interval of a share of which count of total were measured; None without an effect.

    Clopper and Pearson's exact interval for as many independent trials as vary as much (Korn and Graubard,
    "Confidence intervals for proportions with small expected number of positive counts estimated from
    survey data", Survey Methodology 24(2), 1998).
    """
    if effect is None:
        return None
    trials, hits = total / effect, count / effect
    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(hits, trials - hits + 1, tail)) if count else 0.0
    high = float(betaincinv(hits + 1, trials - hits, 1 - tail)) if count < total else 1.0
    return low, high


def _fresh(bench: Bench) -> bool | None:
    """Say whether every attempt meets a fade of its own, or all the same one; None if it is neither.

    Frames hold whole fades, and a repeat goes out after its frame. (Of the last frame, fewer packets than
    fit into one fade may meet theirs again.)
    """
    radio = bench.experiment.radio
    if radio.attempts == 1 or radio.fading == "none":
        return True
    if not radio.coherence_packets or radio.doppler_hz == 0:
        return False
    if radio.doppler_hz < inf or radio.coherence_packets > bench.frame_packets:
        return None
    return True


def _with_bursts(radio: Radio, ber: Floats) -> Floats:
    """Return the bit-error probability in and out of bursts together, given the fade."""
    if not radio.burst_packets:
        return ber
    return (1 - radio.burst_share) * ber + radio.burst_share * np.maximum(ber, radio.burst_ber)


def _mean_ber(radio: Radio, ber: Floats | None, loss: Floats, fresh: bool | None) -> float | None:
    if ber is None or fresh is None:
        return None
    if not fresh:
        attempts = sum((loss**k for k in range(1, radio.attempts)), np.ones_like(loss))
        return float(np.mean(ber * attempts) / np.mean(attempts))
    if radio.burst_packets:
        return float(np.mean(ber))
    mean_snr = coded_snr(radio, np.array(10 ** (radio.snr_db / 10)))
    return mean_bit_error_probability(radio.modulation, float(mean_snr), radio.fade)


def _airtime_s(bench: Bench, frames: list[Batch], loss: Floats, fresh: bool | None) -> float | None:
    """Return the expected airtime: packets as often as they are sent, the rest once an attempt.

    A frame of p packets that are lost independently needs attempt k + 1 with probability
    1 - (1 - loss^k)^p, in which loss^k is (E loss)^k if every attempt meets a fade of its own.
    """
    radio = bench.experiment.radio
    independent = radio.fading == "none" or radio.coherence_packets < 2
    if fresh is None or (radio.attempts > 1 and (radio.burst_packets or not independent)):
        return None
    attempts_mean = mean_attempts(loss, radio.attempts, fresh=fresh)
    given = np.mean(loss, keepdims=True) if fresh else loss
    airtime_s = 0.0
    for batch in frames:
        layout, access = batch.layout, batch.access
        per_frame_s = attempts_mean * access.packets_airtime_s(layout.num_bits, radio.modulation)
        per_frame_s += access.side_airtime_s(0) + access.ack_turn_s
        with np.errstate(divide="ignore"):  # what is surely lost
            again = sum(
                float(np.mean(-np.expm1(layout.num_packets * np.log1p(-(given**k)))))
                for k in range(1, radio.attempts)
            )
        per_frame_s += again * (access.side_airtime_s(layout.num_packets) + access.ack_turn_s)
        airtime_s += batch.num_frames * per_frame_s
    return airtime_s


def _spread(share: Floats) -> tuple[float, float]:
    """Return mean and variance over the fades."""
    return float(np.mean(share)), float(np.var(share))


def _spread_after(loss: Floats, attempts: int, fresh: bool | None) -> tuple[float, float]:
    """Return mean and variance of the loss after all attempts, if packets that share one fade share all."""
    if not fresh:
        return _spread(loss**attempts)
    mean = float(np.mean(loss)) ** attempts
    return mean, float(np.mean(loss**2)) ** attempts - mean**2


def _effect(bench: Bench, spread: tuple[float, float], per_packet: int = 1) -> float | None:
    """Return the design effect of trials that share a fade: 1 + (m - 1) rho (Kish, "Survey Sampling", 1965).

    spread: mean and variance over the fades of the probability of a hit; per_packet: trials in a packet.
    m trials share a fade, and rho = variance / (mean (1 - mean)). Those of a burst are taken to be all alike.
    """
    radio = bench.experiment.radio
    mean, variance = spread
    if not 0 < mean < 1:
        return 1.0
    packets, rho = 1, variance / (mean * (1 - mean))
    if radio.fading != "none":
        if radio.doppler_hz < inf:
            return None
        whole_rounds = bench.frame_packets * radio.coherence_rounds
        packets = min(radio.coherence_packets, bench.frame_packets) or whole_rounds
    if radio.burst_packets:  # around a random packet of bursts of mean length L lie 2 L - 1 of its burst
        packets, rho = max(packets, min(round(2 * radio.burst_packets), bench.frame_packets)), 1.0
    return 1 + (packets * per_packet - 1) * rho
