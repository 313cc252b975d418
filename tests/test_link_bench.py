"""`hearsay link`: one link measured against a theory built from scratch, by hand where nothing is random."""

import json
import os
import re
import signal
import struct
from dataclasses import replace
from functools import cache
from io import StringIO
from math import log10, sqrt

import numpy as np
import pytest
import typer
from constellations import averaged, enumerated_ber, linear
from matplotlib.figure import Figure
from rich.console import Console
from scipy.stats import binom, binomtest, chi2, norm
from typer.testing import CliRunner

import coordinator.link.sweep
import coordinator.patience
from coordinator.cli import app
from coordinator.link.bench import batches
from coordinator.link.options import KNOBS, LinkOptions, set_up
from coordinator.link.point import LinkPoint, measure_point
from coordinator.link.sweep import measure_sweep
from coordinator.link.table import link_table, sweep_table
from coordinator.link.theory import expect, interval
from coordinator.link.waterfall import draw, draw_ber, draw_energy, draw_packet_loss
from coordinator.patience import Patience
from protocol.errors import BadInput, RunError
from protocol.fading import Fading
from protocol.frame import HEADER_BYTES
from protocol.link import mean_snr_db
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Radio

HEADER_BITS = 8 * HEADER_BYTES


def bench(**options):
    """Set up one bench from options by their Python names; `sets` are overrides."""
    sets, words = options.pop("sets", ()), ("file", "modulation", "fading", "arq")
    texts = {name: options.pop(name) for name in words if name in options}
    numbers = {name.replace("_", "-"): str(value) for name, value in options.items()}
    [curve] = set_up(LinkOptions(overrides=tuple(sets), numbers=numbers, **texts)).curves
    [only] = curve.benches
    return only


def link(*arguments):
    return CliRunner().invoke(app, ["link", *map(str, arguments)])


# measured against theory

SETTINGS = (
    {"modulation": "bpsk", "fading": "none", "snr_db": 5},
    {"modulation": "qam64", "fading": "none", "snr_db": 18, "packet_bytes": 64},
    {"modulation": "qpsk", "fading": "rayleigh", "snr_db": 12},
    {"modulation": "qam16", "fading": "rician:6", "snr_db": 16, "packet_bytes": 64},
    {"modulation": "qam256", "fading": "nakagami:2", "snr_db": 27, "packet_bytes": 64},
    {
        "modulation": "qpsk",
        "fading": "nakagami:0.5",
        "snr_db": 10,
        "sets": ["radio.code_rate=0.5", "radio.coding_gain_db=3"],
    },
)
NUM_PACKETS = 8_000
CELLS = 2 * len(SETTINGS)


def fade_of(settings):
    kind, _, shape = settings["fading"].partition(":")
    return Fading(kind, float(shape or 0))


def mean(of_gain, fade):
    """Take the mean over a fade, by quadrature over its density."""
    return of_gain(1.0) if fade.kind == "none" else averaged(of_gain, fade)


def from_scratch(settings):
    """Return the means of ber(g), ber(g)^2 and loss(g), from a constellation enumerated point by point."""
    packet_bits = 8 * settings.get("packet_bytes", 256)
    snr = linear(settings["snr_db"]) * (linear(3) / 0.5 if "sets" in settings else 1)
    fade = fade_of(settings)

    def ber(gain):
        return enumerated_ber(settings["modulation"], snr * gain)

    return (
        mean(ber, fade),
        mean(lambda gain: ber(gain) ** 2, fade),
        mean(lambda gain: -np.expm1(packet_bits * np.log1p(-ber(gain))), fade),
        packet_bits,
    )


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda s: f"{s['modulation']}-{s['fading']}")
def test_what_is_measured_is_what_a_theory_from_scratch_expects(settings):
    point = measure_point(bench(packets=NUM_PACKETS, **settings))
    ber, ber2, per, packet_bits = from_scratch(settings)
    # Packets meet fades of their own: errors of a packet have mean n ber and variance
    # E[n ber (1 - ber)] + n^2 Var(ber). Their sum over thousands is normal; all settings err often enough.
    variance = packet_bits * (ber - ber2) + packet_bits**2 * (ber2 - ber**2)
    z = norm.ppf(1 - 0.01 / 2 / CELLS)
    assert abs(point.ber - ber) < z * sqrt(variance / NUM_PACKETS) / packet_bits
    low, high = binom.interval(1 - 0.01 / CELLS, NUM_PACKETS, per)
    assert low <= point.per * NUM_PACKETS <= high
    assert point.bit_errors == point.ber * point.bits == round(point.ber * NUM_PACKETS * packet_bits)
    # The library's quadrature is good to 1e-9 of the value, the test's to 1e-8.
    assert point.ber_theory == pytest.approx(ber, rel=1e-7)
    assert point.per_theory == pytest.approx(per, abs=5e-5)  # as mean_packet_loss promises


def test_no_arq_leaves_what_the_first_attempt_lost():
    point = measure_point(bench(packets=500, snr_db=15))
    assert point.per_after_arq == point.per > 0
    assert point.per_after_arq_theory == point.per_theory
    assert point.attempts_mean == point.attempts_mean_theory == 1
    assert point.max_attempts == 1


# the law of ARQ


@cache
def in_one_fade():
    """Frames whose repeats all meet the fade of their first attempt, 250 of them at 10 dB."""
    same = {"coherence_packets": 0, "arq": "selective_repeat", "max_attempts": 3}
    return measure_point(bench(packets=32_000, snr_db=10, **same))


def loss_over_rayleigh(power):
    """E[loss(g)^power] of QPSK in packets of 256 bytes at 10 dB."""
    fade = Fading("rayleigh")
    return averaged(lambda g: (-np.expm1(2048 * np.log1p(-enumerated_ber("qpsk", 10 * g)))) ** power, fade)


def test_repeats_that_meet_fades_of_their_own_lose_p_to_the_n():
    p = loss_over_rayleigh(1)
    point = measure_point(bench(packets=6_000, snr_db=10, arq="selective_repeat", max_attempts=3))
    low, high = binom.interval(0.99, point.packets, p**3)
    assert low <= point.per_after_arq * point.packets <= high
    # 1 + p + p^2 attempts: a packet sent so often has a variance below 1 (between 1 and 3, its largest).
    assert point.attempts_mean == pytest.approx(1 + p + p**2, abs=norm.ppf(0.995) / sqrt(point.packets))
    assert point.per_after_arq_theory == pytest.approx(p**3, abs=1e-4)
    assert point.attempts_mean_theory == pytest.approx(1 + p + p**2, abs=2e-4)


def test_repeats_that_meet_the_same_fade_lose_the_mean_of_p_to_the_n():
    p, p2, p3 = map(loss_over_rayleigh, (1, 2, 3))
    point = in_one_fade()
    num_fades = 250
    # Whatever happens within a fade, the share lost in it lies in [0, 1], attempts lie in [1, 3].
    bound = norm.ppf(0.995) * sqrt(p3 * (1 - p3) / num_fades)
    assert point.per_after_arq == pytest.approx(p3, abs=bound)
    assert abs(p**3 - p3) > bound  # so that the two laws can be told apart
    assert point.attempts_mean == pytest.approx(1 + p + p2, abs=norm.ppf(0.995) / sqrt(num_fades))
    assert point.per_after_arq_theory == pytest.approx(p3, abs=5e-5)
    assert point.attempts_mean_theory == pytest.approx(1 + p + p2, abs=1e-4)


def test_repeats_in_the_same_bad_fade_raise_the_share_of_wrong_bits_on_the_air():
    def attempts(g):
        loss = -np.expm1(2048 * np.log1p(-enumerated_ber("qpsk", 10 * g)))
        return 1 + loss + loss**2

    fade = Fading("rayleigh")
    wrong = averaged(lambda g: attempts(g) * enumerated_ber("qpsk", 10 * g), fade) / averaged(attempts, fade)
    point = in_one_fade()
    assert point.ber_theory == pytest.approx(wrong, rel=1e-3)  # a mean over 20,000 slices
    assert point.ber_theory > 1.2 * measure_point(bench(packets=1, snr_db=10)).ber_theory
    assert point.ber_low < wrong < point.ber_high
    assert point.ber_low > 0.7 * wrong


@pytest.mark.parametrize("coherence", [1, 3, 48, 200])
def test_a_fade_lies_within_one_frame_and_its_repeats_meet_others(coherence):
    """Frames hold whole fades: what is sent again falls into blocks that its frame has not touched."""
    some = bench(packets=5_000, coherence_packets=coherence, arq="selective_repeat")
    assert some.frame_packets % coherence == 0
    assert sum(b.num_frames * b.layout.num_packets for b in batches(some)) == 5_000
    assert expect(some).per_after_arq == pytest.approx(expect(some).per ** 4)


def test_theory_is_silent_where_it_has_no_closed_form():
    doppler = expect(bench(arq="selective_repeat", sets=["radio.doppler_hz=10"]))
    assert doppler.per_after_arq is doppler.attempts_mean is doppler.ber is doppler.per_effect is None
    shorter_than_a_fade = expect(bench(packets=20, coherence_packets=64, arq="selective_repeat"))
    assert shorter_than_a_fade.per_after_arq is shorter_than_a_fade.airtime_s is None
    several_in_a_fade = expect(bench(coherence_packets=4, arq="selective_repeat"))
    assert several_in_a_fade.per_after_arq is not None
    assert several_in_a_fade.airtime_s is None
    point = measure_point(bench(packets=500, arq="selective_repeat", sets=["radio.doppler_hz=10"]))
    assert point.ber_theory is point.ber_low is point.goodput_bps_theory is None
    assert point.per_theory > 0


def test_bursts_flip_half_of_the_bits_of_their_share():
    sets = ["radio.burst_packets=1", "radio.burst_share=0.2"]
    point = measure_point(bench(packets=4_000, fading="none", snr_db=13, arq="selective_repeat", sets=sets))
    ber = enumerated_ber("qpsk", linear(13))
    per = 0.8 * -np.expm1(2048 * np.log1p(-ber)) + 0.2
    assert point.ber_theory == pytest.approx(0.8 * ber + 0.2 * 0.5)
    assert point.per_theory == pytest.approx(per)
    assert point.per_after_arq_theory == pytest.approx(per**4)
    # Bursts of one packet keep apart, so that they vary less than independent ones.
    low, high = binom.interval(0.99, 4_000, per)
    assert low <= point.per * 4_000 <= high
    assert point.ber_low < point.ber_theory < point.ber_high
    assert point.airtime_s_theory is None


def test_a_code_errs_as_its_table_says():
    table = PacketErrorTable(
        modulation="qpsk",
        code_rate=0.5,
        packet_bits=2048,
        snr_db=(0.0, 1.0, 2.0),
        packet_loss=(1.0, 0.25, 0.0),
        residual_ber=(0.1, 0.1, 0.1),
        num_packets=(1000, 1000, 1000),
    )
    coded = bench(packets=4_000, fading="none", snr_db=1, sets=["radio.code_rate=0.5"])
    point = measure_point(coded, table)
    low, high = binom.interval(0.99, 4_000, 0.25)
    assert low <= point.per * 4_000 <= high
    assert point.per_theory == pytest.approx(0.25)
    assert point.ber == pytest.approx(0.1 * point.per, rel=0.01)  # 2 million bits of lost packets
    assert point.ber_theory is point.ber_low is None


# intervals


def test_an_interval_of_independent_trials_is_clopper_and_pearsons():
    for count, total in ((0, 50), (1, 50), (17, 50), (50, 50)):
        exact = binomtest(count, total).proportion_ci(0.99, method="exact")
        assert interval(count, total, 1.0) == pytest.approx((exact.low, exact.high), abs=1e-12)
        assert interval(4 * count, 4 * total, 4.0) == pytest.approx((exact.low, exact.high), abs=1e-12)
    assert interval(3, 50, None) is None


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("per", {"coherence_packets": 0, "snr_db": 12}),
        ("per", {"coherence_packets": 32, "snr_db": 12}),
        ("ber", {"snr_db": 12}),
        (
            "per_after_arq",
            {"coherence_packets": 0, "snr_db": 8, "arq": "selective_repeat", "max_attempts": 2},
        ),
    ],
)
def test_the_design_effect_is_how_much_more_a_share_varies(name, settings):
    """Sixty seeds: squared deviations over the variance that the effect stands for sum to chi-squared.

    Nearly so: shares of 8 frames and more are bounded and not far from normal, and each is within a
    few percent of its variance. 99 % intervals, corrected for four cells.
    """
    some = bench(packets=1024, packet_bytes=64, **settings)
    expected = expect(some)
    share, effect = getattr(expected, name), getattr(expected, f"{name}_effect")
    total = 1024 * (512 if name == "ber" else 1)
    seeds = range(100, 160)
    measured = [getattr(measure_point(with_seed(some, seed)), name) for seed in seeds]
    squares = sum((value - share) ** 2 for value in measured) / (share * (1 - share) * effect / total)
    assert chi2.ppf(0.005 / 4, 60) < squares < chi2.ppf(1 - 0.005 / 4, 60)
    assert effect > 5  # none of this would be seen otherwise


def test_packets_that_share_all_their_fades_are_lost_together():
    """The effect is 1 + (m - 1) rho, rho the correlation of what two packets of a fade come to after ARQ."""

    def moment(power):
        def loss(g):
            return -np.expm1(128 * np.log1p(-enumerated_ber("qpsk", linear(8) * g)))

        return averaged(lambda g: loss(g) ** power, Fading("rayleigh"))

    small = {"packet_bytes": 16, "snr_db": 8, "arq": "selective_repeat", "max_attempts": 3}
    for coherence, m, lost, both in (
        (0, 128, moment(3), moment(6)),
        (64, 64, moment(1) ** 3, moment(2) ** 3),
    ):
        rho = (both - lost**2) / (lost - lost**2)
        effect = expect(bench(coherence_packets=coherence, **small)).per_after_arq_effect
        assert effect == pytest.approx(1 + (m - 1) * rho, rel=1e-3)  # means over 20,000 slices


def with_seed(some, seed):
    return replace(some, experiment=some.experiment.model_copy(update={"seed": seed}))


# by hand


def test_a_noiseless_link_takes_the_airtime_and_joules_of_its_bits():
    """300 packets of 2048 bits, 63 numbers each, in frames of 128, 128 and 44, at 2 Mbit/s."""
    point = measure_point(bench(packets=300, fading="none", snr_db=100))
    acknowledgements_bits = 3 * HEADER_BITS + 300
    airtime_s = 300 * 2048 / 2e6 + (3 * HEADER_BITS + acknowledgements_bits) / 1e6
    delivered_bits = 300 * 63 * 32
    assert point.bits == 300 * 2048
    assert point.delivered_bits == delivered_bits
    assert point.ber == point.per == point.per_after_arq == 0
    assert point.attempts_mean == 1
    assert point.airtime_s == pytest.approx(airtime_s)
    assert point.goodput_bps == pytest.approx(delivered_bits / airtime_s)
    assert point.joules == pytest.approx((0.01 + 0.05) * airtime_s)  # 10 dBm to send, 50 mW to receive
    assert point.joules_per_bit == pytest.approx(0.06 * airtime_s / delivered_bits)
    for name in ("airtime_s", "goodput_bps", "joules_per_bit"):
        assert getattr(point, f"{name}_theory") == pytest.approx(getattr(point, name))


def test_power_bandwidth_and_code_enter_airtime_and_joules():
    sets = ["radio.code_rate=0.5", "radio.symmetric=false", "device.rx_power_w=0.2"]
    options = {"modulation": "qam16", "tx_power_dbm": 20, "bandwidth_hz": 1e5, "sets": sets}
    point = measure_point(bench(packets=10, fading="none", snr_db=100, **options))
    airtime_s = 10 * 2048 / (4 * 0.5 * 1e5) + HEADER_BITS / 1e5  # nobody acknowledges
    assert point.airtime_s == pytest.approx(airtime_s)
    assert point.joules == pytest.approx((0.1 + 0.2) * airtime_s)
    assert point.joules_per_bit_theory == pytest.approx(point.joules_per_bit)


def test_a_dead_link_repeats_everything_in_vain():
    point = measure_point(
        bench(packets=100, fading="none", snr_db=-60, arq="selective_repeat", max_attempts=3)
    )
    # Headers of three frames, the two repeats say which packets they hold, all three are answered.
    side_bits = 3 * HEADER_BITS + 2 * 100 + 3 * (HEADER_BITS + 100)
    assert point.airtime_s == pytest.approx(3 * 100 * 2048 / 2e6 + side_bits / 1e6)
    assert point.airtime_s_theory == pytest.approx(point.airtime_s)
    assert point.packets_sent == 300
    assert point.bits == 300 * 2048
    assert point.per == point.per_after_arq == point.per_after_arq_high == 1
    assert point.per_after_arq_low == pytest.approx(0.005**0.01)  # Clopper and Pearson's: low^100 = 0.5 %
    assert point.attempts_mean == 3
    assert point.goodput_bps == point.goodput_bps_theory == point.delivered_bits == 0
    assert point.joules_per_bit is point.joules_per_bit_theory is None
    assert point.joules > 0
    assert point.ber == pytest.approx(0.5, abs=0.01)


def test_expected_airtime_counts_the_attempts_of_whole_frames():
    """One frame of 30 packets of 16 bytes: what is around the packets is most of the airtime."""
    options = {"packet_bytes": 16, "snr_db": 15, "arq": "selective_repeat"}
    small = bench(packets=30, **options)
    measured = [measure_point(with_seed(small, seed)).airtime_s for seed in range(100)]
    error = np.std(measured) / sqrt(len(measured))
    assert np.mean(measured) == pytest.approx(expect(small).airtime_s, abs=norm.ppf(0.995) * error)
    shared = bench(packets=30, **(options | {"coherence_packets": 0}))
    measured = [measure_point(with_seed(shared, seed)).airtime_s for seed in range(100)]
    error = np.std(measured) / sqrt(len(measured))
    assert np.mean(measured) == pytest.approx(expect(shared).airtime_s, abs=norm.ppf(0.995) * error)


def test_numbers_of_the_file_s_codec_are_what_is_delivered(tmp_path):
    file = tmp_path / "int8.toml"
    file.write_text(
        'seed = 9\n[codec]\nkind = "int8"\npacket_bytes = 128\n[radio]\nfading = "none"\nsnr_db = 80\n'
    )
    point = measure_point(bench(file=file, packets=10))
    assert point.packet_bytes == 128
    assert point.seed == 9
    assert point.delivered_bits == 10 * 8 * (128 - 8)  # a scale and a CRC of four bytes each


# JSON, files, options

SHARES = ("ber", "per", "per_after_arq")
ASKED_FOR = ("ber_theory", *SHARES, "attempts_mean", "goodput_bps", "airtime_s", "joules_per_bit")


def test_json_is_one_object_of_numbers():
    done = link(
        "--modulation", "qam16", "--fading", "rician:6", "--snr-db", "18", "--packets", "2000", "--json"
    )
    assert done.exit_code == 0, done.stderr
    assert done.stderr == ""
    point = json.loads(done.stdout, parse_constant=pytest.fail)
    assert point.keys() == LinkPoint.model_fields.keys()
    for name in (*ASKED_FOR, "per_theory", "per_after_arq_theory", "attempts_mean_theory"):
        assert isinstance(point[name], float), name
    assert {
        "modulation": "qam16",
        "fading": "rician:6",
        "snr_db": 18,
        "packets": 2000,
    }.items() <= point.items()
    assert point["bits"] == 2000 * 2048
    assert point["per_low"] < point["per"] < point["per_high"]
    again = link(
        "--modulation", "qam16", "--fading", "rician:6", "--snr-db", "18", "--packets", "2000", "--json"
    )
    assert again.stdout == done.stdout


def test_nothing_delivered_is_null_and_not_infinity():
    point = json.loads(
        link("--snr-db", "-90", "--packets", "50", "--json").stdout, parse_constant=pytest.fail
    )
    assert point["joules_per_bit"] is None
    assert point["goodput_bps"] == 0


FILE = """\
seed = 3
[codec]
packet_bytes = 64
[device]
rx_power_w = 1.0
[radio]
modulation = "qam64"
fading = "rician"
rician_k = 2.0
snr_db = 25.0
coherence_packets = 8
arq = "selective_repeat"
max_attempts = 2
bandwidth_hz = 5e5
access = "parallel"
shared_bandwidth = true
"""


def test_a_file_gives_its_radio_and_options_override_it(tmp_path):
    file = tmp_path / "experiment.toml"
    file.write_text(FILE)
    of_file = bench(file=file)
    radio = of_file.experiment.radio
    assert (radio.modulation, radio.fade, radio.snr_db) == ("qam64", Fading("rician", 2.0), 25.0)
    assert (radio.coherence_packets, radio.attempts, of_file.experiment.seed) == (8, 2, 3)
    assert of_file.experiment.codec.packet_bytes == 64
    assert of_file.experiment.device.rx_power_w == 1.0
    [batch, _] = batches(of_file)
    assert batch.access.bandwidth_hz == 5e5  # the link is alone, so it has all of it
    radio = bench(
        file=file, fading="nakagami:3", snr_db=-3.5, arq="none", coherence_packets=0
    ).experiment.radio
    assert (radio.fade, radio.snr_db) == (Fading("nakagami", 3.0), -3.5)
    assert (radio.attempts, radio.coherence_packets) == (1, 0)
    radio = bench(file=file, sets=["radio.snr_db=7"]).experiment.radio
    assert radio.snr_db == 7


def test_defaults_are_those_of_the_help():
    usual = bench()
    assert usual.packets == 20_000
    assert usual.experiment.codec.packet_bytes == 256
    assert usual.experiment.seed == 1
    radio, plain = usual.experiment.radio, Radio()
    assert radio.coherence_packets == 1
    assert (radio.modulation, radio.fading, radio.snr_db, radio.arq) == ("qpsk", "rayleigh", 20.0, "none")
    assert (radio.tx_power_dbm, radio.bandwidth_hz) == (plain.tx_power_dbm, plain.bandwidth_hz) == (10.0, 1e6)
    assert bench(arq="selective_repeat").experiment.radio.max_attempts == 4
    assert bench(sets=["codec.packet_bytes=99"]).experiment.codec.packet_bytes == 99


def test_a_fade_per_round_becomes_one_per_packet_unless_it_was_asked_for(tmp_path):
    file = tmp_path / "experiment.toml"
    file.write_text("[radio]\ncoherence_rounds = 5\n")
    assert bench(file=file).experiment.radio.coherence_packets == 1
    for asked in ({"coherence_packets": 0}, {"sets": ["radio.coherence_packets=0"]}):
        radio = bench(file=file, **asked).experiment.radio
        assert (radio.coherence_packets, radio.coherence_rounds) == (0, 5)


def test_a_distance_gives_the_snr_of_its_link_budget():
    far = bench(
        distance_m=50, tx_power_dbm=3, sets=["radio.shadowing_std_db=8", "radio.path_loss_exponent=2"]
    )
    # 3 dBm - 40 dB - 20 log10(50) dB, over -174 dBm/Hz + 60 dB + 7 dB
    assert far.experiment.radio.snr_db == pytest.approx(3 - 40 - 20 * log10(50) + 174 - 67)
    usual = mean_snr_db(50, Radio(), 1e6, tx_power_dbm=10)
    assert measure_point(bench(distance_m=50, packets=10)).snr_db == pytest.approx(usual)


def test_every_option_tells_its_default_and_numbers_their_unit():
    command = typer.main.get_command(app).commands["link"]
    helps = {option.opts[-1]: option.help for option in command.params}
    for name, text in helps.items():
        if name not in ("--json", "--set", "--help"):
            assert re.search(r"\(default: .+\)", text), name
    for name, knob in KNOBS.items():
        assert not knob.unit or re.search(rf"\b({knob.unit}|metres)\b", helps[f"--{name}"]), name
    assert {f"--{name}" for name in KNOBS} < helps.keys()


# sweeps


def test_a_sweep_has_both_its_ends_and_steps_that_are_exact():
    sweep = set_up(LinkOptions(sweep="snr-db=-0.3:0.3:0.1"))
    assert sweep.values == (-0.3, -0.2, -0.1, 0.0, 0.1, 0.2, 0.3)
    assert [b.experiment.radio.snr_db for b in sweep.curves[0].benches] == list(sweep.values)
    assert set_up(LinkOptions(sweep="snr-db=-5:30:1")).values[-1] == 30
    assert set_up(LinkOptions(sweep="snr-db=4:4:1")).values == (4,)
    whole = set_up(LinkOptions(sweep="packet_bytes=64:256:96"))
    assert whole.values == (64, 160, 256)
    assert [b.experiment.codec.packet_bytes for b in whole.curves[0].benches] == [64, 160, 256]


def test_a_sweep_of_power_at_a_distance_moves_the_snr():
    options = LinkOptions(sweep="tx-power-dbm=0:20:10", numbers={"distance-m": "80"})
    snrs_db = [b.experiment.radio.snr_db for b in set_up(options).curves[0].benches]
    assert np.diff(snrs_db) == pytest.approx([10, 10])


def test_a_sweep_measures_every_curve_and_each_point_is_a_run_of_its_own():
    common = ("--packets", "100", "--json")
    done = link(
        "--sweep", "snr-db=0:20:10", "--modulation", "bpsk,qam16", "--fading", "none,rician:4", *common
    )
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert found.keys() == {"swept", "sweep"}
    assert found["swept"] == "snr-db"
    points = found["sweep"]
    assert [(p["modulation"], p["fading"], p["snr_db"]) for p in points] == [
        (modulation, fading, snr_db)
        for modulation in ("bpsk", "qam16")
        for fading in ("none", "rician:4")
        for snr_db in (0, 10, 20)
    ]
    assert [p["seed"] for p in points[:3]] == [1, 2, 3]
    last = points[-1]
    alone = link("--snr-db", "20", "--modulation", "qam16", "--fading", "rician:4", "--seed", "3", *common)
    assert json.loads(alone.stdout) == last


def test_tables_show_measured_beside_theory():
    sweep = set_up(LinkOptions(sweep="snr-db=0:20:10", fading="none,rayleigh", numbers={"packets": "50"}))
    shown = Console(file=StringIO(), width=200)
    shown.print(sweep_table(sweep, measured := measure_sweep(sweep)))
    text = shown.file.getvalue()
    assert "mean Es/N0 (dB)" in text
    assert "attempts" not in text  # nothing is sent again
    assert f"{measured[1][1].ber:.3g} ({measured[1][1].ber_theory:.3g})" in text
    shown.print(link_table(measured[1][1]))
    lines = shown.file.getvalue().splitlines()
    assert any("energy per delivered bit" in line and " nJ" in line for line in lines)
    assert "theory" in link("--packets", "10").stdout


# the picture


def test_a_sweep_is_drawn_into_a_png(tmp_path):
    picture = tmp_path / "waterfall.png"
    done = link(
        "--sweep", "snr-db=0:20:10", "--packets", "50", "--arq", "selective_repeat", "--plot", picture
    )
    assert done.exit_code == 0, done.stderr
    data = picture.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert min(width, height) > 800
    assert [p.name for p in tmp_path.iterdir()] == ["waterfall.png"]
    assert str(picture) in done.stdout


def drawn(draw_panel, sweep, measured):
    axes = Figure().add_subplot()
    draw_panel(axes, sweep, measured)
    return axes


def test_panels_draw_theory_as_lines_and_measurements_as_marks_with_intervals():
    options = LinkOptions(
        sweep="snr-db=-5:15:10",
        modulation="bpsk,qam16",
        fading="none",
        arq="selective_repeat",
        numbers={"packets": "200"},
    )
    sweep = set_up(options)
    measured = measure_sweep(sweep)
    axes = drawn(draw_ber, sweep, measured)
    theory, marks = axes.lines[:2]
    assert theory.get_ydata() == pytest.approx([p.ber_theory for p in measured[0]])
    seen = [p for p in measured[0] if p.ber]
    assert marks.get_xdata() == pytest.approx([p.snr_db for p in seen])
    assert marks.get_ydata() == pytest.approx([p.ber for p in seen])
    assert len(seen) == 2  # the point at 15 dB has no error, and a log scale no place for it
    bars = [segment[:, 1].tolist() for segment in axes.collections[0].get_segments()]
    assert bars == [[p.ber_low, p.ber_high] for p in seen]
    assert axes.get_yscale() == "log"
    axes = drawn(draw_packet_loss, sweep, measured)
    assert len(axes.lines) == 2 * 4  # before and after ARQ, for each of two curves
    hollow = axes.lines[3]
    assert hollow.get_markerfacecolor() == "white"
    assert hollow.get_ydata() == pytest.approx([p.per_after_arq for p in measured[0] if p.per_after_arq])


def test_where_nothing_arrives_no_energy_is_drawn():
    sweep = set_up(LinkOptions(sweep="snr-db=-30:-20:10", numbers={"packets": "20"}))
    axes = drawn(draw_energy, sweep, measure_sweep(sweep))
    assert [text.get_text() for text in axes.texts] == ["nothing arrived"]


def test_an_interrupt_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    picture = tmp_path / "waterfall.png"
    picture.write_bytes(b"precious")
    measure, calls = coordinator.link.sweep.measure_point, []

    def interrupted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return measure(*arguments, **options)

    monkeypatch.setattr(coordinator.link.sweep, "measure_point", interrupted)
    done = link("--sweep", "snr-db=0:20:1", "--packets", "50", "--plot", picture, "--json")
    assert done.exit_code == 128 + signal.SIGINT
    assert done.stdout == ""
    assert done.stderr == "hearsay: interrupted; nothing was written\n"
    assert len(calls) == 2
    assert picture.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["waterfall.png"]


def test_a_drawing_that_breaks_off_leaves_the_old_picture_and_nothing_else(tmp_path, monkeypatch):
    picture = tmp_path / "waterfall.png"
    picture.write_bytes(b"precious")

    def half(_, path, **options):
        path.write_bytes(b"\x89PNG")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", half)
    sweep = set_up(LinkOptions(sweep="snr-db=0:10:10", numbers={"packets": "5"}))
    with pytest.raises(RunError, match="no space"):
        draw(sweep, measure_sweep(sweep), picture)
    assert picture.read_bytes() == b"precious"
    assert [p.name for p in tmp_path.iterdir()] == ["waterfall.png"]


# progress


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_is_shown_of_long_work_only(terminal, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(coordinator.patience, "monotonic", lambda: clock[0])
    console = Console(file=StringIO(), force_terminal=terminal, width=100)
    with Patience(console, "sending packets", 200) as patience:
        clock[0] = 1.9
        patience.advance(50)
        assert console.file.getvalue() == ""
        clock[0] = 2.1
        patience.advance(50)
        shown = console.file.getvalue()
        assert "sending packets" in shown
        assert "50%" in shown
        clock[0] = 14.0
        patience.advance(50)
        assert "75%" in console.file.getvalue()


# bad input

SWEEP = "snr-db=0:10:5"
BAD = {
    "unknown modulation": (["--modulation", "qam15"], "did you mean 'qam16'?"),
    "several modulations at one point": (["--modulation", "bpsk,qpsk"], "add --sweep"),
    "a modulation twice": (["--modulation", "bpsk,bpsk", "--sweep", SWEEP], "names each once"),
    "an empty name": (["--modulation", "bpsk,", "--sweep", SWEEP], "no such thing"),
    "unknown fading": (["--fading", "ricean:6"], "did you mean 'rician'?"),
    "rician without K": (["--fading", "rician"], "expected rician:K, as in rician:6"),
    "negative K": (["--fading", "rician:-1"], ">= 0"),
    "K that is no number": (["--fading", "rician:six"], "expected rician:K"),
    "K that is not a number": (["--fading", "rician:nan"], ">= 0"),
    "nakagami below a half": (["--fading", "nakagami:0.4"], ">= 0.5"),
    "a shape that there is not": (["--fading", "rayleigh:2"], "has no shape"),
    "unknown ARQ": (["--arq", "selective"], "did you mean 'selective_repeat'?"),
    "attempts without ARQ": (["--max-attempts", "3"], "without --arq selective_repeat"),
    "no packets": (["--packets", "0"], "--packets 0: must be >= 1"),
    "half a packet": (["--packets", "1.5"], "expected a whole number"),
    "a word": (["--snr-db", "high"], "--snr-db high: expected a number"),
    "not finite": (["--snr-db", "nan"], "expected a finite number"),
    "out of range": (["--tx-power-dbm", "99"], "must be >= -60 and <= 60 dBm"),
    "packets too small": (["--packet-bytes", "8"], "must be >= 16"),
    "a fade too long": (["--coherence-packets", "1000000", "--packets", "1000000"], "at most 67,108,864 fit"),
    "negative seed": (["--seed", "-1"], "seed = -1"),
    "SNR and distance": (["--snr-db", "1", "--distance-m", "1"], "leave out --snr-db"),
    "SNR swept at a distance": (["--sweep", SWEEP, "--distance-m", "1"], "leave out --snr-db"),
    "no distance": (["--distance-m", "0"], "must be > 0"),
    "a sweep of nothing": (["--sweep", "snr-db"], "expected NAME=FIRST:LAST:STEP"),
    "a sweep without step": (["--sweep", "snr-db=1:2.5"], "needs a step"),
    "a sweep of words": (["--sweep", "snr-db=a:b:c"], "expected a number"),
    "a sweep of no option": (["--sweep", "snr=0:1:1"], "did you mean 'snr-db'?"),
    "a sweep without end": (["--sweep", "snr-db=0:inf:1"], "expected a finite number"),
    "a sweep of no steps": (["--sweep", "snr-db=0:1:0"], "STEP > 0"),
    "a sweep downwards": (["--sweep", "snr-db=1:0:1"], "FIRST <= LAST"),
    "a sweep that misses its end": (["--sweep", "snr-db=-5:30:2"], "come to 29, not to 30"),
    "a sweep too fine": (["--sweep", "snr-db=0:1:1e-9"], "more than 1,000 points"),
    "a sweep of parts of packets": (["--sweep", "packets=1:2:0.5"], "expected a whole number"),
    "a sweep out of range at its end": (
        ["--sweep", "packet-bytes=60000:70000:10000"],
        "packet_bytes = 70000",
    ),
    "an option that is swept": (["--sweep", SWEEP, "--snr-db", "3"], "leave one of them out"),
    "a picture of one point": (["--plot", "x.png"], "add --sweep"),
    "a picture of another kind": (["--sweep", SWEEP, "--plot", "x.pdf"], "end its name in .png"),
    "a picture nowhere": (["--sweep", SWEEP, "--plot", "nowhere/x.png"], "cannot be written"),
    "a picture that is a folder": (["--sweep", SWEEP, "--plot", "folder.png"], "is a folder"),
    "analog": (
        ["--set", "radio.scheme=analog"],
        "radio.scheme = analog: the bench sends the packets of a digital",
    ),
    "ideal": (["--set", "radio.scheme=ideal"], "radio.scheme = ideal"),
    "adaptive": (["--set", "radio.rate=adaptive"], "say which by --modulation"),
    "powers": (
        ["--set", "radio.tx_power_dbm={low=0,high=9}"],
        "two that are alike; say which by --tx-power-dbm",
    ),
    "a misspelt key": (["--set", "radio.tx_powr_dbm=1"], "did you mean 'tx_power_dbm'?"),
    "no file": (["none.toml"], "none.toml: cannot be read"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line_before_anything_is_measured(fault, tmp_path, monkeypatch):
    arguments, what = BAD[fault]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(coordinator.link.sweep, "measure_sweep", lambda *_, **__: pytest.fail("measured"))
    done = link(*arguments)
    assert done.exit_code == 2, done.output
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("hearsay: ")
    assert what in done.stderr
    assert os.devnull not in done.stderr  # from which the defaults are read where there is no file
    assert [p.name for p in tmp_path.iterdir()] == ["folder.png"]


def test_of_unlike_devices_the_power_can_be_said_and_what_computes_does_not_matter():
    unlike = [
        "devices=3",
        "radio.tx_power_dbm=[0, 10, 20]",
        "device.cpu_hz=[1e9, 2e9, 3e9]",
        "budget.joules=[1,2,3]",
    ]
    said = bench(tx_power_dbm=7, sets=[*unlike, "device.rx_power_w=0.125"]).experiment
    assert (said.radio.tx_power_dbm, said.device.rx_power_w) == (7, 0.125)
    [curve] = set_up(LinkOptions(overrides=tuple(unlike), sweep="tx-power-dbm=0:10:5")).curves
    assert [one.experiment.radio.tx_power_dbm for one in curve.benches] == [0, 5, 10]


def test_what_adaptive_rates_would_choose_can_be_said(tmp_path):
    radio = bench(modulation="qam64", sets=["radio.rate=adaptive"]).experiment.radio
    assert (radio.rate, radio.modulation) == ("fixed", "qam64")


def test_too_many_curves_are_refused():
    fadings = ",".join(f"rician:{k}" for k in range(1, 7))
    with pytest.raises(BadInput, match="12 curves, at most 10"):
        set_up(LinkOptions(sweep=SWEEP, modulation="bpsk,qpsk", fading=fadings))
