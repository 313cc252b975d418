"""The docs against the code: the link budget number by number, and every key with default and range."""

import json
import re
import tomllib
from pathlib import Path
from typing import Literal, get_args, get_origin

import numpy as np
import pytest
from annotated_types import MinLen
from pydantic.fields import FieldInfo
from scipy.optimize import brentq

from protocol.access import NORM_BITS, plan_access
from protocol.air import frame_layout
from protocol.analog import Signal, power_control
from protocol.config import Experiment
from protocol.fading import equally_likely_gains, survival_probability
from protocol.hardware import hardware
from protocol.ledger import Ledger
from protocol.link import (
    loss_after_attempts,
    mean_packet_loss,
    mean_snr_db,
    noise_dbm,
    packet_loss_probability,
    path_loss_db,
)
from protocol.modulation import bit_error_probability, mean_bit_error_probability
from protocol.quantities import PerDevice
from protocol.section import Section

DOCS = Path(__file__).parents[1] / "docs"
PAGES = {path.name: path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("*.md"))}
BUDGET = PAGES["radio.md"].partition("## A link budget by hand")[2].partition("\n## ")[0]

DISTANCE_M = 100
NUM_VALUES = 1000
DEVICES = 3
"""Each of a ring of three hears both others, so they have three colours."""
DEGREE = 2
UNITS = {"": 1, "dB": 1, "dBm": 1, "bit": 1, "%": 1e-2, "ms": 1e-3, "mW": 1e-3, "mJ": 1e-3, "µJ": 1e-6}


def experiment(**radio):
    table = tomllib.loads(BUDGET.partition("```toml")[2].partition("```")[0])
    return Experiment.model_validate(table | {"radio": table["radio"] | radio})


def plan(described):
    layout = frame_layout(described, NUM_VALUES)
    return layout, plan_access(described, layout, num_colours=DEVICES, max_degree=DEGREE)


def budget():
    """Compute every number of the page, in units of SI (dB and dBm as they are)."""
    described = experiment()
    radio = described.radio
    own = hardware(described, 0)
    snr_db = mean_snr_db(DISTANCE_M, radio, radio.bandwidth_hz, tx_power_dbm=own.tx_power_dbm)
    snr = 10 ** (snr_db / 10)
    layout, access = plan(described)
    packet_bits = int(layout.packet_bits[0])

    def loss(snr):
        return packet_loss_probability(radio, "qpsk", np.atleast_1d(snr), packet_bits)

    every_other = brentq(lambda snr: loss(snr)[0] - 0.5, 1, 100)
    faded = loss(snr * equally_likely_gains(radio.fade))
    return {
        "path loss": path_loss_db(DISTANCE_M, radio),
        "noise power": noise_dbm(radio, radio.bandwidth_hz),
        "mean SNR": snr_db,
        "mean SNR, linear": snr,
        "bit-error probability over AWGN": bit_error_probability("qpsk", np.array([snr]))[0],
        "packet loss over AWGN": loss(snr)[0],
        "bit-error probability over Rayleigh fading": mean_bit_error_probability("qpsk", snr, radio.fade),
        "snr at which every other packet is lost": every_other,
        "outage: snr below that": 1 - survival_probability(radio.fade, every_other / snr),
        "packet loss over Rayleigh fading": mean_packet_loss(radio, snr_db, packet_bits),
        "lost after 4 attempts in fresh fades": loss_after_attempts(faded, 4, fresh=True),
        "lost after 4 attempts in the same fade": loss_after_attempts(faded, 4, fresh=False),
        "bits of a frame": layout.packet_bits.sum(),
        "airtime of a frame": access.data_turn_s,
        "airtime of an acknowledgement": access.ack_turn_s,
        "superframe of 3 colours": access.superframe_s,
        "transmit power": own.tx_power_w,
        **first_round(described, access),
        **analog(snr),
    }


def first_round(described, access):
    """Charge device 0 with its first round, as the page goes through it."""
    own = hardware(described, 0)
    whole = Ledger(own)
    whole.compute(described.training.local_rounds * own.local_round_cycles)
    start_s = access.data_start_s(whole.compute_air_s, slot=0, turn=0)
    # Device 0 is the first neighbour of both others; the last slot of acknowledgements is device 2's.
    end_s = access.ack_start_s(start_s + access.data_turn_s, slot=2, turn=0) + access.ack_turn_s
    whole.transmit((1, 2), access.data_turn_s)
    for neighbour in (1, 2):
        whole.receive(neighbour, access.data_turn_s)
        whole.transmit((neighbour,), access.ack_turn_s)
        whole.receive(neighbour, access.ack_turn_s)
    whole.pass_time(end_s)
    frame, ack = Ledger(own), Ledger(own)
    frame.transmit((1, 2), access.data_turn_s)
    frame.receive(1, access.data_turn_s)
    ack.transmit((1,), access.ack_turn_s)
    ack.receive(1, access.ack_turn_s)
    links = whole.links.values()
    return {
        "computing 5 local rounds of 32 samples": whole.compute_air_s,
        "energy of 5 local rounds of 32 samples": whole.compute_j,
        "sending a frame to both neighbours": frame.links[1].tx_j + frame.links[2].tx_j,
        "receiving a frame": frame.links[1].rx_j,
        "sending an acknowledgement": ack.links[1].tx_j,
        "receiving an acknowledgement": ack.links[1].rx_j,
        "start of the first frame of slot 0": start_s,
        "end of device 0's first round": end_s,
        "idling through it": whole.idle_j,
        "joules of device 0 in it": whole.compute_j
        + whole.idle_j
        + sum(link.tx_j + link.rx_j for link in links),
    }


def analog(snr):
    described = experiment(scheme="analog")
    _, access = plan(described)
    threshold = described.radio.analog.gain_threshold
    signal = Signal(s=np.empty(0, np.float32), weight=1 / 3, energy=10.0**2, snr=snr)
    return {
        "analog: a sender is silent": 1 - survival_probability(described.radio.fade, threshold),
        "analog: norms of one sender": access.side_airtime_s(NORM_BITS),
        "analog: turn over the air": access.data_turn_s,
        "analog: superframe of 3 colours": access.superframe_s,
        "analog: noise energy for W = 1/3, norm 10, g = 1": power_control([signal]).noise_energy,
    }


def test_the_link_budget_of_the_page_is_what_the_code_computes():
    computed = budget()
    printed = dict(re.findall(r"^\| (.+?) \| .+ \| (\S+(?: \S+)?) \|$", BUDGET, re.MULTILINE))
    printed.pop("number")
    assert printed.keys() == computed.keys()
    for name, cell in printed.items():
        number, _, unit = cell.partition(" ")
        mantissa, _, exponent = number.partition("e")
        half_a_digit = 0.5 * 10 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
        value = computed[name] / UNITS[unit]
        # A hair more than half a digit, for values that lie in the middle between two.
        assert float(number) == pytest.approx(value, abs=half_a_digit * (1 + 1e-6), rel=0), name


def keys(model=None, prefix=""):
    """Return default and field of every key of an experiment."""
    model, found = model or Experiment(), {}
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if isinstance(value, Section):
            found |= keys(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = (value, field)
    return found


def test_every_key_stands_on_a_page_with_its_default_and_range():
    tables = re.findall(
        r"^\| key \| default .+\n\|[-|]+\n((?:\|.+\n)+)", "".join(PAGES.values()), re.MULTILINE
    )
    rows = re.findall(r"^\| `(.+?)` \| (.*?) ?\| (.+?) \| .+ \|$", "".join(tables), re.MULTILINE)
    expected = keys()
    assert sorted(name for name, _, _ in rows) == sorted(expected)
    for name, default, range_ in rows:
        value, field = expected[name]
        kind = field.annotation
        if get_origin(kind) is Literal:
            assert re.findall(r"`(.+?)`", range_) == list(get_args(kind)), name
            assert default == f"`{value}`", name
        elif isinstance(value, bool):
            assert {default, range_} == {str(value).lower(), "true, false"}, name
        elif isinstance(value, str):
            assert default == value, name
        elif isinstance(value, tuple):
            assert default == json.dumps(value), name
            one, *others = get_args(kind)
            assert range_.partition(": ")[0] == length(field, others), name
            assert interval(range_.partition(": ")[2]) == limits(*number_of(one)), name
        elif kind in (int, float, float | None, PerDevice):
            assert (float(default) if default else None) == value, name
            assert interval(range_) == limits(kind, field.metadata), name
        else:  # a number, or a word
            number, word = get_args(kind)
            assert float(default) == value, name
            range_, _, or_word = range_.rpartition(", or ")
            assert interval(range_) == limits(*number_of(number)), name
            assert or_word == f"`{get_args(get_args(word)[0])[0]}`", name


def interval(cell):
    whole, left, low, high, right = re.fullmatch(r"(whole, )?([\[(])(\S+), (\S+)([\])])", cell).groups()
    return bool(whole), (left == "[", float(low)), (right == "]", float(high))


def length(field, others):
    """Say how long a list may be: `others` are the types behind that of its first element."""
    if others != [...]:
        return f"list of {('one', 'two', 'three')[len(others)]}"
    return "list of one or more" if MinLen(1) in field.metadata else "list"


def number_of(annotated):
    """Take apart the type of a number and its constraints."""
    kind, *metadata = get_args(annotated)
    return kind, [limit for m in metadata for limit in (m.metadata if isinstance(m, FieldInfo) else [m])]


def limits(kind, metadata):
    """Read whole or not, and both ends of what a number may be, off its constraints."""
    whole = kind is int
    infinite = not whole
    low, high = (False, -np.inf), None
    for limit in metadata:
        for name, closed in (("gt", False), ("ge", True)):
            if (bound := getattr(limit, name, None)) is not None:
                low = (closed, float(bound))
        for name, closed in (("lt", False), ("le", True)):
            if (bound := getattr(limit, name, None)) is not None:
                high = (closed, float(bound))
        infinite = infinite and getattr(limit, "allow_inf_nan", True)
    return whole, low, high or (infinite, np.inf)
