"""The folder of a page: `index.html`, `page.md`, figures, and a run's folder for every finished point."""

import fcntl
import os
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.store import write_whole
from protocol.errors import BadInput

MARK = "reproduce.json"
LOCK = ".lock"
POINTS = "points"


class Mark(BaseModel):
    """What a folder is for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paper: str
    quick: bool


@contextmanager
def page_folder(out: Path | None, mark: Mark) -> Iterator[Path]:
    """Make the folder of a page (default: `runs/reproduce-<paper>-<time>-<hex>`), or take up one like it.

    Raises BadInput if it holds anything else, or somebody works in it, or it cannot be made.
    """
    unique = f"{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"
    name = f"{mark.paper}-quick" if mark.quick else mark.paper
    path = out or Path("runs") / f"reproduce-{name}-{unique}"
    try:
        path = path.resolve()
        if path.is_dir() and any(path.iterdir()):
            _refuse_another(path, mark)
        (path / POINTS).mkdir(parents=True, exist_ok=True)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except (OSError, RuntimeError, ValueError) as error:
        raise BadInput(f"--out {path}: cannot be made ({error})") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until this process ends, however it ends
        except BlockingIOError as error:
            raise BadInput(
                f"--out {path}: another hearsay is at work in it; wait, or name another folder"
            ) from error
        write_whole(path / MARK, mark.model_dump_json() + "\n")
        yield path
    finally:
        os.close(lock)


def point_folder(path: Path, comparison: str, arm: str, seed: int) -> Path:
    """Return the folder of one run."""
    return path / POINTS / f"{comparison},{re.sub(r'[^A-Za-z0-9.=+-]+', '-', arm)},seed={seed}"


def _refuse_another(path: Path, mark: Mark) -> None:
    try:
        there = Mark.model_validate_json((path / MARK).read_bytes())
    except (OSError, ValidationError) as error:
        raise BadInput(
            f"--out {path}: the folder is not empty and holds no page of hearsay; name one that is new"
        ) from error
    if there != mark:
        held = f"{there.paper}{' --quick' if there.quick else ''}"
        raise BadInput(f"--out {path}: holds the page of reproduce {held}; name a new folder")
