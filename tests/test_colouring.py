"""Slots: nobody shares a colour within two hops, and there are few of them."""

from itertools import combinations

import networkx as nx
import pytest

from coordinator.colouring import distance_two_colouring
from coordinator.topology import build
from protocol.config import Graph

GRAPHS = [
    (Graph(kind="ring"), (1, 2, 3, 4, 5, 9, 10, 64)),
    (Graph(kind="torus"), (4, 6, 9, 12, 20, 64)),
    (Graph(kind="torus", rows=2), (2, 4, 10)),
    (Graph(kind="complete"), (1, 2, 3, 8, 30)),
    (Graph(kind="star"), (1, 2, 3, 8, 30)),
    (Graph(kind="erdos_renyi", probability=0.5), (1, 24)),
    (Graph(kind="erdos_renyi", probability=0.1), (60,)),
    (Graph(kind="watts_strogatz", degree=4, probability=0.3), (5, 20, 64)),
    (Graph(kind="geometric", radius_m=60), (1, 12, 40)),
    (Graph(kind="geometric", radius_m=30), (64,)),
    (Graph(kind="expander", degree=4), (5, 8, 20, 64)),
]
CASES = [
    pytest.param(graph, n, id=f"{graph.kind}-{graph.rows or graph.probability}-{n}")
    for graph, sizes in GRAPHS
    for n in sizes
]


def clashes(graph, colours):
    """Return every pair that is joined, or has a neighbour in common, and shares a colour: brute force."""
    return [
        (a, b)
        for a, b in combinations(graph, 2)
        if colours[a] == colours[b] and (b in graph[a] or set(graph[a]) & set(graph[b]))
    ]


def max_degree(graph):
    return max(degree for _, degree in graph.degree)


@pytest.mark.parametrize(("graph", "n"), CASES)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nobody_shares_a_colour_within_two_hops_and_colours_are_few(graph, n, seed):
    network = build(graph, n, seed=seed)
    colours = distance_two_colouring(network)
    assert len(colours) == n
    assert clashes(network, colours) == []
    assert set(colours) == set(range(max(colours) + 1))  # no slot is empty
    # A device has at most d^2 others within two hops, so a greedy colouring never needs more than one beyond.
    assert max_degree(network) + 1 <= max(colours) + 1 <= max_degree(network) ** 2 + 1


@pytest.mark.parametrize("n", [3, 6, 9, 30])
def test_a_ring_of_a_multiple_of_three_needs_three(n):
    assert distance_two_colouring(build(Graph(kind="ring"), n, seed=1)) == (0, 1, 2) * (n // 3)


@pytest.mark.parametrize("kind", ["complete", "star"])
@pytest.mark.parametrize("n", [1, 2, 3, 9, 200])
def test_where_all_are_within_two_hops_each_has_a_colour_of_its_own(kind, n):
    assert distance_two_colouring(build(Graph(kind=kind), n, seed=1)) == tuple(range(n))


def test_two_hops_over_a_path_of_four_leave_its_ends_free_to_share():
    colours = distance_two_colouring(nx.path_graph(4))
    assert len(set(colours)) == 3
    assert colours[0] == colours[3]


def test_devices_without_links_share_one_slot():
    alone = nx.empty_graph(5)
    assert distance_two_colouring(alone) == (0, 0, 0, 0, 0)
    alone.add_edge(1, 3)
    colours = distance_two_colouring(alone)
    assert clashes(alone, colours) == []
    assert len(set(colours)) == 2


def test_no_devices_have_no_colours():
    assert distance_two_colouring(nx.empty_graph(0)) == ()


def test_colours_are_in_the_order_of_the_devices_not_of_the_graph():
    graph = nx.Graph()
    graph.add_nodes_from([3, 0, 2, 1])
    graph.add_edges_from([(0, 1), (1, 2), (2, 3)])
    colours = distance_two_colouring(graph)
    assert clashes(graph, colours) == []
    assert colours[0] == colours[3]


def test_the_same_graph_has_the_same_colours():
    graph = Graph(kind="erdos_renyi", probability=0.2)
    once, again = (distance_two_colouring(build(graph, 40, seed=4)) for _ in range(2))
    assert once == again
