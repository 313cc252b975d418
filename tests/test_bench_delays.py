"""A known delay in a real run shows in its own stage, by that much, and in no other one."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import RUN_WALL_S
from slow_stages import DELAY_WALL_S, FILE

pytestmark = pytest.mark.processes

# One process, so that torch is loaded once; the run without a delay is between those with one.
PROGRAM = """\
import sys
from pathlib import Path
from coordinator.bench.cases import Case
from coordinator.bench.measure import measure_case
from coordinator.interrupt import Interrupt
from coordinator.launch import local
local.PRELOAD.append("slow_stages")
case = Case(devices=4, params="100k", transport="zmq", radio="ideal")
folder, file = map(Path, sys.argv[1:])
for repeat, stage in enumerate(("send", "none", "train of device 0")):
    file.write_text(stage)
    done = measure_case(case, folder, rounds=11, repeat=repeat, interrupt=Interrupt())
    print(done.measurement.model_dump_json())
"""
TOLERANCE_WALL_S = 0.3 * DELAY_WALL_S
"""A sleep never ends early, and ends late by what the scheduler takes to give a busy core back, of which the
median of 11 rounds hardly sees anything; what is left is by how much the other stages of 4 devices on shared
cores vary between two runs. Sent twice as often, or charged to another stage, a delay would be off by all
of itself."""


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    """Measure the same case with a slow transport, as it is, and with one slow device."""
    folder = tmp_path_factory.mktemp("bench")
    tests = Path(__file__).parent
    paths = os.pathsep.join([str(tests), str(tests.parent)])
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, folder, folder / "stage"],
        capture_output=True,
        text=True,
        timeout=RUN_WALL_S,
        env=os.environ | {"PYTHONPATH": paths, FILE: str(folder / "stage")},
    )
    assert done.returncode == 0, done.stderr
    assert [p.name for p in folder.iterdir()] == ["stage"]  # no run's folder stays
    return dict(zip(("send", "none", "train"), map(json.loads, done.stdout.splitlines()), strict=True))


def medians(times):
    return {"round": times["round"]["p50"]} | {name: of["p50"] for name, of in times["stages"].items()}


def moved(slow, plain):
    """Return by how much the median of the round, and of each stage, has moved."""
    return {name: value - medians(plain)[name] for name, value in medians(slow).items()}


def test_a_slow_transport_shows_in_send_alone_by_just_that_much(measured):
    by = moved(measured["send"]["all_devices"], measured["none"]["all_devices"])
    both_neighbours = 2 * DELAY_WALL_S
    for name, seconds in by.items():
        expected = both_neighbours if name in ("send", "round") else 0
        assert seconds == pytest.approx(expected, abs=TOLERANCE_WALL_S), name


def test_a_slow_device_shows_as_its_own_training_and_as_others_waiting(measured):
    """On a ring of four devices 1 and 3 wait for device 0, and 2 for them: all rounds last as long."""
    slow, plain = measured["train"]["each_device"], measured["none"]["each_device"]
    for device in range(4):
        by = moved(slow[device], plain[device])
        for name, seconds in by.items():
            waits = name == "wait" and device != 0
            trains = name == "train" and device == 0
            expected = DELAY_WALL_S if waits or trains or name == "round" else 0
            assert seconds == pytest.approx(expected, abs=TOLERANCE_WALL_S), (device, name)


def test_sleeping_takes_no_processor(measured):
    """Of the delays, not even a tenth: as much as a busy machine makes the same work dearer."""
    extra_s = measured["send"]["device_cpu_s"] - measured["none"]["device_cpu_s"]
    assert abs(extra_s) < 0.2 * DELAY_WALL_S
    assert measured["none"]["device_cpu_s"] > 0
