"""The figures of a page: means with intervals over seeds, and lines that mark what theory says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from coordinator.drawing import COLOURS, DASHES, INK, MARKERS, Floats, plain
from coordinator.sweep.intervals import Estimate

Place: TypeAlias = Literal[
    "best", "upper left", "upper right", "lower left", "lower right", "center left", "center right"
]
FAR_RIGHT = 0.6
"""Share of a panel's width from which on there is more room to the left."""
DOTS_APART = 0.26
"""Between the series of one label, where labels are 1 apart."""


@dataclass(frozen=True)
class Curve:
    """Means with intervals at places of the x axis; None where nothing was measured."""

    label: str
    x: Sequence[float]
    estimates: Sequence[Estimate | None]


def panels(number: int, *, height: float = 3.9) -> tuple[Figure, list[Axes]]:
    """Make a figure of panels side by side."""
    figure = Figure(figsize=(5.6 * number, height), dpi=130, layout="constrained")
    return figure, list(figure.subplots(1, number, squeeze=False).flat)


def draw_curves(axes: Axes, curves: Sequence[Curve]) -> None:
    """Draw means as lines with marks, their intervals as bars."""
    for number, curve in enumerate(curves):
        mean, half = columns(curve.estimates)
        axes.errorbar(
            curve.x,
            mean,
            half,
            color=COLOURS[number],
            linestyle=DASHES[number % len(DASHES)],
            marker=MARKERS[number % len(MARKERS)],
            markersize=4.5,
            linewidth=1.6,
            elinewidth=1.2,
            capsize=3,
            label=curve.label,
            zorder=3,
        )


def columns(estimates: Sequence[Estimate | None]) -> tuple[Floats, Floats]:
    """Return means and half widths; nan where there is none, no width where there is no interval."""
    mean = np.array([np.nan if one is None else one.mean for one in estimates])
    half = np.array([0.0 if one is None or one.half_width is None else one.half_width for one in estimates])
    return mean, half


def mark(axes: Axes, x: float, text: str, *, colour: str = INK) -> None:
    """Draw a vertical line, and name it at the top of the panel, on the side where there is room."""
    axes.axvline(x, color=colour, linewidth=1.1, linestyle=(0, (2, 2)), zorder=2)
    across, _ = axes.transAxes.inverted().transform(axes.transData.transform((x, axes.get_ylim()[0])))
    is_left = across < FAR_RIGHT
    axes.annotate(
        text,
        (x, 0.99),
        (4 if is_left else -4, 0),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="left" if is_left else "right",
        va="top",
        fontsize=8,
        color=colour,
    )


def bars(axes: Axes, labels: Sequence[str], estimates: Sequence[Estimate | None]) -> None:
    """Draw a horizontal bar for each label with its interval, the first on top."""
    mean, half = columns(estimates)
    places = np.arange(len(labels))[::-1]
    axes.barh(places, mean, xerr=half, height=0.62, color=COLOURS[0], ecolor=INK, capsize=3, zorder=3)
    axes.set_yticks(places, labels)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left=0)


def dots(axes: Axes, labels: Sequence[str], series: Mapping[str, Sequence[Estimate | None]]) -> None:
    """Draw a dot with its interval for each label and series, the first label on top."""
    places = np.arange(len(labels))[::-1]
    for number, (name, estimates) in enumerate(series.items()):
        mean, half = columns(estimates)
        axes.errorbar(
            mean,
            places + DOTS_APART * ((len(series) - 1) / 2 - number),
            xerr=half,
            linestyle="none",
            color=COLOURS[number],
            marker=MARKERS[number],
            markersize=5.5,
            elinewidth=1.4,
            capsize=3,
            label=name,
            zorder=3,
        )
    axes.set_yticks(places, labels)
    axes.set_ylim(-0.6, len(labels) - 0.4)
    axes.grid(visible=False, axis="y")
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1.06), labelcolor=INK)


def ticks_at(axes: Axes, x: Sequence[float], *, log: bool = False) -> None:
    """Label the x axis where something was measured."""
    if log:
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(sorted(set(x)))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))


def log_scale(axes: Sequence[Axes], *, low: float, high: float) -> None:
    """Give panels the same logarithmic y axis."""
    for one in axes:
        one.set_yscale("log")
        one.set_ylim(low, high)
        one.yaxis.set_major_formatter(FuncFormatter(plain))
        one.yaxis.set_minor_formatter(NullFormatter())


def legend(axes: Axes, *, place: Place = "best") -> None:
    """Name the curves."""
    axes.legend(frameon=False, fontsize=8, loc=place, handlelength=3, labelcolor=INK)
