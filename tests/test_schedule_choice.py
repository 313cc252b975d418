"""The choice among tree, ring and gossip: what the channel allows, what ends in time, what is cheapest."""

from dataclasses import replace
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
from drops import drop, uneven_links

from coordinator.schedule.choice import Channel, Gossip, choose
from coordinator.schedule.costs import LinkCosts
from coordinator.schedule.energy_tree import min_energy_tree
from coordinator.schedule.ring import ring_order
from coordinator.schedule.schemes import ring_cost
from coordinator.schedule.tariff import Tariff
from coordinator.schedule.tree import tree_cost

N = 10
NOW = drop(np.random.default_rng(1), N, area_m=1500, rayleigh=True)
MEAN = drop(np.random.default_rng(1), N, area_m=1500)
EVERYBODY = tuple(combinations(range(N), 2))
DEAR = Gossip(EVERYBODY, sweeps=66, averages=True, cast="unicast")
TREE_S = tree_cost(min_energy_tree(NOW), NOW, multicast=True).air_s


def channel_of(mean, now=None, chunks=1, **known):
    """Return what is known of links whose prices are the same however a model is cut."""
    prices = {id(costs): Tariff(costs, costs, costs, chunks) for costs in (mean, now) if costs is not None}
    return Channel(prices[id(mean)], prices.get(id(now)), **known)


def test_a_channel_that_holds_gets_a_tree_for_the_links_as_they_are():
    choice = choose(channel_of(mean=MEAN, now=NOW, coherence_s=1.01 * TREE_S), DEAR)
    assert choice.scheme == "tree"
    assert choice.tree == min_energy_tree(NOW)
    assert choice.ring == ring_order(NOW)
    assert choice.costs["tree"].total_j < choice.costs["ring"].total_j < choice.costs["gossip"].total_j


@pytest.mark.parametrize("now", [None, NOW], ids=["unknown", "changing"])
def test_a_channel_that_changes_or_is_unknown_gets_a_ring_for_the_mean_links(now):
    choice = choose(channel_of(mean=MEAN, now=now, coherence_s=TREE_S, correlation=0.9), DEAR)
    assert choice.scheme == "ring"
    assert choice.ring == ring_order(MEAN)
    assert choice.costs["ring"].total_j == ring_cost(ring_order(MEAN), MEAN).total_j
    # It is in the table nevertheless, for comparison.
    assert choice.costs["tree"].total_j == tree_cost(min_energy_tree(MEAN), MEAN, multicast=True).total_j


def test_reports_that_agree_stand_for_a_channel_that_holds():
    assert choose(channel_of(mean=MEAN, now=NOW, coherence_s=0.0, correlation=0.91), DEAR).scheme == "tree"


def test_a_tree_that_stays_for_an_epoch_needs_a_channel_that_holds_for_as_many():
    channel = channel_of(mean=MEAN, now=NOW, coherence_s=4.01 * TREE_S, rounds=4)
    stays = choose(channel, DEAR)
    assert stays.scheme == "tree"
    assert stays.reason.endswith(
        f"the channel holds for {4.01 * TREE_S:.3g} s and 4 trees take {4 * TREE_S:.3g} s"
    )
    assert choose(replace(channel, rounds=5), DEAR).scheme == "ring"


def test_gossip_is_chosen_where_it_reaches_the_same_for_less():
    """Up and down a chain of ten takes 9 + 8 transmissions, and a sweep of gossip over it takes 10."""
    costs = LinkCosts(np.ones((N, N)), np.zeros((N, N)), np.ones((N, N)), "parallel")
    costs.tx_j[np.abs(np.subtract.outer(range(N), range(N))) == 1] = 0.1
    chain = tuple((i, i + 1) for i in range(N - 1))
    one_sweep = choose(channel_of(mean=costs, now=costs), Gossip(chain, 1, True, "broadcast"))
    assert one_sweep.scheme == "gossip"
    assert one_sweep.costs["gossip"].total_j == pytest.approx(1.0)
    assert one_sweep.costs["tree"].total_j == pytest.approx(1.7)
    two_sweeps = choose(channel_of(mean=costs, now=costs), Gossip(chain, 2, True, "broadcast"))
    assert two_sweeps.scheme == "tree"
    assert two_sweeps.costs["gossip"].total_j == pytest.approx(2.0)


def test_a_deadline_rules_out_what_ends_late():
    channel = channel_of(mean=MEAN, now=NOW)
    costs = choose(channel, DEAR).costs
    assert costs["ring"].air_s < costs["tree"].air_s < costs["gossip"].air_s
    between_s = (costs["ring"].air_s + costs["tree"].air_s) / 2
    assert choose(channel, DEAR, deadline_s=costs["tree"].air_s).scheme == "tree"
    choice = choose(channel, DEAR, deadline_s=between_s)
    assert choice.scheme == "ring"
    assert "tree would end late" in choice.reason
    hopeless = choose(channel, DEAR, deadline_s=costs["ring"].air_s / 2)
    assert hopeless.scheme == "ring"
    assert "nothing ends in" in hopeless.reason


def test_chunks_make_a_tree_quicker_and_so_the_channel_more_often_stable():
    path = np.full((5, 5), np.inf)
    for i in range(4):
        path[i, i + 1] = path[i + 1, i] = 1.0
    costs = LinkCosts(path, np.zeros((5, 5)), path, "parallel")
    dear = Gossip(((0, 1),), 197, True, "unicast")
    channel = channel_of(mean=costs, now=costs, coherence_s=2.0)
    assert choose(channel, dear).costs["tree"].air_s == 4.0
    assert choose(channel, dear).scheme == "gossip"
    quick = choose(channel_of(mean=costs, now=costs, coherence_s=2.0, chunks=8), dear)
    assert quick.costs["tree"].air_s == (4 + 7) / 8
    assert quick.scheme == "tree"


def test_a_graph_without_a_ring_gets_a_tree_or_gossip():
    star = np.full((N, N), np.inf)
    star[0, 1:] = star[1:, 0] = 1.0
    costs = LinkCosts(star, np.zeros((N, N)), star, "parallel")
    gossip = Gossip(tuple((0, i) for i in range(1, N)), 31, True, "broadcast")
    choice = choose(channel_of(mean=costs, now=costs), gossip)
    assert (choice.scheme, choice.ring) == ("tree", None)
    assert set(choice.costs) == {"spanning_tree", "spanning_tree_multicast", "tree", "gossip"}
    assert choose(channel_of(mean=costs), gossip).scheme == "gossip"
    unknown = choose(channel_of(mean=costs), replace(gossip, averages=False))
    assert unknown.reason == "gossip: no ring joins all devices; no report of the channel, so no tree"


def test_devices_that_fall_apart_are_left_to_gossip():
    apart = uneven_links(np.random.default_rng(1), 4, density=0.0)
    choice = choose(channel_of(mean=apart, now=apart), Gossip(((0, 1),), 1, False, "broadcast"))
    assert choice.scheme == "gossip"
    assert choice.costs == {}
    assert choice.reason == (
        "gossip: neither tree nor ring joins them all; as reported, no tree joins all devices"
    )


def test_gossip_that_never_agrees_is_no_alternative():
    never = Gossip(EVERYBODY, 1, False, "broadcast")
    choice = choose(channel_of(mean=MEAN, now=NOW), never)
    assert "gossip" not in choice.costs


def test_where_the_air_costs_nothing_it_is_a_tree():
    free = np.zeros((N, N))
    costs = LinkCosts(free, free, free, "parallel")
    choice = choose(channel_of(mean=costs, now=costs), DEAR)
    assert choice.scheme == "tree"
    assert all(cost.total_j == 0 for cost in choice.costs.values())


def test_the_reason_is_one_line_that_names_the_alternatives():
    choice = choose(channel_of(mean=MEAN, now=NOW, coherence_s=60.0), DEAR)
    tree_j, ring_j, gossip_j = (f"{choice.costs[name].total_j:.3g} J" for name in ("tree", "ring", "gossip"))
    assert choice.reason == (
        f"tree: {tree_j}, {ring_j} by ring, {gossip_j} by gossip; "
        f"the channel holds for 60 s and a tree takes {TREE_S:.3g} s"
    )


def test_the_choice_among_survivors_leaves_the_dead_out():
    channel = channel_of(mean=MEAN.without([2, 5]), now=NOW.without([2, 5]))
    choice = choose(channel, DEAR)
    assert sorted(choice.ring) == [0, 1, 3, 4, 6, 7, 8, 9]
    assert all(cost.joules[[2, 5]].sum() == 0 for cost in choice.costs.values())
    assert set(choice.costs) == set(choose(channel_of(mean=MEAN, now=NOW), DEAR).costs)


def test_the_last_device_has_nothing_to_aggregate():
    alone = MEAN.without(range(1, N))
    choice = choose(channel_of(mean=alone, now=alone), DEAR)
    assert choice.scheme == "tree"
    assert all(cost.total_j == cost.air_s == 0 for cost in choice.costs.values())


def test_a_sparse_graph_prices_what_it_can():
    graph = nx.cycle_graph(6)
    joules = np.full((6, 6), np.inf)
    for a, b in graph.edges:
        joules[a, b] = joules[b, a] = 1.0
    costs = LinkCosts(joules, np.zeros((6, 6)), joules, "tdma")
    choice = choose(channel_of(mean=costs, now=costs), Gossip(tuple(graph.edges), 7, True, "broadcast"))
    assert set(choice.costs) == {"spanning_tree", "spanning_tree_multicast", "tree", "ring", "gossip"}
    assert choice.costs["ring"].total_j == pytest.approx(2 * 5 / 6 * 6)
