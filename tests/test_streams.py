"""Random streams: the key and counter of each, against a Philox written from its paper."""

import itertools

import numpy as np
import pytest

from protocol.streams import Purpose, link_stream, stream, sub_seed

WORD = 2**64


def philox4x64(key, counter):
    """Philox4x64-10 (Salmon et al., SC 2011, section 3.3): ten rounds of two wide products and a key bump."""
    k0, k1 = key
    c0, c1, c2, c3 = counter
    for _ in range(10):
        high0, low0 = divmod(0xD2E7470EE14C6C93 * c0, WORD)
        high1, low1 = divmod(0xCA5A826395121157 * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B97F4A7C15) % WORD, (k1 + 0xBB67AE8584CAA73B) % WORD
    return [c0, c1, c2, c3]


def test_the_philox_of_this_test_gives_the_authors_known_answer():
    zeros = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert philox4x64((0, 0), (0, 0, 0, 0)) == zeros


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
@pytest.mark.parametrize("purpose", [Purpose.PARAMETERS, Purpose.FADING, Purpose.GRAPH])
@pytest.mark.parametrize(("round_", "attempt"), [(0, 0), (7, 3), (10_000_000, 255)])
@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 0), (4095, 4094)])
def test_seed_is_the_key_and_everything_else_the_counter(seed, purpose, round_, attempt, a, b):
    rng = stream(seed, purpose, round_=round_, attempt=attempt, a=a, b=b)
    for block in (1, 2, 3):  # the generator counts up before each block of four words
        counter = (block, round_ * 2**32 + attempt, a * 2**32 + b, purpose)
        assert rng.bit_generator.random_raw(4).tolist() == philox4x64((seed, 0), counter)


def test_streams_of_different_keys_share_no_word():
    keys = itertools.product([1, 2], [Purpose.FADING, Purpose.BIT_ERRORS], [0, 1], [0, 1], [0, 1], [0, 1])
    words = [
        stream(seed, purpose, round_=round_, attempt=attempt, a=a, b=b).bit_generator.random_raw(64)
        for seed, purpose, round_, attempt, a, b in keys
    ]
    assert len(np.unique(np.concatenate(words))) == 64 * len(words)


def test_both_ends_of_a_link_draw_the_same_and_only_they():
    def draw(a, b):
        return link_stream(5, Purpose.FADING, a, b, round_=2).random(8).tolist()

    assert draw(3, 9) == draw(9, 3)
    assert draw(3, 9) != draw(3, 8)
    assert draw(3, 9) == stream(5, Purpose.FADING, round_=2, a=3, b=9).random(8).tolist()


def test_purposes_keep_their_numbers():
    """A run's seed means the same run in every version; new purposes may join."""
    kept = {
        "PARAMETERS": 1,
        "PARTITION": 2,
        "POSITIONS": 3,
        "SHADOWING": 4,
        "FADING": 5,
        "BIT_ERRORS": 6,
        "QUANTISATION": 7,
        "BATCHES": 8,
        "CONSENSUS_SAMPLE": 9,
        "SYNTHETIC_DATA": 10,
        "TEST_SPLIT": 11,
        "GRAPH": 12,
        "MOBILITY": 13,
        "BURSTS": 14,
        "ANALOG_NOISE": 15,
        "GAIN_ERROR": 16,
        "LINK_BENCH": 17,
        "HARDWARE": 18,
        "PILOTS": 19,
    }
    assert kept.items() <= {purpose.name: purpose.value for purpose in Purpose}.items()
    assert len({purpose.value for purpose in Purpose}) == len(Purpose.__members__)  # none is another's alias


def test_seeds_for_other_libraries_fit_63_bits_and_differ_per_device():
    seeds = [sub_seed(1, Purpose.BATCHES, a=device) for device in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seeds == [sub_seed(1, Purpose.BATCHES, a=device) for device in range(100)]
