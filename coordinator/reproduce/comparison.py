"""What a page is made of: comparisons of runs under different conditions, and what they show."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import isfinite
from pathlib import Path
from typing import TypeAlias

from matplotlib.figure import Figure

from coordinator.reproduce.verdicts import Verdict
from coordinator.store import read_events
from coordinator.summary import History, Summary, history
from coordinator.sweep.intervals import Estimate, estimate
from protocol.config import Experiment
from protocol.experiment_file import load

EXPERIMENTS = Path(__file__).parents[2] / "experiments" / "papers"


@dataclass(frozen=True)
class Arm:
    """One condition: what it changes in the experiment of its comparison."""

    name: str
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One finished run of an arm."""

    arm: str
    experiment: Experiment
    summary: Summary
    folder: Path

    @property
    def seed(self) -> int:
        """Seed of everything random."""
        return self.experiment.seed

    @cached_property
    def history(self) -> History:
        """Its events, read once they are asked for."""
        return history(read_events(self.folder))


Quantity: TypeAlias = Callable[[Run], float | None]
"""A number of a run; None where it has none."""


@dataclass(frozen=True)
class Measured:
    """The finished runs of a comparison; those that failed or were not reached are not in it."""

    runs: tuple[Run, ...]

    def of(self, arm: str) -> dict[int, Run]:
        """Return an arm's runs by seed."""
        return {run.seed: run for run in self.runs if run.arm == arm}

    def values(self, arm: str, quantity: Quantity) -> list[float]:
        """Return a number of each run of an arm that has it."""
        return [value for run in self.of(arm).values() if (value := quantity(run)) is not None]

    def estimate(self, arm: str, quantity: Quantity) -> Estimate | None:
        """Return the mean of a number over an arm's runs, with its interval; None if none has it."""
        return estimate(self.values(arm, quantity))

    def paired(
        self, arm: str, other: str, quantity: Quantity, combine: Callable[[float, float], float]
    ) -> list[float]:
        """Combine the numbers of two arms, seed by seed: what both have in common cancels."""
        mine, others, found = self.of(arm), self.of(other), []
        for seed in sorted(mine.keys() & others.keys()):
            a, b = quantity(mine[seed]), quantity(others[seed])
            if a is not None and b is not None and isfinite(a) and isfinite(b):
                found.append(combine(a, b))
        return found

    def differences(self, arm: str, other: str, quantity: Quantity) -> list[float]:
        """Return the first arm's number less the other's, seed by seed."""
        return self.paired(arm, other, quantity, lambda a, b: a - b)

    def ratios(self, arm: str, other: str, quantity: Quantity) -> list[float]:
        """Return the first arm's number over the other's, seed by seed."""
        return self.paired(arm, other, quantity, lambda a, b: a / b)


@dataclass(frozen=True)
class Table:
    """Numbers as they stand on the page; the first column is text."""

    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


@dataclass(frozen=True)
class Shown:
    """What a comparison comes to."""

    figure: Figure
    caption: str
    table: Table
    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Runs of one experiment file under several conditions, each over the same seeds."""

    name: str
    """Of its folder and its figure."""
    title: str
    text: str
    """What is compared, and how; one paragraph."""
    file: Path
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    show: Callable[[Measured], Shown]

    def experiments(self) -> Mapping[tuple[str, int], Experiment]:
        """Return the experiment of each arm and seed; raises BadInput for one that cannot be."""
        return {
            (arm.name, seed): load(self.file, (*arm.overrides, f"seed={seed}"))
            for arm in self.arms
            for seed in self.seeds
        }


def accuracy(run: Run) -> float | None:
    """Test accuracy, mean over devices, at the last evaluation."""
    return run.summary.accuracy_mean


def consensus_distance(run: Run) -> float | None:
    """Exact distance of the final parameters from their mean."""
    return run.summary.consensus_distance


def packet_success(run: Run) -> float | None:
    """Share of packets that arrived, in both directions where losses are symmetric."""
    sent = run.summary.packets_sent
    return 1 - run.summary.packets_lost / sent if sent else None
