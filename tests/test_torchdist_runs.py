"""Whole runs over torch.distributed: the same as over ZeroMQ, and an end for all where one is gone."""

import json
import os
import signal

import pytest
from conftest import alive, session, wait_until
from ranks import alike
from test_run import ARQ, LONG, same

pytestmark = pytest.mark.processes

GLOO = "transport.kind=gloo"


def told(run):
    """Return what every device reported of every round, but for what the host decides."""
    reports = {}
    for report in run.events("report"):
        of_host = {"run_id", "wall_s", "stages_wall_s"}
        reports[report["device"], report["round"]] = {k: v for k, v in report.items() if k not in of_host}
    return reports


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("radio.scheme=ideal", "aggregation.sweeps=3"),
        ARQ,
    ],
    ids=["digital", "ideal", "arq"],
)
def test_a_run_over_gloo_is_the_same_bit_for_bit(whole_run, settings):
    zmq, gloo = whole_run(*settings), whole_run(*settings, GLOO)
    assert (zmq.summary["transport"], gloo.summary["transport"]) == ("zmq", "gloo")
    assert same(zmq, gloo)
    reports, others = told(zmq), told(gloo)
    assert len(reports) == 4 * 6
    assert reports.keys() == others.keys()
    for key in reports:
        assert alike(reports[key], others[key]), key
    if "radio.arq=selective_repeat" in settings:
        assert gloo.summary["packets_resent"] > 0


def test_a_killed_device_ends_the_run_which_names_it(hearsay, small, monkeypatch):
    # Whoever starts a run may itself be one of torchrun's processes: the run's devices are not.
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "a", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    run = hearsay(small, LONG, GLOO)
    pids = run.wait_for_round(3)
    os.kill(pids[2], signal.SIGKILL)
    code, stdout, stderr = run.finish()
    assert (code, stdout) == (1, "")
    assert "device 2: killed by SIGKILL; over gloo nobody goes on without it" in stderr
    assert [died["device"] for died in run.events("died")] == [2]
    wait_until(lambda: not session(run.process))
    assert not alive(pids)


def test_a_device_that_hangs_ends_the_run_within_the_deadline(hearsay, small):
    run = hearsay(small, LONG, GLOO, "runtime.liveness_wall_s=1.5")
    pids = run.wait_for_round(3)
    os.kill(pids[1], signal.SIGSTOP)
    code, _, stderr = run.finish()
    assert code == 1
    assert "device 1 said nothing for 1.5 s (runtime.liveness_wall_s)" in stderr
    [died] = run.events("died")
    assert died["device"] in (0, 2)  # the neighbours, who told of it
    wait_until(lambda: not session(run.process))
    assert not alive(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_a_clean_summary(hearsay, small, number):
    run = hearsay(small, LONG, GLOO)
    pids = run.wait_for_round(3)
    os.killpg(run.process.pid, number)
    code, stdout, stderr = run.finish()
    assert code == 128 + number, stderr
    summary = json.loads(stdout)
    assert summary["how"] == "stopped"
    assert summary["rounds"] >= 3
    assert summary["devices_lost"] == []
    assert len(run.parameters()) == 4
    wait_until(lambda: not session(run.process))
    assert not alive(pids)


def test_devices_leave_when_the_coordinator_is_killed(hearsay, small):
    run = hearsay(small, LONG, GLOO, "runtime.coordinator_grace_s=1")
    pids = run.wait_for_round(3)
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not alive(pids), wall_s=20)
    assert len(run.parameters()) == 4
    wait_until(lambda: not session(run.process))


def test_devices_finish_without_the_coordinator_if_they_may(hearsay, small, whole_run):
    run = hearsay(small, "rounds=300", "runtime.coordinator_grace_s=inf", GLOO)
    pids = run.wait_for_round(2)
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not alive(pids))
    assert same(run, whole_run("rounds=300"))
