"""Whole runs as the benchmarks start them: `hearsay run` as its own process."""

import json
import os
import platform
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

HIDDEN = {"100k": "[126]", "1.6M": "[1000, 800]"}
"""Multilayer perceptrons 784-126-10 and 784-1000-800-10, as in `node.floor`."""
RUN_WALL_S = 600


@dataclass(frozen=True)
class Case:
    """A ring of devices that take one local step of batch 32 a round, evaluation off."""

    devices: int
    params: str
    rounds: int


def hearsay(case: Case, *overrides: str) -> dict[str, float]:
    """Run the case with an ideal channel, or as overridden; return its summary."""
    settings = (
        f"devices={case.devices}",
        f"rounds={case.rounds}",
        "data.dataset=synthetic",
        "data.num_features=784",
        f"data.num_samples={max(2000, 64 * case.devices)}",
        "model.kind=mlp",
        "model.norm=none",
        f"model.hidden={HIDDEN[case.params]}",
        "training.local_rounds=1",
        "training.evaluate_every=0",
        "graph.kind=ring",
        "radio.scheme=ideal",
        *overrides,
    )
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "benchmark.toml"
        file.write_text("", encoding="utf-8")
        command = [sys.executable, "-m", "coordinator", "run", str(file), "--json"]
        command += ["--out", str(Path(folder) / "run")]
        return _json_of(command + [part for setting in settings for part in ("--set", setting)])


def environment() -> str:
    """Say on what machine this is measured."""
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} cores, load {load:.1f}, Python {platform.python_version()}, {platform.machine()}"
    )


def _json_of(command: list[str]) -> dict[str, float]:
    done = subprocess.run(command, capture_output=True, text=True, timeout=RUN_WALL_S, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    answer: dict[str, float] = json.loads(done.stdout)
    return answer
