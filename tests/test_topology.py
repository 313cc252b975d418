"""Graphs and positions: every kind, every fault, and the same for the same seed."""

import re
from itertools import combinations
from math import dist, sqrt

import networkx as nx
import numpy as np
import pytest

from coordinator import topology
from coordinator.topology import build, connecting_radius_m
from protocol.config import Graph
from protocol.errors import BadInput

# Every kind that is drawn from the configuration alone, with sizes at which it is connected for all SEEDS.
KINDS = [
    (Graph(kind="ring"), (1, 2, 3, 4, 17, 64)),
    (Graph(kind="torus"), (4, 6, 8, 9, 12, 64)),
    (Graph(kind="torus", rows=2), (2, 4, 6, 10)),
    (Graph(kind="torus", rows=5), (5, 10, 15)),
    (Graph(kind="complete"), (1, 2, 3, 8, 40)),
    (Graph(kind="star"), (1, 2, 3, 8, 40)),
    (Graph(kind="erdos_renyi", probability=0.5), (1, 24, 64)),
    (Graph(kind="watts_strogatz", degree=4, probability=0.3), (5, 6, 20, 64)),
    (Graph(kind="geometric", area_m=100, radius_m=60), (1, 12, 64)),
    (Graph(kind="expander", degree=4), (5, 6, 7, 8, 20, 64)),
    (Graph(kind="expander", degree=2), (3, 4, 9)),
    (Graph(kind="expander", degree=10), (11, 12, 16, 50)),
]
SEEDS = (0, 1, 2**63 - 1)
CASES = [
    pytest.param(graph, n, id=f"{graph.kind}-{graph.rows or graph.degree}-{n}")
    for graph, sizes in KINDS
    for n in sizes
]


def degrees(network):
    return [network.degree[device] for device in range(len(network))]


def everything(network):
    return list(network.nodes(data=True)), list(network.edges(data=True))


def fault(graph, num_devices, seed=1):
    """Return what build says is wrong, after checking that it says it in one line."""
    with pytest.raises(BadInput) as caught:
        build(graph, num_devices, seed=seed)
    message = str(caught.value)
    assert message.isprintable()
    assert message
    return message


@pytest.mark.parametrize(("graph", "n"), CASES)
@pytest.mark.parametrize("seed", SEEDS)
def test_every_kind_is_one_simple_connected_graph_over_placed_devices(graph, n, seed):
    network = build(graph, n, seed=seed)
    assert list(network) == list(range(n))
    assert nx.is_connected(network)
    assert nx.number_of_selfloops(network) == 0
    assert not network.is_multigraph()
    assert not network.is_directed()
    places = [network.nodes[device]["position_m"] for device in range(n)]
    assert all(isinstance(place, tuple) and len(place) == 2 for place in places)
    assert all(type(metres) is float and 0 <= metres <= graph.area_m for place in places for metres in place)
    for a, b, distance_m in network.edges(data="distance_m"):
        assert distance_m == dist(places[a], places[b])


@pytest.mark.parametrize(("graph", "n"), CASES)
def test_the_same_seed_gives_the_same_network_bit_for_bit(graph, n):
    assert everything(build(graph, n, seed=5)) == everything(build(graph, n, seed=5))


@pytest.mark.parametrize("kind", ["erdos_renyi", "watts_strogatz", "expander"])
def test_another_seed_gives_other_edges(kind):
    graph = Graph(kind=kind, probability=0.5)
    assert set(build(graph, 24, seed=1).edges) != set(build(graph, 24, seed=2).edges)


def test_positions_depend_on_the_seed_and_not_on_the_kind_or_the_number_of_devices():
    def places(kind, n, seed):
        return [place for _, place in build(Graph(kind=kind), n, seed=seed).nodes(data="position_m")]

    assert places("ring", 9, 1) == places("star", 9, 1) == places("complete", 12, 1)[:9]
    assert places("ring", 9, 1) != places("ring", 9, 2)


def test_positions_fill_the_square_evenly():
    places = np.array([place for _, place in build(Graph(area_m=200), 4096, seed=1).nodes(data="position_m")])
    counts, _, _ = np.histogram2d(*places.T, bins=4, range=[[0, 200], [0, 200]])
    chi_square = ((counts - 256) ** 2 / 256).sum()
    assert chi_square < 37.7  # the 0.999 quantile for 15 degrees of freedom


def test_what_a_seed_has_once_given_it_gives_for_ever():
    """Recorded values: a change here changes everybody's results and needs an entry in the changelog."""
    network = build(Graph(kind="erdos_renyi", probability=0.5), 6, seed=1)
    assert network.nodes[0]["position_m"] == (31.083316661533633, 49.17648520819736)
    assert list(network.edges) == [(0, 2), (1, 2), (1, 3), (1, 4), (2, 4), (3, 4), (4, 5)]
    expander = build(Graph(kind="expander"), 7, seed=1)
    assert list(nx.complement(expander).edges) == [(0, 1), (0, 6), (1, 4), (2, 3), (2, 5), (3, 5), (4, 6)]


@pytest.mark.parametrize("n", [3, 4, 17])
def test_a_ring_joins_each_device_to_the_next(n):
    assert set(build(Graph(kind="ring"), n, seed=1).edges) == {
        tuple(sorted((i, (i + 1) % n))) for i in range(n)
    }


@pytest.mark.parametrize(
    "graph", [Graph(kind=kind) for kind in ("ring", "complete", "star", "geometric", "erdos_renyi")]
)
def test_a_single_device_has_no_edges(graph):
    assert build(graph, 1, seed=1).number_of_edges() == 0


@pytest.mark.parametrize(
    "graph",
    [
        Graph(kind=kind, radius_m=150, probability=1, rows=2)
        for kind in ("ring", "complete", "star", "geometric", "erdos_renyi", "torus")
    ],
)
def test_two_devices_have_one_edge(graph):
    assert list(build(graph, 2, seed=1).edges) == [(0, 1)]


def test_a_torus_joins_each_device_to_its_row_and_its_column():
    network = build(Graph(kind="torus", rows=5), 15, seed=1)
    for row in range(5):
        for column in range(3):
            around = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
            assert set(network[3 * row + column]) == {3 * (r % 5) + c % 3 for r, c in around}


def test_a_torus_without_rows_is_the_squarest():
    assert set(build(Graph(kind="torus"), 24, seed=1)[0]) == {6, 18, 1, 5}


def test_a_torus_of_two_rows_has_single_edges():
    assert degrees(build(Graph(kind="torus", rows=2), 10, seed=1)) == [3] * 10


def test_a_complete_graph_joins_all():
    assert list(build(Graph(kind="complete"), 7, seed=1).edges) == list(combinations(range(7), 2))


def test_a_star_joins_all_to_device_0():
    assert list(build(Graph(kind="star"), 7, seed=1).edges) == [(0, device) for device in range(1, 7)]


def test_erdos_renyi_draws_each_edge_with_its_probability():
    n, p = 200, 0.3
    num_pairs = n * (n - 1) // 2
    drawn = build(Graph(kind="erdos_renyi", probability=p), n, seed=1).number_of_edges()
    assert abs(drawn - p * num_pairs) < 4 * sqrt(num_pairs * p * (1 - p))


def test_erdos_renyi_of_probability_1_is_complete():
    assert build(Graph(kind="erdos_renyi", probability=1), 9, seed=1).number_of_edges() == 36


def test_watts_strogatz_hardly_rewired_is_a_lattice():
    network = build(Graph(kind="watts_strogatz", degree=4, probability=1e-12), 20, seed=1)
    assert set(network[0]) == {1, 2, 18, 19}
    assert degrees(network) == [4] * 20


@pytest.mark.parametrize("probability", [0.1, 0.5, 1.0])
def test_watts_strogatz_keeps_the_number_of_edges(probability):
    network = build(Graph(kind="watts_strogatz", degree=6, probability=probability), 40, seed=1)
    assert network.number_of_edges() == 40 * 6 // 2
    assert degrees(network) != [6] * 40


@pytest.mark.parametrize("seed", range(5))
def test_a_geometric_graph_joins_exactly_those_within_its_radius(seed):
    graph = Graph(kind="geometric", area_m=100, radius_m=45)
    network = build(graph, 40, seed=seed)
    place = network.nodes(data="position_m")
    near = {(a, b) for a, b in combinations(range(40), 2) if dist(place[a], place[b]) <= graph.radius_m}
    assert set(network.edges) == near


@pytest.mark.parametrize(("n", "degree"), [(n, d) for n in range(5, 26) for d in range(4, n, 2)])
def test_an_expander_of_any_size_and_degree_is_regular_and_ramanujan(n, degree):
    network = build(Graph(kind="expander", degree=degree), n, seed=n)
    assert degrees(network) == [degree] * n
    assert second_eigenvalue(network) <= 2 * sqrt(degree - 1) + 1e-9


@pytest.mark.parametrize("seed", range(20))
def test_no_seed_gives_an_expander_that_is_none(seed):
    assert second_eigenvalue(build(Graph(kind="expander", degree=4), 60, seed=seed)) <= 2 * sqrt(3) + 1e-9


def second_eigenvalue(network):
    return np.sort(np.abs(np.linalg.eigvalsh(nx.to_numpy_array(network))))[-2]


def test_an_expander_that_cannot_be_found_is_said_so(monkeypatch):
    monkeypatch.setattr(topology, "spectral_gap", lambda W: 0.0)
    assert "graph.degree = 4" in fault(Graph(kind="expander", degree=4), 20)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("area_m", [0.01, 100.0, 3e6])
@pytest.mark.parametrize("n", [2, 9, 50])
def test_the_radius_that_the_fault_names_connects_and_hardly_less_does_not(n, area_m, seed):
    message = fault(Graph(kind="geometric", area_m=area_m, radius_m=area_m * 1e-6), n, seed)
    named_m = float(re.search(r"raise graph\.radius_m to (\S+) m or more", message)[1])
    assert named_m == connecting_radius_m(build(Graph(kind="ring", area_m=area_m), n, seed=seed))
    assert nx.is_connected(build(Graph(kind="geometric", area_m=area_m, radius_m=named_m), n, seed=seed))
    fault(Graph(kind="geometric", area_m=area_m, radius_m=named_m * 0.998), n, seed)


def test_a_disconnected_graph_says_how_many_parts_and_who_is_cut_off(tmp_path):
    file = write(tmp_path, "0 1\n1 2\n4 5\n")
    assert fault(Graph(kind="edges", file=file), 7) == (
        "graph.kind = edges: the graph falls into 4 parts; cut off from the largest: devices 3, 4, 5, 6; "
        f"add edges to {file} that join them"
    )


def test_a_single_device_is_cut_off_in_the_singular(tmp_path):
    message = fault(Graph(kind="edges", file=write(tmp_path, "0 2\n")), 3)
    assert "2 parts; cut off from the largest: device 1; add" in message


def test_many_devices_cut_off_are_not_all_named(tmp_path):
    message = fault(Graph(kind="edges", file=write(tmp_path, "")), 500)
    assert "500 parts; cut off from the largest: devices 1, 2, 3, 4, 5, 6, 7, 8 and 491 more;" in message


def test_the_probability_that_the_fault_names_nearly_always_connects():
    message = fault(Graph(kind="erdos_renyi", probability=0.01), 30)
    named = float(re.search(r"now 0\.01; from (\S+) on", message)[1])
    connected = 0
    for seed in range(200):
        try:
            build(Graph(kind="erdos_renyi", probability=named), 30, seed=seed)
        except BadInput:
            continue
        connected += 1
    assert 180 <= connected < 200  # enough, and not far more than enough


def test_a_disconnected_small_world_says_what_to_change():
    message = fault(Graph(kind="watts_strogatz", degree=2, probability=0.5), 200, seed=1)
    assert message.endswith(
        "raise graph.degree (now 2), lower graph.probability (now 0.5) or try another seed"
    )


def write(folder, text):
    path = folder / "edges.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(path)


@pytest.mark.parametrize(
    "text",
    [
        "0 1\n1 2\n2 3\n",
        "# a path\n\n 0\t1 # the first\n1 2\n   \n2   3",
        "0 1\r\n1 2\r\n2 3\r\n",
        "\ufeff0 1\n1 2\n2 3\n",
        "1 0\n0 1\n2 1\n3 2\n2 3\n",
    ],
    ids=["plain", "comments-and-blanks", "windows", "byte-order-mark", "twice-and-backwards"],
)
def test_an_edges_file_is_read(tmp_path, text):
    network = build(Graph(kind="edges", file=write(tmp_path, text)), 4, seed=1)
    assert list(network.edges) == [(0, 1), (1, 2), (2, 3)]


def test_neighbours_are_in_order_whatever_the_order_of_the_file(tmp_path):
    network = build(Graph(kind="edges", file=write(tmp_path, "3 0\n2 0\n0 4\n1 0\n")), 5, seed=1)
    assert list(network[0]) == [1, 2, 3, 4]


def test_an_edges_file_for_a_single_device_may_be_empty(tmp_path):
    assert build(Graph(kind="edges", file=write(tmp_path, "# nobody\n")), 1, seed=1).number_of_edges() == 0


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2", "'2' is no edge; expected two device numbers, such as '0 1'"),
        ("1 2 3", "'1 2 3' is no edge; expected two device numbers"),
        ("1,2", "'1,2' is no edge; expected two device numbers"),
        ("1 two", "'1 two' is no edge; expected two device numbers"),
        ("1 2.0", "'1 2.0' is no edge; expected two device numbers"),
        ("1 nan", "'1 nan' is no edge; expected two device numbers"),
        ("\x1b[31m 2", r"'\x1b[31m 2' is no edge; expected two device numbers"),
        ("1 # 2", "'1' is no edge; expected two device numbers"),
        ("9" * 5000 + " 1", f"'{'9' * 40}' is no edge; expected two device numbers"),
        ("9" * 50 + " 1", f"there is no device {'9' * 40}; 4 devices are numbered 0 to 3"),
        ("1 4", "there is no device 4; 4 devices are numbered 0 to 3"),
        ("-1 2", "there is no device -1; 4 devices are numbered 0 to 3"),
        ("2 2", "device 2 cannot be its own neighbour; expected two different numbers"),
    ],
)
def test_a_fault_in_an_edges_file_names_file_and_line(tmp_path, line, says):
    file = write(tmp_path, f"0 1\n# next\n{line}\n2 3\n")
    message = fault(Graph(kind="edges", file=file), 4)
    assert message.startswith(f"{file}:3: {says}")


def test_an_edges_file_that_is_not_there_is_said_so(tmp_path):
    file = tmp_path / "none.txt"
    message = fault(Graph(kind="edges", file=str(file)), 4)
    assert message == f"graph.file = {file}: cannot be read (No such file or directory)"


def test_an_edges_file_that_is_a_folder_is_said_so(tmp_path):
    assert "cannot be read (Is a directory)" in fault(Graph(kind="edges", file=str(tmp_path)), 4)


def test_an_edges_file_that_is_no_text_is_said_so(tmp_path):
    file = write(tmp_path, b"0 1\n\xff\xfe\n")
    assert f"graph.file = {file}: cannot be read ('utf-8' codec" in fault(Graph(kind="edges", file=file), 4)
