"""Analog consensus under noise, and what keeps it from diverging: `python -m benchmarks.consensus`.

Devices on a ring begin with different random vectors and do nothing but mix over an analog radio without
fading: real devices, real frames, a thread each. Per number, over rounds:

    consensus error   1/N sum_i ||x_i - xbar||^2 / d
    drift             ||xbar - xbar at the start||^2 / d, of the mean that mixing should preserve
"""

import argparse
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
import torch
import zmq
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from benchmarks.runs import environment
from coordinator.drawing import INK, PALE, RUN_STYLES, Dash, dress
from coordinator.network import Network, lay_out, row
from node.control import Control
from node.exchanges import Exchanges
from node.mixing import mixing_step
from node.stopwatch import Stopwatch
from node.transport.zmq import ZmqTransport
from protocol.air import frame_layout
from protocol.codec import Float32s
from protocol.config import Aggregation, Codec, Experiment, Graph, Transport
from protocol.frame import HEADER_BYTES
from protocol.messages import Neighbour, NeighbourDied, Prospect, Start, Welcome
from protocol.radio import Analog, Radio
from protocol.streams import Purpose, stream

Floats: TypeAlias = npt.NDArray[np.float64]

DEVICES = 10
NUM_VALUES = 1000
SNR_DB = 10.0
PATIENCE_S = 600.0
DAMPED = Aggregation(step=1.0, step_decay_rounds=10.0, step_exponent=0.75)
# R: rounds between two refreshes.
CASES: dict[str, tuple[Analog, Aggregation]] = {
    "models": (Analog(), Aggregation()),
    "models, damped steps": (Analog(), DAMPED),
    "differences, no refresh": (Analog(payload="differences", refresh_rounds=0), Aggregation()),
    "differences, R = 20": (Analog(payload="differences", refresh_rounds=20), Aggregation()),
    "differences, R = 5": (Analog(payload="differences", refresh_rounds=5), Aggregation()),
}


STYLES: tuple[tuple[str, Dash], ...] = (*RUN_STYLES, (INK, (0, (3, 1, 1, 1, 1, 1))))
FLOAT32_FLOOR = 1e-14
"""Of the consensus error of numbers below 1, which keep 24 bits."""
LINE_SHARE = 0.06
"""Height of a line of text, as a share of a panel's."""


@dataclass(frozen=True)
class Course:
    """What became of one case, shape (num_rounds + 1,): the first is the start."""

    error: Floats
    drift: Floats
    air_s: float
    """Modelled seconds of the whole run."""
    tx_j: float
    """What all devices radiated."""


class Quiet(Control):
    """A coordinator that has nothing to say."""

    def __init__(self) -> None:
        pass

    def news(self) -> list[NeighbourDied]:
        """Return no deaths."""
        return []


def main() -> None:
    """Run every case and print a table, or with --json one object; with --plot draw them too."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.consensus", description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="rounds a case (default: %(default)s)")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the courses as a PNG")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    courses = {}
    for name in CASES:
        sys.stderr.write(f"{name}\n")
        courses[name] = run(name, args.rounds)
    if args.json:
        print(
            json.dumps({"environment": environment(), "courses": {n: _last(c) for n, c in courses.items()}})
        )
    else:
        print(f"ring of {DEVICES}, {NUM_VALUES:,} numbers, {SNR_DB:g} dB, {args.rounds} rounds; ", end="")
        print(f"consensus error at the start {courses['models'].error[0]:.2g}")
        print(f"{'':>30}  {'error':>8}  {'drift':>8}  {'air [s]':>8}  {'sent [J]':>8}")
        for name, course in courses.items():
            print(f"{name:>30}  " + "  ".join(f"{value:8.2g}" for value in _last(course).values()))
    if args.plot:
        draw(courses, args.plot)


def run(name: str, num_rounds: int) -> Course:
    """Let all devices of a case mix for so many rounds."""
    analog, aggregation = CASES[name]
    experiment = Experiment(
        devices=DEVICES,
        rounds=num_rounds,
        codec=Codec(packet_bytes=512),
        aggregation=aggregation,
        graph=Graph(kind="ring"),
        radio=Radio(scheme="analog", snr="given", snr_db=SNR_DB, fading="none", analog=analog),
        transport=Transport(kind="memory"),
    )
    network = lay_out(experiment)
    frame_bytes = frame_layout(experiment, NUM_VALUES).payload_bytes + HEADER_BYTES
    with ExitStack() as stack:
        pool = stack.enter_context(ThreadPoolExecutor(DEVICES))
        context = stack.enter_context(zmq.Context())
        transports = [
            stack.enter_context(
                ZmqTransport.open(
                    context,
                    f"inproc://{device}",
                    name=str(device),
                    frame_bytes=frame_bytes,
                    queue_bytes=experiment.transport.queue_bytes,
                )
            )
            for device in range(DEVICES)
        ]
        lives = [
            pool.submit(_live, experiment, network, device, transport)
            for device, transport in enumerate(transports)
        ]
        found = [life.result(PATIENCE_S) for life in lives]
    xs = np.array([x for x, _, _ in found], dtype=np.float64)
    mean = xs.mean(axis=0)
    return Course(
        error=np.mean((xs - mean) ** 2, axis=(0, 2)),
        drift=np.mean((mean - mean[0]) ** 2, axis=1),
        air_s=max(air_s for _, air_s, _ in found),
        tx_j=sum(tx_j for _, _, tx_j in found),
    )


def _live(
    experiment: Experiment, network: Network, device: int, transport: ZmqTransport
) -> tuple[Float32s, float, float]:
    """Be one device; return x at the start and after every round, seconds and joules."""
    neighbours = []
    for link in row(network, device):
        transport.connect(link.neighbour, f"inproc://{link.neighbour}")
        neighbours.append(
            Neighbour(
                device=link.neighbour,
                incarnation=0,
                address=f"inproc://{link.neighbour}",
                weight=link.weight,
                mean_snr_db=link.mean_snr_db,
                mean_snr_there_db=link.mean_snr_there_db,
                slot=link.slot,
                turn=link.turn,
                position_m=link.position_m,
            )
        )
    start = Start(
        neighbours=tuple(neighbours),
        slot=network.colours[device],
        num_slots=network.num_slots,
        max_degree=network.max_degree,
        position_m=network.graph.nodes[device]["position_m"],
        prospect=Prospect(
            local_rounds=0, mean_local_rounds=0, exchange_j=0, exchange_air_s=0, waiting_air_s=0
        ),
    )
    welcome = Welcome(
        run_id="consensus", epoch=0, device=device, incarnation=0, experiment=experiment, run_dir=""
    )
    x = torch.zeros(NUM_VALUES)  # so are all copies
    exchanges = Exchanges(welcome, start, transport, frame_layout(experiment, NUM_VALUES), x)
    rng = stream(experiment.seed, Purpose.PARAMETERS, a=device)
    x += torch.from_numpy(rng.standard_normal(NUM_VALUES, dtype=np.float32))
    quiet, watch, xs, tx_j = Quiet(), Stopwatch(), [x.numpy().copy()], 0.0
    for round_ in range(experiment.rounds):
        exchanges.radio.begin_round()
        sent = exchanges.encode(x, round_)
        arrived = exchanges.exchange(sent, round_, quiet, watch)
        arrived.mix_(x, sent.xhat, mixing_step(experiment.aggregation, round_))
        xs.append(x.numpy().copy())
        tx_j += sum(heard.tx_j for heard in exchanges.radio.heard().values())
    return np.array(xs), exchanges.radio.air_s, tx_j


def draw(courses: dict[str, Course], file: Path) -> None:
    """Draw consensus error and drift over the rounds, each curve named at its end."""
    figure = Figure(figsize=(9, 3.3), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    error_axes, drift_axes = figure.subplots(1, 2)
    dress(error_axes, "Consensus error", "round", "mean square distance to the mean")
    dress(drift_axes, "Drift of the mean", "round", "square distance to the first mean")
    _draw_curves(error_axes, {name: course.error for name, course in courses.items()})
    _draw_curves(drift_axes, {name: course.drift for name, course in courses.items()})
    floor = float(courses["differences, R = 5"].error[-1])
    if floor < FLOAT32_FLOOR:
        error_axes.annotate(
            "rounding of float32",
            (0.99, floor),
            (0, -4),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="right",
            va="top",
            fontsize=8,
            color=PALE,
        )
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file)


def _draw_curves(axes: Axes, curves: dict[str, Floats]) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(numticks=10))
    axes.yaxis.set_minor_locator(NullLocator())
    for values, (colour, dash) in zip(curves.values(), STYLES, strict=True):
        rounds = np.flatnonzero(values)  # the drift begins at nothing
        axes.plot(rounds, values[rounds], color=colour, linestyle=dash, linewidth=1.6)
    axes.set_xlim(0, len(values) - 1)
    low, high = np.log10(axes.get_ylim())
    low -= 0.05 * (high - low)
    axes.set_ylim(10**low, 10**high)
    at = _apart({name: float((np.log10(v[-1]) - low) / (high - low)) for name, v in curves.items()})
    for (name, share), (colour, _) in zip(at.items(), STYLES, strict=True):
        axes.text(1.02, share, name, transform=axes.transAxes, va="center", fontsize=8.5, color=colour)


def _apart(heights: dict[str, float]) -> dict[str, float]:
    """Move names that would overlap upwards; heights are shares of the panel's."""
    placed, last = dict(heights), -inf
    for name in sorted(heights, key=heights.__getitem__):
        placed[name] = last = max(heights[name], last + LINE_SHARE)
    return placed


def _last(course: Course) -> dict[str, float]:
    return {
        "consensus_error": float(course.error[-1]),
        "drift": float(course.drift[-1]),
        "air_s": course.air_s,
        "tx_j": course.tx_j,
    }


if __name__ == "__main__":
    main()
