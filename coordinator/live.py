"""The live view of a run in a terminal: one progress bar and a line per device; plain lines elsewhere."""

from dataclasses import dataclass
from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from coordinator.events import Consensus, Died, Ended, Event, Left, Started
from protocol.config import Experiment
from protocol.messages import Report

REFRESH_WALL_S = 0.25
PLAIN_WALL_S = 2.0
"""Between two lines where the output is no terminal."""
MAX_ROWS = 32


@dataclass
class _Row:
    round: int = 0
    loss: float | None = None
    accuracy: float | None = None
    packets_sent: int = 0
    packets_lost: int = 0
    heard: int = 0
    neighbours: int = 0
    state: str = ""


class LiveView:
    """What a user sees while devices learn."""

    def __init__(self, console: Console, experiment: Experiment, title: str) -> None:
        self._console = console
        self._experiment = experiment
        self._title = title
        self._rows = [_Row() for _ in range(experiment.devices)]
        self._distance: float | None = None
        self._drawn_s = monotonic()
        self._phase = f"starting {experiment.devices} devices"
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("rounds"),
            TimeRemainingColumn(),
            console=console,
        )
        self._task = self._progress.add_task(self._phase, total=experiment.rounds)
        self._live = Live(console=console, auto_refresh=False, transient=False)

    def __enter__(self) -> Self:
        """Begin to draw."""
        if self._console.is_terminal:
            self._live.start()
        self._draw()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Draw once more and leave the last picture standing."""
        self._draw()
        self._live.stop()

    def show(self, event: Event) -> None:
        """Take in an event of the run."""
        match event:
            case Started():
                self._phase = self._title
            case Report():
                self._report(event)
            case Consensus():
                self._distance = event.distance
            case Died():
                self._end(event.device, f"lost: {event.reason}")
            case Left():
                self._end(event.device, f"left: {event.reason}")
            case Ended():
                self._phase = event.how if event.how == "stopped" else self._title

    def tick(self) -> None:
        """Draw if the last drawing is old enough."""
        pause_s = REFRESH_WALL_S if self._console.is_terminal else PLAIN_WALL_S
        if monotonic() - self._drawn_s >= pause_s:
            self._draw()

    def _end(self, device: int, state: str) -> None:
        self._rows[device].state = state
        if not self._console.is_terminal:
            self._console.print(f"device {device} {state}", highlight=False, markup=False)

    def _report(self, report: Report) -> None:
        row = self._rows[report.device]
        row.round = report.round + 1
        row.loss = report.loss
        row.accuracy = row.accuracy if report.accuracy is None else report.accuracy
        row.packets_sent += sum(h.packets_sent for h in report.heard.values())
        row.packets_lost += sum(h.packets_lost for h in report.heard.values())
        row.neighbours = len(report.heard)
        row.heard = sum(not h.missing for h in report.heard.values())

    def _draw(self) -> None:
        self._drawn_s = monotonic()
        completed = min((row.round for row in self._rows if not row.state), default=0)
        self._progress.update(self._task, completed=completed, description=self._phase)
        if self._console.is_terminal:
            self._live.update(Group(self._progress, self._table()), refresh=True)
        else:
            self._console.print(self._line(completed), highlight=False, soft_wrap=True, markup=False)

    def _line(self, completed: int) -> str:
        accuracies = [row.accuracy for row in self._rows if row.accuracy is not None and not row.state]
        mean = f", accuracy {sum(accuracies) / len(accuracies):.3f}" if accuracies else ""
        sent, lost = sum(r.packets_sent for r in self._rows), sum(r.packets_lost for r in self._rows)
        share = f", packets lost {lost / sent:.1%}" if sent else ""
        return f"{self._phase}: round {completed} of {self._experiment.rounds}{mean}{share}"

    def _table(self) -> Table:
        distance = "" if self._distance is None else f"consensus distance {self._distance:.3g}"
        table = Table(box=None, caption=distance, caption_justify="left")
        for name in ("device", "round", "loss", "accuracy", "packets lost", "heard"):
            table.add_column(name, justify="right")
        table.add_column("")
        for device, row in enumerate(self._rows[:MAX_ROWS]):
            table.add_row(
                str(device),
                str(row.round),
                "" if row.loss is None else f"{row.loss:.3f}",
                "" if row.accuracy is None else f"{row.accuracy:.3f}",
                f"{row.packets_lost} ({row.packets_lost / row.packets_sent:.1%})" if row.packets_sent else "",
                f"{row.heard} of {row.neighbours}" if row.round else "",
                escape(row.state),
            )
        if len(self._rows) > MAX_ROWS:
            table.add_row("…", "", "", "", "", "", f"and {len(self._rows) - MAX_ROWS} more")
        return table
