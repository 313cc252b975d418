"""One page from its list of comparisons: every run that is not there yet, then figures, tables, verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from coordinator.interrupt import Interrupt
from coordinator.launch.launcher import require_torch
from coordinator.reproduce.comparison import Comparison, Measured, Run, Shown
from coordinator.reproduce.folder import point_folder
from coordinator.sweep.progress import SweepView
from coordinator.sweep.runner import Point, Result, run_all


@dataclass(frozen=True)
class Task:
    """One run of a page: of which comparison and arm it is."""

    comparison: str
    arm: str
    point: Point


@dataclass(frozen=True)
class Failure:
    """A run that has no numbers, and why."""

    title: str
    reason: str


@dataclass(frozen=True)
class Section:
    """One comparison with what came of it; no figures where not one of its runs was finished."""

    comparison: Comparison
    shown: Shown | None
    num_finished: int
    runs_wall_s: float
    """Host seconds of its runs, those of earlier calls included."""


@dataclass(frozen=True)
class Reproduced:
    """What is left of a page's comparisons."""

    sections: tuple[Section, ...]
    failures: tuple[Failure, ...]
    num_runs: int
    num_finished: int
    num_before: int
    """Of those, finished by an earlier call."""
    wall_s: float


def tasks_of(comparisons: Sequence[Comparison], folder: Path) -> list[Task]:
    """List every run of a page; raises BadInput for one that cannot be, before anything runs."""
    return [
        Task(
            comparison.name,
            arm,
            Point(
                f"{comparison.name}, {arm}, seed {seed}",
                experiment,
                point_folder(folder, comparison.name, arm, seed),
            ),
        )
        for comparison in comparisons
        for (arm, seed), experiment in comparison.experiments().items()
    ]


def reproduce(
    comparisons: Sequence[Comparison], folder: Path, *, jobs: int, view: SweepView, interrupt: Interrupt
) -> Reproduced:
    """Run what is left to run, and show all of it; raises BadInput, and RunError if nothing can run at all.

    Runs that fail are named, and the others go on; interrupted, it is what was finished so far.
    """
    require_torch()
    began_s = monotonic()
    tasks = tasks_of(comparisons, folder)
    results: dict[int, Result] = {}

    def note(number: int, result: Result) -> None:
        results[number] = result
        view.ended(tasks[number].point, result)

    points = [task.point for task in tasks]
    run_all(points, jobs=jobs, interrupt=interrupt, watcher=view, note=note)
    return Reproduced(
        sections=tuple(_section(comparison, tasks, results) for comparison in comparisons),
        failures=tuple(
            Failure(tasks[number].point.title, result.failure)
            for number, result in sorted(results.items())
            if result.summary is None
        ),
        num_runs=len(tasks),
        num_finished=sum(result.summary is not None for result in results.values()),
        num_before=sum(result.before for result in results.values()),
        wall_s=monotonic() - began_s,
    )


def _section(comparison: Comparison, tasks: Sequence[Task], results: Mapping[int, Result]) -> Section:
    runs = tuple(
        Run(task.arm, task.point.experiment, result.summary, task.point.folder)
        for number, task in enumerate(tasks)
        if task.comparison == comparison.name
        and (result := results.get(number)) is not None
        and result.summary is not None
    )
    shown = comparison.show(Measured(runs)) if runs else None
    runs_wall_s = sum(run.summary.wall_s + run.summary.startup_wall_s for run in runs)
    return Section(comparison, shown, len(runs), runs_wall_s)
