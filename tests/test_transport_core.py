"""The transport contract, its core: what ZeroMQ, over TCP and in memory, and torch.distributed promise alike.

What only ZeroMQ promises, frames that come late, twice or never, is in test_transport.py.
"""

from time import monotonic

import numpy as np
import pytest
from devices import complete, experiment_of, path
from ranks import (
    NUM_RANKS,
    alike,
    ask_and_answer,
    exchange_all,
    filled,
    in_step,
    live,
    look,
    processes,
    threads,
)

from node.transport.torchdist import INLINE_BYTES
from protocol.radio import Analog, Radio

LARGE = 5_000
"""Bytes of a payload that fits into no envelope; the ranks' frames are of at most about this size."""


@pytest.fixture(scope="module", params=["tcp", "inproc", pytest.param("gloo", marks=pytest.mark.processes)])
def together(request):
    """Yield a function that lets three ranks run a program, each with every other as its neighbour."""
    with processes() if request.param == "gloo" else threads(request.param) as run:
        run.scheme = request.param
        yield run


@pytest.fixture(scope="module")
def reference():
    """Yield a function that does the same over TCP."""
    with threads("tcp") as run:
        yield run


@pytest.mark.parametrize("size", [0, 1, 13, INLINE_BYTES, INLINE_BYTES + 1, LARGE])
def test_a_frame_arrives_bit_for_bit_under_its_senders_name(together, size):
    for number, (sent_bytes, heard) in enumerate(together(exchange_all, [size])):
        assert sent_bytes == 2 * (1 + size)
        assert sorted(peer for peer, *_ in heard) == [str(n) for n in range(NUM_RANKS) if n != number]
        for peer, header, payload, misaligned in heard:
            assert header == b"0"
            assert np.array_equal(payload, filled(size, int(peer), number, 0))
            assert not misaligned


def test_frames_of_each_peer_arrive_in_order(together):
    sizes = [LARGE, 13, 0, INLINE_BYTES, LARGE, INLINE_BYTES + 1] * 3
    for number, (_, heard) in enumerate(together(exchange_all, sizes)):
        for other in (n for n in range(NUM_RANKS) if n != number):
            of_peer = [(header, payload) for peer, header, payload, _ in heard if peer == str(other)]
            assert [int(header) for header, _ in of_peer] == list(range(len(sizes)))
            for place, (_, payload) in enumerate(of_peer):
                assert np.array_equal(payload, filled(sizes[place], other, number, place))


def test_a_dialogue_of_two_is_nobody_elses(together):
    assert together(ask_and_answer) == [[b"answer", b"and another"], [b"question"], []]


def test_without_time_nobody_waits(together):
    began = monotonic()
    assert together(look) == [[None, None]] * NUM_RANKS
    assert monotonic() - began < 5


ARQ = {"arq": "selective_repeat", "max_attempts": 4}


@pytest.mark.parametrize(
    ("radio", "weights", "more"),
    [
        (Radio(), complete(3), {}),
        (Radio(scheme="ideal"), path(3), {"sweeps": 3}),
        (Radio(**ARQ), complete(3), {"sweeps": 2}),
        (Radio(**ARQ), path(3), {"codec": "int8"}),
        (Radio(**ARQ, cast="unicast"), path(3), {}),
        (Radio(**ARQ, symmetric=False, bad_packets="accept"), complete(3), {}),
        (Radio(**ARQ), complete(3), {"deadline_air_s": 0.02}),
        (Radio(symmetric=False), path(3), {}),
        (Radio(scheme="analog"), complete(3), {"sweeps": 2}),
        (
            Radio(
                scheme="analog",
                analog=Analog(superposition="orthogonal", payload="differences", refresh_rounds=2),
            ),
            path(3),
            {"deadline_air_s": 0.005},
        ),
    ],
    ids=[
        "digital",
        "ideal",
        "arq",
        "arq-path",
        "arq-unicast",
        "arq-accept",
        "arq-late",
        "asymmetric",
        "analog",
        "differences",
    ],
)
def test_exchanges_come_to_the_same_bits_and_the_same_books(together, reference, radio, weights, more):
    experiment = experiment_of(radio, devices=NUM_RANKS, **more)
    pasts = together(live, in_step(experiment) if together.scheme == "gloo" else experiment, weights, 4)
    others = reference(live, experiment, weights, 4)
    for past, other in zip(pasts, others, strict=True):
        assert len(past.x) == 4
        assert all(np.array_equal(mine, theirs) for mine, theirs in zip(past.x, other.x, strict=True))
        assert past.bytes_sent == other.bytes_sent
        assert past.air_s == pytest.approx(other.air_s, rel=1e-12)
        for mine, theirs in zip(past.heard, other.heard, strict=True):
            assert mine.keys() == theirs.keys()
            assert all(alike(mine[device].model_dump(), theirs[device].model_dump()) for device in mine)
            assert {heard.missing for heard in mine.values()} <= {"", "air"}
    if "deadline_air_s" in more:
        assert "air" in {h.missing for past in pasts for heard in past.heard for h in heard.values()}
    if radio.arq != "none":
        assert sum(heard.packets_resent for past in pasts for heard in past.heard[0].values()) > 0
