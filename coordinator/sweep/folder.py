"""The folder of a sweep: `sweep.json`, `sweep.png`, and a run's folder for every finished point."""

import fcntl
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from coordinator.store import write_whole
from coordinator.sweep.grid import Grid, GridPoint, label
from coordinator.sweep.record import SweepRecord, base_of
from protocol.errors import BadInput

RECORD = "sweep.json"
PICTURE = "sweep.png"
POINTS = "points"
LOCK = ".lock"


class SweepFolder:
    """Where one sweep leaves its traces, and finds those of its interrupted self."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    @contextmanager
    def open(cls, out: Path | None, grid: Grid) -> "Iterator[SweepFolder]":
        """Make the folder (default: `runs/sweep-<name>-<time>-<hex>`), or take up the sweep that is in it.

        Raises BadInput if it holds anything else, or somebody works in it, or it cannot be made.
        """
        unique = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
        path = out or Path("runs") / f"sweep-{grid.name}-{unique}"
        try:
            path = path.resolve()
            if path.is_dir() and any(path.iterdir()) and not (path / RECORD).is_file():
                raise BadInput(
                    f"--out {path}: the folder is not empty and holds no sweep; name one that is new"
                )
            (path / POINTS).mkdir(parents=True, exist_ok=True)
            lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except (OSError, RuntimeError, ValueError) as error:
            raise BadInput(f"--out {path}: cannot be made ({error})") from error
        try:
            _lock(lock, path)
            if (path / RECORD).exists():
                _refuse_another(path, _read(path), grid)
            yield cls(path)
        finally:
            os.close(lock)

    def of(self, point: GridPoint) -> str:
        """Return the folder of a point's run, relative to this one."""
        return f"{POINTS}/{point.name}"

    def write(self, record: SweepRecord) -> None:
        """Write what is known; a reader never sees half of it."""
        write_whole(self.path / RECORD, record.model_dump_json(indent=2) + "\n")


def _lock(lock: int, path: Path) -> None:
    """Keep others out until this process ends, however it ends."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise BadInput(
            f"--out {path}: another sweep is at work in it; wait, or name another folder"
        ) from error


def _read(path: Path) -> SweepRecord:
    try:
        return SweepRecord.model_validate_json((path / RECORD).read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(f"--out {path}: its {RECORD} is not of this version of hearsay") from error


def _refuse_another(path: Path, there: SweepRecord, grid: Grid) -> None:
    """Raise BadInput unless the sweep in a folder is this one, or a part of it."""
    if set(there.keys) != set(grid.keys):
        raise BadInput(
            f"--out {path}: holds a sweep over {', '.join(there.keys)}, not {', '.join(grid.keys)}; "
            f"name a new folder"
        )
    was, now = _flat(there.base), _flat(base_of(grid))
    for key in sorted(was.keys() | now.keys()):
        if was.get(key) != now.get(key):
            raise BadInput(
                f"--out {path}: holds another sweep ({key} = {_shown(was.get(key))} there, "
                f"{_shown(now.get(key))} here); name a new folder"
            )
    known = {f"{POINTS}/{point.name}" for point in grid.points}
    for point in there.points:
        if point.folder not in known:
            raise BadInput(
                f"--out {path}: holds {point.folder.removeprefix(f'{POINTS}/')}, which these axes leave out; "
                f"they can only grow, so add it, or name a new folder"
            )


def _flat(table: Mapping[str, JsonValue], prefix: str = "") -> dict[str, JsonValue]:
    flat: dict[str, JsonValue] = {}
    for key, value in table.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def _shown(value: JsonValue) -> str:
    return label(value) if isinstance(value, bool | int | float | str) else str(value)
