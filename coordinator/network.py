"""The network as planned: the graph, how much each neighbour counts, and how well it is heard."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import networkx as nx
import numpy as np

from coordinator.colouring import distance_two_colouring
from coordinator.snr_matrix import read_snr_matrix
from coordinator.topology import DeviceGraph, build
from coordinator.weights import Floats, mixing_matrix
from protocol.access import link_bandwidth_hz
from protocol.air import frame_layout
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.link import mean_packet_loss, mean_snr_db
from protocol.modulation import permitted
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Radio

# Over fading the packet loss is so smooth in dB that this grid leaves an error below 5e-5.
_GRID_DB = 0.1
DEAF = 1 - 1e-9
"""Expected packet loss from which on a link carries nothing."""


@dataclass(frozen=True)
class Network:
    """Who hears whom and how well; only the coordinator sees all of it.

    `graph`: nodes carry `position_m`, edges `distance_m`, `mean_snr_db` (over the fading) and
    `packet_loss` (expected share of full packets that fail in one direction, at one attempt). `weights`:
    the mixing matrix, shape (n, n). `colours`: the slot of each device.
    """

    graph: DeviceGraph
    weights: Floats
    colours: tuple[int, ...]

    @cached_property
    def num_slots(self) -> int:
        """Colours in use."""
        return max(self.colours, default=-1) + 1

    @cached_property
    def max_degree(self) -> int:
        """Neighbours of the device that has most."""
        return max(dict(self.graph.degree).values(), default=0)

    @cached_property
    def turns(self) -> dict[int, dict[int, int]]:
        """Return each device's neighbours with their place among them, in order."""
        return {
            device: {neighbour: turn for turn, neighbour in enumerate(sorted(self.graph[device]))}
            for device in self.graph
        }


class Link(NamedTuple):
    """One neighbour as seen from a device; `turn`: which of the neighbour's neighbours, in order, it is."""

    neighbour: int
    weight: float
    mean_snr_db: float
    slot: int
    turn: int
    position_m: tuple[float, float]


def lay_out(experiment: Experiment, tables: tuple[PacketErrorTable, ...] = ()) -> Network:
    """Plan the network of an experiment; raises BadInput where it cannot be had, or nothing can be heard.

    With an ideal radio the SNR is still that of the geometry, and no packet is lost.
    """
    graph = build(experiment.graph, experiment.devices, seed=experiment.seed)
    if experiment.aggregation.scheme == "isolated":
        graph.clear_edges()  # devices that never talk have no links, and each keeps its own parameters
    weights = mixing_matrix(graph, experiment.graph.weights)
    colours = distance_two_colouring(graph)
    network = Network(graph, weights, colours)
    radio = experiment.radio
    snrs_db = _mean_snrs_db(experiment, network)
    losses = _packet_losses(np.array(snrs_db), radio, full_packet_bits(experiment), tables).tolist()
    for (a, b), snr_db, loss in zip(graph.edges, snrs_db, losses, strict=True):
        graph.edges[a, b].update(mean_snr_db=snr_db, packet_loss=loss)
    if losses and min(losses) >= DEAF and not _may_still_be_heard(experiment):
        raise BadInput(
            f"no link can carry anything: the best has a mean SNR of {max(snrs_db):.1f} dB, and "
            f"{_what_it_takes(experiment)}"
        )
    return network


def row(network: Network, device: int) -> list[Link]:
    """Return all that one device is told of the network: its neighbours, sorted."""
    return [
        Link(
            neighbour,
            float(network.weights[device, neighbour]),
            network.graph.edges[device, neighbour]["mean_snr_db"],
            network.colours[neighbour],
            network.turns[neighbour][device],
            network.graph.nodes[neighbour]["position_m"],
        )
        for neighbour in network.turns[device]
    ]


def _mean_snrs_db(experiment: Experiment, network: Network) -> list[float]:
    """Return the mean SNR of every edge, in order, where devices stand at the start."""
    radio, graph = experiment.radio, network.graph
    match radio.snr:
        case "given":
            return [radio.snr_db] * graph.number_of_edges()
        case "matrix":
            matrix = read_snr_matrix(radio.snr_file, experiment.devices, list(graph.edges))
            return [float(matrix[edge]) for edge in graph.edges]
        case "geometry":
            bandwidth_hz = link_bandwidth_hz(radio, network.num_slots)
            return [
                mean_snr_db(distance_m, radio, bandwidth_hz, seed=experiment.seed, pair=(a, b))
                for (a, b), distance_m in nx.get_edge_attributes(graph, "distance_m").items()
            ]


def _may_still_be_heard(experiment: Experiment) -> bool:
    """Say whether something can come of links that lose every packet now."""
    accepted = experiment.radio.scheme == "digital" and experiment.radio.bad_packets == "accept"
    return accepted or experiment.mobility.kind != "none"


def _what_it_takes(experiment: Experiment) -> str:
    radio = experiment.radio
    if radio.scheme == "analog":
        return f"radio.analog.gain_threshold = {radio.analog.gain_threshold:g} silences them all"
    if radio.snr != "geometry":
        louder = "radio.snr_db" if radio.snr == "given" else "the numbers in radio.snr_file"
    else:
        louder = "radio.tx_power_dbm"
    return (
        f"{permitted(radio)[0]} loses {experiment.codec.packet_bytes}-byte packets there with certainty; "
        f"raise {louder}, or use a more robust radio.modulation or smaller codec.packet_bytes"
    )


def full_packet_bits(experiment: Experiment) -> int:
    """Return the bits on the air of a full radio packet, which do not depend on the size of the model."""
    more_than_one_packet_holds = experiment.codec.packet_bytes
    return int(frame_layout(experiment, more_than_one_packet_holds).packet_bits[0])


def _packet_losses(
    snrs_db: Floats, radio: Radio, packet_bits: int, tables: tuple[PacketErrorTable, ...]
) -> Floats:
    """Return the expected packet loss at each mean SNR [dB], shape (num_links,), at the slowest rate.

    One mean over fading costs about a millisecond, and a complete graph has thousands of links: where
    that is cheaper, interpolate between the points of a grid.
    """
    slowest = permitted(radio)[0]
    table = next((table for table in tables if table.modulation == slowest), None)
    points_db = np.unique(snrs_db)
    if radio.fading != "none" and len(points_db):
        grid_db = np.arange(points_db[0], points_db[-1] + _GRID_DB, _GRID_DB)
        points_db = min(points_db, grid_db, key=len)
    losses = [
        mean_packet_loss(radio, float(snr_db), packet_bits, modulation=slowest, table=table)
        for snr_db in points_db
    ]
    return np.interp(snrs_db, points_db, losses) if losses else np.empty(0)
