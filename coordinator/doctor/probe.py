"""A look at this machine: gathers facts and judges none of them.

What the kernel tells is read at once; other programs are asked side by side, for `COMMAND_WALL_S` at most,
and a device (`python -m node --survey`) meanwhile, for `SURVEY_WALL_S`.
"""

import json
import multiprocessing
import os
import platform
import re
import resource
import shutil
import socket
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from coordinator import device
from coordinator.doctor import cgroup
from coordinator.doctor.commands import Answer, Commands
from coordinator.doctor.facts import Docker, Facts, Folder, Gpu, Graphics, Machine, Package, Software
from coordinator.interrupt import Interrupt
from protocol.config import Experiment
from protocol.errors import BadInput, Interrupted, RunError
from protocol.messages import Survey

COMMAND_WALL_S = 5.0
SURVEY_WALL_S = 30.0
COMPOSE_PORT, TORCHRUN_PORT = 5555, 29500
"""Where a coordinator listens for containers, and torchrun for its ranks, unless they are told otherwise."""
USUAL_PORTS = ["32768", "60999"]
MIB = 2**20
COMMANDS = {
    "engine": ("docker", "info", "--format", "{{json .}}"),
    "compose": ("docker", "compose", "version", "--short"),
    "gpus": (
        "nvidia-smi",
        "--query-gpu=driver_version,memory.free,memory.total,name",
        "--format=csv,noheader,nounits",
    ),
}


def probe(experiment: Experiment, out: Path | None, interrupt: Interrupt) -> Facts:
    """Gather all facts; raises BadInput for an experiment that would be refused anywhere, Interrupted."""
    software = probe_software()
    with Commands.started(COMMANDS) as commands:
        survey, fault = _survey(experiment, software, interrupt)
        answers = commands.answers(COMMAND_WALL_S, interrupt)
    return Facts(
        machine=probe_machine(Path("/")),
        software=software,
        run_folder=probe_folder(out or Path("runs") / experiment.name),
        data_folder=probe_folder(Path(survey.data_folder)) if survey and survey.data_folder else None,
        docker=read_docker(answers),
        graphics=read_graphics(answers),
        survey=survey,
        survey_fault=fault,
    )


def probe_machine(root: Path) -> Machine:
    """Read what the kernel tells; root: where the file system begins."""
    available = _memory_available_bytes(root)
    left, quota = cgroup.memory_left_bytes(root), cgroup.cores(root)
    cores = float(len(os.sched_getaffinity(0)))
    _, descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)
    processes, _ = resource.getrlimit(resource.RLIMIT_NPROC)
    limited = processes != resource.RLIM_INFINITY and os.geteuid() != 0  # root is not held to it
    threads = [n for n in (cgroup.threads_left(root), processes if limited else None) if n is not None]
    shm = root / "dev/shm"
    return Machine(
        memory_bytes=available if left is None else min(available, left),
        memory_by="the machine" if left is None or left > available else "its cgroup",
        cores=cores if quota is None else min(cores, quota),
        cores_by="the machine" if quota is None or quota > cores else "its cgroup",
        threads=min(threads, default=None),
        descriptors=None if descriptors == resource.RLIM_INFINITY else descriptors,
        shm_bytes=shutil.disk_usage(shm).total if shm.is_dir() else 0,
        fork_server="forkserver" in multiprocessing.get_all_start_methods(),
        loopback=_is_free("127.0.0.1", 0),
        num_ports=_num_ports(root),
        busy_ports=tuple(port for port in (COMPOSE_PORT, TORCHRUN_PORT) if not _is_free("", port)),
    )


def probe_folder(path: Path) -> Folder:
    """Look at where something would be written."""
    there = path = path.absolute()
    while not there.exists():
        there = there.parent
    writable = there.is_dir() and os.access(there, os.W_OK | os.X_OK)
    taken = path.is_dir() and os.access(path, os.R_OK) and any(path.iterdir())
    return Folder(path, there, shutil.disk_usage(there).free, writable, taken)


def probe_software() -> Software:
    """Hold what is installed against what pyproject.toml asks for."""
    python, wanted = platform.python_version(), metadata("hearsay")["Requires-Python"]
    beside = Path(sys.executable).with_name("torchrun")
    return Software(
        python=python,
        python_wanted=wanted,
        python_suits=SpecifierSet(wanted).contains(python, prereleases=True),
        packages=tuple(
            _package(requirement, extra)
            for requirement in map(Requirement, requires("hearsay") or ())
            if (extra := _extra(requirement)) != "dev"
        ),
        torchrun=str(beside) if beside.exists() else shutil.which("torchrun") or "",
    )


def read_docker(answers: Mapping[str, Answer]) -> Docker:
    """Read what `docker info` and `docker compose version` said."""
    if "engine" not in answers or "compose" not in answers:
        return Docker()
    engine, compose = answers["engine"], answers["compose"]
    try:
        info = json.loads(engine.stdout or "{}")
    except ValueError:
        info = {}
    told = info if isinstance(info, dict) else {}
    found, cores, memory = (told.get(key) for key in ("ServerVersion", "NCPU", "MemTotal"))
    said = re.search(r"\d+\.\d+\S*", compose.stdout) if not compose.fault else None
    return Docker(
        cli=True,
        engine=found if isinstance(found, str) else "",
        engine_fault=engine.fault or "it told nothing of itself",
        compose=said[0] if said else "",
        compose_fault=compose.fault or "it told no version",
        cores=cores if isinstance(cores, int) else 0,
        memory_bytes=memory if isinstance(memory, int) else 0,
    )


def read_graphics(answers: Mapping[str, Answer]) -> Graphics:
    """Read what nvidia-smi said, a line for each GPU."""
    answer = answers.get("gpus")
    if answer is None:
        return Graphics()
    if answer.fault:
        return Graphics(fault=answer.fault)
    rows = [line.split(", ", 3) for line in answer.stdout.splitlines() if line.count(", ") >= 3]
    gpus = tuple(Gpu(name.strip(), _mib(free), _mib(total)) for _, free, total, name in rows)
    return Graphics(driver=rows[0][0].strip() if rows else "", gpus=gpus)


def _survey(experiment: Experiment, software: Software, interrupt: Interrupt) -> tuple[Survey | None, str]:
    """Ask a device, if one could answer."""
    absent = [p.name for p in software.packages if p.extra == "node" and not p.found]
    if absent:
        return None, f"{', '.join(absent)} not installed"
    try:
        return device.survey(experiment, wall_s=SURVEY_WALL_S), ""
    except (BadInput, RunError) as error:
        if interrupt.count:  # the signal reached the device, too
            raise Interrupted from error
        if isinstance(error, BadInput):
            raise
        return None, str(error)


def _memory_available_bytes(root: Path) -> int:
    text = (root / "proc/meminfo").read_text(encoding="ascii")
    kilobytes = dict(line.split(":", 1) for line in text.splitlines())["MemAvailable"]
    return 1024 * int(kilobytes.split()[0])


def _num_ports(root: Path) -> int:
    """Count the ports from which the system chooses."""
    try:
        ends = (root / "proc/sys/net/ipv4/ip_local_port_range").read_text(encoding="ascii").split()
    except OSError:  # a sandbox without it
        ends = USUAL_PORTS
    return int(ends[1]) - int(ends[0]) + 1


def _is_free(host: str, port: int) -> bool:
    """Say whether one could listen there; host "": on all interfaces."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # what has closed is no listener
        try:
            listener.bind((host, port))
        except OSError:
            return False
    return True


def _package(requirement: Requirement, extra: str) -> Package:
    try:
        found = version(requirement.name)
    except PackageNotFoundError:
        return Package(requirement.name, str(requirement.specifier), "", extra, suits=False)
    suits = requirement.specifier.contains(found, prereleases=True)
    return Package(requirement.name, str(requirement.specifier), found, extra, suits)


def _extra(requirement: Requirement) -> str:
    """Return the extra that a requirement belongs to, as in `torch>=2.6; extra == 'node'`."""
    named = re.search(r"extra == [\"'](\w+)[\"']", str(requirement.marker or ""))
    return named[1] if named else ""


def _mib(text: str) -> int:
    return int(text) * MIB if text.strip().isdecimal() else 0
