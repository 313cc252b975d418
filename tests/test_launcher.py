"""Devices that somebody else starts: whole runs that wait for them, and how many there will be."""

import json
import os
import re
import signal
import socket
import subprocess
import sys

import pytest

from coordinator.interrupt import Interrupt
from coordinator.launch import launcher
from coordinator.launch.launcher import count_addresses
from protocol.errors import EXIT_BAD_INPUT, BadInput

LISTEN = ("--listen", "tcp://127.0.0.1:*")


@pytest.fixture
def node():
    """Yield a function that starts a device by itself; none outlives the test."""
    started = []

    def start(url):
        command = [sys.executable, "-m", "node", "--coordinator", url]
        started.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def where(run):
    """Return the URL at which a run says that it waits."""
    for line in run.process.stderr:
        if found := re.fullmatch(
            r"hearsay: waiting for 4 x python -m node --coordinator (tcp://\S+)\n", line
        ):
            return found[1]
    return pytest.fail("it ended before it said so")


@pytest.mark.processes
def test_a_run_waits_for_devices_that_others_start(hearsay, node, small):
    run = hearsay(small, "rounds=5", options=LISTEN)
    url = where(run)
    devices = [node(url) for _ in range(4)]
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    assert [process.wait(20) for process in devices] == [0] * 4
    summary = json.loads(stdout)
    assert (summary["devices"], summary["rounds"]) == (4, 5)
    assert sorted(summary["pids"]) == sorted(process.pid for process in devices)
    assert len(run.parameters()) == 4


@pytest.mark.processes
def test_a_device_killed_elsewhere_is_done_without(hearsay, node, small):
    """Nobody tells of its death: its neighbours wait once, and the coordinator twice as long."""
    run = hearsay(small, "rounds=60", "runtime.liveness_wall_s=1", options=LISTEN)
    url = where(run)
    devices = [node(url) for _ in range(4)]
    victim = run.wait_for_round(3)[2]
    os.kill(victim, signal.SIGKILL)
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    [died] = run.events("died")
    assert (died["device"], died["reason"]) == (2, "silent for 2 s, twice runtime.liveness_wall_s")
    assert json.loads(stdout)["rounds"] == 60
    assert sorted(process.wait(20) for process in devices) == [-signal.SIGKILL, 0, 0, 0]


@pytest.mark.processes
def test_ctrl_c_while_it_waits_leaves_nothing(hearsay, small):
    run = hearsay(small, options=LISTEN)
    where(run)
    run.process.send_signal(signal.SIGINT)
    code, _, stderr = run.finish()
    assert code == 128 + signal.SIGINT, stderr
    assert "interrupted before the first round; nothing was kept" in stderr
    assert not run.out.exists()


def test_as_many_devices_come_as_a_name_has_addresses_once_it_has_settled(monkeypatch):
    clock = iter(range(1000))
    answers = [OSError("no such name"), {"10.0.0.1"}, {"10.0.0.1", "10.0.0.2"}, {"10.0.0.2"}]

    def getaddrinfo(name, *_):
        assert name == "node"
        answer = answers.pop(0) if len(answers) > 1 else {"10.0.0.1", "10.0.0.2", "10.0.0.3"}
        if isinstance(answer, OSError):
            raise answer
        return [(None, None, None, "", (address, 0)) for address in answer]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(launcher, "monotonic", lambda: next(clock))
    monkeypatch.setattr(launcher, "sleep", lambda _: None)
    assert count_addresses("node", 60, Interrupt()) == 3


def test_a_name_that_nobody_has_is_refused_in_time(monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(launcher, "monotonic", lambda: next(clock))
    monkeypatch.setattr(launcher, "sleep", lambda _: None)
    with pytest.raises(BadInput, match=r"--as-many-as nobody.invalid: no host has this name after 20 s"):
        count_addresses("nobody.invalid", 20, Interrupt())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--listen", "tcp://127.0.0.1:1", "--compare", "ideal"), "--compare: runs again"),
        (("--as-many-as", "node"), "add --listen"),
        (("--listen", "nowhere"), "nowhere: cannot listen there"),
    ],
)
def test_options_that_make_no_sense_are_refused(shell, small, tmp_path, options, message):
    code, _, stderr = shell("run", small, "--out", tmp_path / "run", *options)
    assert code == EXIT_BAD_INPUT
    assert message in stderr
    assert stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()
