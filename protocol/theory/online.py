"""A device's own decision at the start of each round: how many local rounds, from what is left.

Self-correcting: what one round saves or overspends is spread over all that remain. Derived for this project
from the model of Yan and Li, arXiv 2403.20075.
"""

from dataclasses import dataclass
from typing import NamedTuple

from protocol.theory.bounds import Coefficients
from protocol.theory.caps import Binding, Budget, RoundCosts, cap
from protocol.theory.rounds import equal_rounds_tradeoff
from protocol.theory.tradeoff import best_local_rounds


@dataclass(frozen=True, kw_only=True)
class Outlook:
    """What a device knows before a round."""

    left: Budget
    """What its meters have left."""
    rounds_left: int
    """Rounds to come, this one included."""
    costs: RoundCosts
    """Expected costs of a round, those of the aggregation with their margin: the reserve of every round."""
    coefficients: Coefficients
    """Of B1 from here on: a = 4 (F(x^k) - F_inf) / eta falls with the loss."""


NO_DRIFT = Coefficients(a=1.0, b=0.0, c=0.0, h=0.0)
"""Where nothing is known of the task: more local rounds never seem worse, and the budgets alone decide."""


class Decision(NamedTuple):
    """What the device does in this round."""

    num_local_rounds: int
    """0: it relays, and is no part of the mean."""
    binding: Binding
    """What keeps it from more."""
    aggregates: bool
    """Whether its budgets pay for this round's aggregation at all; if not, it must leave."""


def decide(outlook: Outlook) -> Decision:
    """Return the local rounds of this round: an even share of what is left after all reserves.

        tau = min((E_left - R a) / (R e), (T_left - R s) / (R t), nu),   R = rounds left, whole numbers
        nu the better whole neighbour, at least 1, of the root of 2 h nu^3 + (c - h) nu^2 = a_k / R

    As long as no aggregation costs more than its reserve, no budget is exceeded, and a device that can pay
    the reserves of all rounds at the start can aggregate in every one of them.
    """
    left, costs, rounds_left = outlook.left, outlook.costs, outlook.rounds_left
    most = cap(left, costs, num_rounds=rounds_left)
    best = best_local_rounds(equal_rounds_tradeoff(outlook.coefficients), num_rounds=rounds_left)
    aggregates = left.energy_j >= costs.aggregation_j and left.air_s >= costs.aggregation_air_s
    if most.num_local_rounds < best:
        return Decision(most.num_local_rounds, most.binding, aggregates)
    return Decision(best, "drift", aggregates)
