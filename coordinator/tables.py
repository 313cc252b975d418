"""Tables that the commands print."""

from collections.abc import Callable
from math import isfinite

from rich.console import RenderableType
from rich.table import Table

from coordinator.plan import Plan, PlannedDevice
from coordinator.planning.tables import MAX_DEVICES, aggregation_parts, left_out, theory_table, work_table
from coordinator.summary import Summary

MAX_LINKS = 40


def summary_table(summary: Summary) -> Table:
    """Lay out a run's results, one column for it and one for each run it is compared with."""
    columns = {"run": summary} | summary.compare
    captions = [f"INVALID: {summary.invalid_reason}"] if not summary.valid else []
    if summary.transport == "memory":
        captions.append("host seconds are bound by the interpreter lock")
    caption = "; ".join(captions) or None
    table = Table(title=summary.run_id, title_justify="left", min_width=60, caption=caption)
    table.add_column("")
    for name in columns:
        table.add_column(name, justify="right")
    rows: dict[str, Callable[[Summary], str]] = {
        "rounds": lambda s: f"{s.rounds}" + ("" if s.how == "finished" else " (stopped)"),
        "devices": lambda s: (
            f"{s.devices}"
            + (f", lost {list(s.devices_lost)}" if s.devices_lost else "")
            + (f", left early {list(s.devices_left)}" if s.devices_left else "")
        ),
        "test accuracy, mean": lambda s: _number(s.accuracy_mean, ".4f"),
        "test accuracy, worst device": lambda s: _number(s.accuracy_min, ".4f"),
        "training loss, mean": lambda s: _number(s.loss_mean, ".4f"),
        "consensus distance": lambda s: _number(s.consensus_distance, ".4g"),
        "packets sent": lambda s: f"{s.packets_sent:,}",
        "packets that failed their CRC": lambda s: _share(
            s.packets_corrupted, s.packets_sent + s.packets_resent
        ),
        "packets sent again": lambda s: f"{s.packets_resent:,}",
        "packets lost, either way": lambda s: _share(s.packets_lost, s.packets_sent),
        "frames missing (late, host, dead)": lambda s: (
            f"{s.frames_missing_air}, {s.frames_missing_wall}, {s.frames_missing_dead}"
        ),
        "bit errors": lambda s: f"{s.bit_errors:,}",
        "bytes sent": lambda s: f"{s.bytes_sent:,}",
        "round, median (wall s)": lambda s: _number(s.round_wall_s_p50, ".4f"),
        "round, 95th percentile (wall s)": lambda s: _number(s.round_wall_s_p95, ".4f"),
        "start-up (wall s)": lambda s: f"{s.startup_wall_s:.2f}",
        "whole run (wall s)": lambda s: f"{s.wall_s:.2f}",
        "whole run (air s)": lambda s: _number(s.air_s, ".2f"),
        "computing, mean (air s)": lambda s: _number(s.compute_air_s, ".2f"),
        "slot waiting, mean (air s)": lambda s: _number(s.slot_wait_air_s, ".2f"),
        "sending, all devices (air s)": lambda s: _number(s.tx_air_s, ".2f"),
        "energy, all devices (J)": lambda s: _number(s.joules, ".4g"),
        "  computing (J)": lambda s: _number(s.joules_compute, ".3g"),
        "  sending (J)": lambda s: _number(s.joules_tx, ".3g"),
        "  receiving (J)": lambda s: _number(s.joules_rx, ".3g"),
        "  idling (J)": lambda s: _number(s.joules_idle, ".3g"),
    }
    if any(s.stale_rounds_mean is not None for s in columns.values()):
        rows["staleness of what was mixed, mean (rounds)"] = lambda s: _number(s.stale_rounds_mean, ".2f")
    if any(s.clock == "paced" for s in columns.values()):
        rows["paced clock"] = lambda s: "" if s.clock != "paced" else "valid" if s.valid else "INVALID"
    for name, value in rows.items():
        table.add_row(name, *(value(s) for s in columns.values()))
    return table


def plan_tables(plan: Plan) -> list[RenderableType]:
    """Lay out what a run would be: its parts, and what the planner intends with them."""
    totals = Table(title=plan.name, title_justify="left", show_header=False, min_width=60)
    totals.add_column("")
    totals.add_column("", justify="right")
    for name, value in (
        ("devices", f"{plan.devices}"),
        ("rounds", f"{plan.rounds}"),
        ("parameters", f"{plan.num_parameters:,}"),
        ("bytes per frame", f"{plan.bytes_per_frame:,}"),
        ("radio packets per frame", f"{plan.packets_per_frame:,}"),
        ("air seconds per frame", f"{plan.airtime_per_frame_s:.4g}"),
        ("slots (colours of the graph)", f"{plan.num_slots}"),
        ("air seconds per superframe", f"{plan.superframe_s:.4g}"),
        ("air seconds per round, computing included", f"{plan.round_air_s:.4g}"),
        (
            "graph",
            f"{plan.graph_kind}, {len(plan.links)} links, degree {plan.degree_min} to {plan.degree_max}",
        ),
        ("weights", plan.weights),
        ("spectral gap", f"{plan.spectral_gap:.4f}"),
        ("expected packet loss, mean of links", _number(plan.packet_loss_mean, ".2%")),
    ):
        totals.add_row(name, value)
    more_devices = "\n".join(left_out(plan.devices, MAX_DEVICES)) or None
    samples = Table(title="training samples per class", title_justify="left", caption=more_devices)
    samples.add_column("device", justify="right")
    for label in range(len(plan.samples_per_class[0])):
        samples.add_column(str(label), justify="right")
    samples.add_column("all", justify="right")
    for device, counts in enumerate(plan.samples_per_class[:MAX_DEVICES]):
        samples.add_row(str(device), *(str(n) if n else "·" for n in counts), str(sum(counts)))
    below = [*left_out(len(plan.links), MAX_LINKS), *plan.warnings]
    links = Table(title="links", title_justify="left", caption="\n".join(below) or None)
    directed = any(snr_db != back_db for snr_db, back_db in (link.mean_snr_db for link in plan.links))
    at = ", at either end" if directed else ""
    for name in ("link", "distance (m)", "weight", f"mean SNR (dB){at}", f"expected packet loss{at}"):
        links.add_column(name, justify="right")
    for link in plan.links[:MAX_LINKS]:
        links.add_row(
            f"{link.devices[0]} - {link.devices[1]}",
            f"{link.distance_m:.1f}",
            f"{link.weight:.3f}",
            _both_ends(link.mean_snr_db, ".1f"),
            _both_ends(link.packet_loss, ".2%"),
        )
    differ = len(set(plan.hardware)) > 1
    return [
        totals,
        samples,
        *([_hardware_table(plan.hardware)] if differ else []),
        *([links] if plan.links else []),
        work_table(plan.run),
        *(aggregation_parts(plan.aggregation) if plan.aggregation else ()),
        *([theory_table(plan.theory)] if plan.theory else ()),
    ]


def _hardware_table(devices: tuple[PlannedDevice, ...]) -> Table:
    more = "\n".join(left_out(len(devices), MAX_DEVICES)) or None
    table = Table(title="hardware", title_justify="left", caption=more)
    for name in (
        "device",
        "cpu (Hz)",
        "local round (air s)",
        "local round (J)",
        "transmit power (dBm)",
        "budget (J)",
        "budget (air s)",
    ):
        table.add_column(name, justify="right")
    for number, device in enumerate(devices[:MAX_DEVICES]):
        table.add_row(
            str(number),
            f"{device.cpu_hz:.4g}",
            f"{device.local_round_air_s:.4g}",
            f"{device.local_round_j:.4g}",
            f"{device.tx_power_dbm:.1f}",
            _limit(device.budget_j),
            _limit(device.budget_air_s),
        )
    return table


def _limit(value: float) -> str:
    return f"{value:.4g}" if isfinite(value) else "-"


def _both_ends(values: tuple[float, float], form: str) -> str:
    """Write what it is at both ends of a link, once where it is the same."""
    here, there = (format(value, form) for value in values)
    return here if values[0] == values[1] else f"{here} / {there}"


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _share(part: int, whole: int) -> str:
    return f"{part:,} ({part / whole:.2%})" if whole else "0"
