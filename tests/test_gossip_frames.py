"""Frames that gossip must not believe: dropped, counted by sender and reason, and the round goes on."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import zmq
from devices import (
    EPOCH,
    NUM_VALUES,
    Device,
    ack_from,
    complete,
    experiment_of,
    frame_from,
    header_of,
    learned,
    sockets,
)
from ether import PATIENCE_S, Script
from oracle import Oracle

from node.transport.zmq import Delivery
from protocol.air import frame_layout
from protocol.codec import select
from protocol.frame import HEADER_BYTES, VERSION, Kind, run_number, unpack
from protocol.radio import Radio

IDEAL = Radio(scheme="ideal")
ARQ = Radio(coherence_packets=2, arq="selective_repeat", max_attempts=3)

GOOD = frame_from(experiment_of(IDEAL), 1, round_=5)
HEADER = unpack(GOOD.header)
CUT = len(GOOD.payload) - 1


def said(**changes):
    return replace(GOOD, header=replace(HEADER, **changes).pack())


BAD = {
    "device 1: another run": said(run=run_number("b-run")),
    "device 1: another epoch": said(epoch=EPOCH + 1),
    "device 1: another incarnation": said(incarnation=9),
    "device 1: stale round": said(round=4),
    "device 1: another model or codec": replace(GOOD, payload=GOOD.payload[:CUT]),
    "device 1: signed as device 2": said(sender=2),
    "device 2: signed as device 1": replace(GOOD, peer="2"),
    "device 7: not a neighbour": replace(said(sender=7), peer="7"),
    "device 7: signed as device 1": replace(GOOD, peer="7"),
    f"device 1: header of {HEADER_BYTES - 1} bytes, expected {HEADER_BYTES}": replace(
        GOOD, header=GOOD.header[:-1]
    ),
    f"device 1: header of 0 bytes, expected {HEADER_BYTES}": Delivery("1", b"", GOOD.payload[:0]),
    "device 1: header checksum is wrong": replace(GOOD, header=GOOD.header[:-1] + b"x"),
    "device 1: not a Hearsay frame": replace(GOOD, header=b"GET " + GOOD.header[4:]),
    f"device 1: wire version 9, expected {VERSION}": replace(
        GOOD, header=GOOD.header[:4] + b"\t" + GOOD.header[5:]
    ),
}


def mixed_by(device, round_):
    sent, arrived = device.exchange(round_)
    arrived.mix_(device.x, sent.xhat)
    return device.x.numpy()


@pytest.mark.parametrize("reason", BAD)
def test_a_foreign_frame_is_dropped_and_its_sender_named(reason):
    last = frame_from(experiment_of(IDEAL), 2, round_=5)
    script = Script(BAD[reason], BAD[reason], GOOD, last)
    device = Device(experiment_of(IDEAL, devices=3), complete(3), 0, script)
    x = mixed_by(device, 5)
    assert device.exchanges.peers.dropped() == {reason: 2}
    assert device.exchanges.peers.dropped() == {}  # each is told once
    assert [heard.missing for heard in device.exchanges.radio.heard().values()] == ["", ""]
    average = np.mean([learned(number, 5) for number in range(3)], axis=0)
    np.testing.assert_allclose(x, average, atol=1e-6)


def test_different_reasons_are_counted_apart():
    last = frame_from(experiment_of(IDEAL), 2, round_=5)
    script = Script(*BAD.values(), GOOD, GOOD, last)
    device = Device(experiment_of(IDEAL, devices=3), complete(3), 0, script)
    device.exchange(5)
    assert device.exchanges.peers.dropped() == dict.fromkeys(BAD, 1) | {"device 1: duplicate": 1}


def test_a_message_that_is_no_frame_is_dropped_over_sockets_too():
    experiment, weights = experiment_of(IDEAL, devices=2), complete(2)
    with (
        sockets("tcp", experiment, weights) as transports,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as stranger,
        ThreadPoolExecutor(2) as pool,
    ):
        stranger.set(zmq.LINGER, 0)
        stranger.set(zmq.ROUTING_ID, b"9")
        stranger.connect(transports[0].address)
        stranger.send(b"hello")
        devices = [Device(experiment, weights, number, transports[number]) for number in range(2)]
        dropped, first = {}, 0
        while not dropped:  # until it was in before the frame that ended a round
            assert first < 1000
            lives = [pool.submit(device.live, range(first, first + 10)) for device in devices]
            heard = [life.result(PATIENCE_S).heard for life in lives]
            assert all(of_round[1 - d].missing == "" for d in range(2) for of_round in heard[d])
            dropped, first = devices[0].exchanges.peers.dropped(), first + 10
    assert dropped == {f"device 9: header of 0 bytes, expected {HEADER_BYTES}": 1}


def repeat_from(experiment, sender, packets, *, attempt, **changes):
    """Return the delivery of some packets that a device sends again."""
    layout = frame_layout(experiment, NUM_VALUES)
    payload = select(frame_from(experiment, sender).payload, layout, packets)
    header = header_of(experiment, sender, payload, attempt=attempt, **changes)
    return Delivery(str(sender), header.pack(), payload)


def missing_of(experiment, attempt=0, packets=None):
    """Return which packets (of those sent) device 0 misses of device 1 after an attempt."""
    reception = Oracle(experiment, complete(2)).cross(0, 1, 0, attempt=attempt, packets=packets)
    packets = np.arange(len(reception.intact)) if packets is None else packets
    return packets[~reception.intact]


EXPERIMENT = experiment_of(ARQ, devices=2)
MISSING = missing_of(EXPERIMENT)
AGAIN = repeat_from(EXPERIMENT, 1, MISSING, attempt=1)
LAST = repeat_from(EXPERIMENT, 1, missing_of(EXPERIMENT, 1, MISSING), attempt=2)
REFUSED = {
    "too short": replace(
        AGAIN, header=replace(unpack(AGAIN.header), payload_bytes=len(AGAIN.payload) - 1).pack(),
        payload=AGAIN.payload[:-1],
    ),
    "beyond the maximum": repeat_from(EXPERIMENT, 1, MISSING, attempt=3),
    "a whole frame": frame_from(EXPERIMENT, 1, attempt=1),
    "another flag": replace(AGAIN, header=replace(unpack(AGAIN.header), flags=9).pack()),
    "no modulation": replace(AGAIN, header=replace(unpack(AGAIN.header), modulation=0).pack()),
    "an answer beyond the maximum": ack_from(EXPERIMENT, 1, attempt=3),
    "an answer that is too long": replace(
        AGAIN, header=replace(unpack(AGAIN.header), kind=Kind.ACK).pack()
    ),
    "analog side information": replace(
        AGAIN, header=replace(unpack(AGAIN.header), kind=Kind.SCALE).pack()
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_a_repeat_that_is_none_is_dropped_and_the_true_one_still_counts(what):
    assert 0 < len(MISSING) < frame_layout(EXPERIMENT, NUM_VALUES).num_packets
    plain = Device(
        EXPERIMENT, complete(2), 0, Script(frame_from(EXPERIMENT, 1), ack_from(EXPERIMENT, 1), AGAIN, LAST)
    )
    script = Script(frame_from(EXPERIMENT, 1), ack_from(EXPERIMENT, 1), REFUSED[what], AGAIN, LAST)
    device = Device(EXPERIMENT, complete(2), 0, script)
    assert np.array_equal(mixed_by(device, 0), mixed_by(plain, 0))
    assert device.exchanges.peers.dropped() == {"device 1: another model or codec": 1}
    assert device.exchanges.radio.heard() == plain.exchanges.radio.heard()
    assert device.exchanges.radio.heard()[1].attempts == 3


def test_a_repeat_that_comes_twice_is_heard_once():
    script = Script(frame_from(EXPERIMENT, 1), ack_from(EXPERIMENT, 1), AGAIN, AGAIN, LAST)
    device = Device(EXPERIMENT, complete(2), 0, script)
    device.exchange(0)
    assert device.exchanges.peers.dropped() == {"device 1: duplicate": 1}
    assert device.exchanges.radio.heard()[1].attempts == 3
    answers = [header for _, header, _ in script.said if header.kind is Kind.ACK]
    assert [(header.attempt, bool(header.flags & 2)) for header in answers] == [
        (0, False),
        (1, False),
        (2, True),
    ]


def test_a_repeat_that_nobody_asked_for_changes_nothing():
    """All has arrived: whatever else comes under a later number is not looked at."""
    experiment = experiment_of(ARQ.model_copy(update={"fading": "none"}), devices=2)
    assert not len(missing_of(experiment))
    unasked = repeat_from(experiment, 1, np.arange(3), attempt=1)
    device = Device(
        experiment, complete(2), 0, Script(frame_from(experiment, 1), unasked, ack_from(experiment, 1))
    )
    x = mixed_by(device, 0)
    assert device.exchanges.radio.heard()[1].attempts == 1
    np.testing.assert_allclose(x, (learned(0, 0) + learned(1, 0)) / 2, atol=1e-6)


def test_whoever_misses_nothing_and_asks_for_more_gets_nothing():
    """An answer of ones that is not final contradicts itself; there is no packet to send."""
    experiment = experiment_of(ARQ.model_copy(update={"fading": "none"}), devices=2)
    script = Script(frame_from(experiment, 1), ack_from(experiment, 1, final=False))
    device = Device(experiment, complete(2), 0, script)
    device.exchange(0)
    assert [header.kind for _, header, _ in script.said] == [Kind.PARAMETERS, Kind.ACK]
    assert device.exchanges.radio.heard()[1].missing == ""


def test_the_modulation_of_a_frame_must_be_one_that_this_run_uses():
    """It says how long the frame was on the air; whoever may choose it may stop a neighbour's clock."""
    experiment = experiment_of(Radio(fading="none", symmetric=False), devices=2)
    bad = [frame_from(experiment, 1, modulation=number) for number in (0, 1, 5)]
    device = Device(experiment, complete(2), 0, Script(*bad, frame_from(experiment, 1)))
    device.exchange(0)
    assert device.exchanges.peers.dropped() == {"device 1: another model or codec": 3}
    assert device.exchanges.radio.heard()[1].missing == ""


@pytest.mark.parametrize("cast", ["broadcast", "unicast"])
def test_who_misses_packets_and_has_gone_on_is_not_waited_for(cast):
    """It is sent what it asked for, and will not answer."""
    radio = Radio(fading="none", arq="selective_repeat", cast=cast)
    experiment = experiment_of(radio, devices=2)
    got = np.ones(frame_layout(experiment, NUM_VALUES).num_packets, dtype=bool)
    got[3] = False
    script = Script(
        frame_from(experiment, 1),
        ack_from(experiment, 1, got=got, final=False),
        frame_from(experiment, 1, round_=1),
    )
    Device(experiment, complete(2), 0, script, snr_db=lambda a, b: 40.0).exchange(0)
    assert [header.attempt for _, header, _ in script.said if header.kind is Kind.PARAMETERS] == [0, 1]
