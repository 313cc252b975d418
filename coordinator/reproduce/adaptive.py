"""P1: local rounds that each device chooses within its budgets, against fixed numbers, at equal joules."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import fsum
from pathlib import Path
from statistics import fmean

from coordinator.drawing import dress
from coordinator.reproduce.comparison import Arm, Comparison, Measured, Quantity, Run, Shown, Table, accuracy
from coordinator.reproduce.curves import bars, dots, panels
from coordinator.reproduce.verdicts import Case, Verdict, interval, judge, judge_count
from protocol.experiment_file import load
from protocol.hardware import fleet

ADAPTIVE = "adaptive"
UNLIMITED = "rounds=100000"
"""Until the budget is gone."""
ROUNDING = 1e-9
"""Of a budget: what sums of joules may differ by."""


def adaptive_against_fixed(
    file: Path, overrides: tuple[str, ...] = (), *, local_rounds: Sequence[int], seeds: Sequence[int]
) -> Comparison:
    """Compare adaptive local rounds with fixed numbers of them, all with the same budgets."""
    base = load(file, overrides)
    data = base.data
    unlike = f" {data.dirichlet_alpha:g}" if data.partition == "dirichlet" else ""
    arms = [Arm(ADAPTIVE, (*overrides, "training.local_rounds=adaptive"))]
    arms += [
        Arm(_fixed(tau), (*overrides, f"training.local_rounds={tau}", UNLIMITED)) for tau in local_rounds
    ]
    return Comparison(
        name=f"adaptive-{base.name.removeprefix('p1-')}",
        title=f"Adaptive local rounds against fixed ones, at equal joules ({base.name})",
        text=f"{base.devices} unlike devices with unlike data ({data.partition}{unlike}), each with a budget "
        f"of joules of its own, average by {base.aggregation.scheme}. With a fixed number of local rounds a "
        "device goes on until its budget pays for no further exchange, and leaves; the others go on without "
        "it. Or all stop when the first has to leave: all have the same model then, which is the better end "
        "where those who are left learn only of each other. A fixed number counts with its better end. With "
        f"`adaptive` there are {base.rounds} rounds, and every device spreads what it has left over those to "
        "come. All arms have the same budgets. It is given no constants of the task, so that the budgets "
        "alone decide: nothing holds it back where local rounds drift towards a device's own few labels.",
        file=file,
        arms=tuple(arms),
        seeds=tuple(seeds),
        show=partial(_show_fixed, tuple(local_rounds)),
    )


def adaptive_over_schemes(
    file: Path, schemes: Mapping[str, tuple[str, ...]], *, seeds: Sequence[int]
) -> Comparison:
    """Compare ways to aggregate under the same budgets: what one saves on exchanges buys local rounds."""
    base = load(file)
    return Comparison(
        name=f"schemes-{base.name.removeprefix('p1-')}",
        title=f"Adaptive local rounds by way of aggregation, at equal joules ({base.name})",
        text=f"{base.devices} unlike devices with the same budgets in every arm choose their local rounds in "
        f"each of {base.rounds} rounds. The less an exchange costs, the more is left for local rounds.",
        file=file,
        arms=tuple(
            Arm(name, ("training.local_rounds=adaptive", *changes)) for name, changes in schemes.items()
        ),
        seeds=tuple(seeds),
        show=partial(_show_schemes, tuple(schemes)),
    )


def _show_fixed(local_rounds: Sequence[int], measured: Measured) -> Shown:
    arms = [ADAPTIVE, *map(_fixed, local_rounds)]
    means = {
        (arm, end): found.mean
        for arm in arms[1:]
        for end, quantity in ENDS.items()
        if (found := measured.estimate(arm, quantity)) is not None
    }
    verdicts = [_no_violation(measured)]
    if means:
        best, end = max(means, key=lambda one: means[one])
        gained = measured.differences(ADAPTIVE, best, _unless_adaptive(ENDS[end]))
        verdicts = [
            judge(
                "Adaptive local rounds are at least as accurate as the best fixed number "
                f"({best.removeprefix('fixed ')}, {end})",
                [Case("accuracy gained", gained, low=0.0)],
            ),
            judge(
                f"They leave nobody behind: the worst device is at least as accurate as the worst with "
                f"{best}, each until its own joules are gone",
                [Case("accuracy gained", measured.differences(ADAPTIVE, best, _worst), low=0.0)],
            ),
            *verdicts,
        ]
    return _shown(
        arms,
        measured,
        ENDS,
        verdicts,
        "The best fixed number and its better end are picked after the fact, by test accuracy, which favours "
        "them: nobody knows them beforehand.",
    )


def _unless_adaptive(quantity: Quantity) -> Quantity:
    """Take a quantity of fixed arms, and accuracy at the end of the adaptive one."""
    return lambda run: accuracy(run) if run.arm == ADAPTIVE else quantity(run)


def _show_schemes(schemes: Sequence[str], measured: Measured) -> Shown:
    cheapest, dearest = schemes[0], schemes[-1]
    return _shown(
        schemes,
        measured,
        {"accuracy": accuracy},
        [
            judge(
                f"With {cheapest} devices afford more local rounds than with {dearest}",
                [Case("ratio", measured.ratios(cheapest, dearest, _local_rounds), low=1.0)],
            ),
            judge(
                f"With {cheapest} they learn at least as well as with {dearest}",
                [Case("accuracy gained", measured.differences(cheapest, dearest, accuracy), low=0.0)],
            ),
            _no_violation(measured),
        ],
        "Local rounds per device and round, over all rounds that a device took part in.",
    )


def _shown(
    arms: Sequence[str],
    measured: Measured,
    ends: Mapping[str, Quantity],
    verdicts: Sequence[Verdict],
    caption: str,
) -> Shown:
    figure, [left, right] = panels(2)
    dress(left, "test accuracy with equal budgets", "share classified correctly, mean over devices", "")
    dress(
        right,
        "local rounds that budgets paid for",
        "local rounds per device and round",
        "",
        aside="mean and 95 % interval",
    )
    dots(
        left,
        arms,
        {end: [measured.estimate(arm, quantity) for arm in arms] for end, quantity in ends.items()},
    )
    bars(right, arms, [measured.estimate(arm, _local_rounds) for arm in arms])
    columns: dict[str, Quantity] = {
        **ends,
        "worst device": _worst,
        "local rounds": _local_rounds,
        "rounds": _rounds,
        "left early": lambda run: float(len(run.summary.devices_left)),
        "budget used": _budget_used,
    }
    return Shown(
        figure=figure,
        caption=caption,
        table=Table(
            head=("arm", *columns, "most used", "seeds"),
            rows=[
                (
                    arm,
                    *(interval(measured.estimate(arm, quantity)) for quantity in columns.values()),
                    f"{max(measured.values(arm, _most_used), default=0.0):.4f}",
                    f"{len(measured.of(arm))}",
                )
                for arm in arms
            ],
        ),
        verdicts=tuple(verdicts),
        notes=(
            "Accuracies are of the models that devices end with. Rounds: those of the device that stayed "
            "longest. Budget used: share of all budgets together; most used: of its own, by any device in "
            "any run.",
        ),
    )


def _no_violation(measured: Measured) -> Verdict:
    return judge_count(
        "No device spends more than its budget",
        [_violations(run) for run in measured.runs],
        noun="violated budget",
    )


def _violations(run: Run) -> int:
    """Count the devices whose ledgers exceed their budgets, in joules or in seconds."""
    devices = fleet(run.experiment)
    spent = run.summary.joules_per_device
    too_much = sum(joules > own.budget_j * (1 + ROUNDING) for joules, own in zip(spent, devices, strict=True))
    ends_air_s = {report.device: report.spent.air_s for report in run.history.reports}
    return too_much + sum(
        air_s > devices[device].budget_air_s * (1 + ROUNDING) for device, air_s in ends_air_s.items()
    )


def _budget_used(run: Run) -> float:
    return fsum(run.summary.joules_per_device) / fsum(own.budget_j for own in fleet(run.experiment))


def _most_used(run: Run) -> float:
    devices = fleet(run.experiment)
    return max(
        joules / own.budget_j for joules, own in zip(run.summary.joules_per_device, devices, strict=True)
    )


def _when_the_first_leaves(run: Run) -> float | None:
    """Test accuracy after the last round that all devices took part in, of those that measured it then.

    Whoever leaves does. After an exact average they all have the same model.
    """
    last = min(run.history.ended.rounds) - 1
    found = run.history.series("accuracy", run.history.survivors).get(last)
    return fmean(found) if found else None


def _worst(run: Run) -> float | None:
    return run.summary.accuracy_min


def _rounds(run: Run) -> float:
    return float(max(run.history.ended.rounds))


def _local_rounds(run: Run) -> float | None:
    """Local rounds per device and round, from the joules of computing."""
    devices, reports = fleet(run.experiment), run.history.reports
    done = fsum(r.spent.compute_j / devices[r.device].local_round_j for r in reports)
    return done / len(reports) if reports else None


def _fixed(tau: int) -> str:
    return f"fixed {tau}"


ENDS: Mapping[str, Quantity] = {
    "each until its own joules are gone": accuracy,
    "all until the first has to leave": _when_the_first_leaves,
}
"""When devices stop, and the accuracy that they have by then."""
