"""What the bounds say of a run: agreement, least link quality, rounds to a target, and the best split.

Equations are those of docs/theory.md. Bounds rank choices and do not predict losses.
"""

from dataclasses import dataclass
from math import ceil, inf, isfinite, sqrt

import numpy as np

from coordinator.network import Network
from coordinator.planning.findings import (
    Agreement,
    BestSplit,
    Complexity,
    LeastSuccess,
    PlannedBounds,
    TolerableNoise,
)
from coordinator.planning.setting import Setting
from coordinator.prospects import bound_shape
from coordinator.schedule.costs import Floats
from coordinator.schedule.epochs import Epochs
from protocol.config import Experiment
from protocol.hardware import fleet
from protocol.theory.bounds import (
    GOSSIP_STEP_LIMIT,
    averaging_bound,
    gossip_bound,
    largest_gossip_learning_rate,
    violated_conditions,
)
from protocol.theory.communication import broadcast_bits, communication_complexity, unicast_bits
from protocol.theory.constants import Constants
from protocol.theory.contraction import consensus_rate
from protocol.theory.minimum import (
    minimum_success,
    minimum_success_probability,
    minimum_sweeps,
    required_consensus_rate,
)
from protocol.theory.noise import tolerable_noise
from protocol.theory.split import Prices, best_split

MOST_SWEEPS = 16
"""Tried for the split between computing and communicating."""


def plan_agreement(experiment: Experiment, network: Network, epochs: Epochs) -> Agreement:
    """Work out how fast gossip agrees, from each link's own probability of success."""
    success = [float(epochs.success[edge]) for edge in network.graph.edges]
    rho = epochs.contraction()
    return Agreement(
        contraction=rho,
        num_sweeps=experiment.aggregation.sweeps,
        consensus_rate=consensus_rate(rho, num_sweeps=experiment.aggregation.sweeps),
        success_min=min(success),
        success_mean=float(np.mean(success)),
    )


def plan_bounds(setting: Setting, constants: Constants) -> PlannedBounds:
    """Work out what the bounds say of a run."""
    training, target = setting.training, setting.experiment.theory.target
    exact = setting.plan.event.scheme != "gossip"
    bound = _averaging(setting, constants) if exact else _gossip(setting, constants)
    rounds = None
    if target is not None and not bound.violated and target > bound.floor:
        rounds = max(1, ceil(bound.gain / (target - bound.floor)))
    return PlannedBounds(
        of="B1" if exact else "B3" if setting.experiment.radio.scheme == "analog" else "B2",
        local_rounds=training.num_local_rounds,
        value=None if bound.violated else bound.gain / training.num_rounds + bound.floor,
        learning_rate=training.learning_rate,
        learning_rate_at_most=bound.learning_rate_at_most,
        violated=bound.violated,
        rounds_to_target=rounds,
        least_success=_least_success(setting, constants),
        complexity=_complexity(setting, constants),
        splits=tuple(_splits(setting, constants)),
        tolerable_noise=_tolerable_noise(setting, constants),
    )


@dataclass(frozen=True)
class _Bound:
    """gain / K + floor, where no condition is violated."""

    gain: float
    floor: float
    learning_rate_at_most: float
    violated: tuple[str, ...]


def _averaging(setting: Setting, constants: Constants) -> _Bound:
    shape, tau = bound_shape(setting.experiment), np.array(setting.first_local_rounds, dtype=np.float64)
    eta, L = setting.training.learning_rate, constants.smoothness
    gain = shape.a / float(tau.mean())
    drifts = tau * (tau - 1)
    limits = [1 / (2 * L * float(tau.mean()))]
    if drifts.any():
        limits += [1 / (2 * L * sqrt(drifts.max())), sqrt(3 / 32 / drifts.mean()) / L]
    return _Bound(
        gain=gain,
        floor=averaging_bound(shape, tau, num_rounds=1) - gain,
        learning_rate_at_most=min(limits),
        violated=tuple(
            f"{violation.condition} = {violation.value:.3g} > {violation.limit:.3g}"
            for violation in violated_conditions(constants, tau, learning_rate=eta)
        ),
    )


def _gossip(setting: Setting, constants: Constants) -> _Bound:
    training, rate = setting.training, setting.rate
    tau, eta = training.num_local_rounds, training.learning_rate
    gain = 2 * constants.initial_gap / (eta * tau)
    at_most = largest_gossip_learning_rate(constants, num_local_rounds=tau, consensus_rate=rate)
    violated = () if eta <= at_most else (f"eta = {eta:.3g} > delta / (4 sqrt(10) L tau) = {at_most:.3g}",)
    whole = gossip_bound(constants, training, consensus_rate=rate)
    return _Bound(gain, whole - gain / training.num_rounds, at_most, violated)


def _least_success(setting: Setting, constants: Constants) -> LeastSuccess:
    """Without a target it is what the condition on the learning rate asks for."""
    training, target = setting.training, setting.experiment.theory.target
    weights, sweeps = setting.network.weights, setting.experiment.aggregation.sweeps
    steepness = training.learning_rate * constants.smoothness * training.num_local_rounds
    needed: float | None = GOSSIP_STEP_LIMIT * steepness
    probability, learning_rate = None, None
    if target is not None:
        needed = required_consensus_rate(constants, training, target=target)
        found = minimum_success(constants, training, weights, target=target, num_sweeps=sweeps)
        probability, learning_rate = found.probability, found.learning_rate
    elif needed is not None:
        probability = minimum_success_probability(weights, needed, num_sweeps=sweeps)
    below: list[tuple[int, int]] = []
    if probability is not None:
        below = [edge for edge in setting.network.graph.edges if setting.epochs.success[edge] < probability]
    return LeastSuccess(
        consensus_rate_needed=needed,
        probability=probability,
        is_met=needed is not None and setting.rate >= needed,
        links_below=tuple(below),
        num_sweeps=None if needed is None else minimum_sweeps(setting.epochs.contraction(), needed),
        learning_rate=learning_rate,
    )


def _complexity(setting: Setting, constants: Constants) -> Complexity | None:
    target, training, rate = setting.experiment.theory.target, setting.training, setting.rate
    if target is None or rate <= 0 or setting.experiment.radio.scheme == "analog":
        return None
    found = communication_complexity(
        constants,
        num_devices=training.num_devices,
        num_local_rounds=training.num_local_rounds,
        consensus_rate=rate,
        target=target,
    )
    sweeps, graph = setting.experiment.aggregation.sweeps, setting.network.graph
    if setting.epochs.cast == "unicast":
        bits = unicast_bits(
            found.num_rounds,
            num_sweeps=sweeps,
            num_edges=graph.number_of_edges(),
            payload_bits=setting.payload_bits,
        )
    else:
        bits = broadcast_bits(
            found.num_rounds,
            num_sweeps=sweeps,
            num_devices=len(graph),
            payload_bits=setting.payload_bits,
        )
    return Complexity(learning_rate=found.learning_rate, rounds=found.num_rounds, bits=bits)


def _splits(setting: Setting, constants: Constants) -> list[BestSplit]:
    devices, sweep = fleet(setting.experiment), setting.one_sweep
    budget_j = sum(own.budget_j for own in devices)
    budget_s = min(own.budget_air_s for own in devices)
    idle_w = sum(own.idle_power_w for own in devices)
    local_s = max(own.local_round_air_s for own in devices)
    found = []
    for resource, prices in (
        (
            "joules",
            Prices(
                budget=budget_j if isfinite(budget_j) else setting.run.joules,
                local_round=sum(own.local_round_j for own in devices) + idle_w * local_s,
                sweep=sweep.total_j + idle_w * sweep.air_s,
            ),
        ),
        (
            "seconds",
            Prices(
                budget=budget_s if isfinite(budget_s) else setting.run.air_s,
                local_round=local_s,
                sweep=sweep.air_s,
            ),
        ),
    ):
        if not 0 < prices.sweep < inf:
            continue
        split = best_split(
            constants,
            prices,
            learning_rate=setting.training.learning_rate,
            contraction=setting.epochs.contraction(),
            max_sweeps=max(MOST_SWEEPS, setting.experiment.aggregation.sweeps),
        )
        if split is not None:
            found.append(
                BestSplit(
                    resource=resource,
                    budget=prices.budget,
                    local_rounds=split.num_local_rounds,
                    sweeps=split.num_sweeps,
                    rounds=split.num_rounds,
                )
            )
    return found


def _tolerable_noise(setting: Setting, constants: Constants) -> TolerableNoise | None:
    experiment, training = setting.experiment, setting.training
    target, rate = experiment.theory.target, setting.rate
    if experiment.radio.scheme != "analog" or target is None or rate <= 0:
        return None
    if training.learning_rate > largest_gossip_learning_rate(
        constants, num_local_rounds=training.num_local_rounds, consensus_rate=rate
    ):
        return None
    total = tolerable_noise(constants, training, consensus_rate=rate, target=target)
    per_norm_sq = noise_per_norm_sq(experiment, setting.network)
    return TolerableNoise(
        noise_power_sum=total,
        noise_per_norm_sq=per_norm_sq,
        norm_sq_at_most=total / training.num_rounds / per_norm_sq,
    )


def noise_per_norm_sq(experiment: Experiment, network: Network) -> float:
    """Return nu^2 / ||s||^2 of one round: over all sweeps, mean over receivers, at mean SNRs.

    max_j W_ij^2 / SNR_ij, as if all sent vectors were of one size. Equation (23) of docs/theory.md.
    """
    needs: Floats = np.zeros((len(network.graph),) * 2)
    for a, b, link in network.graph.edges(data=True):
        for receiver, sender in ((a, b), (b, a)):
            snr = 10 ** (link["mean_snr_db"][receiver] / 10)
            needs[receiver, sender] = network.weights[receiver, sender] ** 2 / snr
    together = experiment.radio.analog.superposition == "over_the_air"
    each = needs.max(axis=1) if together else needs.sum(axis=1)
    return experiment.aggregation.sweeps * float(each.mean())
