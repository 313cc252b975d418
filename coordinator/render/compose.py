"""An experiment as a compose file: a coordinator, and devices as containers with limits of their own.

Devices that are alike are replicas of one service. Unlike ones are a service each, which asks the
coordinator for its number: the share of a core that a container gets is that of its device's frequency in
the highest one's. Memory is what `coordinator/footprint.py` says, times `HEADROOM`.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coordinator.footprint import MIB, footprint
from coordinator.render.yaml import Yaml, to_yaml
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.hardware import fleet
from protocol.messages import Survey

HEADROOM = 2
"""To which factor the model of memory is held; a device over its limit is killed."""
MEMORY_STEP = 64 * MIB
LEAST_CORES = 0.01
"""Docker has no smaller share."""
MOST_CORES = 1024
PORT = 5555


_CONTAINER: dict[str, Yaml] = {
    "user": "0:0",  # only to become the owner of the folder of runs: docker/entrypoint.py
    "cap_drop": ["ALL"],
    "cap_add": ["SETUID", "SETGID"],
    "security_opt": ["no-new-privileges:true"],
    "init": True,
    "stop_grace_period": "20s",
}


@dataclass(frozen=True)
class Group:
    """Devices that are one service: `devices` are the numbers that it asks for, or none if any will do."""

    name: str
    replicas: int
    cores: float
    memory_bytes: int
    device: int | None = None


@dataclass(frozen=True)
class Source:
    """Where the experiment is from: its file and what was laid over it; and where the compose file goes."""

    file: Path
    overrides: tuple[str, ...] = ()
    out: Path | None = None
    """None: to stdout."""

    @property
    def base(self) -> Path:
        """Return the folder that paths in the compose file are relative to."""
        return self.out.parent if self.out else Path()


def render_compose(experiment: Experiment, survey: Survey, source: Source, *, cores: float) -> str:
    """Write the compose file of an experiment; cores: of the fastest device.

    Raises BadInput for an experiment that containers cannot run.
    """
    _refuse(experiment, source)
    groups = device_groups(experiment, footprint(experiment, survey).container_bytes, cores=cores)
    in_all = sum(group.replicas * group.cores for group in groups)
    name = experiment.name.lower().replace(".", "-")
    document: dict[str, Yaml] = {
        "name": f"hearsay-{name}",
        "services": {
            "coordinator": _coordinator(source),
            **{group.name: _node(group) for group in groups},
        },
        "networks": {"air": {"internal": True}},
    }
    return (
        f"# {experiment.name}: written by `hearsay render compose`.\n"
        f"# Images: docker compose -f docker/compose.yaml build, in the sources.\n"
        f"# Before the first run: mkdir -p runs data. What a run leaves belongs to whoever owns runs.\n"
        f"# Devices may use {in_all:g} cores together. On a machine with fewer, unlike ones are more alike\n"
        f"# than they should be: render it with a smaller --cores.\n"
        f"{to_yaml(document)}"
    )


def parse_cores(text: str, experiment: Experiment) -> float:
    """Read how many cores the fastest device has: those of its threads, unless told; raises BadInput."""
    try:
        cores = float(text) if text else float(experiment.runtime.torch_threads)
    except ValueError as error:
        raise BadInput(f"--cores {text}: expected a number") from error
    if not LEAST_CORES <= cores <= MOST_CORES:
        raise BadInput(f"--cores {text}: must be >= {LEAST_CORES} and <= {MOST_CORES}")
    return cores


def device_groups(
    experiment: Experiment, container_bytes: Sequence[int], *, cores: float
) -> tuple[Group, ...]:
    """Say which devices are one service, and what each container may use at most."""
    shares_hz = [own.cpu_hz for own in fleet(experiment)]
    fastest_hz = max(shares_hz)
    if len(set(shares_hz)) == 1:  # then any container can be any device
        return (Group("node", experiment.devices, cores, _limit_bytes(max(container_bytes))),)
    of_each = [cores * hz / fastest_hz for hz in shares_hz]
    slowest = min(range(experiment.devices), key=of_each.__getitem__)
    if of_each[slowest] < LEAST_CORES:
        raise BadInput(
            f"device.cpu_hz: device {slowest} would have {of_each[slowest]:.2g} of a core, and Docker gives "
            f"no less than {LEAST_CORES}; use --cores {LEAST_CORES / of_each[slowest] * cores:.2g} or more"
        )
    digits = len(str(experiment.devices - 1))
    return tuple(
        Group(f"node-{device:0{digits}}", 1, share, _limit_bytes(container_bytes[device]), device)
        for device, share in enumerate(of_each)
    )


def coordinator_command(source: Source) -> list[str]:
    """Return how the coordinator is started in its container."""
    overrides = [part for override in source.overrides for part in ("--set", override)]
    return [
        "hearsay",
        "run",
        f"/experiments/{source.file.name}",
        *overrides,
        "--listen",
        f"tcp://0.0.0.0:{PORT}",
        "--set",
        "runtime.coordinator_grace_s=inf",
    ]


def node_command(group: Group) -> list[str]:
    """Return how a device is started in its container."""
    number = [] if group.device is None else ["--device", str(group.device)]
    return ["python", "-m", "node", "--coordinator", f"tcp://coordinator:{PORT}", *number]


def _coordinator(source: Source) -> dict[str, Yaml]:
    experiments: dict[str, Yaml] = {
        "type": "bind",
        "source": _beside(source.file.parent, source.base),
        "target": "/experiments",
        "read_only": True,
    }
    knock = f"import socket; socket.create_connection(('127.0.0.1', {PORT}), 2).close()"
    return {
        **_CONTAINER,
        "image": "hearsay-coordinator",
        "command": _words(coordinator_command(source)),
        "volumes": ["./runs:/runs", experiments],
        "healthcheck": {
            "test": ["CMD", "python3", "-c", knock],
            "interval": "2s",
            "timeout": "5s",
            "retries": 30,
        },
        "networks": ["air"],
    }


def _node(group: Group) -> dict[str, Yaml]:
    limits: dict[str, Yaml] = {
        "cpus": f"{group.cores:.3f}",
        "memory": f"{group.memory_bytes // MIB}M",
    }
    return {
        **_CONTAINER,
        "image": "hearsay-node",
        "command": _words(node_command(group)),
        "volumes": ["./runs:/runs", "./data:/data:ro"],
        "environment": {"HEARSAY_DATA": "/data"},
        "depends_on": {"coordinator": {"condition": "service_healthy"}},
        "restart": "on-failure:5",
        "deploy": {"replicas": group.replicas, "resources": {"limits": limits}},
        "networks": ["air"],
    }


def _refuse(experiment: Experiment, source: Source) -> None:
    if experiment.transport.kind == "memory":
        raise BadInput("transport.kind = memory: puts all devices into one process; containers need zmq")
    folder = source.file.resolve().parent
    for key, file in (("graph.file", experiment.graph.file), ("radio.snr_file", experiment.radio.snr_file)):
        if file and not Path(file).is_relative_to(folder):
            raise BadInput(f"{key} = {file}: containers see only {folder}; put the file there")


def _limit_bytes(container_bytes: int) -> int:
    return -(-HEADROOM * container_bytes // MEMORY_STEP) * MEMORY_STEP


def _beside(path: Path, base: Path) -> str:
    """Write a path as seen from the compose file's folder, so that both can be moved together."""
    seen = os.path.relpath(path.resolve(), base.resolve())
    try:
        seen.encode()
    except UnicodeEncodeError as error:
        raise BadInput(f"{path}: its name is not UTF-8, and a compose file is") from error
    return _plain(seen if seen.startswith("..") else f"./{seen}")


def _words(command: Sequence[str]) -> list[Yaml]:
    return [_plain(word) for word in command]


def _plain(text: str) -> str:
    """Double the dollars: compose puts variables in the place of what follows one."""
    return text.replace("$", "$$")
