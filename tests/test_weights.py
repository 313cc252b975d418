"""Mixing matrices: doubly stochastic whatever the graph, and with the eigenvalues that theory gives."""

from math import cos, pi

import networkx as nx
import numpy as np
import pytest

from coordinator.topology import build
from coordinator.weights import mixing_matrix, spectral_gap
from protocol.config import Graph
from protocol.errors import BadInput

GRAPHS = [
    Graph(kind="ring"),
    Graph(kind="torus"),
    Graph(kind="complete"),
    Graph(kind="star"),
    Graph(kind="erdos_renyi", probability=0.6),
    Graph(kind="watts_strogatz"),
    Graph(kind="geometric", radius_m=90),
    Graph(kind="expander"),
]


def spectrum(W):
    return np.sort(np.linalg.eigvalsh(W))


@pytest.mark.parametrize("rule", ["metropolis", "max_degree"])
@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.kind)
@pytest.mark.parametrize("n", [8, 20, 99])
def test_every_graph_gives_a_symmetric_doubly_stochastic_matrix(graph, n, rule):
    for seed in range(3):
        network = build(graph, n, seed=seed)
        W = mixing_matrix(network, rule)
        assert W.shape == (n, n)
        assert W.dtype == np.float64
        assert (W == W.T).all()
        assert (W.diagonal() > 0).all()
        assert np.abs(W.sum(axis=0) - 1).max() <= 1e-12
        assert np.abs(W.sum(axis=1) - 1).max() <= 1e-12
        off_diagonal = W - np.diag(W.diagonal())
        assert ((off_diagonal > 0) == nx.to_numpy_array(network).astype(bool)).all()
        assert 0 < spectral_gap(W) <= 1 + 1e-12


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("rule", ["metropolis", "max_degree", "uniform"])
def test_the_smallest_networks_average_at_once(n, rule):
    W = mixing_matrix(nx.complete_graph(n), rule)
    assert np.allclose(W, 1 / n, rtol=0, atol=1e-15)
    assert spectral_gap(W) == pytest.approx(1, abs=1e-12)


def test_metropolis_divides_by_the_larger_of_two_neighbourhoods():
    # Degrees 1, 3, 2, 2 of the devices 0, 1, 2, 3.
    W = mixing_matrix(nx.Graph([(0, 1), (1, 2), (1, 3), (2, 3)]), "metropolis")
    expected = np.array([[9, 3, 0, 0], [3, 3, 3, 3], [0, 3, 5, 4], [0, 3, 4, 5]]) / 12
    assert np.allclose(W, expected, rtol=0, atol=1e-15)


def test_max_degree_gives_every_edge_the_same_weight():
    W = mixing_matrix(nx.Graph([(0, 1), (1, 2), (1, 3), (2, 3)]), "max_degree")
    expected = np.array([[3, 1, 0, 0], [1, 1, 1, 1], [0, 1, 2, 1], [0, 1, 1, 2]]) / 4
    assert np.allclose(W, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize("graph", [Graph(kind=kind) for kind in ("ring", "torus", "complete", "expander")])
def test_all_rules_agree_on_a_regular_graph(graph):
    network = build(graph, 16, seed=1)
    uniform = mixing_matrix(network, "uniform")
    assert (uniform == mixing_matrix(network, "metropolis")).all()
    assert (uniform == mixing_matrix(network, "max_degree")).all()


def test_uniform_weights_on_an_irregular_graph_are_refused_with_its_degrees():
    with pytest.raises(BadInput) as caught:
        mixing_matrix(nx.Graph([(0, 1), (1, 2), (1, 3), (2, 3)]), "uniform")
    assert str(caught.value) == (
        "graph.weights = uniform: needs a regular graph; here device 0 has 1 and device 1 has 3 neighbours "
        "(use metropolis or max_degree)"
    )


def test_rows_follow_the_device_numbers_not_the_order_of_insertion():
    graph = nx.Graph()
    graph.add_nodes_from([3, 1, 0, 2])
    graph.add_edges_from([(3, 0), (0, 1), (1, 2)])
    assert (mixing_matrix(graph, "metropolis")[3] > 0).tolist() == [True, False, False, True]


def test_a_matrix_that_is_not_symmetric_is_never_returned():
    with pytest.raises(AssertionError, match="symmetric"):
        mixing_matrix(nx.DiGraph([(0, 1), (1, 2)]), "max_degree")


@pytest.mark.parametrize("n", [3, 4, 5, 8, 33, 64])
def test_a_ring_has_the_eigenvalues_of_a_circulant(n):
    W = mixing_matrix(build(Graph(kind="ring"), n, seed=1), "metropolis")
    theory = [1 / 3 + 2 / 3 * cos(2 * pi * k / n) for k in range(n)]
    assert np.allclose(spectrum(W), np.sort(theory), rtol=0, atol=1e-12)
    assert spectral_gap(W) == pytest.approx(1 - max(map(abs, theory[1:])), abs=1e-12)


@pytest.mark.parametrize(("rows", "columns"), [(3, 3), (3, 5), (4, 6), (8, 8)])
def test_a_torus_has_the_eigenvalues_of_two_rings(rows, columns):
    W = mixing_matrix(build(Graph(kind="torus", rows=rows), rows * columns, seed=1), "metropolis")
    theory = [
        (1 + 2 * cos(2 * pi * r / rows) + 2 * cos(2 * pi * c / columns)) / 5
        for r in range(rows)
        for c in range(columns)
    ]
    assert np.allclose(spectrum(W), np.sort(theory), rtol=0, atol=1e-12)
    assert spectral_gap(W) == pytest.approx(1 - max(map(abs, theory[1:])), abs=1e-12)


@pytest.mark.parametrize("n", [2, 3, 8, 40])
def test_a_complete_graph_mixes_in_one_round(n):
    W = mixing_matrix(build(Graph(kind="complete"), n, seed=1), "metropolis")
    assert np.allclose(W, 1 / n, rtol=0, atol=1e-15)
    assert spectral_gap(W) == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("n", [3, 8, 40])
@pytest.mark.parametrize("rule", ["metropolis", "max_degree"])
def test_a_star_has_the_gap_1_over_n(n, rule):
    # W = I - L / n, and the Laplacian of a star has the eigenvalues 0, 1 (n - 2 times) and n.
    W = mixing_matrix(build(Graph(kind="star"), n, seed=1), rule)
    assert np.allclose(spectrum(W), [0] + [1 - 1 / n] * (n - 2) + [1], rtol=0, atol=1e-12)
    assert spectral_gap(W) == pytest.approx(1 / n, abs=1e-12)


@pytest.mark.parametrize("n", [3, 10, 31])
def test_a_path_has_the_eigenvalues_of_its_laplacian(n):
    # W = I - L / 3, and the Laplacian of a path has the eigenvalues 2 - 2 cos(pi k / n).
    W = mixing_matrix(nx.path_graph(n), "max_degree")
    theory = [1 - (2 - 2 * cos(pi * k / n)) / 3 for k in range(n)]
    assert np.allclose(spectrum(W), np.sort(theory), rtol=0, atol=1e-12)


def test_a_negative_eigenvalue_counts_by_its_magnitude():
    # Two devices that keep 0.1 and take 0.9: eigenvalues 1 and -0.8.
    assert spectral_gap(np.array([[0.1, 0.9], [0.9, 0.1]])) == pytest.approx(0.2, abs=1e-12)


def test_devices_that_never_meet_have_no_gap():
    assert spectral_gap(np.eye(3)) == pytest.approx(0, abs=1e-12)


def test_a_single_device_has_the_gap_1():
    assert spectral_gap(np.eye(1)) == 1.0


@pytest.mark.parametrize("graph", GRAPHS, ids=lambda graph: graph.kind)
def test_mixing_keeps_the_mean_and_shrinks_the_rest_by_the_gap(graph):
    W = mixing_matrix(build(graph, 20, seed=1), "metropolis")
    x = np.random.default_rng(1).standard_normal(20)
    mixed = W @ x
    assert mixed.mean() == pytest.approx(x.mean(), abs=1e-14)
    before, after = np.linalg.norm(x - x.mean()), np.linalg.norm(mixed - x.mean())
    assert after <= (1 - spectral_gap(W)) * before + 1e-12


def test_an_expander_mixes_far_faster_than_a_ring():
    ring, expander = (
        spectral_gap(mixing_matrix(build(Graph(kind=kind), 128, seed=1), "metropolis"))
        for kind in ("ring", "expander")
    )
    assert ring < 0.001
    assert expander > 0.1
