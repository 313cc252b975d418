"""The air: really flipped bits against closed forms, and which fade a packet meets.

Timing is that of tests/test_access.py: at 1 MHz, 20 packets of 512 bits take 256 us each with QPSK, header
and bitmap 500 us; with two slots and one neighbour a superframe takes 2 * 5620 + 2 * 500 = 12,240 us.
"""

import dataclasses
import math

import numpy as np
import pytest
from constellations import BITS, FADES, averaged, enumerated_ber, faded, linear, name
from scipy.special import j0
from scipy.stats import binom, norm
from scipy.stats import t as student

from protocol.access import plan_access
from protocol.air import AirLink, Transmission, cross, frame_layout, meets_target, planned_round_s
from protocol.codec import Layout, encode
from protocol.config import Codec, Experiment
from protocol.fading import Fading, FadingProcess
from protocol.learning import Training
from protocol.link import mean_packet_loss, mean_snr_db, shadowing_db
from protocol.mobility import Walk
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Analog, Mobility, Radio

HERE_M, THERE_M = (10.0, 20.0), (40.0, 60.0)
ARQ = {"arq": "selective_repeat"}


def experiment_of(radio, *, seed=1, packet_bytes=64, **sections):
    return Experiment(radio=radio, codec=Codec(packet_bytes=packet_bytes), seed=seed, **sections)


def air(experiment, num_values=300, *, pair=(0, 1), num_colours=2, max_degree=1, snr_db=20.0):
    """Return the air of one link and the layout of its frames; the smaller number stands at HERE_M."""
    layout = frame_layout(experiment, num_values)
    access = plan_access(experiment, layout, num_colours=num_colours, max_degree=max_degree)
    places = (HERE_M, THERE_M) if pair[0] < pair[1] else (THERE_M, HERE_M)
    snrs_db = snr_db if isinstance(snr_db, tuple) else (snr_db, snr_db)
    return AirLink(experiment, access, pair=pair, mean_snrs_db=snrs_db, places_m=places), layout


def sent(round_=0, slot=0, turn=0, attempt=0, modulation="qpsk", sender=0):
    return Transmission(round_, sender, slot, turn, attempt, modulation)


def payload_of(layout, seed=1):
    """Encode a random vector, and make the payload read-only: whoever writes it raises."""
    payload = np.zeros(layout.payload_bytes, dtype=np.uint8)
    encode(
        np.random.default_rng(seed).standard_normal(layout.num_values, dtype=np.float32),
        layout,
        payload,
        None,
    )
    payload.flags.writeable = False
    return payload


BIT_DB = {"bpsk": 0.0, "qpsk": 3.0, "qam16": 10.5, "qam64": 16.5, "qam256": 22.0}
"""Es/N0 at which each modulation errs about as often as BPSK at 0 dB."""
STILL_DB, FADED_DB = (0.0, 3.0, 6.0), (0.0, 5.0, 10.0)
BER_CELLS = [
    (fading, modulation, BIT_DB[modulation] + db)
    for fading in (Fading("none"), *FADES)
    for modulation in BITS
    for db in (STILL_DB if fading.kind == "none" else FADED_DB)
]


@pytest.mark.parametrize(("fading", "modulation", "snr_db"), BER_CELLS, ids=name)
def test_measured_bit_error_rate(fading, modulation, snr_db):
    """Flipped bits of real frames against the enumerated constellation, averaged over the fade's density.

    Errors in a block share its fade, so blocks are the samples. A block is a packet of 128 bits, a frame
    has 500 blocks, and the means of 40 frames are nearly normal even where one block in a hundred holds
    most errors. Student's interval, 99 % for all cells together.
    """
    cell = BER_CELLS.index((fading, modulation, snr_db))
    radio = faded(fading, modulation=modulation, coherence_packets=1)
    link, layout = air(experiment_of(radio, seed=cell, packet_bytes=16), 3 * 500, snr_db=snr_db)
    payload, num_bits, rates = payload_of(layout), layout.packet_bits.sum(), []
    for round_ in range(40):
        frame = sent(round_, modulation=modulation)
        snr = link.snr(frame, layout)
        reception = cross(payload, layout, radio, snr, frame, seed=cell, receiver=1)
        rates.append(reception.bit_errors / num_bits)
    snr = linear(snr_db)
    expected = (
        enumerated_ber(modulation, snr)
        if fading.kind == "none"
        else averaged(lambda gain: enumerated_ber(modulation, gain * snr), fading)
    )
    assert expected > 5e-4
    level = 0.01 / 2 / len(BER_CELLS)
    half_width = student.isf(level, len(rates) - 1) * np.std(rates, ddof=1) / math.sqrt(len(rates))
    assert abs(np.mean(rates) - expected) < half_width


TABLE = PacketErrorTable(
    modulation="qpsk",
    code_rate=0.5,
    packet_bits=512,
    snr_db=(0.0, 4.0, 8.0),
    packet_loss=(1.0, 0.3, 0.001),
    residual_ber=(0.2, 0.05, 0.01),
    num_packets=(1000, 1000, 1000),
)
VARIANTS = {
    "plain": {},
    "code": {"code_rate": 0.5, "coding_gain_db": 2.0},
    "bursts": {"burst_packets": 4.0, "burst_share": 0.3},
    "weak bursts": {"burst_packets": 4.0, "burst_share": 0.5, "burst_ber": 1e-3},
    "table": {"packet_errors": "sionna", "code_rate": 0.5},
    "table, bursts": {
        "packet_errors": "sionna",
        "code_rate": 0.5,
        "burst_packets": 4.0,
        "burst_share": 0.5,
        "burst_ber": 1e-3,
    },
}
LOSS_CELLS = [(fading, variant) for fading in (Fading("none"), *FADES) for variant in VARIANTS]


@pytest.mark.parametrize(("fading", "variant"), LOSS_CELLS, ids=name)
def test_measured_packet_loss(fading, variant):
    """Packets that fail their CRC against the expected share; each packet has its own fade.

    Bursts make neighbours in a frame alike, so frames are the samples: 40 of 300 packets, whose means are
    normal. 99 % for all cells together.
    """
    cell = LOSS_CELLS.index((fading, variant))
    knobs = VARIANTS[variant]
    radio = faded(fading, modulation="qpsk", coherence_packets=1, **knobs)
    table = TABLE if radio.packet_errors == "sionna" else None
    snr_db = 6.0 if radio.code_rate < 1 else 11.0
    link, layout = air(experiment_of(radio, seed=cell), 15 * 300, snr_db=snr_db)
    payload, lost = payload_of(layout), []
    for round_ in range(40):
        frame = sent(round_)
        snr = link.snr(frame, layout)
        reception = cross(payload, layout, radio, snr, frame, seed=cell, receiver=1, table=table)
        lost.append(1 - reception.intact.mean())
    expected = mean_packet_loss(radio, snr_db, 512, table=table)
    assert 0.01 < expected < 0.9
    half_width = norm.isf(0.01 / 2 / len(LOSS_CELLS)) * np.std(lost, ddof=1) / math.sqrt(len(lost))
    assert abs(np.mean(lost) - expected) < half_width


@pytest.mark.parametrize("threshold", [0.05, 0.5])
@pytest.mark.parametrize("fading", FADES, ids=name)
def test_analog_blocks_fall_silent_as_often_as_expected(fading, threshold):
    """Blocks of one packet in 20 rounds: the exact binomial interval, 99 % for all eight cells."""
    radio = faded(fading, scheme="analog", coherence_packets=1, analog=Analog(gain_threshold=threshold))
    link, layout = air(experiment_of(radio), 16 * 400, num_colours=1)
    gains = np.concatenate([link.block_gains(sent(round_), layout.num_packets) for round_ in range(20)])
    expected = mean_packet_loss(radio, 20.0, 512)
    # Expected by 20,000 equally likely gains, so within 5e-5.
    low, _ = binom.interval(1 - 0.01 / 8, len(gains), expected - 5e-5)
    _, high = binom.interval(1 - 0.01 / 8, len(gains), expected + 5e-5)
    assert len(gains) == 8000
    assert low <= np.count_nonzero(gains < threshold) <= high


def test_a_table_says_how_wrong_a_lost_packet_is():
    """At 2 dB 55 % of the packets are lost, and of each lost one an eighth of the bits (and at least one)."""
    radio = Radio(packet_errors="sionna", code_rate=0.5, bad_packets="accept")
    layout = Layout("float32", 15 * 2000, 64, checked=True)
    snr = np.full(layout.num_packets, linear(2.0))
    reception = cross(payload_of(layout), layout, radio, snr, sent(), seed=1, receiver=1, table=TABLE)
    num_lost = np.count_nonzero(~reception.intact)
    low, high = binom.interval(1 - 0.01 / 2, 2000, math.sqrt(0.3))
    assert low <= num_lost <= high
    low, high = binom.interval(1 - 0.01 / 2, 512 * num_lost, 0.125)
    assert low <= reception.bit_errors <= high


def test_a_decoder_that_fails_leaves_at_least_one_wrong_bit():
    nearly_right = TABLE.model_copy(update={"packet_loss": (1.0, 1.0, 1.0), "residual_ber": (1e-9,) * 3})
    radio = Radio(packet_errors="sionna", code_rate=0.5)
    layout = Layout("float32", 300, 64, checked=True)
    snr = np.full(layout.num_packets, linear(2.0))
    reception = cross(payload_of(layout), layout, radio, snr, sent(), seed=1, receiver=1, table=nearly_right)
    assert not reception.intact.any()
    assert reception.bit_errors == layout.num_packets


def crossed(radio, frame=None, *, seed=1, receiver=4, snr_db=9.0):
    layout = Layout("float32", 5000, 64, checked=True)
    snr = np.full(layout.num_packets, linear(snr_db))
    frame = frame or sent(2, sender=3)
    reception = cross(payload_of(layout), layout, radio, snr, frame, seed=seed, receiver=receiver)
    return reception.bit_errors, reception.intact.tolist()


@pytest.mark.parametrize("radio", [Radio(), Radio(burst_packets=3)], ids=["plain", "bursts"])
def test_a_crossing_is_a_pure_function_of_who_when_and_how_loud(radio):
    frame = sent(2, sender=3)
    same = crossed(radio, frame)
    others = [
        crossed(radio, dataclasses.replace(frame, round=3)),
        crossed(radio, dataclasses.replace(frame, sender=2)),
        crossed(radio, dataclasses.replace(frame, attempt=1)),
        crossed(radio, dataclasses.replace(frame, sender=4), receiver=3),
        crossed(radio, receiver=5),
        crossed(radio, seed=2),
        crossed(radio, snr_db=8.0),
    ]
    assert crossed(radio, frame) == same
    assert same not in others
    assert len({errors for errors, _ in others}) > 1
    # Slot and turn say when it is on the air, and with that which fade it meets; the noise is the same.
    assert crossed(radio, dataclasses.replace(frame, slot=1, turn=2)) == same


def test_bursts_differ_between_receivers_of_one_broadcast_and_between_attempts():
    """At a signal without other errors, only bursts lose packets."""
    radio = Radio(burst_packets=5, burst_share=0.5)
    masks = [
        crossed(radio, sent(attempt=attempt), receiver=receiver, snr_db=40.0)[1]
        for receiver, attempt in ((4, 0), (5, 0), (4, 1))
    ]
    assert len({tuple(mask) for mask in masks}) == 3


def test_packets_that_fail_are_kept_with_their_flipped_bits_where_they_are_to_be_accepted():
    radio = Radio(bad_packets="accept")
    layout = Layout("float32", 5000, 64, checked=True)
    payload, snr = payload_of(layout), np.full(layout.num_packets, linear(9.0))
    reception = cross(payload, layout, radio, snr, sent(), seed=1, receiver=1)
    kept = np.concatenate([bad.packets for bad in reception.bad])
    assert np.array_equal(kept, np.flatnonzero(~reception.intact))
    as_sent = [layout.scatter(layout.gather(payload, bad.packets), bad.packets) for bad in reception.bad]
    flips = sum(
        int(np.bitwise_count(bad.payload ^ whole.payload).sum())
        for bad, whole in zip(reception.bad, as_sent, strict=True)
    )
    assert flips == reception.bit_errors > 100
    erased = cross(payload, layout, Radio(), snr, sent(), seed=1, receiver=1)
    assert erased.bad == ()
    assert np.array_equal(erased.intact, reception.intact)


def test_only_packets_of_a_digital_radio_carry_a_checksum():
    schemes = {
        scheme: frame_layout(Experiment(radio=Radio(scheme=scheme)), 10).checked
        for scheme in ("ideal", "digital", "analog")
    }
    assert schemes == {"ideal": False, "digital": True, "analog": False}


@pytest.mark.parametrize(
    ("snr_db", "target", "meets"), [(9.5, 0.5, False), (9.5, 0.53, True), (9.7, 0.5, True)]
)
def test_a_modulation_is_good_enough_if_its_expected_loss_meets_the_target(snr_db, target, meets):
    """QPSK loses 51.6 % of 512-bit packets at 9.5 dB: Q(sqrt(10^0.95)) = 0.00142, and 1 - 0.99858^512."""
    radio = Radio(rate="adaptive", target_packet_loss=target)
    assert meets_target(radio, "qpsk", np.array([linear(snr_db)]), 512) is meets


def test_the_target_is_met_in_the_mean_over_the_packets():
    snr = np.array([1e6, 1e6, 1e-3])
    assert meets_target(Radio(target_packet_loss=0.34), "qpsk", snr, 512)
    assert not meets_target(Radio(target_packet_loss=0.33), "qpsk", snr, 512)
    assert not meets_target(Radio(target_packet_loss=0.34, burst_packets=2), "qpsk", snr, 512)


def blocks_of(experiment, num_blocks, *, correlation=0.0, round_=0, pair=(0, 1)):
    """Return the first power gains of a round."""
    radio = experiment.radio
    fades = FadingProcess(
        radio.fade, seed=experiment.seed, pair=pair, blocks_per_round=num_blocks, correlation=correlation
    )
    return fades.gains(round_)


def met(link, layout, fades, **transmission):
    """Return the numbers of the blocks whose gains a transmission meets."""
    gains = link.gains(sent(**transmission), layout)
    assert gains.shape == (layout.num_packets,)
    return [int(np.flatnonzero(fades == gain)[0]) for gain in gains]


@pytest.mark.parametrize(
    ("coherence_packets", "num_blocks"), [(1, 1000), (3, 334), (7, 143), (1000, 1), (5000, 1)]
)
def test_a_fade_lasts_for_its_packets_at_any_bandwidth(coherence_packets, num_blocks):
    """Starts are sums of floats, and still every packet falls into the block that it begins."""
    for bandwidth_hz in (1e6, 123_456.7, 1e6 / 3):
        radio = Radio(coherence_packets=coherence_packets, bandwidth_hz=bandwidth_hz)
        link, layout = air(experiment_of(radio), 15 * 1000)
        gains = link.gains(sent(round_=4), layout)
        block = np.arange(1000) // coherence_packets
        assert np.array_equal(gains, gains[np.searchsorted(block, block)])
        assert len(np.unique(gains)) == num_blocks


def test_packets_meet_the_block_in_which_their_airtime_falls():
    """Blocks of 4 * 256 = 1024 us. Slot 1 begins at 5620, attempt 1 at 12,240, attempt 3 at 36,720.

    The third packet of slot 1 starts at 6132, the fourth at 6388: blocks 5 and 6.
    """
    experiment = experiment_of(Radio(coherence_packets=4, **ARQ))
    link, layout = air(experiment)
    fades = blocks_of(experiment, 100)
    by_four = [k for k in range(5) for _ in range(4)]
    assert met(link, layout, fades) == by_four
    assert met(link, layout, fades, slot=1) == [5] * 3 + [6] * 4 + [7] * 4 + [8] * 4 + [9] * 4 + [10]
    few = layout.of(np.array([2, 5, 6, 11, 12, 19]))
    assert met(link, few, fades, attempt=1) == [11, 12, 12, 12, 12, 13]
    assert met(link, few, fades, attempt=3, slot=1) == [41] * 3 + [42] * 3
    assert met(link, layout, fades, attempt=3) == [35] + [36] * 4 + [37] * 4 + [38] * 4 + [39] * 4 + [40] * 3


def test_unicast_turns_meet_later_blocks():
    """With two neighbours the second turn of slot 0 begins at 5620, that of slot 1 at 16,860."""
    experiment = experiment_of(Radio(coherence_packets=20, cast="unicast", **ARQ))
    link, layout = air(experiment, max_degree=2)
    fades = blocks_of(experiment, 100)
    assert set(met(link, layout, fades)) == {0}
    assert met(link, layout, fades, turn=1) == [1] * 19 + [2]
    assert met(link, layout, fades, slot=1, turn=1) == [3] * 15 + [4] * 5


def test_parallel_repeats_follow_the_answer():
    """An attempt takes 5620 us and its answer 500, whatever the slot."""
    experiment = experiment_of(Radio(coherence_packets=20, access="parallel", **ARQ))
    link, layout = air(experiment)
    fades = blocks_of(experiment, 100)
    assert met(link, layout, fades, slot=1) == [0] * 20
    assert met(link, layout, fades, attempt=1) == [1] * 17 + [2] * 3


def test_a_fade_lasts_for_packets_of_the_slowest_permitted_rate():
    """With BPSK permitted a block is twice as long, so 8 packets of QPSK pass in it, and 32 of 256-QAM."""
    experiment = experiment_of(Radio(coherence_packets=4, rate="adaptive", **ARQ))
    link, layout = air(experiment, 15 * 64)
    fades = blocks_of(experiment, 400)
    for modulation, packets in {"bpsk": 4, "qpsk": 8, "qam16": 16, "qam256": 32}.items():
        assert met(link, layout, fades, modulation=modulation) == [k // packets for k in range(64)]


@pytest.mark.parametrize(("coherence_packets", "alike"), [(0, True), (10_000, True), (20, False), (1, False)])
def test_a_repeat_meets_another_fade_only_if_the_fade_is_over_by_then(coherence_packets, alike):
    link, layout = air(experiment_of(Radio(coherence_packets=coherence_packets, **ARQ)))
    first, again = (link.gains(sent(attempt=attempt), layout) for attempt in (0, 1))
    assert np.array_equal(first, again) is alike
    assert bool(np.any(first == again)) is alike


def test_a_fade_of_whole_rounds_is_one_for_all_packets_attempts_and_slots():
    link, layout = air(experiment_of(Radio(**ARQ)))
    gains = [link.gains(sent(7, slot, 0, attempt), layout) for slot in (0, 1) for attempt in range(4)]
    assert len(np.unique(gains)) == 1
    assert gains[0][0] != link.gains(sent(8), layout)[0]


def test_a_fade_lasts_for_its_rounds():
    link, layout = air(experiment_of(Radio(coherence_rounds=3)))
    gains = [link.gains(sent(round_), layout)[0] for round_ in range(9)]
    assert [gains.index(gain) for gain in gains] == [0, 0, 0, 3, 3, 3, 6, 6, 6]
    assert link.gains(sent(2), layout)[0] == gains[0]  # asked for again


def test_planned_length_of_a_round():
    """Five steps of 32 samples at 2e6 cycles and 1 GHz take 0.32 s; then four superframes of 12,240 us."""
    experiment = experiment_of(Radio(**ARQ))
    access = plan_access(experiment, frame_layout(experiment, 300), num_colours=2, max_degree=1)
    assert planned_round_s(experiment, access) == pytest.approx(0.32 + 4 * 12_240e-6)
    once = experiment_of(Radio(), training=Training(local_rounds=0))
    access = plan_access(once, frame_layout(once, 300), num_colours=2, max_degree=1)
    assert planned_round_s(once, access) == pytest.approx(2 * 5600e-6 + 2 * 500e-6)


def test_fades_of_rounds_correlate_by_the_doppler_shift_over_their_length():
    """Jakes' J0(2 pi f T) of two planned rounds, 2 * 0.36896 s: 0.3 Hz leave 0.58 of the scattered wave."""
    experiment = experiment_of(Radio(coherence_rounds=2, doppler_hz=0.3, **ARQ))
    link, layout = air(experiment)
    correlation = float(j0(2 * math.pi * 0.3 * 2 * 0.36896))
    assert correlation == pytest.approx(0.58, abs=0.01)
    wanted = [blocks_of(experiment, 1, correlation=correlation, round_=fade)[0] for fade in range(4)]
    gains = [link.gains(sent(round_), layout)[0] for round_ in (0, 2, 4, 6)]
    assert gains == pytest.approx(wanted, rel=1e-9)


def test_fades_of_packets_correlate_by_the_doppler_shift_over_a_block():
    """Blocks of 1024 us, 49 of them in a round (48 hold four superframes): at 100 Hz J0 is 0.90."""
    experiment = experiment_of(Radio(coherence_packets=4, doppler_hz=100, **ARQ))
    link, layout = air(experiment)
    correlation = float(j0(2 * math.pi * 100 * 1024e-6))
    for round_ in (0, 1, 5):
        fades = blocks_of(experiment, 49, correlation=correlation, round_=round_)
        gains = link.gains(sent(round_, attempt=3), layout)[:5]
        assert gains == pytest.approx(fades[[35, 36, 36, 36, 36]], rel=1e-9)


def test_where_nothing_moves_nothing_changes():
    for radio in (Radio(doppler_hz=0), Radio(doppler_hz=0, coherence_packets=1, **ARQ)):
        link, layout = air(experiment_of(radio))
        gains = [link.gains(sent(round_, attempt=attempt), layout) for round_ in (0, 9) for attempt in (0, 3)]
        assert len(np.unique(gains)) == 1


def test_without_fading_every_gain_is_one():
    link, layout = air(experiment_of(Radio(fading="none", coherence_packets=3, **ARQ)))
    assert np.array_equal(link.gains(sent(3, 1, 0, 2), layout), np.ones(20))
    assert link.snr(sent(), layout) == pytest.approx(np.full(20, 100.0))


def test_snr_is_the_mean_times_the_gain():
    link, layout = air(experiment_of(Radio(coherence_packets=2)), snr_db=13.0)
    frame = sent(3)
    assert link.snr(frame, layout) == pytest.approx(10**1.3 * link.gains(frame, layout))
    assert link.mean_snr_db(3, 0) == link.mean_snr_db(3, 1) == 13.0


@pytest.mark.parametrize("coherence_packets", [0, 3])
@pytest.mark.parametrize("fading", FADES, ids=name)
def test_both_ends_compute_the_same_air(fading, coherence_packets):
    """Whoever of the two is named first, whoever sends, and in whatever order rounds are asked for."""
    radio = faded(fading, coherence_packets=coherence_packets, doppler_hz=5, shadowing_std_db=4, **ARQ)
    experiment = experiment_of(radio, mobility=Mobility(kind="random_waypoint"))
    (here, layout), (there, _) = (air(experiment, pair=pair) for pair in ((2, 7), (7, 2)))
    seen_there = {round_: there.snr(sent(round_, 1, 0, 1, sender=7), layout) for round_ in (6, 0, 3)}
    for round_, snr in seen_there.items():
        assert np.array_equal(here.snr(sent(round_, 1, 0, 1, sender=2), layout), snr)
        assert here.mean_snr_db(round_, 7) == there.mean_snr_db(round_, 2)
    assert len({here.mean_snr_db(round_, 7) for round_ in seen_there}) == 3


def test_mean_snr_follows_the_devices():
    """50 m apart at first; later as far as their walks have taken them."""
    radio = Radio(access="parallel", shared_bandwidth=True, shadowing_std_db=3)
    mobility = Mobility(kind="random_waypoint", round_s=5)
    experiment = experiment_of(radio, mobility=mobility)
    link, _ = air(experiment, pair=(2, 7))
    walks = [
        Walk(mobility, experiment.graph.area_m, place, seed=1, device=device)
        for device, place in ((2, HERE_M), (7, THERE_M))
    ]
    for round_ in (0, 1, 10):
        distance_m = math.dist(*(walk.place_m(round_) for walk in walks))
        # Two colours share the megahertz.
        budget_db = mean_snr_db(
            distance_m,
            radio,
            5e5,
            tx_power_dbm=10,
            shadowing_db=shadowing_db(radio, seed=1, pair=(2, 7)),
        )
        assert link.mean_snr_db(round_, 2) == pytest.approx(budget_db)
        assert round_ or distance_m == pytest.approx(50)


def test_analog_blocks_meet_the_fades_of_their_time():
    """Symbols of a packet take 8 us, so blocks of 5 take 40; a slot takes 150 + 3 * (480 + 128) = 1974."""
    experiment = experiment_of(Radio(scheme="analog", coherence_packets=5))
    link, _ = air(experiment, max_degree=2)
    fades = blocks_of(experiment, 100)
    assert np.array_equal(link.block_gains(sent(), 4), fades[:4])
    assert np.array_equal(link.block_gains(sent(slot=1), 4), fades[49:53])


def test_analog_turns_meet_the_fades_of_their_time():
    """One after the other: a turn takes 150 + 2 * (480 + 128) = 1366 us, slot 1's second begins at 4098."""
    experiment = experiment_of(
        Radio(scheme="analog", coherence_packets=5, analog=Analog(superposition="orthogonal"))
    )
    link, _ = air(experiment, max_degree=2)
    fades = blocks_of(experiment, 200)
    assert np.array_equal(link.block_gains(sent(turn=1), 4), fades[34:38])
    assert np.array_equal(link.block_gains(sent(slot=1, turn=1), 4), fades[102:106])


def test_an_analog_frame_of_one_fade_has_one_block():
    experiment = experiment_of(Radio(scheme="analog", coherence_rounds=2))
    link, _ = air(experiment)
    for round_ in range(4):
        fade = blocks_of(experiment, 1, round_=round_ // 2)
        assert np.array_equal(link.block_gains(sent(round_, slot=1), 1), fade)
