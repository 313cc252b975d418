"""The digital channel: real bits flip in the bytes that arrived, and packets that fail their CRC are erased.

Drawing is apart from applying. Errors per packet are drawn first, then their positions, so the cost
follows the errors and not the bits. Received memory is never written: touched packets are copied.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from protocol.codec import Bytes, Layout
from protocol.link import Floats

Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Positions are drawn for groups of packets with about this many errors, which bounds the memory.
_GROUP_ERRORS = 1 << 16


@dataclass(frozen=True)
class Reception:
    """What came out of the air: `intact` per packet, shape (num_packets,), and the bits that flipped."""

    intact: Mask
    bit_errors: int


def receive(payload: Bytes, layout: Layout, ber: Floats, rng: np.random.Generator) -> Reception:
    """Pass a payload through a binary symmetric channel with ber, shape (num_packets,), and check every CRC.

    Only touched packets are checked: an untouched one is what its sender checksummed (the tests
    compare with checking all). The verdict is the real CRC-32 over really flipped bytes, so an error
    that the checksum misses (about 1 in 2^32) passes here as it would in life.
    """
    counts = rng.binomial(layout.packet_bits, ber)
    intact = np.ones(layout.num_packets, dtype=np.bool_)
    for packets in _groups(counts):
        owner, bit = error_positions(counts[packets], layout.packet_bits[packets], rng)
        intact[packets] = _survivors(payload, layout, packets, owner, bit)
    return Reception(intact, int(counts.sum()))


def error_positions(counts: Counts, packet_bits: Counts, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """Draw distinct bit positions: counts[k] of packet_bits[k], uniformly among all such subsets.

    Returns (owner, bit), each of shape (counts.sum(),): the row of the packet and the bit in it.
    Positions that were drawn before are drawn again until all are distinct, which is sequential
    sampling without replacement.
    """
    offsets = np.concatenate(([0], np.cumsum(packet_bits)))
    missing = np.repeat(np.arange(len(counts)), counts)
    found = np.empty(0, dtype=np.int64)
    while len(missing):
        drawn = offsets[missing] + rng.integers(packet_bits[missing])
        fresh, first = np.unique(drawn, return_index=True)
        new = first[~np.isin(fresh, found, assume_unique=True)]
        found = np.concatenate((found, drawn[new]))
        missing = np.delete(missing, new)
    found.sort()
    owner = np.repeat(np.arange(len(counts)), counts)
    return owner, found - offsets[owner]


def _groups(counts: Counts) -> Iterator[Counts]:
    """Yield the touched packets in order, in groups of about _GROUP_ERRORS errors."""
    touched = np.flatnonzero(counts)
    if len(touched):
        group = np.cumsum(counts[touched]) // _GROUP_ERRORS
        yield from np.split(touched, np.flatnonzero(np.diff(group)) + 1)


def _survivors(payload: Bytes, layout: Layout, packets: Counts, owner: Counts, bit: Counts) -> Mask:
    """Flip the given bits in copies of the given packets; return which still match their CRC."""
    step, tail = layout.slice_bytes, layout.trailer_dtype.itemsize
    width = step + tail
    air = np.zeros((len(packets), width), dtype=np.uint8)
    lengths = layout.packet_bits[packets] // 8 - tail
    trailers = payload[layout.body_bytes :].reshape(layout.num_packets, tail)
    last = layout.num_packets - 1
    whole = packets[packets < last] if layout.body_bytes % step else packets
    rows = len(whole)  # packets are in order, so a short last packet is the last row
    air[:rows, :step] = payload[: layout.body_bytes // step * step].reshape(-1, step)[whole]
    if rows < len(packets):
        air[rows, : lengths[rows]] = payload[last * step : layout.body_bytes]
    air[:, step:] = trailers[packets]
    # A packet's bits run through its slice, then its trailer; a short slice leaves a gap before the trailer.
    byte = bit >> 3
    byte += np.where(byte >= lengths[owner], step - lengths[owner], 0)
    np.bitwise_xor.at(air.reshape(-1), owner * width + byte, np.uint8(1) << (bit & 7).astype(np.uint8))
    sent = np.ascontiguousarray(air[:, width - 4 :]).view("<u4")[:, 0]
    view = air.reshape(-1).data
    crc32 = zlib.crc32
    computed = [
        crc32(view[at + step : at + width - 4], crc32(view[at : at + length]))
        for at, length in zip(range(0, len(view), width), lengths.tolist(), strict=True)
    ]
    verdicts: Mask = sent == np.array(computed, dtype=np.uint32)
    return verdicts
