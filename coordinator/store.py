"""The folder of a run: the resolved experiment, the append-only event log, and what readers made of them."""

import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from pydantic import ValidationError

from coordinator.events import EVENT, Event
from protocol.config import Experiment
from protocol.errors import BadInput, Interrupted, RunError
from protocol.experiment_file import dump
from protocol.messages import Message

EVENTS = "events.jsonl"
EXPERIMENT = "experiment.toml"
SUMMARY = "summary.json"
REPORT = "report.png"
LOGS = "logs"


class RunFolder:
    """Where one run leaves its traces; every event is in the file once `append` returns."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.path = path
        self.run_id = run_id
        self._log = os.open(path / EVENTS, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)

    @classmethod
    @contextmanager
    def create(cls, experiment: Experiment, out: Path | None) -> "Iterator[RunFolder]":
        """Make the folder (default: `runs/<run id>`) and write the resolved experiment into it.

        Raises BadInput if the folder is taken or cannot be made. Where the run ends by BadInput or
        Interrupted, before its first round, nothing is left of the folder.
        """
        run_id = f"{experiment.name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        path = out or Path("runs") / run_id
        try:
            path = path.resolve()
            was_there = path.is_dir()
            if was_there and any(path.iterdir()):
                raise BadInput(f"--out {path}: the folder is not empty; name one that is new")
            (path / LOGS).mkdir(parents=True)
        except (OSError, RuntimeError, ValueError) as error:
            raise BadInput(f"--out {path}: cannot be made ({error})") from error
        try:
            comments = (f"hearsay {version('hearsay')}, git {git_revision()}", f"run {run_id}")
            try:
                write_whole(path / EXPERIMENT, dump(experiment, comments=comments))
                folder = cls(path, run_id)
            except OSError as error:
                raise BadInput(f"--out {path}: cannot be written ({error.strerror})") from error
            except RunError as error:
                raise BadInput(f"--out {error}") from error
            try:
                yield folder
            finally:
                os.close(folder._log)
        except (BadInput, Interrupted):
            _empty(path)
            if not was_there:
                path.rmdir()
            raise
        folder._tidy()

    @property
    def logs(self) -> Path:
        """Where the devices' own output goes."""
        return self.path / LOGS

    def append(self, event: Message | bytes) -> None:
        """Add one event to the log, as a model or as the JSON that a device sent."""
        line = event if isinstance(event, bytes) else event.model_dump_json().encode()
        try:
            written = os.write(self._log, line + b"\n")
        except OSError as error:
            raise RunError(f"{self.path / EVENTS}: cannot be written ({error.strerror})") from error
        if written <= len(line):
            raise RunError(f"{self.path / EVENTS}: only a part could be written; is the disk full?")

    def parameters(self) -> list[Path]:
        """Return the devices' final parameters that are there, in device order."""
        return sorted(self.path.glob("device-*.safetensors"), key=lambda p: int(p.stem.rpartition("-")[2]))

    def _tidy(self) -> None:
        """Remove the devices' log files that stayed empty."""
        for log in self.logs.glob("*.log"):
            if not log.stat().st_size:
                log.unlink()
        if not any(self.logs.iterdir()):
            self.logs.rmdir()


def read_events(path: Path) -> list[Event]:
    """Read a run's events in order; raises BadInput if this is no run's folder or its log is damaged."""
    try:
        lines = (path / EVENTS).read_bytes().split(b"\n")
    except OSError as error:
        raise BadInput(f"{path}: not the folder of a run ({error.strerror})") from error
    events: list[Event] = []
    for line in lines[:-1]:  # behind the last line end: nothing, or the half line of a killed coordinator
        try:
            events.append(EVENT.validate_json(line))
        except ValidationError as error:
            raise BadInput(
                f"{path / EVENTS}:{len(events) + 1}: not an event of this version of hearsay"
            ) from error
    return events


def _empty(folder: Path) -> None:
    for child in folder.iterdir():
        if child.is_dir():
            shutil.rmtree(child)
        else:
            child.unlink()


def write_whole(file: Path, text: str) -> None:
    """Write a file of which a reader never sees half; raises RunError."""
    partial = file.with_name(f".{file.name}.partial")
    try:
        partial.write_text(text, encoding="utf-8")
        partial.rename(file)
    except OSError as error:
        raise RunError(f"{file}: cannot be written ({error.strerror})") from error


def git_revision() -> str:
    """Return the revision of the source tree this runs from, `-dirty` if it was changed, or `unknown`."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # installed; a repository further up would be somebody else's
        return "unknown"
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],  # noqa: S607
            cwd=root,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()
