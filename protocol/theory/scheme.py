"""Digital or analog: which of the two bounds is lower for what is left of a budget.

Derived for this project from the model of Yan and Li, arXiv 2308.06496. Asked anew each round, it follows
the budget and the channel.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal, NamedTuple

from protocol.theory.bounds import analog_bound, largest_gossip_learning_rate
from protocol.theory.constants import MAX_ROUNDS, Constants, Training


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A way to exchange parameters, as the bounds see it."""

    scheme: Literal["digital", "analog"]
    consensus_rate: float
    """delta per round."""
    round_cost: float
    """What a round takes of the budget, computing included."""
    noise_power: float = 0.0
    """nu^2 of analog exchanges."""


class Forecast(NamedTuple):
    """Rounds that the budget affords with a candidate, and the bound after them; inf where it gives none."""

    candidate: Candidate
    num_rounds: int
    bound: float


def forecast(constants: Constants, training: Training, candidate: Candidate, *, budget: float) -> Forecast:
    """Predict what a candidate makes of the budget: K = floor(budget / round_cost), then B2 or B3.

    The rounds of `training` are not used; constants.initial_gap is the gap that is left.
    """
    num_rounds = MAX_ROUNDS
    if budget < candidate.round_cost * MAX_ROUNDS:
        num_rounds = int(budget / candidate.round_cost)
    limit = largest_gossip_learning_rate(
        constants, num_local_rounds=training.num_local_rounds, consensus_rate=candidate.consensus_rate
    )
    if num_rounds < 1 or training.learning_rate > limit:
        return Forecast(candidate, num_rounds, inf)
    bound = analog_bound(
        constants,
        replace(training, num_rounds=num_rounds),
        consensus_rate=candidate.consensus_rate,
        noise_power=candidate.noise_power,
    )
    return Forecast(candidate, num_rounds, bound)


def best_candidate(
    constants: Constants, training: Training, candidates: Sequence[Candidate], *, budget: float
) -> Forecast | None:
    """Return the forecast with the lowest bound, the first of equals; None where no bound holds."""
    forecasts = [forecast(constants, training, candidate, budget=budget) for candidate in candidates]
    best = min(forecasts, key=lambda one: one.bound)
    return None if best.bound == inf else best
