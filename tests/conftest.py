"""Real `hearsay` processes for tests: started, watched by their own log, and gone at the end."""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from time import monotonic

import psutil
import pytest

RUN_WALL_S = 100
LOOK_WALL_S = 0.05

SMALL = """\
name = "small"
devices = 4
rounds = 6
[data]
dataset = "synthetic"
num_samples = 400
num_features = 16
[model]
kind = "mlp"
hidden = [16]
[training]
local_rounds = 1
[codec]
packet_bytes = 64
[radio]
tx_power_dbm = 0
"""


class Run:
    """A `hearsay run` in the background."""

    def __init__(self, arguments, out):
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coordinator", "run", *arguments, "--json", "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def events(self, kind):
        log = self.out / "events.jsonl"
        lines = log.read_text().split("\n")[:-1] if log.exists() else []
        return [event for event in map(json.loads, lines) if event["kind"] == kind]

    def wait_for_round(self, round_):
        """Wait until every device has reported a round; return the devices' pids."""
        self.wait_until(
            lambda: (
                len({e["device"] for e in self.events("report") if e["round"] >= round_})
                == len(self.pids())
                > 0
            )
        )
        return self.pids()

    def pids(self):
        started = self.events("started")
        return started[0]["pids"] if started else []

    def wait_until(self, condition):
        wait_until(condition, self.process)

    def finish(self):
        """Wait for the end; return the exit code, stdout and stderr."""
        stdout, stderr = self.process.communicate(timeout=RUN_WALL_S)
        return self.process.returncode, stdout, stderr


def wait_until(condition, process=None, wall_s=60):
    """Look at a condition again and again, for at most wall_s, or until a process is gone."""
    deadline = monotonic() + wall_s
    while monotonic() < deadline:
        if condition():
            return
        if process is not None and process.poll() is not None:
            assert condition(), process.communicate()
            return
        threading.Event().wait(LOOK_WALL_S)
    pytest.fail(f"nothing happened within {wall_s} s")


def alive(pids):
    """Return which processes still run (a zombie does not)."""
    running = []
    for pid in pids:
        with suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
    return running


def session(process):
    """Return every process that lives in the session of a run."""
    return [p.pid for p in psutil.process_iter() if _session_of(p.pid) == process.pid]


def _session_of(pid):
    with suppress(ProcessLookupError, PermissionError):
        return os.getsid(pid)
    return None


@pytest.fixture
def small(tmp_path):
    """Write a small experiment."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return file


@pytest.fixture
def hearsay(tmp_path):
    """Start `hearsay run` in the background; whatever a test does, none of its processes outlives it."""
    runs = []

    def start(file, *overrides, out="run", options=()):
        settings = [part for setting in overrides for part in ("--set", setting)]
        runs.append(Run([str(file), *settings, *options], Path(tmp_path) / out))
        return runs[-1]

    yield start
    for run in runs:
        for pid in session(run.process):
            with suppress(ProcessLookupError):
                os.kill(pid, 9)
        run.process.communicate(timeout=RUN_WALL_S)
