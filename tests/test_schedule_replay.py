"""Aggregations replayed on real numbers, message by message: all end with the mean, at the planned cost."""

from collections import defaultdict
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from drops import uneven_links

from coordinator.schedule.costs import LinkCosts
from coordinator.schedule.energy_tree import min_energy_tree
from coordinator.schedule.schemes import all_broadcast, full_mesh, gossip, ring_cost, sweeps_needed
from coordinator.schedule.spanning import hub_tree, minimum_spanning_tree
from coordinator.schedule.tree import tree_cost
from coordinator.weights import mixing_matrix

TREES = [minimum_spanning_tree, hub_tree, min_energy_tree]
SEEDS = range(12)


class Air:
    """Carries messages and keeps the books: a band for each link and multicast, or one band for all."""

    def __init__(self, costs):
        self.costs = costs
        self.tx_j, self.rx_j = np.zeros((2, costs.num_devices))
        self.busy_until_s = defaultdict(float)
        self.num_messages = 0

    def send(self, sender, receivers, *, share=1.0, ready_s=0.0):
        """Send so much of a model, and return when each receiver has it."""
        self.num_messages += 1
        receivers = list(receivers)
        self.tx_j[sender] += share * max(self.costs.tx_j[sender, receivers])
        for receiver in receivers:
            self.rx_j[receiver] += share * max(self.costs.rx_j[sender, receivers])
        band = (sender, *receivers) if self.costs.access == "parallel" else "all"
        # With one band nothing overlaps, so somebody who is ready can always send next.
        start_s = self.busy_until_s[band] if band == "all" else max(ready_s, self.busy_until_s[band])
        self.busy_until_s[band] = start_s + share * max(self.costs.air_s[sender, receivers])
        return self.busy_until_s[band]

    def agrees_with(self, cost):
        assert np.allclose(cost.tx_j, self.tx_j, rtol=1e-12, atol=0)
        assert np.allclose(cost.rx_j, self.rx_j, rtol=1e-12, atol=0)
        assert cost.air_s == pytest.approx(max(self.busy_until_s.values(), default=0.0), rel=1e-12)
        assert cost.total_j == pytest.approx(self.tx_j.sum() + self.rx_j.sum())
        assert cost.total_tx_j == pytest.approx(self.tx_j.sum())


def scene(seed, access, *, num_absent=0):
    """Draw links among a few devices, some of them absent, and a parameter vector for each."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 13)) + num_absent
    costs = uneven_links(rng, n, access=access)
    absent = rng.choice(n, num_absent, replace=False).tolist()
    return costs.without(absent), rng.standard_normal((n, 12 * n))


def has_mean(costs, held, models):
    mean = models[costs.devices].mean(axis=0)
    return all(np.allclose(held[device], mean, rtol=0, atol=1e-12) for device in costs.devices)


def replay_tree(tree, air, models, *, multicast, chunks):
    """Add up towards the root and tell the mean downwards, one chunk after the other over every hop."""
    held = models.copy()
    present = len(tree.leaves_first)
    for columns in np.split(np.arange(models.shape[1]), chunks):
        ready_s = defaultdict(float)
        for device in tree.leaves_first:
            parent = tree.parents[device]
            if parent < 0:
                continue
            arrival_s = air.send(device, [parent], share=1 / chunks, ready_s=ready_s[device])
            ready_s[parent] = max(ready_s[parent], arrival_s)
            held[parent, columns] += held[device, columns]
        held[tree.root, columns] /= present
        for device in reversed(tree.leaves_first):
            children = tree.children[device]
            for together in [children] if multicast else [[child] for child in children]:
                if not together:
                    continue
                arrival_s = air.send(device, together, share=1 / chunks, ready_s=ready_s[device])
                for child in together:
                    ready_s[child] = arrival_s
                    held[child, columns] = held[device, columns]
    return held


def replay_ring(order, air, models):
    """Pass the N parts of the model round twice: N - 1 steps to add up, N - 1 to tell."""
    held, n = models.copy(), len(order)
    parts = np.array_split(np.arange(models.shape[1]), n)
    ready_s = defaultdict(float)
    for step in range(2 * (n - 1)):
        before = held.copy()
        for place, device in enumerate(order):
            following = order[(place + 1) % n]
            part = (place - step) % n
            columns = parts[part]
            arrival_s = air.send(device, [following], share=1 / n, ready_s=ready_s[device, part])
            ready_s[following, part] = arrival_s
            if step < n - 1:
                held[following, columns] += before[device, columns]
            else:
                held[following, columns] = before[device, columns]
    held /= n
    return held


@pytest.mark.parametrize("access", ["parallel", "tdma"])
@pytest.mark.parametrize("multicast", [True, False])
@pytest.mark.parametrize("plan", TREES)
@pytest.mark.parametrize("chunks", [1, 2, 6])
def test_a_tree_gives_everybody_the_mean_at_the_cost_it_was_planned_with(plan, multicast, access, chunks):
    for seed in SEEDS:
        costs, models = scene(seed, access, num_absent=seed % 3)
        tree = plan(costs)
        air = Air(costs)
        held = replay_tree(tree, air, models, multicast=multicast, chunks=chunks)
        assert has_mean(costs, held, models)
        air.agrees_with(tree_cost(tree, costs, multicast=multicast, chunks=chunks))
        parents = sum(bool(children) for children in tree.children)
        others = len(costs.devices) - 1
        assert air.num_messages == chunks * (others + (parents if multicast else others))


@pytest.mark.parametrize("access", ["parallel", "tdma"])
def test_a_ring_gives_everybody_the_mean_at_the_cost_it_was_planned_with(access):
    for seed in SEEDS:
        costs, models = scene(seed, access, num_absent=seed % 3)
        order = np.random.default_rng(seed).permutation(costs.devices).tolist()
        air = Air(costs)
        held = replay_ring(order, air, models)
        assert has_mean(costs, held, models)
        air.agrees_with(ring_cost(order, costs))
        assert air.num_messages == 2 * len(order) * (len(order) - 1)


@pytest.mark.parametrize("access", ["parallel", "tdma"])
@pytest.mark.parametrize(("plan", "cast"), [(full_mesh, "unicast"), (all_broadcast, "broadcast")])
def test_everybody_telling_everybody_costs_what_it_was_planned_with(plan, cast, access):
    for seed in SEEDS:
        costs, _ = scene(seed, access, num_absent=seed % 3)
        air = Air(costs)
        replay_exchange(nx.complete_graph(costs.devices.tolist()), air, cast)
        air.agrees_with(plan(costs))


def replay_exchange(graph, air, cast, *, ready_s=0.0):
    """Let everybody tell its neighbours once, and return when the last has heard."""
    heard_s = [ready_s]
    for device, neighbours in graph.adjacency():
        for together in [list(neighbours)] if cast == "broadcast" else [[other] for other in neighbours]:
            if together:
                heard_s.append(air.send(device, together, ready_s=ready_s))
    return max(heard_s)


@pytest.mark.parametrize("access", ["parallel", "tdma"])
@pytest.mark.parametrize("cast", ["unicast", "broadcast"])
def test_gossip_shrinks_the_distance_from_consensus_at_the_cost_it_was_planned_with(cast, access):
    for seed in SEEDS:
        costs, models = scene(seed, access)
        graph = nx.connected_watts_strogatz_graph(len(models), min(len(models), 4), 0.3, seed=seed)
        W = mixing_matrix(graph, "metropolis")
        contraction = float(np.sort(np.abs(np.linalg.eigvalsh(W)))[:-1].max(initial=0.0)) ** 2
        sweeps = sweeps_needed(contraction, 1e-3)
        air, held, clock_s = Air(costs), models, 0.0
        for _ in range(sweeps):
            clock_s = replay_exchange(graph, air, cast, ready_s=clock_s)
            held = W @ held
        assert ((held - models.mean(axis=0)) ** 2).sum() <= 1e-3 * ((models - models.mean(axis=0)) ** 2).sum()
        air.agrees_with(gossip(costs, graph.edges, sweeps=sweeps, cast=cast))


def test_edges_of_absent_devices_fall_away():
    costs = uneven_links(np.random.default_rng(1), 5)
    edges = list(combinations(range(5), 2))
    left = [edge for edge in edges if 2 not in edge]
    cost = gossip(costs.without([2]), edges, sweeps=3, cast="broadcast")
    expected = gossip(costs, left, sweeps=3, cast="broadcast")
    assert np.array_equal(cost.joules, expected.joules)
    assert cost.joules[2] == 0
    assert cost.air_s == expected.air_s


@pytest.mark.parametrize("cast", ["unicast", "broadcast"])
def test_a_missing_link_makes_a_cost_infinite(cast):
    costs = uneven_links(np.random.default_rng(1), 4)
    costs.tx_j[0, 1] = np.inf
    assert gossip(costs, [(0, 1), (1, 2)], sweeps=1, cast=cast).total_j == np.inf
    assert np.isfinite(gossip(costs, [(0, 2), (1, 2)], sweeps=1, cast=cast).total_j)
    assert full_mesh(costs).total_j == all_broadcast(costs).total_j == np.inf
    assert ring_cost([0, 1, 2, 3], costs).total_j == np.inf
    assert np.isfinite(ring_cost([1, 0, 2, 3], costs).total_j)


def test_who_is_absent_stays_absent():
    costs = uneven_links(np.random.default_rng(1), 5)
    assert costs.without([3]).without([0]).devices.tolist() == [1, 2, 4]


def test_a_plan_for_a_device_that_has_since_died_costs_infinitely_much():
    costs = uneven_links(np.random.default_rng(1), 4)
    tree = hub_tree(costs)
    assert tree_cost(tree, costs.without([tree.root]), multicast=True).total_j == np.inf
    assert ring_cost([0, 1, 2, 3], costs.without([3])).total_j == np.inf


@pytest.mark.parametrize(
    ("contraction", "consensus_error", "expected"),
    [(0.5, 0.125, 3), (0.5, 0.124, 4), (0.4, 0.064, 3), (0.0, 0.1, 1), (0.5, 0.9, 1), (1.0, 0.1, np.inf)],
)
def test_sweeps_are_enough_and_no_more(contraction, consensus_error, expected):
    assert sweeps_needed(contraction, consensus_error) == expected


def test_parts_of_a_model_overlap_on_a_path():
    """From one side of the middle hops of 1 and 2 s lead up, and down again to the same end."""
    air_s = np.full((4, 4), np.inf)
    for a, b, hop_s in [(0, 1, 1.0), (1, 2, 2.0), (2, 3, 1.0)]:
        air_s[a, b] = air_s[b, a] = hop_s
    costs = LinkCosts(air_s, np.zeros((4, 4)), air_s, "parallel")
    tree = minimum_spanning_tree(costs)
    assert tree.heights[tree.root] == 2
    assert tree_cost(tree, costs, multicast=True).air_s == 1 + 2 + 2 + 1
    assert tree_cost(tree, costs, multicast=True, chunks=4).air_s == (6 + 3 * 2) / 4
