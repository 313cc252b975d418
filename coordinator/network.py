"""The network as planned: the graph, how much each neighbour counts, and how well it is heard."""

from dataclasses import dataclass
from typing import NamedTuple

import networkx as nx
import numpy as np

from coordinator.topology import DeviceGraph, build
from coordinator.weights import Floats, mixing_matrix
from protocol.air import frame_layout
from protocol.config import Experiment, Radio
from protocol.link import mean_snr_db, packet_loss_probability

# Over Rayleigh fading the packet loss is so smooth in dB that this grid leaves an error below 5e-5.
_GRID_DB = 0.1


@dataclass(frozen=True)
class Network:
    """Who hears whom and how well; only the coordinator sees all of it.

    `graph`: nodes carry `position_m`, edges `distance_m`, `mean_snr_db` (over the fading) and
    `packet_loss` (expected share of full packets lost in one direction). `weights`: the mixing
    matrix, shape (n, n).
    """

    graph: DeviceGraph
    weights: Floats


class Link(NamedTuple):
    """One neighbour as seen from a device."""

    neighbour: int
    weight: float
    mean_snr_db: float


def lay_out(experiment: Experiment) -> Network:
    """Plan the network of an experiment; raises BadInput where the graph or its weights cannot be had.

    With an ideal radio the SNR is still that of the geometry, and no packet is lost.
    """
    graph = build(experiment.graph, experiment.devices, seed=experiment.seed)
    if experiment.aggregation.scheme == "isolated":
        graph.clear_edges()  # devices that never talk have no links, and each keeps its own parameters
    weights = mixing_matrix(graph, experiment.graph.weights)
    radio = experiment.radio
    snrs_db = [
        mean_snr_db(distance_m, radio, seed=experiment.seed, pair=(a, b))
        for (a, b), distance_m in nx.get_edge_attributes(graph, "distance_m").items()
    ]
    losses = _packet_losses(np.array(snrs_db), radio, full_packet_bits(experiment)).tolist()
    for (a, b), snr_db, loss in zip(graph.edges, snrs_db, losses, strict=True):
        graph.edges[a, b].update(mean_snr_db=snr_db, packet_loss=loss)
    return Network(graph, weights)


def row(network: Network, device: int) -> list[Link]:
    """Return all that one device is told of the network: its neighbours, sorted."""
    return [
        Link(
            neighbour,
            float(network.weights[device, neighbour]),
            network.graph.edges[device, neighbour]["mean_snr_db"],
        )
        for neighbour in sorted(network.graph[device])
    ]


def full_packet_bits(experiment: Experiment) -> int:
    """Return the bits on the air of a full radio packet, which do not depend on the size of the model."""
    more_than_one_packet_holds = experiment.codec.packet_bytes
    return int(frame_layout(experiment, more_than_one_packet_holds).packet_bits[0])


def _packet_losses(snrs_db: Floats, radio: Radio, packet_bits: int) -> Floats:
    """Return the expected packet loss at each mean SNR [dB], shape (num_links,).

    One mean over Rayleigh fading costs about a millisecond, and a complete graph has thousands of
    links: where that is cheaper, interpolate between the points of a grid.
    """
    points_db = np.unique(snrs_db)
    if radio.fading == "rayleigh" and len(points_db):
        grid_db = np.arange(points_db[0], points_db[-1] + _GRID_DB, _GRID_DB)
        points_db = min(points_db, grid_db, key=len)
    losses = [packet_loss_probability(radio, float(snr_db), packet_bits) for snr_db in points_db]
    return np.interp(snrs_db, points_db, losses) if losses else np.empty(0)
