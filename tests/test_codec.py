"""Codecs: what a payload looks like byte by byte, and what survives a round trip."""

import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import norm

from protocol.codec import Layout, checksums, decode, encode, finite_packets, select, selected
from protocol.errors import BadInput, FrameError

fixed = settings(derandomize=True, deadline=None)

KINDS = ("float32", "float16", "int8")
VALUE_BYTES = {"float32": 4, "float16": 2, "int8": 1}

# Subnormal scales lose their precision, and with it the bound of one scale step; no model lives there.
moderate = st.floats(-(2.0**100), 2.0**100, width=32).filter(lambda v: v == 0 or abs(v) > 2.0**-100)
layouts = st.builds(
    Layout,
    st.sampled_from(KINDS),
    num_values=st.integers(1, 150),
    packet_bytes=st.integers(16, 100),
    checked=st.booleans(),
)


@st.composite
def vectors(draw):
    """Draw a layout and a vector that fits it."""
    layout = draw(layouts)
    return layout, draw(arrays(np.float32, layout.num_values, elements=moderate))


def encoded(x, layout, seed=1):
    payload = np.zeros(layout.payload_bytes, dtype=np.uint8)
    encode(x, layout, payload, np.random.default_rng(seed))
    return payload


def packets_of(payload, layout):
    """Cut a payload as docs/wire.md says, with struct alone: (slice, scale or None, CRC or None) each."""
    raw, size = payload.tobytes(), VALUE_BYTES[layout.kind]
    has_scale = layout.kind == "int8"
    tail = 4 * has_scale + 4 * layout.checked
    per_packet = (layout.packet_bytes - tail) // size
    body_bytes = layout.num_values * size
    cut = []
    for number, start in enumerate(range(0, layout.num_values, per_packet)):
        values = raw[start * size : min((start + per_packet) * size, body_bytes)]
        trailer = raw[body_bytes + number * tail : body_bytes + (number + 1) * tail]
        scale = struct.unpack_from("<f", trailer)[0] if has_scale else None
        crc = struct.unpack_from("<I", trailer, tail - 4)[0] if layout.checked else None
        cut.append((values, scale, crc))
    assert len(raw) == body_bytes + tail * len(cut)
    return cut


@fixed
@given(layouts)
def test_layout_adds_up(layout):
    payload = encoded(np.zeros(layout.num_values, dtype=np.float32), layout)
    cut = packets_of(payload, layout)
    size, tail = VALUE_BYTES[layout.kind], layout.trailer_dtype.itemsize
    assert layout.num_packets == len(cut)
    assert layout.packet_bits.tolist() == [8 * (len(values) + tail) for values, _, _ in cut]
    assert layout.packet_bits.max() <= 8 * layout.packet_bytes
    assert layout.packet_bits.sum() == 8 * layout.payload_bytes
    assert layout.values_of_each().tolist() == [len(values) // size for values, _, _ in cut]
    spans = [layout.values(packet) for packet in range(layout.num_packets)]
    assert [span.stop - span.start for span in spans] == layout.values_of_each().tolist()
    assert [span.start for span in spans[1:]] == [span.stop for span in spans[:-1]]
    assert (spans[0].start, spans[-1].stop) == (0, layout.num_values)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("over", "num_packets"), [(-1, 1), (0, 1), (1, 2)])
def test_one_packet_exactly_full_and_one_number_more(kind, over, num_packets):
    full = (64 - 4 - 4 * (kind == "int8")) // VALUE_BYTES[kind]
    layout = Layout(kind, full + over, 64, checked=True)
    assert layout.num_packets == num_packets
    assert layout.values_of_each().tolist() == ([full + over] if num_packets == 1 else [full, 1])


@pytest.mark.parametrize("kind", KINDS)
def test_packet_too_small_for_a_number_says_so(kind):
    with pytest.raises(BadInput, match=rf"codec\.packet_bytes = 4: too small for one {kind} number"):
        Layout(kind, 10, 4, checked=True)


@fixed
@given(vectors())
def test_every_checksum_covers_its_slice_and_scale(case):
    x, layout = case[1], case[0]
    payload = encoded(x, layout)
    for values, scale, crc in packets_of(payload, layout):
        covered = values + (b"" if scale is None else struct.pack("<f", scale))
        assert crc is None or crc == zlib.crc32(covered)
    if layout.checked:
        assert layout.trailers(payload)["crc"].tolist() == checksums(payload, layout).tolist()


@fixed
@given(vectors())
def test_float32_comes_back_bit_for_bit_as_a_view(case):
    layout, x = case
    layout = Layout("float32", layout.num_values, layout.packet_bytes, layout.checked)
    payload = encoded(x, layout)
    decoded = decode(payload, layout)
    assert decoded.tobytes() == x.tobytes()
    assert np.shares_memory(decoded, payload)


@fixed
@given(st.integers(0, 2**32 - 1))
def test_float32_carries_any_bit_pattern(bits):
    layout = Layout("float32", 1, 16, checked=True)
    x = np.array([bits], dtype=np.uint32).view(np.float32)
    assert decode(encoded(x, layout), layout).tobytes() == x.tobytes()


@fixed
@given(vectors())
def test_float16_rounds_to_half_precision_and_clips(case):
    layout, x = case
    layout = Layout("float16", layout.num_values, layout.packet_bytes, layout.checked)
    decoded = decode(encoded(x, layout), layout).astype(np.float64)
    wanted = np.clip(x.astype(np.float64), -65504, 65504)
    # Half of the last of 11 significant bits, or half of the smallest subnormal.
    assert np.all(np.abs(decoded - wanted) <= np.maximum(2.0**-11 * np.abs(wanted), 2.0**-25))


@fixed
@given(vectors())
def test_int8_stays_within_one_step_of_its_own_packet(case):
    layout, x = case
    layout = Layout("int8", layout.num_values, layout.packet_bytes, layout.checked)
    payload = encoded(x, layout)
    decoded = decode(payload, layout).astype(np.float64)
    for packet, (values, scale, _) in enumerate(packets_of(payload, layout)):
        mine = x[layout.values(packet)].astype(np.float64)
        assert scale == pytest.approx(np.abs(mine).max() / 127, rel=1e-6)
        assert np.all(np.abs(decoded[layout.values(packet)] - mine) <= scale * (1 + 1e-4))
        steps = np.frombuffer(values, dtype=np.int8)
        assert np.array_equal(steps * np.float64(scale), decoded[layout.values(packet)]) or np.allclose(
            steps * np.float64(scale), decoded[layout.values(packet)], rtol=1e-6, atol=0
        )


def test_int8_is_unbiased():
    """The mean of many encodings is x: z-test per number, two-sided 99 % over all numbers together.

    A number between two steps rounds up with its fraction f as probability: variance f (1 - f) scale^2.
    """
    layout = Layout("int8", 200, 64, checked=True)
    x = np.random.default_rng(3).normal(size=200).astype(np.float32)
    num_encodings = 4000
    rng = np.random.default_rng(4)
    payload = np.zeros(layout.payload_bytes, dtype=np.uint8)
    total = np.zeros(200)
    for _ in range(num_encodings):
        encode(x, layout, payload, rng)
        total += decode(payload, layout)
    scale = np.repeat(layout.trailers(payload)["scale"].astype(np.float64), layout.values_of_each())
    fraction = np.modf(np.abs(x) / scale)[0]
    deviation = scale * np.sqrt(fraction * (1 - fraction) / num_encodings)
    bound = norm.isf(0.01 / 2 / 200) * deviation
    # Single precision: half a unit in the last place of a step count up to 127, and of the decoded number.
    assert np.all(np.abs(total / num_encodings - x) <= bound + scale * 1e-5)


def test_int8_rounding_follows_its_generator():
    layout = Layout("int8", 500, 64, checked=True)
    x = np.random.default_rng(3).normal(size=500).astype(np.float32)
    assert np.array_equal(encoded(x, layout, seed=1), encoded(x, layout, seed=1))
    assert not np.array_equal(encoded(x, layout, seed=1), encoded(x, layout, seed=2))


@pytest.mark.parametrize("kind", ["float32", "float16"])
def test_exact_codecs_draw_nothing(kind):
    layout, rng = Layout(kind, 500, 64, checked=True), np.random.default_rng(1)
    encode(np.ones(500, dtype=np.float32), layout, np.zeros(layout.payload_bytes, dtype=np.uint8), rng)
    assert rng.random() == np.random.default_rng(1).random()


@pytest.mark.parametrize("kind", KINDS)
def test_zeros_stay_zeros(kind):
    layout = Layout(kind, 100, 64, checked=True)
    assert not decode(encoded(np.zeros(100, dtype=np.float32), layout), layout).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_diverged_number_spoils_its_packet_and_no_other(kind, bad):
    """Neither the codec nor clipping may turn an infinity or NaN into a number that is then mixed."""
    layout = Layout(kind, 100, 64, checked=True)
    x = np.ones(100, dtype=np.float32)
    x[50] = bad
    finite = finite_packets(decode(encoded(x, layout), layout), layout)
    spoilt = [packet for packet in range(layout.num_packets) if 50 in range(100)[layout.values(packet)]]
    assert np.flatnonzero(~finite).tolist() == spoilt


@fixed
@given(vectors(), st.data())
def test_finite_packets_are_those_without_nan_or_infinity(case, data):
    layout, x = case
    bad = data.draw(st.lists(st.integers(0, layout.num_values - 1), max_size=3))
    x[bad] = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    wanted = [np.isfinite(x[layout.values(packet)]).all() for packet in range(layout.num_packets)]
    assert finite_packets(x, layout).tolist() == wanted


def test_a_sum_that_overflows_is_not_taken_for_an_infinity():
    layout = Layout("float32", 100, 64, checked=True)
    assert finite_packets(np.full(100, 3e38, dtype=np.float32), layout).all()


# Some packets of a frame


@st.composite
def selections(draw):
    """Draw a layout, a vector that fits it, and some of its packets, rising."""
    layout = draw(layouts)
    x = np.random.default_rng(draw(st.integers(0, 2**32))).standard_normal(layout.num_values)
    packets = draw(st.sets(st.integers(0, layout.num_packets - 1), min_size=1))
    return layout, x.astype(np.float32), np.array(sorted(packets))


def air_bytes(packet):
    """Join what `packets_of` cut: slice, scale, CRC."""
    values, scale, crc = packet
    return (
        values
        + (b"" if scale is None else struct.pack("<f", scale))
        + (b"" if crc is None else struct.pack("<I", crc))
    )


@fixed
@given(selections())
def test_gathered_packets_are_those_of_the_payload_as_they_lie_on_the_air(case):
    layout, x, packets = case
    payload = encoded(x, layout)
    cut = packets_of(payload, layout)
    rows = layout.gather(payload, packets)
    assert len(rows) == len(packets)
    for row, packet in zip(rows, packets.tolist(), strict=True):
        wanted = air_bytes(cut[packet])
        assert row[: len(wanted)].tobytes() == wanted
    rows[:] = 0  # a copy: received memory is never written
    assert packets_of(payload, layout) == cut


@fixed
@given(selections())
def test_scattered_packets_are_a_payload_of_their_own(case):
    layout, x, packets = case
    payload = encoded(x, layout)
    part = layout.scatter(layout.gather(payload, packets), packets)
    assert part.packets is packets
    assert part.layout == layout.of(packets)
    cut = packets_of(payload, layout)
    assert packets_of(part.payload, part.layout) == [cut[packet] for packet in packets.tolist()]
    whole = decode(payload, layout)
    numbers = np.concatenate([whole[layout.values(packet)] for packet in packets.tolist()])
    assert decode(part.payload, part.layout).tobytes() == numbers.tobytes()
    assert part.layout.packet_bits.tolist() == layout.packet_bits[packets].tolist()


@fixed
@given(selections())
def test_selected_reads_what_select_wrote(case):
    layout, x, packets = case
    payload = encoded(x, layout)
    payload.flags.writeable = False
    data = select(payload, layout, packets)
    part = selected(data, layout)
    assert part.packets.tolist() == packets.tolist()
    assert (
        part.payload.tobytes() == layout.scatter(layout.gather(payload, packets), packets).payload.tobytes()
    )
    assert np.shares_memory(part.payload, data)  # received memory is read where it lies
    # docs/wire.md: packet k is bit 7 - k % 8 of byte k // 8; the bitmap is padded to eight bytes.
    bitmap = data[: -(-layout.num_packets // 64) * 8].tobytes()
    assert data.nbytes == len(bitmap) + part.layout.payload_bytes
    assert [k for k in range(8 * len(bitmap)) if bitmap[k // 8] >> (7 - k % 8) & 1] == packets.tolist()


@fixed
@given(selections(), st.data())
def test_selected_refuses_whatever_has_another_size(case, data):
    layout, x, packets = case
    written = select(encoded(x, layout), layout, packets).tobytes()
    cut = data.draw(st.integers(0, len(written) - 1))
    for other in (written[:cut], written + b"\0", written + written):
        with pytest.raises(FrameError):
            selected(np.frombuffer(other, dtype=np.uint8), layout)


@fixed
@given(layouts, st.data())
def test_arbitrary_bytes_are_what_select_writes_or_a_frame_error(layout, data):
    """A bitmap of some packets and nothing beyond, then as many bytes as these packets have."""
    start = -(-layout.num_packets // 64) * 8
    bits = np.zeros(8 * start, dtype=np.uint8)
    bits[: layout.num_packets] = data.draw(st.sampled_from([0, 1, 1])) * np.random.default_rng(
        data.draw(st.integers(0, 2**32))
    ).integers(0, 2, layout.num_packets)
    beyond = layout.num_packets + data.draw(st.integers(0, 8 * start - 1))
    if data.draw(st.booleans()) and beyond < 8 * start:
        bits[beyond] = 1
    packets = np.flatnonzero(bits[: layout.num_packets])
    fitting = start + layout.of(packets).payload_bytes
    size = data.draw(st.sampled_from([fitting, fitting, fitting - 1, fitting + 1, start, start - 1, 0]))
    read = np.zeros(max(size, start), dtype=np.uint8)
    read[:start] = np.packbits(bits)
    exact = size == fitting and len(packets) > 0 and not bits[layout.num_packets :].any()
    try:
        part = selected(read[:size], layout)
    except FrameError:
        assert not exact
    else:
        assert exact
        assert part.packets.tolist() == packets.tolist()


@pytest.mark.parametrize("bit", [3, 5, 63])
def test_bits_beyond_the_last_packet_are_refused(bit):
    """Three packets: the bitmap has three bits, and the rest of its eight bytes is 0."""
    layout = Layout("float32", 10, 20, checked=True)
    written = select(encoded(np.ones(10, dtype=np.float32), layout), layout, np.array([0, 2]))
    assert layout.num_packets == 3
    selected(written, layout)
    written[bit // 8] |= 128 >> bit % 8
    with pytest.raises(FrameError):
        selected(written, layout)
