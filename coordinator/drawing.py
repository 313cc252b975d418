"""What all pictures have in common: colours, the look of a panel, stacked bars per device."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from protocol.errors import RunError

Floats: TypeAlias = npt.NDArray[np.float64]
Dash: TypeAlias = Literal["-"] | tuple[float, tuple[float, ...]]

# Okabe and Ito's colours: told apart with any colour vision.
RUN_STYLES: tuple[tuple[str, Dash], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", (0, (5, 1.5))),
    ("#009E73", (0, (5, 1, 1, 1))),
    ("#CC79A7", (0, (1, 1))),
)
# The same, but for their yellow, for more lines than a few runs.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#333333", "#8B5A2B", "#777777")
DASHES: tuple[Dash, ...] = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1, 1, 1)))
MARKERS = ("o", "s", "^", "D")
INK, PALE, RED = "#333333", "#777777", "#C00000"


def _with_gaps(values: Floats) -> Floats:
    gapped = np.full(2 * len(values) - 1, np.nan)
    gapped[::2] = values
    return gapped


def dress(axes: Axes, title: str, x: str, y: str, *, aside: str = "") -> None:
    """Give a panel its title, labels and look."""
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    note_aside(axes, aside, PALE)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8, color=PALE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def note_aside(axes: Axes, text: str, colour: str) -> None:
    """Write a short note at the right of a panel's title."""
    axes.set_title(text, loc="right", fontsize=8, color=colour)


def say(axes: Axes, text: str) -> None:
    """Fill a panel that has nothing to draw."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=PALE)


def log_scale_if_wide(axes: Axes, values: Floats) -> None:
    """Use a log scale where positive values span a factor of three; a linear one from zero elsewhere."""
    positive = values[values > 0]
    if not positive.size or positive.max() < 3 * positive.min():
        if values.size:
            axes.set_ylim(bottom=0)
        return
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    subs = (1.0,) if high > 100 * low else (1.0, 2.0, 3.0, 5.0)
    axes.yaxis.set_major_locator(LogLocator(subs=subs))
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.yaxis.set_minor_formatter(NullFormatter())


def plain(value: float, _: int | None) -> str:
    """Label a tick with a number as people write it."""
    return f"{value:g}"


def percent(share: float) -> str:
    """Write a share in percent."""
    return f"{100 * share:.3g} %"


def count(number: int, noun: str) -> str:
    """Write a number of things."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def stack_per_device(axes: Axes, layers: Mapping[str, Floats], colours: Mapping[str, str]) -> None:
    """Draw a bar per device, stacked of layers of shape (num_devices,), with a legend beside the panel."""
    values = np.array(list(layers.values()))
    num_devices = values.shape[1]
    tops = np.cumsum(values, axis=0)
    bottoms = tops - values
    # One step line per layer, whatever the number of devices; nan makes the gaps between the bars.
    half = 0.4 if num_devices <= 64 else 0.5
    edges = (np.arange(num_devices)[:, np.newaxis] + (-half, half)).ravel()
    for name, top, bottom in zip(layers, tops, bottoms, strict=True):
        axes.stairs(
            _with_gaps(top), edges, baseline=_with_gaps(bottom), fill=True, color=colours[name], label=name
        )
    axes.set_xlim(-0.7, num_devices - 0.3)
    axes.set_ylim(0, 1.05 * tops[-1].max())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16, min_n_ticks=1))
    axes.grid(visible=False, axis="x")
    axes.legend(
        loc="center left", bbox_to_anchor=(1, 0.5), reverse=True, frameon=False, fontsize=8, handlelength=1
    )


def partial_of(path: Path) -> Path:
    """Return where a picture is written before it takes its place."""
    return path.with_name(f".{path.name}.partial")


def save_whole(figure: Figure, path: Path) -> None:
    """Write a figure into a PNG file; a reader of the file never sees half of it; raises RunError."""
    partial = partial_of(path)
    try:
        figure.savefig(partial, format="png")
        partial.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot be written ({error.strerror or error})") from error
    finally:
        partial.unlink(missing_ok=True)
