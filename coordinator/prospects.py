"""What each device has to reckon with before its first round: costs of an exchange, and local rounds."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import harmonic_mean
from typing import NamedTuple

import numpy as np

from coordinator.schedule.epochs import EpochPlan
from coordinator.schedule.timing import settled_ready_s
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.hardware import Hardware, fleet
from protocol.messages import Prospect
from protocol.theory.bounds import Coefficients, coefficients
from protocol.theory.caps import Budget, RoundCosts, shortfall
from protocol.theory.online import NO_DRIFT, Outlook, decide


class ExchangeCost(NamedTuple):
    """What one exchange takes a device."""

    joules: float
    """Without idling."""
    air_s: float
    """Once all are ready."""
    waiting_air_s: float
    """For slower devices, before that."""

    def of_round(self, own: Hardware) -> RoundCosts:
        """Return what a round takes, idling included."""
        return RoundCosts(
            local_j=own.local_round_j + own.idle_power_w * own.local_round_air_s,
            local_air_s=own.local_round_air_s,
            aggregation_j=self.joules + own.idle_power_w * (self.air_s + self.waiting_air_s),
            aggregation_air_s=self.air_s,
        )


def look_ahead(experiment: Experiment, plan: EpochPlan) -> dict[int, Prospect]:
    """Return what each device is told at the start; the first local rounds as it would decide them itself.

    Faster devices wait for the slowest: that takes joules, but they can train in that time. Raises BadInput
    if the budgets of a device do not allow one round.
    """
    devices = fleet(experiment)
    costs = exchange_costs(experiment, plan, [1] * len(devices))
    for device, own in enumerate(devices):
        _refuse_if_too_poor(experiment, device, own, costs[device])
    first = [0] * len(devices)
    for _ in range(2):  # how long a device waits depends on how long others train before it
        first = [
            first_local_rounds(experiment, own, cost.of_round(own))
            for own, cost in zip(devices, costs, strict=True)
        ]
        costs = exchange_costs(experiment, plan, first)
    training = [rounds for rounds in first if rounds > 0]
    return {
        device: Prospect(
            local_rounds=first[device],
            mean_local_rounds=harmonic_mean(training) if training else 0.0,
            exchange_j=costs[device].of_round(devices[device]).aggregation_j,
            exchange_air_s=costs[device].air_s,
            waiting_air_s=costs[device].waiting_air_s,
        )
        for device in range(len(devices))
    }


def exchange_costs(
    experiment: Experiment, plan: EpochPlan, local_rounds: Sequence[int]
) -> list[ExchangeCost]:
    """Return what an exchange takes each device if they do so many local rounds before it."""
    devices, cost = fleet(experiment), plan.cost
    air_s, waiting_s = np.full(len(devices), cost.air_s), np.zeros(len(devices))
    if cost.ends is not None:
        busy_s = np.array([n * own.local_round_air_s for n, own in zip(local_rounds, devices, strict=True)])
        ready_s = settled_ready_s(cost.ends, busy_s)
        taken_s = cost.ends(ready_s) - ready_s
        together_s = np.full(len(devices), ready_s.max())
        air_s = np.minimum(cost.ends(together_s) - together_s, taken_s)
        waiting_s = taken_s - air_s
    return [ExchangeCost(*map(float, own)) for own in zip(cost.joules, air_s, waiting_s, strict=True)]


def _refuse_if_too_poor(experiment: Experiment, device: int, own: Hardware, cost: ExchangeCost) -> None:
    costs = cost.of_round(own)
    costs = replace(costs, aggregation_air_s=cost.air_s + cost.waiting_air_s)
    lacking = shortfall(Budget(energy_j=own.budget_j, air_s=own.budget_air_s), costs, num_rounds=1)
    limited = experiment.budget.limited
    for keys, budget, unit, missing, round_ in (
        (("joules", "run_joules"), own.budget_j, "J", lacking.energy_j, costs.local_j + costs.aggregation_j),
        (
            ("seconds", "run_seconds"),
            own.budget_air_s,
            "s",
            lacking.air_s,
            costs.local_air_s + costs.aggregation_air_s,
        ),
    ):
        if missing > 0:
            key = " or ".join(f"budget.{key}" for key in keys if key in limited)
            raise BadInput(
                f"{key}: device {device} has {budget:.3g} {unit}, and one local round with one exchange "
                f"takes about {round_:.3g} {unit}; it lacks {missing:.3g} {unit}"
            )


def first_local_rounds(experiment: Experiment, own: Hardware, costs: RoundCosts) -> int:
    """Decide the local rounds of a device's first round."""
    if experiment.training.local_rounds != "adaptive":
        return experiment.training.local_rounds
    return decide(first_outlook(experiment, own, costs)).num_local_rounds


def first_outlook(experiment: Experiment, own: Hardware, costs: RoundCosts) -> Outlook:
    """Return what a device knows before its first round."""
    return Outlook(
        left=Budget(energy_j=own.budget_j, air_s=own.budget_air_s),
        rounds_left=experiment.rounds,
        costs=costs,
        coefficients=bound_shape(experiment),
    )


def bound_shape(experiment: Experiment) -> Coefficients:
    """Return the coefficients of B1 at the start, or those of no drift where constants are not known.

    Momentum makes steps longer, in the end by 1 / (1 - momentum).
    """
    constants, training = experiment.theory.constants, experiment.training
    if constants is None:
        return NO_DRIFT
    return coefficients(
        constants,
        learning_rate=training.learning_rate / (1 - training.momentum),
        num_devices=experiment.devices,
    )
