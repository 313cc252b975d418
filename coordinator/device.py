"""What only a device can tell: model and data, and packet errors of a real code.

The coordinator itself loads neither torch nor datasets; it runs one short `python -m node`.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from protocol.config import Experiment
from protocol.errors import BadInput, RunError
from protocol.experiment_file import dump
from protocol.messages import Description
from protocol.packet_errors import PacketErrorTable

DESCRIBE_WALL_S = 120.0
SIMULATE_WALL_S = 3600.0
_TABLES: TypeAdapter[tuple[PacketErrorTable, ...]] = TypeAdapter(tuple[PacketErrorTable, ...])


def describe(experiment: Experiment) -> Description:
    """Ask for the size of the model and the split of the data.

    Raises BadInput for whatever would keep a device from starting, RunError if it does not answer.
    """
    try:
        return Description.model_validate_json(_ask("--describe", experiment, DESCRIBE_WALL_S))
    except ValidationError as error:
        raise RunError("python -m node --describe is of another version than this coordinator") from error


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
        file = Path(folder) / "experiment.toml"
        file.write_text(dump(experiment), encoding="utf-8")
        try:
            answer = subprocess.run(  # noqa: S603
                [sys.executable, "-P", "-m", "node", question, str(file)],
                capture_output=True,
                text=True,
                timeout=wall_s,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise RunError(f"python -m node {question}: no answer within {wall_s:g} s") from error
    last_line = (answer.stderr.strip().splitlines() or [f"exit code {answer.returncode}"])[-1]
    if answer.returncode == 2:
        raise BadInput(last_line.removeprefix("node: "))
    if answer.returncode:
        raise RunError(f"python -m node {question} failed: {last_line}")
    return answer.stdout
