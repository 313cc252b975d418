"""What a check says: green, yellow or red, what was found, and what would be a remedy."""

from typing import Literal, TypeAlias

from pydantic import BaseModel, ConfigDict

Status: TypeAlias = Literal["green", "yellow", "red"]
Launcher: TypeAlias = Literal["local", "compose", "torchrun"]
LAUNCHERS: tuple[Launcher, ...] = ("local", "compose", "torchrun")
HERE: tuple[Launcher, ...] = ("local", "torchrun")
"""Launchers whose devices use what is installed on this machine."""

MIB, GIB = 2**20, 2**30


class Finding(BaseModel):
    """One check's word; a red one names the launchers that it stops."""

    model_config = ConfigDict(frozen=True)

    check: str
    status: Status
    found: str
    remedy: str = ""
    stops: tuple[Launcher, ...] = ()
    fits: int | None = None
    """How many devices there is room for, where that is a question."""


def size(num_bytes: float) -> str:
    """Write bytes as people read them."""
    return f"{num_bytes / GIB:.1f} GiB" if num_bytes >= GIB else f"{num_bytes / MIB:.0f} MiB"
