"""`sweep.png`: each quantity over the first axis, a line for each value of the second."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from coordinator.drawing import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    RED,
    Floats,
    count,
    dress,
    log_scale_if_wide,
    note_aside,
    plain,
    save_whole,
    say,
)
from coordinator.sweep.grid import Value, apart_from_seed, label
from coordinator.sweep.intervals import Estimate
from coordinator.sweep.quantities import QUANTITIES, Quantity, axis_label, interval_note
from coordinator.sweep.record import Cell, SweepRecord

MAX_LINES = len(COLOURS)
MIN_TICK_GAP = 0.09
"""Of an axis, between any two values, if each is to have its tick."""
SLANTED = 24
"""Characters of all words of an axis together, above which they are slanted."""
SIDE_BY_SIDE = 0.5
"""Of the room between two words, what the lines' points share."""


@dataclass(frozen=True)
class Line:
    """What is drawn in one colour: cells that differ in the first axis alone."""

    label: str
    x: Floats
    cells: Sequence[Cell]


def why_no_picture(record: SweepRecord) -> str:
    """Say why a sweep cannot be drawn; nothing if it can."""
    keys = apart_from_seed(record.keys)
    if not keys:
        return "seeds alone have no axis to draw over"
    if len(keys) > 2:
        return f"at most two axes can be drawn besides the seed, not {len(keys)}"
    if (num_lines := len(lines_of(record))) > MAX_LINES:
        return f"at most {MAX_LINES} lines can be told apart, not {num_lines}; put {keys[1]} first"
    return "" if record.num_finished else "no point was finished"


def draw(record: SweepRecord, path: Path) -> None:
    """Draw a sweep into a PNG file; a reader of the file never sees half of it."""
    keys = apart_from_seed(record.keys)
    figure = Figure(figsize=(13.8, 8), dpi=140, layout="constrained")
    failed = f"; {count(len(record.failed), 'point')} failed" if record.failed else ""
    title = f"{record.name}: a sweep over {' and '.join(keys)}\n{interval_note(record)}{failed}"
    figure.suptitle(title, x=0.008, ha="left", fontsize=11, color=INK)
    *panels, rest = figure.subplots(2, 3).flat
    for axes, quantity in zip(panels, QUANTITIES, strict=True):
        draw_quantity(axes, record, quantity)
    rest.set_axis_off()
    if len(keys) > 1:
        draw_key(rest, panels, axis_label(keys[1]))
    save_whole(figure, path)


def draw_key(axes: Axes, panels: Sequence[Axes], title: str) -> None:
    """Draw the legend of all panels, as far as there are lines in any."""
    handles = max((panel.get_lines() for panel in panels), key=len)
    key = axes.legend(handles=handles, title=title, loc="center left", frameon=False, handlelength=3)
    key.set_alignment("left")


def draw_quantity(axes: Axes, record: SweepRecord, quantity: Quantity) -> None:
    """Draw means and intervals of one quantity; what was never finished, or not finite, is a gap."""
    key, *_ = apart_from_seed(record.keys)
    dress(axes, quantity.title, axis_label(key), quantity.axis)
    if not _found(record, quantity.name):
        say(axes, quantity.nothing)
        return
    values = _values(record, key)
    numeric = _is_numeric(values)
    lines = [(line, *_columns(line.cells, quantity.name)) for line in lines_of(record)]
    mean, low, high = (np.concatenate([columns[i] for columns in lines]) for i in (1, 2, 3))
    if broken := sum(not isfinite(found.mean) for found in _found(record, quantity.name)):
        note_aside(axes, f"not finite at {count(broken, 'place')}", RED)
    if not np.isfinite(mean).any():
        say(axes, "no mean is finite")
        return
    _scale_y(axes, quantity, mean, low, high)
    _scale_x(axes, values)
    for number, (line, mean, low, high) in enumerate(lines):
        colour = COLOURS[number]
        axes.plot(
            line.x,
            mean,
            color=colour,
            linestyle=DASHES[number % len(DASHES)] if numeric else "none",
            linewidth=1.6,
            marker=MARKERS[number % len(MARKERS)],
            markersize=4.5,
            label=line.label,
            clip_on=False,  # a mark at zero is whole
            zorder=3,
        )
        low = np.fmax(low, axes.get_ylim()[0])  # a log scale has no place for what is not above zero
        if numeric and len(line.x) > 1:
            axes.fill_between(line.x, low, high, color=colour, alpha=0.16, linewidth=0)
        else:  # no length, no band
            axes.vlines(line.x, low, high, color=colour, alpha=0.5, linewidth=3)


def lines_of(record: SweepRecord) -> list[Line]:
    """Sort cells into lines; words stand at 0, 1, …, and there the points of several lines side by side."""
    keys = apart_from_seed(record.keys)
    values = _values(record, keys[0])
    groups: dict[str, list[Cell]] = {}
    for cell in record.cells:
        groups.setdefault(label(cell.settings[keys[1]]) if len(keys) > 1 else "", []).append(cell)
    lines = []
    for number, (name, cells) in enumerate(groups.items()):
        if _is_numeric(values):
            cells = sorted(cells, key=lambda cell: float(cell.settings[keys[0]]))
            x = np.array([float(cell.settings[keys[0]]) for cell in cells])
        else:
            aside = SIDE_BY_SIDE * ((number + 0.5) / len(groups) - 0.5)
            x = np.array([values.index(cell.settings[keys[0]]) + aside for cell in cells])
        lines.append(Line(name, x, cells))
    return lines


def _values(record: SweepRecord, key: str) -> list[Value]:
    return list(dict.fromkeys(cell.settings[key] for cell in record.cells))


def _is_numeric(values: Sequence[Value]) -> bool:
    """Say whether all values have their place on an axis of numbers; infinity has none."""
    return all(
        isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) for value in values
    )


def _found(record: SweepRecord, name: str) -> list[Estimate]:
    return [cell.estimates[name] for cell in record.cells if name in cell.estimates]


def _columns(cells: Sequence[Cell], name: str) -> tuple[Floats, Floats, Floats]:
    """Return means and both ends of their intervals; nan where there is no mean, none or no interval."""
    found = [cell.estimates.get(name) for cell in cells]
    mean = np.array([np.nan if e is None else e.mean for e in found])
    half = np.array([np.nan if e is None or e.half_width is None else e.half_width for e in found])
    return mean, mean - half, mean + half


def _scale_y(axes: Axes, quantity: Quantity, mean: Floats, low: Floats, high: Floats) -> None:
    """Show all means with their intervals: from zero, or on a log scale if they are wide."""
    known = np.isfinite(mean)
    mean, low, high = mean[known], np.fmin(low, mean)[known], np.fmax(high, mean)[known]
    most = 1.02 if quantity.is_share else np.inf
    if quantity.name == "accuracy_mean":
        pad = 0.05 * (high.max() - low.min()) or 0.01
        axes.set_ylim(max(low.min() - pad, 0), min(high.max() + pad, most))
    elif (mean > 0).all():
        # An interval that comes near zero, or below, must not stretch a log scale by decades.
        axes.set_ylim(0.85 * np.fmax(low, mean / 3).min(), min(1.15 * high.max(), most))
        log_scale_if_wide(axes, mean)
    else:
        axes.set_ylim(0, min(1.15 * high.max(), most) or 1)


def _scale_x(axes: Axes, values: Sequence[Value]) -> None:
    if not _is_numeric(values):
        words = [label(value) for value in values]
        slanted = sum(map(len, words)) > SLANTED
        axes.set_xticks(
            range(len(words)), words, rotation=25 if slanted else 0, ha="right" if slanted else "center"
        )
        axes.set_xlim(-0.6, len(words) - 0.4)
        axes.grid(visible=False, axis="x")
        return
    x = np.sort(np.array([float(value) for value in values]))
    places = x
    if _is_geometric(x):
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        places = np.log(x)
    if len(x) < 2 or np.diff(places).min() >= MIN_TICK_GAP * np.ptp(places):
        axes.set_xticks(x)
    elif all(value == int(value) for value in x):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))


def _is_geometric(x: Floats) -> bool:
    """Say whether values span a decade in steps that are more equal on a log scale than on a linear one."""
    if len(x) < 3 or x[0] <= 0 or x[-1] < 10 * x[0]:
        return False
    linear, log = np.diff(x), np.diff(np.log(x))
    return bool(log.max() / log.min() < linear.max() / linear.min())
