"""P1: what one average of all models costs in transmit energy, by the way it is taken; from real ledgers."""

from collections.abc import Sequence
from math import ceil, log
from pathlib import Path

from coordinator.drawing import dress, percent
from coordinator.events import Scheduled
from coordinator.network import lay_out
from coordinator.reproduce.comparison import Arm, Comparison, Measured, Run, Shown, Table
from coordinator.reproduce.curves import bars, panels
from coordinator.reproduce.verdicts import Case, interval, judge
from coordinator.schedule.epochs import CONSENSUS_ERROR
from coordinator.store import read_events
from coordinator.sweep.intervals import Estimate, estimate
from protocol.experiment_file import load
from protocol.theory.contraction import contraction

MESH, ALL, GOSSIP, SPANNING, TREE, RING = (
    "full mesh",
    "all broadcast",
    "gossip with near neighbours",
    "spanning tree",
    "minimum-energy tree",
    "ring",
)
ARMS = {
    MESH: ("aggregation.scheme=gossip", "radio.cast=unicast"),
    ALL: ("aggregation.scheme=gossip", "radio.cast=broadcast"),
    GOSSIP: ("aggregation.scheme=gossip", "radio.cast=broadcast", "graph.kind=geometric"),
    SPANNING: ("aggregation.scheme=tree", "radio.cast=unicast"),
    TREE: ("aggregation.scheme=tree", "radio.cast=broadcast"),
    RING: ("aggregation.scheme=ring", "radio.cast=unicast"),
}
MESH_SHARE = 0.15
"""Of full mesh's energy: what the spanning tree may take."""
TREE_SHARE = 0.9
"""Of the spanning tree's: what the minimum-energy tree may take."""


def aggregation_energy(
    file: Path, overrides: tuple[str, ...] = (), *, seeds: Sequence[int], name: str = "energy"
) -> Comparison:
    """Compare all ways to average in transmit joules; every seed is a drop of its own."""
    base = load(file, overrides)
    return Comparison(
        name=name,
        title=f"Energy of one average: {base.devices} devices in {base.graph.area_m:g} m",
        text=f"{base.devices} devices stand at random in a square of {base.graph.area_m:g} m, and all of "
        "their links may be used. They average once, by each scheme, over the same links: rate adaptive, "
        "with repeats, without fading. What they radiated, headers, acknowledgements and repeats included, "
        "is read from their ledgers. Full mesh and all broadcast are gossip on the complete graph, by "
        f"unicast and by broadcast. Gossip with the neighbours within {base.graph.radius_m:g} m averages "
        f"only nearly; to come within {percent(CONSENSUS_ERROR)} of the squared distance takes several "
        "sweeps. The minimum-energy tree tells all children at once and is laid out for that; the "
        "spanning tree is all unicast.",
        file=file,
        arms=tuple(Arm(arm, (*overrides, *changes)) for arm, changes in ARMS.items()),
        seeds=tuple(seeds),
        show=_show,
    )


def _show(measured: Measured) -> Shown:
    shares = {arm: estimate([100 * r for r in measured.ratios(arm, MESH, _tx_j)]) for arm in ARMS}
    nearly = measured.paired(GOSSIP, MESH, _tx_j_of_gossip, lambda a, b: 100 * a / b)
    # The mesh's own number stands for both in `paired`, so its sweeps are one.
    drawn: dict[str, Estimate | None] = dict(shares)
    drawn[f"{GOSSIP}, to {percent(CONSENSUS_ERROR)}"] = estimate(nearly)
    drawn = {label: drawn[label] for label in sorted(drawn, key=lambda label: -_mean(drawn[label]))}
    figure, [axes] = panels(1)
    figure.set_size_inches(8.4, 3.8)
    dress(axes, "transmit energy of one average", "% of full mesh, mean and 95 % interval over drops", "")
    bars(axes, list(drawn), list(drawn.values()))
    axes.set_xscale("log")
    axes.set_xlim(5, 200)
    axes.set_xticks([5, 10, 20, 50, 100, 200], ["5", "10", "20", "50", "100", "200"])
    return Shown(
        figure=figure,
        caption="Measured in the ledgers of real runs; the axis is logarithmic. Gossip in one sweep does not "
        "average exactly; its bar to 1 % is one sweep times the sweeps that theory wants for that.",
        table=_table(measured, drawn),
        verdicts=(
            judge(
                f"The spanning tree takes at most {percent(MESH_SHARE)} of full mesh",
                [Case("", measured.ratios(SPANNING, MESH, _tx_j), high=MESH_SHARE)],
            ),
            judge(
                f"The minimum-energy tree takes less than {TREE_SHARE:g} of the spanning tree",
                [Case("", measured.ratios(TREE, SPANNING, _tx_j), high=TREE_SHARE)],
            ),
            judge(
                "The spanning tree takes no more than the ring",
                [Case("", measured.ratios(SPANNING, RING, _tx_j), high=1.0)],
            ),
            judge(
                "Trees and ring take what the coordinator had predicted, within 10 %",
                [
                    Case(f"{arm}, measured / predicted", measured.values(arm, _over_predicted), 0.9, 1.1)
                    for arm in (SPANNING, TREE, RING)
                ],
            ),
        ),
    )


def _table(measured: Measured, drawn: dict[str, Estimate | None]) -> Table:
    return Table(
        head=(
            "scheme",
            "transmit energy [mJ]",
            "% of full mesh",
            "measured / predicted",
            "modelled time [s]",
            "drops",
        ),
        rows=[
            (
                label,
                interval(estimate([1000 * j for j in measured.values(label, _tx_j)])),
                interval(share),
                interval(measured.estimate(label, _over_predicted)),
                interval(measured.estimate(label, lambda run: run.summary.air_s)),
                f"{len(measured.of(label))}" if label in ARMS else "computed",
            )
            for label, share in drawn.items()
        ],
    )


def _tx_j(run: Run) -> float | None:
    return run.summary.joules_tx


def _tx_j_of_gossip(run: Run) -> float | None:
    """Joules of as many sweeps as bring the squared distance from consensus to CONSENSUS_ERROR."""
    joules = run.summary.joules_tx
    rho = contraction(lay_out(run.experiment).weights, 1.0)
    return None if joules is None else joules * (ceil(log(CONSENSUS_ERROR) / log(rho)) if 0 < rho < 1 else 1)


def _over_predicted(run: Run) -> float | None:
    """Return what was radiated over what the schedule had predicted; None without one."""
    planned = [event.tx_joules for event in read_events(run.folder) if isinstance(event, Scheduled)]
    if not planned or run.summary.joules_tx is None or not planned[0]:
        return None
    return run.summary.joules_tx / (planned[0] * run.summary.rounds)


def _mean(found: Estimate | None) -> float:
    return 0.0 if found is None else found.mean
