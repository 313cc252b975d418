"""P2: local rounds against what an exchange costs: more of them and fewer exchanges, at equal joules."""

from collections.abc import Sequence
from functools import partial
from math import fsum
from pathlib import Path

from coordinator.drawing import RED, dress
from coordinator.network import lay_out
from coordinator.reproduce.comparison import Arm, Comparison, Measured, Run, Shown, Table, accuracy
from coordinator.reproduce.curves import Curve, draw_curves, legend, mark, panels, ticks_at
from coordinator.reproduce.verdicts import Case, Verdict, interval, judge
from protocol.config import Experiment
from protocol.experiment_file import load
from protocol.hardware import fleet
from protocol.theory.contraction import contraction
from protocol.theory.split import Prices, Split, best_split


def local_rounds_at_equal_joules(
    file: Path, *, local_rounds: Sequence[int], practical_rate: float, seeds: Sequence[int]
) -> Comparison:
    """Compare fixed numbers of local rounds, each until the budget is gone, at two learning rates."""
    base = load(file)
    rates = {"bound": base.training.learning_rate, "practice": practical_rate}
    return Comparison(
        name=f"split-{base.name.removeprefix('p2-')}",
        title="Local rounds against the cost of exchanges, at equal joules",
        text=f"Every device has the same {base.budget.joules:g} J and goes on until they are gone: with more "
        "local rounds between two exchanges there are fewer exchanges. tau* is what bound B2 says is best "
        "for this budget at the learning rate at which the bound holds, with the measured price of an "
        "exchange.",
        file=file,
        arms=tuple(
            Arm(_name(line, tau), (f"training.learning_rate={rate:g}", f"training.local_rounds={tau}"))
            for line, rate in rates.items()
            for tau in local_rounds
        ),
        seeds=tuple(seeds),
        show=partial(_show, base, rates, tuple(local_rounds)),
    )


def _show(
    base: Experiment, rates: dict[str, float], local_rounds: Sequence[int], measured: Measured
) -> Shown:
    figure, [left, right] = panels(2)
    dress(
        left,
        "test accuracy at equal joules",
        "tau, local rounds between two exchanges",
        "share classified correctly",
        aside="mean and 95 % interval",
    )
    dress(right, "where the joules went", "tau, local rounds between two exchanges", "share of all joules")
    labels = {line: f"eta = {rate:g}" for line, rate in rates.items()}
    at = {
        (line, tau): measured.estimate(_name(line, tau), accuracy) for line in rates for tau in local_rounds
    }
    draw_curves(
        left, [Curve(labels[line], local_rounds, [at[line, tau] for tau in local_rounds]) for line in rates]
    )
    computing = [measured.estimate(_name("bound", tau), _computing_share) for tau in local_rounds]
    draw_curves(right, [Curve("computing", local_rounds, computing)])
    for axes in (left, right):
        ticks_at(axes, local_rounds, log=True)
        axes.set_ylim(0, 1)
        legend(axes, place="lower right")
    split = _best(base, measured, local_rounds)
    if split is not None:
        mark(
            left, split.num_local_rounds, f"tau* = {split.num_local_rounds} at {labels['bound']}", colour=RED
        )
    return Shown(
        figure=figure,
        caption="Right: the share of joules that went into computing; the rest is sending, receiving and "
        "waiting.",
        table=_table(rates, labels, local_rounds, measured),
        verdicts=tuple(_verdicts(split, rates, local_rounds, measured)),
        notes=(_note(base, rates, split),),
    )


def _table(
    rates: dict[str, float], labels: dict[str, str], local_rounds: Sequence[int], measured: Measured
) -> Table:
    quantities = (accuracy, _rounds, _joules)
    return Table(
        head=("learning rate", "tau", "accuracy", "rounds", "energy [J]", "seeds"),
        rows=[
            (
                labels[line],
                f"{tau}",
                *(interval(measured.estimate(_name(line, tau), one), ".4g") for one in quantities),
                f"{len(measured.of(_name(line, tau)))}",
            )
            for line in rates
            for tau in local_rounds
        ],
    )


def _verdicts(
    split: Split | None, rates: dict[str, float], local_rounds: Sequence[int], measured: Measured
) -> list[Verdict]:
    """Judge tau* where the bound holds, and too many local rounds where one would train."""
    claims = []
    if split is not None:
        near = min(local_rounds, key=lambda tau: abs(tau - split.num_local_rounds))
        others = [tau for tau in local_rounds if tau != near]
        at = {
            tau: measured.differences(_name("bound", near), _name("bound", tau), accuracy) for tau in others
        }
        claims += [
            judge(
                f"tau* (here {near}) learns more of the same joules than one local round",
                [Case("accuracy gained", at.get(1, []), low=0.0)],
            ),
            judge(
                f"tau* (here {near}) is the best of all that were tried",
                [Case(f"against tau = {tau}", gains, low=0.0) for tau, gains in at.items()],
            ),
        ]
    most = max(local_rounds)
    fewer = {
        tau: found.mean
        for tau in local_rounds
        if tau < most and (found := measured.estimate(_name("practice", tau), accuracy))
    }
    if fewer:
        best = max(fewer, key=lambda tau: fewer[tau])
        lost = measured.differences(_name("practice", best), _name("practice", most), accuracy)
        claims.append(
            judge(
                f"At eta = {rates['practice']:g} local rounds can be too many: {most} learn less of the same "
                f"joules than {best}, the best of fewer",
                [Case("accuracy lost", lost, low=0.0)],
            )
        )
    return claims


def _best(base: Experiment, measured: Measured, local_rounds: Sequence[int]) -> Split | None:
    """Return tau* for the measured price of an exchange."""
    constants = base.theory.constants
    prices = [
        price
        for run in measured.of(_name("bound", min(local_rounds))).values()
        for price in [_exchange_j(run)]
    ]
    if constants is None or not prices:
        return None
    own = fleet(base)[0]
    return best_split(
        constants,
        Prices(
            budget=own.budget_j,
            local_round=own.local_round_j + own.idle_power_w * own.local_round_air_s,
            sweep=fsum(prices) / len(prices),
        ),
        learning_rate=base.training.learning_rate,
        contraction=contraction(lay_out(base).weights, 1.0),
        max_sweeps=1,
    )


def _note(base: Experiment, rates: dict[str, float], split: Split | None) -> str:
    if split is None:
        return "The bound gives no tau* here."
    return (
        f"tau* = {split.num_local_rounds} with {split.num_rounds} rounds at eta = {rates['bound']:g}. The "
        "bound holds for eta <= delta / (4 sqrt(10) L tau) only, which is what keeps tau* from being "
        f"larger; at eta = {rates['practice']:g} it holds for no tau, so that it gives no tau* there."
    )


def _exchange_j(run: Run) -> float:
    """Joules of an exchange, per device: all but computing, and idling meanwhile."""
    own = fleet(run.experiment)[0]
    reports = run.history.reports
    computing = fsum(r.spent.compute_j + own.idle_power_w * r.spent.compute_air_s for r in reports)
    return ((run.summary.joules or 0.0) - computing) / len(reports)


def _computing_share(run: Run) -> float | None:
    joules, computing = run.summary.joules, run.summary.joules_compute
    return None if not joules or computing is None else computing / joules


def _rounds(run: Run) -> float:
    return float(run.summary.rounds)


def _joules(run: Run) -> float | None:
    return run.summary.joules


def _name(line: str, tau: int) -> str:
    return f"{line}, tau = {tau}"
