"""Gossip between real devices in one process: what is mixed, and what becomes of what is not.

Two wires carry it: ZeroMQ, where every device has a thread of its own, and the ether of tests/ether.py.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
import zmq
from devices import (
    LIVENESS_WALL_S,
    NUM_VALUES,
    Device,
    Told,
    ack_from,
    complete,
    drift,
    experiment_of,
    frame_from,
    incarnation_of,
    learned,
    live_over_sockets,
    live_together,
    neighbours_of,
    ring,
    sockets,
)
from ether import PATIENCE_S, Ether, Port, Script
from oracle import Oracle
from scipy.stats import norm

from node.control import SLICE_WALL_S, Leave
from node.stopwatch import Stopwatch
from protocol.air import frame_layout
from protocol.codec import decode
from protocol.config import Runtime
from protocol.frame import HEADER_BYTES
from protocol.link import packet_loss_probability
from protocol.messages import NeighbourDied
from protocol.radio import Radio

IDEAL = Radio(scheme="ideal")
SYMMETRIC = Radio(coherence_packets=2)
ONE_SIDED = Radio(coherence_packets=2, symmetric=False)
RADIOS = pytest.mark.parametrize(
    "radio", [IDEAL, SYMMETRIC, ONE_SIDED], ids=["ideal", "symmetric", "one-sided"]
)


@pytest.mark.parametrize("scheme", ["tcp", "inproc"])
def test_an_ideal_channel_on_a_complete_graph_is_the_central_average(scheme):
    pasts = live_over_sockets(scheme, experiment_of(IDEAL), complete(4), num_rounds=1)
    average = np.mean([learned(device, 0) for device in range(4)], axis=0, dtype=np.float64)
    for past in pasts.values():
        np.testing.assert_allclose(past.x[0], average, rtol=0, atol=1e-6)


@RADIOS
@pytest.mark.parametrize("weights", [complete(3), ring(5)], ids=["complete", "ring"])
def test_equals_computing_all_devices_in_one_place(radio, weights):
    """Each device knows its row; whoever knows all rows and the radio's seed must find the same."""
    num_devices = len(weights)
    experiment = experiment_of(radio, devices=num_devices)
    pasts = live_together(Ether(num_devices), experiment, weights, num_rounds=4)
    for round_, xs in enumerate(Oracle(experiment, weights).lives(4)):
        for device, past in pasts.items():
            np.testing.assert_allclose(past.x[round_], xs[device], rtol=0, atol=1e-5)


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@pytest.mark.parametrize("scheme", ["tcp", "inproc"])
def test_sweeps_mix_as_often_as_there_are_of_them(scheme, codec):
    weights = ring(5)
    experiment = experiment_of(IDEAL, devices=5, codec=codec, sweeps=3)
    pasts = live_over_sockets(scheme, experiment, weights, num_rounds=1)
    xs = np.array([learned(device, 0) for device in range(5)], dtype=np.float64)
    wanted = np.linalg.matrix_power(weights, 3) @ xs
    # Each sweep may round by a quantum of its format; those of int8 are max|x| / 127, and max|x| < 4.
    atol = {"float32": 1e-6, "float16": 3 * 2e-3, "int8": 3 * 4 / 127}[codec]
    for device, past in pasts.items():
        np.testing.assert_allclose(past.x[0], wanted[device], rtol=0, atol=atol)
    if codec == "int8":  # each sweep rounds anew
        again = live_over_sockets(scheme, experiment, weights, num_rounds=1)
        assert all(np.array_equal(again[device].x, past.x) for device, past in pasts.items())


def test_every_sweep_meets_errors_of_its_own_and_is_paid_for():
    experiment = experiment_of(SYMMETRIC, sweeps=3)
    pasts = live_together(Ether(4), experiment, complete(4), num_rounds=3)
    once = live_together(Ether(4), experiment_of(SYMMETRIC), complete(4), num_rounds=3)
    num_packets = frame_layout(experiment, NUM_VALUES).num_packets
    assert drift(pasts, 3) < 2e-6
    for device, past in pasts.items():
        for round_ in range(3):
            for neighbour, heard in past.heard[round_].items():
                first = once[device].heard[round_][neighbour]
                assert heard.packets_sent == 3 * num_packets
                assert heard.tx_j == pytest.approx(3 * first.tx_j)
                assert heard.rx_air_s == pytest.approx(3 * first.rx_air_s)
        assert past.air_s[0] > 2.5 * once[device].air_s[0]
    flips = [[h.bit_errors for r in past.heard for h in r.values()] for past in pasts.values()]
    first = [[h.bit_errors for r in past.heard for h in r.values()] for past in once.values()]
    assert 2 < np.sum(flips) / np.sum(first) < 4
    assert not np.array_equal(flips, 3 * np.array(first))  # as one draw for all sweeps would have it
    lost = [h.packets_lost for past in pasts.values() for r in past.heard for h in r.values()]
    assert 0.2 * 3 * num_packets < np.mean(lost) < 0.8 * 3 * num_packets


@RADIOS
def test_the_order_of_arrival_changes_not_one_bit(radio):
    """Four neighbours each: the sum of so many floats would depend on its order."""
    experiment, weights = experiment_of(radio, devices=5, sweeps=2), complete(5)
    first = live_over_sockets("inproc", experiment, weights, num_rounds=4)
    lives = [live_over_sockets("tcp", experiment, weights, num_rounds=4)]
    orders = set()
    for seed in range(4):
        shuffled = Ether(5, seed)
        lives.append(live_together(shuffled, experiment, weights, num_rounds=4))
        orders.add(tuple(shuffled.arrivals))
        assert shuffled.wall_s == 0  # nothing was cut by the wall clock
    assert len(orders) == 4
    for pasts in lives:
        for device, past in pasts.items():
            assert np.array_equal(past.x, first[device].x)
            assert past.heard == first[device].heard
            assert past.air_s == first[device].air_s


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_symmetric_losses_keep_the_mean_and_one_sided_ones_do_not(codec):
    experiment = experiment_of(SYMMETRIC, codec=codec)
    pasts = live_together(Ether(4), experiment, complete(4), num_rounds=5)
    num_packets = frame_layout(experiment, NUM_VALUES).num_packets
    lost = [
        heard.packets_lost for past in pasts.values() for round_ in past.heard for heard in round_.values()
    ]
    assert 0.2 < np.mean(lost) / num_packets < 0.8  # or it would prove nothing
    assert drift(pasts, 5) < 2e-6
    experiment = experiment_of(ONE_SIDED, codec=codec)
    assert drift(live_together(Ether(4), experiment, complete(4), num_rounds=5), 5) > 0.01


@pytest.mark.parametrize(("weights", "devices"), [(complete(4), 4), (ring(6), 6)], ids=["complete", "ring"])
def test_one_sided_losses_move_the_mean_as_far_as_theory_says(weights, devices):
    """E||drift||^2 = p (1 - p) / N^2 sum_ij W_ij^2 ||x_j - x_i||^2 a round, p the chance of a packet.

    From theory.md 4.1. Without fading every packet has the same p and a draw of its own, so a round is
    one draw. The statistic is the mean over 200 independent rounds: 99 % interval, two cells, normal by
    the central limit theorem (its terms are themselves sums over 20 packets and 12 directed links or
    more). The parameters are put back before every round.
    """
    radio, snr_db = Radio(fading="none", symmetric=False), 9.5
    experiment, num_rounds = experiment_of(radio, devices=devices), 200
    layout = frame_layout(experiment, NUM_VALUES)
    assert set(layout.packet_bits) == {512}  # all packets are full, so one p holds for all
    xs = np.array([learned(device, 0) for device in range(devices)])
    p = 1 - float(packet_loss_probability(radio, "qpsk", np.array(10 ** (snr_db / 10)), 512))
    assert 0.4 < p < 0.6
    differences = xs[:, np.newaxis].astype(np.float64) - xs[np.newaxis]
    expected = p * (1 - p) / devices**2 * np.sum(weights**2 * np.sum(differences**2, axis=2))
    ether = Ether(devices)

    def program(number):
        port, mixed = Port(ether, number), []
        device = Device(experiment, weights, number, port, snr_db=lambda a, b: snr_db)

        def run():
            for round_ in range(num_rounds):
                device.x.zero_()
                sent, arrived = device.exchange(round_, x=xs[number])
                arrived.mix_(device.x, sent.xhat)
                mixed.append(device.x.numpy().astype(np.float64))
            return np.array(mixed)

        return run

    mixed = np.array(list(ether.run({number: program(number) for number in range(devices)}).values()))
    moves = np.sum((mixed.mean(axis=0) - xs.mean(axis=0, dtype=np.float64)) ** 2, axis=1)
    half_width = norm.isf(0.01 / 2 / 2) * moves.std(ddof=1) / np.sqrt(num_rounds)
    assert half_width < 0.1 * expected  # or it would prove little
    assert abs(moves.mean() - expected) < half_width


@RADIOS
def test_what_was_heard_is_what_the_air_let_through(radio):
    experiment, weights = experiment_of(radio), ring(4)
    layout, oracle = frame_layout(experiment, NUM_VALUES), Oracle(experiment, weights)
    pasts = live_together(Ether(4), experiment, weights, num_rounds=3)
    corrupted = 0
    for device, past in pasts.items():
        for round_, heard in enumerate(past.heard):
            assert list(heard) == neighbours_of(weights, device)
            for other, of_it in heard.items():
                received = oracle.cross(round_, other, device)
                assert of_it.missing == ""
                assert of_it.packets_sent == layout.num_packets
                assert (of_it.packets_resent, of_it.attempts) == (0, 1)
                assert of_it.packets_corrupted == np.count_nonzero(~received.intact)
                assert of_it.packets_lost == np.count_nonzero(~oracle.mask(round_, other, device))
                assert of_it.bit_errors == received.bit_errors
                corrupted += of_it.packets_corrupted
    assert (corrupted > 0) == (radio is not IDEAL)


@RADIOS
def test_counts_its_bytes(radio):
    experiment = experiment_of(radio)
    layout = frame_layout(experiment, NUM_VALUES)
    pasts = live_together(Ether(4), experiment, ring(4), num_rounds=3)
    frame = HEADER_BYTES + layout.payload_bytes
    if radio is SYMMETRIC:
        frame += HEADER_BYTES + -(-layout.num_packets // 8)
    for past in pasts.values():
        assert past.bytes_sent == [2 * frame] * 3


@pytest.mark.parametrize("diverged", [np.nan, np.inf])
@RADIOS
def test_numbers_that_are_none_are_never_mixed(radio, diverged):
    """They pass every checksum: a diverged neighbour says what it means."""
    experiment, weights = experiment_of(radio, devices=3), complete(3)
    layout, oracle = frame_layout(experiment, NUM_VALUES), Oracle(experiment, weights)
    ether = Ether(3)

    def program(number):
        device, x = Device(experiment, weights, number, Port(ether, number)), learned(number, 0)
        if number == 1:
            x[layout.values(2)] = diverged

        def run():
            sent, arrived = device.exchange(0, x=x)
            arrived.mix_(device.x, sent.xhat)
            return device.x.numpy(), device.exchanges.radio.heard()

        return run

    results = ether.run({number: program(number) for number in range(3)})
    for device in (0, 2):
        mixed, heard = results[device]
        assert np.isfinite(mixed).all()
        lost = ~oracle.mask(0, 1, device)
        lost[2] = True
        assert heard[1].packets_lost == np.count_nonzero(lost)
        assert heard[1].packets_corrupted == np.count_nonzero(~oracle.cross(0, 1, device).intact)


def test_without_neighbours_nothing_arrives_and_nobody_waits():
    experiment = experiment_of(SYMMETRIC, devices=1)
    alone = Ether(1)
    (past,) = live_together(alone, experiment, np.eye(1), num_rounds=2).values()
    assert np.array_equal(past.x[1], learned(0, 0) + learned(0, 1))
    assert past.heard == [{}, {}]
    assert past.bytes_sent == [0, 0]
    assert past.air_s == [0, 0]
    assert alone.wall_s == 0


@RADIOS
def test_a_neighbour_that_never_sends_costs_one_deadline_once(radio):
    experiment, weights = experiment_of(radio, devices=3), complete(3)
    ether, clock = Ether(3), []
    layout = frame_layout(experiment, NUM_VALUES)

    def program(number):
        device = Device(experiment, weights, number, Port(ether, number))
        return lambda: device.live(range(4), before_round=lambda _: clock.append(ether.wall_s))

    pasts = ether.run({0: program(0), 2: program(2)})
    assert sorted(clock) == [0.0] * 2 + [LIVENESS_WALL_S] * 6
    assert ether.wall_s == LIVENESS_WALL_S
    for device, past in pasts.items():
        for heard in past.heard:
            assert heard[1].missing == "wall"
            assert (heard[1].packets_lost, heard[1].packets_corrupted) == (0, 0)  # counted as a frame
            assert heard[1].packets_sent == layout.num_packets  # it may yet return
            assert heard[2 - device].missing == ""
    # Its mass is simply missing: rows still sum to 1, and the two others mix with their own weights.
    oracle = Oracle(experiment, weights)
    oracle.weights = weights.copy()
    oracle.weights[1] = oracle.weights[:, 1] = 0
    for round_, xs in enumerate(oracle.lives(4)):
        for device, past in pasts.items():
            np.testing.assert_allclose(past.x[round_], xs[device], rtol=0, atol=1e-5)


def test_a_neighbour_that_never_sends_costs_one_deadline_on_the_hosts_clock_too():
    experiment = experiment_of(SYMMETRIC, devices=2).model_copy(
        update={"runtime": Runtime(liveness_wall_s=0.3)}
    )
    with sockets("tcp", experiment, complete(2)) as transports:
        device, watch = Device(experiment, complete(2), 0, transports[0]), Stopwatch()
        for round_ in range(20):
            _, arrived = device.exchange(round_, watch=watch)
            assert device.exchanges.radio.heard()[1].missing == "wall"
            assert not arrived.m.any()
            assert watch.wall_s > 0.29
    assert watch.stages().wait < 0.6  # in 20 rounds


@RADIOS
def test_a_death_ends_the_wait_at_once(radio):
    experiment, weights, ether = experiment_of(radio, devices=3), complete(3), Ether(3)
    death = NeighbourDied(device=1, incarnation=incarnation_of(1))

    def program(number):
        device = Device(experiment, weights, number, Port(ether, number))
        return lambda: device.live(range(3), control=Told(death))

    pasts = ether.run({0: program(0), 2: program(2)})
    assert ether.wall_s <= SLICE_WALL_S
    layout = frame_layout(experiment, NUM_VALUES)
    for device, past in pasts.items():
        assert [heard[1].missing for heard in past.heard] == ["dead"] * 3
        assert [heard[1].packets_lost for heard in past.heard] == [0] * 3
        assert [heard[1].packets_sent for heard in past.heard] == [layout.num_packets, 0, 0]
        assert [heard[2 - device].missing for heard in past.heard] == [""] * 3


def test_the_death_of_another_life_ends_no_wait():
    experiment, weights, ether = experiment_of(SYMMETRIC, devices=2), complete(2), Ether(2)
    device = Device(experiment, weights, 0, Port(ether, 0))
    told = Told(NeighbourDied(device=1, incarnation=incarnation_of(1) - 1))
    past = ether.run({0: lambda: device.live(range(1), control=told)})[0]
    assert past.heard[0][1].missing == "wall"
    assert ether.wall_s == LIVENESS_WALL_S


def test_news_on_the_control_plane_wake_a_waiting_device():
    experiment = experiment_of(SYMMETRIC, devices=2)
    experiment = experiment.model_copy(update={"runtime": Runtime(liveness_wall_s=10 * PATIENCE_S)})
    death = NeighbourDied(device=1, incarnation=incarnation_of(1))

    class OnSocket:
        """Told when its socket says so."""

        def news(self):
            return [death] if ours.poll(0) and ours.recv() else []

    with (
        sockets("tcp", experiment, complete(2)) as transports,
        zmq.Context() as context,
        context.socket(zmq.PAIR) as ours,
        context.socket(zmq.PAIR) as theirs,
        ThreadPoolExecutor(1) as pool,
    ):
        ours.bind("inproc://control")
        theirs.connect("inproc://control")
        transports[0].wake_on(ours)
        device = Device(experiment, complete(2), 0, transports[0])
        life = pool.submit(device.live, range(2), control=OnSocket())
        theirs.send(b"a death")
        assert [heard[1].missing for heard in life.result(PATIENCE_S).heard] == ["dead", "dead"]


def test_told_to_leave_it_leaves():
    experiment, weights, ether = experiment_of(SYMMETRIC, devices=2), complete(2), Ether(2)
    device = Device(experiment, weights, 0, Port(ether, 0))
    with pytest.raises(Leave, match="told to stop"):
        ether.run({0: lambda: device.live(range(1), control=Told(Leave("told to stop")))})
    assert ether.wall_s <= SLICE_WALL_S


def test_a_refused_frame_is_not_counted_as_sent():
    """A neighbour whose queue is full will miss this frame; the round goes on without its packets."""
    experiment, weights, ether = experiment_of(SYMMETRIC, devices=2), complete(2), Ether(2)
    ports = [Port(ether, number) for number in range(2)]
    ports[0].forget(1)
    pasts = live_together(ether, experiment, weights, 1, ports=ports)
    num_packets = frame_layout(experiment, NUM_VALUES).num_packets
    assert pasts[0].heard[0][1].packets_sent == 0
    assert pasts[1].heard[0][0].packets_sent == num_packets
    for device, past in pasts.items():  # neither counts the other: the mean is kept
        assert past.heard[0][1 - device].packets_lost == 0
        assert past.heard[0][1 - device].missing == "wall"
        assert np.array_equal(past.x[0], learned(device, 0))


def test_an_acknowledgement_says_which_packets_arrived_first_packet_first():
    experiment = experiment_of(SYMMETRIC)
    script = Script(frame_from(experiment, 1), ack_from(experiment, 1))
    Device(experiment, complete(2), 0, script).exchange(0)
    intact = Oracle(experiment, complete(2)).cross(0, 1, 0).intact
    assert 0 < np.count_nonzero(intact) < len(intact)
    bits = "".join(f"{byte:08b}" for byte in script.said[1][2])
    assert bits == "".join("1" if ok else "0" for ok in intact).ljust(len(bits), "0")


def test_rounding_is_drawn_anew_by_every_device_in_every_round():
    """Or rounding errors would not average out over neighbours and rounds."""
    experiment, x = experiment_of(IDEAL, codec="int8"), torch.from_numpy(learned(0, 0))

    def encoded(number, round_):
        exchanges = Device(experiment, complete(4), number, Script()).exchanges
        outgoings = exchanges.encode(x, round_).outgoing
        payloads = {outgoing.payload.tobytes() for outgoing in outgoings.values()}
        assert len(payloads) == 1  # the same for all neighbours
        return payloads.pop()

    assert encoded(0, 0) == encoded(0, 0)
    assert len({encoded(0, 0), encoded(0, 1), encoded(1, 0)}) == 3


class Tracker:
    """ZeroMQ's word on whether it is still reading a buffer."""

    done = False


def test_a_buffer_that_is_still_read_is_not_written_again():
    exchanges = Device(experiment_of(IDEAL), complete(2), 0, Script()).exchanges
    trackers, sent = [Tracker() for _ in range(3)], []
    for round_, tracker in enumerate(trackers):
        sent.append(exchanges.encode(torch.from_numpy(learned(0, round_)), round_).outgoing[1])
        sent[-1].sent(tracker)
    for round_, outgoing in enumerate(sent):
        values = decode(outgoing.payload, frame_layout(experiment_of(IDEAL), NUM_VALUES))
        assert np.array_equal(values, learned(0, round_))
    trackers[1].done = True
    assert exchanges.encode(torch.zeros(NUM_VALUES), 3).outgoing[1] is sent[1]


def test_an_exchange_charges_its_seconds_to_its_own_stages():
    experiment, watch = experiment_of(ONE_SIDED), Stopwatch()
    device = Device(experiment, complete(2), 0, Script(frame_from(experiment, 1)))
    sent = device.exchanges.encode(device.x, 0)
    watch.restart()
    device.exchanges.exchange(sent, 0, Told(), watch)
    stages = watch.stages().model_dump()
    assert stages["air"] > 0
    assert stages["decode"] > 0
    # The agent's, not the exchange's:
    assert [stages[name] for name in ("train", "encode", "mix", "pace")] == [0, 0, 0, 0]
    assert watch.wall_s == pytest.approx(sum(stages.values()))


@RADIOS
def test_a_neighbour_that_was_silent_is_waited_for_when_it_is_back(radio):
    """It stalls for three deadlines, then catches up: it trains in no time, the other takes a second."""
    experiment, weights, ether = experiment_of(radio, devices=2), complete(2), Ether(2)
    ports, num_rounds = [Port(ether, number) for number in range(2)], 100

    def program(number):
        device = Device(experiment, weights, number, ports[number])

        def train(round_):
            if number == 0:
                ports[0].stall(1.0)
            elif round_ == 0:
                ports[1].stall(3 * LIVENESS_WALL_S)

        return lambda: device.live(range(num_rounds), before_round=train)

    pasts = ether.run({number: program(number) for number in range(2)})
    missing = {device: [heard[1 - device].missing for heard in past.heard] for device, past in pasts.items()}
    assert missing[0][0] == "wall"
    for said in missing.values():
        assert set(said) <= {"", "wall"}
        assert set(said[-num_rounds // 2 :]) == {""}
    assert ether.wall_s == LIVENESS_WALL_S + num_rounds  # one deadline once, then only training


@pytest.mark.parametrize("late", [0, 1, 2])
def test_a_neighbour_that_is_back_in_the_middle_of_a_round_moves_no_mean(late):
    """Either both count it in that round or neither does, wherever it stands in the order of neighbours.

    It misses a deadline; in the round after, another one is slow, so that it is back before that ends.
    """
    experiment, weights, num_rounds = experiment_of(SYMMETRIC, devices=3), complete(3), 6
    missed = 0
    for seed in range(4):
        ether = Ether(3, seed)
        ports = [Port(ether, number) for number in range(3)]

        def program(number, ether=ether, ports=ports):
            device = Device(experiment, weights, number, ports[number])

            def train(now):
                if number == late and now == 0:
                    ports[number].stall(LIVENESS_WALL_S + 1)
                if number == (late + 1) % 3 and now == 1:
                    ports[number].stall(2)

            return lambda: device.live(range(num_rounds), before_round=train)

        pasts = ether.run({number: program(number) for number in range(3)})
        for round_ in range(num_rounds):
            for one, other in ((0, 1), (0, 2), (1, 2)):
                said = pasts[one].heard[round_][other].missing, pasts[other].heard[round_][one].missing
                assert said in [("", ""), ("wall", "wall")]
                missed += said != ("", "")
        assert drift(pasts, num_rounds) < 2e-6
    assert missed >= 4 * 2  # it missed the first round of both others at least
