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
from protocol.radio import Modulation

MAGIC = b"HSAY"
VERSION = 4
_FIELDS = struct.Struct("<4sBBBBQIIIIBBHIIId")
_CRC = struct.Struct("<I")
HEADER_BYTES = _FIELDS.size + _CRC.size

CODEC_NUMBER: dict[CodecKind, int] = {"float32": 1, "float16": 2, "int8": 3}
MODULATION_NUMBER: dict[Modulation, int] = {"bpsk": 1, "qpsk": 2, "qam16": 3, "qam64": 4, "qam256": 5}
MODULATION_OF = {number: modulation for modulation, number in MODULATION_NUMBER.items()}
_FLAG_CHECKED = 1
FLAG_FINAL = 2
"""Of an ACK: what is missing is not wanted again."""
FLAG_LEAVES = 4
"""This is the sender's last round: its budgets do not pay for another exchange after it."""

FLAG_VOID = 8
"""Of parameters and ACKs: not sent at all, since its sender has no time left for it; without a payload."""


class Kind(IntEnum):
    """What a frame carries."""

    PARAMETERS = 1
    """The sender's parameters, encoded."""
    ACK = 2
    """Which packets of the receiver's own frame of this round arrived: one bit each, first packet first."""
    SCALE = 3
    """How much of its power each fading block of the receiver's own analog frame was given, float32 each."""
    GONE_ON = 4
    """Nothing: no more frames of rounds before `round` come of its sender; if it leaves, none at all."""


@dataclass(frozen=True, slots=True)
class Header:
    """Who says what, in which life, round, part and attempt; `air_s` is when the transmission began.

    `part`: which frame of the round this or what it answers is, since a round may need several.
    `modulation`: a MODULATION_NUMBER for parameters in packets, 0 for all else.
    """

    kind: Kind
    run: int
    epoch: int
    sender: int
    incarnation: int
    round: int
    part: int
    attempt: int
    modulation: int
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
            self.modulation,
            self.part,
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
    run, epoch, sender, incarnation, round_, attempt, modulation, part, num_values, *end = rest
    packet_bytes, payload_bytes, air_s = end
    if modulation and modulation not in MODULATION_OF:
        raise FrameError(f"unknown modulation {modulation}")
    if not 0 <= air_s < float("inf"):
        raise FrameError("air_s is not a time")
    return Header(
        Kind(kind),
        run,
        epoch,
        sender,
        incarnation,
        round_,
        part,
        attempt,
        modulation,
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
