"""Packet-error tables: what lies between their points, and what Sionna puts there."""

import json
import math
import os
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from itertools import pairwise
from typing import ClassVar

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.stats import binom, norm

import node.phy
from node.__main__ import main
from node.phy import Blocks, CodedLink, cut, packet_error_table, simulate, uncoded_bit_error_rate
from protocol.errors import BadInput
from protocol.modulation import bit_error_probability
from protocol.packet_errors import PacketErrorTable, packet_loss, residual_ber

needs_sionna = pytest.mark.skipif(
    find_spec("sionna") is None, reason="Sionna is not installed; it comes with the extra phy"
)
TABLE = PacketErrorTable(
    modulation="qpsk",
    code_rate=0.5,
    packet_bits=4096,
    snr_db=(-3.0, 1.0, 1.5, 2.0),
    packet_loss=(1.0, 1.0, 0.01, 0.0),
    residual_ber=(0.3, 0.1, 0.02, 0.02),
    num_packets=(10, 100, 1000, 2000),
)
# Es/N0 [dB] at which the uncoded bit-error rate is about 0.1, 0.01 and 0.001.
SNRS_DB = {
    "bpsk": (-0.8, 4.3, 6.8),
    "qpsk": (2.2, 7.3, 9.8),
    "qam16": (7.4, 13.9, 16.5),
    "qam64": (12.3, 19.6, 22.6),
    "qam256": (16.9, 25.2, 28.4),
}
SMALL = 'devices = 3\n[codec]\npacket_bytes = 16\n[radio]\npacket_errors = "sionna"\ncode_rate = 0.5\n'


def changed(**fields):
    return PacketErrorTable.model_validate(TABLE.model_dump() | fields)


# --- between the points


def test_points_of_the_grid_are_met():
    assert packet_loss(TABLE, np.array(TABLE.snr_db)) == pytest.approx(TABLE.packet_loss)


def test_the_logarithm_of_the_loss_is_linear_in_db():
    """Half way from 1 to 0.01 it is 0.1; from there on it aims at half a packet in 2000."""
    assert packet_loss(TABLE, np.array([1.25, 1.125])) == pytest.approx([0.1, 0.01**0.25])
    assert packet_loss(TABLE, np.array(1.75)) == pytest.approx(math.sqrt(0.01 * 0.5 / 2000))


def test_beyond_the_grid_all_is_lost_or_none():
    assert packet_loss(TABLE, np.array([[-math.inf, -3.1], [2.0, math.inf]])).tolist() == [[1, 1], [0, 0]]


def test_below_the_grid_all_is_lost_even_if_the_first_point_says_less():
    assert packet_loss(changed(packet_loss=(0.9, 0.8, 0.01, 0.0)), np.array([-3.1, -3.0])).tolist() == [
        1,
        0.9,
    ]


def test_a_table_that_ends_too_early_keeps_its_last_loss():
    assert packet_loss(changed(packet_loss=(1.0, 1.0, 0.2, 0.1)), np.array([2.0, 99.0])) == pytest.approx(0.1)


def test_the_loss_never_rises_with_the_snr():
    """Not even where a point of few packets resolves less than those before it."""
    coarse = changed(packet_loss=(1.0, 0.1, 0.001, 0.0), num_packets=(10, 100, 1000, 10))
    losses = packet_loss(coarse, np.linspace(-5, 4, 1001))
    assert np.all(np.diff(losses) <= 0)
    assert losses[0] == 1
    assert losses[-1] == 0


def test_the_residual_error_rate_is_linear_in_db_and_held_at_both_ends():
    assert residual_ber(TABLE, np.array([-9.0, -1.0, 1.25, 9.0])) == pytest.approx([0.3, 0.2, 0.06, 0.02])


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"snr_db": (-3.0, 1.0, 1.0, 2.0)}, "must rise"),
        ({"snr_db": (-3.0, 1.0, 1.5, math.inf)}, "finite"),
        ({"snr_db": (), "packet_loss": (), "residual_ber": (), "num_packets": ()}, "at least 1 item"),
        ({"packet_loss": (1.0, 0.9, 0.95, 0.0)}, "must not rise"),
        ({"packet_loss": (1.1, 1.0, 0.5, 0.0)}, "less than or equal to 1"),
        ({"packet_loss": (1.0, 0.5, 0.1, -0.1)}, "greater than or equal to 0"),
        ({"packet_loss": (1.0, 0.5, 0.0)}, "one entry for each of the 4 points"),
        ({"residual_ber": (0.3, 0.1, 0.02)}, "residual_ber: needs one entry"),
        ({"residual_ber": (0.3, 0.1, 0.02, 0.0)}, "greater than 0"),
        ({"num_packets": (10, 100, 1000)}, "num_packets: needs one entry"),
        ({"num_packets": (10, 100, 1000, 0)}, "greater than 0"),
        ({"code_rate": 1.5}, "less than or equal to 1"),
        ({"packet_bits": 0}, "greater than 0"),
        ({"modulation": "qam1024"}, "qam256"),
    ],
)
def test_what_is_no_curve_is_refused(fields, fault):
    with pytest.raises(ValidationError, match=fault):
        changed(**fields)


# --- how packets are cut, and which points are simulated


@pytest.mark.parametrize(
    ("code_rate", "packet_bits", "expected"),
    [
        (0.5, 4096, Blocks(1, 4096, 8192, "bg1")),
        (0.5, 3824, Blocks(1, 3824, 7648, "bg2")),
        (0.5, 3832, Blocks(1, 3832, 7664, "bg1")),
        (0.5, 8448, Blocks(1, 8448, 16896, "bg1")),
        (0.5, 8449, Blocks(2, 4225, 8450, "bg1")),
        (0.75, 3000, Blocks(1, 3000, 4000, "bg1")),
        (0.9, 288, Blocks(1, 288, 320, "bg2")),
        (0.25, 4096, Blocks(2, 2048, 8192, "bg2")),
        (0.2, 129, Blocks(1, 129, 644, "bg2")),
    ],
)
def test_blocks_by_hand(code_rate, packet_bits, expected):
    """Two bits to a symbol. The last one would have 645 coded bits; 646 would be a rate below 1/5."""
    assert cut("qpsk", code_rate, packet_bits) == expected


def test_blocks_end_with_a_whole_symbol():
    assert cut("qam64", 0.5, 4096).coded_bits == 8196
    assert cut("qam256", 0.8, 4096).coded_bits == 5120


@pytest.mark.parametrize("code_rate", [0.19, 0.93, 1.0])
def test_a_rate_that_no_code_has_is_refused_in_one_line(code_rate):
    with pytest.raises(BadInput, match=r"^radio.code_rate = .*: 5G LDPC codes have rates from 0.2 to 0.926$"):
        packet_error_table("qpsk", code_rate, 4096, 0)


THRESHOLDS_DB = 3 + np.arange(1000) * 37 % 100 / 100
"""From where on each packet arrives over a staircase: the loss falls evenly from 1 at 3 dB to 0 at 4 dB."""


class Staircase:
    """Packets arrive from their thresholds on; below, they have one, two or three wrong bits."""

    calls: ClassVar = []

    def __init__(self, modulation, blocks):
        pass

    def send(self, snr_db, undecided):
        self.calls.append((snr_db, int(undecided.count_nonzero())))
        lost = undecided & torch.from_numpy(snr_db < THRESHOLDS_DB[: len(undecided)])
        enough = int(torch.searchsorted(lost.cumsum(0), node.phy.ENOUGH_LOST)) + 1
        return (lost * (torch.arange(len(undecided)) % 3 + 1))[:enough]


def sent_until_enough_are_lost(snr_db):
    """Count the packets until a hundred are lost."""
    return int(np.flatnonzero(snr_db < THRESHOLDS_DB)[99]) + 1


@pytest.fixture
def staircase(monkeypatch):
    monkeypatch.setattr(node.phy, "CodedLink", Staircase)
    monkeypatch.setattr(node.phy, "_simulating", nullcontext)
    monkeypatch.setattr(Staircase, "calls", [])
    return Staircase


def test_the_grid_follows_the_loss_from_all_to_none(staircase):
    table = simulate("qpsk", 0.5, 4096, 0)
    below, falling = (-13.25, -5.25, -1.25, 0.75, 1.75), (3.0, 3.25, 3.5, 3.75)
    assert table.snr_db == (*below, 2.75, *falling, 4.0)
    num_sent = [sent_until_enough_are_lost(snr_db) for snr_db in falling]
    assert table.num_packets == (10, 10, 10, 10, 10, 100, *num_sent, 1000)
    assert table.packet_loss == pytest.approx((1, 1, 1, 1, 1, 1, *(100 / num for num in num_sent), 0))
    assert table.packet_loss[6:10] == pytest.approx((0.99, 0.74, 0.49, 0.24), abs=0.02)
    assert table.residual_ber == pytest.approx([2 / 4096] * 11, rel=0.1)


def test_on_the_way_up_only_what_was_lost_or_never_sent_is_decoded(staircase):
    simulate("qpsk", 0.5, 4096, 0)
    undecided = [call for call in staircase.calls if call[1] > 10]
    assert undecided[:3] == [(3.25, 1000), (3.0, 1000), (2.75, 1000)]
    assert undecided[3:] == [
        (snr_db, 1000 - sent_until_enough_are_lost(snr_db - 0.25) + 100) for snr_db in (3.5, 3.75, 4.0)
    ]


def test_long_packets_are_fewer(staircase):
    """65,536 bytes at rate 1/2 are 63 blocks and a little over 2^20 coded bits: 15 fit into 2^24."""
    table = simulate("qpsk", 0.5, 8 * 65536, 0)
    assert max(table.num_packets) == 15
    assert table.num_packets[0] == 1
    assert table.residual_ber[6] == pytest.approx(2 / (8 * 65536), rel=0.1)


def test_a_rough_curve_is_smoothed(staircase, monkeypatch):
    """At 2.75 dB chance has it that fewer are lost than at 3 dB: both get the mean over all their packets."""
    orderly = Staircase.send

    def send(self, snr_db, undecided):
        lucky = snr_db == 2.75 and len(undecided) > 10
        return torch.tensor([1, 1, 1, 0] * 40)[:133] if lucky else orderly(self, snr_db, undecided)

    monkeypatch.setattr(Staircase, "send", send)
    table = simulate("qpsk", 0.5, 4096, 0)
    assert table.snr_db[5:8] == (2.5, 2.75, 3.0)
    assert table.num_packets[5:8] == (100, 133, 102)
    assert table.packet_loss[5:8] == pytest.approx((1, 200 / 235, 200 / 235))


# --- the cache


@pytest.fixture
def simulations(monkeypatch, tmp_path):
    """Give a test a cache of its own, and the parameters of whatever would be simulated."""
    asked = []

    def pretend(*parameters):
        asked.append(parameters)
        return TABLE

    monkeypatch.setenv("HEARSAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(node.phy, "simulate", pretend)
    monkeypatch.setattr(node.phy, "_sionna_version", lambda: "2.2.0")
    return asked


def test_a_table_is_simulated_once(simulations):
    assert packet_error_table("qpsk", 0.5, 4096, 0) == TABLE
    assert packet_error_table("qpsk", 0.5, 4096, 0) == TABLE
    assert simulations == [("qpsk", 0.5, 4096, 0)]


def test_whatever_changes_the_table_has_a_file_of_its_own(simulations, monkeypatch):
    for parameters in [
        ("qpsk", 0.5, 4096, 0),
        ("bpsk", 0.5, 4096, 0),
        ("qpsk", 0.25, 4096, 0),
        ("qpsk", 0.5, 4104, 0),
        ("qpsk", 0.5, 4096, 1),
    ]:
        packet_error_table(*parameters)
    monkeypatch.setattr(node.phy, "_sionna_version", lambda: "2.3.0")
    packet_error_table("qpsk", 0.5, 4096, 0)
    monkeypatch.setattr(node.phy, "_SIMULATION", 2)
    packet_error_table("qpsk", 0.5, 4096, 0)
    assert len(simulations) == 7


@pytest.mark.parametrize("text", ["", "{", "{}", TABLE.model_dump_json()[:-9]])
def test_a_broken_file_is_simulated_anew_and_replaced(simulations, tmp_path, text):
    packet_error_table("qpsk", 0.5, 4096, 0)
    (file,) = (tmp_path / "cache").iterdir()
    file.write_text(text)
    assert packet_error_table("qpsk", 0.5, 4096, 0) == TABLE
    assert packet_error_table("qpsk", 0.5, 4096, 0) == TABLE
    assert len(simulations) == 2
    assert list((tmp_path / "cache").iterdir()) == [file], "and no draft is left over"


def test_where_the_cache_cannot_be_written_the_table_is_there_all_the_same(simulations, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where the folder would be")
    assert packet_error_table("qpsk", 0.5, 4096, 0) == TABLE
    (line,) = capsys.readouterr().err.splitlines()
    assert "not written" in line


# --- the command


@pytest.fixture
def experiment(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return file


def test_without_the_extra_one_line_says_what_to_install(experiment, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sionna", None)
    assert main(["--packet-errors", str(experiment)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "node: radio.packet_errors = sionna: needs the extra phy; install hearsay[phy]\n"


@pytest.mark.parametrize(
    ("rate", "modulations"), [("fixed", ["qpsk"]), ("adaptive", ["bpsk", "qpsk", "qam16", "qam64", "qam256"])]
)
def test_the_tables_of_an_experiment(experiment, simulations, capsys, rate, modulations):
    experiment.write_text(SMALL + f'rate = "{rate}"\n')
    assert main(["--packet-errors", str(experiment)]) == 0
    assert simulations == [(modulation, 0.5, 128, 0) for modulation in modulations]
    tables = [PacketErrorTable.model_validate(table) for table in json.loads(capsys.readouterr().out)]
    assert tables == [TABLE] * len(modulations)


# --- with Sionna


@needs_sionna
@pytest.mark.parametrize("modulation", SNRS_DB)
def test_uncoded_bit_error_rates_agree_with_the_closed_forms(modulation):
    """Within the 99 % interval of the binomial distribution, all fifteen cells together (Bonferroni).

    Bits of one symbol do not err independently; with Gray labels a symbol rarely has two wrong bits where
    it has any, so that the count varies at most about as much as the binomial one.
    """
    num_bits = 240_000
    for seed, snr_db in enumerate(SNRS_DB[modulation]):
        ber = float(bit_error_probability(modulation, np.array(10 ** (snr_db / 10))))
        low, high = binom.interval(1 - 0.01 / 15, num_bits, ber)
        num_wrong = num_bits * uncoded_bit_error_rate(modulation, snr_db, num_bits, seed)
        assert low <= num_wrong <= high, snr_db


@pytest.fixture(scope="module")
def coded():
    """QPSK at rate 1/2 with packets of 32 bytes."""
    return simulate("qpsk", 0.5, 256, 0)


def normal_approximation(snr, num_symbols, num_bits):
    """Least loss of any code of this length over complex AWGN, for snr linear.

    Polyanskiy, Poor and Verdu, "Channel coding rate in the finite blocklength regime", IEEE Trans. Inf.
    Theory 56(5), 2010, eqs. 291 to 293, for two real dimensions per symbol.
    """
    capacity = np.log2(1 + snr)
    dispersion = snr * (snr + 2) / (snr + 1) ** 2 * math.log2(math.e) ** 2
    margin = num_symbols * capacity - num_bits + 0.5 * math.log2(2 * num_symbols)
    return norm.sf(margin / np.sqrt(num_symbols * dispersion))


@needs_sionna
def test_a_coded_table_falls_from_all_to_none(coded):
    assert coded.packet_loss[0] == 1
    assert coded.packet_loss[-1] == 0
    falling = [loss for loss in coded.packet_loss if 0 < loss < 1]
    assert len(falling) >= 4
    assert min(falling) <= 0.01
    assert coded.residual_ber[0] > 0.4, "what comes out of mere noise"
    assert 1 / 256 <= min(coded.residual_ber) < 0.1, "at the end a few bits are wrong"


@needs_sionna
def test_a_coded_table_lies_between_what_no_code_can_and_no_code(coded):
    """At one loss in ten it is at most 1.5 dB from the limit; without a code 9 of 10 are lost at equal Eb/N0.

    The limit is for any constellation, QPSK costs a tenth of a dB more at this rate, and the best short
    codes with practical decoders come as close as half a dB.
    """
    grid_db = np.linspace(-5, 15, 20001)
    reached_db = grid_db[np.argmax(packet_loss(coded, grid_db) <= 0.1)]
    limit_db = grid_db[np.argmax(normal_approximation(10 ** (grid_db / 10), 256, 256) <= 0.1)]
    assert limit_db < reached_db < limit_db + 1.5
    ber = float(bit_error_probability("qpsk", np.array(2 * 10 ** (reached_db / 10))))
    assert 1 - (1 - ber) ** 256 > 0.9


@needs_sionna
def test_a_simulation_leaves_torch_as_it_was():
    num_threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        torch.set_num_threads(3)
        before = torch.get_rng_state()
        uncoded_bit_error_rate("qpsk", 5.0, 1000, 0)
        assert torch.equal(torch.get_rng_state(), before)
        assert torch.get_num_threads() == 3
        assert not torch.is_inference_mode_enabled()
        torch.set_num_threads(num_threads)


def wrong_bits(blocks, snr_db, undecided, *, modulation="qpsk", seed=0):
    link = CodedLink(modulation, blocks)
    with node.phy._simulating(seed):
        return link.send(snr_db, undecided)


@needs_sionna
def test_the_same_seed_loses_the_same_packets_with_any_number_of_processors(monkeypatch):
    """A hundred are lost in the third of eight batches, however many of them are decoded at once."""
    blocks, every = Blocks(1, 256, 512, "bg2"), torch.ones(512, dtype=torch.bool)
    outcomes = []
    for num_processors in (1, 2, 5):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, num=num_processors: set(range(num)))
        outcomes.append(wrong_bits(blocks, 0.75, every).tolist())
    assert outcomes[0] == outcomes[1] == outcomes[2]
    assert len(outcomes[0]) == 3 * 64
    assert outcomes[0] != wrong_bits(blocks, 0.75, every, seed=1).tolist()


@needs_sionna
def test_stopping_early_changes_nothing():
    """Against Sionna's own chain, put together here, that always takes all twenty iterations."""
    from sionna.phy import config
    from sionna.phy.channel import AWGN
    from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
    from sionna.phy.mapping import BinarySource, Demapper, Mapper

    n0 = 10 ** (-6.0 / 10)
    config.seed = 0
    encoder = LDPC5GEncoder(512, 1024, num_bits_per_symbol=4)
    bits = BinarySource()([32, 512])
    received = AWGN()(Mapper("qam", 4)(encoder(bits)), n0)
    decoded = LDPC5GDecoder(encoder, num_iter=20)(Demapper("app", "qam", 4)(received, n0))
    expected = (decoded != bits).sum(dim=1)
    assert 8 < expected.count_nonzero() < 24
    blocks = Blocks(1, 512, 1024, "bg2")
    assert torch.equal(
        wrong_bits(blocks, 6.0, torch.ones(32, dtype=torch.bool), modulation="qam16"), expected
    )


@needs_sionna
def test_a_packet_is_as_wrong_as_all_its_blocks_together():
    every = torch.ones(64, dtype=torch.bool)
    single = wrong_bits(Blocks(1, 128, 256, "bg2"), 1.5, every)
    assert torch.equal(
        wrong_bits(Blocks(2, 128, 256, "bg2"), 1.5, every[:32]), single.reshape(32, 2).sum(dim=1)
    )
    some = every.clone()
    some[::3] = False
    assert torch.equal(wrong_bits(Blocks(1, 128, 256, "bg2"), 1.5, some), single * some)


@needs_sionna
def test_what_arrives_arrives_again_where_the_noise_is_weaker(monkeypatch):
    """What tables build on. Belief propagation does not promise it: one packet in a thousand may differ."""
    monkeypatch.setattr(node.phy, "ENOUGH_LOST", 1001)
    every = torch.ones(1000, dtype=torch.bool)
    lost = [wrong_bits(Blocks(1, 128, 256, "bg2"), snr_db, every) > 0 for snr_db in (0.5, 0.75, 1.0)]
    for weak, strong in pairwise(lost):
        assert (strong & ~weak).sum() <= 1
        assert (weak & ~strong).sum() >= 20


@needs_sionna
def test_two_hundred_and_fifty_six_points_need_more_power_than_two():
    bpsk, qam256 = (
        wrong_bits(cut(m, 0.5, 128), 8.0, torch.ones(64) > 0, modulation=m) for m in ("bpsk", "qam256")
    )
    assert not bpsk.any()
    assert qam256.all()


@needs_sionna
def test_the_command_simulates_once(experiment, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HEARSAY_CACHE", str(tmp_path))
    assert main(["--packet-errors", str(experiment)]) == 0
    first = capsys.readouterr()
    (table,) = json.loads(first.out)
    assert (table["modulation"], table["code_rate"], table["packet_bits"]) == ("qpsk", 0.5, 128)
    assert first.err.count("packets lost\n") >= len(table["snr_db"])
    monkeypatch.setattr(node.phy, "CodedLink", None)
    assert main(["--packet-errors", str(experiment)]) == 0
    assert capsys.readouterr() == (first.out, "")
