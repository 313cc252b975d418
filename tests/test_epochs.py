"""Epochs of schedules among real processes: deaths, stalls, an absent coordinator, an interrupt."""

import json
import os
import signal

import numpy as np
import pytest
from conftest import alive, wait_until

pytestmark = pytest.mark.processes

LONG = "rounds=1000000"
TREE = ("aggregation.scheme=tree", "graph.kind=complete", "radio.tx_power_dbm=20", "radio.fading=none")


def averaged(run, device, since=0):
    """Return what came of averaging in each round of a device: True where a tree held, else False."""
    return {
        report["round"]: report["averaged"] is not None and not report["averaged"]["broken"]
        for report in run.events("report")
        if report["device"] == device and report["round"] >= since
    }


def members(event):
    return {device for device, parent in enumerate(event["parents"]) if parent != -2}


def test_after_a_death_devices_gossip_until_the_next_tree_which_spans_those_who_live(hearsay, small):
    run = hearsay(small, *TREE, LONG, "aggregation.epoch_rounds=50")
    pids = run.wait_for_round(60)
    os.kill(pids[2], signal.SIGKILL)
    run.wait_until(lambda: run.events("died"))
    seen = max(report["round"] for report in run.events("report"))
    run.wait_until(lambda: min(max(averaged(run, device)) for device in (0, 1, 3)) > seen + 110)
    run.process.send_signal(signal.SIGINT)
    code, stdout, stderr = run.finish()
    assert code == 130, stderr
    assert json.loads(stdout)["devices_lost"] == [2]
    epochs = {event["round"]: members(event) for event in run.events("scheduled")}
    assert all(round_ % 50 == 0 for round_ in epochs)
    assert epochs[0] == epochs[50] == {0, 1, 2, 3}
    first = min(round_ for round_, who in epochs.items() if who == {0, 1, 3})
    assert first > 60
    whole, broken = 0, 0
    for device in (0, 1, 3):
        held = averaged(run, device)
        assert all(held[round_] for round_ in range(50))
        whole += sum(held[round_] for round_ in held if round_ >= first)
        broken += sum(not held[round_] for round_ in held if round_ < first)
        assert all(held[round_] for round_ in held if round_ >= first)
    assert whole > 0
    assert broken > 0


@pytest.mark.parametrize("grace_s", ["1", "inf"])
def test_without_a_coordinator_devices_gossip_and_leave_after_the_grace(hearsay, small, grace_s):
    rounds = "rounds=400" if grace_s == "inf" else LONG
    run = hearsay(
        small, *TREE, rounds, "aggregation.epoch_rounds=40", f"runtime.coordinator_grace_s={grace_s}"
    )
    pids = run.wait_for_round(50)
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not alive(pids))
    x = list(run.parameters().values())
    assert len(x) == 4
    assert all(np.isfinite(one).all() for one in x)
    if grace_s == "inf":  # gossip on a complete graph averages, too
        assert max(np.abs(one - x[0]).max() for one in x) < 0.5


def test_who_stalls_is_waited_for_once_and_is_in_the_next_tree(hearsay, small):
    run = hearsay(small, *TREE, LONG, "aggregation.epoch_rounds=50", "runtime.liveness_wall_s=1")
    pids = run.wait_for_round(60)
    os.kill(pids[1], signal.SIGSTOP)
    count = len(run.events("scheduled"))
    # The others wait in the tree, then gossip, then wait for the schedule, then gossip.

    def broke():
        held = averaged(run, 0)
        return held and not held[max(held)]

    run.wait_until(broke)
    os.kill(pids[1], signal.SIGCONT)
    run.wait_until(lambda: any(members(e) == {0, 1, 2, 3} for e in run.events("scheduled")[count:]))
    again = run.events("scheduled")[-1]["round"]
    run.wait_until(lambda: all(averaged(run, device, again) for device in range(4)))
    run.process.send_signal(signal.SIGINT)
    code, stdout, stderr = run.finish()
    assert code == 130, stderr
    assert json.loads(stdout)["devices_lost"] == []
    assert all(averaged(run, device)[again] for device in range(4))


def test_an_interrupt_ends_the_wait_for_a_schedule(hearsay, small):
    """Device 1 is stopped; the others wait for its gains, for longer than this test would."""
    run = hearsay(small, *TREE, LONG, "aggregation.epoch_rounds=1", "runtime.liveness_wall_s=100")
    pids = run.wait_for_round(5)
    os.kill(pids[1], signal.SIGSTOP)
    counts = []

    def all_wait():
        counts.append(len(run.events("report")))
        return len(counts) > 20 and len(set(counts[-20:])) == 1

    run.wait_until(all_wait)
    run.process.send_signal(signal.SIGINT)
    run.wait_until(lambda: len(list(run.out.glob("device-*.safetensors"))) == 3)
    run.process.send_signal(signal.SIGINT)
    code, stdout, stderr = run.finish()
    assert code == 130, stderr
    assert json.loads(stdout)["devices_lost"] == [1]
