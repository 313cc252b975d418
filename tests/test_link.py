"""The link: budgets worked out by hand, and expected losses against integrals over every fade."""

import math

import numpy as np
import pytest
from constellations import AWGN_SNRS_DB, BITS, FADES, averaged, enumerated_ber, faded, linear, name
from scipy.stats import chi2, expon, gamma, kstest, ncx2, norm

from protocol.fading import Fading, equally_likely_gains
from protocol.link import (
    loss_after_attempts,
    mean_attempts,
    mean_packet_loss,
    mean_snr_db,
    noise_dbm,
    packet_loss_probability,
    path_loss_db,
    shadowing_db,
)
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Analog, Radio

SLICES_ERROR = 5e-5
"""What a mean over 20,000 equally likely gains may miss of a loss that falls from 1 to 0."""


def budget_db(distance_m, radio, *, seed=1, pair=(0, 1)):
    return mean_snr_db(
        distance_m,
        radio,
        radio.bandwidth_hz,
        tx_power_dbm=radio.tx_power_dbm,
        shadowing_db=shadowing_db(radio, seed=seed, pair=pair),
    )


def loss_of(ber, packet_bits):
    return -math.expm1(packet_bits * math.log1p(-ber))


def test_log_distance_by_hand():
    radio = Radio(reference_loss_db=40, path_loss_exponent=3)
    assert path_loss_db(1, radio) == 40
    assert path_loss_db(10, radio) == pytest.approx(70)
    assert path_loss_db(1000, radio) == pytest.approx(130)
    other = Radio(reference_loss_db=30, path_loss_exponent=2)
    assert path_loss_db(50, other) == pytest.approx(63.9794, abs=1e-4)


def test_free_space_by_hand():
    """Friis: 40.05 dB at 1 m and 2.4 GHz; 20 dB for ten times the distance, or the frequency."""
    radio = Radio(path_loss="free_space")
    assert path_loss_db(1, radio) == pytest.approx(40.05, abs=0.005)
    assert path_loss_db(10, radio) - path_loss_db(1, radio) == pytest.approx(20)
    fast = Radio(path_loss="free_space", carrier_hz=24e9)
    assert path_loss_db(5, fast) - path_loss_db(5, radio) == pytest.approx(20)
    # At 299.792458 MHz a wave is a metre long, and 20 log10(4 pi) = 21.9842 dB.
    assert path_loss_db(1, Radio(path_loss="free_space", carrier_hz=299_792_458.0)) == pytest.approx(
        21.9842, abs=1e-4
    )


def test_3gpp_by_hand():
    radio = Radio(path_loss="3gpp")
    assert path_loss_db(1000, radio) == pytest.approx(128.1)
    assert path_loss_db(100, radio) == pytest.approx(90.5)
    assert path_loss_db(200, radio) == pytest.approx(90.5 + 37.6 * 0.30103, abs=1e-4)


@pytest.mark.parametrize("law", ["log_distance", "free_space", "3gpp"])
def test_path_loss_is_held_below_one_metre(law):
    radio = Radio(path_loss=law)
    assert path_loss_db(0.0, radio) == path_loss_db(0.999, radio) == path_loss_db(1.0, radio)
    assert path_loss_db(1.001, radio) > path_loss_db(1.0, radio)


def test_noise_and_snr_by_hand():
    """-174 dBm/Hz over 1 MHz is -114 dBm, a 7 dB noise figure makes -107; 10 dBm - 70 dB is -60 dBm."""
    assert noise_dbm(Radio(), 1e6) == pytest.approx(-107)
    assert budget_db(10, Radio()) == pytest.approx(47)
    narrow = Radio(bandwidth_hz=1e3, noise_figure_db=3, tx_power_dbm=-20)
    assert noise_dbm(narrow, 1e3) == pytest.approx(-141)
    assert budget_db(100, narrow) == pytest.approx(-20 - 100 + 141)
    assert noise_dbm(Radio(noise_density_dbm_hz=-170), 1e6) == pytest.approx(-103)


def test_noise_is_that_of_the_bandwidth_which_a_link_has():
    """A quarter of the band takes in 6.02 dB less of it."""
    radio = Radio()
    quarter = mean_snr_db(10, radio, radio.bandwidth_hz / 4, tx_power_dbm=radio.tx_power_dbm)
    assert quarter - budget_db(10, radio) == pytest.approx(6.0206, abs=1e-4)


def test_antennas_add_their_gains():
    radio = Radio(tx_antenna_gain_dbi=3, rx_antenna_gain_dbi=-1.5)
    assert budget_db(10, radio) == pytest.approx(47 + 3 - 1.5)


def test_shadowing_is_reciprocal_seeded_and_log_normal():
    clear, shadowed = Radio(), Radio(shadowing_std_db=6)

    def draw_db(pair, seed=1):
        return budget_db(10, shadowed, seed=seed, pair=pair) - budget_db(10, clear, seed=seed, pair=pair)

    assert draw_db((3, 5)) == draw_db((5, 3)) != draw_db((3, 6))
    assert draw_db((3, 5)) != draw_db((3, 5), seed=2)
    draws_db = np.array([draw_db((a, b)) for a in range(45) for b in range(a)])
    n = len(draws_db)
    assert abs(draws_db.mean()) < norm.isf(0.005) * 6 / math.sqrt(n)
    assert chi2.ppf(0.005, n) < np.sum((draws_db / 6) ** 2) < chi2.isf(0.005, n)
    assert kstest(draws_db / 6, "norm").pvalue > 0.01


def test_shadowing_stays_where_it_is_while_a_device_moves():
    shadowed = Radio(shadowing_std_db=6)
    assert budget_db(10, shadowed) - budget_db(20, shadowed) == pytest.approx(30 * math.log10(2))


@pytest.mark.parametrize("modulation", BITS)
@pytest.mark.parametrize("packet_bits", [128, 4096, 524_288])
def test_packet_loss_without_fading_is_one_minus_all_bits_right(modulation, packet_bits):
    radio = Radio(modulation=modulation, fading="none")
    for snr_db in AWGN_SNRS_DB[modulation]:
        wanted = loss_of(enumerated_ber(modulation, linear(snr_db)), packet_bits)
        one = packet_loss_probability(radio, modulation, np.array([linear(snr_db)]), packet_bits)
        assert one.shape == (1,)
        assert one[0] == pytest.approx(wanted, rel=1e-6, abs=1e-12)
        assert mean_packet_loss(radio, snr_db, packet_bits) == pytest.approx(wanted, rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("modulation", BITS)
@pytest.mark.parametrize("packet_bits", [128, 524_288])
@pytest.mark.parametrize("fading", FADES, ids=name)
def test_packet_loss_over_a_fade_equals_the_integral_over_its_density(fading, packet_bits, modulation):
    radio = faded(fading, modulation=modulation)
    for snr_db in (0, 15, 35):

        def lost_at(gain, snr_db=snr_db):
            return loss_of(enumerated_ber(modulation, gain * linear(snr_db)), packet_bits)

        integral = averaged(lost_at, fading)
        assert mean_packet_loss(radio, snr_db, packet_bits) == pytest.approx(integral, abs=SLICES_ERROR)


def test_modulation_is_that_of_the_radio_unless_said_otherwise():
    radio = Radio(modulation="qam64")
    assert mean_packet_loss(radio, 20, 4096) == mean_packet_loss(radio, 20, 4096, modulation="qam64")
    assert mean_packet_loss(radio, 20, 4096, modulation="bpsk") == mean_packet_loss(
        Radio(modulation="bpsk"), 20, 4096
    )


def test_a_code_loses_what_an_uncoded_packet_loses_at_its_equivalent_signal():
    """Rate 1/2 and 5 dB of gain: 3.0103 + 5 dB more."""
    coded = Radio(code_rate=0.5, coding_gain_db=5)
    assert mean_packet_loss(coded, 10, 4096) == pytest.approx(
        mean_packet_loss(Radio(), 10 + 5 + 10 * math.log10(2), 4096), rel=1e-9
    )


@pytest.mark.parametrize("burst_ber", [1e-4, 0.01, 0.5])
@pytest.mark.parametrize("fading", [Fading("none"), *FADES], ids=name)
def test_bursts_lose_their_share_of_packets_as_often_as_their_bit_errors_say(fading, burst_ber):
    """Whether a packet lies in a burst does not hang on its fade; the worse of the two error rates holds."""
    radio = faded(fading, modulation="qpsk", burst_packets=5, burst_share=0.3, burst_ber=burst_ber)

    def lost_at(gain):
        ber = enumerated_ber("qpsk", gain * linear(12))
        return 0.7 * loss_of(ber, 4096) + 0.3 * loss_of(max(ber, burst_ber), 4096)

    wanted = lost_at(1.0) if fading.kind == "none" else averaged(lost_at, fading)
    assert mean_packet_loss(radio, 12, 4096) == pytest.approx(wanted, abs=SLICES_ERROR)


TABLE = PacketErrorTable(
    modulation="qpsk",
    code_rate=0.5,
    packet_bits=4096,
    snr_db=(0.0, 10.0),
    packet_loss=(1.0, 0.01),
    residual_ber=(0.2, 0.1),
    num_packets=(1000, 1000),
)
"""From 0 to 10 dB the loss falls by a factor of ten in 5 dB."""


def test_packet_loss_of_a_table():
    radio = Radio(fading="none", code_rate=0.5, packet_errors="sionna")
    assert mean_packet_loss(radio, 5, 4096, table=TABLE) == pytest.approx(0.1)
    assert mean_packet_loss(radio, -1, 4096, table=TABLE) == 1
    faded_loss = averaged(lambda g: min(1.0, max(0.01, (5 * g) ** -2.0)) if 5 * g > 1 else 1.0, FADES[0])
    rayleigh = radio.model_copy(update={"fading": "rayleigh"})
    # A factor of ten in 5 dB is the square of the signal: (snr)^-2, here at a mean of 5.
    assert mean_packet_loss(rayleigh, 10 * math.log10(5), 4096, table=TABLE) == pytest.approx(
        faded_loss, abs=SLICES_ERROR
    )


@pytest.mark.parametrize("burst_ber", [1e-4, 0.5])
def test_with_a_table_packets_fall_to_the_code_or_to_the_burst(burst_ber):
    """Both are independent chances: in a burst a packet survives if it escapes the one and the other."""
    radio = Radio(
        fading="none",
        code_rate=0.5,
        packet_errors="sionna",
        burst_packets=5,
        burst_share=0.3,
        burst_ber=burst_ber,
    )
    in_burst = 1 - (1 - 0.1) * (1 - burst_ber) ** 4096
    assert mean_packet_loss(radio, 5, 4096, table=TABLE) == pytest.approx(0.7 * 0.1 + 0.3 * in_burst)


def test_an_ideal_channel_loses_nothing():
    assert mean_packet_loss(Radio(scheme="ideal"), -100, 4096) == 0


@pytest.mark.parametrize("threshold", [0.0, 0.01, 0.1, 0.5, 2.0])
def test_an_analog_radio_loses_what_stays_silent(threshold):
    """P(g < threshold), whatever the signal, by the named distributions."""
    k, m = 6, 2
    named = {
        "rayleigh": expon(),
        "rician": ncx2(2, 2 * k, scale=1 / (2 * (k + 1))),
        "nakagami": gamma(m, 0, 1 / m),
    }
    for kind, distribution in named.items():
        radio = Radio(scheme="analog", fading=kind, analog=Analog(gain_threshold=threshold))
        for snr_db in (-30, 50):
            silent = mean_packet_loss(radio, snr_db, 4096)
            assert silent == pytest.approx(distribution.cdf(threshold), abs=SLICES_ERROR)


def test_an_analog_radio_without_fading_is_never_silent():
    radio = Radio(scheme="analog", fading="none", analog=Analog(gain_threshold=1.0))
    assert mean_packet_loss(radio, 10, 4096) == 0


@pytest.mark.parametrize("fading", ["none", "rayleigh", "rician", "nakagami"])
def test_packet_loss_falls_with_signal_and_grows_with_length(fading):
    radio = Radio(fading=fading)
    by_signal = [mean_packet_loss(radio, snr_db, 4096) for snr_db in range(-10, 30)]
    by_length = [mean_packet_loss(radio, 10, bits) for bits in (64, 512, 4096, 32_768)]
    assert by_signal == sorted(by_signal, reverse=True)
    assert by_length == sorted(by_length)
    assert 0 <= min(by_signal) < 0.02
    assert 0.98 < max(by_signal) <= 1


def test_attempts_by_hand():
    """Half of the fades lose every packet, half of them one in five.

    Fresh fades: p = 0.6, so 0.6^3 after three attempts, 1 + 0.6 + 0.36 sent. The same fade: half of the
    packets are sent three times in vain, and (1 + 0.2^3) / 2 = 0.504 stay bad.
    """
    loss = np.array([1.0, 0.2])
    assert [loss_after_attempts(loss, n, fresh=True) for n in range(4)] == pytest.approx(
        [1, 0.6, 0.36, 0.216]
    )
    assert mean_attempts(loss, 3, fresh=True) == pytest.approx(1.96)
    assert [loss_after_attempts(loss, n, fresh=False) for n in range(4)] == pytest.approx(
        [1, 0.6, 0.52, 0.504]
    )
    assert mean_attempts(loss, 3, fresh=False) == pytest.approx(2.12)
    assert mean_attempts(loss, 1, fresh=True) == mean_attempts(loss, 1, fresh=False) == 1


def test_over_rayleigh_outage_the_laws_have_closed_forms():
    """Loss exp(-g) at gain g ~ Exp(1): E[loss^n] = 1 / (n + 1), and (E loss)^n = 2^-n."""
    loss = np.exp(-equally_likely_gains(Fading("rayleigh")))
    for n in (1, 2, 5):
        assert loss_after_attempts(loss, n, fresh=False) == pytest.approx(1 / (n + 1), abs=SLICES_ERROR)
        assert loss_after_attempts(loss, n, fresh=True) == pytest.approx(2.0**-n, abs=SLICES_ERROR)
    assert mean_attempts(loss, 4, fresh=False) == pytest.approx(1 + 1 / 2 + 1 / 3 + 1 / 4, abs=1e-4)
    assert mean_attempts(loss, 4, fresh=True) == pytest.approx(1.875, abs=1e-4)
