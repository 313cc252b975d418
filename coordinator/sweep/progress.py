"""The live view of a sweep in a terminal: a bar, and a line per run under way; elsewhere a line per point."""

from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from coordinator.events import Event
from coordinator.sweep.runner import Point, Result
from protocol.config import Experiment
from protocol.messages import Report

REFRESH_WALL_S = 0.25


class RunView:
    """How far one run is: written by its own thread, read by the one that draws."""

    def __init__(self, title: str, experiment: Experiment) -> None:
        self.title = title
        self.rounds = experiment.rounds
        self._reports_per_round = experiment.devices
        self._reports = 0

    def show(self, event: Event) -> None:
        """Take in an event of the run."""
        self._reports += isinstance(event, Report)

    def tick(self) -> None:
        """Leave the drawing to the sweep."""

    @property
    def round(self) -> int:
        """Rounds that are done."""
        return self._reports // self._reports_per_round

    @property
    def share(self) -> float:
        """Share of the run that is done."""
        return self._reports / (self._reports_per_round * self.rounds)


class SweepView:
    """What a user sees while a list of points is run."""

    def __init__(self, console: Console, title: str, num_points: int) -> None:
        self._console = console
        self._num_points = num_points
        self._num_before = self._num_done = self._num_failed = 0
        self._running: dict[int, RunView] = {}
        self._drawn_s = monotonic()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[said]}"),
            TimeRemainingColumn(),
            console=console,
            speed_estimate_period=300,
        )
        self._task = self._progress.add_task(escape(title), total=num_points, said="")
        self._live = Live(console=console, auto_refresh=False)

    def __enter__(self) -> Self:
        """Get ready to draw, as soon as there is something to see."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draw once more and leave the last picture standing."""
        if self._live.is_started:
            self._draw()
            self._live.stop()

    @contextmanager
    def watch(self, point: Point) -> Iterator[RunView]:
        """Open a view of a run that begins, in the thread of that run."""
        view = RunView(point.title, point.experiment)
        self._running[id(view)] = view
        try:
            yield view
        finally:
            del self._running[id(view)]

    def ended(self, point: Point, result: Result) -> None:
        """Take in what came of a point, now or before."""
        if result.before:
            self._num_before += 1
            self._progress.update(self._task, total=self._num_points - self._num_before)
            return
        self._num_done += 1
        self._num_failed += result.summary is None
        done = self._num_before + self._num_done
        what = f"failed: {result.failure}" if result.summary is None else _in_short(result)
        line = f"{done} of {self._num_points}: {point.title}: {what}"
        if result.summary is None or not self._console.is_terminal:
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)

    def tick(self) -> None:
        """Draw if the last drawing is old enough."""
        if self._console.is_terminal and monotonic() - self._drawn_s >= REFRESH_WALL_S:
            self._draw()

    def _draw(self) -> None:
        self._drawn_s = monotonic()
        self._live.start()
        running = list(self._running.values())
        said = f"{self._num_before + self._num_done} of {self._num_points} points"
        said += f", {self._num_failed} failed" if self._num_failed else ""
        completed = self._num_done + sum(view.share for view in running)
        self._progress.update(self._task, completed=completed, said=said)
        lines = [Text(f"  {view.title}: round {view.round} of {view.rounds}") for view in running]
        self._live.update(Group(self._progress, *lines), refresh=True)


def _in_short(result: Result) -> str:
    summary = result.summary
    assert summary is not None
    accuracy = "" if summary.accuracy_mean is None else f"accuracy {summary.accuracy_mean:.3f}, "
    return f"{accuracy}{summary.wall_s:.1f} s"
