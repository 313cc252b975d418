"""Gossip that asks again: what is sent once more, over which wire, and that it changes nothing else."""

import socket
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
from devices import (
    LIVENESS_WALL_S,
    NUM_VALUES,
    Device,
    Told,
    complete,
    drift,
    experiment_of,
    incarnation_of,
    learned,
    live_over_sockets,
    live_together,
    neighbours_of,
    path,
    ring,
)
from ether import PATIENCE_S, Ether, Faulty, Gone, Port
from oracle import Oracle

from node.control import SLICE_WALL_S
from protocol.air import Transmission, frame_layout
from protocol.codec import decode, selected
from protocol.frame import HEADER_BYTES, MODULATION_OF, Kind, unpack
from protocol.messages import NeighbourDied
from protocol.modulation import BITS_PER_SYMBOL, bit_error_probability
from protocol.radio import Mobility, Radio

BROADCAST = Radio(coherence_packets=2, arq="selective_repeat", max_attempts=5)
UNICAST = BROADCAST.model_copy(update={"cast": "unicast"})
ONE_SIDED = BROADCAST.model_copy(update={"symmetric": False})
CASTS = pytest.mark.parametrize("radio", [BROADCAST, UNICAST], ids=["broadcast", "unicast"])
RADIOS = pytest.mark.parametrize(
    "radio", [BROADCAST, UNICAST, ONE_SIDED], ids=["broadcast", "unicast", "one-sided"]
)
ATTEMPTS_TO_LOSE_NOTHING = 64


def all_heard(pasts):
    return [of_it for past in pasts.values() for heard in past.heard for of_it in heard.values()]


def assert_same(pasts, others):
    """Nothing that devices went through differs by a bit."""
    for device, past in pasts.items():
        assert np.array_equal(past.x, others[device].x)
        assert (past.heard, past.spent, past.bytes_sent) == (
            others[device].heard,
            others[device].spent,
            others[device].bytes_sent,
        )


# What is mixed


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@RADIOS
def test_with_enough_attempts_nothing_is_lost_and_it_is_the_ideal_channel_bit_for_bit(radio, codec):
    """At links that lose a packet in three on average, with a fade of its own for every attempt.

    The packets of a checked frame are shorter than those of an ideal one, and int8 has one scale for each:
    there the ideal channel is a clean digital one.
    """
    radio = radio.model_copy(update={"max_attempts": ATTEMPTS_TO_LOSE_NOTHING})
    ideal = Radio(fading="none") if codec == "int8" else Radio(scheme="ideal")
    weights = complete(4)
    pasts = live_together(Ether(4), experiment_of(radio, codec=codec), weights, 2)
    clean = live_together(Ether(4), experiment_of(ideal, codec=codec), weights, 2, snr_db=lambda a, b: 60.0)
    heard = all_heard(pasts)
    assert not any(of_it.packets_lost for of_it in heard)
    assert np.mean([of_it.packets_resent for of_it in heard]) > 5  # or it would prove nothing
    for device, past in pasts.items():
        assert np.array_equal(past.x, clean[device].x)


@RADIOS
def test_one_attempt_is_no_arq(radio):
    once, none = (radio.model_copy(update=changed) for changed in ({"max_attempts": 1}, {"arq": "none"}))
    pasts, others = (
        live_together(Ether(4), experiment_of(one), complete(4), num_rounds=3) for one in (once, none)
    )
    assert any(of_it.packets_lost for of_it in all_heard(pasts))
    assert_same(pasts, others)


@RADIOS
@pytest.mark.parametrize("weights", [complete(3), path(4)], ids=["complete", "path"])
def test_equals_computing_all_devices_in_one_place(radio, weights):
    """Each device knows its row; whoever knows all rows and the radio's seed must find the same."""
    num_devices = len(weights)
    experiment = experiment_of(radio.model_copy(update={"max_attempts": 3}), devices=num_devices)
    oracle = Oracle(experiment, weights)
    pasts = live_together(Ether(num_devices), experiment, weights, num_rounds=4)
    for round_, xs in enumerate(oracle.lives(4)):
        for device, past in pasts.items():
            np.testing.assert_allclose(past.x[round_], xs[device], rtol=0, atol=1e-5)
    lost = 0
    for device, past in pasts.items():
        for round_, heard in enumerate(past.heard):
            for other, of_it in heard.items():
                theirs, mine = (
                    oracle.delivered(round_, other)[device],
                    oracle.delivered(round_, device)[other],
                )
                assert of_it.missing == ""
                assert of_it.packets_sent == oracle.layout.num_packets
                assert of_it.packets_resent == mine.packets_resent
                assert of_it.attempts == len(theirs.sent)
                assert of_it.packets_corrupted == theirs.packets_corrupted
                assert of_it.bit_errors == theirs.bit_errors
                assert of_it.packets_lost == np.count_nonzero(~oracle.mask(round_, other, device))
                lost += of_it.packets_lost
    assert lost > 0


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@CASTS
def test_symmetric_losses_keep_the_mean(radio, codec):
    experiment = experiment_of(radio.model_copy(update={"max_attempts": 2}), codec=codec)
    pasts = live_together(Ether(4), experiment, complete(4), num_rounds=5)
    assert any(of_it.packets_lost for of_it in all_heard(pasts))
    assert any(of_it.packets_resent for of_it in all_heard(pasts))
    assert drift(pasts, 5) < 2e-6


# Who is sent what


@CASTS
def test_only_what_is_missing_is_sent_again_and_only_to_whoever_misses_some_of_it(radio):
    """Broadcast: the union, once for all of them. Unicast: to each its own."""
    experiment, weights, num_rounds = experiment_of(radio, devices=4), complete(4), 3
    layout, ether = frame_layout(experiment, NUM_VALUES), Ether(4)
    ports = [Port(ether, number) for number in range(4)]
    live_together(ether, experiment, weights, num_rounds, ports=ports)
    oracle, spared, unions = Oracle(experiment, weights), 0, 0
    for sender, port in enumerate(ports):
        repeats = [
            (header.round, to, header.attempt, selected(payload, layout).packets.tolist())
            for to, header, payload in port.said
            if header.kind is Kind.PARAMETERS and header.attempt
        ]
        assert sorted(repeats) == sorted(
            (round_, to, attempt, packets.tolist())
            for round_ in range(num_rounds)
            for to, delivered in oracle.delivered(round_, sender).items()
            for attempt, packets in enumerate(delivered.sent)
            if attempt
        )
        for round_ in range(num_rounds):
            sent = [delivered.sent for delivered in oracle.delivered(round_, sender).values()]
            spared += sum(len(attempts) == 1 for attempts in sent)
            firsts = [set(attempts[1].tolist()) for attempts in sent if len(attempts) > 1]
            unions += len(firsts) > 1 and (firsts[0] == firsts[1])
    assert spared  # somebody missed nothing, while others were sent something
    assert (unions > 0) == (radio is BROADCAST)


def test_what_is_sent_again_is_what_was_sent():
    """The same numbers as in the first frame: int8 is not rounded anew."""
    experiment, weights, ether = experiment_of(BROADCAST, codec="int8"), complete(4), Ether(4)
    layout = frame_layout(experiment, NUM_VALUES)
    ports = [Port(ether, number) for number in range(4)]
    live_together(ether, experiment, weights, 3, ports=ports)
    first, num_repeats = {}, 0
    for _, header, payload in (said for port in ports for said in port.said):
        if header.kind is Kind.PARAMETERS and header.attempt:
            part = selected(payload, layout)
            numbers = decode(part.payload, part.layout)
            mine = [first[header.sender, header.round][layout.values(k)] for k in part.packets.tolist()]
            assert np.array_equal(numbers, np.concatenate(mine))
            num_repeats += 1
        elif header.kind is Kind.PARAMETERS:
            first[header.sender, header.round] = decode(payload, layout)
    assert num_repeats > 5


# The real wire


class Relay:
    """Sits between a DEALER and a ROUTER on TCP, hands on every byte, and counts what messages carry."""

    def __init__(self, pool, address):
        self.payload_bytes = 0
        self._pool = pool
        self._target = address.removeprefix("tcp://").rpartition(":")[::2]
        self._server = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self._server.getsockname()[1]}"
        self._ends = [self._server]
        pool.submit(self._accept)

    def close(self):
        for end in self._ends:
            end.close()

    def _accept(self):
        client, _ = self._server.accept()
        host, port = self._target
        server = socket.create_connection((host, int(port)))
        self._ends += [client, server]
        for end in self._ends[1:]:
            end.settimeout(PATIENCE_S)
        self._pool.submit(self._hand_on, server, client)
        self._hand_on_and_count(client, server)

    def _hand_on(self, source, sink):
        while data := source.recv(65536):
            sink.sendall(data)

    def _hand_on_and_count(self, source, sink):
        """Read ZMTP 3.1: a greeting of 64 bytes, then frames of flags, size (1 or 8 bytes) and body."""
        with source.makefile("rb") as stream:
            greeting = 64
            while greeting:  # in pieces: either end waits for the other's
                piece = stream.read1(greeting)
                greeting -= len(piece)
                sink.sendall(piece)
            while flags := stream.read(1):
                long, command = flags[0] & 2, flags[0] & 4
                size = stream.read(8 if long else 1)
                body = stream.read(struct.unpack(">Q", size)[0] if long else size[0])
                self.payload_bytes += 0 if command else len(body)
                sink.sendall(flags + size + body)


@contextmanager
def relays():
    """Yield a function that puts a relay before an address, and the relays by the address they lead to."""
    opened = {}
    with ThreadPoolExecutor(8) as pool, ExitStack() as stack:

        def before(address):
            opened[len(opened)] = relay = Relay(pool, address)
            stack.callback(relay.close)
            return relay.address

        yield before, opened


def test_packets_are_really_sent_again_over_the_real_wire():
    """What a relay between the two sockets counts is what Gossip says, to the byte.

    Of the sums below, every term is from the receiver's or the sender's own count of packets.
    """
    weights, num_rounds, carried = complete(2), 4, {}
    for name, radio in (("once", BROADCAST.model_copy(update={"arq": "none"})), ("again", BROADCAST)):
        experiment = experiment_of(radio, devices=2)
        with relays() as (before, opened):
            pasts = live_over_sockets("tcp", experiment, weights, num_rounds, by_way_of=before)
            # Device 0 connects first, to device 1; and whoever is done has what was sent to it.
            carried[name] = [opened[device].payload_bytes for device in range(2)]
        assert carried[name] == [sum(pasts[device].bytes_sent) for device in range(2)]
    layout = frame_layout(experiment, NUM_VALUES)
    assert set(layout.packet_bits) == {8 * 64}
    for device in range(2):
        mine = [heard[1 - device] for heard in pasts[device].heard]
        theirs = [heard[device] for heard in pasts[1 - device].heard]
        num_repeats = sum(of_it.attempts - 1 for of_it in theirs)
        num_answers = sum(of_it.attempts - 1 for of_it in mine)
        again = (
            num_repeats * (HEADER_BYTES + 8)  # the bitmap of 20 packets, padded
            + 64 * sum(of_it.packets_resent for of_it in mine)
            + num_answers * (HEADER_BYTES + 3)
        )
        assert num_repeats > 2
        assert carried["again"][device] - carried["once"][device] == again


ALL_KNOBS = {
    "broadcast": (BROADCAST, None),
    "unicast": (UNICAST, None),
    "one-sided": (ONE_SIDED, None),
    "accepting": (BROADCAST.model_copy(update={"bad_packets": "accept", "max_attempts": 2}), None),
    "doppler": (Radio(**{**BROADCAST.model_dump(), "coherence_packets": 3, "doppler_hz": 200.0}), None),
    "doppler unicast": (Radio(**{**UNICAST.model_dump(), "coherence_packets": 3, "doppler_hz": 200.0}), None),
    "doppler between rounds": (
        Radio(**{**BROADCAST.model_dump(), "coherence_packets": 0, "doppler_hz": 0.3}), None,
    ),
    "adaptive": (Radio(**{**BROADCAST.model_dump(), "rate": "adaptive", "target_packet_loss": 0.5}), None),
    "adaptive unicast": (
        Radio(**{**UNICAST.model_dump(), "rate": "adaptive", "target_packet_loss": 0.5}), None,
    ),
    "bursts": (Radio(**{**BROADCAST.model_dump(), "burst_packets": 3.0, "burst_share": 0.2}), None),
    "parallel": (Radio(**{**UNICAST.model_dump(), "access": "parallel", "shared_bandwidth": True}), None),
    "moving": (
        Radio(**{**BROADCAST.model_dump(), "tx_power_dbm": -15.0, "shadowing_std_db": 3.0}),
        Mobility(kind="random_waypoint", round_s=10.0),
    ),
}  # fmt: skip


def exact(heard):
    """Return the counts of a Heard, which are the same whatever the order in which they were made."""
    return heard.model_dump(exclude={"tx_air_s", "rx_air_s", "tx_j", "rx_j"})


def summed(heard):
    """Return its sums of floats, which depend on the order in their last digits."""
    return [heard.tx_air_s, heard.rx_air_s, heard.tx_j, heard.rx_j]


@pytest.mark.parametrize("knobs", ALL_KNOBS)
def test_the_order_of_arrival_changes_not_one_bit(knobs):
    """Nor does the wire: fades, flips, parameters and clocks are those of the seed.

    Joules are sums of at most a few dozen floats, whose order may differ: 1e-12 is far above that.
    """
    radio, mobility = ALL_KNOBS[knobs]
    experiment, weights = experiment_of(radio, mobility=mobility), complete(4)
    first = live_over_sockets("inproc", experiment, weights, num_rounds=2)
    lives = [live_over_sockets("tcp", experiment, weights, num_rounds=2)]
    orders = set()
    for seed in range(3):
        shuffled = Ether(4, seed)
        lives.append(live_together(shuffled, experiment, weights, num_rounds=2))
        orders.add(tuple(shuffled.arrivals))
        assert shuffled.wall_s == 0  # nothing was cut by the wall clock
    assert len(orders) == 3
    heard = all_heard(first)
    assert any(of_it.packets_resent for of_it in heard)
    assert any(of_it.packets_corrupted for of_it in heard)
    for pasts in lives:
        for device, past in pasts.items():
            assert np.array_equal(past.x, first[device].x)
            assert past.air_s == first[device].air_s
            assert past.bytes_sent == first[device].bytes_sent
            for mine, other in zip(past.heard, first[device].heard, strict=True):
                assert list(mine) == list(other)
                for neighbour, of_it in mine.items():
                    assert exact(of_it) == exact(other[neighbour])
                    assert summed(of_it) == pytest.approx(summed(other[neighbour]), rel=1e-12)
            for mine, other in zip(past.spent, first[device].spent, strict=True):
                assert list(mine.model_dump().values()) == pytest.approx(
                    list(other.model_dump().values()), rel=1e-12
                )


def test_each_of_these_knobs_changes_what_happens():
    """Or the proof above would prove less than it says: nothing is as it is without the knob."""
    independent, still = {"doppler_hz": float("inf")}, Mobility()
    without = {
        "accepting": ({"bad_packets": "erase"}, still),
        "doppler": (independent, still),
        "doppler unicast": (independent, still),
        "doppler between rounds": (independent, still),
        "adaptive": ({"rate": "fixed"}, still),
        "adaptive unicast": ({"rate": "fixed"}, still),
        "bursts": ({"burst_packets": 0.0}, still),
        "parallel": ({"shared_bandwidth": False}, still),
        "moving": ({}, still),
    }
    cases = dict(ALL_KNOBS)
    for name, (changes, mobility) in without.items():
        cases[f"without {name}"] = (ALL_KNOBS[name][0].model_copy(update=changes), mobility)
    results = {}
    for name, (radio, mobility) in cases.items():
        experiment = experiment_of(radio, devices=3, mobility=mobility)
        pasts = live_together(Ether(3), experiment, complete(3), num_rounds=2)
        results[name] = tuple((past.x[-1].tobytes(), tuple(past.air_s)) for past in pasts.values())
    for name in without:
        assert results[name] != results[f"without {name}"], name
    assert len({results[name] for name in ALL_KNOBS}) == len(ALL_KNOBS)


# Rate adaptation


@pytest.mark.parametrize("cast", ["broadcast", "unicast"])
def test_a_frame_is_sent_as_fast_as_its_worst_receiver_allows(cast):
    """The highest modulation whose expected loss meets the target at everybody it is for, else BPSK.

    The loss is 1 - (1 - ber)^bits, averaged over the fades that its own packets will meet; a repeat is
    adapted anew.
    """
    radio = Radio(
        coherence_packets=3, rate="adaptive", target_packet_loss=0.2, cast=cast, arq="selective_repeat"
    )
    experiment, weights, num_rounds = experiment_of(radio, devices=4), ring(4), 8
    layout, ether = frame_layout(experiment, NUM_VALUES), Ether(4)
    oracle = Oracle(experiment, weights, snr_db=lambda a, b: 18.0 + 6 * ((a + b) % 3))
    ports = [Port(ether, number) for number in range(4)]
    live_together(
        ether, experiment, weights, num_rounds, ports=ports, snr_db=lambda a, b: 18.0 + 6 * ((a + b) % 3)
    )
    used, changed = set(), set()
    for sender, port in enumerate(ports):
        neighbours, first = neighbours_of(weights, sender), {}
        said = [(to, header, payload) for to, header, payload in port.said if header.kind is Kind.PARAMETERS]
        for to, header, payload in said:
            together = [
                who
                for who, other, _ in said
                if (other.round, other.attempt) == (header.round, header.attempt)
            ]
            turn = 0 if cast == "broadcast" else neighbours.index(to)
            part = selected(payload, layout).layout if header.attempt else layout
            best = "bpsk"
            for modulation in BITS_PER_SYMBOL:
                mine = Transmission(
                    header.round, sender, oracle.colours[sender], turn, header.attempt, modulation
                )
                losses = [
                    np.mean(
                        1
                        - (1 - bit_error_probability(modulation, oracle.link(sender, who).snr(mine, part)))
                        ** 512
                    )
                    for who in (together if cast == "broadcast" else [to])
                ]
                if max(losses) <= radio.target_packet_loss:
                    best = modulation
            assert MODULATION_OF[header.modulation] == best
            used.add(best)
            before = first.setdefault((header.round, turn), header.modulation)
            changed.add(int(np.sign(header.modulation - before)))
    assert len(used) >= 4
    assert changed == {-1, 0, 1}


# Packets that stay bad


def flipped(oracle, device, other, round_):
    """Return the numbers that arrived wrong and were taken so: packet -> numbers, after the last attempt."""
    payload = oracle.payloads[other, round_]
    delivered = oracle.delivered(round_, other)[device]
    packets = delivered.sent[-1]
    reception = oracle.cross(
        round_, other, device, attempt=len(delivered.sent) - 1, packets=packets, payload=payload
    )
    numbers = {}
    for bad in reception.bad:
        x, ends = decode(bad.payload, bad.layout), np.cumsum(bad.layout.values_of_each())
        for k, packet in enumerate(packets[bad.packets].tolist()):
            numbers[packet] = x[ends[k] - bad.layout.values_of_each()[k] : ends[k]]
    return numbers


@pytest.mark.parametrize("max_attempts", [1, 3])
@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_bad_packets_are_mixed_with_their_flipped_bits(codec, max_attempts):
    """As they arrived at the last attempt, and no earlier; impossible numbers count as the device's own.

    What the air did is computed again from its seed, with the payload that was really sent.
    """
    radio = Radio(
        coherence_packets=2,
        arq="selective_repeat",
        max_attempts=max_attempts,
        bad_packets="accept",
        max_abs_value=2.0,
    )
    experiment, weights, ether = experiment_of(radio, devices=3, codec=codec), complete(3), Ether(3)
    layout, oracle = frame_layout(experiment, NUM_VALUES), Oracle(experiment, weights)
    ports = [Port(ether, number) for number in range(3)]

    def program(number):
        device = Device(experiment, weights, number, ports[number])

        def run():
            sent, arrived = device.exchange(0)
            before = device.x.numpy().copy()
            arrived.mix_(device.x, sent.xhat)
            return before, device.x.numpy().copy(), arrived.m.copy(), device.exchanges.radio.heard()

        return run

    results = ether.run({number: program(number) for number in range(3)})
    oracle.payloads = {
        (number, 0): next(payload for _, header, payload in ports[number].said if not header.attempt)
        for number in range(3)
    }
    xhat = {number: decode(oracle.payloads[number, 0], layout).astype(np.float64) for number in range(3)}
    taken = impossible = 0
    for number, (x, mixed, mass, heard) in results.items():
        expected = x.astype(np.float64)
        for other in neighbours_of(weights, number):
            theirs = xhat[other].copy()
            still_bad = np.flatnonzero(~oracle.delivered(0, other)[number].got).tolist()
            bad = flipped(oracle, number, other, 0)
            for packet in still_bad:
                numbers = bad[packet]
                own = xhat[number][layout.values(packet)]
                possible = np.isfinite(numbers) & (np.abs(numbers) <= 2.0)
                theirs[layout.values(packet)] = np.where(possible, numbers, own)
                taken += 1
                impossible += np.count_nonzero(~possible)
            assert heard[other].packets_lost == 0
            expected += weights[number, other] * (theirs - xhat[number])
        assert mass == pytest.approx(2 / 3)  # every packet carries its weight, whatever it says
        np.testing.assert_allclose(mixed, expected, rtol=0, atol=2e-6)
    assert taken > 5
    assert impossible > 5


def test_before_the_last_attempt_nothing_bad_is_taken():
    """A packet that arrives well the second time is mixed as it was sent."""
    radio = BROADCAST.model_copy(update={"max_attempts": ATTEMPTS_TO_LOSE_NOTHING})
    erased, accepted = (
        live_together(
            Ether(4), experiment_of(radio.model_copy(update={"bad_packets": what})), complete(4), num_rounds=2
        )
        for what in ("erase", "accept")
    )
    assert any(of_it.packets_resent for of_it in all_heard(erased))
    assert_same(erased, accepted)


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_accepting_never_mixes_what_is_no_number(codec, symmetric):
    """At an SNR at which almost every packet has a wrong exponent somewhere."""
    radio = Radio(fading="none", bad_packets="accept", symmetric=symmetric, max_abs_value=1e3)
    pasts = live_together(
        Ether(3), experiment_of(radio, devices=3, codec=codec), complete(3), 5, snr_db=lambda a, b: -3.0
    )
    for past in pasts.values():
        assert np.all(np.abs(past.x) <= 1e3 + 5)  # plus what is learned between


# Faults in the middle


class ToldLater:
    """Says what it has to say when the ether's clock is so far."""

    def __init__(self, ether, wall_s, *news):
        self._ether, self._wall_s, self._told = ether, wall_s, Told(*news)

    def news(self):
        return self._told.news() if self._ether.wall_s >= self._wall_s else []


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("last", [Kind.PARAMETERS, Kind.ACK])
@CASTS
def test_a_neighbour_that_dies_in_the_middle_of_a_round_costs_no_deadline(radio, last, seed):
    """It ends before its first repeat, or before it answers one; the news come three seconds later."""
    experiment, weights, ether = experiment_of(radio, devices=3), complete(3), Ether(3, seed)
    death = NeighbourDied(device=1, incarnation=incarnation_of(1))

    def until_it_dies(to, header):
        if header.kind is last and header.attempt == 1:
            raise Gone
        return True

    ports = {0: Port(ether, 0), 1: Faulty(ether, 1, until_it_dies), 2: Port(ether, 2)}

    def program(number):
        device = Device(experiment, weights, number, ports[number])
        return lambda: device.live(range(4), control=ToldLater(ether, 3.0, death))

    pasts = ether.run({number: program(number) for number in range(3)})
    assert pasts[1] is None
    assert 3.0 <= ether.wall_s <= 3.0 + SLICE_WALL_S
    for device in (0, 2):
        assert [heard[2 - device].missing for heard in pasts[device].heard] == [""] * 4
        assert pasts[device].heard[-1][1].missing == "dead"
        assert pasts[device].heard[-1][1].packets_sent == 0
    # Rounds that the dead took no part in keep the mean of the living.
    for round_ in range(1, 4):
        assert [pasts[device].heard[round_][1].missing for device in (0, 2)] == ["dead", "dead"]
        before = [pasts[device].x[round_ - 1] + learned(device, round_) for device in (0, 2)]
        after = [pasts[device].x[round_] for device in (0, 2)]
        np.testing.assert_allclose(np.mean(after, axis=0), np.mean(before, axis=0), atol=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("last", [Kind.PARAMETERS, Kind.ACK])
@CASTS
def test_a_neighbour_that_falls_silent_in_the_middle_of_a_round_costs_one_deadline(radio, last, seed):
    """From its first repeat on, or the first answer to one, nothing of it arrives any more."""
    experiment, weights, ether = experiment_of(radio, devices=3), complete(3), Ether(3, seed)
    silent, over_s = set(), []

    def until_it_is_silent(to, header):
        if header.kind is last and header.attempt == 1:
            silent.add(1)
        return not silent

    ports = {0: Port(ether, 0), 1: Faulty(ether, 1, until_it_is_silent), 2: Port(ether, 2)}

    def program(number):
        device = Device(experiment, weights, number, ports[number])

        def run():
            past = device.live(range(6))
            if number != 1:
                over_s.append(ether.wall_s)
            return past

        return run

    pasts = ether.run({number: program(number) for number in range(3)})
    assert silent
    assert over_s == [LIVENESS_WALL_S] * 2
    for device in (0, 2):
        assert pasts[device].heard[-1][1].missing == "wall"
        # The two others may lose each other when both deadlines pass at one moment, not for long.
        assert pasts[device].heard[-1][2 - device].missing == ""


@CASTS
def test_an_answer_that_never_comes_is_counted_where_the_mean_may_move(radio):
    """Device 1's answer to the first repeat is lost, and device 1 has not failed.

    It mixes what the repeat brought; whoever waited for the answer cannot know. Such a round must say so.
    """
    experiment, weights, ether = experiment_of(radio, devices=2), complete(2), Ether(2)
    lost = []

    def all_but_one(to, header):
        if header.kind is Kind.ACK and header.attempt == 1 and not lost:
            lost.append(header.round)
            return False
        return True

    ports = [Port(ether, 0), Faulty(ether, 1, all_but_one)]
    num_rounds = 6
    pasts = live_together(ether, experiment, weights, num_rounds, ports=ports)
    assert lost
    assert ether.wall_s == LIVENESS_WALL_S
    xs = [np.zeros(NUM_VALUES), np.zeros(NUM_VALUES)]
    for round_ in range(num_rounds):
        before = np.mean([xs[device] + learned(device, round_) for device in range(2)], axis=0)
        xs = [pasts[device].x[round_] for device in range(2)]
        moved = np.abs(np.mean(xs, axis=0) - before).max()
        said = {pasts[device].heard[round_][1 - device].missing for device in range(2)}
        assert "wall" in said or moved < 1e-6
        assert (round_ != lost[0]) or "wall" in said


@CASTS
def test_a_repeat_that_a_full_queue_refuses_costs_nothing_but_its_packets(radio):
    """Its sender knows, and what was acknowledged before still counts at both ends."""
    experiment, weights, ether = experiment_of(radio, devices=3), complete(3), Ether(3)
    refused, over_s = [], {}

    class FullForRepeats(Port):
        """Takes no repeat to device 1."""

        def send(self, device, header, outgoing):
            if device == 1 and unpack(header).kind is Kind.PARAMETERS and unpack(header).attempt:
                refused.append(unpack(header).round)
                return False
            return super().send(device, header, outgoing)

    ports = {0: FullForRepeats(ether, 0), 1: Port(ether, 1), 2: Port(ether, 2)}

    def program(number):
        device = Device(experiment, weights, number, ports[number])

        def run():
            past = device.live(range(1))
            over_s[number] = ether.wall_s
            return past

        return run

    pasts = ether.run({number: program(number) for number in range(3)})
    assert refused
    assert over_s[0] == over_s[2] == 0
    assert pasts[0].heard[0][1].packets_resent == 0
    assert {of_it.missing for of_it in all_heard(pasts)} == {""}
    assert pasts[1].heard[0][0].packets_lost == pasts[0].heard[0][1].packets_lost > 0
    assert drift(pasts, 1) < 1e-6
