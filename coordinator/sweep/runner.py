"""A list of experiments, run some at a time in one process; what was finished before is not run again.

Runs are threads here, their devices processes forked from one server that has torch loaded. A run is
kept under a name of its own until it is finished: devices that outlive a killed coordinator for a few
seconds write into that, and never into the run that is made in its place.
"""

import secrets
import shutil
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from typing import Protocol

from pydantic import ValidationError

from coordinator.interrupt import Interrupt
from coordinator.launch.launcher import preload, require_torch
from coordinator.launch.local import warm_up
from coordinator.run import run
from coordinator.server import View
from coordinator.store import EXPERIMENT, SUMMARY, write_whole
from coordinator.summary import Summary
from protocol.config import Experiment
from protocol.errors import BadInput, HearsayError, Interrupted
from protocol.experiment_file import load

LOOK_WALL_S = 0.25
"""Between two looks at the display while nothing is finished."""
PARTIAL = "partial"


@dataclass(frozen=True)
class Point:
    """One experiment of a list."""

    title: str
    experiment: Experiment
    folder: Path
    """Where its run is as soon as it is finished; never half of it."""


@dataclass(frozen=True)
class Result:
    """What came of a point: a summary, or the reason why there is none."""

    summary: Summary | None
    failure: str = ""
    before: bool = False
    """Whether it was finished by an earlier call."""


class Watcher(Protocol):
    """Somebody who watches a list of runs; `watch` is called in the thread of the run."""

    def watch(self, point: Point) -> AbstractContextManager[View]:
        """Open a view of a run that begins."""

    def tick(self) -> None:
        """Draw, if it is time to."""


def run_all(
    points: Sequence[Point],
    *,
    jobs: int,
    interrupt: Interrupt,
    watcher: Watcher,
    note: Callable[[int, Result], None],
) -> None:
    """Run all points, at most `jobs` at a time; note hears of each result, by the point's place in the list.

    A point that fails has a reason, and the others go on. After an interrupt runs stop as they do alone,
    no other begins, and what was not finished has no result. Raises BadInput if no device could run at all.
    """
    require_torch()
    to_do = []
    for number, point in enumerate(points):
        if summary := finished(point):
            note(number, Result(summary, before=True))
        else:
            to_do.append((number, point))
    if not to_do:
        return
    warm_up(sorted({module for _, point in to_do for module in preload(point.experiment)}))
    to_do.reverse()
    under_way: dict[Future[Result | None], int] = {}
    with ThreadPoolExecutor(jobs, thread_name_prefix="run") as pool:
        try:
            while under_way or (to_do and not interrupt.count):
                while to_do and len(under_way) < jobs and not interrupt.count:
                    number, point = to_do.pop()
                    under_way[pool.submit(_run_whole, point, watcher, interrupt)] = number
                done, _ = wait(under_way, LOOK_WALL_S, FIRST_COMPLETED)
                for future in done:
                    number = under_way.pop(future)
                    if result := future.result():
                        note(number, result)
                watcher.tick()
        except BaseException:
            interrupt.count += 1  # nobody would hear of the others' ends
            raise


def finished(point: Point) -> Summary | None:
    """Return the summary of a point that was run to its end before, exactly as it would be run now."""
    try:
        summary = Summary.model_validate_json((point.folder / SUMMARY).read_bytes())
        experiment = load(point.folder / EXPERIMENT)
    except (OSError, ValidationError, BadInput):
        return None
    return summary if experiment == point.experiment else None


def _run_whole(point: Point, watcher: Watcher, interrupt: Interrupt) -> Result | None:
    """Run a point into a folder of its own, which takes its place once it is whole."""
    partial = point.folder.with_name(f"{point.folder.name}.{secrets.token_hex(2)}.{PARTIAL}")
    try:
        _clear(point.folder)
        outcome = run(point.experiment, partial, lambda: watcher.watch(point), interrupt)
        if outcome.summary.how == "stopped":
            return None
        summary = outcome.summary.model_copy(update={"run_dir": str(point.folder)})
        write_whole(partial / SUMMARY, summary.model_dump_json(indent=2) + "\n")
        partial.rename(point.folder)
    except Interrupted:
        return None
    except (HearsayError, OSError) as error:
        return None if interrupt.count else Result(None, str(error))
    return Result(summary)


def _clear(folder: Path) -> None:
    """Remove what an interrupted, failed or other run has left of a point."""
    for leftover in folder.parent.glob(f"{escape(folder.name)}.????.{PARTIAL}"):
        shutil.rmtree(leftover)
    if (folder / EXPERIMENT).exists():
        shutil.rmtree(folder)
    elif folder.exists():
        raise BadInput(f"{folder}: is no run's folder, and in the way of one")
