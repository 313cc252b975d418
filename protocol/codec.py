"""From a parameter vector to radio packets and back.

A payload is one contiguous buffer: first the body (the numbers of all packets, in order), then one
trailer per packet. Radio packet k is slice k of the body and trailer k; keeping the trailers apart
leaves the body one aligned array that is written and read in single passes.

    body     num_values numbers: float32, float16 or int8, little-endian
    trailer  per packet: [scale float32, int8 only] [CRC-32 of the slice and the scale, unless ideal]
"""

import zlib
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from protocol.config import CodecKind
from protocol.errors import BadInput, FrameError

Float32s: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]

BODY_DTYPE: dict[CodecKind, np.dtype[np.generic]] = {
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "int8": np.dtype("i1"),
}
FLOAT16_MAX = np.float32(65504.0)
INT8_MAX = 127
_ALIGNMENT_BYTES = 8
MAX_PAYLOAD_BYTES = 2**32
"""The header counts a frame's bytes in 32 bits."""


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a payload; both ends derive it from the experiment alone.

    `checked` says whether packets carry a CRC-32: they do unless the channel is ideal.
    """

    kind: CodecKind
    num_values: int
    packet_bytes: int
    checked: bool

    def __post_init__(self) -> None:
        if self.values_per_packet < 1:
            raise BadInput(f"codec.packet_bytes = {self.packet_bytes}: too small for one {self.kind} number")

        if self.payload_bytes >= MAX_PAYLOAD_BYTES:
            raise BadInput(
                f"model: {self.num_values:,} parameters make a frame of {self.payload_bytes:,} bytes, "
                f"and one holds less than {MAX_PAYLOAD_BYTES:,}; use fewer, or a shorter codec.kind"
            )

    @cached_property
    def trailer_dtype(self) -> np.dtype[np.void]:
        """Return the record that follows each packet's slice."""
        scale = [("scale", "<f4")] if self.kind == "int8" else []
        crc = [("crc", "<u4")] if self.checked else []
        return np.dtype(scale + crc)

    @cached_property
    def values_per_packet(self) -> int:
        """Numbers in a full packet; the last one may hold fewer."""
        return (self.packet_bytes - self.trailer_dtype.itemsize) // BODY_DTYPE[self.kind].itemsize

    @cached_property
    def num_packets(self) -> int:
        """Return the number of radio packets in a frame."""
        return -(-self.num_values // self.values_per_packet)

    @cached_property
    def slice_bytes(self) -> int:
        """Body bytes of a full packet."""
        return self.values_per_packet * BODY_DTYPE[self.kind].itemsize

    @cached_property
    def body_bytes(self) -> int:
        """Bytes of all numbers."""
        return self.num_values * BODY_DTYPE[self.kind].itemsize

    @cached_property
    def payload_bytes(self) -> int:
        """Bytes of body and trailers."""
        return self.body_bytes + self.num_packets * self.trailer_dtype.itemsize

    @cached_property
    def packet_bits(self) -> npt.NDArray[np.int64]:
        """Bits on the air of each packet, shape (num_packets,)."""
        full = 8 * (self.slice_bytes + self.trailer_dtype.itemsize)
        bits = np.full(self.num_packets, full, dtype=np.int64)
        bits[-1] -= 8 * (self.num_packets * self.slice_bytes - self.body_bytes)
        return bits

    @cached_property
    def num_bits(self) -> int:
        """Return the bits on the air of all packets."""
        return int(self.packet_bits.sum())

    def body(self, payload: Bytes) -> npt.NDArray[np.generic]:
        """View the numbers of a payload, shape (num_values,)."""
        return payload[: self.body_bytes].view(BODY_DTYPE[self.kind])

    def trailers(self, payload: Bytes) -> npt.NDArray[np.void]:
        """View the trailers of a payload, shape (num_packets,)."""
        return payload[self.body_bytes :].view(self.trailer_dtype)

    def values(self, packet: int) -> slice:
        """Return which of the num_values numbers packet carries."""
        start = packet * self.values_per_packet
        return slice(start, min(start + self.values_per_packet, self.num_values))

    def gather(self, payload: Bytes, packets: npt.NDArray[np.int64]) -> Bytes:
        """Copy packets, rising, as they lie on the air: a row each, its slice, then at once its trailer."""
        step, tail = self.slice_bytes, self.trailer_dtype.itemsize
        air = np.empty((len(packets), step + tail), dtype=np.uint8)
        trailers = payload[self.body_bytes :].reshape(self.num_packets, tail)
        num_full = self.body_bytes // step
        full = packets[packets < num_full]
        air[: len(full), :step] = payload[: num_full * step].reshape(num_full, step)[full]
        air[: len(full), step:] = trailers[full]
        if len(full) < len(packets):  # packets are in order, so a short last packet is the last row
            rest = self.body_bytes - num_full * step
            air[-1, :rest] = payload[num_full * step : self.body_bytes]
            air[-1, rest : rest + tail] = trailers[-1]
        return air

    def scatter(self, air: Bytes, packets: npt.NDArray[np.int64]) -> "Selection":
        """Make a payload of rows as `gather` returns them."""
        part = self.of(packets)
        step, tail = self.slice_bytes, self.trailer_dtype.itemsize
        payload = np.empty(part.payload_bytes, dtype=np.uint8)
        num_full = part.body_bytes // step
        payload[: num_full * step].reshape(num_full, step)[:] = air[:num_full, :step]
        trailers = payload[part.body_bytes :].reshape(part.num_packets, tail)
        trailers[:num_full] = air[:num_full, step:]
        if num_full < len(packets):
            rest = part.body_bytes - num_full * step
            payload[num_full * step : part.body_bytes] = air[-1, :rest]
            trailers[-1] = air[-1, rest : rest + tail]
        return Selection(packets, part, payload)

    def of(self, packets: npt.NDArray[np.int64]) -> "Layout":
        """Lay out a payload that holds only these packets, rising."""
        num_values = len(packets) * self.values_per_packet
        if len(packets) and packets[-1] == self.num_packets - 1:  # the last one may be short
            num_values -= self.num_packets * self.values_per_packet - self.num_values
        return Layout(self.kind, num_values, self.packet_bytes, self.checked)

    def values_of_each(self) -> npt.NDArray[np.int64]:
        """Count the numbers in each packet, shape (num_packets,)."""
        counts = np.full(self.num_packets, self.values_per_packet, dtype=np.int64)
        counts[-1] = self.num_values - (self.num_packets - 1) * self.values_per_packet
        return counts

    def cut(self, number: int) -> tuple["Chunk", ...]:
        """Cut the numbers into contiguous chunks, as equal as can be, each with packets of its own.

        Raises BadInput if there are fewer numbers than chunks.
        """
        if number > self.num_values:
            raise BadInput(f"model: {self.num_values} parameters cannot be cut into {number} chunks")
        ends = [self.num_values * k // number for k in range(number + 1)]
        return tuple(
            Chunk(slice(start, stop), Layout(self.kind, stop - start, self.packet_bytes, self.checked))
            for start, stop in pairwise(ends)
        )


@dataclass(frozen=True)
class Chunk:
    """A contiguous part of a parameter vector: which of its numbers, and how they lie in packets."""

    values: slice
    layout: Layout


@dataclass(frozen=True)
class Selection:
    """Some packets of a frame as a payload of their own: which ones, rising, and how they lie in it."""

    packets: npt.NDArray[np.int64]
    layout: Layout
    payload: Bytes


def select(payload: Bytes, layout: Layout, packets: npt.NDArray[np.int64]) -> Bytes:
    """Write what goes over the wire when packets, rising, are sent again: bitmap, then payload."""
    wanted = np.zeros(layout.num_packets, dtype=np.bool_)
    wanted[packets] = True
    part = layout.scatter(layout.gather(payload, packets), packets)
    side = np.zeros(side_bytes(-(-layout.num_packets // 8)), dtype=np.uint8)
    side[: -(-layout.num_packets // 8)] = np.packbits(wanted)
    return np.concatenate((side, part.payload))


def selected(data: Bytes, layout: Layout) -> Selection:
    """Read what `select` wrote; raises FrameError unless it is exactly that."""
    start = side_bytes(-(-layout.num_packets // 8))
    if len(data) < start:
        raise FrameError("too short for the bitmap of its packets")
    bits = np.unpackbits(data[:start])
    if bits[layout.num_packets :].any():
        raise FrameError("its bitmap goes beyond the last packet")
    packets = np.flatnonzero(bits[: layout.num_packets])
    part = layout.of(packets)
    if not len(packets) or len(data) != start + part.payload_bytes:
        raise FrameError("its size is not that of the packets in its bitmap")
    return Selection(packets, part, data[start:])


def side_bytes(num_bytes: int) -> int:
    """Round side information up, so that the payload behind it stays aligned."""
    return -(-num_bytes // _ALIGNMENT_BYTES) * _ALIGNMENT_BYTES


def encode(x: Float32s, layout: Layout, payload: Bytes, rng: np.random.Generator | None) -> None:
    """Write x, shape (num_values,), into payload as radio packets.

    float16 clips to the format's range. int8 rounds stochastically, floor(x / scale + u) with u
    uniform in [0, 1) and scale = max|x| / 127 over the packet, so that E[decode(encode(x))] = x
    (Alistarh et al., "QSGD", NeurIPS 2017). Only int8 draws from rng, and needs one.
    What is infinite or NaN decodes to a packet that finite_packets refuses, never to a number.
    """
    body = layout.body(payload)
    match layout.kind:
        case "float32":
            np.copyto(body, x)
        case "float16":
            np.copyto(body, np.clip(x, -FLOAT16_MAX, FLOAT16_MAX), casting="same_kind")
            if not _surely_finite(x):
                np.copyto(body, np.float16("nan"), where=~np.isfinite(x))
        case "int8":
            assert rng is not None
            scale = _scales(x, layout)
            layout.trailers(payload)["scale"] = scale
            with np.errstate(invalid="ignore"):  # a diverged model: its scale is not finite
                steps = x / np.repeat(np.where(scale == 0, 1, scale), layout.values_of_each())
                steps += rng.random(layout.num_values, dtype=np.float32)
                np.copyto(body, np.clip(np.floor(steps), -INT8_MAX, INT8_MAX), casting="unsafe")
    if layout.checked:
        layout.trailers(payload)["crc"] = checksums(payload, layout)


def decode(payload: Bytes, layout: Layout) -> Float32s:
    """Read the numbers of a payload, shape (num_values,); float32 is a view, never a copy."""
    body = layout.body(payload)
    if layout.kind == "float32":
        return body  # type: ignore[return-value]  # the view's dtype is this kind's
    x = body.astype(np.float32)
    if layout.kind == "int8":
        with np.errstate(over="ignore", invalid="ignore"):  # the scale of a diverged model
            x *= np.repeat(layout.trailers(payload)["scale"], layout.values_of_each())
    return x


def checksums(payload: Bytes, layout: Layout) -> npt.NDArray[np.uint32]:
    """Compute the CRC-32 (ISO-HDLC, as in zlib) of every packet's slice and scale."""
    body, step = payload[: layout.body_bytes].data, layout.slice_bytes
    crc32 = zlib.crc32
    crcs = [crc32(body[start : start + step]) for start in range(0, layout.body_bytes, step)]
    if layout.kind == "int8":
        scales = layout.trailers(payload)["scale"].tobytes()
        crcs = [crc32(scales[4 * k : 4 * k + 4], crc) for k, crc in enumerate(crcs)]
    return np.array(crcs, dtype=np.uint32)


def _scales(x: Float32s, layout: Layout) -> Float32s:
    starts = np.arange(0, layout.num_values, layout.values_per_packet)
    return (np.maximum.reduceat(np.abs(x), starts) / np.float32(INT8_MAX)).astype(np.float32)


def finite_packets(x: Float32s, layout: Layout) -> npt.NDArray[np.bool_]:
    """Say which packets hold only finite numbers, shape (num_packets,)."""
    if _surely_finite(x):
        return np.ones(layout.num_packets, dtype=np.bool_)
    return np.logical_and.reduceat(np.isfinite(x), np.arange(0, layout.num_values, layout.values_per_packet))


def _surely_finite(x: Float32s) -> bool:
    """Look at x cheaply: extremes pass NaN on, and their difference is finite only if both are.

    False where that cannot tell. Two vectorised passes, the second in cache, take less than one sum.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        return bool(np.isfinite(x.max() - x.min()))
