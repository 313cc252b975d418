"""P2: the mean squared gradient norm of a run against bounds B2 (digital) and B3 (analog).

Every round is a pilot round: each device tells a sketch of the gradient at its own model, and the sketch of
the mean gradient has the norm that the bounds are about, but for the distance between the models.
"""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np
from safetensors.numpy import load_file

from coordinator.drawing import PALE, RED, dress
from coordinator.network import lay_out
from coordinator.planning.bounds import noise_per_norm_sq
from coordinator.planning.pilots import pilot_round
from coordinator.reproduce.comparison import Arm, Comparison, Measured, Quantity, Run, Shown, Table
from coordinator.reproduce.curves import Curve, draw_curves, legend, log_scale, panels, ticks_at
from coordinator.reproduce.links import snr_db_for
from coordinator.reproduce.success import P_AXIS, training_of
from coordinator.reproduce.verdicts import Case, interval, judge
from coordinator.sweep.intervals import Estimate, estimate
from protocol.config import Experiment
from protocol.experiment_file import load
from protocol.messages import Pilot
from protocol.theory.bounds import analog_bound, gossip_bound
from protocol.theory.constants import Constants
from protocol.theory.contraction import consensus_rate, contraction
from protocol.theory.pilots import Pilots

_GRADIENT = r"mean of $\|\nabla F\|^2$ over all rounds"


def gradients_against_bounds(
    file: Path, *, successes: Sequence[float], snrs_db: Sequence[float], seeds: Sequence[int]
) -> Comparison:
    """Compare measured gradients with B2 over p and with B3 over the SNR; all p at which B2 holds."""
    base = load(file)
    constants = base.theory.constants
    assert constants is not None, "the bounds want a task whose constants are known"
    pilots = f"training.pilot_rounds={base.rounds}"
    digital = [Arm(_digital(p), (pilots, f"radio.snr_db={snr_db_for(base, p):.4f}")) for p in successes]
    analog = [
        Arm(
            _analog(snr_db),
            (pilots, "radio.scheme=analog", "radio.analog.payload=models", f"radio.snr_db={snr_db:g}"),
        )
        for snr_db in snrs_db
    ]
    return Comparison(
        name="bounds",
        title="Measured gradients against bounds B2 and B3",
        text=f"The same softmax regression, {base.devices} devices in a complete graph, {base.rounds} rounds "
        f"of one local round at the learning rate {base.training.learning_rate:g}, at which the bounds hold. "
        "They are about the squared norm of the gradient of the mean loss, in the mean over all rounds. It "
        "is measured in every round, by sketches of the devices' gradients, less what minibatches add. B2 is "
        "worked out from constants, rounds and p alone, B3 also from the noise power that the norm of the "
        "models and the SNR make; nothing is fitted.",
        file=file,
        arms=(*digital, *analog),
        seeds=tuple(seeds),
        show=partial(_show, base, constants, tuple(successes), tuple(snrs_db)),
    )


def _show(
    base: Experiment,
    constants: Constants,
    successes: Sequence[float],
    snrs_db: Sequence[float],
    measured: Measured,
) -> Shown:
    b2 = {p: _gossip_bound(base, constants, p) for p in successes}
    b3 = partial(_analog_bound, constants)
    figure, [left, right] = panels(2)
    dress(left, "gradients over digital links", P_AXIS, _GRADIENT)
    dress(
        right,
        "gradients over analog links",
        "SNR of every link [dB]",
        _GRADIENT,
        aside="mean and 95 % interval",
    )
    left.plot(successes, [b2[p] for p in successes], color=RED, label="at most, by B2")
    draw_curves(
        left, [Curve("measured", successes, _estimates(measured, map(_digital, successes), gradient))]
    )
    at_most = _estimates(measured, map(_analog, snrs_db), b3)
    right.plot(snrs_db, [one.mean if one else np.nan for one in at_most], color=RED, label="at most, by B3")
    right.axhline(
        _gossip_bound(base, constants, 1.0),
        color=PALE,
        linewidth=1,
        linestyle=(0, (2, 2)),
        label="B2: no noise",
    )
    draw_curves(right, [Curve("measured", snrs_db, _estimates(measured, map(_analog, snrs_db), gradient))])
    drawn = [*b2.values(), *(value for run in measured.runs for value in (gradient(run), b3(run)) if value)]
    log_scale((left, right), low=min(drawn) / 2, high=2 * max(drawn))
    for axes, x in ((left, successes), (right, snrs_db)):
        ticks_at(axes, x)
        legend(axes, place="upper right")
    return Shown(
        figure=figure,
        caption="Both panels have the same logarithmic axis. The gap is how loose the bounds are: they rank "
        "choices, and forecast nothing.",
        table=Table(
            head=("links", "measured", "at most, by the bound", "bound / measured", "seeds"),
            rows=[
                *(_row(measured, _digital(p), _constant(b2[p])) for p in successes),
                *(_row(measured, _analog(snr_db), b3) for snr_db in snrs_db),
            ],
        ),
        verdicts=(
            judge(
                "Digital: B2 holds at each p",
                [Case(f"p = {p:g}", measured.values(_digital(p), gradient), high=b2[p]) for p in successes],
            ),
            judge(
                "Analog: B3 holds at each SNR",
                [
                    Case(f"{snr_db:g} dB, measured / B3", _shares(measured, _analog(snr_db), b3), high=1.0)
                    for snr_db in snrs_db
                ],
            ),
        ),
        notes=(
            "Each device measures at its own model: while they are apart by d, the root of the mean is off "
            "by at most L d. The norm of the models is that at the end.",
        ),
    )


def gradient(run: Run) -> float | None:
    """Squared norm of the gradient of the mean loss, mean over all rounds."""
    told: dict[int, list[Pilot]] = {}
    for report in run.history.reports:
        if report.pilot is not None:
            told.setdefault(report.round, []).append(report.pilot)
    pilots = Pilots()
    for _, of_round in sorted(told.items()):
        pilots = pilots.add(pilot_round(of_round))
    return pilots.mean_gradient_norm_sq if pilots.num_rounds else None


def _estimates(measured: Measured, arms: Iterable[str], quantity: Quantity) -> list[Estimate | None]:
    return [measured.estimate(arm, quantity) for arm in arms]


def _gossip_bound(base: Experiment, constants: Constants, p: float) -> float:
    rate = consensus_rate(contraction(lay_out(base).weights, p))
    return gossip_bound(constants, training_of(base), consensus_rate=rate)


def _analog_bound(constants: Constants, run: Run) -> float | None:
    """Return B3 with the noise power that models of this size bring at the mean SNR; None without models."""
    norms_sq = [
        sum(float(np.square(tensor, dtype=np.float64).sum()) for tensor in load_file(file).values())
        for file in run.folder.glob("device-*.safetensors")
    ]
    if not norms_sq:
        return None
    network = lay_out(run.experiment)
    return analog_bound(
        constants,
        training_of(run.experiment),
        consensus_rate=consensus_rate(contraction(network.weights, 1.0)),
        noise_power=noise_per_norm_sq(run.experiment, network) * fmean(norms_sq),
    )


def _row(measured: Measured, arm: str, bound: Quantity) -> tuple[str, ...]:
    looseness = [1 / share for share in _shares(measured, arm, bound) if share > 0]
    return (
        arm,
        interval(measured.estimate(arm, gradient)),
        interval(measured.estimate(arm, bound)),
        interval(estimate(looseness)),
        f"{len(measured.of(arm))}",
    )


def _shares(measured: Measured, arm: str, bound: Quantity) -> list[float]:
    """Return the measured gradient over the bound, seed by seed."""
    runs = measured.of(arm).values()
    pairs = [(gradient(run), bound(run)) for run in runs]
    return [found / most for found, most in pairs if found is not None and most is not None]


def _constant(value: float) -> Quantity:
    return lambda _run: value


def _digital(p: float) -> str:
    return f"digital, p = {p:g}"


def _analog(snr_db: float) -> str:
    return f"analog, {snr_db:g} dB"
