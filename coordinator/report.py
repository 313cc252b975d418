"""`report.png`: one run in nine panels, read from its event log.

Rounds count from 1, as in the live view. Seconds are the host's unless they are said to be modelled.
"""

from collections.abc import Mapping
from math import floor, log10
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from coordinator.cost_panels import draw_energy, draw_energy_per_link, draw_modelled_time
from coordinator.drawing import (
    INK,
    PALE,
    RED,
    RUN_STYLES,
    Dash,
    Floats,
    count,
    dress,
    log_scale_if_wide,
    note_aside,
    percent,
    plain,
    save_whole,
    say,
    stack_per_device,
)
from coordinator.series import Curve, LinkLoss, consensus, link_losses, mean_stages_wall_s, over_devices
from coordinator.summary import History
from protocol.messages import Stages

STAGE_COLOURS = {
    "train": "#0072B2",
    "encode": "#56B4E9",
    "send": "#009E73",
    "wait": "#DDDDDD",
    "air": "#E69F00",
    "decode": "#CC79A7",
    "mix": "#444444",
    "pace": "#F0E442",
}
# Better heard is darker, and the palest end stays visible on white paper.
SNR_COLOURS = LinearSegmentedColormap.from_list("snr", ("#F2B84B", "#4FA69B", "#1B3A6B"))
LOSS_STYLES: tuple[tuple[float, Dash, str], ...] = (
    (0.01, "-", "up to 1 %"),
    (0.1, (0, (4, 1.5)), "up to 10 %"),
    (float("inf"), (0, (1, 1.2)), "above 10 %"),
)
AMBER = "#B35900"
LEFT = "device left, its budgets spent"
MAX_MARKED = 20
MAX_LABELLED = 128


def draw(runs: Mapping[str, History], path: Path, *, title: str) -> None:
    """Draw the first run into a PNG file, and the others beside it wherever rounds are compared.

    A reader of the file never sees half of it.
    """
    run = next(iter(runs.values()))
    figure = Figure(figsize=(14, 12.6), dpi=140, layout="constrained")
    figure.suptitle(f"{title}\n{headline(run)}", x=0.008, ha="left", fontsize=11, color=INK)
    # Each row on its own, so that colour bar and legends below do not squeeze the curves above.
    above, middle, below = figure.subfigures(3, 1, squeeze=False, hspace=0.03).flat
    accuracy, loss, consensus = above.subplots(1, 3)
    packets, graph, stages = middle.subplots(1, 3)
    time, energy, links = below.subplots(1, 3)
    draw_accuracy(accuracy, runs)
    draw_loss(loss, runs)
    draw_consensus(consensus, runs)
    draw_packet_loss(packets, run)
    draw_graph(graph, run)
    draw_stages(stages, run)
    draw_modelled_time(time, run)
    draw_energy(energy, run)
    draw_energy_per_link(links, run)
    save_whole(figure, path)


def headline(run: History) -> str:
    """Say in one line what was run, how it ended, and what went wrong on the host."""
    rounds = min((run.ended.rounds[device] for device in run.stayed), default=0)
    faults = sum(heard.missing == "wall" for heard in run.heard())
    return (
        f"{count(run.num_devices, 'device')}, {count(len(run.started.edges), 'link')}, "
        f"{count(run.started.num_parameters, 'parameter')}; {run.ended.how} after {count(rounds, 'round')}"
        + (f"; {count(len(run.died), 'device')} lost" if run.died else "")
        + (f"; {count(len(run.left), 'device')} left early" if run.left else "")
        + (f"; {count(faults, 'frame')} not delivered by the host" if faults else "")
    )


def draw_accuracy(axes: Axes, runs: Mapping[str, History]) -> None:
    """Draw test accuracy: the mean over devices, and a band from the worst to the best."""
    dress(axes, "test accuracy", "round", "share classified correctly", aside="mean, worst to best device")
    curves = {name: over_devices(run, "accuracy") for name, run in runs.items()}
    _draw_rounds(axes, curves, runs, nothing="no round was evaluated")


def draw_loss(axes: Axes, runs: Mapping[str, History]) -> None:
    """Draw training loss: the mean over devices, and a band from the lowest to the highest."""
    dress(axes, "training loss", "round", "cross-entropy [nat]", aside="mean, lowest to highest device")
    curves = {name: over_devices(run, "loss") for name, run in runs.items()}
    _draw_rounds(axes, curves, runs, nothing="no round was trained")
    log_scale_if_wide(axes, np.concatenate([curve.mean for curve in curves.values()]))
    broken = next(iter(curves.values())).not_finite
    if broken:
        devices = count(max(broken.values()), "device")
        note_aside(axes, f"not finite on up to {devices}, first in round {min(broken)}", RED)


def draw_consensus(axes: Axes, runs: Mapping[str, History]) -> None:
    """Draw the consensus distance: root mean square over devices, estimated from sampled coordinates."""
    dress(axes, "consensus distance", "round", "L2 distance to the mean parameters", aside="RMS over devices")
    curves = {name: consensus(run) for name, run in runs.items()}
    _draw_rounds(axes, curves, runs, nothing="no round was completed")
    log_scale_if_wide(axes, np.concatenate([curve.mean for curve in curves.values()]))
    broken = next(iter(curves.values())).not_finite
    if broken:
        note_aside(axes, f"not finite, first in round {min(broken)}", RED)


def draw_packet_loss(axes: Axes, run: History) -> None:
    """Draw each link's packet loss over its mean SNR, measured beside expected.

    The expectation speaks of packets that fail their CRC. More than those are not mixed where losses
    are symmetric or frames come late. Links that lost nothing stand at the lower edge of the log scale.
    """
    directed = any(there_db != back_db for there_db, back_db in (e.mean_snr_db for e in run.started.edges))
    dress(
        axes,
        "packet loss",
        "mean SNR of the link [dB]",
        "share of packets sent [%]",
        aside="one mark per link" + (", mean of both directions" if directed else ""),
    )
    links = sorted(link_losses(run), key=lambda link: link.snr_db)
    if not links:
        say(axes, "no links: the devices never talk")
        return
    snr_db, expected, sent, on_air, corrupted, lost = np.array(
        [
            (link.snr_db, link.expected, link.packets_sent, link.transmissions, link.corrupted, link.lost)
            for link in links
        ]
    ).T
    measured = sent > 0
    shares = np.concatenate([corrupted[measured], lost[measured]])
    bottom_percent = 100 * 10.0 ** floor(log10(min([1e-3, *shares[shares > 0]])))
    weights = sent if measured.any() else np.ones_like(sent)
    analog = run.started.scheme == "analog"  # it has no packets that could fail, only blocks that stay silent
    what_is_expected = "expected to be silent" if analog else "expected to fail, one attempt"
    label = f"{what_is_expected}: {percent(np.average(expected, weights=weights))} of all"
    axes.plot(snr_db, 100 * expected, color=PALE, linewidth=1.2, label=label, zorder=4)
    area = 45 if len(links) <= 100 else 16
    for share, among, what, face, edge, size in (
        (lost, sent, "not mixed", "none", INK, 1.6 * area),
        (corrupted, on_air, "failed CRC", RUN_STYLES[0][0], "none", 0.6 * area),
    ):
        some = measured & (share > 0)
        if measured.any() and not (analog and share is corrupted):
            total = np.average(share[measured], weights=among[measured])
            axes.scatter(
                snr_db[some],
                100 * share[some],
                s=size,
                facecolors=face,
                edgecolors=edge,
                label=f"{what}: {percent(total)} of all",
                zorder=3,
            )
    clean = measured & (lost == 0)
    if clean.any():
        label = f"lost nothing: {np.count_nonzero(clean):,} of {count(len(links), 'link')}"
        at_the_edge = np.full(np.count_nonzero(clean), bottom_percent)
        axes.scatter(
            snr_db[clean], at_the_edge, s=area, marker="v", color=PALE, clip_on=False, label=label, zorder=3
        )
    axes.set_yscale("log")
    axes.set_ylim(bottom_percent, 150)
    axes.yaxis.set_major_formatter(FuncFormatter(plain))
    axes.legend(frameon=False, fontsize=8, loc="upper right")


def draw_graph(axes: Axes, run: History) -> None:
    """Draw devices where they stand; links by mean SNR (colour) and by the share of packets lost (dashes)."""
    links = link_losses(run)
    dress(axes, "graph", "x [m]", "y [m]", aside="dashes: packets not mixed" if links else "")
    axes.set_aspect("equal", adjustable="datalim")
    axes.margins(0.08)
    axes.grid(visible=False)
    places_m = np.array(run.started.positions_m)
    keys = _draw_links(axes, links, places_m)
    area = float(np.clip(6000 / run.num_devices, 16, 170))
    dead = sorted({death.device for death in run.died})
    left = sorted({event.device for event in run.left})
    edges = [RED if device in dead else AMBER if device in left else INK for device in range(run.num_devices)]
    axes.scatter(places_m[:, 0], places_m[:, 1], s=area, color="white", edgecolors=edges, zorder=4)
    if run.num_devices <= MAX_LABELLED:
        for device, (x_m, y_m) in enumerate(places_m):
            axes.annotate(
                str(device),
                (x_m, y_m),
                ha="center",
                va="center_baseline",
                fontsize=0.55 * area**0.5 + 1,
                color=edges[device],
                zorder=5,
            )
    if dead:  # the arms of the cross stick out from under the number
        axes.scatter(
            places_m[dead, 0], places_m[dead, 1], s=3 * area, marker="x", color=RED, linewidths=2.5, zorder=3
        )
        keys.append(Line2D([], [], color=RED, marker="x", linestyle="none", label="device lost"))
    if left:
        keys.append(
            Line2D([], [], color=AMBER, marker="o", markerfacecolor="none", linestyle="none", label=LEFT)
        )
    if keys:
        axes.legend(
            handles=keys, loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False, fontsize=8
        )


def draw_stages(axes: Axes, run: History) -> None:
    """Draw where each device's seconds went: its mean round, evaluation left out, as a stack of stages."""
    dress(axes, "host's time per round", "device", "", aside="without evaluation")
    seconds = mean_stages_wall_s(run)
    if not seconds.any():
        say(axes, "no round was completed")
        return
    unit, scale = ("ms", 1e3) if seconds.sum(axis=0).max() < 1 else ("s", 1.0)
    axes.set_ylabel(f"wall time [{unit}]", fontsize=9)
    stack_per_device(axes, dict(zip(Stages.model_fields, seconds * scale, strict=True)), STAGE_COLOURS)


def _draw_rounds(
    axes: Axes, curves: Mapping[str, Curve], runs: Mapping[str, History], *, nothing: str
) -> None:
    """Draw curves over rounds, with a legend where there is more than one thing to tell apart."""
    if not any(curve.rounds.size for curve in curves.values()):
        say(axes, nothing)
        return
    num_rounds = max(report.round + 1 for run in runs.values() for report in run.reports)
    pad = max(0.03 * (num_rounds - 1), 0.4)
    for number, (name, curve) in enumerate(curves.items()):
        colour, dash = RUN_STYLES[number % len(RUN_STYLES)]
        lone = len(curve.rounds) == 1
        # A lone point has no length: its band is a bar, and the bars of several runs stand side by side.
        x = curve.rounds - (0.5 * pad * number if lone else 0)
        axes.plot(
            x,
            curve.mean,
            color=colour,
            linestyle=dash,
            linewidth=1.7,
            marker="o" if len(x) <= MAX_MARKED else None,
            markersize=5 if lone else 3,
            label=name,
            zorder=3 - 0.1 * number,
        )
        if lone:
            axes.vlines(x, curve.low, curve.high, color=colour, alpha=0.4, linewidth=3)
        else:
            shade = 0.22 if number == 0 else 0.1
            axes.fill_between(x, curve.low, curve.high, color=colour, alpha=shade, linewidth=0)
    first = next(iter(runs.values()))
    ends = ((first.died, RED, "x", "device lost"), (first.left, AMBER, "v", LEFT))
    for events, colour, marker, label in ends:
        if events:
            axes.plot(
                [max(event.rounds, 1) for event in events],
                [0] * len(events),
                transform=axes.get_xaxis_transform(),
                color=colour,
                marker=marker,
                linestyle="none",
                clip_on=False,
                label=label,
            )
    axes.set_xlim(1 - pad, num_rounds + pad)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    block = max(curve.block for curve in curves.values())
    if block > 1:
        axes.set_xlabel(f"round (means of {block})", fontsize=9)
    if len(runs) > 1 or first.died or first.left:
        axes.legend(frameon=False, fontsize=8)


def _draw_links(axes: Axes, links: list[LinkLoss], places_m: Floats) -> list[Line2D]:
    """Draw the links with their colour bar; return what explains the dashes that occur."""
    if not links:
        return []
    shares = [link.lost if link.packets_sent else link.expected for link in links]
    styles = [next(style for style in LOSS_STYLES if share <= style[0]) for share in shares]
    lines = LineCollection(
        [places_m[list(link.devices)] for link in links],
        array=[link.snr_db for link in links],
        cmap=SNR_COLOURS,
        linestyles=[dash for _, dash, _ in styles],
        linewidths=1.8 if len(links) <= 100 else 1.0,
    )
    axes.add_collection(lines)
    bar = axes.figure.colorbar(lines, ax=axes, fraction=0.04, pad=0.02)
    bar.set_label("mean SNR [dB]", fontsize=9)
    bar.ax.tick_params(labelsize=8)
    bar.outline.set_visible(False)
    return [
        Line2D([], [], color=INK, linestyle=dash, label=label)
        for limit, dash, label in LOSS_STYLES
        if any(style[0] == limit for style in styles)
    ]
