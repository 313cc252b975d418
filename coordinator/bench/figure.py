"""`bench.png`: rounds beside floor and limits, where their time goes, seconds and memory of each device."""

from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from coordinator.bench.record import BenchRecord, CaseRecord
from coordinator.bench.table import SHOWN_STAGES, middle
from coordinator.drawing import (
    COLOURS,
    DASHES,
    INK,
    MARKERS,
    PALE,
    RED,
    Dash,
    dress,
    log_scale_if_wide,
    plain,
    save_whole,
)

STAGE_COLOURS = dict(zip(SHOWN_STAGES, COLOURS, strict=False))
FLOORS: dict[str, tuple[str, Dash]] = {
    "floor_wall_s": ("floor", "-"),
    "zmq_wall_s": ("bare ZeroMQ", (0, (5, 1.5))),
    "gloo_wall_s": ("bare gloo", (0, (1, 1))),
}
"""A copy in memory is so far below that nothing else could be told apart."""


def draw(record: BenchRecord, path: Path) -> None:
    """Draw a record with a case in it into a PNG file; a reader of the file never sees half of it."""
    params = list(dict.fromkeys(case.case.params for case in record.cases))
    figure = Figure(figsize=(19, 1.2 + 4.6 * len(params)), dpi=120, layout="constrained")
    noisy = next((f"\n{warning}" for warning in record.warnings if warning.startswith("NOISY")), "")
    figure.suptitle(
        f"Host seconds and memory of devices on a ring, medians over repeats ({_repeats(record)}) of "
        f"{record.rounds} rounds\n{record.environment.machine}{noisy}",
        x=0.008,
        ha="left",
        fontsize=11,
        color=RED if noisy else INK,
    )
    for row, size in zip(figure.subplots(len(params), 4, squeeze=False), params, strict=True):
        cases = [case for case in record.cases if case.case.params == size]
        name = f"{size} ({cases[0].num_parameters:,} parameters)"
        _draw_rounds(row[0], record, cases, name)
        _draw_stages(row[1], cases)
        _draw_each(row[2], cases, _round_ms_per_device)
        dress(row[2], "median round divided by devices", "devices", "host ms per device")
        _draw_each(row[3], cases, _memory_mb)
        dress(row[3], "memory of a device", "devices", "PSS (MB)")
        for axes in (row[0], row[2], row[3]):
            _scale_devices(axes, cases)
    save_whole(figure, path)


def _repeats(record: BenchRecord) -> str:
    """Say how many repeats each case has, which are fewer where the measurement was broken off."""
    counts = {len(case.measurements) for case in record.cases}
    done = " or ".join(map(str, sorted(counts)))
    return done if counts == {record.repeats} else f"{done} of {record.repeats}"


def _draw_rounds(axes: Axes, record: BenchRecord, cases: Sequence[CaseRecord], name: str) -> None:
    """Draw median rounds with their 95th percentile above, beside floor and limits."""
    dress(axes, f"round, {name}", "devices", "host ms: median, bar to p95")
    drawn = []
    for number, line in enumerate(_lines(cases)):
        x = np.array([case.case.devices for case in line])
        p50 = np.array([1e3 * middle(case, lambda m: m.all_devices.round.p50) for case in line])
        p95 = np.array([1e3 * middle(case, lambda m: m.all_devices.round.p95) for case in line])
        style = _style(number)
        axes.plot(x, p50, label=_label(line[0]), linestyle=style[1], color=style[0], marker=style[2])
        axes.vlines(x, p50, np.fmax(p50, p95), color=style[0], alpha=0.45, linewidth=2.5)
        drawn.append(p95)
    params = cases[0].case.params
    sizes = sorted((s for s in record.sizes if s.size.params == params), key=lambda s: s.size.devices)
    for limit, (label, dash) in FLOORS.items():
        values = np.array([1e3 * median(getattr(one, limit) for one in size.limits) for size in sizes])
        x = np.array([size.size.devices for size in sizes])
        axes.plot(x, values, color=PALE, linestyle=dash, linewidth=1.3, label=label, marker=".")
        drawn.append(values)
    log_scale_if_wide(axes, np.concatenate(drawn))
    axes.legend(fontsize=7, frameon=False, ncols=2, loc="upper left", handlelength=3)
    low, high = axes.get_ylim()
    axes.set_ylim(low, high * (high / low) ** 0.35 if axes.get_yscale() == "log" else 1.35 * high)


def _draw_stages(axes: Axes, cases: Sequence[CaseRecord]) -> None:
    """Draw of each case which share of a mean round its stages have."""
    dress(axes, "where a round's time goes", "share of the mean round (%)", "")
    y = np.arange(len(cases))[::-1]
    left = np.zeros(len(cases))
    for stage in SHOWN_STAGES:
        share = np.array([100 * _share(case, stage) for case in cases])
        axes.barh(y, share, left=left, color=STAGE_COLOURS[stage], label=stage, height=0.75)
        left += share
    axes.set_yticks(y, [f"{case.case.devices}, {_label(case)}" for case in cases], fontsize=7)
    axes.set_xlim(0, 100)
    axes.grid(visible=False, axis="y")
    axes.legend(
        fontsize=7,
        frameon=False,
        ncols=len(SHOWN_STAGES),
        loc="upper center",
        bbox_to_anchor=(0.4, -0.11),
        columnspacing=1,
        handlelength=1,
    )


def _draw_each(axes: Axes, cases: Sequence[CaseRecord], number: Callable[[CaseRecord], float]) -> None:
    """Draw a number of each case."""
    top = 0.0
    for index, line in enumerate(_lines(cases)):
        colour, dash, marker = _style(index)
        x = [case.case.devices for case in line]
        y = [number(case) for case in line]
        axes.plot(x, y, color=colour, linestyle=dash, marker=marker, label=_label(line[0]))
        top = max(top, *y)
    axes.set_ylim(0, 1.1 * top)


def _round_ms_per_device(case: CaseRecord) -> float:
    return 1e3 * middle(case, lambda m: m.all_devices.round.p50) / case.case.devices


def _memory_mb(case: CaseRecord) -> float:
    return middle(case, lambda m: m.device_pss_bytes) / 1e6


def _lines(cases: Sequence[CaseRecord]) -> list[list[CaseRecord]]:
    """Take together what differs in the number of devices alone, the fewest first."""
    groups: dict[tuple[str, str], list[CaseRecord]] = {}
    for case in sorted(cases, key=lambda record: record.case.devices):
        groups.setdefault((case.case.transport, case.case.radio), []).append(case)
    return list(groups.values())


def _style(number: int) -> tuple[str, Dash, str]:
    return COLOURS[number % len(COLOURS)], DASHES[number % len(DASHES)], MARKERS[number % len(MARKERS)]


def _label(case: CaseRecord) -> str:
    lock = ", one lock" if case.bound_by_interpreter_lock else ""
    return f"{case.case.transport}, {case.case.radio}{lock}"


def _share(case: CaseRecord, stage: str) -> float:
    """Return which share of all its rounds a case spends in a stage."""
    times = [measurement.all_devices for measurement in case.measurements]
    return sum(one.stages[stage].mean for one in times) / sum(one.round.mean for one in times)


def _scale_devices(axes: Axes, cases: Sequence[CaseRecord]) -> None:
    """Give each number of devices its tick, doublings equal steps."""
    devices = sorted({case.case.devices for case in cases})
    axes.set_xscale("log", base=2)
    axes.set_xlim(devices[0] / 1.25, devices[-1] * 1.25)
    axes.xaxis.set_major_locator(FixedLocator(devices))
    axes.xaxis.set_major_formatter(FuncFormatter(plain))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_minor_formatter(NullFormatter())
