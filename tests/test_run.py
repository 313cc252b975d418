"""Whole runs: real processes, real sockets, real kills."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from conftest import alive, session, wait_until
from safetensors.numpy import load_file

pytestmark = pytest.mark.processes

LONG = "rounds=1000000"


def parameters(run):
    return {
        path.name: np.concatenate([v.reshape(-1) for _, v in sorted(load_file(path).items())])
        for path in sorted(run.out.glob("device-*.safetensors"))
    }


def test_devices_learn_over_a_lossy_radio_and_leave_a_folder(hearsay, small):
    run = hearsay(small, "rounds=40", "data.num_classes=4", "training.local_rounds=4")
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    summary = json.loads(stdout)  # exactly one object
    assert summary == json.loads((run.out / "summary.json").read_text())
    assert summary["devices"] == 4
    assert summary["rounds"] == 40
    assert summary["accuracy_mean"] > 0.6  # four classes
    assert 0 < summary["packets_lost"] < summary["packets_sent"]
    assert summary["bit_errors"] > 0
    assert summary["frames_missing_wall"] == 0
    assert len(set(summary["pids"])) == 4
    assert run.process.pid not in summary["pids"]
    assert not alive(summary["pids"])
    reports = run.events("report")
    assert {(r["device"], r["round"]) for r in reports} == {(d, r) for d in range(4) for r in range(40)}
    assert all(
        set(r["stages_wall_s"]) == {"train", "encode", "send", "wait", "air", "decode", "mix"}
        for r in reports
    )
    assert len(run.events("consensus")) == 40
    assert {p.name for p in run.out.iterdir()} == {
        "experiment.toml",
        "events.jsonl",
        "summary.json",
        "report.png",
        *(f"device-{i}.safetensors" for i in range(4)),
    }
    # Lost packets are the same in both directions, so no device's loss exceeds what its neighbours saw.
    for r in reports:
        for other, heard in r["heard"].items():
            twin = next(t for t in reports if t["device"] == int(other) and t["round"] == r["round"])[
                "heard"
            ][str(r["device"])]
            assert heard["packets_lost"] == twin["packets_lost"]


def test_the_consensus_estimate_is_exact_when_the_sample_is_everything(hearsay, small):
    run = hearsay(small)
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert summary["num_parameters"] <= 4096
    assert summary["consensus_distance"] == pytest.approx(run.events("consensus")[-1]["distance"], rel=1e-5)
    x = np.stack(list(parameters(run).values()))
    exact = np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())
    assert summary["consensus_distance"] == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("codec", ["float32", "int8"])
def test_same_seed_same_parameters_on_every_transport_and_every_time(hearsay, small, codec):
    runs = [
        hearsay(small, f"codec.kind={codec}", f"transport.kind={kind}", out=f"{kind}{k}")
        for kind, k in (("zmq", 1), ("memory", 1), ("zmq", 2))
    ]
    for run in runs:
        code, stdout, stderr = run.finish()
        assert code == 0, stderr
        assert json.loads(stdout)["packets_lost"] > 0
        assert json.loads(stdout)["frames_missing_wall"] == 0
    first, *others = [parameters(run) for run in runs]
    assert len(first) == 4
    for other in others:
        assert first.keys() == other.keys()
        assert all((first[name] == other[name]).all() for name in first)
    other_seed = hearsay(small, f"codec.kind={codec}", "seed=2", out="other")
    assert other_seed.finish()[0] == 0
    assert any((parameters(other_seed)[name] != first[name]).any() for name in first)


def test_memory_transport_hosts_every_device_in_one_process(hearsay, small):
    code, stdout, stderr = hearsay(small, "transport.kind=memory").finish()
    assert code == 0, stderr
    pids = json.loads(stdout)["pids"]
    assert len(pids) == 4
    assert len(set(pids)) == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_in_a_clean_summary(hearsay, small, number):
    run = hearsay(small, LONG)
    pids = run.wait_for_round(3)
    os.killpg(run.process.pid, number)  # as a terminal does: the whole group gets it
    code, stdout, stderr = run.finish()
    assert code == 128 + number, stderr
    summary = json.loads(stdout)
    assert summary["how"] == "stopped"
    assert summary["rounds"] >= 3
    assert summary["devices_lost"] == []
    assert (run.out / "report.png").exists()
    assert len(parameters(run)) == 4
    wait_until(lambda: not session(run.process))
    assert not alive(pids)


def test_an_interrupt_before_the_start_leaves_nothing(hearsay, small):
    run = hearsay(small, LONG)
    run.wait_until(lambda: run.out.exists())
    run.process.send_signal(signal.SIGINT)
    code, stdout, _ = run.finish()
    assert code == 130
    assert stdout == "" or json.loads(stdout)["how"] == "stopped"
    assert stdout or not run.out.exists()
    wait_until(lambda: not session(run.process))


def test_devices_leave_when_the_coordinator_is_killed(hearsay, small):
    run = hearsay(small, LONG, "runtime.coordinator_grace_s=1")
    pids = run.wait_for_round(3)
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not alive(pids), wall_s=10)
    assert len(parameters(run)) == 4
    wait_until(lambda: not session(run.process))


def test_devices_finish_without_the_coordinator_if_they_may(hearsay, small):
    run = hearsay(small, "rounds=300", "runtime.coordinator_grace_s=inf")
    pids = run.wait_for_round(2)
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not alive(pids))
    without = parameters(run)
    whole = hearsay(small, "rounds=300", out="whole")
    assert whole.finish()[0] == 0
    assert without.keys() == parameters(whole).keys()
    assert all((without[name] == x).all() for name, x in parameters(whole).items())


def test_the_rest_finish_when_a_device_is_killed(hearsay, small):
    run = hearsay(small, "rounds=600", "graph.kind=complete")
    pids = run.wait_for_round(3)
    os.kill(pids[2], signal.SIGKILL)
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert summary["devices_lost"] == [2]
    assert summary["rounds"] == 600
    assert summary["frames_missing_dead"] > 0
    assert summary["frames_missing_wall"] == 0  # known from the operating system, not from a time-out
    [died] = run.events("died")
    assert died["device"] == 2
    assert died["reason"] == "killed by SIGKILL"
    assert died["rounds"] < 600


def test_a_device_that_hangs_costs_one_deadline_and_is_given_up(hearsay, small):
    run = hearsay(small, LONG, "graph.kind=complete", "runtime.liveness_wall_s=1")
    pids = run.wait_for_round(3)
    os.kill(pids[1], signal.SIGSTOP)
    run.wait_until(lambda: run.events("died"))
    seen = max(r["round"] for r in run.events("report"))
    run.wait_until(lambda: max(r["round"] for r in run.events("report")) > seen + 20)
    run.process.send_signal(signal.SIGINT)
    code, stdout, stderr = run.finish()
    assert code == 130, stderr
    summary = json.loads(stdout)
    assert summary["devices_lost"] == [1]
    waited = [r for r in run.events("report") if r["device"] != 1 and r["stages_wall_s"]["wait"] > 0.9]
    assert {r["device"] for r in waited} == {0, 2, 3}
    assert len(waited) == 3  # one deadline once, then nothing
    assert run.events("died")[0]["reason"] == "silent for 2 s, twice runtime.liveness_wall_s"


def test_compare_adds_isolated_and_ideal_runs(hearsay, small):
    run = hearsay(small, "radio.tx_power_dbm=-10", options=("--compare", "isolated,ideal"))
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert set(summary["compare"]) == {"isolated", "ideal"}
    isolated, ideal = summary["compare"]["isolated"], summary["compare"]["ideal"]
    assert isolated["packets_sent"] == isolated["air_s"] == 0
    assert ideal["packets_lost"] == 0 < summary["packets_lost"]
    assert ideal["consensus_distance"] < summary["consensus_distance"] < isolated["consensus_distance"]
    assert (run.out / "compare" / "ideal" / "events.jsonl").exists()


def test_late_frames_of_the_model_are_missing_mass(hearsay, small):
    code, stdout, stderr = hearsay(small, "aggregation.round_deadline_air_s=1e-6").finish()
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert summary["frames_missing_air"] == 4 * 2 * 6
    assert summary["frames_missing_wall"] == 0
    assert summary["packets_lost"] == summary["packets_sent"]


def test_a_node_without_a_coordinator_says_so(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "node", "--coordinator", "tcp://127.0.0.1:9", "--connect-wall-s", "1"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "no coordinator answered at tcp://127.0.0.1:9" in done.stderr


def test_a_device_that_comes_back_from_a_stop_is_heard_again(hearsay, small):
    run = hearsay(small, LONG, "graph.kind=complete", "runtime.liveness_wall_s=3")
    pids = run.wait_for_round(3)
    os.kill(pids[1], signal.SIGSTOP)

    def left_behind():
        """Everybody has given it up and gone on: only then must it skip training to catch up."""
        without_it = [r["round"] for r in run.events("report") if r["device"] != 1 and _unheard(r, "1")]
        return len(without_it) > 15 and max(without_it) - min(without_it) > 5

    run.wait_until(left_behind)
    os.kill(pids[1], signal.SIGCONT)

    def in_step():
        newest = {r["device"]: r for r in run.events("report")}
        return all(not h["missing"] for r in newest.values() for h in r["heard"].values())

    run.wait_until(in_step)
    run.process.send_signal(signal.SIGINT)
    code, stdout, stderr = run.finish()
    assert code == 130, stderr
    summary = json.loads(stdout)
    assert summary["devices_lost"] == []
    skipped = [r for r in run.events("report") if r["loss"] is None]
    assert {r["device"] for r in skipped} == {1}  # it did not train until it had caught up


def _unheard(report, neighbour):
    return report["heard"][neighbour]["missing"] == "wall"


def test_devices_are_known_again_when_the_coordinator_was_away(hearsay, small):
    # Long enough for heartbeats to cut the connections, short enough for nobody to be given up.
    run = hearsay(small, LONG, "runtime.coordinator_grace_s=100", "runtime.liveness_wall_s=30")
    run.wait_for_round(3)
    os.kill(run.process.pid, signal.SIGSTOP)
    connections = psutil.Process(run.pids()[0])
    control = next(c for c in connections.net_connections() if c.raddr and _listens(run.process.pid, c.raddr))
    wait_until(lambda: not any(c.laddr == control.laddr for c in connections.net_connections()))
    os.kill(run.process.pid, signal.SIGCONT)
    seen = max(r["round"] for r in run.events("report"))
    run.wait_until(
        lambda: {r["device"] for r in run.events("report") if r["round"] > seen + 5} == {0, 1, 2, 3}
    )
    run.process.send_signal(signal.SIGINT)
    code, stdout, stderr = run.finish()
    assert code == 130, stderr
    assert json.loads(stdout)["devices_lost"] == []


def _listens(pid, address):
    return any(c.laddr == address and c.status == "LISTEN" for c in psutil.Process(pid).net_connections())


def test_a_device_that_is_told_to_leave_is_lost_at_once(hearsay, small):
    run = hearsay(small, "rounds=600", "graph.kind=complete")
    pids = run.wait_for_round(3)
    os.kill(pids[2], signal.SIGTERM)
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert summary["devices_lost"] == [2]
    assert summary["frames_missing_wall"] == 0
    [died] = run.events("died")
    assert died["reason"].startswith("left after ")
    assert (run.out / "device-2.safetensors").exists()


def test_a_run_ends_although_a_device_does_not_stop(hearsay, small):
    run = hearsay(small, LONG)
    pids = run.wait_for_round(3)
    os.kill(pids[1], signal.SIGSTOP)
    run.process.send_signal(signal.SIGINT)
    run.wait_until(lambda: len(list(run.out.glob("device-*.safetensors"))) == 3)
    run.process.send_signal(signal.SIGINT)  # a second one does not wait
    code, stdout, stderr = run.finish()
    assert code == 130, stderr
    assert json.loads(stdout)["devices_lost"] == [1]
    assert run.events("died")[0]["reason"] == "did not stop in time"
    wait_until(lambda: not session(run.process))


def test_a_second_interrupt_ends_at_once_even_if_nobody_had_stopped(hearsay, small):
    run = hearsay(small, LONG)
    pids = run.wait_for_round(3)
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    run.process.send_signal(signal.SIGINT)
    run.process.send_signal(signal.SIGTERM)
    code, stdout, stderr = run.finish()
    assert code in (128 + signal.SIGINT, 128 + signal.SIGTERM), stderr
    assert json.loads(stdout)["devices_lost"] == [0, 1, 2, 3]
    assert (run.out / "report.png").exists()
    wait_until(lambda: not session(run.process))


def test_the_memory_transport_holds_more_sockets_than_a_context_has_by_default(hearsay, small):
    # Every device has a socket for each of its 33 neighbours: more than the 1,023 of ZeroMQ's default.
    run = hearsay(small, "transport.kind=memory", "graph.kind=complete", "devices=34", "rounds=1")
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    summary = json.loads(stdout)
    assert summary["devices_lost"] == []
    assert summary["rounds"] == 1
