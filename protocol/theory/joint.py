"""Local rounds and rounds together, where budgets set how many rounds there are.

Minimises B1 with equal local rounds when every further local round costs rounds. Derived for this project
from the model of Yan and Li, arXiv 2403.20075.
"""

from collections.abc import Sequence
from typing import NamedTuple

from protocol.theory.bounds import Coefficients
from protocol.theory.caps import Binding, Budget, RoundCosts
from protocol.theory.rounds import equal_rounds_tradeoff
from protocol.theory.tradeoff import Resource, best_pair, stationary_point


class RelaxedPair(NamedTuple):
    """Local rounds per round and rounds as real numbers."""

    num_local_rounds: float
    num_rounds: float


class JointRounds(NamedTuple):
    """Local rounds per round, rounds, and the budget of which device allows no more of them."""

    num_local_rounds: int
    num_rounds: int
    device: int
    binding: Binding


def relaxed_joint_rounds(
    coefficients: Coefficients, *, affordable: float, aggregation_price: float
) -> RelaxedPair | None:
    """Return the best real tau >= 1 and K >= 1 with K (tau + aggregation_price) = affordable; None if none.

    Both in local rounds: C = affordable is what the whole budget would buy, A = aggregation_price what an
    aggregation costs. tau is the positive root of 2 h tau^3 + (c - h) tau^2 = a A / C, clamped; for h = 0

        tau* = sqrt(a A / (c C)),   K* = C / (A + tau*)

    so the dearer an aggregation, the more local rounds between two, and the larger the budget, the fewer.
    """
    if affordable < 1 + aggregation_price:
        return None
    tradeoff = equal_rounds_tradeoff(coefficients)
    pull = tradeoff.gain * aggregation_price / affordable
    root = stationary_point(linear=tradeoff.linear, quadratic=tradeoff.quadratic, pull=pull)
    tau = min(max(root, 1.0), affordable - aggregation_price)
    return RelaxedPair(tau, affordable / (aggregation_price + tau))


def joint_rounds(
    coefficients: Coefficients, budgets: Sequence[Budget], costs: Sequence[RoundCosts]
) -> JointRounds | None:
    """Return the best whole tau and K that every device's joules and seconds afford; None if not even (1, 1).

    budgets, costs: one per device, at least one budget finite.
    """
    resources = [
        resource
        for budget, cost in zip(budgets, costs, strict=True)
        for resource in (
            Resource(budget=budget.energy_j, local_round=cost.local_j, aggregation=cost.aggregation_j),
            Resource(budget=budget.air_s, local_round=cost.local_air_s, aggregation=cost.aggregation_air_s),
        )
    ]
    best = best_pair(equal_rounds_tradeoff(coefficients), resources)
    if best is None:
        return None
    device, kind = divmod(best.resource, 2)
    return JointRounds(best.num_local_rounds, best.num_rounds, device, "seconds" if kind else "joules")
