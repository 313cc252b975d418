"""The link: numbers worked out by hand, and closed forms against constellations built from scratch."""

import math

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import ndtr
from scipy.stats import chi2, kstest, norm

from protocol.config import Radio
from protocol.link import (
    bit_error_probability,
    bit_rate_bps,
    fading_gains,
    mean_snr_db,
    noise_dbm,
    packet_loss_probability,
    path_loss_db,
    rayleigh_bit_error_probability,
)

BITS = {"bpsk": 1, "qpsk": 2, "qam16": 4, "qam64": 6, "qam256": 8}
# Es/N0 [dB] at which the bit-error rate is about 0.2, 0.05, 0.01, 0.001 and 0.0001.
AWGN_SNRS_DB = {
    "bpsk": (-4.5, 1.5, 4.5, 7.0, 8.5),
    "qpsk": (-1.5, 4.5, 7.5, 10.0, 11.5),
    "qam16": (3.5, 10.5, 14.0, 16.5, 18.0),
    "qam64": (8.0, 16.0, 19.5, 22.5, 24.5),
    "qam256": (12.0, 21.0, 25.5, 28.5, 30.0),
}
AWGN_CELLS = [(modulation, snr_db) for modulation, snrs_db in AWGN_SNRS_DB.items() for snr_db in snrs_db]


def linear(db):
    return 10 ** (db / 10)


def amplitudes(modulation):
    """Amplitudes of one dimension, in order, their Gray labels, and the number of dimensions."""
    num_dimensions = 1 if modulation == "bpsk" else 2
    side = 2 ** (BITS[modulation] // num_dimensions)
    levels = 2.0 * np.arange(side) - (side - 1)
    return levels / math.sqrt(num_dimensions * np.mean(levels**2)), np.arange(side) ^ np.arange(side) >> 1


def gaussian_mass(low, high):
    """P(low < standard normal < high), without losing small upper tails to 1 - 1."""
    return np.where(low > 0, ndtr(-low) - ndtr(-high), ndtr(high) - ndtr(low))


def enumerated_ber(modulation, snr):
    """Bit-error probability of nearest-neighbour decisions: every sent level against every decided one.

    Unit energy per symbol, so the noise has variance N0 / 2 = 1 / (2 snr) in each dimension.
    """
    levels, labels = amplitudes(modulation)
    deviation = math.sqrt(1 / (2 * snr))
    edges = np.concatenate(([-math.inf], (levels[1:] + levels[:-1]) / 2, [math.inf]))
    away = (edges - levels[:, np.newaxis]) / deviation
    bits_wrong = np.bitwise_count(labels[:, np.newaxis] ^ labels)
    return (
        np.sum(bits_wrong * gaussian_mass(away[:, :-1], away[:, 1:])) / len(levels) / math.log2(len(levels))
    )


def over_rayleigh(of_gain):
    """Integrate of_gain(g) exp(-g) dg over g = exp(t): whatever happens, happens over about one unit of t."""
    return quad(
        lambda t: of_gain(math.exp(t)) * math.exp(t - math.exp(t)), -40, 4, epsabs=0, epsrel=1e-7, limit=200
    )[0]


def test_path_loss_by_hand():
    radio = Radio(reference_loss_db=40, path_loss_exponent=3)
    assert path_loss_db(1, radio) == 40
    assert path_loss_db(10, radio) == pytest.approx(70)
    assert path_loss_db(1000, radio) == pytest.approx(130)
    assert path_loss_db(50, Radio(reference_loss_db=30, path_loss_exponent=2)) == pytest.approx(
        63.9794, abs=1e-4
    )


def test_path_loss_is_held_below_one_metre():
    assert path_loss_db(0.0, Radio()) == path_loss_db(0.999, Radio()) == path_loss_db(1.0, Radio()) == 40


def test_noise_and_snr_by_hand():
    """-174 dBm/Hz over 1 MHz is -114 dBm, a 7 dB noise figure makes -107; 10 dBm - 70 dB is -60 dBm."""
    assert noise_dbm(Radio()) == pytest.approx(-107)
    assert mean_snr_db(10, Radio(), seed=1, pair=(0, 1)) == pytest.approx(47)
    narrow = Radio(bandwidth_hz=1e3, noise_figure_db=3, tx_power_dbm=-20)
    assert noise_dbm(narrow) == pytest.approx(-141)
    assert mean_snr_db(100, narrow, seed=1, pair=(0, 1)) == pytest.approx(-20 - 100 + 141)


@pytest.mark.parametrize("modulation", BITS)
def test_bit_rate_is_bandwidth_times_bits_per_symbol(modulation):
    assert bit_rate_bps(Radio(modulation=modulation, bandwidth_hz=5e5)) == 5e5 * BITS[modulation]


def test_shadowing_is_reciprocal_seeded_and_log_normal():
    clear, shadowed = Radio(), Radio(shadowing_std_db=6)

    def draw_db(pair, seed=1):
        return mean_snr_db(10, shadowed, seed=seed, pair=pair) - mean_snr_db(10, clear, seed=seed, pair=pair)

    assert draw_db((3, 5)) == draw_db((5, 3)) != draw_db((3, 6))
    assert draw_db((3, 5)) != draw_db((3, 5), seed=2)
    draws_db = np.array([draw_db((a, b)) for a in range(45) for b in range(a)])
    n = len(draws_db)
    assert abs(draws_db.mean()) < norm.isf(0.005) * 6 / math.sqrt(n)
    assert chi2.ppf(0.005, n) < np.sum((draws_db / 6) ** 2) < chi2.isf(0.005, n)
    assert kstest(draws_db / 6, "norm").pvalue > 0.01


def gains(num_packets=100, *, pair=(2, 7), seed=1, round_=0, **radio):
    return fading_gains(Radio(**radio), seed=seed, round_=round_, pair=pair, num_packets=num_packets)


def test_no_fading_is_unit_gain():
    assert np.array_equal(gains(fading="none"), np.ones(100))


@pytest.mark.parametrize("coherence_packets", [0, 1, 7, 100, 1000])
def test_gains_are_the_same_at_both_ends(coherence_packets):
    both = [gains(pair=pair, coherence_packets=coherence_packets) for pair in ((2, 7), (7, 2))]
    assert np.array_equal(*both)


@pytest.mark.parametrize(
    ("coherence_packets", "num_blocks"), [(0, 1), (1, 100), (7, 15), (100, 1), (1000, 1)]
)
def test_a_gain_lasts_for_one_coherence_block(coherence_packets, num_blocks):
    drawn = gains(coherence_packets=coherence_packets)
    assert drawn.shape == (100,)
    block = np.arange(100) // (coherence_packets or 100)
    assert np.array_equal(
        drawn, drawn[np.searchsorted(block, block)]
    )  # every packet as the first of its block
    assert len(np.unique(drawn)) == num_blocks


def test_gains_change_with_round_pair_and_seed():
    drawn = [gains(), gains(round_=1), gains(pair=(2, 8)), gains(seed=2)]
    assert len({tuple(draw) for draw in drawn}) == 4


def test_a_block_of_packets_keeps_its_gain_in_a_longer_frame():
    """What a shorter frame draws is the beginning of what a longer one draws in the same round."""
    assert np.array_equal(gains(35, coherence_packets=7), gains(100, coherence_packets=7)[:35])


def test_rayleigh_power_is_exponential_with_unit_mean():
    across_rounds = np.array([gains(1, round_=round_)[0] for round_ in range(3000)])
    within_a_frame = gains(20_000, coherence_packets=1)
    for drawn in (across_rounds, within_a_frame):
        assert abs(drawn.mean() - 1) < norm.isf(0.005) / math.sqrt(len(drawn))  # unit variance, too
        assert kstest(drawn, "expon").pvalue > 0.01


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


@pytest.mark.parametrize(("modulation", "snr_db"), AWGN_CELLS)
def test_simulated_symbols_err_as_often_as_the_closed_form_says(modulation, snr_db):
    """Bits to Gray-mapped symbols, noise, nearest symbol, bits; about 400 errors in each cell.

    Bits of a symbol share its noise, so the interval is that of the mean over symbols: 99 % for all
    cells together.
    """
    expected = float(bit_error_probability(modulation, np.array([linear(snr_db)]))[0])
    levels, labels = amplitudes(modulation)
    num_dimensions = 1 if modulation == "bpsk" else 2
    num_symbols = round(400 / expected / BITS[modulation])
    rng = np.random.default_rng(AWGN_CELLS.index((modulation, snr_db)))
    sent = rng.integers(len(levels), size=(num_symbols, num_dimensions))
    noise = math.sqrt(1 / (2 * linear(snr_db))) * rng.standard_normal(sent.shape)
    decided = np.rint((levels[sent] + noise - levels[0]) / (levels[1] - levels[0]))
    decided = np.clip(decided, 0, len(levels) - 1).astype(int)
    errors = np.bitwise_count(labels[sent] ^ labels[decided]).sum(axis=1) / BITS[modulation]
    half_width = norm.isf(0.01 / 2 / len(AWGN_CELLS)) * errors.std() / math.sqrt(num_symbols)
    assert abs(errors.mean() - expected) < half_width


@pytest.mark.parametrize("modulation", BITS)
def test_rayleigh_average_equals_the_integral(modulation):
    for snr_db in (-10, 0, 10, 20, 30, 40, 50):
        snr = linear(snr_db)
        integral = over_rayleigh(lambda gain, snr=snr: enumerated_ber(modulation, gain * snr))
        assert rayleigh_bit_error_probability(modulation, snr) == pytest.approx(integral, rel=1e-6)


@pytest.mark.parametrize("modulation", BITS)
@pytest.mark.parametrize("packet_bits", [128, 4096, 524_288])
def test_packet_loss_without_fading_is_one_minus_all_bits_right(modulation, packet_bits):
    radio = Radio(modulation=modulation, fading="none")
    for snr_db in AWGN_SNRS_DB[modulation]:
        ber = enumerated_ber(modulation, linear(snr_db))
        wanted = 1 - (1 - ber) ** packet_bits
        assert packet_loss_probability(radio, snr_db, packet_bits) == pytest.approx(
            wanted, rel=1e-6, abs=1e-12
        )


@pytest.mark.parametrize("modulation", BITS)
@pytest.mark.parametrize("packet_bits", [128, 4096, 524_288])
@pytest.mark.parametrize("snr_db", [0, 15, 35])
def test_packet_loss_over_rayleigh_fading_equals_the_integral(modulation, packet_bits, snr_db):
    def lost_at(gain):
        return -math.expm1(packet_bits * math.log1p(-enumerated_ber(modulation, gain * linear(snr_db))))

    lost = packet_loss_probability(Radio(modulation=modulation), snr_db, packet_bits)
    assert lost == pytest.approx(over_rayleigh(lost_at), abs=5e-5)


def test_an_ideal_channel_loses_nothing():
    assert packet_loss_probability(Radio(scheme="ideal"), -100, 4096) == 0


@pytest.mark.parametrize("fading", ["none", "rayleigh"])
def test_packet_loss_falls_with_signal_and_grows_with_length(fading):
    radio = Radio(fading=fading)
    by_signal = [packet_loss_probability(radio, snr_db, 4096) for snr_db in range(-10, 30)]
    by_length = [packet_loss_probability(radio, 10, bits) for bits in (64, 512, 4096, 32_768)]
    assert by_signal == sorted(by_signal, reverse=True)
    assert by_length == sorted(by_length)
    assert 0 <= min(by_signal) < 0.02
    assert 0.98 < max(by_signal) <= 1
