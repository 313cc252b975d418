"""Frames and control messages: what is ours comes through unchanged, anything else is refused by name."""

import dataclasses
import json
import math
import re
import struct
import zlib
from pathlib import Path

import pytest
from builders import make_heard, make_neighbour, make_report, make_spent, make_stages, make_start
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol import messages
from protocol.codec import Layout
from protocol.config import Aggregation, Experiment, Runtime
from protocol.errors import FrameError
from protocol.frame import (
    FLAG_FINAL,
    HEADER_BYTES,
    MAGIC,
    MODULATION_NUMBER,
    MODULATION_OF,
    VERSION,
    Header,
    Kind,
    run_number,
    shape_of,
    unpack,
)
from protocol.modulation import BITS_PER_SYMBOL
from protocol.packet_errors import PacketErrorTable

fixed = settings(derandomize=True, deadline=None)

WIRE = Path(__file__).parents[1] / "docs" / "wire.md"

uint8, uint32, uint64 = (st.integers(0, 2**bits - 1) for bits in (8, 32, 64))
headers = st.builds(
    Header,
    kind=st.sampled_from(Kind),
    run=uint64,
    epoch=uint32,
    sender=uint32,
    incarnation=uint32,
    round=uint32,
    part=st.integers(0, 2**16 - 1),
    attempt=st.integers(0, 255),
    modulation=st.integers(0, 5),
    codec=uint8,
    flags=uint8,
    num_values=uint32,
    packet_bytes=uint32,
    payload_bytes=uint32,
    air_s=st.floats(0, allow_infinity=False),
)
GOOD = Header(
    kind=Kind.PARAMETERS,
    run=2**63 + 1,
    epoch=6,
    sender=7,
    incarnation=8,
    round=9,
    part=300,
    attempt=5,
    modulation=4,
    codec=2,
    flags=1,
    num_values=100_000,
    packet_bytes=512,
    payload_bytes=403_000,
    air_s=1.25,
)


def with_crc(fields):
    return fields + struct.pack("<I", zlib.crc32(fields))


@fixed
@given(headers)
def test_header_round_trip(header):
    packed = header.pack()
    assert len(packed) == HEADER_BYTES
    assert unpack(packed) == header
    assert unpack(memoryview(bytearray(packed))) == header


def test_header_lies_as_the_byte_table_says():
    """The table of docs/wire.md is read and used as it stands there."""
    header = WIRE.read_text().partition("### Header: 60 bytes")[2]
    table = re.findall(r"^\| (\d+) \| (\d+) \| (\w+) \| (.+?) \|", header, re.MULTILINE)
    packed, end, fields = GOOD.pack(), 0, {}
    for offset, num_bytes, kind, name in table:
        assert int(offset) == end
        end += int(num_bytes)
        part = packed[int(offset) : end]
        if kind.startswith("uint"):
            assert kind == f"uint{8 * int(num_bytes)}"
            fields[name] = int.from_bytes(part, "little")
        else:
            fields[name] = struct.unpack("<d", part)[0] if kind == "float64" else part
    assert end == HEADER_BYTES
    assert fields.pop("magic") == b"HSAY"
    assert fields.pop("version") == VERSION
    assert fields.pop("header CRC") == zlib.crc32(packed[:-4])
    assert fields == dataclasses.asdict(GOOD)


def test_the_whole_header_of_the_document_is_ours():
    """Device 1 acknowledges attempt 1 of round 3, finally: docs/wire.md has its bytes."""
    (block,) = re.findall(r"^```\n((?:[0-9a-f]{2}[ \n]+){60})```", WIRE.read_text(), re.MULTILINE)
    codec, flags, num_values, packet_bytes = shape_of(Layout("float32", 1000, 512, checked=True))
    header = Header(
        kind=Kind.ACK,
        run=run_number("golden"),
        epoch=0,
        sender=1,
        incarnation=0,
        round=3,
        part=0,
        attempt=1,
        modulation=0,
        codec=codec,
        flags=flags | FLAG_FINAL,
        num_values=num_values,
        packet_bytes=packet_bytes,
        payload_bytes=1,
        air_s=0.42104,
    )
    assert header.pack() == bytes.fromhex(block)
    assert unpack(bytes.fromhex(block)) == header


def test_every_modulation_has_a_number_and_0_is_none():
    """As docs/wire.md has it: 1 BPSK, 2 QPSK, 3 16-QAM, 4 64-QAM, 5 256-QAM."""
    assert sorted(MODULATION_NUMBER, key=MODULATION_NUMBER.get) == list(BITS_PER_SYMBOL)
    assert sorted(MODULATION_NUMBER.values()) == [1, 2, 3, 4, 5]
    assert all(MODULATION_OF[number] == modulation for modulation, number in MODULATION_NUMBER.items())


@fixed
@given(st.binary(max_size=3 * HEADER_BYTES))
def test_arbitrary_bytes_are_no_header(data):
    with pytest.raises(FrameError):
        unpack(data)


@fixed
@given(
    kind=st.integers(0, 5),
    modulation=st.integers(0, 7),
    part=st.integers(0, 2**16 - 1),
    air_s=st.floats(),
    noise=st.binary(min_size=39, max_size=39),
)
@example(kind=0, modulation=0, part=0, air_s=0.0, noise=bytes(39))
@example(kind=1, modulation=1, part=0, air_s=0.0, noise=bytes(39))
def test_arbitrary_fields_with_a_good_checksum_raise_nothing_else(kind, modulation, part, air_s, noise):
    """Even who knows the magic, the version and the checksum gets a header or a FrameError.

    Whatever is read is what a header of ours would say, byte by byte.
    """
    fields = MAGIC + bytes([VERSION, kind]) + noise[:27] + struct.pack("<BH", modulation, part)
    fields += noise[27:] + struct.pack("<d", air_s)
    assert len(fields) == HEADER_BYTES - 4
    try:
        header = unpack(with_crc(fields))
    except FrameError:
        assert kind not in (1, 2, 3) or modulation > 5 or not 0 <= air_s < math.inf
        return
    assert header.pack() == with_crc(fields)


def test_every_single_bit_flip_is_refused():
    packed = GOOD.pack()
    for bit in range(8 * HEADER_BYTES):
        flipped = bytearray(packed)
        flipped[bit // 8] ^= 1 << bit % 8
        with pytest.raises(FrameError):
            unpack(bytes(flipped))


@pytest.mark.parametrize("size", [*range(HEADER_BYTES), HEADER_BYTES + 1, 2 * HEADER_BYTES, 1 << 20])
def test_truncated_and_oversized_headers_say_their_size(size):
    data = (GOOD.pack() * (size // HEADER_BYTES + 1))[:size]
    with pytest.raises(FrameError, match=f"header of {size} bytes, expected {HEADER_BYTES}"):
        unpack(data)


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [
        (0, b"X", "not a Hearsay frame"),
        (4, bytes([VERSION + 1]), f"wire version {VERSION + 1}, expected {VERSION}"),
        (5, b"\x09", "unknown kind 9"),
        (5, b"\x05", "unknown kind 5"),
        (33, b"\x06", "unknown modulation 6"),
        (33, b"\xff", "unknown modulation 255"),
        (48, struct.pack("<d", math.nan), "air_s is not a time"),
        (48, struct.pack("<d", math.inf), "air_s is not a time"),
        (48, struct.pack("<d", -1.0), "air_s is not a time"),
    ],
)
def test_a_well_sealed_fault_is_named(at, value, reason):
    fields = bytearray(GOOD.pack()[:-4])
    fields[at : at + len(value)] = value
    with pytest.raises(FrameError, match=reason):
        unpack(with_crc(bytes(fields)))


def test_a_broken_seal_is_named():
    with pytest.raises(FrameError, match="header checksum is wrong"):
        unpack(GOOD.pack()[:-1] + b"?")


def test_shape_says_all_that_two_layouts_may_differ_in():
    layouts = [
        Layout(kind, num_values, packet_bytes, checked)
        for kind in ("float32", "float16", "int8")
        for num_values in (10, 11)
        for packet_bytes in (64, 65)
        for checked in (True, False)
    ]
    assert len({shape_of(layout) for layout in layouts}) == len(layouts)


def test_run_number_is_the_same_everywhere_and_fits():
    assert run_number("quickstart-20250101-120000") == run_number("quickstart-20250101-120000")
    assert len({run_number(f"run-{k}") for k in range(1000)}) == 1000
    assert all(0 <= run_number(f"run-{k}") < 2**64 for k in range(1000))


# The control plane

ENDLESS = Experiment(
    aggregation=Aggregation(round_deadline_air_s=math.inf), runtime=Runtime(coordinator_grace_s=math.inf)
)
STAGES = make_stages(train=1, encode=2, send=3, wait=4, air=5, decode=6, mix=7, pace=8)
SPENT = make_spent(air_s=7.5, compute_air_s=1.5, slot_wait_air_s=0.25, compute_j=0.5, idle_j=0.125)
HEARD = make_heard(
    packets_sent=4,
    packets_resent=2,
    attempts=3,
    packets_corrupted=1,
    packets_lost=2,
    bit_errors=3,
    tx_air_s=0.1,
    rx_air_s=0.2,
    tx_j=0.01,
    rx_j=0.02,
    missing="air",
)
TABLE = PacketErrorTable(
    modulation="qpsk",
    code_rate=0.5,
    packet_bits=512,
    snr_db=(0.0, 1.0),
    packet_loss=(0.5, 0.0),
    residual_ber=(0.1, 0.1),
    num_packets=(100, 100),
)
FROM_DEVICE = [
    messages.Hello(pid=1, host="here"),
    messages.Ready(
        address="tcp://127.0.0.1:1", schema_hash="ab", num_parameters=9, payload_bytes=36, num_samples=8
    ),
    make_report(
        1,
        2,
        loss=0.5,
        test_loss=math.inf,
        bytes_sent=3,
        heard={4: HEARD},
        dropped={"5: stale round": 6},
        spent=SPENT,
        deadlines_missed=2,
        wall_s=8.5,
        stages_wall_s=STAGES,
    ),
    messages.Done(run_id="r", device=1, rounds=2, parameters="device-1.safetensors"),
    messages.Failed(reason="out of luck"),
]
FROM_COORDINATOR = [
    messages.Welcome(run_id="r", epoch=0, device=1, incarnation=0, experiment=ENDLESS, run_dir="runs/r"),
    messages.Refuse(reason="full"),
    make_start(
        make_neighbour(1, weight=0.25, mean_snr_db=9.5, position_m=(1.5, 2.5)), packet_errors=(TABLE,)
    ),
    messages.NeighbourDied(device=1, incarnation=0),
    messages.Stop(),
    messages.Bye(),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("message", FROM_DEVICE, ids=lambda message: message.kind)
def test_what_a_device_says_arrives_as_said(message):
    assert messages.from_device(messages.pack(message)) == message
    with pytest.raises(FrameError, match="control message"):
        messages.from_coordinator(messages.pack(message))


@pytest.mark.parametrize("message", FROM_COORDINATOR, ids=lambda message: message.kind)
def test_what_the_coordinator_says_arrives_as_said(message):
    assert messages.from_coordinator(messages.pack(message)) == message
    with pytest.raises(FrameError, match="control message"):
        messages.from_device(messages.pack(message))


@pytest.mark.parametrize("read", [messages.from_device, messages.from_coordinator])
@fixed
@given(data=st.binary(max_size=200))
@example(data=b"[" * 100_000)
@example(data=b'{"kind":' * 10_000)
@example(data=b'{"kind":"hello","pid":' + b"9" * 10_000 + b',"host":"\\ud800"}')
@example(data=b'{"kind":"done","run_id":"r","device":-1,"rounds":1,"parameters":"p"}')
def test_arbitrary_bytes_are_no_message(read, data):
    with pytest.raises(FrameError, match="control message"):
        read(data)


@pytest.mark.parametrize("message", FROM_DEVICE + FROM_COORDINATOR, ids=lambda message: message.kind)
@fixed
@given(data=st.data())
def test_a_message_with_one_field_replaced_is_read_or_refused(message, data):
    read = messages.from_device if message in FROM_DEVICE else messages.from_coordinator
    said = json.loads(messages.pack(message))
    key = data.draw(st.sampled_from([*said, "another"]))
    said[key] = data.draw(json_values)
    try:
        assert read(json.dumps(said).encode()) is not None
    except FrameError:
        return


@fixed
@given(st.data())
def test_a_message_with_one_byte_changed_or_cut_is_read_or_refused(data):
    message = data.draw(st.sampled_from(FROM_DEVICE + FROM_COORDINATOR))
    read = messages.from_device if message in FROM_DEVICE else messages.from_coordinator
    said = bytearray(messages.pack(message))
    at = data.draw(st.integers(0, len(said) - 1))
    said[at : at + 1] = data.draw(st.binary(max_size=1))
    try:
        assert read(bytes(said)) is not None
    except FrameError:
        return
