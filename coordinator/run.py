"""One run from experiment to summary: plan, launch, serve, and make of the log what people read."""

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic

import zmq

from coordinator.launch.local import LocalProcesses
from coordinator.network import lay_out
from coordinator.roster import Roster
from coordinator.server import Interrupt, Server, View, control_socket
from coordinator.store import SUMMARY, RunFolder, read_events
from coordinator.summary import Summary, history, summarise
from protocol.config import Experiment
from protocol.errors import BadInput

Variant = str
VARIANTS: dict[str, dict[str, dict[str, str]]] = {
    "isolated": {"aggregation": {"scheme": "isolated"}},
    "ideal": {"radio": {"scheme": "ideal"}},
}
"""What `--compare` changes in an experiment: no exchange at all, or a channel that loses nothing."""


def run(experiment: Experiment, out: Path | None, view: View, interrupt: Interrupt) -> Summary | None:
    """Run an experiment on this host; return None if it was interrupted before it began.

    Raises BadInput or RunError; then no folder is left, unless devices had begun to learn.
    """
    _require_torch()
    network = lay_out(experiment)
    with RunFolder.create(experiment, out) as folder:
        launched_s = monotonic()
        with (
            zmq.Context() as context,
            control_socket(context, "tcp://127.0.0.1:*") as (socket, url),
            LocalProcesses.launch(
                _num_processes(experiment), url, folder.logs, _preload(experiment)
            ) as local,
        ):
            roster = Roster(experiment, folder.run_id, str(folder.path), network)
            Server(socket, roster, folder, view, launched_s=launched_s).serve(local, interrupt)
        recorded = history(read_events(folder.path))
        if recorded is None:
            return None
        summary = summarise(recorded, experiment, folder.parameters(), folder.path)
        folder.write(SUMMARY, summary.model_dump_json(indent=2))
        return summary


def variant(experiment: Experiment, name: str) -> Experiment:
    """Return the experiment under one of the VARIANTS' conditions."""
    return Experiment.model_validate(
        experiment.model_dump()
        | {section: experiment.model_dump()[section] | changes for section, changes in VARIANTS[name].items()}
    )


def _num_processes(experiment: Experiment) -> int:
    return 1 if experiment.transport.kind == "memory" else experiment.devices


def _preload(experiment: Experiment) -> tuple[str, ...]:
    """Name what this experiment's devices would each import, to be imported once before the fork."""
    return ("sklearn.datasets",) if experiment.data.dataset == "digits" else ()


def _require_torch() -> None:
    try:
        version("torch")
    except PackageNotFoundError as error:
        raise BadInput("devices need torch, which is not installed; install hearsay[node]") from error
