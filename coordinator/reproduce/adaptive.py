"""P1: local rounds that each device chooses within its budgets, against fixed numbers, at equal joules."""

from collections.abc import Mapping, Sequence
from functools import partial
from math import fsum
from pathlib import Path

from coordinator.drawing import dress
from coordinator.reproduce.comparison import Arm, Comparison, Measured, Run, Shown, Table, accuracy
from coordinator.reproduce.curves import bars, panels
from coordinator.reproduce.verdicts import Case, Verdict, interval, judge, judge_count
from coordinator.sweep.intervals import estimate
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
    arms = [Arm(ADAPTIVE, (*overrides, "training.local_rounds=adaptive"))]
    arms += [
        Arm(_fixed(tau), (*overrides, f"training.local_rounds={tau}", UNLIMITED)) for tau in local_rounds
    ]
    return Comparison(
        name=f"adaptive-{base.name.removeprefix('p1-')}",
        title=f"Adaptive local rounds against fixed ones, at equal joules ({base.name})",
        text=f"{base.devices} unlike devices, each with a budget of joules of its own, average by "
        f"{base.aggregation.scheme}. With a fixed number of local rounds a device goes on until its budget "
        "pays for no further exchange, and leaves. With `adaptive` there are "
        f"{base.rounds} rounds, and every device spreads what it has left over those to come. All arms have "
        "the same budgets, so none has more joules than another.",
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
        arm: found.mean for arm in arms[1:] if (found := estimate(measured.values(arm, accuracy))) is not None
    }
    verdicts = [_no_violation(measured)]
    if means:
        best = max(means, key=lambda arm: means[arm])
        verdicts = [
            judge(
                f"Adaptive local rounds are at least as accurate as the best fixed number ({best})",
                [Case("accuracy gained", measured.differences(ADAPTIVE, best, accuracy), low=0.0)],
            ),
            judge(
                "Adaptive local rounds are at least as accurate as each fixed number",
                [
                    Case(f"against {arm}", measured.differences(ADAPTIVE, arm, accuracy), low=0.0)
                    for arm in means
                ],
            ),
            judge(
                f"They leave nobody behind: the worst device is at least as accurate as with {best}",
                [Case("accuracy gained", measured.differences(ADAPTIVE, best, _worst), low=0.0)],
            ),
            *verdicts,
        ]
    return _shown(
        arms,
        measured,
        verdicts,
        "The best fixed number is picked after the fact, which favours it: nobody knows it beforehand.",
    )


def _show_schemes(schemes: Sequence[str], measured: Measured) -> Shown:
    cheapest, dearest = schemes[0], schemes[-1]
    return _shown(
        schemes,
        measured,
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


def _shown(arms: Sequence[str], measured: Measured, verdicts: Sequence[Verdict], caption: str) -> Shown:
    figure, [left, right] = panels(2)
    dress(
        left,
        "test accuracy at equal joules",
        "share classified correctly",
        "",
        aside="mean and 95 % interval",
    )
    bars(left, arms, [estimate(measured.values(arm, accuracy)) for arm in arms])
    dress(right, "local rounds per device and round", "local rounds", "", aside="mean and 95 % interval")
    bars(right, arms, [estimate(measured.values(arm, _local_rounds)) for arm in arms])
    return Shown(
        figure=figure,
        caption=caption,
        table=Table(
            head=(
                "arm",
                "accuracy",
                "worst device",
                "local rounds",
                "rounds",
                "left early",
                "budget used",
                "most used",
                "seeds",
            ),
            rows=[
                (
                    arm,
                    interval(estimate(measured.values(arm, accuracy)), ".4g"),
                    interval(estimate(measured.values(arm, _worst))),
                    interval(estimate(measured.values(arm, _local_rounds))),
                    interval(estimate(measured.values(arm, _rounds))),
                    interval(
                        estimate(measured.values(arm, lambda run: float(len(run.summary.devices_left))))
                    ),
                    interval(estimate(measured.values(arm, _budget_used))),
                    f"{max(measured.values(arm, _most_used), default=0.0):.4f}",
                    f"{len(measured.of(arm))}",
                )
                for arm in arms
            ],
        ),
        verdicts=tuple(verdicts),
        notes=(
            "Rounds: those of the device that stayed longest. Budget used: share of all budgets together; "
            "most used: of its own, by any device in any run.",
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
