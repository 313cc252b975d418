"""Averaging over lossy links against the same played in one place: what comes, what is in it, who keeps."""

import numpy as np
import pytest
from devices import experiment_of
from schedules import AveragingOracle, average, random_places

from protocol.radio import Radio

LOSSY = {"coherence_packets": 2, "doppler_hz": 50}
REPEATS = {"arq": "selective_repeat", "max_attempts": 2}
RADIOS = {
    "fades of two packets": Radio(**LOSSY),
    "fades of a round": Radio(),
    "no fades": Radio(fading="none"),
    "bursts": Radio(burst_packets=3, burst_share=0.3),
    "one by one": Radio(**LOSSY, cast="unicast"),
    "repeats": Radio(**LOSSY, **REPEATS),
    "repeats one by one": Radio(**LOSSY, **REPEATS, cast="unicast"),
    "adaptive": Radio(**LOSSY, rate="adaptive", target_packet_loss=0.3),
    "adaptive repeats": Radio(**LOSSY, **REPEATS, rate="adaptive", target_packet_loss=0.3),
    "parallel": Radio(**LOSSY, access="parallel"),
    "parallel repeats": Radio(**LOSSY, **REPEATS, access="parallel", cast="unicast"),
    "shared bandwidth": Radio(**LOSSY, access="parallel", shared_bandwidth=True),
    "one-sided": Radio(**LOSSY, symmetric=False),
    "accept": Radio(**LOSSY, bad_packets="accept"),
    "accept after repeats": Radio(**LOSSY, **REPEATS, bad_packets="accept"),
}
CASES = [(name, "float32", {}) for name in RADIOS] + [
    (name, codec, {})
    for name in ("fades of two packets", "repeats", "accept", "accept after repeats")
    for codec in ("float16", "int8")
]
CASES += [("no fades", "float32", {"step": 0.5}), ("no fades", "int8", {"sweeps": 3})]


def uneven(receiver, sender):
    """Set links apart, and their directions, too."""
    return 9.0 + 3 * ((receiver + sender) % 3) + 0.5 * (receiver > sender)


@pytest.mark.parametrize("kind", ["tree", "ring"])
@pytest.mark.parametrize(("name", "codec", "aggregation"), CASES)
def test_equals_playing_all_devices_in_one_place(name, codec, aggregation, kind):
    radio, places = RADIOS[name], random_places(kind, 6, seed=3)
    experiment = experiment_of(radio, devices=6, codec=codec, scheme=kind, chunks=3, **aggregation)
    pasts = average(experiment, places, 3, snr_db=uneven)
    oracle = AveragingOracle(experiment, places, snr_db=uneven)
    for round_, world in enumerate(oracle.lives(3)):
        for device, past in pasts.items():
            assert np.array_equal(past.x[round_], world.x[device])
            averaged, counts = past.averaged[round_], world.counts[device]
            there = counts[counts > 0]
            assert not averaged.broken
            assert averaged.blocks == len(counts)
            assert averaged.blocks_kept == np.count_nonzero(counts == 0)
            assert averaged.contributors_min == counts.min()
            assert averaged.contributors_mean == (there.mean() if len(there) else 0)
            for other, heard in past.heard[round_].items():
                came, went = oracle.on_link(world, other, device), oracle.on_link(world, device, other)
                assert heard.attempts == came.attempts
                assert heard.packets_corrupted == came.packets_corrupted
                assert heard.bit_errors == came.bit_errors
                assert heard.packets_lost == came.packets_lost
                assert heard.packets_resent == went.packets_resent
                assert heard.packets_sent == went.packets_sent
                assert heard.missing == ""
    averaged = [averaged for past in pasts.values() for averaged in past.averaged]
    if radio.bad_packets == "erase":
        assert any(a.blocks_kept for a in averaged)
        assert any(0 < a.contributors_mean < 6 for a in averaged)
    else:
        assert all(a.contributors_min == 6 for a in averaged)
        assert not all(np.array_equal(past.x, pasts[0].x) for past in pasts.values())


def test_where_a_mean_came_everybody_has_the_same_bits():
    """Packets that came beside lost ones are as exact as where none is lost."""
    experiment = experiment_of(Radio(fading="none"), devices=6, scheme="ring")
    places = random_places("ring", 6, seed=3)
    pasts = average(experiment, places, snr_db=uneven)
    (world,) = AveragingOracle(experiment, places, snr_db=uneven).lives(1)
    shared, sizes = 0, np.tile([15, 15, 15, 5], 6)  # six chunks of 50 numbers
    starts = np.cumsum(sizes) - sizes
    for block, (start, size) in enumerate(zip(starts, sizes, strict=True)):
        there = [device for device in places if world.counts[device][block]]
        shared += len(there) > 1
        for device in there:
            span = slice(start, start + size)
            assert np.array_equal(pasts[device].x[0][span], pasts[there[0]].x[0][span])
    kept = [past.averaged[0].blocks_kept for past in pasts.values()]
    assert shared > 5
    assert sum(kept) > 5
