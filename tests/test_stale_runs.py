"""Gossip of bounded staleness by real processes: a disturbed host changes nothing, and no death stops it."""

import json
import os
import signal

import psutil
import pytest

pytestmark = pytest.mark.processes

STALE = (
    "aggregation.staleness_rounds=2",
    "radio.symmetric=false",
    "device.cpu_hz=[1e9,2.5e8,1e9,1e9]",
    "rounds=150",
    "training.evaluate_every=0",
)


OF_THE_HOST = {"run_id", "wall_s", "stages_wall_s", "bytes_sent"}
"""Bytes, since how often clocks are told is up to the host."""


def modelled(run):
    """Return what all devices have reported of each round."""
    reports = run.events("report")
    return {
        (report["device"], report["round"]): {k: v for k, v in report.items() if k not in OF_THE_HOST}
        for report in reports
    }


def rest(pids):
    """Return a condition: between two looks none of these processes did anything."""
    before = {}

    def resting():
        nonlocal before
        last, before = before, {pid: psutil.Process(pid).cpu_times() for pid in pids}
        return before == last

    return resting


def test_a_host_that_stops_devices_for_a_while_changes_no_bit(hearsay, small):
    undisturbed = hearsay(small, *STALE, out="undisturbed")
    run = hearsay(small, *STALE)
    pids = run.wait_for_round(3)
    os.setpriority(os.PRIO_PROCESS, pids[2], 19)
    for device in (0, 1):  # one that is quick, and the slow one
        os.kill(pids[device], signal.SIGSTOP)
        run.wait_until(rest(pids))  # all wait for it by now
        os.kill(pids[device], signal.SIGCONT)
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert summary["frames_missing_wall"] == summary["frames_dropped"] == 0
    assert 0 < summary["stale_rounds_mean"] < 2
    code, stdout, stderr = undisturbed.finish()
    assert code == 0, stderr
    assert summary["air_s"] == json.loads(stdout)["air_s"]
    assert modelled(run) == modelled(undisturbed)
    ours, theirs = run.parameters(), undisturbed.parameters()
    assert len(ours) == 4
    assert all((ours[name] == theirs[name]).all() for name in ours)
