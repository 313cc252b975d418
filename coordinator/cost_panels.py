"""What a run would have cost real devices: panels of modelled seconds and joules."""

import numpy as np
from matplotlib.axes import Axes

from coordinator.drawing import PALE, RUN_STYLES, Floats, dress, note_aside, say, stack_per_device
from coordinator.expenses import by_device, by_link
from coordinator.summary import History

TIME_COLOURS = {
    "computing": "#0072B2",
    "slot wait": "#F0E442",
    "sending": "#D55E00",
    "receiving, waiting": "#DDDDDD",
}
ENERGY_COLOURS = {"computing": "#0072B2", "sending": "#D55E00", "receiving": "#E69F00", "idling": "#DDDDDD"}
MAX_NAMED_LINKS = 32
NO_CLOCK = "no modelled time was kept (runtime.clock = wall)"


def draw_modelled_time(axes: Axes, run: History) -> None:
    """Draw what filled each device's modelled clock: computing, sending, waiting for slots and for others."""
    dress(axes, "modelled time", "device", "air time [s]", aside="whole run")
    clocks = np.zeros(run.num_devices)
    spent = {name: np.zeros(run.num_devices) for name in TIME_COLOURS}
    for report in run.reports:
        device = report.device
        clocks[device] = max(clocks[device], report.spent.air_s)
        spent["computing"][device] += report.spent.compute_air_s
        spent["slot wait"][device] += report.spent.slot_wait_air_s
        spent["sending"][device] += sum(heard.tx_air_s for heard in report.heard.values())
    if not clocks.any() or not _keeps_time(run):
        say(axes, _why_nothing(run, "nothing took any time"))
        return
    busy = sum(spent.values(), np.zeros(run.num_devices))
    # A device that talks on several links at once can be busier than its clock is long.
    spent["receiving, waiting"] = np.maximum(clocks - busy, 0)
    stack_per_device(axes, spent, TIME_COLOURS)


def draw_energy(axes: Axes, run: History) -> None:
    """Draw what each device spent its joules on."""
    dress(axes, "energy", "device", "energy [J]", aside="whole run")
    joules = by_device(run.reports, run.num_devices)
    layers: dict[str, Floats] = {
        "computing": np.array([j.compute for j in joules]),
        "sending": np.array([j.tx for j in joules]),
        "receiving": np.array([j.rx for j in joules]),
        "idling": np.array([j.idle for j in joules]),
    }
    total = sum(j.total for j in joules)
    if not total or not _keeps_time(run):
        say(axes, _why_nothing(run, "nothing was spent"))
        return
    note_aside(axes, f"whole run, {total:.4g} J in all", PALE)
    stack_per_device(axes, layers, ENERGY_COLOURS)


def draw_energy_per_link(axes: Axes, run: History) -> None:
    """Draw what both ends of each link spent on it, the dearest first."""
    dress(axes, "energy per link", "link", "energy [J]", aside="of both ends")
    links = sorted(by_link(run.reports).items(), key=lambda item: -item[1])
    if not any(joules for _, joules in links) or not _keeps_time(run):
        say(axes, _why_nothing(run, "nothing was spent on links"))
        return
    ranks = np.arange(len(links))
    axes.bar(ranks, [joules for _, joules in links], color=RUN_STYLES[0][0], width=0.8)
    if len(links) <= MAX_NAMED_LINKS:
        axes.set_xticks(ranks, [f"{a}-{b}" for (a, b), _ in links], rotation=90)
    else:
        axes.set_xlabel(f"{len(links):,} links, the dearest first", fontsize=9)
        axes.set_xticks([])
    axes.grid(visible=False, axis="x")


def _why_nothing(run: History, otherwise: str) -> str:
    if not run.reports:
        return "no round was completed"
    return otherwise if _keeps_time(run) else NO_CLOCK


def _keeps_time(run: History) -> bool:
    return run.started.clock != "wall"
