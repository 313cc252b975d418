"""How long planning takes, of an epoch and on a device: `python -m benchmarks.planning`.

An epoch is laid out from the reports of all devices: prices, tree, ring, and the table of alternatives. Where
reports differ much from one to the next, the channel does not hold, and all is laid out a second time for
mean links. A decision is all that a device plans in one round.
"""

import argparse
import json
from statistics import median
from time import perf_counter
from typing import Literal

import numpy as np

from benchmarks.runs import environment
from coordinator.network import lay_out
from coordinator.schedule.epochs import Epochs, Reports
from coordinator.schedule.prices import Prices
from node.planner import Planner
from node.radio import Radio
from node.train import Trained
from protocol.air import frame_layout
from protocol.budget import Budget
from protocol.config import Aggregation, Experiment, Graph
from protocol.learning import Training
from protocol.messages import Prospect, Start
from protocol.problem import Theory
from protocol.radio import Radio as Knobs

NUM_VALUES = 21_840
DEVIATIONS_DB = {"a channel that holds": 2.0, "a channel that does not": 12.0}
"""Of reported SNRs from their means."""
ROUNDS = 1000
LIMIT_EPOCH_S = 0.050
LIMIT_DECISION_S = 0.001


def main() -> None:
    """Measure and print a table, or with --json one object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("--devices", type=int, default=100, help="devices (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="epochs of each kind (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    measured = {
        f"epoch, {access}, {channel}": (
            epoch_s(experiment_of(args.devices, access), deviation_db, args.repeats),
            LIMIT_EPOCH_S,
        )
        for access in ("tdma", "parallel")
        for channel, deviation_db in DEVIATIONS_DB.items()
    }
    measured["decision of a device"] = (decision_s(experiment_of(args.devices, "tdma")), LIMIT_DECISION_S)
    if args.json:
        seconds = {name: took_s for name, (took_s, _) in measured.items()}
        print(json.dumps({"environment": environment(), "devices": args.devices, "seconds": seconds}))
        return
    print(environment())
    print(f"{args.devices} devices, complete graph, {NUM_VALUES:,} parameters, medians")
    for name, (took_s, limit_s) in measured.items():
        print(f"{name}: {1e3 * took_s:.3g} ms (limit {1e3 * limit_s:g} ms)")


def experiment_of(num_devices: int, access: Literal["tdma", "parallel"]) -> Experiment:
    """Return an experiment in which devices have budgets, know the task, and all hear each other."""
    return Experiment(
        devices=num_devices,
        rounds=ROUNDS + 1,
        training=Training(local_rounds="adaptive", learning_rate=0.01),
        aggregation=Aggregation(scheme="auto"),
        graph=Graph(kind="complete", area_m=500.0),
        radio=Knobs(tx_power_dbm=20.0, rate="adaptive", path_loss="3gpp", access=access),
        budget=Budget(joules=1e4),
        theory=Theory(smoothness=5.0, gradient_variance=1.0, heterogeneity=1.0, initial_gap=2.0),
    )


def epoch_s(experiment: Experiment, deviation_db: float, repeats: int) -> float:
    """Return the seconds that it takes to lay out an epoch."""
    network, rng = lay_out(experiment), np.random.default_rng(0)
    epochs = Epochs(experiment, network, Prices(experiment, frame_layout(experiment, NUM_VALUES), network))
    epochs.first()
    spent_s = []
    for round_ in range(repeats + 1):
        reports = Reports(
            snrs_db={
                device: {
                    other: link["mean_snr_db"][device] + deviation_db * rng.standard_normal()
                    for other, link in network.graph[device].items()
                }
                for device in network.graph
            },
            joules_left=dict(enumerate(rng.uniform(0.5, 1, experiment.devices))),
        )
        began_s = perf_counter()
        epochs.next(round_, reports)
        spent_s.append(perf_counter() - began_s)
    return median(spent_s[1:])  # in the first one nothing is known of how the channel changes


def decision_s(experiment: Experiment) -> float:
    """Return the seconds that a device plans in one round."""
    start = Start(
        neighbours=(),
        slot=0,
        num_slots=experiment.devices,
        max_degree=experiment.devices - 1,
        position_m=(0.0, 0.0),
        prospect=Prospect(
            local_rounds=1, mean_local_rounds=1.0, exchange_j=0.1, exchange_air_s=1.0, waiting_air_s=0.0
        ),
    )
    radio = Radio(experiment, start, frame_layout(experiment, NUM_VALUES), 0)
    planner = Planner(experiment, radio, start.prospect)
    spent_s = []
    for round_ in range(ROUNDS):
        radio.begin_round()
        began_s = perf_counter()
        planner.begin_round(round_, 0.2)
        planner.cpu_hz(round_)
        said = planner.announce(round_, Trained(loss=2.0, samples=32, processor_s=0.0), 0.2)
        planner.can_go_on_after(round_, 0.2)
        planner.learn(said)
        spent_s.append(perf_counter() - began_s)
    return median(spent_s)


if __name__ == "__main__":
    main()
