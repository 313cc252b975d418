"""One run from experiment to summary: plan, launch, serve, and make of the log what people read."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TypeAlias

import zmq

from coordinator.interrupt import Interrupt
from coordinator.launch.launcher import Here, Launcher
from coordinator.network import lay_out
from coordinator.roster import Roster
from coordinator.server import Server, View, control_socket
from coordinator.store import REPORT, SUMMARY, RunFolder, read_events, write_whole
from coordinator.summary import History, Summary, history, summarise
from protocol.config import Experiment
from protocol.errors import BadInput, HearsayError, Interrupted
from protocol.experiment_file import nearest

VARIANTS: dict[str, dict[str, dict[str, str]]] = {
    "isolated": {"aggregation": {"scheme": "isolated"}},
    "ideal": {"radio": {"scheme": "ideal"}},
}
"""What `--compare` changes in an experiment: no exchange at all, or a channel that loses nothing."""

HERE = Here()

Watch: TypeAlias = Callable[[], AbstractContextManager[View]]
"""Opens a view when there is something to see."""


@dataclass(frozen=True)
class Outcome:
    """What is left of one run."""

    summary: Summary
    history: History
    folder: Path


def run_and_compare(
    experiment: Experiment,
    out: Path | None,
    compare: Sequence[str],
    *,
    watch: Callable[[str, Experiment], AbstractContextManager[View]],
    interrupt: Interrupt,
    launcher: Launcher = HERE,
) -> Summary | None:
    """Run an experiment, and again under each condition of compare; summary and report hold them all.

    Returns None if it was interrupted before the first round. Raises BadInput or RunError.
    """
    for name in compare:
        if name not in VARIANTS:
            raise BadInput(f"--compare {name}: no such condition; {nearest(name, VARIANTS)}")
    if len(set(compare)) < len(compare):
        raise BadInput(f"--compare {','.join(compare)}: names each condition once")
    try:
        watch_run = partial(watch, experiment.name, experiment)
        outcomes = {"run": run(experiment, out, watch_run, interrupt, launcher)}
    except Interrupted:
        return None
    folder = outcomes["run"].folder
    try:
        for name in compare:
            if interrupt.count:
                break
            other, title = variant(experiment, name), f"{experiment.name}, {name}"
            outcomes[name] = run(other, folder / "compare" / name, partial(watch, title, other), interrupt)
    except Interrupted:
        pass  # what was finished before is still worth its summary
    finally:
        summary = _conclude(outcomes, folder)
    return summary


def _conclude(outcomes: dict[str, Outcome], folder: Path) -> Summary:
    """Write the summary and draw the report of a run and all that it is compared with."""
    from coordinator.report import draw  # matplotlib takes 0.3 s to import: after the run, not before it

    summary = outcomes["run"].summary.model_copy(
        update={"compare": {name: other.summary for name, other in outcomes.items() if name != "run"}}
    )
    write_whole(folder / SUMMARY, summary.model_dump_json(indent=2) + "\n")
    draw({name: o.history for name, o in outcomes.items()}, folder / REPORT, title=summary.run_id)
    return summary


def run(
    experiment: Experiment,
    out: Path | None,
    watch: Watch,
    interrupt: Interrupt,
    launcher: Launcher = HERE,
) -> Outcome:
    """Run one experiment, from the first device to the summary in its folder.

    Raises BadInput, Interrupted or RunError.
    """
    try:
        prepared = launcher.prepare(experiment)
    except HearsayError as error:
        if interrupt.count:  # the signal reached the device that downloaded or simulated, too
            raise Interrupted from error
        raise
    tables = prepared.packet_errors
    network = lay_out(experiment, tables)
    with RunFolder.create(experiment, out) as folder:
        launched_s = monotonic()
        with (
            zmq.Context() as context,
            control_socket(context, launcher.bind) as (socket, url),
            watch() as view,
            launcher.launch(experiment, url, folder.logs) as processes,
        ):
            roster = Roster(experiment, folder.run_id, str(folder.path), network, tables, prepared.gpus)
            Server(socket, roster, folder, view, launched_s=launched_s).serve(processes, interrupt)
    events = history(read_events(folder.path))
    summary = summarise(events, experiment, folder.parameters(), folder.path)
    write_whole(folder.path / SUMMARY, summary.model_dump_json(indent=2) + "\n")
    return Outcome(summary, events, folder.path)


def variant(experiment: Experiment, name: str) -> Experiment:
    """Return the experiment under one of the VARIANTS' conditions."""
    table = experiment.model_dump()
    for section, changes in VARIANTS[name].items():
        table[section] |= changes
    return Experiment.model_validate(table)
