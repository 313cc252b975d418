"""Other programs, asked side by side and not for long: whoever hangs is killed with all it has started."""

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryFile
from time import monotonic
from typing import IO

from coordinator.interrupt import Interrupt
from protocol.errors import Interrupted

LOOK_WALL_S = 0.1
"""Between two looks at whether the user wants an end."""
END_WALL_S = 0.5
"""For a killed program to be gone; one that waits for a broken driver is left to the system."""


@dataclass(frozen=True)
class Command:
    """A program with its arguments, and how long it may take from its start."""

    words: tuple[str, ...]
    wall_s: float


@dataclass(frozen=True)
class Answer:
    """What a program said; code is None where it did not end in time."""

    code: int | None
    stdout: str
    stderr: str

    @property
    def fault(self) -> str:
        """Why it is of no use, in its own last words; empty where it is."""
        if self.code is None:
            return "no answer in time"
        if self.code == 0:
            return ""
        lines = (self.stderr.strip() or self.stdout.strip()).splitlines()
        return lines[-1] if lines else f"exit code {self.code}"


class Commands:
    """Programs under way; none outlives the `with` that started them."""

    def __init__(self) -> None:
        self._began_s = monotonic()
        self._commands: Mapping[str, Command] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._files: dict[str, tuple[IO[bytes], IO[bytes]]] = {}

    @classmethod
    @contextmanager
    def started(cls, commands: Mapping[str, Command]) -> "Iterator[Commands]":
        """Start programs; one that is not installed is left out."""
        running = cls()
        running._commands = commands
        with ExitStack() as files:
            try:
                for name, command in commands.items():
                    # Files: whatever a program leaves behind could hold the end of a pipe open.
                    out, err = files.enter_context(TemporaryFile()), files.enter_context(TemporaryFile())
                    with suppress(OSError):
                        running._processes[name] = subprocess.Popen(  # noqa: S603
                            command.words,
                            stdin=subprocess.DEVNULL,
                            stdout=out,
                            stderr=err,
                            start_new_session=True,
                        )
                        running._files[name] = out, err
                yield running
            finally:
                for process in running._processes.values():
                    _kill(process)

    def answers(self, interrupt: Interrupt) -> dict[str, Answer]:
        """Wait until all have ended or had their time; raises Interrupted if the user wants an end."""
        answers = {name: self._answer(name, interrupt) for name in self._processes}
        if interrupt.count:
            raise Interrupted
        return answers

    def _answer(self, name: str, interrupt: Interrupt) -> Answer:
        process, deadline_s = self._processes[name], self._began_s + self._commands[name].wall_s
        while process.poll() is None and monotonic() < deadline_s and not interrupt.count:
            with suppress(subprocess.TimeoutExpired):
                process.wait(min(LOOK_WALL_S, max(0.0, deadline_s - monotonic())))
        out, err = self._files[name]
        return Answer(process.returncode, _text(out), _text(err))


def _kill(process: "subprocess.Popen[bytes]") -> None:
    """Kill a program that still runs, and its children, which are in its session."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            process.wait(END_WALL_S)


def _text(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode(errors="replace")
