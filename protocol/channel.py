"""The digital channel: real bits flip in the bytes that arrived, and packets that fail their CRC are erased.

Drawing is apart from applying. Errors per packet are drawn first, then their positions, so the cost
follows the errors and not the bits. Received memory is never written: touched packets are copied.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from protocol.codec import Bytes, Layout, Selection
from protocol.fading import Floats

Counts = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

# Touched packets are treated in groups, which bounds the memory: about this much for each group.
_GROUP_BYTES = 1 << 20
# What one error needs while positions are drawn: a handful of 8-byte indices.
_ERROR_BYTES = 80
# The CRC-32 of anything followed by its own CRC-32, little-endian, is always this; of anything else, never.
_RESIDUE = 0x2144DF1C


@dataclass(frozen=True)
class Reception:
    """What came out of the air: `intact` per packet, shape (num_packets,), and the bits that flipped.

    `bad`: payloads of the packets that failed, in order, as they arrived; empty unless they were to be kept.
    """

    intact: Mask
    bit_errors: int
    bad: tuple[Selection, ...] = ()


def receive(
    payload: Bytes, layout: Layout, ber: Floats, rng: np.random.Generator, *, keep: bool = False
) -> Reception:
    """Pass a payload through binary symmetric channels of ber, shape (num_packets,), and check every CRC."""
    return apply_errors(payload, layout, rng.binomial(layout.packet_bits, ber), rng, keep=keep)


def apply_errors(
    payload: Bytes, layout: Layout, counts: Counts, rng: np.random.Generator, *, keep: bool = False
) -> Reception:
    """Flip counts[k] bits of packet k, shape (num_packets,), and check every CRC; keep what fails on request.

    Only touched packets are checked: an untouched one is what its sender checksummed (the tests
    compare with checking all). The verdict is the real CRC-32 over really flipped bytes, so an error
    that the checksum misses (about 1 in 2^32) passes as intact, as it would in life; what is then mixed
    are the bytes as sent.
    """
    assert layout.checked
    intact = np.ones(layout.num_packets, dtype=np.bool_)
    bad = []
    for packets in _groups(counts, layout):
        owner, bit = error_positions(counts[packets], layout.packet_bits[packets], rng)
        touched = layout.gather(payload, packets)
        _flip_(touched, owner, bit)
        survived = _match_their_crc(touched, layout.packet_bits[packets] >> 3)
        intact[packets] = survived
        if keep and not survived.all():
            failed = ~survived
            bad.append(layout.scatter(touched[failed], packets[failed]))
    return Reception(intact, int(counts.sum()), tuple(bad))


def error_positions(counts: Counts, packet_bits: Counts, rng: np.random.Generator) -> tuple[Counts, Counts]:
    """Draw distinct bit positions: counts[k] of packet_bits[k], uniformly among all such subsets.

    Returns (owner, bit), each of shape (counts.sum(),): the row of the packet and the bit in it.
    A position that was drawn before is drawn again until all are distinct, which is sequential
    sampling without replacement: no position is preferred, hence no subset is.
    """
    ends = np.cumsum(packet_bits)
    starts = ends - packet_bits
    rows = np.arange(len(counts))
    found, missing = np.empty(0, dtype=np.int64), counts
    while missing.any():
        owner = np.repeat(rows, missing)
        drawn = starts[owner] + rng.integers(packet_bits[owner])
        found = np.sort(np.concatenate((found, drawn)))
        found = found[np.append(True, found[1:] != found[:-1])]
        missing = counts - np.diff(np.searchsorted(found, ends), prepend=0)
    owner = np.repeat(rows, counts)
    return owner, found - starts[owner]


def _groups(counts: Counts, layout: Layout) -> Iterator[Counts]:
    """Yield the touched packets in order, in groups of about _GROUP_BYTES of memory."""
    packet_bytes = 2 * (layout.slice_bytes + layout.trailer_dtype.itemsize)  # gathered, then laid out
    needed = np.cumsum(_ERROR_BYTES * counts + packet_bytes * (counts > 0))
    cuts = np.searchsorted(needed, np.arange(_GROUP_BYTES, needed[-1], _GROUP_BYTES))
    for start, stop in pairwise([0, *cuts.tolist(), len(counts)]):
        touched = start + np.flatnonzero(counts[start:stop])
        if len(touched):
            yield touched


def _flip_(packets: Bytes, owner: Counts, bit: Counts) -> None:
    """Flip bit `bit` of row `owner`, in place; every such pair occurs once."""
    positions = owner * packets.shape[1] + (bit >> 3)
    np.bitwise_xor.at(packets.reshape(-1), positions, np.uint8(1) << (bit & 7).astype(np.uint8))


def _match_their_crc(packets: Bytes, lengths: Counts) -> Mask:
    """Say which rows, packets as they lie on the air, still match the CRC-32 at their end."""
    width = packets.shape[1]
    view, crc32 = packets.reshape(-1).data, zlib.crc32
    return np.array(
        [crc32(view[row * width : row * width + n]) == _RESIDUE for row, n in enumerate(lengths.tolist())],
        dtype=np.bool_,
    )
