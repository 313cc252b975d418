"""The constants of the bounds from what devices measured: in a run that is over, or in pilot rounds.

Sketches of gradients take the place of the gradients: they are linear, and have their norms in the mean.
"""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from coordinator.events import Event
from coordinator.interrupt import Interrupt
from coordinator.run import run
from coordinator.store import EXPERIMENT, read_events
from protocol.config import Experiment
from protocol.errors import BadInput, Interrupted
from protocol.experiment_file import load
from protocol.learning import MAX_PILOT_ROUNDS
from protocol.messages import Pilot, Report
from protocol.theory.pilots import PilotRound, Pilots, variance_of_two

NUM_BATCHES = 2
"""Minibatches behind each gradient."""
IDENTITY = ("data", "model", "devices")
"""What makes a task: constants of another one are worth nothing here."""


class Unwatched:
    """Nobody looks at pilot rounds."""

    @classmethod
    @contextmanager
    def opened(cls) -> "Iterator[Unwatched]":
        """Look away."""
        yield cls()

    def show(self, event: Event) -> None:
        """Take in an event."""

    def tick(self) -> None:
        """Draw nothing."""


def parse_pilot(text: str) -> int:
    """Read --pilot; raises BadInput."""
    try:
        num_rounds = int(text)
    except ValueError:
        num_rounds = 0
    if not 1 <= num_rounds <= MAX_PILOT_ROUNDS:
        raise BadInput(f"--pilot {text}: expected a whole number from 1 to {MAX_PILOT_ROUNDS:,}")
    return num_rounds


def with_pilots(experiment: Experiment, num_rounds: int, interrupt: Interrupt) -> Experiment:
    """Run pilot rounds of an experiment, and return it with the constants that they gave.

    All devices take single steps from common models: exact averaging over an ideal radio. Raises BadInput,
    Interrupted or RunError as a run does.
    """
    with tempfile.TemporaryDirectory() as folder:
        pilot = _pilot_experiment(experiment, num_rounds)
        run(pilot, Path(folder) / "pilot", Unwatched.opened, interrupt)
        if interrupt.count:  # some rounds were done, but not those that were asked for
            raise Interrupted
        reports = _reports(Path(folder) / "pilot")
    return _with_constants(experiment, reports, f"--pilot {num_rounds}")


def with_constants_from(experiment: Experiment, run_dir: Path) -> Experiment:
    """Return an experiment with the constants that the devices of a run have measured.

    Raises BadInput if that is no run, was one of another task, or measured nothing.
    """
    reports = _reports(run_dir)
    if not any(report.pilot for report in reports):
        raise BadInput(
            f"--from {run_dir}: its devices measured no gradients; run it with training.pilot_rounds = 5, or "
            f"let --pilot 5 measure"
        )
    ran = load(run_dir / EXPERIMENT)
    for key in IDENTITY:
        if getattr(ran, key) != getattr(experiment, key):
            raise BadInput(
                f"--from {run_dir}: is of another task, {key} differs; "
                f"expected the same {', '.join(IDENTITY)}"
            )
    return _with_constants(experiment, reports, f"--from {run_dir}")


def _pilot_experiment(experiment: Experiment, num_rounds: int) -> Experiment:
    table = experiment.model_dump()
    table["rounds"] = num_rounds
    table["training"] |= {
        "local_rounds": 1,
        "pilot_rounds": num_rounds,
        "optimiser": "sgd",
        "momentum": 0.0,
        "evaluate_every": 0,
    }
    table["aggregation"] |= {"scheme": "tree", "epoch_rounds": num_rounds, "step": 1.0, "sweeps": 1}
    table["radio"] = {"scheme": "ideal"}
    table["device"] |= {"frequency": "fixed"}
    table["budget"] = {}
    table["mobility"] = {}
    table["runtime"] |= {"clock": "virtual"}
    return Experiment.model_validate(table)


def _reports(run_dir: Path) -> list[Report]:
    return [event for event in read_events(run_dir) if isinstance(event, Report)]


def _with_constants(experiment: Experiment, reports: Iterable[Report], source: str) -> Experiment:
    pilots = Pilots()
    rounds: dict[int, list[Pilot]] = {}
    for report in reports:
        if report.pilot is not None:
            rounds.setdefault(report.round, []).append(report.pilot)
    for _, told in sorted(rounds.items()):
        if len(told) == experiment.devices:
            pilots = pilots.add(pilot_round(told))
    if not pilots.num_rounds or not pilots.largest_secant:
        raise BadInput(f"{source}: there is no round in which all devices measured gradients, and moved")
    constants = pilots.constants(least_loss=experiment.theory.loss_floor)
    if not constants.initial_gap:
        raise BadInput(
            f"theory.loss_floor = {experiment.theory.loss_floor:g}: the loss began no higher, with "
            f"{pilots.initial_loss:.3g}"
        )
    found = {
        "smoothness": constants.smoothness,
        "gradient_variance": constants.gradient_variance,
        "heterogeneity": constants.heterogeneity,
        "initial_gap": constants.initial_gap,
    }
    return experiment.model_copy(update={"theory": experiment.theory.model_copy(update=found)})


def pilot_round(told: list[Pilot]) -> PilotRound:
    """Put together what all devices told of one round."""
    sketches = np.array([pilot.sketch for pilot in told])
    return PilotRound(
        losses=[pilot.loss for pilot in told],
        gradient_norms_sq=(sketches**2).sum(axis=1).tolist(),
        gradient_variances=[variance_of_two(pilot.difference_norm_sq) for pilot in told],
        num_batches=[NUM_BATCHES] * len(told),
        mean_gradient_norm_sq=float((sketches.mean(axis=0) ** 2).sum()),
        secants=[pilot.secant for pilot in told if pilot.secant is not None],
    )
