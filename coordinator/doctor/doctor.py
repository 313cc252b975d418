"""A diagnosis: all checks of a machine for one experiment, and what each launcher misses."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from coordinator.doctor import containers, room, software
from coordinator.doctor.facts import Facts
from coordinator.doctor.finding import LAUNCHERS, Finding, Launcher
from coordinator.doctor.probe import probe
from coordinator.footprint import Footprint, footprint
from coordinator.interrupt import Interrupt
from coordinator.network import lay_out
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.experiment_file import load

QUICKSTART = (
    "name=quickstart",
    "data.partition=dirichlet",
    "graph.kind=geometric",
    "radio.tx_power_dbm=10",
)
"""experiments/quickstart.toml, which an installation does not hold, as far as it is not the default."""


class Diagnosis(BaseModel):
    """The object that `hearsay doctor --json` prints."""

    model_config = ConfigDict(frozen=True)

    experiment: str
    devices: int
    starts: bool
    """Whether `hearsay run` would start here."""
    devices_fit: int | None
    """How many devices there is room for; None where that is not known."""
    fits_by: str
    """The check that says so."""
    launchers: dict[Launcher, tuple[str, ...]]
    """What stops each launcher: names of checks."""
    findings: tuple[Finding, ...]


def experiment_of(file: Path | None, overrides: Iterable[str]) -> Experiment:
    """Read the experiment in a file, or take the quickstart's; raises BadInput."""
    if file is not None:
        return load(file, tuple(overrides))
    try:
        return load(Path(os.devnull), (*QUICKSTART, *overrides))
    except BadInput as error:
        raise BadInput(str(error).removeprefix(f"{os.devnull} with ")) from error


def examine(experiment: Experiment, out: Path | None, interrupt: Interrupt) -> Diagnosis:
    """Look at this machine for an experiment; out: where its run would go.

    Raises BadInput for an experiment that would be refused anywhere, Interrupted if the user wants an end.
    """
    if experiment.radio.packet_errors == "formula":  # other errors are simulated first, which may take hours
        lay_out(experiment)
    facts = probe(experiment, out, interrupt)
    return diagnose(experiment, facts, footprint(experiment, facts.survey))


def diagnose(experiment: Experiment, facts: Facts, run: Footprint) -> Diagnosis:
    """Make all checks of what is known."""
    findings = tuple(_findings(experiment, facts, run))
    launchers = {
        launcher: tuple(f.check for f in findings if f.status == "red" and launcher in f.stops)
        for launcher in LAUNCHERS
    }
    local = ("memory", "descriptors", "processes", "ports")
    fits = {f.check: f.fits for f in findings if f.check in local and f.fits is not None}
    tightest = min(fits, key=lambda check: fits[check]) if "memory" in fits else ""
    return Diagnosis(
        experiment=experiment.name,
        devices=experiment.devices,
        starts=not launchers["local"],
        devices_fit=fits.get(tightest),
        fits_by=tightest,
        launchers=launchers,
        findings=findings,
    )


def _findings(experiment: Experiment, facts: Facts, run: Footprint) -> Iterator[Finding]:
    machine, survey = facts.machine, facts.survey
    yield software.python(facts.software)
    yield software.packages(facts.software, experiment)
    yield software.device(survey, facts.survey_fault)
    yield software.data(experiment, survey, facts.data_folder)
    yield room.memory(machine, run)
    yield room.cores(machine, experiment)
    yield room.processes(machine, run)
    yield room.descriptors(machine, run)
    yield room.ports(machine, experiment)
    yield room.disk(facts.run_folder, run)
    yield room.shared_memory(machine, len(facts.graphics.gpus))
    yield software.gpus(facts, run.gpu_bytes if run.device_bytes else None)
    yield software.torchrun(facts.software)
    yield containers.docker(facts.docker)
    yield containers.compose(facts.docker)
    if (finding := containers.containers(facts.docker, run)) is not None:
        yield finding
