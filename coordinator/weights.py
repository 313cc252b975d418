"""How much each device counts to each: symmetric, doubly stochastic mixing matrices.

Row i of W is what device i does in a round: x_i <- sum_j W_ij x_j. Rows that sum to 1 keep an agreement
where it is, columns that sum to 1 keep the mean of all devices.
"""

from typing import Literal

import networkx as nx
import numpy as np
import numpy.typing as npt

from protocol.errors import BadInput

Floats = npt.NDArray[np.float64]

_TOLERANCE = 1e-12


def mixing_matrix(graph: "nx.Graph[int]", rule: Literal["metropolis", "max_degree", "uniform"]) -> Floats:
    """Return W, shape (n, n), for nodes 0 to n-1: W_ij on the edges, and W_ii what is left of 1.

    metropolis  W_ij = 1 / (1 + max(deg_i, deg_j))
    max_degree  W_ij = 1 / (1 + the largest degree)
    uniform     W_ij = 1 / (1 + degree); BadInput unless all degrees are equal

    Sources: Xiao, Boyd and Lall, "A scheme for robust distributed sensor fusion based on average
    consensus", IPSN 2005; Xiao, Boyd and Kim, "Distributed average consensus with least-mean-square
    deviation", J. Parallel Distrib. Comput. 67(1), 2007.
    """
    adjacency: Floats = nx.to_numpy_array(graph, nodelist=range(len(graph)))
    degrees = adjacency.sum(axis=1)
    if rule == "uniform" and degrees.min() != degrees.max():
        raise BadInput(
            f"graph.weights = uniform: needs a regular graph; here device {degrees.argmin()} has "
            f"{degrees.min():.0f} and device {degrees.argmax()} has {degrees.max():.0f} neighbours "
            "(use metropolis or max_degree)"
        )
    # The uniform rule is the maximum-degree rule where all degrees are that maximum.
    larger = np.maximum.outer(degrees, degrees) if rule == "metropolis" else degrees.max()
    W: Floats = adjacency / (1 + larger)
    np.fill_diagonal(W, 1 - W.sum(axis=1))
    _check_doubly_stochastic(W)
    return W


def spectral_gap(W: Floats) -> float:
    """Return 1 - the second largest |eigenvalue| of a symmetric doubly stochastic W; 1.0 for a single device.

    Ideal mixing shrinks the distance from consensus at least by the factor 1 - gap a round.
    """
    if len(W) == 1:
        return 1.0
    return float(1 - np.sort(np.abs(np.linalg.eigvalsh(W)))[-2])


def _check_doubly_stochastic(W: Floats) -> None:
    assert (W == W.T).all(), "a mixing matrix must be symmetric"
    assert (W >= 0).all(), "a mixing matrix must not be negative"
    assert np.abs(W.sum(axis=1) - 1).max() <= _TOLERANCE, "rows of a mixing matrix must sum to 1"
