"""Where a rendered file goes: whole or not at all, and over nothing that somebody else wrote."""

from pathlib import Path

from coordinator.store import write_whole
from protocol.errors import BadInput, RunError


def refuse_output(out: Path, *, force: bool) -> None:
    """Raise BadInput where a file may not be written."""
    if out.is_dir():
        raise BadInput(f"--out {out}: is a folder; name a file in it")
    if not out.parent.is_dir():
        raise BadInput(f"--out {out}: there is no folder {out.parent}; make it")
    if out.exists() and not force:
        raise BadInput(f"--out {out}: is there already; --force replaces it")


def write_output(text: str, out: Path) -> None:
    """Write a file of which a reader never sees half; raises BadInput where that cannot be."""
    try:
        write_whole(out, text)
    except RunError as error:
        raise BadInput(f"--out {error}") from error
