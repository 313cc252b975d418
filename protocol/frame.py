"""The data-plane frame: a fixed binary header, then a payload that is never copied.

docs/wire.md has the byte table. Header and payload are separate parts of one message, so that a
payload is handed to the socket as it lies in memory. Nothing here is ever unpickled, and a header
is bounds-checked before anything is allocated for it.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum

from protocol.codec import Layout
from protocol.config import CodecKind
from protocol.errors import FrameError

MAGIC = b"HSAY"
VERSION = 1
_FIELDS = struct.Struct("<4sBBBBQIIIIIIIId")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size

CODEC_NUMBER: dict[CodecKind, int] = {"float32": 1, "float16": 2, "int8": 3}
_FLAG_CHECKED = 1


class Kind(IntEnum):
    """What a frame carries."""

    PARAMETERS = 1
    """The sender's parameters, encoded."""
    ACK = 2
    """Which packets of the receiver's own frame of this round arrived: one bit each, first packet first."""


@dataclass(frozen=True, slots=True)
class Header:
    """Who says what, in which life, round and attempt; `air_s` is when the transmission began."""

    kind: Kind
    run: int
    epoch: int
    sender: int
    incarnation: int
    round: int
    attempt: int
    codec: int
    flags: int
    num_values: int
    packet_bytes: int
    payload_bytes: int
    air_s: float

    def pack(self) -> bytes:
        """Write the header, its own CRC-32 last."""
        fields = _FIELDS.pack(
            MAGIC,
            VERSION,
            self.kind,
            self.codec,
            self.flags,
            self.run,
            self.epoch,
            self.sender,
            self.incarnation,
            self.round,
            self.attempt,
            self.num_values,
            self.packet_bytes,
            self.payload_bytes,
            self.air_s,
        )
        return fields + _CRC.pack(zlib.crc32(fields))


def unpack(data: bytes | memoryview) -> Header:
    """Read a header; raises FrameError unless every byte is as it should be."""
    if len(data) != HEADER_BYTES:
        raise FrameError(f"header of {len(data)} bytes, expected {HEADER_BYTES}")
    magic, version, kind, codec, flags, *rest = _FIELDS.unpack_from(data)
    if magic != MAGIC:
        raise FrameError("not a Hearsay frame")
    if version != VERSION:
        raise FrameError(f"wire version {version}, expected {VERSION}")
    if _CRC.unpack_from(data, _FIELDS.size)[0] != zlib.crc32(data[: _FIELDS.size]):
        raise FrameError("header checksum is wrong")
    if kind not in Kind.__members__.values():
        raise FrameError(f"unknown kind {kind}")
    run, epoch, sender, incarnation, round_, attempt, num_values, packet_bytes, payload_bytes, air_s = rest
    if not 0 <= air_s < float("inf"):
        raise FrameError("air_s is not a time")
    return Header(
        Kind(kind),
        run,
        epoch,
        sender,
        incarnation,
        round_,
        attempt,
        codec,
        flags,
        num_values,
        packet_bytes,
        payload_bytes,
        air_s,
    )


def shape_of(layout: Layout) -> tuple[int, int, int, int]:
    """Return (codec, flags, num_values, packet_bytes) as a header of this layout carries them."""
    flags = _FLAG_CHECKED if layout.checked else 0
    return CODEC_NUMBER[layout.kind], flags, layout.num_values, layout.packet_bytes


def run_number(run_id: str) -> int:
    """Return the 64-bit number that stands for a run's name on the wire."""
    return int.from_bytes(hashlib.blake2b(run_id.encode(), digest_size=8).digest(), "little")
