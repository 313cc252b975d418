"""What is known of a machine: numbers and versions, without a judgement."""

from dataclasses import dataclass, field
from pathlib import Path

from protocol.messages import Survey


@dataclass(frozen=True)
class Folder:
    """Where something would be written; `there` is the nearest folder above it that exists."""

    path: Path
    there: Path
    free_bytes: int
    writable: bool
    taken: bool = False
    """Whether something is in it already."""


@dataclass(frozen=True)
class Machine:
    """The host, or the part of it that this process may use."""

    memory_bytes: int
    """What is still to be had."""
    memory_by: str
    """What says so: `the machine` or `its cgroup`."""
    cores: float
    cores_by: str
    threads: int | None
    """How many may yet be started; None: no limit."""
    descriptors: int | None
    """How many files a process may open once it has raised its limit; None: no limit."""
    shm_bytes: int
    """Size of /dev/shm; 0: there is none."""
    fork_server: bool
    """Whether processes can be forked from a server."""
    loopback: bool
    """Whether a port can be had on the loopback address."""
    num_ports: int
    """How many the system gives to those who do not choose."""
    busy_ports: tuple[int, ...]
    """Of the ports that launchers choose: those that somebody listens on."""


@dataclass(frozen=True)
class Package:
    """A package that pyproject.toml asks for; found is empty where it is not installed."""

    name: str
    wanted: str
    found: str
    extra: str = ""
    suits: bool = True


@dataclass(frozen=True)
class Software:
    """The interpreter and what is installed for it."""

    python: str
    python_wanted: str
    python_suits: bool
    packages: tuple[Package, ...]
    torchrun: str
    """Where it is; empty: nowhere."""


@dataclass(frozen=True)
class Docker:
    """What its command line said; versions are empty where there was no answer."""

    cli: bool = False
    engine: str = ""
    engine_fault: str = ""
    compose: str = ""
    compose_fault: str = ""
    memory_bytes: int = 0


@dataclass(frozen=True)
class Gpu:
    """One GPU; free_bytes is 0 where the driver does not tell."""

    name: str
    free_bytes: int


@dataclass(frozen=True)
class Graphics:
    """What nvidia-smi said."""

    driver: str = ""
    gpus: tuple[Gpu, ...] = ()
    fault: str = ""


@dataclass(frozen=True)
class Facts:
    """All that is known; survey is None where no device could be asked, and survey_fault says why."""

    machine: Machine
    software: Software
    run_folder: Folder
    data_folder: Folder | None = None
    docker: Docker = field(default_factory=Docker)
    graphics: Graphics = field(default_factory=Graphics)
    survey: Survey | None = None
    survey_fault: str = ""
