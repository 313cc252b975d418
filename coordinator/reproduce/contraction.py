"""P2: how much one exchange over failing links takes off the distance from consensus, against theory.

All devices begin alike. After the first local rounds they differ by what each has learned; a run of one
round without any exchange has that distance, and a run with one exchange what is left of it. Both draw the
same minibatches, so the ratio of the squares is the contraction, without any approximation.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean

import numpy as np

from coordinator.drawing import COLOURS, dress, percent
from coordinator.network import lay_out
from coordinator.reproduce.comparison import (
    Arm,
    Comparison,
    Measured,
    Shown,
    Table,
    consensus_distance,
    packet_success,
)
from coordinator.reproduce.curves import Curve, draw_curves, legend, panels, ticks_at
from coordinator.reproduce.links import snr_db_for
from coordinator.reproduce.verdicts import Case, interval, judge
from coordinator.sweep.intervals import estimate
from protocol.experiment_file import load
from protocol.theory.contraction import contraction

GRAPHS = ("complete", "ring")
SLACK = 0.1
"""Of the predicted contraction: what the measured one may differ on a complete graph, interval included."""
APART = "no exchange"


def measured_contraction(file: Path, *, successes: Sequence[float], seeds: Sequence[int]) -> Comparison:
    """Compare one exchange on a complete graph and on a ring, over p, with rho(p)."""
    once = ("devices=10", "rounds=1", "training.local_rounds=5", "training.learning_rate=0.1")
    arms = [Arm(APART, (*once, "aggregation.scheme=isolated"))]
    for graph in GRAPHS:
        on = (*once, f"graph.kind={graph}")
        base = load(file, on)
        arms += [Arm(_name(graph, p), (*on, f"radio.snr_db={snr_db_for(base, p):.4f}")) for p in successes]
    return Comparison(
        name="contraction",
        title="Contraction of one exchange over failing links",
        text="Ten devices do five local rounds each from the same model, exchange once, and stop. What is "
        "left of their squared distance from consensus is divided by what it is without the exchange. "
        "Theory (docs/theory.md, (12) to (14)): rho(p), the largest eigenvalue of E[W~'W~] - J. On a "
        "complete graph all directions shrink alike, so rho is the mean itself; on a ring it is that of "
        "the slowest direction, so an upper limit.",
        file=file,
        arms=tuple(arms),
        seeds=tuple(seeds),
        show=partial(_show, file, tuple(successes)),
    )


def _show(file: Path, successes: Sequence[float], measured: Measured) -> Shown:
    weights = {graph: lay_out(load(file, ("devices=10", f"graph.kind={graph}"))).weights for graph in GRAPHS}
    ratios = {
        (graph, p): measured.paired(
            _name(graph, p), APART, consensus_distance, lambda after, before: (after / before) ** 2
        )
        for graph in GRAPHS
        for p in successes
    }
    predicted = {(graph, p): contraction(weights[graph], p) for graph, p in ratios}
    figure, [axes] = panels(1)
    figure.set_size_inches(7.2, 4.2)
    dress(
        axes,
        "one exchange: what is left of the squared distance from consensus",
        "p, probability that a packet arrives in both directions",
        "share left",
    )
    draw_curves(
        axes,
        [
            Curve(f"measured, {graph}", successes, [estimate(ratios[graph, p]) for p in successes])
            for graph in GRAPHS
        ],
    )
    fine = np.linspace(min(successes), 1, 60)
    for graph, colour in zip(GRAPHS, COLOURS, strict=False):
        rho = [contraction(weights[graph], float(p)) for p in fine]
        axes.plot(fine, rho, color=colour, linewidth=4, alpha=0.25, label=f"rho(p), {graph}", zorder=1)
    ticks_at(axes, successes)
    axes.set_ylim(-0.02, 1.02)
    legend(axes, place="lower left")
    lossy = [p for p in successes if p < 1]
    return Shown(
        figure=figure,
        caption="Marks: mean and 95 % interval over seeds; wide pale lines: rho(p) as predicted, "
        "nothing fitted.",
        table=_table(measured, successes, ratios, predicted),
        verdicts=(
            judge(
                f"On a complete graph the contraction is rho(p) within {percent(SLACK)}, on average over p",
                [Case("measured / rho(p)", _over_predicted(ratios, predicted, lossy), 1 - SLACK, 1 + SLACK)],
            ),
            judge(
                "On a ring the measured contraction stays below rho(p) at each p",
                [Case(f"p = {p:g}", ratios["ring", p], high=predicted["ring", p]) for p in successes],
            ),
        ),
    )


def _over_predicted(
    ratios: Mapping[tuple[str, float], list[float]],
    predicted: Mapping[tuple[str, float], float],
    successes: Sequence[float],
) -> list[float]:
    """Return the measured contraction on the complete graph over the predicted one, mean over p, by seed."""
    relative = [[ratio / predicted["complete", p] for ratio in ratios["complete", p]] for p in successes]
    # Without all runs the seeds would not match: then there is nothing to judge by.
    return [fmean(of_seed) for of_seed in zip(*relative, strict=True)] if _are_even(relative) else []


def _are_even(lists: Sequence[Sequence[float]]) -> bool:
    return len({len(one) for one in lists}) == 1


def _table(
    measured: Measured,
    successes: Sequence[float],
    ratios: Mapping[tuple[str, float], list[float]],
    predicted: Mapping[tuple[str, float], float],
) -> Table:
    return Table(
        head=("graph", "p", "p measured", "contraction measured", "rho(p) predicted", "seeds"),
        rows=[
            (
                graph,
                f"{p:g}",
                interval(measured.estimate(_name(graph, p), packet_success)),
                interval(estimate(ratios[graph, p])),
                f"{predicted[graph, p]:.3g}",
                f"{len(ratios[graph, p])}",
            )
            for graph in GRAPHS
            for p in successes
        ],
    )


def _name(graph: str, p: float) -> str:
    return f"{graph}, p = {p:g}"
