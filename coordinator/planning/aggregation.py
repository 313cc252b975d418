"""The aggregation that a run would begin with, hop by hop, beside all alternatives."""

from collections.abc import Iterator
from itertools import pairwise
from math import isfinite
from typing import Literal

from pydantic import BaseModel, ConfigDict

from coordinator.network import Network
from coordinator.schedule.costs import Cost, LinkCosts
from coordinator.schedule.epochs import CONSENSUS_ERROR, EpochPlan, Epochs
from coordinator.schedule.schemes import sweeps_needed
from coordinator.schedule.tree import Tree
from protocol.config import Experiment

MOST_SWEEPS = 10_000
"""Gossip that needs more is no alternative."""


class PlannedHop(BaseModel):
    """One transmission of an aggregation, at its sender and all receivers, answers included."""

    model_config = ConfigDict(frozen=True)

    sender: int
    receivers: tuple[int, ...]
    joules: float


class Alternative(BaseModel):
    """One way to aggregate, and what one aggregation would cost all devices."""

    model_config = ConfigDict(frozen=True)

    name: str
    exact: bool
    """Whether all devices end with the mean where nothing is lost."""
    tx_joules: float
    """For sending, answers included."""
    joules: float
    """For sending and receiving; idling is not in it."""
    air_s: float
    """From when all devices are ready until the last one is through."""


class PlannedAggregation(BaseModel):
    """The first epoch: who sends to whom, why, and what it costs."""

    model_config = ConfigDict(frozen=True)

    scheme: Literal["tree", "ring", "gossip"]
    reason: str
    parents: tuple[int, ...]
    """Of a tree: the parent of each device, -1 for the root."""
    order: tuple[int, ...]
    """Of a ring."""
    hops: tuple[PlannedHop, ...]
    """Of a tree, up and down again, or of a ring."""
    tx_joules: float
    joules: float
    air_s: float
    alternatives: tuple[Alternative, ...]
    """The one of fewest joules first."""


def plan_aggregation(
    experiment: Experiment, network: Network, epochs: Epochs, plan: EpochPlan
) -> PlannedAggregation:
    """Lay out what the first epoch would do, and price what else there is."""
    event = plan.event
    return PlannedAggregation(
        scheme=event.scheme,
        reason=event.reason if experiment.aggregation.is_scheduled else "aggregation.scheme = gossip",
        parents=event.parents,
        order=event.order,
        hops=tuple(_hops(experiment, plan)),
        tx_joules=event.tx_joules,
        joules=event.joules,
        air_s=event.air_s,
        alternatives=tuple(_alternatives(experiment, network, epochs, plan)),
    )


def _hops(experiment: Experiment, plan: EpochPlan) -> Iterator[PlannedHop]:
    event, tariff = plan.event, plan.choice.tariff
    if event.scheme == "tree":
        tree, links = Tree(event.parents), tariff.chunked
        for device in tree.leaves_first[:-1]:
            parent = tree.parents[device]
            yield _hop(links, device, (parent,))
        for parent in reversed(tree.leaves_first):
            children = tree.children[parent]
            together = experiment.radio.cast == "broadcast"
            for group in [children] if together and children else [(child,) for child in children]:
                yield _hop(links, parent, group)
    elif event.scheme == "ring":
        share = 2 * (len(event.order) - 1) / len(event.order)
        for device, following in pairwise((*event.order, event.order[0])):
            yield _hop(tariff.parted, device, (following,), share=share)


def _hop(links: LinkCosts, sender: int, receivers: tuple[int, ...], *, share: float = 1.0) -> PlannedHop:
    to = list(receivers)
    heard_j = len(to) * float(links.rx_j[sender, to].max())
    joules = float(links.tx_j[sender, to].max()) + heard_j
    if links.answers is not None:
        joules += float(links.answers.tx_j[sender, to].sum() + links.answers.rx_j[sender, to].sum())
    return PlannedHop(sender=sender, receivers=receivers, joules=share * joules)


def _alternatives(
    experiment: Experiment, network: Network, epochs: Epochs, plan: EpochPlan
) -> list[Alternative]:
    tariff, choice = plan.choice.tariff, plan.choice
    costs: list[tuple[str, bool, Cost]] = [
        (name.replace("_", " "), True, cost) for name, cost in choice.costs.items() if name != "gossip"
    ]
    set_, edges = experiment.aggregation.sweeps, list(network.graph.edges)
    needed = sweeps_needed(epochs.contraction(), CONSENSUS_ERROR)
    for sweeps, what in ((set_, ""), (needed, f" (to leave {CONSENSUS_ERROR:.0%})")):
        if sweeps <= MOST_SWEEPS and not (what and sweeps == set_):
            cost = tariff.gossip(edges, sweeps=int(sweeps), cast=epochs.cast)
            costs.append((f"gossip, {_number(int(sweeps), 'sweep')}{what}", False, cost))
    found = [
        Alternative(name=name, exact=exact, tx_joules=cost.total_tx_j, joules=cost.total_j, air_s=cost.air_s)
        for name, exact, cost in costs
        if isfinite(cost.total_j)
    ]
    return sorted(found, key=lambda one: one.joules)


def _number(number: int, what: str) -> str:
    return f"{number} {what}" + ("s" if number != 1 else "")
