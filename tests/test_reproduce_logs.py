"""Comparisons that read the logs and models of runs, made-up ones here: how devices end, gradients."""

from math import sqrt

import numpy as np
import pytest
from builders import make_report, make_spent
from safetensors.numpy import save_file

from coordinator.events import Ended, Left, Started
from coordinator.reproduce.adaptive import adaptive_against_fixed
from coordinator.reproduce.bounds import gradient, gradients_against_bounds
from coordinator.reproduce.comparison import EXPERIMENTS, Measured, Run
from coordinator.store import EVENTS
from coordinator.summary import history, summarise
from protocol.experiment_file import load
from protocol.messages import SKETCH_SIZE, Pilot

DIGITS, SOFTMAX = EXPERIMENTS / "p1-digits.toml", EXPERIMENTS / "p2-digits-softmax.toml"
SEEDS = (1, 2, 3)


def run_of(folder, arm, experiment, reports, left=()):
    """Write the log of a run, and return it; whoever left did so after its last report."""
    rounds = [0] * experiment.devices
    for report in reports:
        rounds[report.device] += 1
    started = Started(
        run_id="r",
        num_parameters=2,
        payload_bytes=8,
        pids=(1,) * experiment.devices,
        num_samples=(1,) * experiment.devices,
        positions_m=((0, 0),) * experiment.devices,
        edges=(),
        startup_wall_s=0.0,
    )
    gone = [Left(device=device, rounds=rounds[device], reason="spent") for device in left]
    ended = Ended(how="finished", rounds=tuple(rounds), wall_s=1.0)
    events = [started, *reports, *gone, ended]
    folder.mkdir(parents=True)
    (folder / EVENTS).write_text("".join(event.model_dump_json() + "\n" for event in events))
    return Run(arm, experiment, summarise(history(events), experiment, [], folder), folder)


def ends(accuracies):
    """Return reports of devices that go through so many rounds, and end with an accuracy."""
    return [
        make_report(device, round_, run_id="r", accuracy=accuracy if round_ == rounds - 1 else None)
        for device, (rounds, accuracy) in enumerate(accuracies)
        for round_ in range(rounds)
    ]


def made_up(tmp_path, comparison, came):
    runs = [
        run_of(tmp_path / f"{arm}-{seed}", arm, experiment, *came(arm, experiment, seed))
        for (arm, seed), experiment in comparison.experiments().items()
    ]
    return Measured(tuple(runs))


# Five devices leave together after two rounds; what the others learn by themselves is worth less or more.
@pytest.mark.parametrize(
    ("adaptive", "alone", "better_end", "expected"),
    [
        (0.85, 0.3, "all until the first has to leave", "does not show"),
        (0.95, 0.3, "all until the first has to leave", "shows"),
        (0.92, 0.96, "each until its own joules are gone", "does not show"),
    ],
)
def test_a_fixed_number_counts_with_its_better_end(tmp_path, adaptive, alone, better_end, expected):
    comparison = adaptive_against_fixed(DIGITS, local_rounds=(5,), seeds=SEEDS)

    def came(arm, experiment, seed):
        if arm == "adaptive":
            return (ends([(8, adaptive + 0.001 * seed)] * 10),)
        return ends([(2, 0.9)] * 5 + [(9, alone)] * 5), range(10)

    best, *_ = comparison.show(made_up(tmp_path, comparison, came)).verdicts
    assert f"(5, {better_end})" in best.claim
    assert best.outcome == expected


def test_a_budget_that_is_exceeded_is_counted(tmp_path):
    comparison = adaptive_against_fixed(DIGITS, local_rounds=(), seeds=(1,))
    budgets = load(DIGITS).budget.joules

    def came(arm, experiment, seed):
        spent = [
            make_spent(compute_j=share * budget)
            for share, budget in zip((1.001, *[0.5] * 9), budgets, strict=True)
        ]
        return ([make_report(d, 0, run_id="r", accuracy=0.5, spent=spent[d]) for d in range(10)],)

    *_, kept = comparison.show(made_up(tmp_path, comparison, came)).verdicts
    assert (kept.outcome, kept.finding) == ("does not show", "1 violated budget in 1 run")


def pilots(experiment, norms_sq):
    """Return reports of devices that all have the same gradient, of these squared norms in the rounds."""
    return [
        make_report(
            device,
            round_,
            run_id="r",
            pilot=Pilot(
                loss=1.0,
                difference_norm_sq=0.0,
                sketch=(sqrt(norm_sq / SKETCH_SIZE),) * SKETCH_SIZE,
                secant=None,
            ),
        )
        for round_, norm_sq in enumerate(norms_sq)
        for device in range(experiment.devices)
    ]


@pytest.mark.parametrize(("factor", "expected"), [(0.5, "shows"), (1.5, "does not show")])
def test_gradients_are_held_against_both_bounds(tmp_path, factor, expected):
    comparison = gradients_against_bounds(SOFTMAX, successes=(1.0,), snrs_db=(10.0,), seeds=SEEDS)
    # By hand from (15) and (24) of docs/theory.md: L = 6.5, sigma^2 = 0.4, zeta^2 = 3, Delta = 2.4,
    # eta = 0.0065, tau = 1, K = 100, N = 5, W = J, so delta = 1.
    b2 = 2 * 2.4 / (0.0065 * 100) + 6.5 * 0.0065 * 0.4 / 5 + (6.5 * 0.0065) ** 2 * (80 * 3 + 40 * 0.4)
    # Models of squared norm 4 with weights 1/5 at an SNR of 10.
    b3 = b2 + (1 / 5) ** 2 * 4 / 10 * (6.5 / (0.0065 * 5) + 20 / 7 * 6.5**2)

    def came(arm, experiment, seed):
        mean = factor * (1 + 0.001 * seed) * (b3 if arm.startswith("analog") else b2)
        return (pilots(experiment, (0.5 * mean, 1.5 * mean)),)

    runs = made_up(tmp_path, comparison, came)
    for run in runs.runs:
        for device in range(5):
            save_file({"w": np.full(4, 1.0, dtype=np.float32)}, run.folder / f"device-{device}.safetensors")
    assert gradient(runs.runs[0]) == pytest.approx(factor * 1.001 * b2)
    shown = comparison.show(runs)
    assert [verdict.outcome for verdict in shown.verdicts] == [expected] * 2
    assert [float(row[2].split(" ± ")[0]) for row in shown.table.rows] == pytest.approx([b2, b3], rel=0.01)
