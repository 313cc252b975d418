"""Frames over torch.distributed: every device goes through the same phases, in step with its neighbours.

Neither gloo nor nccl can wait for whoever speaks first: a wait is for one transfer that both ends have
begun, and a wait that times out cuts the link for good. So both ends of a link must begin the same
transfers. They do in synchronous gossip, where a sweep is a dialogue on every link: parameters both ways,
acknowledgements both ways, repeats as these say. In a phase a device sends each neighbour that its dialogue
goes on with one frame or none, and receives likewise. It goes on with those for whom something is queued and
those of whom a frame is awaited; since a frame is awaited if and only if it will be sent, both ends agree.

Nobody waits for ever (derived for this project): a dialogue that is over stays over until the next sweep, so
on every link that is open the phases of a sweep are counted alike, and whoever waits does so for a device
that is in an earlier phase or still computing. Waits cannot form a circle.

A phase is a batch of envelopes of one size, which carry headers and small payloads, and a batch of the
payloads that do not fit in, whose sizes both ends know by then. Nothing is copied but small payloads.

With nccl these payloads go from GPU to GPU. The envelopes are gloo's in any case: it knows at once when a
neighbour has gone, which nccl does not, and whoever has an envelope will begin its part of what follows.
"""

import os
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from node.place import Place
from node.processor import CPU
from node.transport.transport import Awaited, Parted
from node.transport.zmq import OVERSIZE_FACTOR, Delivery, Outgoing
from protocol.codec import Bytes
from protocol.config import Experiment
from protocol.errors import RunError
from protocol.frame import HEADER_BYTES
from protocol.messages import Start

_SIZES = struct.Struct("<?BxxI")
"""Whether there is a frame, the bytes of its header, the bytes of its payload."""
_INLINE_AT = _SIZES.size + -(-HEADER_BYTES // 8) * 8
ENVELOPE_BYTES = 1024
INLINE_BYTES = ENVELOPE_BYTES - _INLINE_AT
"""Payloads up to this size travel in the envelope: acknowledgements of models of up to a million numbers."""
_LEAST_WAIT = timedelta(milliseconds=1)

_Queued = tuple[bytes, Outgoing]


class TorchTransport:
    """One rank of a process group; a process can be one only."""

    def __init__(
        self, experiment: Experiment, rank: int, store: TCPStore | None, *, frame_bytes: int
    ) -> None:
        self.address = f"{store.host}:{store.port}" if store is not None else ""
        self.bytes_sent = 0
        self._experiment = experiment
        self._rank = rank
        self._store = store
        self._largest_bytes = OVERSIZE_FACTOR * frame_bytes
        self._liveness_wall_s = experiment.runtime.liveness_wall_s
        self._device = CPU
        """Between which of each rank payloads go."""
        self._awaited: Awaited = tuple
        self._queues: dict[int, deque[_Queued]] = {}
        self._deliveries: deque[Delivery] = deque()

    @classmethod
    @contextmanager
    def open(
        cls, experiment: Experiment, rank: int, place: Place, *, frame_bytes: int
    ) -> "Iterator[TorchTransport]":
        """Let all meet at rank 0, unless torchrun has a place for that; leave the group at the end.

        With nccl payloads go by way of this thread's GPU.
        """
        hosts = rank == 0 and place.ranked is None
        store = TCPStore(place.host, 0, is_master=True, wait_for_workers=False) if hosts else None
        transport = cls(experiment, rank, store, frame_bytes=frame_bytes)
        if experiment.transport.kind == "nccl":
            transport._device = torch.device("cuda", torch.cuda.current_device())
        try:
            yield transport
        finally:
            transport.break_off()

    def meet(self, start: Start, awaited: Awaited) -> None:
        """Join all other ranks; RunError if one does not come within `runtime.join_wall_s`."""
        self._awaited = awaited
        self._queues = {neighbour.device: deque() for neighbour in start.neighbours}
        if not self._queues:
            return  # so it is for all: the graph is connected, or nobody talks
        on_gpu, wait = self._device != CPU, timedelta(seconds=self._experiment.runtime.join_wall_s)
        if on_gpu:
            os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"  # or a wait would not be one
        try:
            if start.rendezvous and self._store is None:
                host, _, port = start.rendezvous.rpartition(":")
                self._store = TCPStore(host, int(port), is_master=False, timeout=wait)
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
                init_method=None if self._store is not None else "env://",
                store=self._store,
                rank=self._rank,
                world_size=self._experiment.devices,
                timeout=wait,
                device_id=self._device if on_gpu else None,
            )
        except RuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise RunError(f"the devices did not meet at {start.rendezvous or 'env://'}: {reason}") from error

    def send(self, device: int, header: bytes, outgoing: Outgoing) -> bool:
        """Queue a frame for a neighbour; it goes in the next phase that is free for it."""
        queue = self._queues.get(device)
        if queue is None:
            return False
        queue.append((header, outgoing))
        self.bytes_sent += len(header) + len(outgoing.payload)
        return True

    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next frame that came in, after a phase if none has; without time for one, None.

        A phase takes as long as the slowest neighbour does: Parted if that exceeds `runtime.liveness_wall_s`.
        """
        if not self._deliveries and timeout_s > 0:
            self._go_through_phase()
        return self._deliveries.popleft() if self._deliveries else None

    def settle(self) -> None:
        """Go through further phases until nothing is queued."""
        while any(self._queues.values()):
            self._go_through_phase()

    def forget(self, device: int) -> None:
        """End the run: without one of them nobody can go on in step."""
        raise Parted(f"device {device} died")

    def break_off(self) -> None:
        """Leave the group: whoever waits for this device knows at once."""
        self._queues = {}
        if dist.is_initialized():
            dist.destroy_process_group()

    def flush(self, linger_s: float) -> None:
        """Do nothing: what was sent has been received."""

    def _go_through_phase(self) -> None:
        """Send one frame, or none, to each neighbour that the dialogue goes on with, and receive likewise."""
        open_ = sorted({device for device, queue in self._queues.items() if queue} | set(self._awaited()))
        assert open_, "it waits, but for nobody"
        leaving = {device: _pop(self._queues[device]) for device in open_}
        envelopes = self._pass(
            {device: _envelope(queued) for device, queued in leaving.items()},
            dict.fromkeys(open_, ENVELOPE_BYTES),
            CPU,
        )
        sizes = {device: _SIZES.unpack_from(envelope.data) for device, envelope in envelopes.items()}
        for device, (_, _, payload_bytes) in sizes.items():
            if payload_bytes > self._largest_bytes:
                raise RunError(f"device {device} announces a frame of {payload_bytes} bytes")
        payloads = self._pass(
            {
                device: queued[1].payload
                for device, queued in leaving.items()
                if queued is not None and len(queued[1].payload) > INLINE_BYTES
            },
            {device: size for device, (_, _, size) in sizes.items() if size > INLINE_BYTES},
            self._device,
        )
        for device, (is_there, header_bytes, payload_bytes) in sizes.items():
            if is_there:
                envelope = envelopes[device]
                header = envelope[_SIZES.size : _SIZES.size + header_bytes].tobytes()
                inline = envelope[_INLINE_AT : _INLINE_AT + payload_bytes]
                self._deliveries.append(Delivery(str(device), header, payloads.get(device, inline)))

    def _pass(
        self, leaving: Mapping[int, Bytes], coming: Mapping[int, int], over: torch.device
    ) -> dict[int, Bytes]:
        """Send arrays to some neighbours and receive some of these sizes, in one batch; raises Parted."""
        received = {n: torch.empty(size, dtype=torch.uint8, device=over) for n, size in coming.items()}
        transfers = [
            dist.P2POp(dist.isend, torch.from_numpy(array).to(over), n) for n, array in leaving.items()
        ]
        transfers += [dist.P2POp(dist.irecv, tensor, n) for n, tensor in received.items()]
        if not transfers:
            return {}
        # nccl has to know all at once, and ends them as one; gloo each by itself, which tells who has gone.
        batches = [[transfer] for transfer in transfers] if over == CPU else [transfers]
        begun, deadline = [], monotonic() + self._liveness_wall_s
        batch: list[dist.P2POp] = []
        try:
            for batch in batches:
                begun.append((batch, dist.batch_isend_irecv(batch)))
            for batch, works in begun:  # noqa: B007  # whose wait failed is read below
                for work in works:
                    work.wait(max(timedelta(seconds=deadline - monotonic()), _LEAST_WAIT))
        except RuntimeError as error:
            who = " or ".join(sorted({f"device {transfer.peer}" for transfer in batch}))
            if monotonic() < deadline:
                raise Parted(f"{who} has gone") from error
            silence = f"said nothing for {self._liveness_wall_s:g} s (runtime.liveness_wall_s)"
            raise Parted(f"{who} {silence}", silent=True) from error
        return {n: tensor.cpu().numpy() for n, tensor in received.items()}


def _pop(queue: deque[_Queued]) -> _Queued | None:
    return queue.popleft() if queue else None


def _envelope(queued: _Queued | None) -> Bytes:
    envelope = np.zeros(ENVELOPE_BYTES, dtype=np.uint8)
    if queued is not None:
        header, payload = queued[0], queued[1].payload
        _SIZES.pack_into(envelope.data, 0, True, len(header), len(payload))
        envelope[_SIZES.size : _SIZES.size + len(header)] = np.frombuffer(header, dtype=np.uint8)
        if len(payload) <= INLINE_BYTES:
            envelope[_INLINE_AT : _INLINE_AT + len(payload)] = payload
    return envelope
