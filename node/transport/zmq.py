"""Frames over ZeroMQ: one ROUTER to be heard on, one DEALER to each neighbour, nothing copied.

`tcp://` joins processes and hosts; `inproc://` joins the threads of one process. The same sockets,
bounds and promises hold for both, so the memory transport is this one with another address.

Why nothing is lost without being counted: a DEALER to one peer queues up to its high-water mark and
then refuses (`send` returns False, and the caller counts it); the ROUTER reads no further than its
own mark per peer and lets TCP push back. Both marks are set in messages from a bound in bytes.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TypeAlias

import numpy as np
import zmq

from protocol.codec import Bytes
from protocol.frame import HEADER_BYTES
from protocol.messages import Start

Context: TypeAlias = "zmq.Context[zmq.Socket[bytes]]"
Socket: TypeAlias = "zmq.Socket[bytes]"

MIN_QUEUED_FRAMES = 4
"""Two rounds in flight, each a frame of parameters and an acknowledgement."""
OVERSIZE_FACTOR = 4
"""Frames up to this many times the right size are received, counted and named; larger ones cut the link."""
_ALIGNMENT_BYTES = 8


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one message held, and who the socket says sent it; nothing is parsed yet."""

    peer: str
    header: bytes
    payload: Bytes


class Outgoing:
    """A payload buffer that ZeroMQ may still be reading."""

    def __init__(self, payload: Bytes) -> None:
        self.payload = payload
        self._trackers: list[zmq.MessageTracker] = []

    @property
    def free(self) -> bool:
        """Say whether every send of this buffer is over, so that it may be written again."""
        self._trackers = [tracker for tracker in self._trackers if not tracker.done]
        return not self._trackers

    def sent(self, tracker: zmq.MessageTracker) -> None:
        """Remember a send that may still be reading."""
        self._trackers.append(tracker)


class Buffers:
    """Payload buffers of one size, taken again once ZeroMQ has let go of them.

    Two are in use when no neighbour stalls, one being sent and one being written; the neighbours'
    queues bound how many there can be.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes = num_bytes
        self._buffers: list[Outgoing] = []

    def take(self, number: int) -> list[Outgoing]:
        """Return so many different buffers that nobody reads."""
        free = [buffer for buffer in self._buffers if buffer.free][:number]
        missing = number - len(free)
        fresh = [Outgoing(np.zeros(self._num_bytes, dtype=np.uint8)) for _ in range(missing)]
        self._buffers += fresh
        return free + fresh


class ZmqTransport:
    """One device's sockets on the data plane."""

    def __init__(self, context: Context, router: Socket, name: str, queue_frames: int) -> None:
        self.address = router.get_string(zmq.LAST_ENDPOINT)
        self.bytes_sent = 0
        self._context = context
        self._router = router
        self._name = name
        self._queue_frames = queue_frames
        self._dealers: dict[int, Socket] = {}
        self._poller = zmq.Poller()
        self._poller.register(router, zmq.POLLIN)

    @classmethod
    @contextmanager
    def open(
        cls,
        context: Context,
        bind: str,
        *,
        name: str,
        frame_bytes: int,
        queue_bytes: int,
        num_pieces: int = 0,
    ) -> "Iterator[ZmqTransport]":
        """Bind to an address (`tcp://HOST:*` lets the system choose the port); close every socket at the end.

        `name` is what neighbours see as the sender; `queue_bytes` bounds what may wait per neighbour.
        num_pieces: frames that a frame's bytes may be cut into, of which two rounds may wait on top.
        """
        router: Socket = context.socket(zmq.ROUTER)
        queue_frames = max(MIN_QUEUED_FRAMES, queue_bytes // frame_bytes) + 4 * num_pieces
        router.set(zmq.RCVHWM, queue_frames)
        router.set(zmq.MAXMSGSIZE, OVERSIZE_FACTOR * (frame_bytes + HEADER_BYTES))
        dealers: dict[int, Socket] = {}
        try:
            router.bind(bind)
            transport = cls(context, router, name, queue_frames)
            dealers = transport._dealers
            yield transport
        finally:
            router.close(linger=0)
            for dealer in dealers.values():
                dealer.close(linger=0)

    def wake_on(self, socket: Socket) -> None:
        """Let a message on another socket (the control plane) end a wait."""
        self._poller.register(socket, zmq.POLLIN)

    def meet(self, start: Start, awaited: object) -> None:
        """Open the ways to all neighbours; whom frames are awaited from does not matter here."""
        for neighbour in start.neighbours:
            self.connect(neighbour.device, neighbour.address)

    def connect(self, device: int, address: str) -> None:
        """Open the way to one neighbour; returns at once, ZeroMQ connects behind it."""
        dealer: Socket = self._context.socket(zmq.DEALER)
        dealer.set(zmq.SNDHWM, self._queue_frames)
        dealer.set_string(zmq.ROUTING_ID, self._name)
        dealer.connect(address)
        self._dealers[device] = dealer

    def send(self, device: int, header: bytes, outgoing: Outgoing) -> bool:
        """Queue a frame for a neighbour without copying its payload; False if its queue is full or gone.

        The payload must not be written until `outgoing.free`: ZeroMQ reads it after this returns.
        """
        dealer = self._dealers.get(device)
        if dealer is None:
            return False
        try:
            tracker = dealer.send_multipart(
                [header, outgoing.payload.data], flags=zmq.NOBLOCK, copy=False, track=True
            )
        except zmq.Again:
            return False
        assert tracker is not None
        outgoing.sent(tracker)
        self.bytes_sent += len(header) + len(outgoing.payload)
        return True

    def receive(self, timeout_s: float) -> Delivery | None:
        """Wait for a frame; None when time is up, or when the socket of `wake_on` has something."""
        events = dict(self._poller.poll(ceil(max(0.0, timeout_s) * 1000)))
        if self._router not in events:
            return None
        parts = self._router.recv_multipart(copy=False)
        peer = parts[0].bytes.decode(errors="replace")
        if len(parts) != 3:
            return Delivery(peer, b"", np.empty(0, dtype=np.uint8))  # no header: refused as a frame
        payload = np.frombuffer(parts[2].buffer, dtype=np.uint8)
        if payload.ctypes.data % _ALIGNMENT_BYTES:  # small messages lie anywhere in ZeroMQ's read buffer
            payload = payload.copy()
        return Delivery(peer, parts[1].bytes, payload)

    def settle(self) -> None:
        """Do nothing: what was queued goes by itself."""

    def break_off(self) -> None:
        """Do nothing: the coordinator tells all others."""

    def forget(self, device: int) -> None:
        """Close the way to a neighbour that died, and let go of what still waits for it."""
        dealer = self._dealers.pop(device, None)
        if dealer is not None:
            dealer.close(linger=0)

    def flush(self, linger_s: float) -> None:
        """Close every way out; what is queued still goes for up to linger_s after this returns."""
        for dealer in self._dealers.values():
            dealer.close(linger=round(linger_s * 1000))
        self._dealers.clear()
