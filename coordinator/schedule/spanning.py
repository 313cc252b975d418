"""Trees to begin with: the cheapest edges that join all devices, and the cheapest star."""

from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import breadth_first_order

from coordinator.schedule.costs import Floats, Ints, LinkCosts
from coordinator.schedule.tree import ABSENT, ROOT, Tree


def minimum_spanning_tree(costs: LinkCosts) -> Tree | None:
    """Return the cheapest tree of unicasts, rooted at its centre; None if some devices are cut off.

    Edges weigh what a model costs there and back, receivers included. The centre has the fewest hops to
    the farthest device; of two, the choice is fixed.
    """
    parents = spanning_parents(costs)
    return None if parents is None else as_tree(parents, costs)


def hub_tree(costs: LinkCosts) -> Tree | None:
    """Return the star of least joules with a multicast down; None if nobody reaches all others."""
    hubs = hubs_by_joules(costs)
    return as_tree(star_parents(len(costs.devices), int(hubs[0])), costs) if len(hubs) else None


class HopWeights(NamedTuple):
    """What a hop from child i to parent q costs, by where it falls, shapes (k, k) [J]."""

    own: Floats
    """By itself: sending up and hearing that, and answers in both directions."""
    reach: Floats
    """What the multicast of q costs that reaches i: the largest of all children counts."""
    hear: Floats
    """What hearing such a multicast costs: the largest of all children counts, once for each."""


def hop_weights(costs: LinkCosts) -> HopWeights:
    """Return what hops cost among the devices that take part."""
    tx_j, rx_j, each_j = (costs.among_present(m) for m in (costs.tx_j, costs.rx_j, costs.each_j))
    answers_j = 0.0 if costs.answers is None else costs.among_present(costs.answers.tx_j + costs.answers.rx_j)
    return HopWeights(own=tx_j + each_j + np.transpose(answers_j), reach=tx_j.T, hear=rx_j.T)


def spanning_parents(costs: LinkCosts) -> Ints | None:
    """Return the parents of the minimum spanning tree among the devices that take part, shape (k,).

    By Prim's algorithm: a library takes an edge that costs nothing for none.
    """
    own_j, reach_j, hear_j = hop_weights(costs)
    weights = own_j + reach_j + hear_j
    k = len(weights)
    nearest, cheapest_j = np.zeros(k, dtype=np.intp), weights[0].copy()
    outside = np.arange(k) != 0
    for _ in range(k - 1):
        device = int(np.where(outside, cheapest_j, np.inf).argmin())
        if not np.isfinite(cheapest_j[device]):
            return None
        outside[device] = False
        closer = outside & (weights[device] < cheapest_j)
        nearest[closer], cheapest_j[closer] = device, weights[device][closer]
    nearest[0] = ROOT
    return _rooted_at_centre(nearest)


def _rooted_at_centre(parents: Ints) -> Ints:
    """Turn a tree so that its root is the middle of its longest path, found by two searches from its ends."""
    k = len(parents)
    below = np.flatnonzero(parents >= 0)
    hops = coo_array((np.ones(len(below)), (below, parents[below])), shape=(k, k)).tocsr()
    end = breadth_first_order(hops, 0, directed=False)[0][-1]
    order, towards = breadth_first_order(hops, end, directed=False)
    path = [order[-1]]
    while path[-1] != end:
        path.append(towards[path[-1]])
    _, above = breadth_first_order(hops, path[len(path) // 2], directed=False)
    rooted: Ints = np.where(above >= 0, above, ROOT).astype(np.intp)  # the library marks the root by -9999
    return rooted


def hubs_by_joules(costs: LinkCosts) -> Ints:
    """Return the devices that reach all others, the one with the cheapest star first, as indices below k."""
    weights = hop_weights(costs)
    for matrix in weights:
        np.fill_diagonal(matrix, 0.0)
    others = len(costs.devices) - 1
    star_j = weights.own.sum(axis=0) + weights.reach.max(axis=0, initial=0.0)
    star_j += others * weights.hear.max(axis=0, initial=0.0)
    cheapest_first: Ints = star_j.argsort(kind="stable")[: np.isfinite(star_j).sum()]
    return cheapest_first


def star_parents(k: int, hub: int) -> Ints:
    """Return the parents of a star of k devices."""
    parents = np.full(k, hub, dtype=np.intp)
    parents[hub] = ROOT
    return parents


def as_tree(parents: Ints, costs: LinkCosts) -> Tree:
    """Name the devices of a tree as they are named among all, absent ones included."""
    named = np.full(costs.num_devices, ABSENT, dtype=np.intp)
    named[costs.devices] = np.where(parents >= 0, costs.devices[parents], ROOT)
    return Tree(tuple(named.tolist()))
