"""Bit-error probabilities: closed forms against constellations built from scratch, still and faded."""

import math

import numpy as np
import pytest
from constellations import (
    AWGN_SNRS_DB,
    BITS,
    FADES,
    averaged,
    decisions,
    enumerated_ber,
    linear,
    name,
    simulated_errors,
)
from scipy.stats import norm

from protocol.fading import Fading
from protocol.modulation import (
    BITS_PER_SYMBOL,
    bit_error_probability,
    bit_rate_bps,
    coded_snr,
    mean_bit_error_probability,
    permitted,
)
from protocol.radio import Radio

AWGN_CELLS = [(modulation, snr_db) for modulation, snrs_db in AWGN_SNRS_DB.items() for snr_db in snrs_db]
FADED_CELLS = [
    (fading, modulation, snr_db)
    for fading in FADES
    for modulation, snrs_db in AWGN_SNRS_DB.items()
    for snr_db in snrs_db[::2]
]
FADED_SNRS = [linear(snr_db) for snr_db in range(-20, 61, 10)]


def simulate(modulation, snr, rng):
    """Simulate a symbol at each snr; return the mean share of wrong bits and its standard error.

    Bits of a symbol share its noise, and its fade, so the interval is that of the mean over symbols.
    """
    errors = simulated_errors(modulation, snr, rng)
    return errors.mean(), errors.std() / math.sqrt(len(snr))


@pytest.mark.parametrize("modulation", BITS)
def test_closed_form_equals_the_enumerated_constellation(modulation):
    snrs = linear(np.arange(-20.0, 40.0, 0.5))
    closed = bit_error_probability(modulation, snrs)
    enumerated = np.array([enumerated_ber(modulation, snr) for snr in snrs])
    normal = enumerated > 1e-290  # below, doubles lose their precision
    assert np.allclose(closed[normal], enumerated[normal], rtol=1e-9, atol=0)
    assert np.all(closed[~normal] < 1e-289)


def test_textbook_values():
    """Q(sqrt(2)) at 0 dB for BPSK; QPSK needs twice the energy per symbol; 0 and infinite signal."""
    assert bit_error_probability("bpsk", np.array([1.0]))[0] == pytest.approx(0.0786496035, rel=1e-8)
    assert bit_error_probability("qpsk", np.array([2.0]))[0] == pytest.approx(0.0786496035, rel=1e-8)
    for modulation in BITS:
        assert bit_error_probability(modulation, np.array([0.0, 1e12])) == pytest.approx([0.5, 0])


def test_any_shape_goes_in_and_the_same_comes_out():
    snrs = linear(np.arange(12.0).reshape(3, 4))
    errors = bit_error_probability("qam16", snrs)
    assert errors.shape == (3, 4)
    assert errors[2, 1] == bit_error_probability("qam16", snrs[2, 1:2])[0]


@pytest.mark.parametrize(("modulation", "snr_db"), AWGN_CELLS)
def test_simulated_symbols_err_as_often_as_the_closed_form_says(modulation, snr_db):
    """About 400 errors in each cell; 99 % for all cells together."""
    expected = float(bit_error_probability(modulation, np.array([linear(snr_db)]))[0])
    rng = np.random.default_rng(AWGN_CELLS.index((modulation, snr_db)))
    num_symbols = round(400 / expected / BITS[modulation])
    mean, error = simulate(modulation, np.full(num_symbols, linear(snr_db)), rng)
    assert abs(mean - expected) < norm.isf(0.01 / 2 / len(AWGN_CELLS)) * error


@pytest.mark.parametrize("modulation", BITS)
def test_mean_over_rayleigh_fading_in_closed_form(modulation):
    """P(noise < z sqrt(g)) = (1 + z / sqrt(N0 + z^2)) / 2 over g ~ Exp(1), for each edge z of a decision.

    Proakis, "Digital Communications", 4th ed., eq. 14.3-7, which is 1 minus it for BPSK.
    """
    low, high, bits_wrong = decisions(modulation)
    for snr in FADED_SNRS:
        below_low, below_high = (np.sign(z) / np.sqrt(1 + 1 / (snr * z**2)) / 2 for z in (low, high))
        closed = np.sum(bits_wrong * (below_high - below_low)) / len(low) / math.log2(len(low))
        mean = mean_bit_error_probability(modulation, snr, Fading("rayleigh"))
        assert mean == pytest.approx(closed, rel=1e-8)


def test_textbook_values_over_rayleigh_fading():
    """(1 - sqrt(1/2)) / 2 at 0 dB for BPSK, and 1 / (4 snr) far above."""
    rayleigh = Fading("rayleigh")
    assert mean_bit_error_probability("bpsk", 1.0, rayleigh) == pytest.approx(0.1464466094, rel=1e-9)
    assert mean_bit_error_probability("qpsk", 2.0, rayleigh) == pytest.approx(0.1464466094, rel=1e-9)
    assert mean_bit_error_probability("bpsk", 1e6, rayleigh) == pytest.approx(2.5e-7, rel=1e-5)


@pytest.mark.parametrize("modulation", BITS)
@pytest.mark.parametrize("fading", [*FADES, Fading("rician", 30.0), Fading("nakagami", 20.0)], ids=name)
def test_mean_over_a_fade_equals_the_integral_over_its_density(fading, modulation):
    """Adaptive quadrature of the enumerated constellation in the gain, to 1e-8: no Craig, no Laplace."""
    for snr in FADED_SNRS:
        integral = averaged(lambda gain, snr=snr: enumerated_ber(modulation, gain * snr), fading)
        assert mean_bit_error_probability(modulation, snr, fading) == pytest.approx(integral, rel=1e-7)


@pytest.mark.parametrize(("fading", "modulation", "snr_db"), FADED_CELLS, ids=name)
def test_simulated_symbols_in_fades_err_as_often_as_the_mean_says(fading, modulation, snr_db):
    """A fade for each symbol, drawn from what the fading is made of; 99 % for all cells together."""
    rng = np.random.default_rng(1000 + FADED_CELLS.index((fading, modulation, snr_db)))
    num_symbols = 100_000
    re, im = rng.standard_normal((2, num_symbols)) / math.sqrt(2)
    match fading.kind:
        case "rayleigh":
            gains = re**2 + im**2
        case "rician":
            gains = ((math.sqrt(fading.shape) + re) ** 2 + im**2) / (fading.shape + 1)
        case "nakagami":
            gains = rng.standard_gamma(fading.shape, num_symbols) / fading.shape
    mean, error = simulate(modulation, gains * linear(snr_db), rng)
    expected = mean_bit_error_probability(modulation, linear(snr_db), fading)
    assert expected > 2e-3  # some hundred wrong symbols, so that their mean is normal
    assert abs(mean - expected) < norm.isf(0.01 / 2 / len(FADED_CELLS)) * error


@pytest.mark.parametrize("modulation", BITS)
def test_fadings_meet_where_they_are_the_same(modulation):
    """Quadrature of the same integrand, and for what does not fade 2e-9 against erfc itself."""
    for snr in FADED_SNRS:
        rayleigh = mean_bit_error_probability(modulation, snr, Fading("rayleigh"))
        for same in (Fading("rician", 0.0), Fading("nakagami", 1.0)):
            assert mean_bit_error_probability(modulation, snr, same) == pytest.approx(rayleigh, rel=1e-12)
        still = float(bit_error_probability(modulation, np.array([snr]))[0])
        assert mean_bit_error_probability(modulation, snr, Fading("none")) == pytest.approx(
            still, rel=2e-9, abs=1e-18
        )


@pytest.mark.parametrize("modulation", BITS)
def test_bit_rate_is_bandwidth_times_bits_per_symbol_times_code_rate(modulation):
    assert bit_rate_bps(Radio(), modulation, 5e5) == 5e5 * BITS[modulation]
    assert bit_rate_bps(Radio(code_rate=0.75), modulation, 5e5) == 5e5 * BITS[modulation] * 0.75


def test_a_code_moves_the_signal_by_its_gain_and_its_rate():
    """Half the rate is twice the energy per information bit (3.01 dB), and 5 dB of gain come on top."""
    snrs = linear(np.array([-10.0, 0.0, 10.0]))
    assert np.array_equal(coded_snr(Radio(), snrs), snrs)
    moved_db = 10 * np.log10(coded_snr(Radio(code_rate=0.5, coding_gain_db=5), snrs))
    assert moved_db == pytest.approx([-10 + 8.0103, 8.0103, 10 + 8.0103], abs=1e-4)


def test_permitted_modulations_run_from_robust_to_fast():
    assert permitted(Radio(modulation="qam64")) == ("qam64",)
    assert permitted(Radio(modulation="qam64", rate="adaptive")) == tuple(BITS)
    at_10_db = [float(bit_error_probability(m, np.array([10.0]))[0]) for m in BITS_PER_SYMBOL]
    assert at_10_db == sorted(at_10_db)
    assert BITS_PER_SYMBOL == BITS
