"""The transport contract, its elastic part: frames that come late, twice or never, queues, the dead.

ZeroMQ keeps it over TCP between processes and in the memory of one; test_transport_core.py has what every
transport promises.
"""

import socket
import struct
from contextlib import ExitStack, contextmanager
from itertools import count
from threading import Event
from time import monotonic

import numpy as np
import pytest
import zmq

from node.transport.zmq import MIN_QUEUED_FRAMES, OVERSIZE_FACTOR, Buffers, Outgoing, ZmqTransport
from protocol.air import Transmission, cross
from protocol.codec import Layout, decode, encode
from protocol.frame import HEADER_BYTES
from protocol.radio import Radio

PATIENCE_S = 20.0
"""Deadline of every wait; nothing here takes a tenth of it."""
LARGE = 200_000
"""Bytes of a payload that ZeroMQ hands over in place; it copies what is below 64 KiB."""
numbers = count()


@pytest.fixture
def context():
    """Yield a ZeroMQ context that takes every socket of the test down with it."""
    with zmq.Context() as context:
        yield context
        context.destroy(linger=0)


@pytest.fixture(params=["tcp", "inproc"])
def bind(request):
    """Return a function that names a fresh address to bind to."""
    if request.param == "tcp":
        return lambda: "tcp://127.0.0.1:*"
    return lambda: f"inproc://test/{next(numbers)}"


@pytest.fixture
def deaf(context, bind):
    """Yield something to close, and the address at which until then no frame is ever read."""
    address = bind()
    if address.startswith("inproc"):
        with context.socket(zmq.ROUTER) as router:
            router.set(zmq.RCVHWM, MIN_QUEUED_FRAMES)
            router.bind(address)
            yield router, address
    else:
        with socket.create_server(("127.0.0.1", 0)) as server:  # takes the call and never says a word
            yield server, f"tcp://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture
def raw(context):
    """Yield a function that connects a socket which says whatever a test wants."""
    with ExitStack() as stack:

        def dealer(address, name=b"9"):
            opened = stack.enter_context(context.socket(zmq.DEALER))
            opened.set(zmq.ROUTING_ID, name)
            opened.set(zmq.LINGER, 0)
            opened.connect(address)
            return opened

        yield dealer


@pytest.fixture
def pair(context):
    """Yield the two ends of what a control plane is to a transport."""
    with context.socket(zmq.PAIR) as ours, context.socket(zmq.PAIR) as theirs:
        ours.bind("inproc://control")
        theirs.connect("inproc://control")
        yield ours, theirs


@contextmanager
def device(context, address, name, *, frame_bytes=LARGE, queue_bytes=2**20):
    opened = ZmqTransport.open(context, address, name=name, frame_bytes=frame_bytes, queue_bytes=queue_bytes)
    with opened as transport:
        yield transport


@pytest.fixture
def three(context, bind):
    """Yield three transports, numbered as their names say; 0 and 1 are connected to all others."""
    with ExitStack() as stack:
        transports = [stack.enter_context(device(context, bind(), str(number))) for number in range(3)]
        for sender in (0, 1):
            for receiver in range(3):
                if receiver != sender:
                    transports[sender].connect(receiver, transports[receiver].address)
        yield transports


def filled(num_bytes, seed=1):
    outgoing = Outgoing(np.zeros(num_bytes, dtype=np.uint8))
    outgoing.payload[:] = np.random.default_rng(seed).integers(0, 256, num_bytes, dtype=np.uint8)
    return outgoing


def heard(transport, num_frames=1):
    """Receive so many frames."""
    deliveries, deadline = [], monotonic() + PATIENCE_S
    while len(deliveries) < num_frames:
        assert monotonic() < deadline, f"{len(deliveries)} of {num_frames} frames arrived"
        delivery = transport.receive(1.0)
        if delivery is not None:
            deliveries.append(delivery)
    return deliveries


def until(condition):
    """Poll until a condition holds; False when patience is at its end."""
    deadline, pause = monotonic() + PATIENCE_S, Event()
    while not condition():
        if monotonic() > deadline:
            return False
        pause.wait(0.005)
    return True


@pytest.mark.parametrize("num_bytes", [0, 1, 13, 4096, LARGE])
def test_a_frame_arrives_bit_for_bit_under_its_senders_name(three, num_bytes):
    outgoing = filled(num_bytes)
    assert three[1].send(0, b"the header", outgoing)
    (delivery,) = heard(three[0])
    assert (delivery.peer, delivery.header) == ("1", b"the header")
    assert np.array_equal(delivery.payload, outgoing.payload)
    assert three[1].bytes_sent == 10 + num_bytes


@pytest.mark.parametrize("num_bytes", [13, 16, 200, LARGE])
def test_a_payload_can_be_viewed_as_numbers(three, num_bytes):
    """Small messages lie anywhere in ZeroMQ's read buffer; numbers must lie at a multiple of their size."""
    for number in range(4):
        three[1].send(0, b"h" * number, filled(num_bytes))
    for delivery in heard(three[0], 4):
        assert delivery.payload.ctypes.data % 8 == 0


@pytest.mark.parametrize("num_bytes", [13, LARGE])
def test_frames_of_each_peer_arrive_in_order(context, bind, num_bytes):
    with ExitStack() as stack:
        receiver, *senders = (
            stack.enter_context(device(context, bind(), name, queue_bytes=64 * LARGE)) for name in "012"
        )
        for sender in senders:
            sender.connect(0, receiver.address)
        sent = [filled(num_bytes, seed) for seed in range(20)]
        for number, outgoing in enumerate(sent):
            for sender in senders:
                assert sender.send(0, b"%d" % number, outgoing)
        deliveries = heard(receiver, 40)
        for name in "12":
            of_peer = [delivery for delivery in deliveries if delivery.peer == name]
            assert [int(delivery.header) for delivery in of_peer] == list(range(20))
            pairs = zip(of_peer, sent, strict=True)
            assert all(np.array_equal(got.payload, out.payload) for got, out in pairs)


def test_one_buffer_goes_to_two_neighbours_and_the_air_of_one_touches_nobody_else(three):
    """At the receiver real bits flip, but in its own copy of the packets."""
    layout, radio = Layout("float32", LARGE // 4, 512, checked=True), Radio(bad_packets="accept")
    snr = np.full(layout.num_packets, 0.01)
    x = np.random.default_rng(4).standard_normal(layout.num_values, dtype=np.float32)
    outgoing = Outgoing(np.zeros(layout.payload_bytes, dtype=np.uint8))
    encode(x, layout, outgoing.payload, np.random.default_rng(0))
    original = outgoing.payload.copy()
    assert three[0].send(1, b"h", outgoing)
    assert three[0].send(2, b"h", outgoing)
    (hit,), (spared,) = heard(three[1]), heard(three[2])
    sent = Transmission(round=0, sender=0, slot=0, turn=0)
    reception = cross(hit.payload, layout, radio, snr, sent, seed=1, receiver=1)
    assert not reception.intact.any()
    assert reception.bit_errors > layout.num_values
    assert sum(len(bad.packets) for bad in reception.bad) == layout.num_packets  # the flipped bits are there
    for payload in (outgoing.payload, spared.payload, hit.payload):
        assert np.array_equal(payload, original)
    assert np.array_equal(decode(spared.payload, layout), x)


def test_a_buffer_is_free_once_it_is_delivered_and_let_go(three):
    outgoing = filled(LARGE)
    assert outgoing.free
    for _ in range(2):  # and again: a free buffer may be sent anew
        assert three[0].send(1, b"h", outgoing)
        assert three[0].send(2, b"h", outgoing)
        heard(three[1])
        heard(three[2])
        assert until(lambda: outgoing.free)


class Reader:
    """ZeroMQ's word on whether it is still reading a buffer."""

    done = False


def test_buffers_are_taken_again_when_nobody_reads_them_any_more():
    buffers, readers = Buffers(10), [Reader() for _ in range(3)]
    (first,) = buffers.take(1)
    first.sent(readers[0])
    second, third = buffers.take(2)
    assert len({id(first), id(second), id(third)}) == 3
    assert all(len(buffer.payload) == 10 for buffer in (first, second, third))
    second.sent(readers[1])
    third.sent(readers[2])
    readers[1].done = True
    assert buffers.take(1) == [second]
    assert buffers.take(1) == [second]  # not sent: it is as free as before
    readers[0].done = readers[2].done = True
    again = buffers.take(4)
    assert again[:3] == [first, second, third]
    assert len({id(buffer) for buffer in again}) == 4


def test_in_memory_a_buffer_is_not_free_while_a_neighbour_reads_it(context):
    """There the receiver's payload is the sender's own memory."""
    with device(context, "inproc://0", "0") as sender, device(context, "inproc://1", "1") as receiver:
        sender.connect(1, receiver.address)
        outgoing = filled(LARGE)
        sender.send(1, b"h", outgoing)
        held = heard(receiver)
        assert np.shares_memory(held[0].payload, outgoing.payload)
        assert not outgoing.free
        held.clear()
        assert until(lambda: outgoing.free)


def test_a_buffer_that_cannot_leave_is_free_only_when_its_dead_neighbour_is_forgotten(context, bind, deaf):
    with device(context, bind(), "0") as sender, device(context, bind(), "1") as receiver:
        sender.connect(1, receiver.address)
        sender.connect(2, deaf[1])
        outgoing = filled(LARGE)
        assert sender.send(1, b"h", outgoing)
        assert sender.send(2, b"h", outgoing)
        heard(receiver)
        assert not outgoing.free
        deaf[0].close()
        sender.forget(2)
        assert until(lambda: outgoing.free)
        assert not sender.send(2, b"h", outgoing)  # nobody is there any more, and nobody waits for it
        assert outgoing.free
        assert sender.send(1, b"h", outgoing)
        sender.forget(2)  # forgetting twice is forgetting


@pytest.mark.parametrize("frame_bytes", [LARGE, 2_000_000])
def test_a_full_queue_refuses_instead_of_waiting(context, bind, deaf, frame_bytes):
    """The bound is in bytes, but two rounds of frames always have room."""
    queue_bytes = 8 * LARGE
    queue_frames = max(MIN_QUEUED_FRAMES, queue_bytes // frame_bytes)
    with device(context, bind(), "0", frame_bytes=frame_bytes, queue_bytes=queue_bytes) as sender:
        sender.connect(1, deaf[1])
        outgoing, accepted = Outgoing(np.zeros(frame_bytes, dtype=np.uint8)), 0
        while sender.send(1, b"h", outgoing):
            accepted += 1
            assert (
                accepted <= queue_frames + MIN_QUEUED_FRAMES
            )  # in memory the reader's queue is this one, too
        assert accepted >= queue_frames
        assert sender.bytes_sent == accepted * (1 + frame_bytes)  # what is refused is not counted as sent


def test_a_neighbour_that_does_not_read_pushes_back_and_loses_nothing(context, bind):
    frame_bytes, queue_bytes = 1_000_000, 8_000_000
    sizes = {"frame_bytes": frame_bytes, "queue_bytes": queue_bytes}
    with device(context, bind(), "0", **sizes) as sender, device(context, bind(), "1", **sizes) as receiver:
        sender.connect(1, receiver.address)
        outgoing, accepted = Outgoing(np.zeros(frame_bytes, dtype=np.uint8)), 0
        refused = 0
        while refused < 20:  # the wire may still be taking in what was queued
            if sender.send(1, b"%d" % accepted, outgoing):
                accepted, refused = accepted + 1, 0
            else:
                refused += 1
            assert accepted <= 200
        # Both ends' bound, and over TCP what the system's own buffers hold.
        assert accepted * frame_bytes <= 2 * queue_bytes + 20_000_000
        deliveries = []
        for number in range(accepted):
            deliveries += heard(receiver)
            assert int(deliveries.pop().header) == number
        assert until(lambda: sender.send(1, b"again", outgoing))
        assert heard(receiver)[0].header == b"again"


@pytest.mark.parametrize(
    "parts",
    [[b""], [b"payload alone"], [b"header", b"payload", b"more"], [b""] * 50],
    ids=["empty", "one", "three", "many"],
)
def test_a_message_of_other_parts_is_handed_on_without_a_header(context, raw, bind, parts):
    with device(context, bind(), "0") as receiver:
        stranger = raw(receiver.address)
        stranger.send_multipart(parts)
        stranger.send_multipart([b"header", b"payload"])
        broken, whole = heard(receiver, 2)
        assert (broken.peer, broken.header, len(broken.payload)) == ("9", b"", 0)
        assert (whole.peer, whole.header, whole.payload.tobytes()) == ("9", b"header", b"payload")


def test_a_name_of_arbitrary_bytes_is_a_name(context, raw, bind):
    with device(context, bind(), "0") as receiver:
        raw(receiver.address, b"\xff\xfe9").send_multipart([b"header", b"payload"])
        (delivery,) = heard(receiver)
        assert isinstance(delivery.peer, str)
        assert not delivery.peer.isdigit()


def test_an_oversized_message_does_not_arrive_over_tcp_and_harms_nobody_else(context, raw):
    frame_bytes = 10_000
    with device(context, "tcp://127.0.0.1:*", "0", frame_bytes=frame_bytes) as receiver:
        neighbour, stranger = (raw(receiver.address, name) for name in (b"1", b"9"))
        neighbour.send_multipart([b"first", b"payload"])
        assert heard(receiver)[0].header == b"first"
        limit = OVERSIZE_FACTOR * (frame_bytes + HEADER_BYTES)
        stranger.send_multipart([b"at the limit", bytes(limit)])
        assert len(heard(receiver)[0].payload) == limit
        stranger.send_multipart([b"oversized", bytes(limit + 1)])
        neighbour.send_multipart([b"second", b"payload"])
        assert heard(receiver)[0].header == b"second"
        # The stranger's link was cut, not its right to speak: it connects again by itself.
        deadline, headers = monotonic() + PATIENCE_S, []
        while b"back" not in headers:
            assert monotonic() < deadline
            stranger.send_multipart([b"back", b"payload"])
            delivery = receiver.receive(0.05)
            headers += [delivery.header] if delivery else []
        assert b"oversized" not in headers


def test_an_oversized_message_in_memory_is_handed_on_like_any_other(context, raw):
    """Nothing is allocated for it there; the inbox refuses it by its size."""
    with device(context, "inproc://0", "0", frame_bytes=100) as receiver:
        stranger = raw(receiver.address)
        stranger.send_multipart([b"oversized", bytes(100_000)])
        stranger.send_multipart([b"good", bytes(100)])
        assert [delivery.header for delivery in heard(receiver, 2)] == [b"oversized", b"good"]


def test_bytes_that_are_not_even_zeromq_harm_nobody(context, raw):
    with device(context, "tcp://127.0.0.1:*", "0") as receiver:
        port = int(receiver.address.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as visitor:
            visitor.sendall(b"GET / HTTP/1.1\r\n\r\n" + struct.pack(">Q", 2**63) * 100)
            raw(receiver.address).send_multipart([b"header", b"payload"])
            assert heard(receiver)[0].peer == "9"


def test_receive_gives_up_when_time_is_up(three):
    assert three[0].receive(0.0) is None
    assert three[0].receive(-1.0) is None
    began = monotonic()
    assert three[0].receive(0.05) is None
    assert monotonic() - began > 0.04  # ZeroMQ's clock counts whole milliseconds


def test_a_message_on_another_socket_ends_a_wait(context, raw, pair, bind):
    with device(context, bind(), "0") as transport:
        transport.wake_on(pair[0])
        pair[1].send(b"news")
        began = monotonic()
        assert transport.receive(10 * PATIENCE_S) is None
        assert monotonic() - began < PATIENCE_S
        assert pair[0].recv(zmq.NOBLOCK) == b"news"  # left for whoever reads that socket
        raw(transport.address).send_multipart([b"header", b"payload"])
        assert heard(transport)[0].header == b"header"


def test_a_frame_is_received_though_the_other_socket_has_news_nobody_reads(context, raw, pair, bind):
    with device(context, bind(), "0") as transport:
        transport.wake_on(pair[0])
        pair[1].send(b"news")
        raw(transport.address).send_multipart([b"header", b"payload"])
        assert heard(transport)[0].header == b"header"


def test_sending_to_a_device_never_connected_is_refused(three):
    outgoing = filled(13)
    assert not three[2].send(0, b"h", outgoing)
    assert outgoing.free
    assert three[2].bytes_sent == 0


@pytest.mark.parametrize("late", [False, True], ids=["connected", "connecting"])
def test_flush_lets_what_is_queued_go_after_the_transport_is_closed(context, bind, late):
    address = bind()
    with ExitStack() as stack:
        if late:
            with socket.create_server(("127.0.0.1", 0)) as free:
                port = free.getsockname()[1]
            address = f"tcp://127.0.0.1:{port}" if address.startswith("tcp") else address
        else:
            receiver = stack.enter_context(device(context, address, "1"))
            address = receiver.address
        with device(context, bind(), "0") as sender:
            sender.connect(1, address)
            for number in range(MIN_QUEUED_FRAMES):
                assert sender.send(1, b"%d" % number, filled(LARGE, number))
            sender.flush(PATIENCE_S)
            assert not sender.send(1, b"h", filled(13))
        if late:
            receiver = stack.enter_context(device(context, address, "1"))
        for number, delivery in enumerate(heard(receiver, MIN_QUEUED_FRAMES)):
            assert int(delivery.header) == number
            assert np.array_equal(delivery.payload, filled(LARGE, number).payload)


def test_closes_every_socket_even_if_binding_fails():
    with zmq.Context() as context:  # its end waits for every socket: this returns because none is left
        with (
            device(context, "inproc://taken", "0") as transport,
            pytest.raises(zmq.ZMQError, match="Address already in use"),
            device(context, "inproc://taken", "1"),
        ):
            pytest.fail("bound twice")
        assert not transport.send(1, b"h", filled(13))
        with device(context, "tcp://127.0.0.1:*", "0") as transport:
            transport.connect(1, transport.address)
            assert transport.send(1, b"h", filled(13))
