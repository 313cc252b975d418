"""Analog transmission against section 5.1 of the theory: the sum in the air, its noise, and who pays what.

Intervals of what is random hold with 99 % for all cells of a test together: each cell has its part of
the 1 % (Bonferroni). Seeds are fixed, so that a test that passes always does.
"""

from functools import partial

import numpy as np
import pytest
from scipy.special import exp1
from scipy.stats import chi2, norm

from protocol.analog import Power, Signal, add_noise_, energies, power_control, superpose_
from protocol.fading import Fading, FadingProcess, survival_probability
from protocol.streams import Purpose, stream

NUM_VALUES = 600
WEIGHTS = (0.3, 0.2, 0.4)
RAYLEIGH = Fading("rayleigh")
ERROR = 0.01
LONG = 2 * 16_384 + 5
"""Numbers that neither fill whole pieces of what is worked on at a time, nor pair up."""

zeros = partial(np.zeros, dtype=np.float32)


def numbers(seed, num_values=NUM_VALUES):
    return np.random.default_rng(seed).standard_normal(num_values, dtype=np.float32)


def energy_of(s):
    return float(np.sum(s.astype(np.float64) ** 2))


def signals_of(snrs, weights=WEIGHTS, num_values=NUM_VALUES):
    """Return signals of different strength: neighbour j sends j + 1 times random numbers."""
    sent = [(j + 1) * numbers(j, num_values) for j in range(len(snrs))]
    return [Signal(s, w, energy_of(s), snr) for s, w, snr in zip(sent, weights, snrs, strict=True)]


def weighted_sum(signals):
    return sum(signal.weight * signal.s.astype(np.float64) for signal in signals)


def in_interval(statistic, degrees, cells):
    """Say whether a chi-squared statistic lies within its interval; cells: how many are looked at."""
    tail = ERROR / 2 / cells
    return chi2.ppf(tail, degrees) < statistic < chi2.isf(tail, degrees)


@pytest.mark.parametrize("snr_db", [-5, 0, 10, 20, 30])
def test_the_received_sum_has_the_mean_and_the_noise_of_the_theory(snr_db):
    """Residuals are N(0, nu^2 / d): their squares add up to chi-squared, and so do those of their means."""
    repeats, cells = 400, 5 * 2
    snrs = 10 ** (snr_db / 10) * np.array([1.0, 0.4, 2.5])
    signals = signals_of(snrs)
    noise_energy = max(  # theory: nu^2 = max_j W^2 ||s||^2 / SNR
        w**2 * energy_of(signal.s) / snr for w, signal, snr in zip(WEIGHTS, signals, snrs, strict=True)
    )
    expected = weighted_sum(signals)
    rng = np.random.default_rng(snr_db + 100)
    residuals = np.empty((repeats, NUM_VALUES))
    for repeat in range(repeats):
        out = zeros(NUM_VALUES)
        superpose_(out, signals)
        add_noise_(out, power_control(signals).noise_energy, rng)
        residuals[repeat] = out - expected
    variance = noise_energy / NUM_VALUES
    assert in_interval(np.sum(residuals**2) / variance, residuals.size, cells)
    assert in_interval(repeats * np.sum(residuals.mean(axis=0) ** 2) / variance, NUM_VALUES, cells)


def test_noise_is_white_and_normal():
    out = zeros(100_000)
    add_noise_(out, 4.0 * len(out), np.random.default_rng(3))
    noise = out.astype(np.float64) / 2
    bound = norm.isf(ERROR / 2 / 5) / np.sqrt(len(noise))  # of a mean of terms of variance 1
    assert abs(noise.mean()) < bound
    assert abs(np.mean(noise[:-1] * noise[1:])) < bound
    assert abs(np.mean(noise[0::2] * noise[1::2])) < np.sqrt(2) * bound  # the two parts of one symbol
    assert abs(np.mean(noise**2 - 1)) < np.sqrt(2) * bound  # var(z^2) = 2
    assert abs(np.mean(noise**4 - 3)) < np.sqrt(96) * bound  # var(z^4) = 105 - 9


def over_the_air(signals, sigma_z, power_w, channels, estimates):
    """Go through every complex symbol as the theory has it, without its short cuts; no noise.

    Returns what the receiver decodes, the variance that noise CN(0, sigma_z^2) per symbol has in each
    real number of it, and each sender's power, averaged over the symbols.
    """
    symbols = [signal.s[0::2] + 1j * signal.s[1::2].astype(np.float64) for signal in signals]
    num_values = 2 * len(symbols[0])
    gamma = min(
        power_w * num_values * abs(h) ** 2 / (2 * signal.weight**2 * energy_of(signal.s))
        for h, signal in zip(channels, signals, strict=True)
    )
    inverted = [
        np.sqrt(gamma) * signal.weight / h * u
        for h, signal, u in zip(estimates, signals, symbols, strict=True)
    ]
    received = sum(h * b for h, b in zip(channels, inverted, strict=True)) / np.sqrt(gamma)
    decoded = np.stack((received.real, received.imag), axis=1).ravel()
    powers_w = [np.mean(np.abs(b) ** 2) for b in inverted]
    return decoded, sigma_z**2 / 2 / gamma, powers_w


CHANNELS = (0.8 - 0.3j, -0.1 + 0.9j, 1.4 + 0.2j)


@pytest.mark.parametrize("strength", [(1, 1, 1), (5, 1, 1), (1, 6, 1), (0.1, 0.2, 9)])
def test_nobody_sends_above_its_power_and_the_binding_one_exactly_at_it(strength):
    power_w, sigma_z = 2.0, 0.7
    snrs = [power_w * abs(h) ** 2 / sigma_z**2 for h in CHANNELS]
    sent = [np.float32(k) * numbers(j) for j, k in enumerate(strength)]
    signals = [Signal(s, w, energy_of(s), snr) for s, w, snr in zip(sent, WEIGHTS, snrs, strict=True)]
    power = power_control(signals)
    out = zeros(NUM_VALUES)
    superpose_(out, signals)
    decoded, variance, powers_w = over_the_air(signals, sigma_z, power_w, CHANNELS, CHANNELS)
    np.testing.assert_allclose(out, decoded, rtol=0, atol=1e-5 * np.abs(decoded).max())  # float32 sums
    assert power.noise_energy / NUM_VALUES == pytest.approx(variance, rel=1e-9)
    assert power_w * np.array(power.shares) == pytest.approx(powers_w, rel=1e-9)
    assert max(power.shares) == 1.0
    assert sorted(power.shares)[-2] < 0.999


@pytest.mark.parametrize("threshold", [0.05, 0.3, 1.0])
def test_truncation_over_rayleigh_fading(threshold):
    """P(kept) = exp(-g_th), and E[1/g; kept] = E1(g_th), which is the mean noise energy of one sender."""
    rounds, cells = 20_000, 3 * 2
    fades = FadingProcess(RAYLEIGH, seed=5, pair=(0, 1), blocks_per_round=rounds, correlation=0.0).gains(0)
    kept = fades >= threshold
    quantile = norm.isf(ERROR / 2 / cells)
    p = np.exp(-threshold)
    assert survival_probability(RAYLEIGH, threshold) == pytest.approx(p)
    assert abs(kept.mean() - p) < quantile * np.sqrt(p * (1 - p) / rounds)
    signal, snr = signals_of([1.0], [0.5])[0], 100.0
    noise_energies = [
        power_control([Signal(signal.s, signal.weight, signal.energy, snr * g)]).noise_energy
        for g in fades[kept]
    ]
    scale = signal.weight**2 * energy_of(signal.s) / snr
    mean, square = exp1(threshold), np.exp(-threshold) / threshold - exp1(threshold)  # E[1/g^2; kept]
    error = quantile * np.sqrt((square - mean**2) / rounds)
    assert abs(np.sum(noise_energies) / rounds / scale - mean) < error


@pytest.mark.parametrize("variance", [0.01, 0.2])
def test_a_gain_error_adds_its_variance_times_the_energy_of_what_is_sent(variance):
    repeats, cells = 4000, 2
    signals = signals_of([10.0] * 3)
    expected = weighted_sum(signals)
    draws = np.random.default_rng(8).standard_normal((repeats, 3, 2)) @ (1, 1j) * np.sqrt(variance / 2)
    found = []
    for errors in draws:
        out = zeros(NUM_VALUES)
        superpose_(
            out,
            [
                Signal(signal.s, signal.weight, signal.energy, signal.snr, complex(error))
                for signal, error in zip(signals, errors, strict=True)
            ],
        )
        found.append(np.sum((out - expected) ** 2))
    theory = variance * sum(signal.weight**2 * energy_of(signal.s) for signal in signals)
    error = norm.isf(ERROR / 2 / cells) * np.std(found) / np.sqrt(repeats)  # of 4000: normal enough
    assert abs(np.mean(found) - theory) < error
    assert error < 0.1 * theory


@pytest.mark.parametrize("num_values", [2, NUM_VALUES, LONG - 1])
def test_a_gain_error_scales_and_turns_every_symbol(num_values):
    errors = (0.1 + 0.2j, -0.3 + 0.05j, 0.0 - 0.4j)
    estimates = [h / (1 + error) for h, error in zip(CHANNELS, errors, strict=True)]
    signals = [
        Signal(signal.s, signal.weight, signal.energy, signal.snr, error)
        for signal, error in zip(signals_of([10.0] * 3, num_values=num_values), errors, strict=True)
    ]
    out = zeros(num_values)
    superpose_(out, signals)
    decoded, _, _ = over_the_air(signals, 1.0, 1.0, CHANNELS, estimates)
    np.testing.assert_allclose(out, decoded, rtol=0, atol=1e-5)


def test_one_after_the_other_the_noises_of_the_links_add_up():
    repeats = 400
    snrs = (3.0, 10.0, 30.0)
    signals = signals_of(snrs)
    energy = sum(
        w**2 * energy_of(signal.s) / snr for w, signal, snr in zip(WEIGHTS, signals, snrs, strict=True)
    )
    rng, total = np.random.default_rng(21), 0.0
    for _ in range(repeats):
        out = zeros(NUM_VALUES)
        for signal in signals:
            superpose_(out, [signal])
            power = power_control([signal])
            assert power.shares == (1.0,)
            add_noise_(out, power.noise_energy, rng)
        total += np.sum((out - weighted_sum(signals)) ** 2)
    assert in_interval(total / (energy / NUM_VALUES), repeats * NUM_VALUES, cells=1)


@pytest.mark.parametrize("num_values", [1, 2, 7, 16_383, 16_384, 16_385, LONG])
def test_any_number_of_values(num_values):
    """The last of an odd number is the real part of a symbol: an error turns it out of sight."""
    errors = (0j, 0.2 + 0.1j, -0.1 - 0.3j)
    signals = [
        Signal(signal.s, signal.weight, signal.energy, signal.snr, error)
        for signal, error in zip(signals_of([10.0] * 3, num_values=num_values), errors, strict=True)
    ]
    before = numbers(9, num_values)
    out = before.copy()
    superpose_(out, signals)
    expected = before.astype(np.float64)
    for signal in signals:
        padded = np.append(signal.s, [0] * (num_values % 2)).astype(np.float64)
        turned = signal.weight * (1 + signal.gain_error) * (padded[0::2] + 1j * padded[1::2])
        expected += np.stack((turned.real, turned.imag), axis=1).ravel()[:num_values]
    np.testing.assert_allclose(out, expected, rtol=0, atol=5e-6)


def test_a_signal_is_only_read():
    signals = signals_of([10.0] * 3)
    for signal in signals:
        signal.s.flags.writeable = False
    superpose_(zeros(NUM_VALUES), signals)


@pytest.mark.parametrize("num_values", [1, 7, 16_384, LONG])
def test_noise_is_one_draw_however_it_is_cut(num_values):
    """What a seed means must not depend on how much is worked on at a time."""
    before = numbers(1, num_values)
    out = before.copy()
    add_noise_(out, 9.0 * num_values, stream(3, Purpose.ANALOG_NOISE, round_=4, a=1))
    rng = stream(3, Purpose.ANALOG_NOISE, round_=4, a=1)
    noise = rng.standard_normal(num_values, dtype=np.float32) * np.float32(3)
    assert np.array_equal(out, before + noise)


def test_where_all_are_silent_there_is_nothing_to_hear():
    assert power_control([]) == Power(0.0, ())
    out, rng = numbers(1), np.random.default_rng(1)
    before, state = out.copy(), rng.bit_generator.state
    superpose_(out, [])
    add_noise_(out, 0.0, rng)
    assert np.array_equal(out, before)
    assert rng.bit_generator.state == state


def test_who_has_nothing_to_say_needs_no_power():
    nothing, something = Signal(zeros(4), 0.5, 0.0, 10.0), signals_of([10.0], [0.5])[0]
    assert power_control([nothing, nothing]) == Power(0.0, (0.0, 0.0))
    assert power_control([nothing, something]).shares == (0.0, 1.0)


@pytest.mark.parametrize("block_values", [1, 3, 128, NUM_VALUES - 1, NUM_VALUES, NUM_VALUES + 1, 10_000])
@pytest.mark.parametrize("scale", [1.0, 1e25])
def test_energies_equal_a_plain_loop(block_values, scale):
    """Squares of 1e25 are beyond float32."""
    x = np.float32(scale) * numbers(2)
    found = energies(x, block_values)
    plain = [
        sum(float(value) ** 2 for value in x[start : start + block_values])
        for start in range(0, NUM_VALUES, block_values)
    ]
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, plain, rtol=1e-13)
