"""A progress bar for work that takes longer than people like to wait; short work stays silent."""

from time import monotonic
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

PATIENCE_WALL_S = 2.0
"""Before anything is shown."""
REFRESH_WALL_S = 0.1
PLAIN_WALL_S = 10.0
"""Between two lines where the output is no terminal."""


class Patience:
    """What a user sees of long work: nothing at first, then a bar, or lines where there is no terminal."""

    def __init__(self, console: Console, what: str, total: int) -> None:
        self._console = console
        self._what = what
        self._total = total
        self._done = 0
        self._drawn_s = monotonic()
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task(what, total=total)
        self._pause_s = PATIENCE_WALL_S

    def __enter__(self) -> Self:
        """Begin to count the seconds."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._bar.live.is_started:  # rich would end a bar that was never there with an empty line
            self._bar.stop()

    def advance(self, amount: int) -> None:
        """Note that so much more is done."""
        self._done += amount
        if monotonic() - self._drawn_s < self._pause_s:
            return
        self._drawn_s = monotonic()
        self._pause_s = REFRESH_WALL_S if self._console.is_terminal else PLAIN_WALL_S
        if self._console.is_terminal:
            self._bar.start()
            self._bar.update(self._task, completed=self._done)
            self._bar.refresh()
        else:
            line = f"{self._what}: {self._done / self._total:.0%}"
            self._console.print(line, highlight=False, soft_wrap=True, markup=False)
