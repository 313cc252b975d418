"""Aggregation without a tree: everybody tells everybody, or its neighbours, or the next one on a ring.

Derived for this project from the model of Yan and Li, arXiv 2403.20075; N devices, e_ij = tx_j[i, j] and
t_ij = air_s[i, j]. Times are those of `parallel`; with `tdma` all airtimes add up (`costs.charge`).

                   transmit joules                        seconds
    full mesh      sum over i != j of e_ij                max of t_ij
    all broadcast  sum over i of max over j of e_ij       max of t_ij
    gossip         q times either, over the edges         q times the max of t_ij over the edges
    ring           2 (N - 1) / N  sum of e_i,next(i)      2 (N - 1) / N  max of t_i,next(i)
"""

from collections.abc import Iterable, Sequence
from math import ceil, inf, log
from typing import Literal

import numpy as np

from coordinator.schedule.costs import Bools, Cost, LinkCosts, charge

_ROUNDING = 1e-9


def full_mesh(costs: LinkCosts) -> Cost:
    """Return the cost of everybody sending to each of the others by itself: exact."""
    return _exchange(costs, _everybody(costs), "unicast")


def all_broadcast(costs: LinkCosts) -> Cost:
    """Return the cost of everybody sending once, so that the worst of its links hears it: exact."""
    return _exchange(costs, _everybody(costs), "broadcast")


def gossip(
    costs: LinkCosts,
    edges: Iterable[tuple[int, int]],
    *,
    sweeps: float,
    cast: Literal["unicast", "broadcast"],
) -> Cost:
    """Return the cost of so many exchanges over the edges of a graph; those of absent devices fall away."""
    return _exchange(costs, sent_over(edges, costs), cast).times(sweeps)


def sent_over(edges: Iterable[tuple[int, int]], costs: LinkCosts) -> Bools:
    """Return who sends to whom over the edges of a graph, shape (n, n); nobody to or from the absent."""
    sent = np.zeros_like(costs.tx_j, dtype=bool)
    a, b = np.array(list(edges), dtype=np.intp).reshape(-1, 2).T
    sent[a, b] = sent[b, a] = True
    return sent & _everybody(costs)


def sweeps_needed(contraction: float, consensus_error: float) -> float:
    """Return the gossip sweeps that shrink the squared distance from consensus to consensus_error of itself.

    ceil(ln eps / ln rho), rho the contraction of one sweep; at least 1, and infinite from rho = 1 on.
    """
    if contraction >= 1:
        return inf
    if contraction <= consensus_error:
        return 1
    return ceil(log(consensus_error) / log(contraction) - _ROUNDING)


def ring_cost(order: Sequence[int], costs: LinkCosts) -> Cost:
    """Return the cost of a ring all-reduce: N parts of the model, N - 1 steps to add up and N - 1 to tell."""
    on_ring = np.array(order)
    sent = np.zeros_like(costs.tx_j, dtype=bool)
    if len(order) > 1:
        sent[on_ring, np.roll(on_ring, -1)] = True
    return _exchange(costs, sent, "unicast").times(2 * (len(order) - 1) / len(order))


def _everybody(costs: LinkCosts) -> Bools:
    present = np.zeros(costs.num_devices, dtype=bool)
    present[costs.devices] = True
    return np.logical_and.outer(present, present) & ~np.eye(costs.num_devices, dtype=bool)


def _exchange(costs: LinkCosts, sent: Bools, cast: Literal["unicast", "broadcast"]) -> Cost:
    """Charge transmissions that need not wait for one another."""
    slowest_s = float(np.where(sent, costs.air_s, 0.0).max(initial=0.0))
    nothing = np.zeros_like(sent)
    unicast, multicast = (sent, nothing) if cast == "unicast" else (nothing, sent)
    return charge(costs, unicast, multicast, parallel_s=slowest_s)
