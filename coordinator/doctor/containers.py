"""Could the devices be containers: Docker's command line, its engine, its compose plugin, memory."""

import re

from coordinator.doctor.facts import Docker
from coordinator.doctor.finding import Finding, size
from coordinator.doctor.room import UNKNOWN
from coordinator.footprint import COORDINATOR_BYTES, Footprint

COMPOSE_WANTED = (2, 17)
"""For `additional_contexts` in docker/compose.yaml."""


def docker(facts: Docker) -> Finding:
    """Say whether there is a Docker engine that answers."""
    if not facts.cli:
        found, remedy = "no docker command", "install Docker Engine: https://docs.docker.com/engine/install/"
    elif not facts.engine:
        found = f"the engine does not answer: {facts.engine_fault}"
        remedy = "start it (systemctl start docker), or ask to be in the group docker"
    else:
        return Finding(check="docker", status="green", found=f"engine {facts.engine}")
    return Finding(check="docker", status="red", found=found, remedy=remedy, stops=("compose",))


def compose(facts: Docker) -> Finding:
    """Hold the compose plugin against what docker/compose.yaml needs."""
    wanted = ".".join(map(str, COMPOSE_WANTED))
    remedy = f"install the compose plugin, {wanted} or newer: https://docs.docker.com/compose/install/"
    if not facts.compose:
        found = f"no compose plugin: {facts.compose_fault}" if facts.cli else "no docker command"
    elif _release(facts.compose) < COMPOSE_WANTED:
        found = f"{facts.compose} is too old"
    else:
        found = f"{facts.compose}, {wanted} or newer wanted"
        return Finding(check="compose", status="green", found=found)
    return Finding(check="compose", status="red", found=found, remedy=remedy, stops=("compose",))


def containers(facts: Docker, run: Footprint) -> Finding | None:
    """Hold the memory of all containers, which share no torch, against the engine's; None without one."""
    if not facts.engine or not facts.memory_bytes:
        return None
    if run.device_bytes is None:
        return Finding(check="containers", status="yellow", found=UNKNOWN, remedy="see device")
    need = COORDINATOR_BYTES + sum(run.container_bytes)
    fits = max(0, int((facts.memory_bytes - COORDINATOR_BYTES) / (sum(run.container_bytes) / run.devices)))
    found = f"{run.devices} take about {size(need)}, the engine has {size(facts.memory_bytes)}, for {fits}"
    if need > facts.memory_bytes:
        remedy = f"use at most {fits} devices, or spread them over machines"
        return Finding(
            check="containers", status="red", found=found, remedy=remedy, stops=("compose",), fits=fits
        )
    return Finding(check="containers", status="green", found=found, fits=fits)


def _release(version: str) -> tuple[int, ...]:
    """Return major and minor of a version such as 2.24.6-desktop.1."""
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return tuple(map(int, numbers.groups())) if numbers else (0, 0)
