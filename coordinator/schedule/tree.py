"""A rooted tree of devices: partial sums go up, the mean goes down, and everybody has it exactly.

Derived for this project from the model of Yan and Li, arXiv 2403.20075; P(i) the parent of i, e_ij =
tx_j[i, j], t_ij = air_s[i, j], C parts into which the model is cut so that hops overlap.

    up       sum over i != root of e_i,P(i)
    down     sum over devices with children of the largest e_ij to a child j (multicast), or of all of them
    seconds  max over paths up and down again of (sum of t + (C - 1) max of t) / C        `parallel`
"""

from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np

from coordinator.schedule.costs import Cost, LinkCosts, charge

ROOT = -1
ABSENT = -2


@dataclass(frozen=True)
class Tree:
    """A rooted tree over the devices that take part."""

    parents: tuple[int, ...]
    """Of each device, shape (n,); ROOT for the root, ABSENT for who takes no part."""

    def __post_init__(self) -> None:
        assert self.parents.count(ROOT) == 1, "a tree has one root"
        present = len(self.parents) - self.parents.count(ABSENT)
        assert len(self.leaves_first) == present, "every device of a tree hangs on its root"

    @property
    def root(self) -> int:
        """The device on top."""
        return self.parents.index(ROOT)

    @cached_property
    def heights(self) -> dict[int, int]:
        """Of each device, links on the longest way down to a leaf."""
        heights: dict[int, int] = {}
        for device in self.leaves_first:
            heights[device] = max((1 + heights[child] for child in self.children[device]), default=0)
        return heights

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """Of each device, in order."""
        below: list[list[int]] = [[] for _ in self.parents]
        for device, parent in enumerate(self.parents):
            if parent >= 0:
                below[parent].append(device)
        return tuple(map(tuple, below))

    @cached_property
    def leaves_first(self) -> tuple[int, ...]:
        """All devices of the tree, each after its children."""
        root_first = [self.root]
        for device in root_first:
            root_first += self.children[device]
        return tuple(reversed(root_first))


def tree_cost(tree: Tree, costs: LinkCosts, *, multicast: bool, chunks: int = 1) -> Cost:
    """Return the cost of an all-reduce over a tree, downwards by one multicast of each parent or by unicasts.

    chunks: parts of the model that follow each other through the tree; they change only the time, and
    with `tdma` not even that.
    """
    assert chunks >= 1
    devices = np.array([device for device, parent in enumerate(tree.parents) if parent >= 0], dtype=np.intp)
    parents = np.array(tree.parents, dtype=np.intp)[devices]
    up = np.zeros_like(costs.tx_j, dtype=bool)
    up[devices, parents] = True
    sent, heard_at_once = (up, up.T) if multicast else (up | up.T, np.zeros_like(up))
    parallel_s = _pipelined_s(tree, costs, multicast=multicast, chunks=chunks)
    return charge(costs, sent, heard_at_once, parallel_s=parallel_s)


def _pipelined_s(tree: Tree, costs: LinkCosts, *, multicast: bool, chunks: int) -> float:
    """Return the time of the critical path where every link has a band of its own.

    Equal parts follow each other through hops of constant speed: the first takes the sum of t / C, and each
    further one leaves the slowest hop max of t / C later. A join waits for its slowest branch, so the tree
    takes as long as its slowest pair of a path up and a path down; the maximum over pairs, of a maximum
    over both paths' hops, is the larger of two maxima in each of which the pair falls apart.
    """
    up_s, slowest_up_s = np.zeros((2, len(tree.parents)))
    down_s, slowest_down_s = np.zeros((2, len(tree.parents)))
    for parent in reversed(tree.leaves_first):
        children = list(tree.children[parent])
        if not children:
            continue
        hop_up_s, hop_down_s = costs.air_s[children, parent], costs.air_s[parent, children]
        if multicast:
            hop_down_s = hop_down_s.max()
        up_s[children] = up_s[parent] + hop_up_s
        down_s[children] = down_s[parent] + hop_down_s
        slowest_up_s[children] = np.maximum(slowest_up_s[parent], hop_up_s)
        slowest_down_s[children] = np.maximum(slowest_down_s[parent], hop_down_s)
    if not np.isfinite(up_s + down_s).all():
        return inf
    behind = chunks - 1
    slow_up_s = (up_s + behind * slowest_up_s).max() + down_s.max()
    slow_down_s = up_s.max() + (down_s + behind * slowest_down_s).max()
    return float(max(slow_up_s, slow_down_s)) / chunks
