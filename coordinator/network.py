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
from protocol.hardware import fleet
from protocol.link import mean_packet_loss, mean_snr_db, shadowing_db
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

    `graph`: nodes carry `position_m`, edges `distance_m` and, for each end by its device number, how well
    it hears the other: `mean_snr_db` (over the fading) and `packet_loss` (expected share of full packets
    that fail at one attempt). `weights`: the mixing matrix, shape (n, n). `colours`: the slot of each
    device.
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
    """Of the neighbour's signal here."""
    mean_snr_there_db: float
    """Of this device's signal there."""
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
    losses = _packet_losses(snrs_db, radio, full_packet_bits(experiment), tables)
    for edge, at_snr_db, at_loss in zip(graph.edges, snrs_db.tolist(), losses.tolist(), strict=True):
        graph.edges[edge].update(
            mean_snr_db=dict(zip(edge, at_snr_db, strict=True)),
            packet_loss=dict(zip(edge, at_loss, strict=True)),
        )
    both_ways = radio.scheme == "digital" and radio.symmetric
    carried = losses.max(axis=1) if both_ways else losses.min(axis=1)
    if len(carried) and carried.min() >= DEAF and not _may_still_be_heard(experiment):
        best_db = (snrs_db.min(axis=1) if both_ways else snrs_db.max(axis=1)).max()
        raise BadInput(
            f"no link can carry anything: the best has a mean SNR of {best_db:.1f} dB, and "
            f"{_what_it_takes(experiment)}"
        )
    return network


def row(network: Network, device: int) -> list[Link]:
    """Return all that one device is told of the network: its neighbours, sorted."""
    return [
        Link(
            neighbour,
            float(network.weights[device, neighbour]),
            network.graph.edges[device, neighbour]["mean_snr_db"][device],
            network.graph.edges[device, neighbour]["mean_snr_db"][neighbour],
            network.colours[neighbour],
            network.turns[neighbour][device],
            network.graph.nodes[neighbour]["position_m"],
        )
        for neighbour in network.turns[device]
    ]


def _mean_snrs_db(experiment: Experiment, network: Network) -> Floats:
    """Return the mean SNR at both ends of every edge, in order, where devices stand at the start.

    Shape (num_edges, 2).
    """
    radio, graph = experiment.radio, network.graph
    snrs_db = np.full((graph.number_of_edges(), 2), radio.snr_db)
    match radio.snr:
        case "given":
            pass
        case "matrix":
            matrix = read_snr_matrix(radio.snr_file, experiment.devices, list(graph.edges))
            for ends, (a, b) in zip(snrs_db, graph.edges, strict=True):
                ends[:] = matrix[b, a], matrix[a, b]
        case "geometry":
            bandwidth_hz, devices = link_bandwidth_hz(radio, network.num_slots), fleet(experiment)
            distances_m = nx.get_edge_attributes(graph, "distance_m")
            for ends, ((a, b), distance_m) in zip(snrs_db, distances_m.items(), strict=True):
                in_the_way_db = shadowing_db(radio, seed=experiment.seed, pair=(a, b))
                ends[:] = [
                    mean_snr_db(
                        distance_m,
                        radio,
                        bandwidth_hz,
                        tx_power_dbm=devices[sender].tx_power_dbm,
                        shadowing_db=in_the_way_db,
                    )
                    for sender in (b, a)
                ]
    return snrs_db


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
    """Return the expected packet loss at each mean SNR [dB], of the same shape, at the slowest rate.

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
    return np.interp(snrs_db, points_db, losses) if losses else np.empty_like(snrs_db)
