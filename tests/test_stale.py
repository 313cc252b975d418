"""Gossip of bounded staleness: against a simulation that knows all, by hand, and with who dies or leaves.

A sample takes a second here, and at 1024 Hz a frame of 20 packets of 512 bits, QPSK, and a header of 480,
BPSK, is 5 + 15/32 s on the air: sums of these are exact, so that ties are ties.
"""

from collections import Counter
from dataclasses import dataclass, field
from heapq import heappop, heappush

import numpy as np
import pytest
from devices import (
    LIVENESS_WALL_S,
    NUM_VALUES,
    Device,
    Past,
    Told,
    complete,
    experiment_of,
    frame_from,
    incarnation_of,
    learned,
    neighbours_of,
    path,
)
from ether import Ether, Faulty, Gone, Port, Script
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import Oracle
from rehearsal import experiment_of as run_of
from rehearsal import rehearse

from node.stopwatch import Stopwatch
from node.train import Trained
from protocol.config import Runtime
from protocol.frame import FLAG_LEAVES, Kind
from protocol.messages import NeighbourDied
from protocol.radio import Device as Hardware
from protocol.radio import Radio

FRAME_S = 5 + 15 / 32
IDEAL = Radio(scheme="ideal")
LINKS = Radio(symmetric=False, access="parallel", fading="none", bandwidth_hz=1024)
SLOTS = Radio(symmetric=False, tx_power_dbm=20, bandwidth_hz=1024)
NOTHING_LOST_DB = 60.0


def stale(radio, staleness_rounds, **changes):
    """Return an experiment in which a sample takes a second."""
    experiment = experiment_of(radio, staleness_rounds=staleness_rounds, **changes)
    return experiment.model_copy(update={"device": Hardware(cycles_per_sample=1e9)})


@dataclass
class Life(Past):
    """What a device has been through, when it was behind, what it reserved, and what it dropped."""

    behind: list = field(default_factory=list)
    at_most_j: list = field(default_factory=list)
    dropped: Counter = field(default_factory=Counter)


def live(device, computing, *, control=None):
    """Compute for so many seconds in each round, and exchange."""
    past = Life()
    for round_, seconds in enumerate(computing):
        device.learn(round_, trained=Trained(1.0, seconds, 0.5))
        past.behind.append(device.exchanges.is_behind(round_))
        past.at_most_j.append(device.exchanges.at_most_j)
        sent, arrived = device.sweep(round_, 0, control=control(round_) if control else None)
        arrived.mix_(device.x, sent.xhat)
        past.x.append(device.x.numpy().copy())
        past.heard.append(device.exchanges.radio.heard())
        past.spent.append(device.exchanges.radio.spent())
        past.dropped.update(device.exchanges.peers.dropped())
    return past


def live_all(experiment, weights, computing, *, seed=0, snr_db=NOTHING_LOST_DB, ports=None, control=None):
    """Let devices live together, each computing for so many seconds in each round."""
    ether = Ether(len(weights), seed)
    ports = ports(ether) if ports else [Port(ether, number) for number in range(len(weights))]
    experiment = experiment.model_copy(update={"rounds": len(computing[0]), "devices": len(weights)})

    def program(number):
        device = Device(experiment, weights, number, ports[number], snr_db=lambda a, b: snr_db)
        return lambda: live(device, computing[number], control=control(number) if control else None)

    pasts = ether.run({number: program(number) for number in range(len(weights))})
    return pasts, ether, ports


def staleness(past):
    return [{other: of_it.stale_rounds for other, of_it in heard.items()} for heard in past.heard]


def missing(past, other):
    return [heard[other].missing for heard in past.heard]


# The simulation that knows all: one event after the other, in the order of the model's clock


def simulate(weights, computing, staleness_rounds, *, frame_s):
    """Return each device's x, clock and staleness of its neighbours after every round."""
    num = len(weights)
    around = [neighbours_of(weights, device) for device in range(num)]
    x, rounds = [np.zeros(NUM_VALUES) for _ in range(num)], [0] * num
    boxes, through = [dict.fromkeys(around[device], -1) for device in range(num)], set()
    frames, events, pasts = {}, [], [{"x": [], "air_s": [], "stale": []} for _ in range(num)]

    def begin(device, air_s):
        round_ = rounds[device]
        if round_ < len(computing[device]):
            x[device] = x[device] + learned(device, round_)
            frames[device, round_] = x[device]
            through_s = air_s + computing[device][round_] + (frame_s if around[device] else 0)
            heappush(events, (through_s, round_, "arrives", device))

    for device in range(num):
        begin(device, 0.0)
    while events:
        air_s, round_, what, device = heappop(events)
        if what == "arrives":
            through.add(device)
            for other in around[device]:
                boxes[other][device] = round_
            for other in [device, *around[device]]:
                oldest = rounds[other] - staleness_rounds
                if other in through and all(newest >= oldest for newest in boxes[other].values()):
                    through.remove(other)
                    heappush(events, (air_s, rounds[other], "ends", other))
        else:
            known = [(other, newest) for other, newest in boxes[device].items() if newest >= 0]
            pulls = [weights[device, o] * (frames[o, newest] - x[device]) for o, newest in known]
            x[device] = x[device] + sum(pulls)
            pasts[device]["x"].append(x[device])
            pasts[device]["air_s"].append(air_s)
            pasts[device]["stale"].append({o: max(round_ - newest, 0) for o, newest in known})
            rounds[device] += 1
            begin(device, air_s)
    return pasts


@st.composite
def networks(draw):
    """Return weights of a graph, connected or not."""
    num = draw(st.integers(2, 5))
    weights = np.zeros((num, num))
    for a in range(num):
        for b in range(a):
            weights[a, b] = weights[b, a] = draw(st.sampled_from([0, 1 / num]))
    return weights + np.diag(1 - weights.sum(axis=1))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(
    weights=networks(),
    speeds=st.data(),
    staleness_rounds=st.integers(1, 3),
    radio=st.sampled_from([IDEAL, LINKS, LINKS.model_copy(update={"cast": "unicast"})]),
    seed=st.integers(0, 99),
)
def test_whatever_arrives_when_it_is_what_happens_in_the_order_of_the_models_clock(
    weights, speeds, staleness_rounds, radio, seed
):
    """Nobody waits in vain, nothing is dropped, and nothing mixed is older than it may be."""
    num_rounds = 6
    a_round = st.one_of(st.integers(0, 3), st.integers(0, 30))  # many ties, and some who are far slower
    computing = [
        speeds.draw(st.lists(a_round, min_size=num_rounds, max_size=num_rounds)) for _ in range(len(weights))
    ]
    pasts, ether, _ = live_all(stale(radio, staleness_rounds), weights, computing, seed=seed)
    frame_s = 0.0 if radio.scheme == "ideal" else FRAME_S
    expected = simulate(weights, computing, staleness_rounds, frame_s=frame_s)
    assert ether.wall_s == 0
    for device, past in pasts.items():
        assert past.air_s == expected[device]["air_s"]
        ages = [{o: h.stale_rounds for o, h in heard.items() if not h.missing} for heard in past.heard]
        assert ages == expected[device]["stale"]
        assert all(age <= staleness_rounds for of_all in ages for age in of_all.values())
        assert all(h.missing in ("", "air") for heard in past.heard for h in heard.values())
        assert not past.dropped
        assert not any(past.behind)
        spent_j = [sum(h.tx_j + h.rx_j for h in heard.values()) for heard in past.heard]
        assert all(j <= most * (1 + 1e-12) for j, most in zip(spent_j, past.at_most_j, strict=True))
        np.testing.assert_allclose(past.x, expected[device]["x"], atol=2e-5)


@pytest.mark.parametrize("radio", [IDEAL, LINKS], ids=["ideal", "digital"])
def test_devices_of_one_speed_go_in_step_bit_for_bit(radio):
    in_step = experiment_of(radio)
    for seed in range(3):
        pasts, _, _ = live_all(stale(radio, 2), complete(4), [[3] * 5] * 4, seed=seed)
        usual, _, _ = live_all(in_step, complete(4), [[3] * 5] * 4, seed=seed)
        for device, past in pasts.items():
            assert np.array_equal(past.x, usual[device].x)
            assert staleness(past) == [dict.fromkeys(neighbours_of(complete(4), device), 0)] * 5


# By hand


def test_who_is_slow_holds_up_nobody_but_for_what_is_too_old():
    """Device 0 is ten times as slow: its frames come at 10, 20, ..., and two rounds may lie between."""
    computing = [[10] * 6, [1] * 6, [1] * 6]
    pasts, _, _ = live_all(stale(IDEAL, 2), complete(3), computing)
    assert pasts[0].air_s == [10, 20, 30, 40, 50, 60]  # it never waits: theirs are newer than its own
    for device in (1, 2):
        # Rounds 0 and 1 need nothing of it, round 2 its first, at 10, round 3 its second, at 20, ...
        assert pasts[device].air_s == [1, 2, 10, 20, 30, 40]
        assert missing(pasts[device], 0) == ["air", "air", "", "", "", ""]
        assert [ages[0] for ages in staleness(pasts[device])] == [0, 0, 2, 2, 2, 2]
    in_step, _, _ = live_all(stale(IDEAL, 0), complete(3), computing)
    assert {device: past.air_s[-1] for device, past in in_step.items()} == {0: 60, 1: 60, 2: 60}


@pytest.mark.parametrize("staleness_rounds", [0, 1, 2, 3])
def test_who_is_slow_for_good_sets_the_pace_of_all_later_with_every_hop(staleness_rounds):
    """(R + 1 - (s + 1) h) tau + (h - 1) c, h hops away from it."""
    slow_s, quick_s, num_rounds = 10, 1, 20
    computing = [[slow_s] * num_rounds, *[[quick_s] * num_rounds] * 4]
    pasts, _, _ = live_all(stale(IDEAL, staleness_rounds), path(5), computing)
    ends = [
        (num_rounds + 1 - (staleness_rounds + 1) * hops) * slow_s + (hops - 1) * quick_s
        for hops in range(1, 5)
    ]
    assert [past.air_s[-1] for past in pasts.values()] == [num_rounds * slow_s, *ends]


def test_the_same_frame_counts_again_until_there_is_a_newer_one():
    """Device 1 sends at 4 and 8; device 0 mixes its first frame at 5, 6 and 7, and it is heard once."""
    pasts, _, _ = live_all(stale(IDEAL, 3), complete(2), [[5, 1, 1, 1], [4] * 4])
    assert [ages[1] for ages in staleness(pasts[0])] == [0, 1, 2, 2]
    assert [heard[1].attempts for heard in pasts[0].heard] == [1, 0, 0, 1]
    x, first, second = np.zeros(NUM_VALUES), learned(1, 0), learned(1, 0) + learned(1, 1)
    assert pasts[1].air_s == [4, 8, 12, 16]
    for round_, theirs in enumerate([first, first, first, None]):
        x = x + learned(0, round_)
        if theirs is None:  # at 8 that of its second round, before which it had nothing of device 0 to mix
            theirs = second
        x = (x + theirs) / 2
        np.testing.assert_allclose(pasts[0].x[round_], x, atol=1e-6)


def test_who_waits_mixes_what_has_come_of_the_others_meanwhile():
    """Device 1 waits at 2 for the first frame of device 0, at 9, and then has one of device 2 sent at 8."""
    pasts, _, _ = live_all(stale(IDEAL, 1), path(3), [[9, 9, 9], [1, 1, 1], [4, 4, 4]])
    assert pasts[1].air_s == [1, 9, 18]
    assert staleness(pasts[1]) == [{0: 0, 2: 0}, {0: 1, 2: 0}, {0: 1, 2: 0}]
    x = (learned(1, 0) + learned(1, 1)) * (1 / 3)
    x = x + learned(0, 0) / 3 + pasts[2].x[0] / 3 + learned(2, 1) / 3
    np.testing.assert_allclose(pasts[1].x[1], x, atol=1e-6)


def test_a_frame_counts_from_when_its_last_bit_has_come():
    """Device 1 is through half a second before device 0, whose frame it has only in its next round."""
    other = stale(LINKS, 3).model_copy(update={"device": Hardware(cycles_per_sample=(1.5e9, 1e9))})
    pasts, _, _ = live_all(other, complete(2), [[1, 1], [1, 1]])
    assert pasts[0].air_s == [1.5 + FRAME_S, 2 * (1.5 + FRAME_S)]
    assert pasts[1].air_s == [1 + FRAME_S, 2 * (1 + FRAME_S)]
    assert missing(pasts[0], 1) == ["", ""]
    assert missing(pasts[1], 0) == ["air", ""]


def test_who_waits_idly_draws_power_and_hears_every_frame_once():
    pasts, _, _ = live_all(stale(LINKS, 1), complete(2), [[20] * 5, [1] * 5])
    for device, past in pasts.items():
        assert sum(spent.idle_j for spent in past.spent) == pytest.approx(0.01 * past.air_s[-1])
        heard = [h[1 - device] for h in past.heard]
        assert sum(h.rx_air_s for h in heard) == pytest.approx(FRAME_S * sum(h.attempts for h in heard))
        assert sum(h.tx_air_s for h in heard) == pytest.approx(FRAME_S * 5)
        assert all(h.tx_j == pytest.approx(0.01 * h.tx_air_s) for h in heard)  # 10 dBm
    assert [h[0].attempts for h in pasts[1].heard] == [0, 1, 1, 1, 1]
    assert [h[1].attempts for h in pasts[0].heard] == [2, 1, 1, 1, 0]


# The air


IN_TURNS = SLOTS.model_copy(update={"cast": "unicast", "coherence_packets": 3})


@pytest.mark.parametrize(
    ("codec", "radio"),
    [("float32", SLOTS), ("float16", SLOTS), ("int8", SLOTS), ("float32", IN_TURNS)],
)
def test_the_air_is_that_of_the_senders_round_whenever_it_is_used(codec, radio):
    """What a lossy link delivers of a frame is what it delivers of it in step."""
    experiment = stale(radio, 2, codec=codec)
    weights = complete(3)
    oracle = Oracle(experiment_of(radio, codec=codec), weights, snr_db=lambda a, b: 14.0)
    computing = [[60] * 5, [1] * 5, [1] * 5]
    pasts, _, _ = live_all(experiment, weights, computing, snr_db=14.0)
    again, _, _ = live_all(experiment, weights, computing, snr_db=14.0, seed=5)
    lost = 0
    for device, past in pasts.items():
        assert np.array_equal(past.x, again[device].x)
        for other in neighbours_of(weights, device):
            heard = 0
            for of_it in (h[other] for h in past.heard):
                rounds = range(heard, heard + of_it.attempts)
                came = [oracle.delivered(round_, other)[device] for round_ in rounds]
                heard += of_it.attempts
                assert of_it.packets_lost == of_it.packets_corrupted == sum(c.packets_corrupted for c in came)
                assert of_it.bit_errors == sum(c.bit_errors for c in came)
                lost += of_it.packets_lost
    assert lost


def test_what_was_lost_of_a_frame_is_lost_each_time_that_it_counts():
    """Where packets of it are missing the receiver keeps its own numbers, in every round."""
    experiment, weights = stale(SLOTS, 3), complete(2)
    oracle = Oracle(experiment_of(SLOTS, devices=2), weights, snr_db=lambda a, b: 11.5)
    pasts, _, _ = live_all(experiment, weights, [[100] * 4, [10] * 4], snr_db=11.5)
    got = np.repeat(oracle.delivered(0, 0)[1].got, 15)
    assert 0 < np.count_nonzero(got) < NUM_VALUES
    assert missing(pasts[1], 0)[:3] == ["air"] * 3
    own = pasts[1].x[2] + learned(1, 3)
    np.testing.assert_allclose(pasts[1].x[3], np.where(got, (own + learned(0, 0)) / 2, own), atol=1e-6)


def test_there_is_no_waiting_for_the_models_clock_where_there_is_none():
    """But for what is too old: a device that is behind on the host is waited for there."""
    experiment = stale(IDEAL, 2)
    experiment = experiment.model_copy(
        update={"runtime": experiment.runtime.model_copy(update={"clock": "wall"})}
    )
    ages = set()
    for seed in range(8):
        pasts, ether, _ = live_all(experiment, complete(3), [[1] * 9] * 3, seed=seed)
        assert ether.wall_s == 0
        for past in pasts.values():
            assert past.air_s == [0] * 9
            ages |= {age for of_all in staleness(past) for age in of_all.values()}
    assert ages == {0, 1, 2}


def test_a_paced_clock_says_what_time_it_will_be_before_it_is():
    """Or the others would miss their own deadlines, waiting until it has sent what comes later."""
    experiment = stale(LINKS, 1)
    paced = experiment.model_copy(update={"runtime": Runtime(clock="paced")})
    for one, told in ((experiment, []), (paced, [(Kind.GONE_ON, 0, 7.0)])):
        script = Script(frame_from(experiment, 1, air_s=50.0))
        device = Device(one, complete(2), 0, script)
        device.learn(0, trained=Trained(1.0, 7, 0.5))
        sent = device.exchanges.encode(device.x, 0)
        assert [(header.kind, header.round, header.air_s) for _, header, _ in script.said] == told
        device.exchanges.exchange(sent, 0, Told(), Stopwatch())
        assert script.said[-1][1].kind is Kind.PARAMETERS


# Who dies, hangs or comes to an end


def test_the_last_frame_of_the_dead_counts_until_it_is_too_old():
    """Device 2 dies before its third round; device 0 is told before its own fourth round."""
    weights, num_rounds = complete(3), 7

    def lets_through(to, header):
        if header.round == 2 and header.kind is Kind.PARAMETERS:
            raise Gone
        return True

    def ports(ether):
        return [Port(ether, 0), Port(ether, 1), Faulty(ether, 2, lets_through)]

    def control(number):
        died = NeighbourDied(device=2, incarnation=incarnation_of(2))
        return lambda round_: Told(died) if round_ == 3 and number != 2 else Told()

    pasts, _, _ = live_all(stale(IDEAL, 2), weights, [[1] * num_rounds] * 3, ports=ports, control=control)
    for device in (0, 1):
        assert missing(pasts[device], 2) == ["", "", "", "", "dead", "dead", "dead"]
        assert [ages[2] for ages in staleness(pasts[device])] == [0, 0, 1, 2, 0, 0, 0]
        assert [heard[2].packets_sent for heard in pasts[device].heard][4:] == [0, 0, 0]
        assert missing(pasts[device], 1 - device) == [""] * num_rounds
        assert pasts[device].air_s == list(range(1, num_rounds + 1))


def test_who_hangs_costs_one_deadline_and_is_heard_again_when_it_is_back():
    """Device 1 is held in its third round for so long that device 0 gives it up, and goes on."""
    experiment, weights = stale(IDEAL, 1), complete(2)

    def control(number):
        return lambda round_: Held(ports[1]) if (number, round_) == (1, 2) else Told()

    ports = []

    def open_ports(ether):
        ports.extend(Port(ether, number) for number in range(2))
        return ports

    pasts, ether, _ = live_all(experiment, weights, [[1] * 12] * 2, ports=open_ports, control=control)
    assert "wall" in missing(pasts[0], 1)
    assert any(pasts[1].behind)
    assert ether.wall_s == pytest.approx(LIVENESS_WALL_S + 1)
    assert len(pasts[0].x) == len(pasts[1].x) == 12


class Held(Told):
    """Whoever asks for news is held for longer than others wait."""

    def __init__(self, port):
        super().__init__()
        self._port = port

    def news(self):
        if self._port:
            self._port, port = None, self._port
            port.stall(LIVENESS_WALL_S + 1)
        return []


def test_who_leaves_has_not_left_while_it_waits_in_its_last_round():
    experiment = stale(LINKS, 1)
    script = Script(*(frame_from(experiment, 1, round_=r, air_s=50.0 * r) for r in range(4)))
    device = Device(experiment, complete(2), 0, script, snr_db=lambda a, b: NOTHING_LOST_DB)
    for round_ in range(3):
        device.exchanges.peers.leaves = round_ == 2
        device.exchange(round_)
    *_, (_, last, _), (_, waiting, _) = script.said
    assert (last.kind, bool(last.flags & FLAG_LEAVES)) == (Kind.PARAMETERS, True)
    assert (waiting.kind, bool(waiting.flags & FLAG_LEAVES)) == (Kind.GONE_ON, False)
    assert (waiting.round, waiting.air_s) == (3, 50 + FRAME_S)  # when that of round 1 had come


# Whole runs: who leaves, and what everybody may spend

RUN = {
    "rounds": 8,
    "radio": {"symmetric": False, "access": "parallel"},
    "graph": {"kind": "complete"},
    "aggregation": {"staleness_rounds": 2},
    "device": {"cpu_hz": [1e9, 2.5e8, 1e9, 5e8], "idle_power_w": 0.0},
}


def test_who_leaves_is_known_to_have_left_at_the_same_moment_in_every_run():
    chosen = RUN | {"device": RUN["device"] | {"switched_capacitance": 0.0}}  # only talking costs joules
    free = rehearse(run_of(**chosen))
    poor = run_of(**chosen, budget={"joules": [9, 9, 1.5 * free.joules(2), 9]})
    runs = [rehearse(poor, seed=seed) for seed in range(4)]
    for it in runs:
        assert 2 < it.rounds(2) < 8
        assert "J are left" in it.done[2].why_early
        assert [it.rounds(device) for device in (0, 1, 3)] == [8, 8, 8]
        assert it.wall_s == free.wall_s
        for device in (0, 1, 3):
            heard = [report.heard[2] for report in it.reports[device]]
            assert {h.missing for h in heard} <= {"", "air", "dead"}
            assert all(h.stale_rounds <= 2 for h in heard)
            gone = [h.missing == "dead" for h in heard]
            assert gone == sorted(gone)  # for good
            assert not any(h.packets_sent for h, dead in zip(heard[1:], gone, strict=False) if dead)
        assert any(report.heard[2].missing == "dead" for report in it.reports[0])
        assert modelled(it) == modelled(runs[0])
        assert all((it.parameters[name] == runs[0].parameters[name]).all() for name in it.parameters)


def modelled(it):
    """Return all that was counted but for bytes: how often clocks are told depends on the host."""
    return {
        device: [report.model_copy(update={"bytes_sent": 0}) for report in reports]
        for device, reports in it.ledgers().items()
    }


SHARES = st.lists(st.floats(0.15, 1.2), min_size=4, max_size=4)


@settings(derandomize=True, deadline=None, max_examples=6)
@given(
    shares=SHARES,
    of=st.sampled_from(["joules", "seconds"]),
    radio=st.fixed_dictionaries(
        {
            "cast": st.sampled_from(["broadcast", "unicast"]),
            "access": st.sampled_from(["tdma", "parallel"]),
            "symmetric": st.just(False),
        }
    ),
    idle_power_w=st.sampled_from([0.0, 0.1]),
    kind=st.sampled_from(["ring", "complete", "star"]),
)
def test_no_budget_is_exceeded_and_nobody_waits_in_vain(shares, of, radio, idle_power_w, kind):
    chosen = RUN | {
        "radio": radio,
        "graph": {"kind": kind},
        "device": RUN["device"] | {"idle_power_w": idle_power_w},
    }
    free = rehearse(run_of(**chosen))
    most = max(map(free.joules if of == "joules" else free.air_s, range(4)))
    budget = [share * most for share in shares]
    runs = [rehearse(run_of(**chosen, budget={of: budget}), seed=seed) for seed in range(2)]
    for it in runs:
        assert it.wall_s <= free.wall_s + 1  # that at the door
        for device in range(4):
            spent = it.joules(device) if of == "joules" else it.air_s(device)
            assert spent <= budget[device] * (1 + 1e-9)
    assert modelled(runs[0]) == modelled(runs[1])
