"""What a run would be: model and data as a device describes them, graph and links as they are planned."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.network import lay_out
from coordinator.weights import spectral_gap
from protocol.air import airtime_s, frame_layout
from protocol.config import Experiment
from protocol.errors import BadInput, RunError
from protocol.experiment_file import dump
from protocol.messages import Description

DESCRIBE_WALL_S = 120.0


class PlannedLink(BaseModel):
    """One link of the graph."""

    model_config = ConfigDict(frozen=True)

    devices: tuple[int, int]
    distance_m: float
    weight: float
    mean_snr_db: float
    packet_loss: float


class Plan(BaseModel):
    """The object that `hearsay plan --json` prints."""

    model_config = ConfigDict(frozen=True)

    name: str
    devices: int
    rounds: int
    num_parameters: int
    bytes_per_frame: int
    packets_per_frame: int
    airtime_per_frame_s: float
    num_train: int
    num_test: int
    samples_per_class: tuple[tuple[int, ...], ...]
    graph_kind: str
    degree_min: int
    degree_max: int
    weights: str
    spectral_gap: float
    packet_loss_mean: float | None
    links: tuple[PlannedLink, ...]


def make_plan(experiment: Experiment) -> Plan:
    """Plan a run without running it.

    Raises BadInput for whatever would keep the run from starting, RunError if no device can be asked.
    """
    network = lay_out(experiment)
    described = ask_a_device(experiment)
    links = tuple(
        PlannedLink(
            devices=(a, b),
            distance_m=link["distance_m"],
            weight=network.weights[a, b],
            mean_snr_db=link["mean_snr_db"],
            packet_loss=link["packet_loss"],
        )
        for a, b, link in network.graph.edges(data=True)
    )
    degrees = [degree for _, degree in network.graph.degree()]
    layout = frame_layout(experiment, described.num_parameters)
    return Plan(
        name=experiment.name,
        devices=experiment.devices,
        rounds=experiment.rounds,
        num_parameters=described.num_parameters,
        bytes_per_frame=layout.payload_bytes,
        packets_per_frame=layout.num_packets,
        airtime_per_frame_s=airtime_s(layout, experiment.radio),
        num_train=described.num_train,
        num_test=described.num_test,
        samples_per_class=described.samples_per_class,
        graph_kind=experiment.graph.kind,
        degree_min=min(degrees),
        degree_max=max(degrees),
        weights=experiment.graph.weights,
        spectral_gap=spectral_gap(network.weights),
        packet_loss_mean=float(np.mean([link.packet_loss for link in links])) if links else None,
        links=links,
    )


def ask_a_device(experiment: Experiment) -> Description:
    """Run one short `python -m node --describe`; the coordinator itself loads neither torch nor datasets."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "experiment.toml"
        file.write_text(dump(experiment), encoding="utf-8")
        try:
            answer = subprocess.run(  # noqa: S603
                [sys.executable, "-P", "-m", "node", "--describe", str(file)],
                capture_output=True,
                text=True,
                timeout=DESCRIBE_WALL_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(f"no device described the experiment within {DESCRIBE_WALL_S:g} s") from error
    last_line = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
    if answer.returncode == 2:
        raise BadInput(last_line.removeprefix("node: "))
    if answer.returncode:
        raise RunError(f"python -m node --describe failed: {last_line}")
    try:
        return Description.model_validate_json(answer.stdout)
    except ValidationError as error:
        raise RunError("python -m node --describe is of another version than this coordinator") from error
