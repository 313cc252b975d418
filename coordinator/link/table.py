"""Tables of `hearsay link`: one link in full, or a sweep of them a line each."""

from math import floor, log10

from rich.table import Table

from coordinator.link.options import KNOBS
from coordinator.link.point import LinkPoint
from coordinator.link.sweep import Measured, Sweep, headline

_DASH = "-"
_PREFIXES = {-4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G"}


def link_table(point: LinkPoint) -> Table:
    """Lay out what was measured beside what theory expects."""
    table = Table(title=headline(point), title_justify="left", min_width=60)
    for name in ("", "measured", "theory", "99 % interval"):
        table.add_column(name, justify="right" if name else "left")
    for name, measured, theory, low, high in (
        ("bit-error rate", point.ber, point.ber_theory, point.ber_low, point.ber_high),
        ("packet loss", point.per, point.per_theory, point.per_low, point.per_high),
        (
            "packet loss after ARQ",
            point.per_after_arq,
            point.per_after_arq_theory,
            point.per_after_arq_low,
            point.per_after_arq_high,
        ),
    ):
        within = _DASH if low is None or high is None else f"{low:.3g} to {high:.3g}"
        table.add_row(name, _number(measured), _number(theory), within)
    for name, measured_or_none, theory, unit in (
        ("attempts, mean", point.attempts_mean, point.attempts_mean_theory, ""),
        ("goodput", point.goodput_bps, point.goodput_bps_theory, "bit/s"),
        ("airtime", point.airtime_s, point.airtime_s_theory, "s"),
        ("energy per delivered bit", point.joules_per_bit, point.joules_per_bit_theory, "J"),
    ):
        table.add_row(name, _with_unit(measured_or_none, unit), _with_unit(theory, unit), "")
    table.caption = (
        f"{point.bit_errors:,} of {point.bits:,} bits flipped, in {point.packets_sent:,} packets sent"
    )
    return table


def sweep_table(sweep: Sweep, measured: Measured) -> Table:
    """Lay out a sweep, theory in brackets."""
    table = Table(title=headline(measured[0][0], sweep), title_justify="left", caption="theory in brackets")
    columns = ["modulation"] * (len({curve.modulation for curve in sweep.curves}) > 1)
    columns += ["fading"] * (len({curve.fading for curve in sweep.curves}) > 1)
    knob = KNOBS[sweep.swept]
    axis = f"{knob.label} ({knob.unit})" if knob.unit else knob.label
    repeated = any(point.max_attempts > 1 for points in measured for point in points)
    after_arq = ["after ARQ", "attempts"] if repeated else []
    for name in (*columns, axis, "bit-error rate", "packet loss", *after_arq, "goodput", "energy per bit"):
        table.add_column(name, justify="left" if name in columns else "right")
    for curve, points in zip(sweep.curves, measured, strict=True):
        for value, point in zip(sweep.values, points, strict=True):
            after = _both(point.per_after_arq, point.per_after_arq_theory)
            table.add_row(
                *(getattr(curve, column) for column in columns),
                f"{value:,}" if knob.whole else f"{value:g}",
                _both(point.ber, point.ber_theory),
                _both(point.per, point.per_theory),
                *((after, f"{point.attempts_mean:.3f}") if repeated else ()),
                _with_unit(point.goodput_bps, "bit/s"),
                _with_unit(point.joules_per_bit, "J"),
            )
        table.add_section()
    return table


def _number(value: float | None) -> str:
    return _DASH if value is None else f"{value:.4g}"


def _both(measured: float, theory: float | None) -> str:
    return f"{measured:.3g} ({'-' if theory is None else format(theory, '.3g')})"


def _with_unit(value: float | None, unit: str) -> str:
    """Write a number with its unit and the prefix that leaves one to three digits before the point."""
    if value is None:
        return _DASH
    if not unit or value == 0:
        return f"{value:.4g} {unit}".rstrip()
    power = min(max(floor(log10(value) / 3), -4), 3)
    return f"{value / 1000**power:.4g} {_PREFIXES[power]}{unit}"
