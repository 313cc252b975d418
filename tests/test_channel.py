"""The digital channel: real flips, real checksums, untouched memory, and the closed form's error rates."""

import dataclasses
import tracemalloc
import zlib

import numpy as np
import pytest
from constellations import AWGN_SNRS_DB
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binom, chi2, norm
from scipy.stats import t as student

from protocol import channel
from protocol.access import plan_access
from protocol.air import AirLink, Transmission, cross
from protocol.channel import apply_errors, error_positions, receive
from protocol.codec import Layout, encode
from protocol.config import Experiment
from protocol.fading import Fading, FadingProcess
from protocol.link import mean_packet_loss
from protocol.modulation import bit_error_probability, mean_bit_error_probability
from protocol.radio import Radio

fixed = settings(derandomize=True, deadline=None)

KINDS = ("float32", "float16", "int8")
layouts = st.builds(
    Layout,
    st.sampled_from(KINDS),
    num_values=st.integers(1, 500),
    packet_bytes=st.integers(16, 200),
    checked=st.just(True),
)
SHORT_LAST = [Layout(kind, 101, 64, checked=True) for kind in KINDS]

# Es/N0 [dB] at which it is about 0.2, 0.1, 0.03, 0.01, 0.002 over Rayleigh fading: few blocks, most errors.
RAYLEIGH_SNRS_DB = {
    "bpsk": (-2.5, 2.5, 9.0, 14.0, 21.0),
    "qpsk": (0.5, 5.5, 12.0, 17.0, 24.0),
    "qam16": (6.0, 11.0, 17.5, 23.0, 30.0),
    "qam64": (10.5, 16.0, 23.0, 28.0, 35.0),
    "qam256": (14.5, 20.5, 28.0, 33.0, 40.5),
}
AWGN_CELLS = [(modulation, snr_db) for modulation, snrs_db in AWGN_SNRS_DB.items() for snr_db in snrs_db]
RAYLEIGH_CELLS = [
    (modulation, snr_db) for modulation, snrs_db in RAYLEIGH_SNRS_DB.items() for snr_db in snrs_db
]
RAYLEIGH = Fading("rayleigh")
CELL_ERROR = 0.01 / (len(AWGN_CELLS) + len(RAYLEIGH_CELLS))
"""Bonferroni: with this chance of a false alarm in each cell, all cells together have at most 1 %."""


def linear(db):
    return 10 ** (db / 10)


def payload_of(layout, seed=1):
    """Encode a random vector, and make the payload read-only: whoever writes it raises."""
    rng = np.random.default_rng(seed)
    payload = np.zeros(layout.payload_bytes, dtype=np.uint8)
    encode(rng.standard_normal(layout.num_values, dtype=np.float32), layout, payload, rng)
    payload.flags.writeable = False
    return payload


def on_air(payload, layout, packet):
    """Return the bytes of one radio packet in the order of docs/wire.md: slice, scale, CRC."""
    size = {"float32": 4, "float16": 2, "int8": 1}[layout.kind]
    tail = 8 if layout.kind == "int8" else 4
    per_packet = (layout.packet_bytes - tail) // size
    body_bytes = layout.num_values * size
    raw = payload.tobytes()
    values = raw[packet * per_packet * size : min((packet + 1) * per_packet * size, body_bytes)]
    return values + raw[body_bytes + packet * tail : body_bytes + (packet + 1) * tail]


def is_intact(packet):
    return zlib.crc32(packet[:-4]) == int.from_bytes(packet[-4:], "little")


def flip(packet, bits):
    flipped = bytearray(packet)
    for bit in bits:
        flipped[bit // 8] ^= 1 << bit % 8
    return bytes(flipped)


def only(packet, layout):
    """Make bit-error rates that surely touch one packet, and no other."""
    ber = np.zeros(layout.num_packets)
    ber[packet] = 0.5
    return ber


def kept_by(reception, layout):
    """Return the packets that failed and were kept, as they lie on the air: packet -> bytes."""
    kept = {}
    for selection in reception.bad:
        for row, packet in enumerate(selection.packets.tolist()):
            assert packet not in kept
            kept[packet] = on_air(selection.payload, selection.layout, row)
    return kept


@fixed
@given(
    layouts,
    st.sampled_from([0.0, 1e-4, 1e-3, 1e-2, 0.5]),
    st.sampled_from([2000, 2**20]),
    st.integers(0),
    st.booleans(),
)
def test_verdicts_equal_checking_every_packet_of_a_flipped_copy(layout, ber, group_bytes, seed, keep):
    payload, flips = payload_of(layout), []

    def recorded(counts, packet_bits, rng):
        owner, bit = error_positions(counts, packet_bits, rng)
        flips.extend(zip(owner + len({packet for packet, _ in flips}), bit, strict=True))
        return owner, bit

    rates, rng = np.full(layout.num_packets, ber), np.random.default_rng(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(channel, "_GROUP_BYTES", group_bytes)  # small: one packet or a few at a time
        patch.setattr(channel, "error_positions", recorded)
        drawn = rng.binomial(layout.packet_bits, rates)
        reception = apply_errors(payload, layout, drawn, rng, keep=keep)
    counts = np.random.default_rng(seed).binomial(layout.packet_bits, rates)
    touched = np.flatnonzero(counts)
    packets = [on_air(payload, layout, packet) for packet in range(layout.num_packets)]
    for row, packet in enumerate(touched):
        bits = [bit for owner, bit in flips if owner == row]
        assert len(bits) == len(set(bits)) == counts[packet]
        packets[packet] = flip(packets[packet], bits)
    intact = [is_intact(packet) for packet in packets]
    assert reception.intact.tolist() == intact
    assert reception.bit_errors == counts.sum() == len(flips)
    failed = {k: packets[k] for k in range(layout.num_packets) if not intact[k]}
    assert kept_by(reception, layout) == (failed if keep else {})
    assert list(kept_by(reception, layout)) == sorted(failed if keep else ())
    whole = receive(payload, layout, rates, np.random.default_rng(seed))  # draws and applies at once
    assert (whole.intact.tolist(), whole.bit_errors, whole.bad) == (intact, len(flips), ())


@pytest.mark.parametrize("layout", SHORT_LAST, ids=KINDS)
def test_each_single_flipped_bit_erases_its_packet_alone(layout, monkeypatch):
    """Slice, scale and CRC alike: a CRC-32 catches every single-bit error."""
    payload = payload_of(layout)
    for packet in (0, 1, layout.num_packets - 1):
        for bit in range(layout.packet_bits[packet]):
            where = (np.array([0]), np.array([bit]))
            monkeypatch.setattr(channel, "error_positions", lambda *_, where=where: where)
            intact = receive(payload, layout, only(packet, layout), np.random.default_rng(1)).intact
            assert np.flatnonzero(~intact).tolist() == [packet]


@pytest.mark.parametrize("layout", SHORT_LAST, ids=KINDS)
@pytest.mark.parametrize("packet", [0, 1, -1])
def test_an_error_that_the_checksum_cannot_see_passes_as_in_life(layout, packet, monkeypatch):
    """Flipping just the bits in which two valid packets differ makes one the other."""
    packet %= layout.num_packets
    one, two = (on_air(payload_of(layout, seed), layout, packet) for seed in (1, 2))
    bits = [bit for bit in range(8 * len(one)) if (one[bit // 8] ^ two[bit // 8]) >> bit % 8 & 1]
    assert is_intact(flip(one, bits))
    where = np.zeros(len(bits), dtype=np.int64), np.array(bits)
    monkeypatch.setattr(channel, "error_positions", lambda *_: where)
    assert receive(payload_of(layout), layout, only(packet, layout), np.random.default_rng(1)).intact.all()
    fewer = where[0][:-1], where[1][:-1]
    monkeypatch.setattr(channel, "error_positions", lambda *_: fewer)
    assert not receive(payload_of(layout), layout, only(packet, layout), np.random.default_rng(1)).intact[
        packet
    ]


@pytest.mark.parametrize("layout", SHORT_LAST, ids=KINDS)
def test_only_what_fails_its_checksum_is_kept(layout, monkeypatch):
    """Of two touched packets, the one whose errors its checksum cannot see is taken for intact."""
    one, two = (on_air(payload_of(layout, seed), layout, 0) for seed in (1, 2))
    unseen = [bit for bit in range(8 * len(one)) if (one[bit // 8] ^ two[bit // 8]) >> bit % 8 & 1]
    where = np.array([0] * len(unseen) + [1]), np.array([*unseen, 9])
    monkeypatch.setattr(channel, "error_positions", lambda *_: where)
    counts = np.zeros(layout.num_packets, dtype=np.int64)
    counts[:2] = len(unseen), 1
    reception = apply_errors(payload_of(layout), layout, counts, np.random.default_rng(1), keep=True)
    assert np.flatnonzero(~reception.intact).tolist() == [1]
    assert kept_by(reception, layout) == {1: flip(on_air(payload_of(layout), layout, 1), [9])}


@pytest.mark.parametrize("layout", SHORT_LAST, ids=KINDS)
def test_two_links_share_a_buffer_and_neither_writes_it(layout):
    payload = payload_of(layout)
    before = payload.tobytes()
    corrupted = receive(payload, layout, np.full(layout.num_packets, 0.5), np.random.default_rng(1))
    clean = receive(payload, layout, np.full(layout.num_packets, 1e-9), np.random.default_rng(2))
    assert not corrupted.intact.any()
    assert clean.intact.all()
    assert payload.tobytes() == before


def test_links_with_different_seeds_err_differently_and_the_same_seed_errs_the_same():
    layout = Layout("float32", 5000, 64, checked=True)
    payload, ber = payload_of(layout), np.full(-(-5000 // 15), 1e-3)
    one, again, other = (receive(payload, layout, ber, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one.intact, again.intact)
    assert one.bit_errors == again.bit_errors
    assert not np.array_equal(one.intact, other.intact)


def test_without_errors_nothing_is_erased_and_nothing_is_checked(monkeypatch):
    layout = Layout("int8", 5000, 64, checked=True)
    payload = payload_of(layout)
    monkeypatch.delattr(channel, "zlib")
    monkeypatch.delattr(channel, "error_positions")
    rng = np.random.default_rng(1)
    reception = receive(payload, layout, np.zeros(layout.num_packets), rng)
    assert reception.intact.all()
    assert reception.bit_errors == 0
    assert rng.random() == np.random.default_rng(1).random()


@pytest.mark.parametrize("packet_bytes", [16, 512, 65_536])
def test_at_even_odds_everything_is_erased(packet_bytes):
    layout = Layout("float16", 40_000, packet_bytes, checked=True)
    reception = receive(
        payload_of(layout), layout, np.full(layout.num_packets, 0.5), np.random.default_rng(1)
    )
    assert not reception.intact.any()
    num_bits = 8 * layout.payload_bytes
    low, high = binom.interval(0.99, num_bits, 0.5)
    assert low <= reception.bit_errors <= high


def test_each_packet_has_its_own_rate():
    layout = Layout("float32", 5000, 64, checked=True)
    ber = np.where(np.arange(layout.num_packets) % 3 == 0, 0.5, 0.0)
    intact = receive(payload_of(layout), layout, ber, np.random.default_rng(1)).intact
    assert np.array_equal(intact, ber == 0)


@fixed
@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(0, 1)), min_size=1, max_size=20),
    st.integers(0, 2**32),
)
def test_positions_are_distinct_inside_their_packet_and_as_many_as_asked(packets, seed):
    packet_bits = np.array([bits for bits, _ in packets])
    counts = np.array([round(bits * share) for bits, share in packets])
    owner, bit = error_positions(counts, packet_bits, np.random.default_rng(seed))
    assert np.bincount(owner, minlength=len(packets)).tolist() == counts.tolist()
    assert len(set(zip(owner.tolist(), bit.tolist(), strict=True))) == counts.sum()
    assert np.all((bit >= 0) & (bit < packet_bits[owner]))


def chi_square_passes(observed, expected):
    """Pearson's test at 1 %."""
    return np.sum((observed - expected) ** 2 / expected) < chi2.isf(0.01, len(observed) - 1)


@pytest.mark.parametrize(("count", "packet_bits"), [(1, 40), (2, 6), (3, 5), (4, 6)])
def test_every_subset_of_positions_is_equally_likely(count, packet_bits):
    """Rows of one call are independent packets, so each is one draw of a subset."""
    num_packets = 20_000
    _, bit = error_positions(
        np.full(num_packets, count), np.full(num_packets, packet_bits), np.random.default_rng(count)
    )
    subsets = np.sum(1 << np.sort(bit.reshape(num_packets, count), axis=1), axis=1)
    _, observed = np.unique(subsets, return_counts=True)
    num_subsets = binom.pmf(count, packet_bits, 0.5) * 2**packet_bits
    assert len(observed) == round(num_subsets)
    assert chi_square_passes(observed, num_packets / num_subsets)


def test_errors_fall_evenly_over_the_bits_of_a_packet():
    packet_bits, num_packets = 4096, 400
    counts = np.random.default_rng(1).binomial(packet_bits, 0.1, size=num_packets)
    _, bit = error_positions(counts, np.full(num_packets, packet_bits), np.random.default_rng(2))
    observed = np.bincount(bit, minlength=packet_bits)
    # Without replacement a packet's draws repel each other: the variance is (1 - 0.1) of Poisson's.
    statistic = np.sum((observed - counts.sum() / packet_bits) ** 2) / (counts.sum() / packet_bits) / 0.9
    low, high = chi2.interval(0.99, packet_bits - 1)
    assert low < statistic < high


def test_the_number_of_errors_is_binomial():
    layout = Layout("float32", 3, 16, checked=True)  # one packet of 128 bits
    payload, ber, num_draws = payload_of(layout), np.array([0.02]), 3000
    drawn = [
        receive(payload, layout, ber, np.random.default_rng(seed)).bit_errors for seed in range(num_draws)
    ]
    observed = np.bincount(np.minimum(drawn, 7), minlength=8)
    expected = num_draws * np.append(binom.pmf(np.arange(7), 128, 0.02), binom.sf(6, 128, 0.02))
    assert chi_square_passes(observed, expected)


@pytest.mark.parametrize("ber", [1e-3, 1e-5])
@pytest.mark.parametrize("packet_bytes", [512, 1500, 65_536])
def test_memory_stays_well_below_the_payload(ber, packet_bytes):
    """At most twice the payload is promised; it is under half of one, even where every packet is touched."""
    layout = Layout("float32", 1_600_000, packet_bytes, checked=True)
    payload, rates = payload_of(layout), np.full(layout.num_packets, ber)
    receive(payload, layout, rates, np.random.default_rng(1))  # what is made only once
    tracemalloc.start()
    try:
        receive(payload, layout, rates, np.random.default_rng(1))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < layout.payload_bytes / 2


@pytest.mark.parametrize(("modulation", "snr_db"), AWGN_CELLS)
def test_measured_error_rate_over_awgn(modulation, snr_db):
    """Errors are independent: the exact binomial interval. About 20,000 errors a cell."""
    expected = float(bit_error_probability(modulation, np.array([linear(snr_db)]))[0])
    layout = Layout("float32", round(20_000 / expected / 32), 512, checked=True)
    ber = bit_error_probability(modulation, np.full(layout.num_packets, linear(snr_db)))
    rng = np.random.default_rng(AWGN_CELLS.index((modulation, snr_db)))
    reception = receive(payload_of(layout), layout, ber, rng)
    num_bits = int(layout.packet_bits.sum())
    low, high = binom.interval(1 - CELL_ERROR, num_bits, expected)
    assert low <= reception.bit_errors <= high


@pytest.mark.parametrize(("modulation", "snr_db"), RAYLEIGH_CELLS)
def test_measured_error_rate_over_rayleigh_fading(modulation, snr_db):
    """Errors in a block share its fade: the interval comes from means of whole, independent blocks.

    A frame is 500 blocks of two packets: the means of the 40 frames are nearly normal even where one
    block in a hundred holds most errors.
    """
    layout = Layout("float32", 7 * 1000, 32, checked=True)
    cell = RAYLEIGH_CELLS.index((modulation, snr_db))
    payload, rng = payload_of(layout), np.random.default_rng(cell)
    fading = FadingProcess(RAYLEIGH, seed=cell, pair=(0, 1), blocks_per_round=500, correlation=0.0)
    means = []
    for round_ in range(40):
        gains = np.repeat(fading.gains(round_), 2)
        ber = bit_error_probability(modulation, gains * linear(snr_db))
        means.append(receive(payload, layout, ber, rng).bit_errors / layout.packet_bits.sum())
    half_width = student.isf(CELL_ERROR / 2, len(means) - 1) * np.std(means, ddof=1) / np.sqrt(len(means))
    expected = mean_bit_error_probability(modulation, linear(snr_db), RAYLEIGH)
    assert abs(np.mean(means) - expected) < half_width


@pytest.mark.parametrize("fading", ["none", "rayleigh"])
@pytest.mark.parametrize("modulation", AWGN_SNRS_DB)
def test_measured_packet_loss_is_the_predicted_one(fading, modulation):
    """Packets with a fade each are lost independently: normal interval of a binomial, ten cells."""
    snr_db = AWGN_SNRS_DB[modulation][3] + (0.0 if fading == "none" else 6.0)
    radio = Radio(modulation=modulation, fading=fading)
    layout = Layout("float32", 62 * 4000, 252, checked=True)
    process = FadingProcess(radio.fade, seed=1, pair=(0, 1), blocks_per_round=4000, correlation=0.0)
    ber = bit_error_probability(modulation, process.gains(0) * linear(snr_db))
    lost = 1 - receive(payload_of(layout), layout, ber, np.random.default_rng(3)).intact.mean()
    expected = mean_packet_loss(radio, snr_db, int(layout.packet_bits[0]))
    assert 0.1 < expected < 0.97
    deviation = np.sqrt(expected * (1 - expected) / layout.num_packets)
    assert abs(lost - expected) < norm.isf(0.01 / 2 / 10) * deviation


SENT = Transmission(round=2, sender=3, slot=1, turn=0)
FRAME = Layout("float32", 5000, 64, checked=True)


def link_of(radio, pair=(3, 4), *, seed=1, mean_snr_db=9.0):
    """Return the air between two devices, and the grid in which they send."""
    experiment = Experiment(seed=seed, radio=radio)
    access = plan_access(experiment, FRAME, num_colours=3, max_degree=2)
    return AirLink(
        experiment,
        access,
        pair=pair,
        mean_snrs_db=(mean_snr_db, mean_snr_db),
        places_m=((0, 0), (10, 0)),
    )


def crossed(radio, sent=SENT, *, seed=1, receiver=4, mean_snr_db=9.0):
    """Pass a frame; return which bits flipped in which packets (by count) and which packets survived."""
    link = link_of(radio, (sent.sender, receiver), seed=seed, mean_snr_db=mean_snr_db)
    reception = cross(
        payload_of(FRAME), FRAME, radio, link.snr(sent, FRAME), sent, seed=seed, receiver=receiver
    )
    return reception.bit_errors, reception.intact.tolist()


def test_a_crossing_is_a_pure_function_of_who_when_and_where():
    radio = Radio(coherence_packets=5, modulation="bpsk")
    others = [
        crossed(radio, dataclasses.replace(SENT, **{name: getattr(SENT, name) + 1}))
        for name in ("round", "sender", "slot", "attempt")
    ]
    others += [
        crossed(radio, seed=2),
        crossed(radio, receiver=5),
        crossed(radio, mean_snr_db=10.0),
        crossed(radio, dataclasses.replace(SENT, sender=4), receiver=3),
        crossed(radio, dataclasses.replace(SENT, modulation="qpsk")),
        crossed(Radio(coherence_packets=5, modulation="bpsk", burst_packets=5)),
    ]
    assert crossed(radio) == crossed(radio, Transmission(2, 3, 1, 0))
    assert crossed(radio) not in others


def test_both_directions_and_every_attempt_meet_the_same_fade_of_a_round():
    """At a signal at which a packet's fate hangs on its fade, nearly all fare alike."""
    radio = Radio()
    link = link_of(radio)
    there, back = SENT, dataclasses.replace(SENT, sender=4, slot=2)
    again = dataclasses.replace(SENT, attempt=1)
    gains = [link.gains(sent, FRAME) for sent in (there, back, again)]
    assert len(set(gains[0])) == 1
    assert np.array_equal(gains[0], gains[1])
    assert np.array_equal(gains[0], gains[2])
    assert link.gains(dataclasses.replace(SENT, round=3), FRAME)[0] != gains[0][0]
    assert np.array_equal(link_of(radio, (4, 3)).gains(back, FRAME), gains[0])


def test_within_a_round_fades_last_as_many_packets_as_they_are_told():
    """Both ends agree on them; another slot, turn or attempt meets others."""
    radio = Radio(coherence_packets=5, arq="selective_repeat")
    link, sent = link_of(radio), dataclasses.replace(SENT, modulation="qpsk")
    gains = link.gains(sent, FRAME)
    changes = np.flatnonzero(np.diff(gains))  # at the slowest permitted rate, QPSK, a fade is five packets
    assert len(changes) >= FRAME.num_packets // 5 - 1
    assert set(np.diff(changes)) == {5}
    assert np.array_equal(link_of(radio, (4, 3)).gains(sent, FRAME), gains)
    for other in (dataclasses.replace(sent, slot=2), dataclasses.replace(sent, attempt=1)):
        assert not np.intersect1d(link.gains(other, FRAME), gains).size


def test_an_ideal_channel_takes_no_time():
    access = plan_access(Experiment(radio=Radio(scheme="ideal")), FRAME, num_colours=3, max_degree=2)
    assert access.packets_airtime_s(1e9, "bpsk") == access.side_airtime_s(10**9) == 0
    assert access.data_start_s(1.5, 2, 0) == access.ack_start_s(1.5, 2, 0) == 1.5


def test_airtime_by_hand():
    """127 numbers and a CRC-32 are 512 bytes: two full packets take 8,192 bits at 2 bits a symbol."""
    layout = Layout("float32", 2 * 127, 512, checked=True)
    access = plan_access(Experiment(radio=Radio(bandwidth_hz=1e6)), layout, num_colours=2, max_degree=1)
    bits = float(layout.packet_bits.sum())
    assert access.packets_airtime_s(bits, "qpsk") == pytest.approx(8192 / 2e6)
    assert access.packets_airtime_s(bits, "qam64") == pytest.approx(8192 / 6e6)


def test_a_burst_spoils_packets_that_the_noise_would_spare():
    """A fifth of the packets, in runs of ten; the others are as they were: the streams are apart."""
    radio = Radio(fading="none", burst_packets=10, burst_share=0.2)
    calm = np.array(crossed(radio.model_copy(update={"burst_packets": 0.0}), mean_snr_db=30.0)[1])
    struck = np.array(crossed(radio, mean_snr_db=30.0)[1])
    assert calm.all()
    runs = np.diff(np.flatnonzero(np.diff(np.concatenate(([True], struck, [True])))))[::2]
    # 334 packets: about seven bursts of geometric length, mean 10.
    assert 0.05 < np.mean(~struck) < 0.4
    assert runs.mean() > 3


def test_what_fails_is_kept_only_where_it_is_to_be_accepted():
    for what in ("erase", "accept"):
        radio = Radio(fading="none", bad_packets=what)
        link = link_of(radio)
        snr = link.snr(SENT, FRAME)
        reception = cross(payload_of(FRAME), FRAME, radio, snr, SENT, seed=1, receiver=4)
        kept = kept_by(reception, FRAME)
        assert not reception.intact.all()
        assert list(kept) == (np.flatnonzero(~reception.intact).tolist() if what == "accept" else [])
        assert not any(map(is_intact, kept.values()))
