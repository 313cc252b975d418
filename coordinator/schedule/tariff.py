"""What an aggregation costs, and how long it takes, whichever way the model is cut for it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from math import inf, isfinite
from typing import Literal

import numpy as np

from coordinator.schedule.costs import Cost, Ends, Floats, LinkCosts
from coordinator.schedule.energy_tree import min_energy_tree
from coordinator.schedule.ring import ring_order
from coordinator.schedule.schemes import gossip, ring_cost, sent_over
from coordinator.schedule.spanning import minimum_spanning_tree
from coordinator.schedule.timing import Grid, gossip_ends_s, ring_ends_s, settled_ready_s, tree_ends_s
from coordinator.schedule.tree import Tree, tree_cost

Cast = Literal["unicast", "broadcast"]


@dataclass(frozen=True, eq=False)
class Grids:
    """Whose turn is when, for each way of cutting the model; and what keeps devices busy in between."""

    whole: Grid
    chunked: Grid
    parted: Grid
    busy_s: Floats
    """Computing between two aggregations, shape (n,)."""


@dataclass(frozen=True, eq=False)
class Tariff:
    """The price of one whole model on every link, for each way of cutting it into frames.

    With grids, seconds are those from turn to turn (coordinator/schedule/timing.py); without, those of
    docs/aggregation.md, (7) to (10).
    """

    whole: LinkCosts
    """In one frame, as in gossip."""
    chunked: LinkCosts
    """In frames that follow each other through a tree."""
    parted: LinkCosts
    """In one frame for each device of a ring."""
    chunks: int = 1
    grids: Grids | None = None

    def without(self, devices: Iterable[int]) -> "Tariff":
        """Return the prices among the devices that are left."""
        gone = frozenset(devices)
        return replace(
            self,
            whole=self.whole.without(gone),
            chunked=self.chunked.without(gone),
            parted=self.parted.without(gone),
        )

    @cached_property
    def spanning_tree(self) -> Tree | None:
        """The cheapest tree of unicasts; None if some devices are cut off."""
        return minimum_spanning_tree(self.chunked)

    @cached_property
    def energy_tree(self) -> Tree | None:
        """A tree of few joules with a multicast down; None if some devices are cut off."""
        return min_energy_tree(self.chunked)

    @cached_property
    def ring_order(self) -> tuple[int, ...] | None:
        """A ring of few joules; None if none was found."""
        return ring_order(self.parted)

    def tree(self, tree: Tree, *, multicast: bool) -> Cost:
        """Return the cost of an all-reduce over a tree."""
        cost = tree_cost(tree, self.chunked, multicast=multicast, chunks=self.chunks)
        if self.grids is None or not isfinite(cost.total_j):
            return cost
        grid, chunks = self.grids.chunked, self.chunks
        return self._timed(
            cost, tree_ends_s(grid, self.chunked, tree, multicast=multicast, chunks=chunks), self.grids
        )

    def ring(self, order: Sequence[int]) -> Cost:
        """Return the cost of a ring all-reduce."""
        cost = ring_cost(order, self.parted)
        if self.grids is None or len(order) == 1 or not isfinite(cost.total_j):
            return cost
        return self._timed(cost, ring_ends_s(self.grids.parted, self.parted, order), self.grids)

    def gossip(self, edges: Sequence[tuple[int, int]], *, sweeps: int, cast: Cast) -> Cost:
        """Return the cost of so many exchanges over the edges of a graph."""
        cost = gossip(self.whole, edges, sweeps=sweeps, cast=cast)
        if self.grids is None or not isfinite(cost.total_j):
            return cost
        sent = sent_over(edges, self.whole)
        return self._timed(
            cost, gossip_ends_s(self.grids.whole, self.whole, sent, cast=cast, sweeps=sweeps), self.grids
        )

    def all_pairs(self, *, cast: Cast) -> Cost:
        """Return the cost of everybody sending to all others, which is exact: to each by itself, or to all.

        Infinite where some hear next to nothing of others.
        """
        devices = self.whole.devices
        deaf = ~np.isfinite(self.chunked.tx_j[np.ix_(devices, devices)]) & ~np.eye(len(devices), dtype=bool)
        if deaf.any():
            nothing = np.full(self.whole.num_devices, inf)
            return Cost(nothing, nothing, inf)
        return self.gossip(list(combinations(devices.tolist(), 2)), sweeps=1, cast=cast)

    def _timed(self, cost: Cost, ends: Ends, grids: Grids) -> Cost:
        """Let an aggregation take from when the last device is ready until the last one is through."""
        ready_s = settled_ready_s(ends, grids.busy_s)
        devices = self.whole.devices
        air_s = float(ends(ready_s)[devices].max() - ready_s[devices].max())
        return replace(cost, air_s=air_s, ends=ends)
