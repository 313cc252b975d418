"""Whole runs: real processes, real sockets, real kills."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import psutil
import pytest
from conftest import (
    ACK_AIR_S,
    COMPUTE_AIR_S,
    FRAME_AIR_S,
    HEADER_AIR_S,
    NUM_PACKETS,
    NUM_PARAMETERS,
    alive,
    session,
    wait_until,
)

pytestmark = pytest.mark.processes

LONG = "rounds=1000000"


def same(first, second):
    """Say whether two runs ended with the same parameters, bit for bit."""
    first, second = first.parameters(), second.parameters()
    assert len(first) == 4
    return first.keys() == second.keys() and all((first[name] == second[name]).all() for name in first)


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
        set(r["stages_wall_s"]) == {"train", "encode", "send", "wait", "air", "decode", "mix", "pace"}
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


def test_the_consensus_estimate_is_exact_when_the_sample_is_everything(whole_run):
    run = whole_run()
    summary = run.summary
    assert summary["num_parameters"] <= 4096
    assert summary["consensus_distance"] == pytest.approx(run.events("consensus")[-1]["distance"], rel=1e-5)
    x = np.stack(list(run.parameters().values()))
    exact = np.sqrt(((x - x.mean(0)) ** 2).sum(1).mean())
    assert summary["consensus_distance"] == pytest.approx(exact, rel=1e-5)


ARQ = ("radio.arq=selective_repeat",)
UNICAST = ("radio.cast=unicast", "radio.access=parallel")
ACCEPT = ("radio.bad_packets=accept", "radio.max_abs_value=10")
WALK = ("mobility.kind=random_waypoint", "mobility.speed_min_m_s=10", "mobility.speed_max_m_s=30")
ANALOG = ("radio.scheme=analog",)
DIFFERENCES = (
    *ANALOG,
    "radio.analog.superposition=orthogonal",
    "radio.analog.payload=differences",
    "radio.analog.refresh_rounds=3",
)


@pytest.mark.parametrize("codec", [(), ("codec.kind=int8",)], ids=["float32", "int8"])
def test_same_seed_same_parameters_on_every_transport_and_every_time(whole_run, codec):
    runs = [whole_run(*codec, *settings) for settings in ((), ("transport.kind=memory",), ("name=again",))]
    for run in runs:
        assert run.summary["packets_lost"] > 0
        assert run.summary["frames_missing_wall"] == 0
    first, *others = runs
    assert [run.summary["transport"] for run in others] == ["memory", "zmq"]
    assert all(same(first, other) for other in others)
    assert not same(first, whole_run(*codec, "seed=2"))


@pytest.mark.parametrize("radio", [ARQ, ANALOG], ids=["arq", "analog"])
def test_repeats_and_sums_in_the_air_do_not_depend_on_what_carries_them(whole_run, radio):
    zmq, memory = whole_run(*radio), whole_run(*radio, "transport.kind=memory")
    assert (zmq.summary["transport"], memory.summary["transport"]) == ("zmq", "memory")
    assert zmq.summary["packets_lost"] == memory.summary["packets_lost"] > 0
    assert same(zmq, memory)
    assert not same(zmq, whole_run())


def both_sides(run):
    """Return, of each round and directed link, what the receiver says of it and what the sender says."""
    said = {
        (report["round"], int(sender), report["device"]): heard
        for report in run.events("report")
        for sender, heard in report["heard"].items()
    }
    return {
        (round_, sender, receiver): (heard, said[round_, receiver, sender])
        for (round_, sender, receiver), heard in said.items()
    }


def sound(run, *, packets_sent=6 * 8 * NUM_PACKETS):
    """Return a run's summary, after checking that nothing went wrong on the host and nobody diverged."""
    summary = run.summary
    assert (summary["how"], summary["rounds"], summary["devices_lost"]) == ("finished", 6, [])
    assert summary["frames_missing_wall"] == summary["frames_missing_dead"] == summary["frames_dropped"] == 0
    assert summary["frames_missing_air"] == 0
    assert summary["packets_sent"] == packets_sent
    assert 0 <= summary["packets_lost"] < packets_sent
    assert len(run.parameters()) == 4
    assert all(np.isfinite(x).all() for x in run.parameters().values())
    return summary


def test_selective_repeat_asks_for_what_was_lost_and_gets_some_of_it(whole_run):
    run = whole_run(*ARQ)
    summary, without = sound(run), whole_run().summary
    assert summary["packets_resent"] > 0
    # Attempt 0 meets the same air; what fails in further attempts comes on top.
    assert summary["packets_corrupted"] > without["packets_corrupted"]
    assert summary["packets_lost"] < without["packets_lost"]
    assert summary["air_s"] > without["air_s"]
    assert summary["joules_tx"] > without["joules_tx"]
    sides = both_sides(run)
    assert len(sides) == 6 * 8
    for heard, sent in sides.values():
        assert (heard["attempts"] > 1) == (sent["packets_resent"] > 0)
        assert heard["packets_lost"] == sent["packets_lost"]
        # Nothing is given up before it was tried four times, one way or the other.
        assert heard["packets_lost"] == 0 or max(heard["attempts"], sent["attempts"]) == 4
    assert {heard["attempts"] for heard, _ in sides.values()} >= {1, 4}


def test_unicast_over_bands_of_their_own_meets_the_same_air_and_takes_other_time(whole_run):
    run, broadcast = whole_run(*UNICAST), whole_run()
    summary = sound(run)
    for what in ("packets_lost", "packets_corrupted", "bit_errors"):
        assert summary[what] == broadcast.summary[what] > 0
    assert same(run, broadcast)
    # Each of four devices sends a frame and an answer to each of two neighbours, one band each.
    assert summary["tx_air_s"] == pytest.approx(6 * 8 * (FRAME_AIR_S + ACK_AIR_S), rel=1e-12)
    assert summary["air_s"] == pytest.approx(6 * (COMPUTE_AIR_S + FRAME_AIR_S + ACK_AIR_S), rel=1e-12)
    assert summary["slot_wait_air_s"] == 0
    assert broadcast.summary["tx_air_s"] == pytest.approx(24 * (FRAME_AIR_S + 2 * ACK_AIR_S), rel=1e-12)


# Without a CRC there are 30 packets of at most 16 numbers. Analog: two to a symbol, norms behind a header.
UNCHECKED_PACKETS = 30
SYMBOLS_AIR_S = NUM_PARAMETERS / 2 / 1e6
NORMS_AIR_S = HEADER_AIR_S + 32 / 1e6


def test_analog_sums_over_the_air_lose_whole_fades_and_never_a_bit(whole_run):
    run = whole_run(*ANALOG)
    summary = sound(run, packets_sent=6 * 8 * UNCHECKED_PACKETS)
    assert summary["packets_corrupted"] == summary["packets_resent"] == summary["bit_errors"] == 0
    sides = both_sides(run)
    for heard, sent in sides.values():
        assert heard["packets_lost"] == sent["packets_lost"]  # channels are reciprocal
        assert heard["packets_lost"] in (0, UNCHECKED_PACKETS)  # one fade lasts for the round
    num_loud = sum(heard["packets_lost"] == 0 for heard, _ in sides.values())
    assert num_loud < len(sides)
    # Everybody says how strong it would be, the loud send their symbols, every receiver how they are scaled.
    tx_air_s = num_loud * SYMBOLS_AIR_S + (len(sides) + 24) * NORMS_AIR_S
    assert summary["tx_air_s"] == pytest.approx(tx_air_s, rel=1e-12)
    side_j = 1e-3 * (tx_air_s - num_loud * SYMBOLS_AIR_S)  # at full power, 1 mW
    # Of those that are summed, all but the weakest turn their power down.
    assert side_j < summary["joules_tx"] < 1e-3 * tx_air_s
    assert summary["air_s"] < whole_run().summary["air_s"]


def test_analog_differences_one_by_one_are_refreshed_and_keep_devices_closer(whole_run):
    run, models = whole_run(*DIFFERENCES), whole_run(*ANALOG)
    summary = sound(run, packets_sent=6 * 8 * UNCHECKED_PACKETS)
    # A digital refresh is one robust broadcast of 32 bits a number, and is never silenced.
    refresh_air_s = HEADER_AIR_S + 32 * NUM_PARAMETERS / 1e6
    fades = both_sides(models)
    for (round_, *link), (heard, _) in both_sides(run).items():
        if round_ in (2, 5):
            assert heard["packets_lost"] == 0
            assert heard["tx_air_s"] == pytest.approx(refresh_air_s / 2, rel=1e-12)
            assert heard["rx_air_s"] == pytest.approx(refresh_air_s, rel=1e-12)
        else:
            assert heard["packets_lost"] == fades[round_, *link][0]["packets_lost"]
    assert summary["packets_lost"] > 0
    # Whoever is on the air alone sends at full power, 1 mW.
    assert summary["joules_tx"] == pytest.approx(1e-3 * summary["tx_air_s"], rel=1e-9)
    assert summary["consensus_distance"] < models.summary["consensus_distance"] / 2


def test_accepted_packets_are_mixed_with_their_flipped_bits(whole_run):
    run, erased = whole_run(*ACCEPT), whole_run()
    summary = sound(run)
    assert summary["packets_lost"] == 0
    for what in ("packets_corrupted", "bit_errors", "air_s", "joules"):
        assert summary[what] == erased.summary[what] > 0
    assert summary["consensus_distance"] > erased.summary["consensus_distance"]
    # A flipped exponent makes numbers of up to 1e38. What is taken is at most max_abs_value = 10, and so is
    # a mean of that; a step of SGD adds little.
    assert max(np.abs(x).max() for x in run.parameters().values()) < 20


def test_walking_changes_links_but_not_where_everybody_begins(whole_run):
    run, still = whole_run(*WALK), whole_run()
    summary = sound(run)
    begun, stayed = both_sides(run), both_sides(still)
    assert all(begun[link] == stayed[link] for link in begun if link[0] == 0)
    assert any(begun[link][0]["bit_errors"] != stayed[link][0]["bit_errors"] for link in begun if link[0] > 0)
    for what in ("packets_sent", "air_s", "joules"):  # nobody moves out of a slot
        assert summary[what] == still.summary[what]


def test_an_ideal_channel_needs_no_time_for_its_fades(whole_run):
    summary = sound(
        whole_run("radio.scheme=ideal", "radio.coherence_packets=4"), packets_sent=6 * 8 * UNCHECKED_PACKETS
    )
    assert summary["packets_lost"] == summary["tx_air_s"] == 0


MIXED = (
    *ARQ,
    "codec.kind=int8",
    "radio.rate=adaptive",
    "radio.cast=unicast",
    "radio.coherence_packets=5",
    "radio.doppler_hz=20",
    "radio.fading=nakagami",
    "radio.burst_packets=2",
    "radio.bad_packets=accept",
    "radio.symmetric=false",
    "radio.shadowing_std_db=4",
    "aggregation.step=0.5",
    "aggregation.step_decay_rounds=3",
)


def test_much_of_it_together_is_the_same_on_every_transport(whole_run):
    run, memory = whole_run(*MIXED), whole_run(*MIXED, "transport.kind=memory")
    summary = sound(run, packets_sent=run.summary["packets_sent"])
    assert summary["packets_resent"] > 0
    for what, value in memory.summary.items():
        if "packets" in what or what in ("bytes_sent", "bit_errors", "frames_dropped"):
            assert summary[what] == value, what
        # Joules and seconds are summed in the order in which frames came in, which the host decides.
        elif what.endswith("air_s") or (what.startswith("joules") and isinstance(value, float)):
            assert summary[what] == pytest.approx(value, rel=1e-12), what
    assert same(run, memory)


def test_memory_transport_hosts_every_device_in_one_process(whole_run):
    pids = whole_run("transport.kind=memory").summary["pids"]
    assert len(pids) == 4
    assert len(set(pids)) == 1
    assert len(set(whole_run().summary["pids"])) == 4


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
    assert len(run.parameters()) == 4
    wait_until(lambda: not session(run.process))
    assert not alive(pids)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_before_the_start_leaves_nothing(hearsay, small, number):
    run = hearsay(small, LONG)
    run.wait_until(lambda: len(session(run.process)) > 2)  # the fork server is loading
    os.killpg(run.process.pid, number)
    code, stdout, stderr = run.finish()
    assert code == 128 + number, stderr
    assert "Traceback" not in stderr
    assert stdout == "" or json.loads(stdout)["how"] == "stopped"
    assert stdout or not run.out.exists()
    wait_until(lambda: not session(run.process))


def test_devices_leave_when_the_coordinator_is_killed(hearsay, small):
    run = hearsay(small, LONG, "runtime.coordinator_grace_s=1")
    pids = run.wait_for_round(3)
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not alive(pids), wall_s=10)
    assert len(run.parameters()) == 4
    wait_until(lambda: not session(run.process))


def test_devices_finish_without_the_coordinator_if_they_may(hearsay, small, whole_run):
    run = hearsay(small, "rounds=300", "runtime.coordinator_grace_s=inf")
    pids = run.wait_for_round(2)
    run.process.kill()
    run.process.wait()
    wait_until(lambda: not alive(pids))
    assert same(run, whole_run("rounds=300"))


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
    assert isolated["packets_sent"] == isolated["tx_air_s"] == 0
    assert isolated["air_s"] == isolated["compute_air_s"] == pytest.approx(6 * 0.064)
    assert ideal["packets_lost"] == 0 < summary["packets_lost"]
    assert ideal["consensus_distance"] < summary["consensus_distance"] < isolated["consensus_distance"]
    assert (run.out / "compare" / "ideal" / "events.jsonl").exists()


def test_late_frames_of_the_model_are_missing_mass(whole_run):
    at_once = whole_run("aggregation.round_deadline_air_s=1e-6", "radio.access=parallel").summary
    assert at_once["frames_missing_air"] == 4 * 2 * 6
    # With slots, one of two neighbours is through before the other begins. That one is late by then, and with
    # symmetric losses nothing counts on a link on which one direction is late.
    in_turn = whole_run("aggregation.round_deadline_air_s=1e-6").summary
    assert in_turn["frames_missing_air"] == 4 * 1 * 6
    for summary in (at_once, in_turn):
        assert summary["frames_missing_wall"] == 0
        assert summary["packets_lost"] == summary["packets_sent"] > 0


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


def test_the_memory_transport_holds_more_sockets_than_a_context_has_by_default(whole_run):
    # Every device has a socket for each of its 33 neighbours: more than the 1,023 of ZeroMQ's default.
    summary = whole_run("transport.kind=memory", "graph.kind=complete", "devices=34", "rounds=1").summary
    assert summary["devices_lost"] == []
    assert summary["rounds"] == 1
