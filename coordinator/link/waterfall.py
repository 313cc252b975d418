"""Waterfall curves of `hearsay link --sweep`: what was measured, on the lines of theory."""

from math import floor, log10
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter, LogFormatterMathtext, LogLocator, NullFormatter

from coordinator.drawing import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    PALE,
    Floats,
    dress,
    partial_of,
    save_whole,
    say,
)
from coordinator.link.options import KNOBS
from coordinator.link.point import LinkPoint
from coordinator.link.sweep import Measured, Sweep, headline
from protocol.errors import BadInput

DECADES = 8
"""At most, on a log scale."""


class Style:
    """How one curve looks: by colour alone, or by colour and dashes where both of its names vary."""

    def __init__(self, sweep: Sweep, number: int) -> None:
        modulations = list(dict.fromkeys(curve.modulation for curve in sweep.curves))
        fadings = list(dict.fromkeys(curve.fading for curve in sweep.curves))
        curve = sweep.curves[number]
        colour, look = number, 0
        fading = "no fading" if curve.fading == "none" else curve.fading
        self.label = fading if len(modulations) == 1 else curve.modulation
        if len(modulations) > 1 and len(fadings) > 1:
            colour, look = modulations.index(curve.modulation), fadings.index(curve.fading)
            self.label = f"{curve.modulation}, {fading}"
        self.colour = COLOURS[colour % len(COLOURS)]
        self.dash = DASHES[look % len(DASHES)]
        self.marker = MARKERS[look % len(MARKERS)]


def refuse_unwritable(path: Path) -> None:
    """Raise BadInput unless a picture can be put there."""
    if path.suffix.lower() != ".png":
        raise BadInput(f"--plot {path}: draws a PNG; end its name in .png")
    if path.is_dir():
        raise BadInput(f"--plot {path}: is a folder; name a file in it")
    partial = partial_of(path)
    try:
        partial.touch()
        partial.unlink()
    except OSError as error:
        raise BadInput(f"--plot {path}: cannot be written ({error.strerror})") from error


def draw(sweep: Sweep, measured: Measured, path: Path) -> None:
    """Draw a sweep into a PNG file; a reader of the file never sees half of it."""
    figure = Figure(figsize=(11, 8.6), dpi=140, layout="constrained")
    title = f"one link, measured and in theory\n{headline(measured[0][0], sweep)}"
    figure.suptitle(title, x=0.008, ha="left", fontsize=11, color=INK)
    (ber, per), (goodput, energy) = figure.subplots(2, 2)
    draw_ber(ber, sweep, measured)
    draw_packet_loss(per, sweep, measured)
    draw_goodput(goodput, sweep, measured)
    draw_energy(energy, sweep, measured)
    keys = [
        Line2D(
            [], [], color=PALE, marker="o", markersize=4, linestyle="none", label="measured, 99 % interval"
        ),
        Line2D([], [], color=PALE, label="theory"),
    ]
    if any(bench.experiment.radio.attempts > 1 for curve in sweep.curves for bench in curve.benches):
        keys.append(
            Line2D(
                [],
                [],
                color=PALE,
                marker="o",
                markersize=4,
                markerfacecolor="none",
                linewidth=0.8,
                label="after ARQ",
            )
        )
    if len(sweep.curves) > 1:
        keys += [_key(Style(sweep, number)) for number in range(len(sweep.curves))]
    figure.legend(handles=keys, loc="outside lower left", ncols=6, frameon=False, fontsize=8)
    save_whole(figure, path)


def draw_ber(axes: Axes, sweep: Sweep, measured: Measured) -> None:
    """Draw the bit-error rate of all bits on the air; points without a single error have no mark."""
    _dress(axes, sweep, "bit-error rate", "share of bits that flipped")
    for number, points in enumerate(measured):
        style, x = Style(sweep, number), np.array(sweep.values, dtype=np.float64)
        _theory(axes, x, _column(points, "ber_theory"), style)
        _measured(axes, x, points, "ber", style)
    _log_scale(axes, [p.ber for points in measured for p in points])


def draw_packet_loss(axes: Axes, sweep: Sweep, measured: Measured) -> None:
    """Draw packet loss at the first attempt (filled marks), and what ARQ leaves of it (hollow marks)."""
    _dress(axes, sweep, "packet loss", "share of packets that failed their CRC")
    repeated = False
    for number, points in enumerate(measured):
        style, x = Style(sweep, number), np.array(sweep.values, dtype=np.float64)
        _theory(axes, x, _column(points, "per_theory"), style)
        _measured(axes, x, points, "per", style)
        if any(point.max_attempts > 1 for point in points):
            repeated = True
            _theory(axes, x, _column(points, "per_after_arq_theory"), style, thin=True)
            _measured(axes, x, points, "per_after_arq", style, hollow=True)
    shares = [p.per_after_arq if repeated else p.per for points in measured for p in points]
    _log_scale(axes, [*shares, *(p.per for points in measured for p in points)])


def draw_goodput(axes: Axes, sweep: Sweep, measured: Measured) -> None:
    """Draw what arrives of the numbers per second of airtime."""
    _dress(axes, sweep, "goodput", "payload delivered per second of airtime")
    for number, points in enumerate(measured):
        style, x = Style(sweep, number), np.array(sweep.values, dtype=np.float64)
        _theory(axes, x, _column(points, "goodput_bps_theory"), style)
        _plain_marks(axes, x, _column(points, "goodput_bps"), style)
    axes.set_ylim(bottom=0)
    axes.yaxis.set_major_formatter(EngFormatter("bit/s"))


def draw_energy(axes: Axes, sweep: Sweep, measured: Measured) -> None:
    """Draw what both ends spend on a bit that arrives."""
    _dress(axes, sweep, "energy", "sending and receiving, per delivered bit")
    values = [p.joules_per_bit for points in measured for p in points if p.joules_per_bit]
    if not values:
        say(axes, "nothing arrived")
        return
    for number, points in enumerate(measured):
        style, x = Style(sweep, number), np.array(sweep.values, dtype=np.float64)
        _theory(axes, x, _column(points, "joules_per_bit_theory"), style)
        _plain_marks(axes, x, _column(points, "joules_per_bit"), style)
    axes.set_yscale("log")
    axes.set_ylim(min(values) / 1.5, min(max(values), 1e4 * min(values)) * 1.5)
    axes.yaxis.set_major_formatter(EngFormatter("J"))
    axes.yaxis.set_minor_formatter(NullFormatter())


def _dress(axes: Axes, sweep: Sweep, title: str, y: str) -> None:
    knob = KNOBS[sweep.swept]
    dress(axes, title, f"{knob.label} [{knob.unit}]" if knob.unit else knob.label, y)
    margin = 0.03 * (sweep.values[-1] - sweep.values[0]) or 1
    axes.set_xlim(sweep.values[0] - margin, sweep.values[-1] + margin)


def _column(points: tuple[LinkPoint, ...], name: str) -> Floats:
    """Return one value of every point; nan where there is none."""
    values = [getattr(point, name) for point in points]
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _theory(axes: Axes, x: Floats, y: Floats, style: Style, *, thin: bool = False) -> None:
    axes.plot(x, y, color=style.colour, linestyle=style.dash, linewidth=0.8 if thin else 1.4, zorder=2)


def _measured(
    axes: Axes, x: Floats, points: tuple[LinkPoint, ...], name: str, style: Style, *, hollow: bool = False
) -> None:
    """Mark measured shares with their intervals; on a log scale there is no place for none."""
    share = _column(points, name)
    some = share > 0
    low, high = _column(points, f"{name}_low")[some], _column(points, f"{name}_high")[some]
    axes.vlines(x[some], low, high, color=style.colour, linewidth=1, alpha=0.6, zorder=3)
    _plain_marks(axes, x[some], share[some], style, hollow=hollow)


def _plain_marks(axes: Axes, x: Floats, y: Floats, style: Style, *, hollow: bool = False) -> None:
    axes.plot(
        x,
        y,
        color=style.colour,
        linestyle="none",
        marker=style.marker,
        markersize=4,
        markerfacecolor="white" if hollow else style.colour,
        zorder=4,
    )


def _key(style: Style) -> Line2D:
    return Line2D(
        [], [], color=style.colour, linestyle=style.dash, marker=style.marker, markersize=4, label=style.label
    )


def _log_scale(axes: Axes, shares: list[float]) -> None:
    """Show the decades in which something was measured."""
    lowest = min((share for share in shares if share > 0), default=1e-3)
    axes.set_yscale("log")
    axes.set_ylim(10.0 ** max(floor(log10(0.7 * lowest)), -DECADES), 1.5)
    axes.yaxis.set_major_locator(LogLocator())
    axes.yaxis.set_major_formatter(LogFormatterMathtext())
    axes.yaxis.set_minor_formatter(NullFormatter())
