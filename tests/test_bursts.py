"""Gilbert-Elliott bursts: geometric sojourns, their share, no memory, and equilibrium from the start."""

import math
from itertools import groupby

import numpy as np
import pytest
from scipy.stats import binom, chi2, geom, norm

from protocol.bursts import burst_mask
from protocol.radio import Radio

CHAINS = ((1.0, 0.3), (1.0, 0.5), (3.0, 0.1), (8.0, 0.4), (20.0, 0.9))
"""Mean burst length and share of packets in bursts; the second leaves one good packet between bursts."""
NUM_PACKETS = 200_000


def bursty(length, share):
    return Radio(burst_packets=length, burst_share=share)


def mask_of(length, share, num_packets=NUM_PACKETS, seed=1):
    return burst_mask(bursty(length, share), num_packets, np.random.default_rng(seed))


def sojourns(mask, bad):
    """Lengths of the runs of one state, without the first and the last, which are cut off."""
    runs = [(state, sum(1 for _ in run)) for state, run in groupby(mask.tolist())][1:-1]
    return np.array([length for state, length in runs if state == bad])


@pytest.mark.parametrize("bad", [True, False])
@pytest.mark.parametrize(("length", "share"), CHAINS)
def test_sojourns_are_geometric_with_their_mean(length, share, bad):
    """Pearson's test and the mean's normal interval, 99 % for both over all chains and states.

    Bursts last `length` packets in the mean, what lies between them length (1 - share) / share.
    """
    mean = length if bad else length * (1 - share) / share
    lengths, level = sojourns(mask_of(length, share), bad), 0.01 / (4 * len(CHAINS))
    if mean == 1:
        assert np.all(lengths == 1)
        return
    half_width = norm.isf(level / 2) * math.sqrt(mean * (mean - 1) / len(lengths))
    assert abs(lengths.mean() - mean) < half_width
    longest = int(geom.isf(20 / len(lengths), 1 / mean)) + 1  # about 20 are as long or longer
    expected = np.append(geom.pmf(np.arange(1, longest), 1 / mean), geom.sf(longest - 1, 1 / mean))
    observed = np.bincount(np.minimum(lengths, longest), minlength=longest + 1)[1:]
    statistic = np.sum((observed / len(lengths) - expected) ** 2 / expected) * len(lengths)
    assert statistic < chi2.isf(level, longest - 1)


@pytest.mark.parametrize(("length", "share"), CHAINS)
def test_share_of_packets_in_bursts(length, share):
    """A two-state chain with second eigenvalue v: variance of the mean q (1 - q) (1 + v) / (1 - v) / n."""
    memory = 1 - 1 / length - share / (length * (1 - share))
    deviation = math.sqrt(share * (1 - share) * (1 + memory) / (1 - memory) / NUM_PACKETS)
    measured = mask_of(length, share).mean()
    # With nothing random but its phase, the mean of n packets is off by less than one packet.
    assert abs(measured - share) < norm.isf(0.01 / 2 / len(CHAINS)) * deviation + 1 / NUM_PACKETS


@pytest.mark.parametrize(("length", "share"), CHAINS)
def test_transmissions_start_in_equilibrium(length, share):
    """At every place of 4000 short transmissions the share is the same: exact binomial interval, 99 %."""
    num_masks = 4000
    bad = np.sum([mask_of(length, share, 8, seed) for seed in range(num_masks)], axis=0)
    low, high = binom.interval(1 - 0.01 / (8 * len(CHAINS)), num_masks, share)
    assert np.all((low <= bad) & (bad <= high))


@pytest.mark.parametrize(("length", "share"), CHAINS[2:])
def test_how_long_a_burst_has_lasted_does_not_matter(length, share):
    """Markov: a burst goes on with 1 - 1 / length, whatever came before it; 99 % for all cells."""
    mask = mask_of(length, share)
    here, after = mask[1:-1], mask[2:]
    for before in (False, True):
        cases = here & (mask[:-2] == before)
        low, high = binom.interval(1 - 0.01 / 6, cases.sum(), 1 - 1 / length)
        assert low <= np.count_nonzero(after & cases) <= high


@pytest.mark.parametrize("length", [1.0, 3.0, 4.0, 5.0, 9.0, 49.0, 1e6])
def test_the_largest_share_leaves_one_packet_between_bursts(length):
    """The share length / (length + 1) is rounded, up as often as down."""
    mask = mask_of(length, length / (length + 1), 10_000)
    assert not np.any(~mask[1:] & ~mask[:-1])


def test_without_bursts_nothing_is_drawn():
    rng = np.random.default_rng(1)
    assert not burst_mask(Radio(), 100, rng).any()
    assert rng.random() == np.random.default_rng(1).random()


@pytest.mark.parametrize("num_packets", [0, 1, 7, 100])
def test_there_is_one_verdict_for_each_packet(num_packets):
    for seed in range(20):
        mask = mask_of(20.0, 0.9, num_packets, seed)
        assert mask.shape == (num_packets,)
        assert mask.dtype == np.bool_
