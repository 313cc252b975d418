"""What a device's budgets afford: the most local rounds per round, and which budget sets that.

Section 2.2 of the model: computing tau local rounds costs tau e joules and tau t seconds, an aggregation
a joules and s seconds, in each of K rounds. Derived for this project from the model of Yan and Li,
arXiv 2403.20075.
"""

from dataclasses import dataclass
from math import inf
from typing import Literal, NamedTuple, TypeAlias

from protocol.theory.constants import MAX_LOCAL_ROUNDS

Binding: TypeAlias = Literal["joules", "seconds", "drift"]
"""What keeps a device from more local rounds: a budget, or that more would make the bound worse."""


@dataclass(frozen=True, kw_only=True)
class Budget:
    """What a device may spend on all its rounds; inf where nothing limits it."""

    energy_j: float = inf
    """Modelled joules."""
    air_s: float = inf
    """Modelled seconds."""


@dataclass(frozen=True, kw_only=True)
class RoundCosts:
    """What one round takes from a device."""

    local_j: float
    """e: one local round."""
    local_air_s: float
    """t: one local round."""
    aggregation_j: float
    """a: one aggregation."""
    aggregation_air_s: float
    """s: one aggregation, without waiting for slower devices: that time can be trained in."""


class LocalRounds(NamedTuple):
    """How many local rounds, and why not more."""

    num_local_rounds: int
    binding: Binding


def cap(budget: Budget, costs: RoundCosts, *, num_rounds: int) -> LocalRounds:
    """Return the most local rounds a device can pay for in each of so many rounds; 0 if not even one.

    u = floor(min((E / K - a) / e, (T / K - s) / t)), at most MAX_LOCAL_ROUNDS
    """
    by_joules = affordable(budget.energy_j / num_rounds, costs.aggregation_j, each=costs.local_j)
    by_seconds = affordable(budget.air_s / num_rounds, costs.aggregation_air_s, each=costs.local_air_s)
    if by_seconds < by_joules:
        return LocalRounds(by_seconds, "seconds")
    return LocalRounds(by_joules, "joules")


def affordable(budget: float, reserved: float, *, each: float) -> int:
    """Return the largest n with reserved + n each <= budget; 0 if there is none, at most MAX_LOCAL_ROUNDS."""
    left = budget - reserved
    if left < each:
        return 0
    if left >= each * MAX_LOCAL_ROUNDS:
        return MAX_LOCAL_ROUNDS
    n = int(left / each)
    # The quotient may round to the other side of a whole number; what will be paid is the sum.
    if reserved + (n + 1) * each <= budget:
        return n + 1
    return n if reserved + n * each <= budget else n - 1


def shortfall(budget: Budget, costs: RoundCosts, *, num_rounds: int) -> Budget:
    """Return what a device lacks for one local round and one aggregation in each round; 0 if nothing."""
    return Budget(
        energy_j=max(0.0, num_rounds * (costs.aggregation_j + costs.local_j) - budget.energy_j),
        air_s=max(0.0, num_rounds * (costs.aggregation_air_s + costs.local_air_s) - budget.air_s),
    )
