"""P2: learning over links on which packets arrive with a probability p, as one would train: the knee."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from coordinator.drawing import COLOURS, INK, dress
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
from coordinator.reproduce.curves import Curve, draw_curves, legend, mark, panels, ticks_at
from coordinator.reproduce.links import snr_db_for
from coordinator.reproduce.success import (
    P_AXIS,
    TOLERANCE,
    arm_name,
    losses_of_accuracy,
    most_with_losses,
)
from coordinator.reproduce.verdicts import Case, Verdict, interval, judge
from coordinator.sweep.intervals import estimate
from protocol.experiment_file import load


def knee(
    file: Path,
    lines: Sequence[tuple[str, tuple[str, ...]]],
    *,
    successes: Sequence[float],
    seeds: Sequence[int],
) -> Comparison:
    """Compare learning over p at learning rates at which networks learn; lines: names and overrides."""
    base = load(file)
    return Comparison(
        name=f"knee-{base.name.removeprefix('p2-')}",
        title=f"The knee: accuracy against p as one would train ({base.name})",
        text=f"{base.devices} devices in a {base.graph.kind}, unlike data, {base.rounds} rounds of "
        f"{base.training.nominal_local_rounds} local rounds. **For a neural network the bound gives no "
        "p_min.** Its smoothness L changes as it trains (a small CNN on digits: 51 at the start, 12 later; "
        "docs/theory.md), and B2 would want a learning rate below 4e-4 even if no packet were ever lost. "
        "What is left is to measure: the knee is the least p at which mean accuracy is within "
        f"{TOLERANCE:g} of that without losses.",
        file=file,
        arms=tuple(
            Arm(arm_name(line, p), (*overrides, f"radio.snr_db={snr_db_for(load(file, overrides), p):.4f}"))
            for line, overrides in lines
            for p in successes
        ),
        seeds=tuple(seeds),
        show=partial(_show_knee, tuple(line for line, _ in lines), tuple(successes)),
    )


def _show_knee(lines: Sequence[str], successes: Sequence[float], measured: Measured) -> Shown:
    figure, [left, right] = panels(2)
    dress(left, "test accuracy", P_AXIS, "share classified correctly", aside="mean and 95 % interval")
    dress(right, "consensus distance", P_AXIS, "L2 distance to the mean parameters")
    knees = {line: _knee(measured, line, successes) for line in lines}
    for axes, quantity in ((left, accuracy), (right, consensus_distance)):
        draw_curves(
            axes,
            [
                Curve(
                    line,
                    successes,
                    [measured.estimate(arm_name(line, p), quantity) for p in successes],
                )
                for line in lines
            ],
        )
        ticks_at(axes, successes)
        legend(axes, place="lower left" if axes is left else "upper right")
    left.set_ylim(0, 1.08)  # a knee's name has its place above the curves
    for found in {at for at in knees.values() if at is not None}:
        of = [line for line in lines if knees[line] == found]
        colour = COLOURS[lines.index(of[0])] if len(of) == 1 else INK
        mark(left, found, f"knee of {' and '.join(of)}: {found:g}", colour=colour)
    return Shown(
        figure=figure,
        caption="Knee: the least p from which on mean accuracy is within "
        f"{TOLERANCE:g} of that at p = 1, as measured; it depends on graph, data and rounds.",
        table=Table(
            head=("model", "p", "p measured", "accuracy", "consensus distance", "seeds"),
            rows=[
                (
                    line,
                    f"{p:g}",
                    interval(measured.estimate(arm_name(line, p), packet_success)),
                    interval(measured.estimate(arm_name(line, p), accuracy)),
                    interval(measured.estimate(arm_name(line, p), consensus_distance)),
                    f"{len(measured.of(arm_name(line, p)))}",
                )
                for line in lines
                for p in successes
            ],
        ),
        verdicts=tuple(verdict for line in lines for verdict in _knee_verdicts(measured, line, successes)),
        notes=tuple(
            f"{line}: {'no knee was measured' if found is None else f'the knee is at p = {found:g}'}."
            for line, found in knees.items()
        ),
    )


def _knee_verdicts(measured: Measured, line: str, successes: Sequence[float]) -> tuple[Verdict, Verdict]:
    """Judge both sides of the knee: few lost packets do no harm, many do."""
    most, least = most_with_losses(successes), min(successes)
    lost = measured.differences(arm_name(line, 1.0), arm_name(line, least), accuracy)
    return (
        judge(
            f"{line}: at p = {most:g} accuracy is within {TOLERANCE:g} of that without losses",
            losses_of_accuracy(measured, line, [most]),
        ),
        judge(
            f"{line}: at p = {least:g} it is lower by more than {TOLERANCE:g}",
            [Case(f"p = {least:g}", lost, low=TOLERANCE)],
        ),
    )


def _knee(measured: Measured, line: str, successes: Sequence[float]) -> float | None:
    """Return the least p from which on mean accuracy is as good as without losses; None if not measured."""
    found = None
    for p in sorted(successes, reverse=True):
        mean = estimate(measured.differences(arm_name(line, 1.0), arm_name(line, p), accuracy))
        if mean is None or not mean.mean <= TOLERANCE:
            break
        found = p
    return found
