"""The tree that is cheapest when each parent tells all its children at once.

Derived for this project from the model of Yan and Li, arXiv 2403.20075: the minimum spanning tree is the
cheapest tree of unicasts, but where every hop costs and distance is cheap, few parents with many children
need less.
"""

from itertools import chain

import numpy as np

from coordinator.schedule.costs import Bools, Floats, Ints, LinkCosts
from coordinator.schedule.spanning import (
    HopWeights,
    as_tree,
    hop_weights,
    hubs_by_joules,
    spanning_parents,
    star_parents,
)
from coordinator.schedule.tree import Tree

_ROUNDING = 1e-12


def min_energy_tree(costs: LinkCosts, *, num_moves: int = 150) -> Tree | None:
    """Return a tree of few joules with a multicast down; None if some devices are cut off.

    A search downhill from several trees: the minimum spanning tree, then the star of every possible hub,
    the cheapest first, until num_moves are spent. A move gives a device (and what hangs on it) another
    parent, always the move that saves most. So the tree is never dearer than any of those it began with,
    and the same costs give the same tree. A move takes time O(k^2) for k devices.
    """
    spanning = spanning_parents(costs)
    if spanning is None:
        return None
    weights = hop_weights(costs)
    stars = (star_parents(len(spanning), int(hub)) for hub in hubs_by_joules(costs))
    best, least_j = spanning, np.inf
    for number, seed in enumerate(chain([spanning], stars)):
        if num_moves == 0 and number > 1:  # as they are, further stars are dearer than the first
            break
        descent = _Descent(seed, weights)
        num_moves -= descent.run(num_moves)
        if descent.total_j < least_j:
            best, least_j = descent.parents, descent.total_j
    return as_tree(best, costs)


class _Descent:
    """One search: a tree, and what each change of a single parent would cost.

    Legend: own[i, q] joules that device i under parent q adds by itself, reach[i, q] the multicast of q
    that i needs, hear[i, q] what each child of q then pays to hear it; M[q], H[q] both as they are.
    """

    def __init__(self, parents: Ints, weights: HopWeights) -> None:
        k = len(parents)
        self.parents = parents.copy()
        self._weights = weights
        self._M, self._H = np.zeros((2, k))
        self._joining = (
            weights.own + weights.reach + weights.hear
        )  # [i, q]: what q costs more with i below it
        self._leaving = np.full(k, -np.inf)  # what the parent of i costs less without it; the root has none
        self._above = _ancestors(parents)
        for parent in np.unique(parents[parents >= 0]):
            self._price(int(parent))

    @property
    def total_j(self) -> float:
        """Joules of the tree as it is."""
        below = np.flatnonzero(self.parents >= 0)
        parents = self.parents[below]
        return float(self._weights.own[below, parents].sum() + self._H[parents].sum() + self._M.sum())

    def run(self, num_moves: int) -> int:
        """Make the move that saves most until none does, or so many are made; return how many were."""
        everyone = np.arange(len(self.parents))
        for moves in range(num_moves):
            change_j = self._joining - self._leaving[:, None]
            change_j[self._above.T] = np.inf  # nobody can hang on itself or on who hangs on it
            change_j[everyone, self.parents] = np.inf  # the root has no parent, and nothing to gain anyway
            device, parent = divmod(int(change_j.argmin()), len(everyone))
            if not change_j[device, parent] < -_ROUNDING * self._M.max():
                return moves
            self._move(device, parent)
        return num_moves

    def _move(self, device: int, parent: int) -> None:
        former = int(self.parents[device])
        with_it = self._above[:, device]
        self._above[with_it] &= ~self._above[former]
        self._above[with_it] |= self._above[parent]
        self.parents[device] = parent
        self._price(former)
        self._price(parent)

    def _price(self, parent: int) -> None:
        """Update what depends on the children of one parent."""
        children = np.flatnonzero(self.parents == parent)
        own, reach, hear = (weights[:, parent] for weights in self._weights)
        n = len(children)
        M, without_M = _largest(reach[children])
        H, without_H = _largest(hear[children])
        self._M[parent], self._H[parent] = M, H
        self._leaving[children] = own[children] + (M - without_M) + (n * H - (n - 1) * without_H)
        self._joining[:, parent] = own + np.maximum(reach - M, 0.0) + (n + 1) * np.maximum(hear, H) - n * H


def _largest(values: Floats) -> tuple[float, Floats]:
    """Return the largest of some values, 0 if there are none, and for each the largest of the others."""
    if not len(values):
        return 0.0, values
    top = int(values.argmax())
    largest = float(values[top])
    others = np.full(len(values), largest)
    others[top] = max(values[:top].max(initial=0.0), values[top + 1 :].max(initial=0.0))
    return largest, others


def _ancestors(parents: Ints) -> Bools:
    """Return whether j is i or above it, shape (k, k)."""
    everyone = np.arange(len(parents))
    above = np.eye(len(parents), dtype=bool)
    upwards = everyone
    while (climbing := parents[upwards] >= 0).any():
        upwards = np.where(climbing, parents[upwards], upwards)
        above[everyone, upwards] = True
    return above
