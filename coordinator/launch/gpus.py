"""The GPUs of this host, as its driver tells of them: the coordinator does without torch."""

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

QUERY = (
    "nvidia-smi",
    "--query-gpu=index,uuid,name,memory.free,memory.total",
    "--format=csv,noheader,nounits",
)
ASK_WALL_S = 20.0
"""How long the driver may take; without persistence mode it wakes up first."""
MIB = 2**20
VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Gpu:
    """One GPU: its number as a device counts those that it can use, in the order of the PCI bus."""

    index: int
    uuid: str
    name: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class Seen:
    """What there is, and why there is no more."""

    gpus: tuple[Gpu, ...]
    why: str = ""
    """Why there is none."""


def see_gpus(environment: Mapping[str, str]) -> Seen:
    """Ask the driver for the GPUs of this host, and leave out what the environment hides from CUDA."""
    try:
        answer = subprocess.run(  # noqa: S603
            QUERY, capture_output=True, text=True, timeout=ASK_WALL_S, check=False
        )
    except OSError:
        return Seen((), "no nvidia-smi")
    except subprocess.TimeoutExpired:
        return Seen((), f"nvidia-smi did not answer within {ASK_WALL_S:g} s")
    if answer.returncode:
        last_words = (answer.stderr or answer.stdout).strip().splitlines()[-1:] or ["it does not say why"]
        return Seen((), f"nvidia-smi failed: {last_words[0]}")
    found = parse(answer.stdout)
    shown = visible(found, environment.get(VISIBLE))
    if found and not shown:
        return Seen((), f"{VISIBLE} = {environment.get(VISIBLE)} shows none")
    return Seen(shown, "" if shown else "nvidia-smi names none whose memory it knows")


def parse(lines: str) -> tuple[Gpu, ...]:
    """Read what nvidia-smi says, a GPU a line; those whose memory it does not know are left out."""
    found = []
    for line in lines.splitlines():
        cells = [cell.strip() for cell in line.split(",")]
        if len(cells) == 5 and cells[0].isdecimal() and cells[3].isdecimal() and cells[4].isdecimal():
            index, uuid, name, free_mib, total_mib = cells
            found.append(Gpu(int(index), uuid, name, int(free_mib) * MIB, int(total_mib) * MIB))
    return tuple(found)


def visible(gpus: Sequence[Gpu], shown: str | None) -> tuple[Gpu, ...]:
    """Return GPUs, numbered as CUDA does: all, or those that CUDA_VISIBLE_DEVICES names, in its order.

    It names them by number or by the beginning of a UUID; at the first that is not there CUDA stops reading.
    """
    if shown is None:
        return tuple(gpus)
    found: list[Gpu] = []
    for name in (part.strip() for part in shown.split(",")):
        named = [g for g in gpus if name and (str(g.index) == name or g.uuid.startswith(name))]
        if len(named) != 1:
            break
        found.append(replace(named[0], index=len(found)))
    return tuple(found)
