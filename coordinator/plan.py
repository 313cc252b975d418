"""What a run would be: model and data as a device describes them, graph and links as they are planned."""

from collections.abc import Iterator
from statistics import fmean

import numpy as np
from pydantic import BaseModel, ConfigDict

from coordinator.device import describe, packet_error_tables
from coordinator.network import lay_out
from coordinator.planning.aggregation import PlannedAggregation, plan_aggregation
from coordinator.planning.setting import Setting
from coordinator.planning.theory import PlannedTheory, plan_theory
from coordinator.planning.work import PlannedRun, plan_work
from coordinator.schedule.epochs import Epochs
from coordinator.schedule.prices import Prices
from coordinator.weights import spectral_gap
from protocol.access import Access, plan_access
from protocol.air import frame_layout, planned_compute_s, planned_round_s
from protocol.config import Experiment
from protocol.hardware import fleet


class PlannedLink(BaseModel):
    """One link of the graph; numbers in pairs are those at each of its devices."""

    model_config = ConfigDict(frozen=True)

    devices: tuple[int, int]
    distance_m: float
    weight: float
    mean_snr_db: tuple[float, float]
    packet_loss: tuple[float, float]


class PlannedDevice(BaseModel):
    """The hardware of one device, and what it may spend."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    cpu_hz: float
    local_round_air_s: float
    """Modelled seconds of one local round with a full batch."""
    local_round_j: float
    tx_power_dbm: float
    budget_j: float
    budget_air_s: float


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
    num_slots: int
    superframe_s: float
    """0 where nobody waits for a slot."""
    round_air_s: float
    """Modelled seconds of a round in which every attempt is needed, on the slowest device."""
    num_train: int
    num_test: int
    samples_per_class: tuple[tuple[int, ...], ...]
    graph_kind: str
    degree_min: int
    degree_max: int
    weights: str
    spectral_gap: float
    packet_loss_mean: float | None
    """Over both directions of all links."""
    hardware: tuple[PlannedDevice, ...]
    run: PlannedRun
    aggregation: PlannedAggregation | None
    """None where nobody talks."""
    theory: PlannedTheory | None
    links: tuple[PlannedLink, ...]
    warnings: tuple[str, ...]
    """What is allowed and hardly wanted."""


def make_plan(experiment: Experiment, *, source: str = "[theory] of the experiment") -> Plan:
    """Plan a run without running it; source: where its constants are from.

    Raises BadInput for whatever would keep the run from starting, RunError if no device can be asked.
    """
    tables = packet_error_tables(experiment)
    network = lay_out(experiment, tables)
    described = describe(experiment)
    links = tuple(
        PlannedLink(
            devices=(a, b),
            distance_m=link["distance_m"],
            weight=network.weights[a, b],
            mean_snr_db=(link["mean_snr_db"][a], link["mean_snr_db"][b]),
            packet_loss=(link["packet_loss"][a], link["packet_loss"][b]),
        )
        for a, b, link in network.graph.edges(data=True)
    )
    degrees = [degree for _, degree in network.graph.degree()]
    layout = frame_layout(experiment, described.num_parameters)
    access = plan_access(experiment, layout, num_colours=network.num_slots, max_degree=network.max_degree)
    epochs = Epochs(experiment, network, Prices(experiment, layout, network, tables))
    first = epochs.first()
    run = plan_work(experiment, network, first)
    setting = Setting(experiment, network, epochs, first, run, described.num_parameters)
    return Plan(
        name=experiment.name,
        devices=experiment.devices,
        rounds=experiment.rounds,
        num_parameters=described.num_parameters,
        bytes_per_frame=layout.payload_bytes,
        packets_per_frame=layout.num_packets,
        airtime_per_frame_s=access.data_turn_s if links else 0.0,
        num_slots=access.num_slots if links else 0,
        superframe_s=access.superframe_s if links else 0.0,
        round_air_s=planned_round_s(experiment, access) if links else planned_compute_s(experiment),
        num_train=described.num_train,
        num_test=described.num_test,
        samples_per_class=described.samples_per_class,
        graph_kind=experiment.graph.kind,
        degree_min=min(degrees),
        degree_max=max(degrees),
        weights=experiment.graph.weights,
        spectral_gap=spectral_gap(network.weights),
        packet_loss_mean=float(np.mean([fmean(link.packet_loss) for link in links])) if links else None,
        hardware=tuple(
            PlannedDevice(
                cpu_hz=own.cpu_hz,
                local_round_air_s=own.local_round_air_s,
                local_round_j=own.local_round_j,
                tx_power_dbm=own.tx_power_dbm,
                budget_j=own.budget_j,
                budget_air_s=own.budget_air_s,
            )
            for own in fleet(experiment)
        ),
        run=run,
        aggregation=plan_aggregation(experiment, network, epochs, first) if links else None,
        theory=plan_theory(setting, tables, source=source) if links else None,
        links=links,
        warnings=tuple(_warnings(experiment, access)) if links else (),
    )


def _warnings(experiment: Experiment, access: Access) -> Iterator[str]:
    deadline_s = experiment.aggregation.round_deadline_air_s
    if deadline_s < access.data_turn_s:
        yield (
            f"aggregation.round_deadline_air_s = {deadline_s:g}: a frame takes {access.data_turn_s:.4g} s "
            f"on the air, so every one is late"
        )
