"""Tree, ring or gossip: which of them the next aggregations should use."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from coordinator.schedule.costs import Cost
from coordinator.schedule.tariff import Tariff
from coordinator.schedule.tree import Tree

Scheme = Literal["tree", "ring", "gossip"]

_SCHEMES: tuple[Scheme, ...] = ("tree", "ring", "gossip")
_CORRELATED = 0.9


@dataclass(frozen=True, eq=False)
class Channel:
    """What is known of the links."""

    mean: Tariff
    """From mean path loss."""
    now: Tariff | None = None
    """From the latest reports, if there are any."""
    coherence_s: float = inf
    correlation: float = 0.0
    """Of the gains in the last two reports."""
    rounds: int = 1
    """For which what is chosen stays: those of an epoch."""


@dataclass(frozen=True)
class Gossip:
    """Gossip as the alternative to exact averaging."""

    edges: tuple[tuple[int, int], ...]
    sweeps: int
    """Of a round."""
    averages: bool
    """Whether they come close enough to averaging to stand for it."""
    cast: Literal["unicast", "broadcast"]


@dataclass(frozen=True, eq=False)
class Choice:
    """What to do, and what else there was."""

    scheme: Scheme
    reason: str
    """One line."""
    costs: Mapping[str, Cost]
    """Of every scheme that the links allow, by name."""
    tree: Tree | None
    ring: tuple[int, ...] | None
    tariff: Tariff
    """What tree and ring were laid out for: the links as reported, or their means."""


def choose(channel: Channel, rival: Gossip, *, multicast: bool = True, deadline_s: float = inf) -> Choice:
    """Pick the scheme of fewest joules among those that the channel allows and that end by the deadline.

    A tree needs a channel that holds: coherence_s longer than all aggregations over it, or correlation
    above 0.9. Then tree and ring are laid out for the links as they are now; else for their means, and
    the tree is out. If nothing ends in time it is the quickest, and gossip if nothing joins all devices.
    Of equals it is the tree, then the ring. Derived for this project from the model of Yan and Li, arXiv
    2403.20075. multicast: whether a parent of the tree tells all its children at once.
    """
    tariff = channel.mean if channel.now is None else channel.now
    tree = tariff.energy_tree if multicast else tariff.spanning_tree
    holds, finding = _holds(channel, tree, multicast=multicast)
    if not holds and tariff is not channel.mean:
        tariff = channel.mean
        tree = tariff.energy_tree if multicast else tariff.spanning_tree
    ring = tariff.ring_order
    costs = {
        "full_mesh": tariff.all_pairs(cast="unicast"),
        "all_broadcast": tariff.all_pairs(cast="broadcast"),
    }
    spanning = tariff.spanning_tree
    if spanning is not None:
        costs["spanning_tree"] = tariff.tree(spanning, multicast=False)
        costs["spanning_tree_multicast"] = tariff.tree(spanning, multicast=True)
    if tree is not None:
        costs["tree"] = tariff.tree(tree, multicast=multicast)
    if ring is not None:
        costs["ring"] = tariff.ring(ring)
    if rival.averages:
        costs["gossip"] = tariff.gossip(rival.edges, sweeps=rival.sweeps, cast=rival.cast)
    costs = {name: cost for name, cost in costs.items() if isfinite(cost.total_j)}
    scheme, reason = _pick(costs, holds=holds, deadline_s=deadline_s)
    return Choice(scheme, f"{scheme}: {reason}; {finding}", costs, tree, ring, tariff)


def _holds(channel: Channel, tree: Tree | None, *, multicast: bool) -> tuple[bool, str]:
    """Return whether the channel stays as it is for as long as a tree needs, and that in words."""
    if channel.now is None:
        return False, "no report of the channel, so no tree"
    if tree is None:
        return False, "as reported, no tree joins all devices"
    if channel.correlation > _CORRELATED:
        return True, f"the last reports correlate by {channel.correlation:.2f}"
    trees_s = channel.rounds * channel.now.tree(tree, multicast=multicast).air_s
    trees, take = ("a tree", "takes") if channel.rounds == 1 else (f"{channel.rounds} trees", "take")
    holds = f"the channel holds for {channel.coherence_s:.3g} s"
    if channel.coherence_s > trees_s:
        return True, f"{holds} and {trees} {take} {trees_s:.3g} s"
    return False, f"{holds}, but {trees} would take {trees_s:.3g} s"


def _pick(costs: Mapping[str, Cost], *, holds: bool, deadline_s: float) -> tuple[Scheme, str]:
    """Return the scheme of fewest joules that may be used and ends in time, and why in words."""
    usable: list[Scheme] = [name for name in _SCHEMES if name in costs and (holds or name != "tree")]
    if not usable:
        return (
            "gossip",
            "no ring joins all devices" if "tree" in costs else "neither tree nor ring joins them all",
        )
    in_time = [name for name in usable if costs[name].air_s <= deadline_s]
    if not in_time:
        quickest = min(usable, key=lambda name: costs[name].air_s)
        took_s = costs[quickest].air_s
        return quickest, f"the quickest with {took_s:.3g} s, but nothing ends in {deadline_s:.3g} s"
    best = min(in_time, key=lambda name: costs[name].total_j)
    others = [f"{costs[name].total_j:.3g} J by {name}" for name in in_time if name != best]
    late = [f"{name} would end late" for name in usable if name not in in_time]
    return best, ", ".join([f"{costs[best].total_j:.3g} J", *others, *late])
