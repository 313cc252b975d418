"""What `hearsay bench latency` prints: rounds and stages, then limits and what it costs."""

from collections.abc import Callable, Sequence
from statistics import median

from rich.console import Console
from rich.table import Table

from coordinator.bench.latency import PICTURE, Bench
from coordinator.bench.record import BenchRecord, CaseRecord, Measurement, over_limit, spread
from coordinator.bench.rounds import STAGES

SHOWN_STAGES = tuple(stage for stage in STAGES if stage != "pace")
"""No clock is paced here."""
LIMITS = {"floor": "floor_wall_s", "zmq": "zmq_wall_s", "gloo": "gloo_wall_s", "copy": "copy_wall_s"}
LOCK_MARK = "*"


def print_bench(record: BenchRecord, made: Bench, console: Console) -> None:
    """Draw and print a record with a case in it, and say what was kept where."""
    from coordinator.bench.figure import draw  # matplotlib: after the measurement, not before it

    draw(record, made.folder / PICTURE)
    console.width = max(console.width, 0 if console.is_terminal else 190)
    console.print(*bench_tables(record), sep="\n")
    lines = [heading(record), f"picture: {made.folder / PICTURE}", f"numbers: {made.record_file}"]
    if made.interrupt.count:
        num_done = sum(len(case.measurements) for case in record.cases)
        num_runs = len(made.request.cases) * made.request.repeats
        lines.append(f"interrupted: {num_done} of {num_runs} runs were finished and are kept")
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def bench_tables(record: BenchRecord) -> list[Table]:
    """Lay out what was measured; every number is the median over repeats."""
    return [_rounds_table(record), _costs_table(record)]


def heading(record: BenchRecord) -> str:
    """Say where and how it was measured, and why not to trust it."""
    where = record.environment
    lines = [
        f"{where.machine}, {where.memory_bytes / 2**30:.1f} GiB; {where.versions}",
        f"torch threads {where.torch_threads}; load before it began {where.load_before:.1f} on "
        f"{where.num_cores} cores; start-up with torch still to be loaded "
        f"{_or_dash(record.cold_startup_wall_s, '.1f')} s",
        f"{record.rounds} rounds a run after {record.warmup_rounds} of warm-up that are left out (sockets "
        f"connect, buffers are new); repeats, in turn over all cases: {record.repeats}",
        *record.warnings,
    ]
    if any(case.bound_by_interpreter_lock for case in record.cases):
        lines.append(f"{LOCK_MARK} one process for all devices: bound by the interpreter lock")
    return "\n".join(lines)


def middle(case: CaseRecord, number: Callable[[Measurement], float]) -> float:
    """Return the median of a number over the repeats of a case."""
    return median(number(measurement) for measurement in case.measurements)


def _rounds_table(record: BenchRecord) -> Table:
    table = _table("host ms of a round, all devices together; stages are medians")
    for name in ("p50", "p95", "p99", "repeats", *SHOWN_STAGES):
        table.add_column(name, justify="right")
    for case in record.cases:
        p50s = [measurement.all_devices.round.p50 for measurement in case.measurements]
        table.add_row(
            *_name(case),
            _ms(middle(case, lambda m: m.all_devices.round.p50)),
            _ms(middle(case, lambda m: m.all_devices.round.p95)),
            _ms(middle(case, lambda m: m.all_devices.round.p99)),
            f"+{spread(p50s):.0%}" if len(p50s) > 1 else "-",
            *(
                _ms(median(m.all_devices.stages[stage].p50 for m in case.measurements))
                for stage in SHOWN_STAGES
            ),
        )
    table.caption = "repeats: by how much the longest median round exceeds the shortest"
    return table


def _costs_table(record: BenchRecord) -> Table:
    table = _table("the median round over floor and bare limits, and what it costs")
    columns = (*(f"x {name}" for name in LIMITS), "start-up s", "MB/s", "device MB", "coord. MB")
    for name in (*columns, "device CPU ms", "coord. CPU ms"):
        table.add_column(name, justify="right")
    for case in record.cases:
        table.add_row(
            *_name(case),
            *(_or_dash(over_limit(record, case, limit), ".2f") for limit in LIMITS.values()),
            f"{middle(case, lambda m: m.startup_wall_s):.2f}",
            f"{middle(case, lambda m: m.sent_bytes_per_s) / 1e6:.1f}",
            f"{middle(case, lambda m: m.device_pss_bytes) / 1e6:.1f}",
            f"{middle(case, lambda m: m.coordinator_pss_bytes) / 1e6:.1f}",
            _ms(middle(case, lambda m: m.device_cpu_s)),
            _ms(middle(case, lambda m: m.coordinator_cpu_s)),
        )
    table.caption = (
        "x: times the floor's round, and times a bare exchange of the same bytes over ZeroMQ, over gloo, and "
        "copied in memory; MB: PSS; CPU: of a round"
    )
    return table


def _table(title: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name in ("devices", "params", "transport", "radio"):
        table.add_column(name, justify="right" if name == "devices" else "left")
    return table


def _name(case: CaseRecord) -> Sequence[str]:
    mark = LOCK_MARK if case.bound_by_interpreter_lock else ""
    return (str(case.case.devices), case.case.params, f"{case.case.transport}{mark}", case.case.radio)


def _ms(wall_s: float) -> str:
    return f"{1e3 * wall_s:.3g}" if wall_s < 0.1 else f"{1e3 * wall_s:.0f}"


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
