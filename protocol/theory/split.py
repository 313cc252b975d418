"""How a budget is best split between computing and communicating in digital gossip.

Local rounds tau, sweeps q per exchange and rounds K with K (tau c1 + q c2) <= R that make B2 least. Derived
for this project from the model of Yan and Li, arXiv 2308.06496.
"""

from dataclasses import dataclass
from math import inf
from typing import NamedTuple

from protocol.theory.bounds import largest_gossip_learning_rate
from protocol.theory.constants import MAX_LOCAL_ROUNDS, Constants
from protocol.theory.contraction import consensus_rate
from protocol.theory.tradeoff import Resource, Tradeoff, best_pair, stationary_point


@dataclass(frozen=True, kw_only=True)
class Prices:
    """A budget R and what takes of it, all in joules or all in seconds."""

    budget: float
    local_round: float
    """c1."""
    sweep: float
    """c2."""


class Split(NamedTuple):
    """The best split, and the consensus rate of its sweeps."""

    num_local_rounds: int
    num_sweeps: int
    num_rounds: int
    consensus_rate: float


def relaxed_local_rounds(
    constants: Constants, prices: Prices, *, learning_rate: float, contraction: float, num_sweeps: int
) -> float:
    """Return tau* as a real number, before any cap: where B2 under the budget is stationary; inf if nowhere.

    The positive root of
    160 L^2 eta^2 zeta^2 tau^3 + 40 L^2 eta^2 sigma^2 tau^2 = 2 Delta q c2 delta^2 / (eta R); by itself

        zeta = 0    tau* = delta / (L eta) sqrt(Delta q c2 / (20 eta sigma^2 R))
        sigma = 0   tau* = (Delta q c2 delta^2 / (80 L^2 eta^3 zeta^2 R))^(1/3)
    """
    tradeoff = _tradeoff(constants, learning_rate, consensus_rate(contraction, num_sweeps=num_sweeps))
    pull = tradeoff.gain * num_sweeps * prices.sweep / prices.budget
    return stationary_point(linear=tradeoff.linear, quadratic=tradeoff.quadratic, pull=pull)


def best_split(
    constants: Constants, prices: Prices, *, learning_rate: float, contraction: float, max_sweeps: int
) -> Split | None:
    """Return the whole tau, q and K with the least B2; None if the budget or the learning rate forbids all.

    tau <= delta_q / (4 sqrt(10) L eta), where B2 holds; q = 1 .. max_sweeps.
    """
    best, least = None, inf
    for q in range(1, max_sweeps + 1):
        rate = consensus_rate(contraction, num_sweeps=q)
        if rate == 0:
            return None
        limit = largest_gossip_learning_rate(constants, num_local_rounds=1, consensus_rate=rate)
        pair = best_pair(
            _tradeoff(constants, learning_rate, rate),
            [Resource(budget=prices.budget, local_round=prices.local_round, aggregation=q * prices.sweep)],
            max_local_rounds=int(min(limit / learning_rate, MAX_LOCAL_ROUNDS)),
        )
        if pair is not None and pair.value < least:
            best, least = Split(pair.num_local_rounds, q, pair.num_rounds, rate), pair.value
    return best


def _tradeoff(constants: Constants, learning_rate: float, rate: float) -> Tradeoff:
    """B2 without its constant L eta sigma^2 / N."""
    scale = (constants.smoothness * learning_rate / rate) ** 2
    return Tradeoff(
        gain=2 * constants.initial_gap / learning_rate,
        linear=40 * scale * constants.gradient_variance,
        quadratic=80 * scale * constants.heterogeneity,
    )
