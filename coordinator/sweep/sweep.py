"""One sweep from its grid to `sweep.json` and `sweep.png`."""

from dataclasses import dataclass
from pathlib import Path

from coordinator.interrupt import Interrupt
from coordinator.launch.launcher import require_torch
from coordinator.sweep.folder import PICTURE, SweepFolder
from coordinator.sweep.grid import Grid
from coordinator.sweep.progress import SweepView
from coordinator.sweep.record import SweepRecord, make_record
from coordinator.sweep.runner import Point, Result, run_all
from protocol.errors import BadInput

MAX_JOBS = 256


@dataclass(frozen=True)
class Swept:
    """What is left of a sweep."""

    record: SweepRecord
    folder: Path
    no_picture: str
    """Why none was drawn; empty if one was."""


def sweep(grid: Grid, out: Path | None, *, jobs: int, view: SweepView, interrupt: Interrupt) -> Swept:
    """Run what is left to run of a grid, and draw all of it; raises BadInput or RunError.

    What was finished is on disk whatever happens later. Interrupted, it is what was finished so far.
    """
    require_torch()
    with SweepFolder.open(out, grid) as folder:
        names = [folder.of(point) for point in grid.points]
        points = [
            Point(point.title, point.experiment, folder.path / name)
            for point, name in zip(grid.points, names, strict=True)
        ]
        results: dict[int, Result] = {}

        def note(number: int, result: Result) -> None:
            results[number] = result
            view.ended(points[number], result)
            if not result.before:
                folder.write(make_record(grid, results, names))

        folder.write(make_record(grid, results, names))
        run_all(points, jobs=jobs, interrupt=interrupt, watcher=view, note=note)
        record = make_record(grid, results, names)
        folder.write(record)
        return Swept(record, folder.path, _draw(record, folder.path / PICTURE))


def parse_jobs(text: str) -> int:
    """Read --jobs; raises BadInput."""
    try:
        jobs = int(text)
    except ValueError:
        jobs = 0
    if not 1 <= jobs <= MAX_JOBS:
        raise BadInput(f"--jobs {text}: expected a whole number from 1 to {MAX_JOBS}")
    return jobs


def _draw(record: SweepRecord, path: Path) -> str:
    """Draw what can be drawn; return why nothing can."""
    from coordinator.sweep.figure import draw, why_no_picture  # matplotlib: after the runs, not before them

    reason = why_no_picture(record)
    if not reason:
        draw(record, path)
    return reason
