"""Ctrl-C in a benchmark: whatever is measured just then, no process stays."""

import os
import signal
import subprocess
import sys
from contextlib import suppress

import psutil
import pytest
from conftest import RUN_WALL_S, alive, end_session, session, wait_until

pytestmark = pytest.mark.processes

TINY = ("--devices", "3", "--params", "100k", "--transport", "zmq", "--radio", "ideal", "--rounds", "100")
MANY = 5
"""Processes below a benchmark from which on the floor has some of its own: server, tracker, devices."""


def is_floor(process):
    with suppress(psutil.NoSuchProcess):  # devices of the run before it are just leaving
        return any("node.floor" in part for part in process.cmdline())
    return False


def test_an_interrupt_leaves_nothing_running_and_says_that_nothing_was_kept(tmp_path):
    """Within the floor, whose processes are none of the terminal's."""
    out = tmp_path / "bench"
    bench = subprocess.Popen(
        [sys.executable, "-m", "coordinator", "bench", "latency", *TINY, "--out", out],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    below = []
    try:

        def measures_the_floor():
            below[:] = psutil.Process(bench.pid).children(recursive=True)
            return any(map(is_floor, below)) and len(below) > MANY

        wait_until(measures_the_floor, bench)
        floor = [process for process in below if os.getsid(process.pid) != bench.pid]
        assert len(floor) > 3
        for process in floor:
            process.suspend()  # it will not end by itself
        os.killpg(bench.pid, signal.SIGINT)
        stdout, stderr = bench.communicate(timeout=RUN_WALL_S)
        assert (bench.returncode, stdout) == (130, ""), stderr
        wait_until(lambda: not session(bench) and not alive([process.pid for process in below]))
    finally:
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        end_session(bench)
    assert "hearsay: interrupted before a run was finished; nothing was kept" in stderr
    assert not out.exists()
