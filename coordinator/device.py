"""What only a device can tell or fetch: model and data, and packet errors of a real code.

The coordinator itself loads neither torch nor datasets; it runs one short `python -m node`.
"""

import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from protocol.config import Experiment
from protocol.errors import EXIT_BAD_INPUT, BadInput, RunError
from protocol.experiment_file import dump
from protocol.messages import Description, Survey
from protocol.packet_errors import PacketErrorTable

DESCRIBE_WALL_S = 120.0
SIMULATE_WALL_S = 3600.0
FETCH_WALL_S = 3600.0
_TABLES: TypeAdapter[tuple[PacketErrorTable, ...]] = TypeAdapter(tuple[PacketErrorTable, ...])


def describe(experiment: Experiment) -> Description:
    """Ask for the size of the model and the split of the data, which are fetched first.

    Raises BadInput for whatever would keep a device from starting, RunError if it does not answer.
    """
    fetch(experiment)
    return describe_what_is_here(experiment)


def describe_what_is_here(experiment: Experiment) -> Description:
    """Do as `describe`, with data that are on this machine."""
    try:
        return Description.model_validate_json(_ask("--describe", experiment, DESCRIBE_WALL_S))
    except ValidationError as error:
        raise RunError("python -m node --describe is of another version than this coordinator") from error


def survey(experiment: Experiment) -> Survey:
    """Ask what a device would find on this machine and hold; nothing is downloaded.

    Raises BadInput for what would be refused on any machine, RunError if no device can be asked.
    """
    try:
        return Survey.model_validate_json(_ask("--survey", experiment, DESCRIBE_WALL_S))
    except ValidationError as error:
        raise RunError("python -m node --survey is of another version than this coordinator") from error


def fetch(experiment: Experiment) -> None:
    """Have the data set on this machine before any device looks for it, if it is one of files.

    It is downloaded and unpacked once; meanwhile progress appears on stderr. Raises BadInput for files that
    are not what they should be, RunError if there are none and a download fails.
    """
    if experiment.data.is_files:
        _ask("--fetch", experiment, FETCH_WALL_S)


def packet_error_tables(experiment: Experiment) -> tuple[PacketErrorTable, ...]:
    """Ask for the packet errors of every permitted modulation; none where the experiment uses formulas.

    They are simulated once and then read from a cache; meanwhile progress appears on stderr.
    """
    if experiment.radio.packet_errors == "formula" or experiment.radio.scheme != "digital":
        return ()
    try:
        return _TABLES.validate_json(_ask("--packet-errors", experiment, SIMULATE_WALL_S))
    except ValidationError as error:
        raise RunError(
            "python -m node --packet-errors is of another version than this coordinator"
        ) from error


def _ask(question: str, experiment: Experiment, wall_s: float) -> str:
    with tempfile.TemporaryDirectory() as folder:
        file, answer = Path(folder) / "experiment.toml", Path(folder) / "answer.json"
        file.write_text(dump(experiment), encoding="utf-8")
        with (
            answer.open("w") as stdout,
            subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", "-m", "node", question, str(file)],
                stdout=stdout,
                stderr=subprocess.PIPE,
                text=True,
            ) as process,
        ):
            overdue = threading.Timer(wall_s, process.kill)
            overdue.start()
            try:
                last_line = _pass_on_progress(process)
            finally:
                overdue.cancel()
        if process.returncode == -signal.SIGKILL:
            raise RunError(f"python -m node {question}: killed, or no answer within {wall_s:g} s")
        if process.returncode == EXIT_BAD_INPUT:
            raise BadInput(last_line)
        if process.returncode:
            reason = last_line or f"exit code {process.returncode}"
            raise RunError(f"python -m node {question} failed: {reason}")
        return answer.read_text(encoding="utf-8")


def _pass_on_progress(process: "subprocess.Popen[str]") -> str:
    """Show what a device says while it works; return its last line, which may be why it failed."""
    last_line = ""
    assert process.stderr is not None
    for line in process.stderr:
        if last_line:
            sys.stderr.write(f"hearsay: {last_line}\n")
        last_line = line.strip().removeprefix("node: ")
    if process.wait() == 0 and last_line:
        sys.stderr.write(f"hearsay: {last_line}\n")
    return last_line
