"""Real `hearsay` processes for tests: started, watched by their own log, and gone at the end."""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from itertools import count
from pathlib import Path
from select import select
from time import monotonic

import numpy as np
import psutil
import pytest
from safetensors.numpy import load_file

from coordinator.plan import make_plan
from protocol.experiment_file import load
from protocol.messages import Description

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
[resources]
gpus = "none"  # what is held against numbers and bits is the same on every host
"""

# What follows from it by hand. 474 parameters: 32 packets of at most 15 and a CRC of 32 bits, QPSK, 2 Mbit/s.
# A header of 60 bytes is sent with BPSK, 1 Mbit/s; an acknowledgement is that and a bit for each packet.
NUM_PARAMETERS = (16 * 16 + 16) + 2 * 16 + (16 * 10 + 10)
NUM_PACKETS = 32
HEADER_AIR_S = 480 / 1e6
FRAME_AIR_S = 32 * (NUM_PARAMETERS + NUM_PACKETS) / 2e6 + HEADER_AIR_S
ACK_AIR_S = HEADER_AIR_S + NUM_PACKETS / 1e6
# A ring of four: all are within two hops of all, so each has a slot, for one frame and two answers.
SUPERFRAME_AIR_S = 4 * FRAME_AIR_S + 4 * 2 * ACK_AIR_S
# A batch of 32 samples, 2 million cycles each, at 1 GHz.
COMPUTE_AIR_S = 32 * 2e6 / 1e9


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
        return events(self.out, kind)

    def parameters(self):
        return parameters(self.out)

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


SHELL = """\
import contextlib, io, json, sys, traceback
from coordinator.cli import app
for line in sys.stdin:
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app(json.loads(line))
        except SystemExit as end:
            code = end.code or 0
        except Exception:  # a test reads of the crash, and the next command still runs
            traceback.print_exc()
            code = "crashed"
    print(json.dumps([code, out.getvalue(), err.getvalue()]), flush=True)
"""


class Shell:
    """One process that runs `hearsay` commands one after the other.

    Devices are processes all the same, but the server they are forked from loads torch only once.
    """

    def __init__(self, folder):
        self.folder = folder
        self.process = subprocess.Popen(
            [sys.executable, "-c", SHELL],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            start_new_session=True,
        )

    def __call__(self, *arguments):
        """Run one command; return its exit code, stdout and stderr."""
        self.process.stdin.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        self.process.stdin.flush()
        assert select([self.process.stdout], [], [], RUN_WALL_S)[0], "no end within the time allowed"
        return json.loads(self.process.stdout.readline())


@dataclass(frozen=True)
class WholeRun:
    """A run that ended with exit code 0: its summary, the table that was printed, and its folder."""

    summary: dict
    table: str
    out: Path

    def events(self, kind):
        return events(self.out, kind)

    def parameters(self):
        return parameters(self.out)


def events(out, kind):
    """Return the events of one kind in a run's folder."""
    log = out / "events.jsonl"
    lines = log.read_text().split("\n")[:-1] if log.exists() else []
    return [event for event in map(json.loads, lines) if event["kind"] == kind]


def parameters(out):
    """Return the final parameters of each device in a run's folder, one vector each, by file name."""
    return {
        path.name: np.concatenate([v.reshape(-1) for _, v in sorted(load_file(path).items())])
        for path in sorted(out.glob("device-*.safetensors"))
    }


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
def write(tmp_path):
    """Write the text or bytes of an experiment; return the path of its file."""

    def write(text):
        path = tmp_path / "experiment.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


@pytest.fixture
def small(tmp_path):
    """Write a small experiment."""
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return file


@pytest.fixture
def planned(small, monkeypatch):
    """Plan the small experiment under some settings; its size is known, so that no device need be asked."""
    description = Description(
        num_parameters=NUM_PARAMETERS,
        num_train=320,
        num_test=80,
        data_found="",
        samples_per_class=((32,) * 10,),
    )
    monkeypatch.setattr("coordinator.plan.describe", lambda experiment: description)
    return lambda *settings: make_plan(load(small, settings))


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
        end_session(run.process)


def end_session(process):
    """Kill whatever lives in the session of a process."""
    for pid in session(process):
        with suppress(ProcessLookupError):
            os.kill(pid, 9)
    process.communicate(timeout=RUN_WALL_S)


@pytest.fixture(scope="session")
def shell(tmp_path_factory):
    """Run `hearsay` commands to their end, in one process and an empty folder."""
    shell = Shell(tmp_path_factory.mktemp("shell"))
    yield shell
    end_session(shell.process)


@pytest.fixture(scope="session")
def whole_run(shell, tmp_path_factory):
    """Run the small experiment to its end under some settings; the same settings are run once a session."""
    folder = tmp_path_factory.mktemp("whole-runs")
    numbers = count()
    (folder / "small.toml").write_text(SMALL)

    @cache
    def run(*settings):
        out = folder / f"run-{next(numbers)}"
        overrides = [part for setting in settings for part in ("--set", setting)]
        code, stdout, stderr = shell("run", folder / "small.toml", *overrides, "--json", "--out", out)
        assert code == 0, stderr
        return WholeRun(json.loads(stdout), stderr, out)

    return run


@pytest.fixture(scope="session")
def real_folder():
    """Return the folder of real image sets: $HEARSAY_DATA, or beside the project; else skip."""
    folder = Path(os.environ.get("HEARSAY_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("no real image sets here: set HEARSAY_DATA to their folder, see docs/data.md")
    return folder.resolve()
