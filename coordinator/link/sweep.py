"""Benches in a row: what is swept, and what was measured at every point of every curve."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from coordinator.device import packet_error_tables
from coordinator.link.bench import Bench
from coordinator.link.point import LinkPoint, measure_point
from protocol.packet_errors import PacketErrorTable

Number: TypeAlias = int | float


@dataclass(frozen=True)
class Curve:
    """Benches that differ in what is swept only."""

    modulation: str
    fading: str
    benches: tuple[Bench, ...]


@dataclass(frozen=True)
class Sweep:
    """All that is to be measured; `swept` is an option's name, and empty where there is but one point."""

    swept: str
    values: tuple[Number, ...]
    """Of what is swept, one for each bench of a curve."""
    curves: tuple[Curve, ...]

    @property
    def num_packets(self) -> int:
        """Packets of all benches."""
        return sum(bench.packets for curve in self.curves for bench in curve.benches)


Measured: TypeAlias = tuple[tuple[LinkPoint, ...], ...]
"""The points of every curve of a sweep."""


def measure_sweep(sweep: Sweep, *, tick: Callable[[int], None] = lambda packets: None) -> Measured:
    """Measure every point; tick hears of packets that are done. What it raises ends the measurement."""
    tables: dict[tuple[str, float, int], PacketErrorTable | None] = {}

    def point(bench: Bench) -> LinkPoint:
        experiment = bench.experiment
        key = (experiment.radio.modulation, experiment.radio.code_rate, experiment.codec.packet_bytes)
        if key not in tables:
            tables[key] = next(iter(packet_error_tables(experiment)), None)
        return measure_point(bench, tables[key], tick=tick)

    return tuple(tuple(point(bench) for bench in curve.benches) for curve in sweep.curves)


def headline(point: LinkPoint, sweep: Sweep | None = None) -> str:
    """Say in one line what is on the bench, but for what is swept or differs from curve to curve."""
    curves = () if sweep is None else sweep.curves
    apart = set() if sweep is None else {sweep.swept}
    apart |= {"modulation"} if len({curve.modulation for curve in curves}) > 1 else set()
    apart |= {"fading"} if len({curve.fading for curve in curves}) > 1 else set()
    if point.distance_m is not None and apart & {"distance-m", "tx-power-dbm", "bandwidth-hz"}:
        apart.add("snr-db")
    fading = "no fading" if point.fading == "none" else f"{point.fading} fading"
    a_fade = f"{point.coherence_packets or point.frame_packets:,} in a fade"
    parts = {
        "modulation": point.modulation,
        "fading": fading,
        "snr-db": f"mean Es/N0 {point.snr_db:.4g} dB",
        "distance-m": "" if point.distance_m is None else f"{point.distance_m:g} m",
        "packets": f"{point.packets:,} packets",
        "packet-bytes": f"{point.packet_bytes:,} bytes a packet",
        "coherence-packets": "" if point.fading == "none" and "fading" not in apart else a_fade,
        "max-attempts": "no ARQ" if point.arq == "none" else f"at most {point.max_attempts} attempts",
    }
    return ", ".join(text for name, text in parts.items() if text and name not in apart)
