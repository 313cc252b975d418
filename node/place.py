"""Where a device's process runs: its host's address, and its number among those that torchrun started."""

from collections.abc import Mapping
from dataclasses import dataclass

from protocol.errors import BadInput

_VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@dataclass(frozen=True)
class Ranked:
    """What torchrun, or whoever sets the same variables, tells each of its processes."""

    rank: int
    """Its number among all of them, which is that of the device."""
    world_size: int
    """How many they are."""
    local_rank: int
    """Its number among those of its host."""


@dataclass(frozen=True)
class Place:
    """Where one process runs."""

    host: str
    """Address at which its neighbours reach it."""
    ranked: Ranked | None = None
    """Absent where it was started alone."""


NOWHERE = Place("")
"""Of devices that share a process: nobody has to reach them from outside."""


def ranked(environment: Mapping[str, str]) -> Ranked | None:
    """Return what the environment of a process says; None unless it says all that `env://` needs."""
    if not all(environment.get(name) for name in _VARIABLES):
        return None
    rank, world_size = environment["RANK"], environment["WORLD_SIZE"]
    local_rank = environment.get("LOCAL_RANK", rank)
    if not (rank.isdecimal() and world_size.isdecimal() and local_rank.isdecimal()):
        raise BadInput(
            f"RANK = {rank}, LOCAL_RANK = {local_rank}, WORLD_SIZE = {world_size}: torchrun sets whole "
            f"numbers; unset them to start a device by hand"
        )
    return Ranked(int(rank), int(world_size), int(local_rank))
