"""Who can hear whom, and where devices stand: graphs with positions.

Everything is a pure function of the experiment's graph and the seed. Devices are the nodes 0 to n-1.
"""

from collections.abc import Iterable
from decimal import ROUND_CEILING, Context
from math import dist, sqrt
from pathlib import Path
from typing import TypeAlias

import networkx as nx
import numpy as np
from scipy.sparse.csgraph import minimum_spanning_tree
from scipy.spatial.distance import pdist, squareform

from coordinator.weights import spectral_gap
from protocol.config import Graph, torus_rows
from protocol.errors import BadInput
from protocol.streams import Purpose, stream, sub_seed

DeviceGraph: TypeAlias = "nx.Graph[int]"

# A random regular graph passes the Ramanujan bound about every other time.
_MAX_DRAWS = 100
_NUM_NAMED = 8


def build(graph: Graph, num_devices: int, *, seed: int) -> DeviceGraph:
    """Draw the graph: nodes carry `position_m`, a pair (x, y), and edges carry `distance_m`.

    Positions are uniform in the square of side `area_m` for every kind. They do not follow the edges
    (neighbours on a ring may stand far apart), except that a geometric graph's edges follow them. A
    torus of two rows and a ring of two devices have single edges. Raises BadInput when the graph is
    not connected, says which devices are cut off, and what would join them.
    """
    network: DeviceGraph = nx.Graph()
    positions_m = stream(seed, Purpose.POSITIONS).uniform(0, graph.area_m, (num_devices, 2))
    for device, (x_m, y_m) in enumerate(positions_m.tolist()):
        network.add_node(device, position_m=(x_m, y_m))
    pairs = {(min(edge), max(edge)) for edge in _edges(graph, network, seed)}
    # Sorted, so that nothing downstream depends on the order in which a generator found its edges.
    for a, b in sorted(pairs):
        if a != b:  # networkx joins a ring of one to itself
            network.add_edge(a, b, distance_m=dist(positions_m[a], positions_m[b]))
    _check_connected(network, graph)
    return network


def _edges(graph: Graph, network: DeviceGraph, seed: int) -> Iterable[tuple[int, int]]:
    """Return the edges of one kind of graph over the placed devices of network."""
    n, drawn = len(network), sub_seed(seed, Purpose.GRAPH)
    family: DeviceGraph
    match graph.kind:
        case "ring":
            family = nx.cycle_graph(n)
        case "torus":
            rows = torus_rows(n, graph.rows)
            family = nx.convert_node_labels_to_integers(nx.grid_2d_graph(rows, n // rows, periodic=True))
        case "complete":
            family = nx.complete_graph(n)
        case "star":
            family = nx.star_graph(n - 1)
        case "erdos_renyi":
            family = nx.fast_gnp_random_graph(n, graph.probability, seed=drawn)
        case "watts_strogatz":
            family = nx.watts_strogatz_graph(n, graph.degree, graph.probability, seed=drawn)
        case "geometric":
            places_m = nx.get_node_attributes(network, "position_m")
            family = nx.random_geometric_graph(n, graph.radius_m, pos=places_m)
        case "expander":
            family = _expander(n, graph.degree, seed)
        case "edges":
            family = nx.Graph(_read_edges(Path(graph.file), n))
    return family.edges


def _expander(num_devices: int, degree: int, seed: int) -> DeviceGraph:
    """Draw random regular graphs until one is Ramanujan: all eigenvalues but one within 2 sqrt(degree - 1).

    Nothing expands better for large n (Alon and Boppana), and a random regular graph comes as close as
    one likes with high probability (Friedman, "A proof of Alon's second eigenvalue conjecture", 2004).
    The bound also means connected and not bipartite for every degree above 2; degree 2 can only be a ring.
    """
    candidate: DeviceGraph = nx.cycle_graph(num_devices)
    if degree == 2:
        return candidate
    # networkx's own expanders are sums of disjoint Hamiltonian cycles, which it all but never finds above
    # degree 8. Its random regular graphs are quick while sparse; dense ones are complements of those.
    complement_degree = num_devices - 1 - degree
    widest = 2 * sqrt(degree - 1) / degree
    for draw in range(_MAX_DRAWS):
        drawn = sub_seed(seed, Purpose.GRAPH, a=draw)
        if degree <= complement_degree:
            candidate = nx.random_regular_graph(degree, num_devices, seed=drawn)
        else:
            candidate = nx.complement(nx.random_regular_graph(complement_degree, num_devices, seed=drawn))
        # The tolerance lets through graphs that meet the bound exactly, whatever the rounding.
        if spectral_gap(nx.to_numpy_array(candidate) / degree) >= 1 - widest - 1e-9:
            return candidate
    raise BadInput(
        f"graph.degree = {degree}: none of {_MAX_DRAWS} random regular graphs of {num_devices} devices "
        f"is an expander; try another degree or seed"
    )


def _read_edges(path: Path, num_devices: int) -> list[tuple[int, int]]:
    """Read one edge a line, two device numbers; `#` begins a comment. Raises BadInput with file and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a path that no file can have
        raise BadInput(
            f"graph.file = {path}: cannot be read ({getattr(error, 'strerror', None) or error})"
        ) from error
    edges = []
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        where = f"{path}:{number}"
        try:
            a, b = (int(word) for word in words)
        except ValueError as error:
            raise BadInput(
                f"{where}: {' '.join(words)[:40]!r} is no edge; expected two device numbers, such as '0 1'"
            ) from error
        for device in (a, b):
            if not 0 <= device < num_devices:
                raise BadInput(
                    f"{where}: there is no device {str(device)[:40]}; {num_devices} devices are numbered "
                    f"0 to {num_devices - 1}"
                )
        if a == b:
            raise BadInput(f"{where}: device {a} cannot be its own neighbour; expected two different numbers")
        edges.append((a, b))
    return edges


def _check_connected(network: DeviceGraph, graph: Graph) -> None:
    """Raise BadInput unless every device can be reached from every other."""
    # The largest part counts as the network; of equals, the one with the lowest device.
    parts = sorted(nx.connected_components(network), key=lambda part: (-len(part), min(part)))
    if len(parts) == 1:
        return
    cut_off = sorted(set(network) - parts[0])
    named = ", ".join(str(device) for device in cut_off[:_NUM_NAMED])
    more = f" and {len(cut_off) - _NUM_NAMED} more" if len(cut_off) > _NUM_NAMED else ""
    raise BadInput(
        f"graph.kind = {graph.kind}: the graph falls into {len(parts)} parts; cut off from the largest: "
        f"{'device' if len(cut_off) == 1 else 'devices'} {named}{more}; {_what_would_connect(network, graph)}"
    )


def _what_would_connect(network: DeviceGraph, graph: Graph) -> str:
    match graph.kind:
        case "geometric":
            enough_m = connecting_radius_m(network)
            return f"raise graph.radius_m to {enough_m:g} m or more (now {graph.radius_m:g} m)"
        case "erdos_renyi":
            likely = _connecting_probability(len(network))
            return (
                f"raise graph.probability (now {graph.probability:g}; from {likely:.2g} on nearly every draw "
                "is connected) or try another seed"
            )
        case "watts_strogatz":
            return (
                f"raise graph.degree (now {graph.degree}), lower graph.probability "
                f"(now {graph.probability:g}) or try another seed"
            )
        case _:
            return f"add edges to {graph.file} that join them"


def connecting_radius_m(network: DeviceGraph) -> float:
    """Return the smallest radius that connects these positions, rounded up to four digits.

    It is the longest edge of their minimum spanning tree: below it, the two sides of that edge fall apart.
    """
    positions_m = np.array(list(nx.get_node_attributes(network, "position_m").values()))
    # All pairs of 4,096 devices are 128 MB as one array, and gigabytes as a networkx graph.
    longest_m = float(minimum_spanning_tree(squareform(pdist(positions_m))).max())
    return float(Context(prec=4, rounding=ROUND_CEILING).create_decimal_from_float(longest_m))


def _connecting_probability(num_devices: int) -> float:
    """Return the edge probability p at which n (1 - p)^(n - 1), the expected number of lone devices, is 0.05.

    Lone devices are what keeps a random graph from being connected (Erdos and Renyi, 1959).
    """
    return 1.0 - float((0.05 / num_devices) ** (1 / (num_devices - 1)))
