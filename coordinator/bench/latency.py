"""`hearsay bench latency`: every step in turn, and what is known kept on disk after each."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from coordinator.bench.cases import WARMUP_ROUNDS, Case, Request, Size, Step, experiment, order
from coordinator.bench.environment import describe_environment
from coordinator.bench.limits import measure_limits
from coordinator.bench.measure import Measured, cold_startup_wall_s, measure_case
from coordinator.bench.record import BenchRecord, CaseRecord, Limits, SizeRecord, write
from coordinator.interrupt import Interrupt
from coordinator.launch.launcher import preload, require_torch
from coordinator.launch.local import warm_up
from protocol.errors import BadInput, Interrupted, RunError

RECORD = "bench.json"
PICTURE = "bench.png"


@dataclass(frozen=True)
class Bench:
    """A measurement under way: what was asked for, where it is written, and how it is broken off."""

    request: Request
    folder: Path
    interrupt: Interrupt

    @property
    def record_file(self) -> Path:
        """Where the numbers are."""
        return self.folder / RECORD


@contextmanager
def bench_folder(out: Path | None) -> Iterator[Path]:
    """Make the folder (default: `runs/bench-latency-<time>`), and remove it if nothing was put into it.

    Raises BadInput if it is taken or cannot be made.
    """
    path = out or Path("runs") / f"bench-latency-{datetime.now():%Y%m%d-%H%M%S}"
    try:
        path = path.resolve()
        was_there = path.is_dir()
        if was_there and any(path.iterdir()):
            raise BadInput(f"--out {path}: the folder is not empty; name one that is new")
        path.mkdir(parents=True, exist_ok=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"--out {path}: cannot be made ({error})") from error
    try:
        yield path
    finally:
        if not was_there and not any(path.iterdir()):
            path.rmdir()


def measure_all(bench: Bench, note: Callable[[Step], None]) -> BenchRecord:
    """Measure one step after the other; interrupted, it is what was measured so far.

    note hears of each step once it is done. What was measured is on disk whatever happens later. Raises
    BadInput if no device could run at all, RunError at the first step that fails.
    """
    require_torch()
    request, interrupt = bench.request, bench.interrupt
    record = BenchRecord(
        began=datetime.now(UTC).isoformat(timespec="seconds"),
        environment=describe_environment(),
        rounds=request.rounds,
        warmup_rounds=WARMUP_ROUNDS,
        repeats=request.repeats,
        cold_startup_wall_s=None,
    )
    step = Step(0, request.cases[0])
    try:
        warm_up(sorted({module for case in request.cases for module in preload(experiment(case, 1))}))
        cold_s = cold_startup_wall_s(request.cases[0], bench.folder, interrupt)
        record = record.model_copy(update={"cold_startup_wall_s": cold_s})
        for step in order(request):
            record = _measured(bench, record, step)
            if record.cases:
                write(record, bench.record_file)
            note(step)
    except Interrupted:
        pass
    except RunError as error:
        kept = f"; what was measured before is in {bench.record_file}" if record.cases else ""
        raise RunError(f"{step.what}: {error}{kept}") from error
    return record


def _measured(bench: Bench, record: BenchRecord, step: Step) -> BenchRecord:
    """Take one step; return the record with what it found."""
    rounds, interrupt = bench.request.rounds, bench.interrupt
    if interrupt.count:
        raise Interrupted
    if isinstance(step.what, Case):
        measured = measure_case(
            step.what, bench.folder, rounds=rounds, repeat=step.repeat, interrupt=interrupt
        )
        return record.model_copy(update={"cases": _with_case(record.cases, step.what, measured)})
    limits = measure_limits(step.what, rounds=rounds, repeat=step.repeat, interrupt=interrupt)
    return record.model_copy(update={"sizes": _with_limits(record.sizes, step.what, limits)})


def _with_case(cases: tuple[CaseRecord, ...], case: Case, measured: Measured) -> tuple[CaseRecord, ...]:
    before = {record.case: record for record in cases}
    earlier = before[case].measurements if case in before else ()
    before[case] = CaseRecord(
        case=case,
        bound_by_interpreter_lock=case.transport == "memory",
        num_parameters=measured.num_parameters,
        frame_bytes=measured.frame_bytes,
        measurements=(*earlier, measured.measurement),
    )
    return tuple(before.values())


def _with_limits(sizes: tuple[SizeRecord, ...], size: Size, limits: Limits) -> tuple[SizeRecord, ...]:
    before = {record.size: record.limits for record in sizes}
    before[size] = (*before.get(size, ()), limits)
    return tuple(SizeRecord(size=size, limits=found) for size, found in before.items())
