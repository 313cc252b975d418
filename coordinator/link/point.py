"""What the bench says of one link: its settings, what was measured, and what theory expects."""

from collections.abc import Callable

from pydantic import BaseModel, ConfigDict

from coordinator.link.bench import SENDER, Bench, Counted, measure
from coordinator.link.theory import Expected, expect, interval
from protocol.fading import Fading
from protocol.hardware import hardware
from protocol.packet_errors import PacketErrorTable


class LinkPoint(BaseModel):
    """One link; what ends in `_theory` is None where theory has no closed form.

    `_low` and `_high` are the ends of 99 % intervals; None where neighbouring fades depend on each other.
    """

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)

    modulation: str
    fading: str
    """As in `--fading`."""
    snr_db: float
    """Mean Es/N0 over the fading."""
    distance_m: float | None
    packet_bytes: int
    packets: int
    frame_packets: int
    """Packets of a frame; it has one header, and one acknowledgement an attempt."""
    coherence_packets: int
    arq: str
    max_attempts: int
    tx_power_dbm: float
    bandwidth_hz: float
    code_rate: float
    coding_gain_db: float
    seed: int

    packets_sent: int
    """First attempts and repeats."""
    bits: int
    """Of all packets sent, checksums included."""
    bit_errors: int
    """Flipped among `bits`."""
    ber: float
    """bit_errors / bits."""
    ber_low: float | None
    ber_high: float | None
    ber_theory: float | None
    per: float
    """Share of packets that failed their first CRC."""
    per_low: float | None
    per_high: float | None
    per_theory: float
    per_after_arq: float
    """Share of packets that failed at every attempt."""
    per_after_arq_low: float | None
    per_after_arq_high: float | None
    per_after_arq_theory: float | None
    attempts_mean: float
    """packets_sent / packets."""
    attempts_mean_theory: float | None
    delivered_bits: int
    """Of the numbers in the packets that arrived."""
    airtime_s: float
    """Modelled; of packets, headers, bitmaps and acknowledgements."""
    airtime_s_theory: float | None
    goodput_bps: float
    """delivered_bits / airtime_s."""
    goodput_bps_theory: float | None
    joules: float
    """For sending and receiving, acknowledgements included, at both ends."""
    joules_per_bit: float | None
    """joules / delivered_bits; None if nothing arrived."""
    joules_per_bit_theory: float | None


def measure_point(
    bench: Bench, table: PacketErrorTable | None = None, *, tick: Callable[[int], None] = lambda packets: None
) -> LinkPoint:
    """Put a bench to work and hold what it measures against theory; tick hears of packets that are done."""
    return _compare(bench, measure(bench, table, tick=tick), expect(bench, table))


def _compare(bench: Bench, counted: Counted, expected: Expected) -> LinkPoint:
    radio, own = bench.experiment.radio, hardware(bench.experiment, SENDER)
    nowhere = (None, None)
    ber_low, ber_high = interval(counted.bit_errors, counted.bits, expected.ber_effect) or nowhere
    per_low, per_high = interval(counted.lost_at_first, counted.packets, expected.per_effect) or nowhere
    after_low, after_high = interval(counted.lost, counted.packets, expected.per_after_arq_effect) or nowhere
    goodput_theory = joules_per_bit_theory = None
    if expected.airtime_s is not None and expected.delivered_bits is not None:
        goodput_theory = expected.delivered_bits / expected.airtime_s
        # One end sends and the other receives, whichever it is: they are alike.
        joules = (own.tx_power_w + own.rx_power_w) * expected.airtime_s
        joules_per_bit_theory = joules / expected.delivered_bits if expected.delivered_bits else None
    return LinkPoint(
        modulation=radio.modulation,
        fading=fading_text(radio.fade),
        snr_db=radio.snr_db,
        distance_m=bench.distance_m,
        packet_bytes=bench.experiment.codec.packet_bytes,
        packets=counted.packets,
        frame_packets=bench.frame_packets,
        coherence_packets=radio.coherence_packets,
        arq=radio.arq,
        max_attempts=radio.attempts,
        tx_power_dbm=own.tx_power_dbm,
        bandwidth_hz=radio.bandwidth_hz,
        code_rate=radio.code_rate,
        coding_gain_db=radio.coding_gain_db,
        seed=bench.experiment.seed,
        packets_sent=counted.packets_sent,
        bits=counted.bits,
        bit_errors=counted.bit_errors,
        ber=counted.bit_errors / counted.bits,
        ber_low=ber_low,
        ber_high=ber_high,
        ber_theory=expected.ber,
        per=counted.lost_at_first / counted.packets,
        per_low=per_low,
        per_high=per_high,
        per_theory=expected.per,
        per_after_arq=counted.lost / counted.packets,
        per_after_arq_low=after_low,
        per_after_arq_high=after_high,
        per_after_arq_theory=expected.per_after_arq,
        attempts_mean=counted.packets_sent / counted.packets,
        attempts_mean_theory=expected.attempts_mean,
        delivered_bits=counted.delivered_bits,
        airtime_s=counted.airtime_s,
        airtime_s_theory=expected.airtime_s,
        goodput_bps=counted.delivered_bits / counted.airtime_s,
        goodput_bps_theory=goodput_theory,
        joules=counted.joules,
        joules_per_bit=counted.joules / counted.delivered_bits if counted.delivered_bits else None,
        joules_per_bit_theory=joules_per_bit_theory,
    )


def fading_text(fading: Fading) -> str:
    """Write a kind of fading as `--fading` reads it."""
    return f"{fading.kind}:{fading.shape:g}" if fading.kind in ("rician", "nakagami") else fading.kind
