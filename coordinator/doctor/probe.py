"""A look at this machine: gathers facts and judges none of them.

What the kernel tells is read at once; other programs are asked side by side, for `COMMAND_WALL_S` at most,
and with them a device (`python -m node --survey`), for `SURVEY_WALL_S`.
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
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from pathlib import Path
from tempfile import TemporaryDirectory

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from pydantic import ValidationError

from coordinator.doctor import cgroup
from coordinator.doctor.commands import Answer, Command, Commands
from coordinator.doctor.facts import Docker, Facts, Folder, Gpu, Graphics, Machine, Package, Software
from coordinator.interrupt import Interrupt
from protocol.config import Experiment
from protocol.errors import EXIT_BAD_INPUT, BadInput
from protocol.experiment_file import dump
from protocol.messages import Survey

COMMAND_WALL_S = 5.0
SURVEY_WALL_S = 30.0
COMPOSE_PORT, TORCHRUN_PORT = 5555, 29500
"""Where a coordinator listens for containers, and torchrun for its ranks, unless they are told otherwise."""
USUAL_PORTS = ["32768", "60999"]
MIB = 2**20
COMMANDS = {
    "engine": Command(("docker", "info", "--format", "{{json .}}"), COMMAND_WALL_S),
    "compose": Command(("docker", "compose", "version", "--short"), COMMAND_WALL_S),
    "gpus": Command(
        ("nvidia-smi", "--query-gpu=driver_version,memory.free,name", "--format=csv,noheader,nounits"),
        COMMAND_WALL_S,
    ),
}


def probe(experiment: Experiment, out: Path | None, interrupt: Interrupt) -> Facts:
    """Gather all facts; raises BadInput for an experiment that would be refused anywhere, Interrupted."""
    software = probe_software()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.toml"
        file.write_text(dump(experiment), encoding="utf-8")
        device = Command((sys.executable, "-P", "-m", "node", "--survey", str(file)), SURVEY_WALL_S)
        with Commands.started(COMMANDS | {"device": device}) as commands:
            answers = commands.answers(interrupt)
    survey, fault = read_survey(answers)
    return Facts(
        machine=probe_machine(Path("/")),
        software=software,
        run_folder=probe_run_folder(out),
        data_folder=probe_folder(Path(survey.data_folder)) if survey and survey.data_folder else None,
        docker=read_docker(answers),
        graphics=read_graphics(answers),
        survey=survey,
        survey_fault=fault,
    )


def read_survey(answers: Mapping[str, Answer]) -> tuple[Survey | None, str]:
    """Read what a device found, or why none could tell; raises BadInput for what it refused."""
    answer = answers["device"]
    fault = answer.fault.removeprefix("node: ")
    if answer.code == EXIT_BAD_INPUT:
        raise BadInput(fault)
    if fault:
        return None, fault
    try:
        return Survey.model_validate_json(answer.stdout), ""
    except ValidationError:
        return None, "python -m node is of another version"


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


def probe_run_folder(out: Path | None) -> Folder:
    """Look at where a run would go: the folder that was named, or a new one among all others."""
    return probe_folder(out) if out else replace(probe_folder(Path("runs")), taken=False)


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
    found, memory = told.get("ServerVersion"), told.get("MemTotal")
    said = re.search(r"\d+\.\d+\S*", compose.stdout) if not compose.fault else None
    return Docker(
        cli=True,
        engine=found if isinstance(found, str) else "",
        engine_fault=engine.fault or "it told nothing of itself",
        compose=said[0] if said else "",
        compose_fault=compose.fault or "it told no version",
        memory_bytes=memory if isinstance(memory, int) else 0,
    )


def read_graphics(answers: Mapping[str, Answer]) -> Graphics:
    """Read what nvidia-smi said, a line for each GPU."""
    answer = answers.get("gpus")
    if answer is None:
        return Graphics()
    if answer.fault:
        return Graphics(fault=answer.fault)
    rows = [line.split(", ", 2) for line in answer.stdout.splitlines() if line.count(", ") >= 2]
    gpus = tuple(Gpu(name.strip(), _mib(free)) for _, free, name in rows)
    return Graphics(driver=rows[0][0].strip() if rows else "", gpus=gpus)


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
