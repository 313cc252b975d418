"""How the devices of a run come to be: processes of this host, or started elsewhere by somebody else."""

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic, sleep
from typing import Protocol
from urllib.parse import urlsplit

from coordinator.device import describe_what_is_here, fetch, packet_error_tables
from coordinator.interrupt import Interrupt
from coordinator.launch.gpus import Seen, see_gpus
from coordinator.launch.local import LocalProcesses
from coordinator.launch.placement import candidates, place, without_gpus
from coordinator.server import Processes
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.messages import Seat
from protocol.packet_errors import PacketErrorTable

SETTLED_WALL_S = 4.0
"""A name whose addresses have not changed for this long has all that it will have."""
LOOK_WALL_S = 0.25
"""Between two looks at them."""
SEEN: Seat = "seen"


@dataclass(frozen=True)
class Prepared:
    """What devices will be told beside the plan."""

    packet_errors: tuple[PacketErrorTable, ...]
    gpus: tuple[Seat, ...]
    """Where the model of each device lives."""


class Launcher(Protocol):
    """Somebody who starts the devices of a run."""

    @property
    def bind(self) -> str:
        """Where the coordinator is to listen for them."""

    def prepare(self, experiment: Experiment) -> Prepared:
        """See that devices can start, and return what they will be told.

        Raises BadInput or RunError.
        """

    def launch(self, experiment: Experiment, url: str, logs: Path) -> AbstractContextManager[Processes]:
        """Start devices that join the run at url; none of them is left at the end."""


class Here:
    """Devices are processes of this host."""

    bind = "tcp://127.0.0.1:*"

    def prepare(self, experiment: Experiment) -> Prepared:
        """Have the data and the packet-error tables here, and a place for each device."""
        require_torch()
        seen = see_gpus(os.environ) if experiment.may_use_gpus else Seen(())
        chosen = candidates(experiment, seen)
        fetch(experiment)
        tables = packet_error_tables(experiment)
        if chosen:
            placement = place(experiment, chosen, describe_what_is_here(experiment))
        else:
            placement = without_gpus(experiment, seen)
        for line in placement.lines:
            sys.stderr.write(f"hearsay: {line}\n")
        return Prepared(tables, placement.gpus)

    def launch(self, experiment: Experiment, url: str, logs: Path) -> AbstractContextManager[Processes]:
        """Fork them."""
        num_processes = 1 if experiment.transport.kind == "memory" else experiment.devices
        return LocalProcesses.launch(num_processes, url, logs, preload(experiment))


@dataclass(frozen=True)
class Elsewhere:
    """Devices are started by somebody else, and come by themselves: containers, other hosts, torchrun."""

    bind: str

    def prepare(self, experiment: Experiment) -> Prepared:
        """Have the packet-error tables here; data and GPUs are where the devices are."""
        if experiment.radio.packet_errors != "formula":
            require_torch()
        return Prepared(packet_error_tables(experiment), (SEEN,) * experiment.devices)

    @contextmanager
    def launch(self, experiment: Experiment, url: str, logs: Path) -> "Iterator[Guests]":
        """Say where they are awaited."""
        num = 1 if experiment.transport.kind == "memory" else experiment.devices
        address = urlsplit(url)
        host = socket.gethostname() if address.hostname in ("0.0.0.0", "::") else address.hostname  # noqa: S104
        sys.stderr.write(
            f"hearsay: waiting for {num} x python -m node --coordinator tcp://{host}:{address.port}\n"
        )
        yield Guests()


class Guests:
    """Devices of which nothing is known but what they say."""

    sentinels: tuple[int, ...] = ()
    logs = "what they said where they run"

    def deaths(self) -> list[tuple[int, str]]:
        """Nobody tells."""
        return []

    def kill(self, pid: int) -> None:
        """Leave it to who started it; its neighbours do without it."""


def preload(experiment: Experiment) -> tuple[str, ...]:
    """Name what this experiment's devices would each import, to be imported once before the fork."""
    return ("sklearn.datasets",) if experiment.data.dataset == "digits" else ()


def count_addresses(name: str, wait_wall_s: float, interrupt: Interrupt) -> int:
    """Return how many addresses a host name has once their number settles: replicas behind a service.

    At least 1, also where that is only since the user wants no more. Raises BadInput if it has none in time.
    """
    began_s = changed_s = monotonic()
    seen: set[str | int] = set()
    while not interrupt.count and (not seen or monotonic() - changed_s < SETTLED_WALL_S):
        if monotonic() - began_s > wait_wall_s:
            what = "its addresses still change" if seen else "no host has this name"
            raise BadInput(
                f"--as-many-as {name}: {what} after {wait_wall_s:g} s; start what is behind it, or raise "
                f"runtime.join_wall_s"
            )
        try:
            now = {info[4][0] for info in socket.getaddrinfo(name, None, socket.AF_INET, socket.SOCK_STREAM)}
        except OSError:  # not yet
            now = set()
        if now != seen:
            seen, changed_s = now, monotonic()
        sleep(LOOK_WALL_S)
    return max(len(seen), 1)


def require_torch() -> None:
    """Raise BadInput where there is no torch, without which no device can run."""
    try:
        version("torch")
    except PackageNotFoundError as error:
        raise BadInput("devices need torch, which is not installed; install hearsay[node]") from error
