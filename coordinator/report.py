"""`report.png`: one run in six panels, read from its event log.

Rounds count from 1, as in the live view. Seconds are the host's.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import floor, isfinite, log10
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from coordinator.summary import History
from protocol.messages import Stages

Floats: TypeAlias = npt.NDArray[np.float64]
Dash: TypeAlias = Literal["-"] | tuple[float, tuple[float, ...]]

# Okabe and Ito's colours: told apart with any colour vision.
RUN_STYLES: tuple[tuple[str, Dash], ...] = (
    ("#0072B2", "-"),
    ("#D55E00", (0, (5, 1.5))),
    ("#009E73", (0, (5, 1, 1, 1))),
    ("#CC79A7", (0, (1, 1))),
)
STAGE_COLOURS = {
    "train": "#0072B2",
    "encode": "#56B4E9",
    "send": "#009E73",
    "wait": "#DDDDDD",
    "air": "#E69F00",
    "decode": "#CC79A7",
    "mix": "#444444",
}
INK, PALE, RED = "#333333", "#777777", "#C00000"
# Better heard is darker, and the palest end stays visible on white paper.
SNR_COLOURS = LinearSegmentedColormap.from_list("snr", ("#F2B84B", "#4FA69B", "#1B3A6B"))
LOSS_STYLES: tuple[tuple[float, Dash, str], ...] = (
    (0.01, "-", "< 1 % lost"),
    (0.1, (0, (4, 1.5)), "< 10 %"),
    (float("inf"), (0, (1, 1.2)), "10 % and more"),
)
MAX_POINTS = 800
"""Longer curves are drawn as means of equal blocks of rounds: a panel has no more pixels."""
MAX_MARKED = 20
MAX_LABELLED = 128


@dataclass(frozen=True)
class Curve:
    """One number per round over the devices; arrays of shape (num_points,), nan where none is finite."""

    rounds: Floats
    mean: Floats
    low: Floats
    high: Floats
    not_finite: Mapping[int, int]
    """Round, from 1 -> how many devices reported NaN or infinity; such values are in no mean."""


@dataclass(frozen=True)
class LinkLoss:
    """What became of one link's packets, both directions together, as shares of what was sent."""

    devices: tuple[int, int]
    snr_db: float
    expected: float
    packets_sent: int
    corrupted: float
    """Share that failed its CRC; nan if nothing was sent."""
    lost: float
    """Share that was not mixed, for whatever reason; nan if nothing was sent."""


def draw(runs: Mapping[str, History], path: Path, *, title: str) -> None:
    """Draw the first run into a PNG file, and the others beside it wherever rounds are compared.

    A reader of the file never sees half of it.
    """
    run = next(iter(runs.values()))
    figure = Figure(figsize=(14, 8.4), dpi=140, layout="constrained")
    figure.suptitle(f"{title}\n{headline(run)}", x=0.006, ha="left", fontsize=11, color=INK)
    panels: list[Axes] = list(figure.subplots(2, 3).flat)
    draw_accuracy(panels[0], runs)
    draw_loss(panels[1], runs)
    draw_consensus(panels[2], runs)
    draw_packet_loss(panels[3], run)
    draw_graph(panels[4], run)
    draw_stages(panels[5], run)
    partial = path.with_name(f".{path.name}.partial")
    figure.savefig(partial, format="png")
    partial.replace(path)


def headline(run: History) -> str:
    """Say in one line what was run and how it ended."""
    rounds = min((run.ended.rounds[device] for device in run.survivors), default=0)
    lost = f", {_count(len(run.died), 'device')} lost" if run.died else ""
    return (
        f"{_count(run.num_devices, 'device')}, {_count(len(run.started.edges), 'link')}, "
        f"{run.started.num_parameters:,} parameters; {run.ended.how} after {_count(rounds, 'round')}{lost}"
    )


def draw_accuracy(axes: Axes, runs: Mapping[str, History]) -> None:
    """Draw test accuracy: the mean over devices, and a band from the worst to the best."""
    _dress(axes, "test accuracy", "round", "share classified correctly")
    _draw_curves(axes, {name: over_devices(run, "accuracy") for name, run in runs.items()})
    _finish_rounds(axes, runs, nothing="no round was evaluated")


def draw_loss(axes: Axes, runs: Mapping[str, History]) -> None:
    """Draw training loss as accuracy is drawn; on a log scale once its mean spans a decade."""
    _dress(axes, "training loss", "round", "cross-entropy [nat]")
    curves = {name: over_devices(run, "loss") for name, run in runs.items()}
    _draw_curves(axes, curves)
    means = np.concatenate([curve.mean[np.isfinite(curve.mean)] for curve in curves.values()])
    if means.size and means.min() > 0 and means.max() >= 10 * means.min():
        axes.set_yscale("log", nonpositive="mask")
    broken = next(iter(curves.values())).not_finite
    if broken:
        devices = _count(max(broken.values()), "device")
        _note(axes, f"no finite number from round {min(broken)} on, on up to {devices}")
    _finish_rounds(axes, runs, nothing="no round was trained")


def draw_consensus(axes: Axes, runs: Mapping[str, History]) -> None:
    """Draw the consensus distance, on a log scale unless it is zero throughout."""
    _dress(axes, "consensus distance", "round", "RMS L2 distance to the mean parameters")
    curves = {name: _consensus(run) for name, run in runs.items()}
    _draw_curves(axes, curves)
    if any((curve.mean > 0).any() for curve in curves.values()):
        axes.set_yscale("log", nonpositive="mask")
    _finish_rounds(axes, runs, nothing="no round was completed")


def draw_packet_loss(axes: Axes, run: History) -> None:
    """Draw each link's packet loss over its mean SNR, measured beside expected.

    The expectation speaks of packets that fail their CRC. More than those are not mixed where losses
    are symmetric or frames come late. Links that lost nothing stand at the lower edge.
    """
    _dress(axes, "packet loss per link", "mean SNR [dB]", "share of packets sent")
    links = sorted(link_losses(run), key=lambda link: link.snr_db)
    if not links:
        _say(axes, "no links: the devices never talk")
        return
    snr_db, expected, corrupted, lost = np.array(
        [(link.snr_db, link.expected, link.corrupted, link.lost) for link in links]
    ).T
    most_sent = max(link.packets_sent for link in links)
    measured = np.concatenate([corrupted, lost])
    smallest = min([0.5 / max(most_sent, 50), *measured[measured > 0]])
    bottom = 10.0 ** floor(log10(smallest))
    axes.set_yscale("log")
    axes.set_ylim(bottom, 2)
    axes.plot(snr_db, np.maximum(expected, bottom), color=PALE, linewidth=1.2, label="expected to fail")
    small = len(links) > 100
    for shares, label, face, edge, area in (
        (lost, "not mixed", "none", RUN_STYLES[1][0], 18 if small else 64),
        (corrupted, "failed CRC", RUN_STYLES[0][0], "white", 6 if small else 30),
    ):
        for chosen, marker in ((shares > 0, "o"), (shares == 0, "v")):
            axes.scatter(
                snr_db[chosen],
                np.maximum(shares[chosen], bottom),
                s=area,
                marker=marker,
                facecolors=face,
                edgecolors=edge,
                linewidths=1.1 if face == "none" else 0.4,
                label=label if marker == "o" else None,
                clip_on=False,
                zorder=3,
            )
    axes.legend(loc="upper right", frameon=False, fontsize=8)
    clean = np.count_nonzero(lost == 0)
    if clean:
        _note(axes, f"{clean} of {_count(len(links), 'link')} lost nothing (at the lower edge)")


def draw_graph(axes: Axes, run: History) -> None:
    """Draw devices where they stand; links by mean SNR (colour) and by the share of packets lost (dashes)."""
    _dress(axes, "graph", "x [m]", "y [m]")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.08)
    axes.grid(visible=False)
    places_m = np.array(run.started.positions_m)
    keys = _draw_links(axes, link_losses(run), places_m)
    area = float(np.clip(6000 / run.num_devices, 16, 170))
    axes.scatter(
        places_m[:, 0], places_m[:, 1], s=area, color="white", edgecolors=INK, linewidths=1, zorder=3
    )
    if run.num_devices <= MAX_LABELLED:
        for device, (x_m, y_m) in enumerate(places_m):
            axes.annotate(
                str(device), (x_m, y_m), ha="center", va="center", fontsize=0.55 * area**0.5 + 1, zorder=4
            )
    dead = sorted({death.device for death in run.died})
    if dead:
        axes.scatter(
            places_m[dead, 0], places_m[dead, 1], s=1.5 * area, marker="x", color=RED, linewidths=2, zorder=5
        )
        keys.append(Line2D([], [], color=RED, marker="x", linestyle="none", label="device lost"))
    if keys:
        axes.legend(
            handles=keys, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=4, frameon=False, fontsize=8
        )


def draw_stages(axes: Axes, run: History) -> None:
    """Draw where each device's seconds went: the mean round, one stack of stages per device."""
    _dress(axes, "where the host's time went", "device", "")
    seconds = mean_stages_wall_s(run)
    if not seconds.any():
        _say(axes, "no round was completed")
        return
    unit, scale = ("wall ms", 1e3) if seconds.sum(axis=0).max() < 1 else ("wall s", 1.0)
    axes.set_ylabel(f"mean round, evaluation left out [{unit}]")
    tops = np.cumsum(seconds * scale, axis=0)
    bottoms = tops - seconds * scale
    # One step line per stage, whatever the number of devices; nan makes the gaps between the bars.
    half = 0.4 if run.num_devices <= 64 else 0.5
    edges = (np.arange(run.num_devices)[:, np.newaxis] + (-half, half)).ravel()
    for stage, top, bottom in zip(Stages.model_fields, tops, bottoms, strict=True):
        axes.stairs(
            _with_gaps(top),
            edges,
            baseline=_with_gaps(bottom),
            fill=True,
            color=STAGE_COLOURS[stage],
            label=stage,
        )
    axes.set_xlim(-0.7, run.num_devices - 0.3)
    axes.set_ylim(0, 1.05 * tops[-1].max())
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=16))
    axes.grid(visible=False, axis="x")
    axes.legend(
        loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=7, frameon=False, fontsize=8, handlelength=1
    )


def over_devices(run: History, value: Literal["accuracy", "loss"]) -> Curve:
    """Condense what the surviving devices reported (all of them, where none survived).

    Rounds that not all of them reached are left out, unless some never finished one.
    """
    devices = run.survivors or range(run.num_devices)
    last = {report.device: report.round for report in run.reports}
    complete = min(last.get(device, -1) for device in devices)
    series = run.series(value, devices)
    if complete >= 0:
        series = {round_: values for round_, values in series.items() if round_ <= complete}
    finite = {round_: [v for v in values if np.isfinite(v)] or [np.nan] for round_, values in series.items()}
    not_finite = {r + 1: int(np.sum(~np.isfinite(values))) for r, values in series.items()}
    return _thin(
        np.array([r + 1 for r in finite], dtype=float),
        [np.array([f(v) for v in finite.values()], dtype=float) for f in (np.mean, min, max)],
        {r: n for r, n in not_finite.items() if n},
    )


def link_losses(run: History) -> list[LinkLoss]:
    """Count what became of every link's packets; a dead neighbour's silence is no loss of the link."""
    sent, corrupted, lost = (dict[tuple[int, int], int]() for _ in range(3))
    for report in run.reports:
        for neighbour, heard in report.heard.items():
            if heard.missing != "dead":
                link = (min(report.device, neighbour), max(report.device, neighbour))
                sent[link] = sent.get(link, 0) + heard.packets_sent
                corrupted[link] = corrupted.get(link, 0) + heard.packets_corrupted
                lost[link] = lost.get(link, 0) + heard.packets_lost
    found = []
    for edge in run.started.edges:
        link = (min(edge.devices), max(edge.devices))
        num_sent = sent.get(link, 0)
        found.append(
            LinkLoss(
                devices=link,
                snr_db=edge.mean_snr_db,
                expected=edge.packet_loss,
                packets_sent=num_sent,
                corrupted=corrupted[link] / num_sent if num_sent else float("nan"),
                # A neighbour that could not be reached was heard of nothing: lost, but not sent.
                lost=min(lost[link] / num_sent, 1.0) if num_sent else float("nan"),
            )
        )
    return found


def mean_stages_wall_s(run: History) -> Floats:
    """Average each stage of each device over its rounds; shape (stages, devices), 0 where none was done."""
    spent = np.zeros((run.num_devices, len(Stages.model_fields)))
    rounds = np.zeros((run.num_devices, 1))
    for report in run.reports:
        stages = report.stages_wall_s
        spent[report.device] += [
            stages.train, stages.encode, stages.send, stages.wait, stages.air, stages.decode, stages.mix
        ]  # fmt: skip
        rounds[report.device] += 1
    return (spent / np.maximum(rounds, 1)).T


def _consensus(run: History) -> Curve:
    known = sorted((event.round + 1, event.distance) for event in run.consensus)
    rounds = np.array([round_ for round_, _ in known], dtype=float)
    distance = np.array([value if isfinite(value) else np.nan for _, value in known], dtype=float)
    return _thin(rounds, (distance, distance, distance), {})


def _thin(rounds: Floats, values: Iterable[Floats], not_finite: dict[int, int]) -> Curve:
    """Average blocks of rounds so that at most MAX_POINTS are left."""
    block = -(-len(rounds) // MAX_POINTS)
    if block > 1:
        starts = np.arange(0, len(rounds), block)
        sizes = np.diff([*starts, len(rounds)])
        rounds, *values = (np.add.reduceat(row, starts) / sizes for row in (rounds, *values))
    mean, low, high = values
    return Curve(rounds, mean, low, high, not_finite)


def _draw_curves(axes: Axes, curves: Mapping[str, Curve]) -> None:
    for number, (name, curve) in enumerate(curves.items()):
        colour, dash = RUN_STYLES[number % len(RUN_STYLES)]
        one = len(curve.rounds) == 1
        # A lone point has no length: its band is a bar, and bars of several runs stand side by side.
        aside = ScaledTranslation(-number / 12 if one else 0, 0, axes.figure.dpi_scale_trans)
        axes.plot(
            curve.rounds,
            curve.mean,
            color=colour,
            linestyle=dash,
            linewidth=1.6,
            marker="o" if len(curve.rounds) <= MAX_MARKED else None,
            markersize=5 if one else 3,
            label=name,
            transform=axes.transData + aside,
            zorder=3 - 0.1 * number,
        )
        if one:
            axes.vlines(
                curve.rounds,
                curve.low,
                curve.high,
                color=colour,
                alpha=0.4,
                linewidth=3,
                transform=axes.transData + aside,
            )
        else:
            shade = 0.22 if number == 0 else 0.1
            axes.fill_between(curve.rounds, curve.low, curve.high, color=colour, alpha=shade, linewidth=0)


def _finish_rounds(axes: Axes, runs: Mapping[str, History], *, nothing: str) -> None:
    """Give a panel over rounds its limits, legend and deaths, or say that there is nothing."""
    if not any(np.size(line.get_xdata()) for line in axes.lines):
        _say(axes, nothing)
        return
    run = next(iter(runs.values()))
    num_rounds = max(report.round + 1 for run in runs.values() for report in run.reports)
    pad = max(0.03 * (num_rounds - 1), 0.4)
    axes.set_xlim(1 - pad, num_rounds + pad)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if run.died:
        axes.plot(
            [max(death.rounds, 1) for death in run.died],
            [0] * len(run.died),
            transform=axes.get_xaxis_transform(),
            color=RED,
            marker="x",
            linestyle="none",
            clip_on=False,
            label="device lost",
        )
    if len(runs) > 1 or run.died:
        axes.legend(frameon=False, fontsize=8)


def _draw_links(axes: Axes, links: list[LinkLoss], places_m: Floats) -> list[Line2D]:
    """Draw the links with their colour bar; return what explains the dashes that occur."""
    if not links:
        return []
    shares = [link.expected if np.isnan(link.lost) else link.lost for link in links]
    styles = [next(style for style in LOSS_STYLES if share < style[0]) for share in shares]
    lines = LineCollection(
        [places_m[list(link.devices)] for link in links],
        array=[link.snr_db for link in links],
        cmap=SNR_COLOURS,
        linestyles=[dash for _, dash, _ in styles],
        linewidths=1.8 if len(links) <= 100 else 1.0,
    )
    axes.add_collection(lines)
    axes.figure.colorbar(lines, ax=axes, label="mean SNR [dB]", fraction=0.05, pad=0.02)
    return [
        Line2D([], [], color=INK, linestyle=dash, label=label)
        for limit, dash, label in LOSS_STYLES
        if any(style[0] == limit for style in styles)
    ]


def _with_gaps(values: Floats) -> Floats:
    gapped = np.full(2 * len(values) - 1, np.nan)
    gapped[::2] = values
    return gapped


def _dress(axes: Axes, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", color=INK)
    axes.set_xlabel(x, fontsize=9)
    axes.set_ylabel(y, fontsize=9)
    axes.tick_params(labelsize=8, color=PALE)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(PALE)
    axes.grid(visible=True, color="#E6E6E6", linewidth=0.6)
    axes.set_axisbelow(True)


def _say(axes: Axes, text: str) -> None:
    """Fill an empty panel."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=PALE)


def _note(axes: Axes, text: str) -> None:
    axes.text(0.02, 0.03, text, transform=axes.transAxes, fontsize=8, color=PALE)


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
