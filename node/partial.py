"""Partial means: what travels along trees and rings, and how they are joined.

A frame carries the mean over some devices of one chunk of the parameters, and for every packet of it the
number of devices that are in it. A packet that stays lost takes the devices behind it out of the mean,
which the numbers tell. Where devices adapt their local rounds, the means of their scalars come first.
"""

import numpy as np
import numpy.typing as npt
import torch

from node.antenna import Shape
from node.digital import Inbound, accumulate_
from node.mixing import Arrived
from node.transport.zmq import Buffers, Outgoing
from protocol.access import COUNT_BITS
from protocol.channel import Counts
from protocol.codec import Bytes, Chunk, Float32s, decode, encode
from protocol.scalars import NUM_BYTES, Scalars


class Partial:
    """The mean of one chunk over some devices, built up frame by frame; kept for as long as its schedule."""

    def __init__(self, chunk: Chunk, *, members: int, adaptive: bool) -> None:
        self.chunk = chunk
        self.scalars = Scalars()
        self._scalar_bytes = NUM_BYTES if adaptive else 0
        self.counts: Counts = np.zeros(chunk.layout.num_packets, dtype=np.int64)
        """Number of devices in each packet, shape (num_packets,)."""
        self._members = members
        self._sum = Arrived(chunk.layout)

    @property
    def numbers(self) -> Float32s:
        """The sum, or what is left of it after `mean_` or `take_`, shape (num_values,)."""
        return self._sum.s.numpy()

    def clear_(self) -> None:
        """Start with no device in it."""
        self._sum.clear_()
        self.counts.fill(0)
        self.scalars = Scalars()

    def shape(self, part: int) -> Shape:
        """Return what its frame is like."""
        layout = self.chunk.layout
        return Shape(part, layout, side_bits=8 * self._scalar_bytes + COUNT_BITS * layout.num_packets)

    def add_own_(self, x: torch.Tensor) -> None:
        """Add one device's numbers: those of the chunk in its parameters x, shape (num_values,)."""
        everything = np.ones(self.chunk.layout.num_packets, dtype=np.bool_)
        self._sum.add_(x[self.chunk.values].numpy(), 1.0, everything)
        self.counts += 1

    def add_(self, inbound: Inbound) -> None:
        """Add the packets that came of a partial mean, each as many times as there are devices in it."""
        counts = self._counts_in(inbound)
        for count in np.unique(counts).tolist():
            if count:
                accumulate_(self._sum, inbound, float(count), counts == count)
        self.counts += counts
        self.scalars = self.scalars.joined(self._scalars_in(inbound))

    def take_(self, inbound: Inbound) -> None:
        """Replace all by the packets that came of a mean, as they came."""
        self.clear_()
        self.counts = self._counts_in(inbound)
        self.scalars = Scalars().joined(self._scalars_in(inbound))  # if they are finite
        accumulate_(self._sum, inbound, 1.0, self.counts > 0)

    def mean_(self) -> None:
        """Divide the sum by the number of devices in it; where nobody is in it, it is nothing."""
        s, counts = self._sum.s, np.maximum(self.counts, 1)
        if not self.counts.any():
            s.zero_()
        elif counts.min() < counts.max():
            s.div_(torch.from_numpy(np.repeat(counts, self.chunk.layout.values_of_each()).astype(np.float32)))
        elif counts[0] > 1:
            s.div_(float(counts[0]))

    def round_(self, frame: Bytes) -> None:
        """Put the numbers as others decode them from a frame in the place of one's own."""
        layout = self.chunk.layout
        if layout.kind != "float32":
            payload = frame[self.shape(0).side_bytes :]
            self._sum.s.copy_(torch.from_numpy(decode(payload, layout)))

    def settle_(self, x: torch.Tensor, step: float) -> None:
        """Move x, shape (num_values,), to the mean wherever there is one: x += step (mean - x).

        With a step of 1 devices end with the same bits, wherever they were before.
        """
        own, mean, there = x[self.chunk.values], self._sum.s.to(x.device), np.flatnonzero(self.counts)
        everything = len(there) == self.chunk.layout.num_packets
        for span in [slice(None)] if everything else map(self.chunk.layout.values, there.tolist()):
            if step == 1:
                own[span].copy_(mean[span])
            else:
                own[span].lerp_(mean[span], step)

    def _counts_in(self, inbound: Inbound) -> Counts:
        """Return how many devices are in each packet that came; impossible numbers count as none."""
        counts = self._counts_of(inbound.side).astype(np.int64)
        counts[~inbound.receiving.intact | (counts + self.counts > self._members)] = 0
        return counts

    def _counts_of(self, side: Bytes) -> npt.NDArray[np.uint16]:
        """View the counts in the side information of a frame."""
        start = self._scalar_bytes
        return side[start : start + COUNT_BITS // 8 * self.chunk.layout.num_packets].view("<u2")

    def _scalars_in(self, inbound: Inbound) -> Scalars:
        late = inbound.receiving.late and inbound.receiving.attempt == 0
        return Scalars.read(inbound.side) if self._scalar_bytes and not late else Scalars()

    def write_side(self, frame: Bytes) -> None:
        """Write scalars and counts to the front of a frame."""
        if self._scalar_bytes:
            self.scalars.write(frame)
        self._counts_of(frame)[:] = self.counts


class PartialFrames:
    """Buffers for the frames of partial means: each part has its own, since it may have to be sent again."""

    def __init__(self) -> None:
        self._buffers: dict[int, Buffers] = {}

    def pack(self, partial: Partial, part: int, rng: np.random.Generator | None) -> Outgoing:
        """Write the frame of the numbers of a partial mean as they are."""
        shape = partial.shape(part)
        num_bytes = shape.side_bytes + shape.layout.payload_bytes
        [outgoing] = self._buffers.setdefault(part, Buffers(num_bytes)).take(1)
        partial.write_side(outgoing.payload)
        encode(partial.numbers, shape.layout, outgoing.payload[shape.side_bytes :], rng)
        return outgoing

    def copy(self, frame: Bytes, partial: Partial, part: int) -> Outgoing:
        """Return a received frame, or where devices are missing in it a copy that says so."""
        if partial.counts.all():
            return Outgoing(frame)
        [outgoing] = self._buffers.setdefault(part, Buffers(len(frame))).take(1)
        outgoing.payload[:] = frame
        partial.write_side(outgoing.payload)
        return outgoing
