"""What each device has to reckon with before its first round: costs of an exchange, and local rounds."""

from math import fsum

from coordinator.schedule.epochs import EpochPlan
from protocol.config import Experiment
from protocol.hardware import Hardware, fleet
from protocol.messages import Prospect
from protocol.theory.bounds import coefficients
from protocol.theory.caps import Budget, RoundCosts
from protocol.theory.online import NO_DRIFT, Outlook, decide


def look_ahead(experiment: Experiment, plan: EpochPlan) -> dict[int, Prospect]:
    """Return what each device is told at the start; the first local rounds as it would decide them itself."""
    costs = {
        device: round_costs(own, float(plan.cost.joules[device]), plan.event.air_s)
        for device, own in enumerate(fleet(experiment))
    }
    fixed = experiment.training.local_rounds
    first = {
        device: first_local_rounds(experiment, own, costs[device]) if fixed == "adaptive" else fixed
        for device, own in enumerate(fleet(experiment))
    }
    training = [rounds for rounds in first.values() if rounds > 0]
    mean = fsum(training) / len(training) if training else 0.0
    return {
        device: Prospect(
            local_rounds=first[device],
            mean_local_rounds=mean,
            exchange_j=costs[device].aggregation_j,
            exchange_air_s=costs[device].aggregation_air_s,
        )
        for device in costs
    }


def round_costs(own: Hardware, exchange_j: float, exchange_air_s: float) -> RoundCosts:
    """Return what a round takes from a device, idling included."""
    return RoundCosts(
        local_j=own.local_round_j + own.idle_power_w * own.local_round_air_s,
        local_air_s=own.local_round_air_s,
        aggregation_j=exchange_j + own.idle_power_w * exchange_air_s,
        aggregation_air_s=exchange_air_s,
    )


def first_local_rounds(experiment: Experiment, own: Hardware, costs: RoundCosts) -> int:
    """Decide the local rounds of a device's first round."""
    constants, training = experiment.theory.constants, experiment.training
    shape = NO_DRIFT
    if constants is not None:
        shape = coefficients(
            constants,
            learning_rate=training.learning_rate / (1 - training.momentum),
            num_devices=experiment.devices,
        )
    return decide(
        Outlook(
            left=Budget(energy_j=own.budget_j, air_s=own.budget_air_s),
            rounds_left=experiment.rounds,
            costs=costs,
            coefficients=shape,
        )
    ).num_local_rounds
