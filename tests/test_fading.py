"""Fading: exact marginals by their names in scipy.stats, correlation in time, one fade for both ends."""

import math

import numpy as np
import pytest
from constellations import FADES, averaged, name
from scipy.stats import binom, expon, gamma, kstest, nakagami, ncx2, norm, rayleigh, rice

from protocol.fading import (
    NUM_SLICES,
    Fading,
    FadingProcess,
    block_correlation,
    equally_likely_gains,
    gains_of,
    laplace_transform,
    survival_probability,
)

SHAPES = (
    *FADES,
    Fading("rician", 0.0),
    Fading("rician", 100.0),
    Fading("nakagami", 1.0),
    Fading("nakagami", 30.0),
)
GAINS = (0.01, 0.1, 0.5, 0.9, 1.0, 1.1, 2.0, 5.0)
CORRELATIONS = (0.9, 0.3, 0.0, -0.4)


def amplitude(fading):
    """Return the distribution of sqrt(g) under the name that statistics gives it."""
    match fading.kind:
        case "rayleigh":
            return rayleigh(scale=math.sqrt(0.5))
        case "rician":
            k = fading.shape
            return rice(math.sqrt(2 * k), scale=math.sqrt(1 / (2 * (k + 1))))
        case "nakagami":
            return nakagami(fading.shape)


def power(fading):
    """Return the distribution of g; scipy's noncentral chi-squared wants something off centre."""
    k = m = fading.shape
    match fading.kind:
        case "rayleigh":
            return expon()
        case "rician":
            return ncx2(2, 2 * k, scale=1 / (2 * (k + 1))) if k else expon()
        case "nakagami":
            return gamma(m, scale=1 / m)


def process(fading=FADES[0], *, pair=(2, 7), seed=1, blocks=1, correlation=0.0):
    return FadingProcess(fading, seed=seed, pair=pair, blocks_per_round=blocks, correlation=correlation)


def scattered(num, seed=1):
    """Draw scattered waves of unit mean power."""
    re, im = np.random.default_rng(seed).standard_normal((2, num)) / math.sqrt(2)
    return re + 1j * im


@pytest.mark.parametrize("fading", SHAPES, ids=name)
def test_marginals_are_those_of_the_named_distributions(fading):
    """Kolmogorov-Smirnov in amplitude and in power; 99 % for both over all shapes."""
    gains = process(fading, blocks=20_000).gains(3)
    level = 0.01 / (2 * len(SHAPES))
    assert kstest(np.sqrt(gains), amplitude(fading).cdf).pvalue > level
    assert kstest(gains, power(fading).cdf).pvalue > level


@pytest.mark.parametrize("fading", SHAPES, ids=name)
@pytest.mark.parametrize("correlation", [0.9, -0.4])
def test_correlated_blocks_keep_the_marginal_in_every_round(fading, correlation):
    """Taken across links, whose fades are independent of each other; 99 % over all cells."""
    gains = [
        process(fading, pair=(0, other), blocks=3, correlation=correlation).gains(2)[1]
        for other in range(1, 3001)
    ]
    assert kstest(gains, power(fading).cdf).pvalue > 0.01 / (2 * len(SHAPES))


@pytest.mark.parametrize("fading", SHAPES, ids=name)
def test_mean_power_is_one(fading):
    """By draws, within 99 % over all shapes, and by quantiles, whose mean misses part of the last slice."""
    gains = gains_of(fading, scattered(100_000))
    half_width = norm.isf(0.01 / 2 / len(SHAPES)) * power(fading).std() / math.sqrt(len(gains))
    assert abs(gains.mean() - 1) < half_width
    assert equally_likely_gains(fading).mean() == pytest.approx(1, abs=5e-5)


def test_power_gains_by_hand():
    """The wave s = 0.6 - 0.8j has unit power; against and along a direct path three times as strong."""
    waves = np.array([[0.6 - 0.8j], [1.0], [-1.0]])
    assert gains_of(Fading("none"), waves).tolist() == [[1.0], [1.0], [1.0]]
    assert gains_of(Fading("rayleigh"), waves) == pytest.approx(np.ones((3, 1)))
    by_hand = [[(math.sqrt(3) + 0.6) ** 2 / 4 + 0.16], [1 + math.sqrt(3) / 2], [1 - math.sqrt(3) / 2]]
    assert gains_of(Fading("rician", 3.0), waves) == pytest.approx(np.array(by_hand))
    assert gains_of(Fading("nakagami", 1.0), 2 * waves) == pytest.approx(np.full((3, 1), 4.0))


def test_nakagami_blocks_rise_and_fall_with_the_scattered_power():
    waves = scattered(1000)
    order = np.argsort(np.abs(waves))
    assert np.all(np.diff(gains_of(Fading("nakagami", 2.5), waves)[order]) > 0)


@pytest.mark.parametrize("fading", SHAPES, ids=name)
def test_survival_probability_is_that_of_the_named_distribution(fading):
    for gain in GAINS:
        survival = survival_probability(fading, gain)
        assert survival == pytest.approx(power(fading).sf(gain), rel=1e-9, abs=1e-12)
        assert survival == pytest.approx(amplitude(fading).sf(math.sqrt(gain)), rel=1e-9, abs=1e-12)
    assert survival_probability(fading, 0.0) == survival_probability(fading, -1.0) == 1


@pytest.mark.parametrize("fading", SHAPES, ids=name)
def test_survival_probability_is_how_often_a_fade_survives(fading):
    """Independent blocks: the exact binomial interval, 99 % over all shapes and gains."""
    gains = process(fading, blocks=50_000).gains(0)
    for gain in GAINS:
        low, high = binom.interval(
            1 - 0.01 / len(SHAPES) / len(GAINS), len(gains), survival_probability(fading, gain)
        )
        assert low <= np.count_nonzero(gains >= gain) <= high


def test_rayleigh_outage_by_hand():
    """1 - exp(-threshold): a tenth of the mean power is missed 9.5 % of the time."""
    assert 1 - survival_probability(Fading("rayleigh"), 0.1) == pytest.approx(0.0951625820)
    assert 1 - survival_probability(Fading("rayleigh"), math.log(2)) == pytest.approx(0.5)


def test_what_does_not_fade_survives_its_own_gain_only():
    still = Fading("none")
    assert [survival_probability(still, gain) for gain in (0.5, 1.0, 1.0001)] == [1, 1, 0]
    assert np.array_equal(equally_likely_gains(still), [1.0])
    assert np.array_equal(process(still, blocks=5, correlation=0.5).gains(4), np.ones(5))
    assert laplace_transform(still, np.array([0.0, 2.0])) == pytest.approx([1, math.exp(-2)])


@pytest.mark.parametrize("fading", SHAPES, ids=name)
def test_laplace_transform_equals_the_integral_over_the_density(fading):
    s = np.array([[0.0, 0.01, 0.3], [1.0, 7.0, 400.0]])
    integrals = [[averaged(lambda g, s=s: math.exp(-s * g), fading) for s in row] for row in s.tolist()]
    assert laplace_transform(fading, s) == pytest.approx(np.array(integrals), rel=1e-7)


@pytest.mark.parametrize("fading", SHAPES, ids=name)
def test_equally_likely_gains_are_the_quantiles_of_the_middles(fading):
    gains = equally_likely_gains(fading)
    middles = (np.arange(NUM_SLICES) + 0.5) / NUM_SLICES
    assert power(fading).cdf(gains) == pytest.approx(middles, abs=1e-9)
    assert np.all(np.diff(gains) > 0)
    assert not gains.flags.writeable  # one array for everybody


def test_block_correlation_by_hand():
    """J0(1) = 0.7651976866, J0(3) = -0.2600519549, J0(2.4048255577) = 0 (Abramowitz, Stegun, table 9.1)."""
    assert block_correlation(50.0, 1 / (2 * math.pi * 50)) == pytest.approx(0.7651976866, abs=1e-10)
    assert block_correlation(0.5, 3 / math.pi) == pytest.approx(-0.2600519549, abs=1e-10)
    assert block_correlation(10.0, 2.4048255577 / (20 * math.pi)) == pytest.approx(0, abs=1e-9)


def test_correlation_without_motion_and_without_memory():
    assert block_correlation(0.0, 123.0) == 1
    assert block_correlation(math.inf, 1e-9) == 0
    assert block_correlation(math.inf, 0.0) == 0


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_scattered_waves_correlate_by_rho_to_the_lag_also_across_rounds(correlation):
    """Beside a direct path K = 1e4 a gain shows the scattered wave's real part: corr = rho^k to 1 / (2 K).

    Three rounds of three blocks on each of 5000 independent links. Fisher's atanh of a normal sample's
    correlation is N(atanh(rho), 1 / (n - 3)); 99 % for all lags and correlations.
    """
    num_links, k = 5000, 1e4
    walked = np.empty((num_links, 9))
    for link in range(num_links):
        one = process(Fading("rician", k), pair=(link, link + 1), blocks=3, correlation=correlation)
        walked[link] = np.concatenate([one.gains(round_) for round_ in range(3)])
    half_width = norm.isf(0.01 / 2 / (8 * len(CORRELATIONS))) / math.sqrt(num_links - 3)
    for lag in range(1, 9):
        measured = np.corrcoef(walked[:, 8 - lag], walked[:, 8])[0, 1]
        assert abs(math.atanh(measured) - math.atanh(correlation**lag)) < half_width + 1 / (2 * k)


def test_rayleigh_gains_correlate_by_the_square():
    """Blocks of one link: E[g_b g_(b+1)] - 1 = rho^2; means of stretches of 200 blocks are nearly normal."""
    gains = process(blocks=20_000, correlation=0.6).gains(0)
    products = ((gains[:-1] - 1) * (gains[1:] - 1))[: 99 * 200].reshape(99, 200).mean(axis=1)
    assert abs(products.mean() - 0.36) < norm.isf(0.005) * products.std() / math.sqrt(99)


@pytest.mark.parametrize("fading", FADES, ids=name)
def test_without_motion_a_fade_never_changes(fading):
    still = process(fading, blocks=4, correlation=1.0)
    first = still.gains(0)
    assert np.array_equal(first, np.full(4, first[0]))
    assert all(np.array_equal(still.gains(round_), first) for round_ in (1, 2, 50))


def test_without_memory_every_round_and_block_is_new():
    independent = process(blocks=100)
    drawn = np.concatenate([independent.gains(round_) for round_ in range(30)])
    assert len(np.unique(drawn)) == 3000
    neighbours = np.corrcoef(drawn[:-1], drawn[1:])[0, 1]
    assert abs(neighbours) < norm.isf(0.005) / math.sqrt(len(drawn) - 1)


@pytest.mark.parametrize("correlation", CORRELATIONS)
@pytest.mark.parametrize("fading", FADES, ids=name)
def test_both_ends_see_the_same_fades(fading, correlation):
    here, there = (process(fading, pair=pair, blocks=5, correlation=correlation) for pair in ((2, 7), (7, 2)))
    for round_ in (0, 1, 4):
        assert np.array_equal(here.gains(round_), there.gains(round_))


@pytest.mark.parametrize("correlation", CORRELATIONS)
def test_fades_are_a_function_of_the_round_and_not_of_the_order_in_which_it_is_asked_for(correlation):
    in_order = process(blocks=5, correlation=correlation)
    wanted = [in_order.gains(round_).tolist() for round_ in range(6)]
    jumping = process(blocks=5, correlation=correlation)
    for round_ in (4, 4, 1, 5, 0, 0, 2):
        assert jumping.gains(round_).tolist() == wanted[round_]


@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_fades_change_with_round_pair_and_seed(correlation):
    drawn = [
        process(blocks=3, correlation=correlation).gains(0),
        process(blocks=3, correlation=correlation).gains(1),
        process(blocks=3, correlation=correlation, pair=(2, 8)).gains(0),
        process(blocks=3, correlation=correlation, seed=2).gains(0),
    ]
    assert len(np.unique(drawn)) == 12


def test_variance_of_rician_and_nakagami_gains():
    """(1 + 2 K) / (1 + K)^2 and 1 / m, by quantiles, which lack the far end of the tail."""
    assert equally_likely_gains(Fading("rician", 6.0)).var() == pytest.approx(13 / 49, rel=1e-3)
    assert equally_likely_gains(Fading("nakagami", 2.0)).var() == pytest.approx(1 / 2, rel=1e-3)
    assert equally_likely_gains(Fading("rayleigh")).var() == pytest.approx(1, rel=2e-3)
