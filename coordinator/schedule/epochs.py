"""Epoch after epoch: which tree or ring the devices that live average along, and what that should cost."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import inf, isfinite
from typing import TypeAlias

import numpy as np

from coordinator.events import Scheduled
from coordinator.network import Network
from coordinator.schedule.budget import budget_weights
from coordinator.schedule.choice import Channel, Choice, Gossip, choose
from coordinator.schedule.costs import Cost, Floats, LinkCosts
from coordinator.schedule.energy_tree import min_energy_tree
from coordinator.schedule.prices import PriceList, Prices
from coordinator.schedule.ring import ring_order
from coordinator.schedule.spanning import minimum_spanning_tree
from coordinator.schedule.success import joint_success
from coordinator.schedule.tariff import Cast, Tariff
from coordinator.schedule.tree import ROOT, Tree
from protocol.access import plan_access
from protocol.air import planned_round_s
from protocol.config import Experiment
from protocol.hardware import fleet
from protocol.messages import RingPlace, TreePlace
from protocol.theory.contraction import contraction

CONSENSUS_ERROR = 0.01
"""Share of the squared distance from consensus that gossip may leave to count as averaging."""
UNLIMITED = 1e6
"""Times the most that anybody has left: what a device without a budget counts as having."""
CLARKE = 0.423
"""Coherence time times Doppler shift (Rappaport, "Wireless Communications", 2nd ed., eq. 5.40.c)."""

Place: TypeAlias = TreePlace | RingPlace


@dataclass(frozen=True)
class EpochPlan:
    """One epoch as it was laid out: for the log, and for each device its place; none: gossip."""

    event: Scheduled
    places: Mapping[int, Place]
    cost: Cost
    """Of one aggregation."""
    choice: Choice
    """What else there was, and the prices of all of it."""


@dataclass(frozen=True)
class Reports:
    """What the devices that live have told before an epoch."""

    snrs_db: Mapping[int, Mapping[int, float]]
    """Of each device: how well it hears each neighbour, fades included."""
    joules_left: Mapping[int, float]


class Epochs:
    """Lays out the epochs of one run; remembers the last reports, to know whether the channel holds."""

    def __init__(self, experiment: Experiment, network: Network, prices: Prices) -> None:
        self._experiment = experiment
        self._network = network
        self._prices = prices
        self._mean_db = _mean_snrs_db(network)
        access = plan_access(
            experiment, prices.layout, num_colours=network.num_slots, max_degree=network.max_degree
        )
        self._round_s = planned_round_s(experiment, access)
        self._last_db: Floats | None = None
        self.success = joint_success(experiment, network, prices.tables)
        """Probability of each link that a packet counts, shape (n, n)."""
        self._of_those_present = lru_cache(maxsize=4)(self._with_means)

    def first(self) -> EpochPlan:
        """Lay out the first epoch, in which nobody has told anything yet."""
        static = self._coherence_s() == inf and self._experiment.radio.fading == "none"
        budgets_j = {device: own.budget_j for device, own in enumerate(fleet(self._experiment))}
        return self._lay_out(0, self._mean_db if static else None, budgets_j, correlation=0.0)

    def next(self, round_: int, reports: Reports) -> EpochPlan:
        """Lay out an epoch for the devices that have told how well they hear each other."""
        now_db = np.full_like(self._mean_db, -inf)
        for receiver, heard in reports.snrs_db.items():
            for sender, snr_db in heard.items():
                if sender in reports.snrs_db:
                    now_db[sender, receiver] = snr_db
        correlation = 0.0 if self._last_db is None else _correlation(self._last_db, now_db)
        self._last_db = now_db
        return self._lay_out(round_, now_db, reports.joules_left, correlation=correlation)

    def _lay_out(
        self, round_: int, now_db: Floats | None, joules_left: Mapping[int, float], *, correlation: float
    ) -> EpochPlan:
        aggregation = self._experiment.aggregation
        everybody = frozenset(range(self._experiment.devices))
        absent = everybody - set(joules_left) if joules_left else frozenset()
        members = self._experiment.devices - len(absent)
        prices, mean, rival = self._of_those_present(absent)
        now = None
        if now_db is not None:
            now = prices.of(now_db, faded=False).without(absent)
        channel = Channel(mean, now, self._coherence_s(), correlation, aggregation.epoch_rounds)
        choice = choose(channel, rival, multicast=self._multicast, deadline_s=self._deadline_s())
        scheme = choice.scheme if aggregation.scheme == "auto" else aggregation.scheme
        reason = choice.reason if aggregation.scheme == "auto" else f"aggregation.scheme = {scheme}"
        tariff = choice.tariff
        tree, ring = None, None
        if scheme == "tree":
            links = self._fair(tariff.chunked, joules_left)
            tree = choice.tree if links is tariff.chunked else self._tree(links)
        elif scheme == "ring":
            links = self._fair(tariff.parted, joules_left)
            ring = choice.ring if links is tariff.parted else ring_order(links)
        if tree is not None and members > 1:
            return self._plan(round_, tariff.tree(tree, multicast=self._multicast), choice, reason, tree=tree)
        if ring is not None and 1 < members <= self._prices.layout.num_values:
            return self._plan(round_, tariff.ring(ring), choice, reason, ring=ring)
        if scheme in ("tree", "ring"):
            reason = f"no {scheme} joins all devices over links that carry anything"
        cost = tariff.gossip(rival.edges, sweeps=rival.sweeps, cast=rival.cast)
        return self._plan(round_, cost, choice, reason)

    def _plan(
        self,
        round_: int,
        cost: Cost,
        choice: Choice,
        reason: str,
        *,
        tree: Tree | None = None,
        ring: tuple[int, ...] | None = None,
    ) -> EpochPlan:
        event = Scheduled(
            round=round_,
            scheme="tree" if tree else "ring" if ring else "gossip",
            reason=reason,
            parents=tree.parents if tree else (),
            order=ring or (),
            joules=cost.total_j,
            tx_joules=cost.total_tx_j,
            air_s=cost.air_s,
            alternatives_j={name: other.total_j for name, other in choice.costs.items()},
        )
        places: Mapping[int, Place] = tree_places(tree) if tree else ring_places(ring) if ring else {}
        return EpochPlan(event, places, cost, choice)

    @property
    def cast(self) -> Cast:
        """How gossip sends: an analog radio precodes for each receiver."""
        radio = self._experiment.radio
        return "unicast" if radio.scheme == "analog" else radio.cast

    @property
    def _multicast(self) -> bool:
        return self._experiment.radio.cast == "broadcast"

    def _tree(self, links: LinkCosts) -> Tree | None:
        return min_energy_tree(links) if self._multicast else minimum_spanning_tree(links)

    def _fair(self, links: LinkCosts, joules_left: Mapping[int, float]) -> LinkCosts:
        """Weigh joules by what they are of the payer's remainder, where there are budgets."""
        left = np.array([joules_left.get(device, inf) for device in range(links.num_devices)])
        limited = left[np.isfinite(left)]
        if not len(limited):
            return links
        # Next to nothing, but of those who may spend without end still the one that needs less.
        without_end = UNLIMITED * max(limited.max(), np.finfo(float).tiny)
        return budget_weights(links, np.clip(left, np.finfo(float).tiny, without_end))

    def contraction(self, absent: Collection[int] = ()) -> float:
        """Return how much one sweep of gossip among those present shrinks the squared distance, at most."""
        present = np.ones(self._experiment.devices, dtype=bool)
        present[list(absent)] = False
        among = np.ix_(present, present)
        weights = self._network.weights[among].copy()
        np.fill_diagonal(weights, 0.0)
        np.fill_diagonal(weights, 1 - weights.sum(axis=1))
        return contraction(weights, self.success[among])

    def _with_means(self, absent: frozenset[int]) -> tuple[PriceList, Tariff, Gossip]:
        """Return prices among those present, those for mean links, and gossip as an alternative to averaging.

        It is one if as many sweeps as are set come close enough to averaging.
        """
        aggregation = self._experiment.aggregation
        prices = self._prices.among(self._experiment.devices - len(absent))
        mean = prices.of(self._mean_db, faded=True)
        edges = tuple(edge for edge in self._network.graph.edges if not absent & set(edge))
        averages = self.contraction(absent) ** aggregation.sweeps <= CONSENSUS_ERROR
        rival = Gossip(edges, aggregation.sweeps, averages, self.cast)
        return prices, mean.without(absent), rival

    def _deadline_s(self) -> float:
        """Seconds that one aggregation may take so that all rounds fit into the budgets of time."""
        nominal = self._experiment.training.nominal_local_rounds
        return min(
            own.budget_air_s / self._experiment.rounds - nominal * own.local_round_air_s
            for own in fleet(self._experiment)
        )

    def _coherence_s(self) -> float:
        """Modelled seconds for which the channel stays as it is."""
        radio, mobility = self._experiment.radio, self._experiment.mobility
        if mobility.kind != "none":
            return 0.0
        if radio.fading == "none" or radio.doppler_hz == 0:
            return inf
        if radio.coherence_packets:
            return 0.0
        if isfinite(radio.doppler_hz):
            return CLARKE / radio.doppler_hz
        return radio.coherence_rounds * self._round_s


def tree_places(tree: Tree) -> dict[int, Place]:
    """Return what each device of a tree is told of it."""
    most = max(map(len, tree.children))
    return {
        device: TreePlace(
            members=len(tree.leaves_first),
            parent=None if tree.parents[device] == ROOT else tree.parents[device],
            turn=0 if tree.parents[device] == ROOT else tree.children[tree.parents[device]].index(device),
            children=tree.children[device],
            max_children=most,
            height=tree.heights[device],
        )
        for device in sorted(tree.leaves_first)
    }


def ring_places(order: tuple[int, ...]) -> dict[int, Place]:
    """Return what each device of a ring is told of it."""
    return {
        device: RingPlace(
            members=len(order),
            position=position,
            previous=order[position - 1],
            next=order[(position + 1) % len(order)],
        )
        for position, device in enumerate(order)
    }


def _mean_snrs_db(network: Network) -> Floats:
    """Return the mean SNR of each row's signal at each column, shape (n, n), -inf where there is no link."""
    n = len(network.graph)
    snrs_db = np.full((n, n), -inf)
    for a, b, link in network.graph.edges(data=True):
        snrs_db[a, b], snrs_db[b, a] = link["mean_snr_db"][b], link["mean_snr_db"][a]
    return snrs_db


def _correlation(before_db: Floats, now_db: Floats) -> float:
    """Correlate the gains of links in two reports, in dB; 1 where nothing varies and nothing has changed."""
    both = np.isfinite(before_db) & np.isfinite(now_db)
    before, now = before_db[both], now_db[both]
    if np.array_equal(before, now):
        return 1.0
    if len(before) < 2 or not before.std() or not now.std():
        return 0.0
    return float(np.corrcoef(before, now)[0, 1])
