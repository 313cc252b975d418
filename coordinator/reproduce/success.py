"""P2: learning and agreeing over links on which packets arrive with a probability p.

p is that of arriving in both directions, since a packet counts on a link only then. Every arm sets the SNR
of all links to the value at which p is what it should be.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from math import sqrt
from pathlib import Path

from coordinator.drawing import RED, Floats, dress
from coordinator.network import lay_out
from coordinator.reproduce.comparison import (
    Arm,
    Comparison,
    Measured,
    Shown,
    Table,
    accuracy,
    consensus_distance,
    packet_success,
)
from coordinator.reproduce.curves import (
    Curve,
    columns,
    draw_curves,
    legend,
    log_scale,
    mark,
    panels,
    ticks_at,
)
from coordinator.reproduce.links import snr_db_for
from coordinator.reproduce.verdicts import Case, interval, judge
from protocol.config import Experiment
from protocol.experiment_file import load
from protocol.theory.bounds import GOSSIP_STEP_LIMIT, drift_power
from protocol.theory.communication import communication_complexity
from protocol.theory.constants import Constants, Training
from protocol.theory.contraction import consensus_rate, contraction
from protocol.theory.minimum import minimum_success, minimum_success_probability

SUCCESSES = (1.0, 0.9, 0.7, 0.5, 0.3, 0.1)
P_AXIS = "p, probability that a packet arrives in both directions"
TOLERANCE = 0.02
"""Of accuracy: what counts as learning as well as without losses."""


def accuracy_over_success(file: Path, *, successes: Sequence[float], seeds: Sequence[int]) -> Comparison:
    """Compare learning over p where the bound holds: with p_min, and with what the bound allows."""
    base = load(file)
    constants = base.theory.constants
    assert constants is not None, "p_min wants a task whose constants are known"
    return Comparison(
        name="success",
        title="Accuracy and consensus against p, where the bound says something",
        text=f"Softmax regression on digits, {base.devices} devices in a complete graph, one local round, "
        f"{base.rounds} rounds at the learning rate {base.training.learning_rate:g}. The smoothness L of "
        "this task is known, so the condition of bound B2 (eta <= delta(p) / (4 sqrt(10) L tau)) can be "
        "met, and p_min is the least p at which it is. Below it the bound promises nothing; it says "
        "nothing of harm either.",
        file=file,
        arms=tuple(Arm(arm_name("", p), (f"radio.snr_db={snr_db_for(base, p):.4f}",)) for p in successes),
        seeds=tuple(seeds),
        show=partial(_show_success, base, constants, tuple(successes)),
    )


def _show_success(
    base: Experiment, constants: Constants, successes: Sequence[float], measured: Measured
) -> Shown:
    weights = lay_out(base).weights
    training = training_of(base)
    condition = GOSSIP_STEP_LIMIT * training.learning_rate * constants.smoothness * training.num_local_rounds
    p_min = minimum_success_probability(weights, condition)
    allowed = {p: _allowed_distance(constants, training, contraction(weights, p)) for p in successes}
    figure, [left, right] = panels(2)
    dress(left, "test accuracy", P_AXIS, "share classified correctly", aside="mean and 95 % interval")
    dress(right, "consensus distance", P_AXIS, "L2 distance to the mean parameters")
    at = {p: measured.estimate(arm_name("", p), accuracy) for p in successes}
    apart = {p: measured.estimate(arm_name("", p), consensus_distance) for p in successes}
    draw_curves(left, [Curve("measured", successes, [at[p] for p in successes])])
    draw_curves(right, [Curve("measured", successes, [apart[p] for p in successes])])
    promised = [p for p in successes if p_min is not None and p >= p_min]
    right.plot(promised, [allowed[p] for p in promised], color=RED, label="at most, by the bound")
    # Where no packet is lost a complete graph agrees exactly: rounding must not stretch the axis by decades.
    drawn, _ = columns([apart[p] for p in successes if p < 1])
    if (drawn > 0).any():
        log_scale((right,), low=drawn[drawn > 0].min() / 5, high=5 * max(drawn.max(), *allowed.values()))
    left.set_ylim(0, 1)
    for axes in (left, right):
        ticks_at(axes, successes)
        if p_min is not None:
            mark(axes, p_min, f"p_min = {p_min:.2f}", colour=RED)
    legend(right, place="upper right")
    return Shown(
        figure=figure,
        caption="At p = 1 devices agree but for rounding, below the axis on the right. p_min by the bound's "
        "condition on the learning rate; the range of accuracy is all of 0 to 1, since training has only "
        f"begun after {base.rounds} rounds at so small a rate.",
        table=Table(
            head=("p", "p measured", "accuracy", "consensus distance", "at most, by the bound", "delta(p)"),
            rows=[
                (
                    f"{p:g}",
                    interval(measured.estimate(arm_name("", p), packet_success)),
                    interval(at[p]),
                    interval(apart[p]),
                    f"{allowed[p]:.3g}" if p in promised else "no bound: below p_min",
                    f"{consensus_rate(contraction(weights, p)):.3g}",
                )
                for p in successes
            ],
        ),
        verdicts=(
            judge(
                "From p_min on, consensus is at least as near as the bound allows",
                [
                    Case(f"p = {p:g}", measured.values(arm_name("", p), consensus_distance), high=allowed[p])
                    for p in promised
                ],
            ),
            judge(
                f"From p_min on, accuracy is within {TOLERANCE:g} of that without losses",
                losses_of_accuracy(measured, "", [p for p in promised if p < 1]),
            ),
            judge(
                "The fewer packets arrive, the further apart the devices are: at p = "
                f"{min(successes):g} at least twice as far as at {most_with_losses(successes):g}",
                [
                    Case(
                        "",
                        measured.ratios(
                            arm_name("", min(successes)),
                            arm_name("", most_with_losses(successes)),
                            consensus_distance,
                        ),
                        low=2.0,
                    )
                ],
            ),
        ),
        notes=(_target_note(base, constants, training, weights),),
    )


def training_of(base: Experiment) -> Training:
    """Return how all devices train, as the bounds see it; without momentum."""
    return Training(
        learning_rate=base.training.learning_rate,
        num_devices=base.devices,
        num_local_rounds=base.training.nominal_local_rounds,
        num_rounds=base.rounds,
    )


def losses_of_accuracy(measured: Measured, line: str, successes: Sequence[float]) -> list[Case]:
    """Return what accuracy loses at each p, seed by seed."""
    return [
        Case(
            f"p = {p:g}",
            measured.differences(arm_name(line, 1.0), arm_name(line, p), accuracy),
            high=TOLERANCE,
        )
        for p in successes
    ]


def _allowed_distance(constants: Constants, training: Training, rho: float) -> float:
    """Return what the proof of B2 allows the distance from consensus to be within a round, root mean square.

    sqrt(eta^2 (80 tau^2 zeta^2 + 40 tau sigma^2)) / delta
    """
    drift = drift_power(constants, training.num_local_rounds)
    return training.learning_rate * sqrt(drift) / consensus_rate(rho)


def _target_note(base: Experiment, constants: Constants, training: Training, weights: Floats) -> str:
    """Say what a target for the gradient would take, beside the condition on the learning rate."""
    target = base.theory.target
    assert target is not None
    eta, k_eps = communication_complexity(
        constants,
        num_devices=training.num_devices,
        num_local_rounds=training.num_local_rounds,
        consensus_rate=consensus_rate(contraction(weights, 1.0)),
        target=target,
    )
    wanted = minimum_success(
        constants,
        replace(training, learning_rate=eta, num_rounds=k_eps),
        weights,
        target=target,
    ).probability
    return (
        f"A target is another matter. To bring the mean squared gradient norm down to {target:g} (it is "
        f"below 0.5 at the start) the bound would have {k_eps:,} rounds at the learning rate {eta:.2g} even "
        f"if nothing were lost"
        + ("" if wanted is None else f", and with those p_min = {wanted:.2f}")
        + ". It is loose: it "
        "ranks choices, and forecasts nothing."
    )


def most_with_losses(successes: Sequence[float]) -> float:
    """Return the largest p at which packets are lost at all."""
    return max(p for p in successes if p < 1)


def arm_name(line: str, p: float) -> str:
    """Name the arm of a line at p."""
    return f"{line}, p = {p:g}" if line else f"p = {p:g}"
