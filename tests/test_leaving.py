"""Devices whose budgets are at an end: what they say, who waits for them, and what is kept in reserve."""

from dataclasses import replace

import numpy as np
import pytest
from devices import Device, complete, experiment_of
from ether import Ether, Port
from hypothesis import given, settings
from hypothesis import strategies as st
from rehearsal import experiment_of as run_of
from rehearsal import rehearse
from test_inbox import NEIGHBOURS, PARAMETERS_BYTES, ROUND, begin, frame, header, inbox_at

from node.inbox import Frame, Verdict
from protocol.access import Access, plan_access
from protocol.air import frame_layout
from protocol.frame import FLAG_LEAVES, FLAG_VOID, Kind
from protocol.radio import Analog, Radio

BUDGET_J = 0.004
"""Pays for some exchanges of the small experiment, not for six."""
NOTHING = np.zeros(0, dtype=np.uint8)


def gone_on(sender, round_, *, leaves):
    head = header(sender, round_)
    flags = head.flags | (FLAG_LEAVES if leaves else 0)
    return Frame(replace(head, kind=Kind.GONE_ON, flags=flags, modulation=0, payload_bytes=0), NOTHING)


def void(sender, kind):
    head = header(sender, ROUND, kind)
    return Frame(replace(head, flags=head.flags | FLAG_VOID, modulation=0, payload_bytes=0), NOTHING)


def test_who_says_that_it_leaves_is_sent_nothing_from_the_next_round_on():
    inbox = inbox_at(ROUND)
    last = frame(1)
    inbox.feed(Frame(replace(last.header, flags=last.header.flags | FLAG_LEAVES), last.payload))
    assert not inbox.is_dead(1)
    assert inbox.may_come(1, Kind.ACK)  # in this round it still answers
    begin(inbox, ROUND + 1)
    assert inbox.is_dead(1)
    assert not inbox.is_dead(2)
    assert inbox.waiting_for() == [2]


def test_who_has_gone_without_a_word_is_not_waited_for_but_was_sent_to():
    """Or what is sent in a round would depend on whether the farewell came before or after it began."""
    early, late = inbox_at(ROUND - 1), inbox_at(ROUND)
    assert early.feed(gone_on(1, ROUND, leaves=True)) is Verdict.TAKEN
    begin(early, ROUND)
    assert late.feed(gone_on(1, ROUND, leaves=True)) is Verdict.TAKEN
    for inbox in (early, late):
        assert inbox.waiting_for() == [2]
        assert inbox.has_ended(1)
        assert not inbox.is_dead(1)
        assert not inbox.is_behind(ROUND - 1)
        begin(inbox, ROUND + 1)
        assert inbox.is_dead(1)


def test_who_has_only_gone_on_is_past_this_round_and_in_the_next():
    inbox = inbox_at(ROUND)
    inbox.feed(gone_on(1, ROUND + 1, leaves=False))
    assert inbox.waiting_for() == [2]
    assert not inbox.has_ended(1)
    begin(inbox, ROUND + 1)
    assert inbox.waiting_for() == [1, 2]


def test_a_farewell_with_a_payload_or_of_a_stranger_is_refused():
    inbox, good = inbox_at(ROUND), gone_on(1, ROUND, leaves=True)
    assert inbox.feed(Frame(good.header, np.zeros(1, dtype=np.uint8))) is Verdict.SHAPE
    assert inbox.feed(gone_on(9, ROUND, leaves=True)) is Verdict.STRANGER
    assert inbox.waiting_for() == sorted(NEIGHBOURS)


@pytest.mark.parametrize("kind", [Kind.PARAMETERS, Kind.ACK])
def test_what_was_kept_back_is_not_waited_for(kind):
    inbox, other = inbox_at(ROUND), Kind.ACK if kind is Kind.PARAMETERS else Kind.PARAMETERS
    full = Frame(void(1, kind).header, np.zeros(PARAMETERS_BYTES, dtype=np.uint8))
    assert inbox.feed(full) is Verdict.SHAPE
    assert inbox.feed(void(1, kind)) is Verdict.TAKEN
    assert inbox.get(1, kind).is_void
    assert not inbox.may_come(1, kind)
    assert inbox.may_come(1, other)


def test_leaving_is_told_one_round_ahead_and_costs_nobody_anything_afterwards():
    """Unicast, so that it shows who is sent to: nothing goes to device 1 once it has left."""
    experiment = run_of(
        rounds=6,
        graph={"kind": "complete"},
        radio={"cast": "unicast", "fading": "none", "tx_power_dbm": 20},
        device={"idle_power_w": 0, "cycles_per_sample": 1e4},
        training={"local_rounds": 1},
        budget={"joules": [9, BUDGET_J, 9, 9]},
    )
    it = rehearse(experiment)
    last = it.rounds(1) - 1
    assert 0 < last < 5
    assert [it.rounds(device) for device in (0, 2, 3)] == [6, 6, 6]
    assert it.done[1].why_early.startswith(f"of its {BUDGET_J:g} J ")
    heads = [head for _, head, _ in it.said[1]]
    told = {head.round for head in heads if head.flags & FLAG_LEAVES and head.kind is not Kind.GONE_ON}
    assert told == {last}
    assert [(head.kind, head.round) for head in heads[-3:]] == [(Kind.GONE_ON, last + 1)] * 3
    for device in (0, 2, 3):
        for report in it.reports[device]:
            heard = report.heard[1]
            gone = report.round > last
            assert heard.missing == ("dead" if gone else "")
            assert (heard.packets_sent, heard.tx_j, heard.rx_j) == (0, 0, 0) or not gone
        assert not any(to == 1 and head.round > last for to, head, _ in it.said[device])


def test_all_leave_and_the_last_round_is_none_to_leave_before():
    poor = {
        "radio": {"fading": "none", "tx_power_dbm": 20},
        "training": {"local_rounds": 1},
        "device": {"cycles_per_sample": 1e4},
    }
    it = rehearse(run_of(**poor, rounds=20, budget={"joules": BUDGET_J}))
    assert {done.rounds for done in it.done.values()} == {it.rounds(0)}
    assert 0 < it.rounds(0) < 20
    assert all(done.why_early for done in it.done.values())
    ends = rehearse(run_of(**poor, rounds=it.rounds(0), budget={"joules": BUDGET_J}))
    assert not any(done.why_early for done in ends.done.values())


def test_a_tree_goes_on_without_those_who_left():
    it = rehearse(
        run_of(
            rounds=9,
            graph={"kind": "complete"},
            aggregation={"scheme": "tree", "epoch_rounds": 3},
            radio={"fading": "none", "tx_power_dbm": 20},
            training={"local_rounds": 2},
            device={"cycles_per_sample": 1e4},
            budget={"joules": [9, 9, BUDGET_J, 9]},
        )
    )
    assert it.rounds(2) in (3, 6)  # it does not leave amid a schedule
    assert it.done[2].why_early
    epochs = {event.round: event.parents for event in it.scheduled}
    assert sorted(epochs) == [0, 3, 6]
    for round_, parents in epochs.items():
        assert (parents[2] == -2) == (round_ >= it.rounds(2))
    for device in (0, 1, 3):
        assert not any(report.averaged.broken for report in it.reports[device])
        last = it.reports[device][-1].averaged
        assert last.contributors_min == 3


RESERVES = {
    "broadcast": Radio(fading="none"),
    "unicast": Radio(fading="none", cast="unicast"),
    "parallel": Radio(fading="none", cast="unicast", access="parallel"),
    "repeats": Radio(fading="rayleigh", arq="selective_repeat"),
    "analog": Radio(scheme="analog"),
    "orthogonal": Radio(scheme="analog", analog=Analog(superposition="orthogonal")),
    "differences": Radio(
        scheme="analog",
        analog=Analog(superposition="orthogonal", payload="differences", refresh_rounds=2),
    ),
}


@pytest.mark.parametrize("sweeps", [1, 3])
@pytest.mark.parametrize("name", RESERVES)
def test_no_exchange_costs_more_than_is_reserved_for_it(name, sweeps):
    experiment = experiment_of(RESERVES[name], devices=5, sweeps=sweeps)
    ether, weights = Ether(5), complete(5)
    devices = [Device(experiment, weights, n, Port(ether, n), snr_db=lambda a, b: 14.0) for n in range(5)]
    pasts = ether.run({n: lambda device=device: device.live(range(6)) for n, device in enumerate(devices)})
    for number, device in enumerate(devices):
        at_most_j = device.exchanges.at_most_j
        spent_j = [sum(h.tx_j + h.rx_j for h in heard.values()) for heard in pasts[number].heard]
        assert max(spent_j) <= at_most_j * (1 + 1e-12)
        if name in ("broadcast", "unicast", "parallel"):  # without repeats there is nothing to spare
            assert spent_j == pytest.approx([at_most_j] * 6)
        else:
            assert max(spent_j) > at_most_j / 20


GRIDS = st.tuples(st.sampled_from(["tdma", "parallel"]), st.integers(1, 6), st.integers(1, 5))


@settings(derandomize=True, deadline=None)
@given(grid=GRIDS, ready_s=st.floats(0, 100), data=st.data())
def test_every_answer_is_through_when_all_are_said_to_be(grid, ready_s, data):
    access_kind, colours, degree = grid
    experiment = experiment_of(Radio(access=access_kind, cast="unicast"))
    layout = frame_layout(experiment, 300)
    access: Access = plan_access(experiment, layout, num_colours=colours, max_degree=degree)
    slot, other = (data.draw(st.integers(0, colours - 1)) for _ in range(2))
    turn, ack_turn = (data.draw(st.integers(0, degree - 1)) for _ in range(2))
    end_s = access.data_start_s(ready_s, slot, turn) + access.data_turn_s * data.draw(st.floats(0.1, 1))
    through_s = access.ack_start_s(end_s, other, ack_turn) + access.ack_turn_s
    assert through_s <= access.answered_s(end_s) * (1 + 1e-12)
    assert access.answered_s(end_s) <= end_s + access.attempt_s * (1 + 1e-9)


def test_nobody_waits_for_who_was_done_when_a_schedule_broke_in_the_last_round():
    """The root has time for some of its children, one after the other, and the others turn to gossip."""
    common = {
        "rounds": 2,
        "radio": {"cast": "unicast", "fading": "none"},
        "aggregation": {"scheme": "tree", "chunks": 1},
        "graph": {"kind": "complete"},
    }
    free = run_of(**common)
    whole = rehearse(free)
    root = whole.scheduled[0].parents.index(-1)
    limits_s = [1e9] * 4
    limits_s[root] = 0.995 * whole.air_s(root)
    it = rehearse(run_of(**common, budget={"seconds": limits_s}))
    others = [it.reports[device][-1].averaged.broken for device in range(4) if device != root]
    assert sorted(others) == [False, True, True]
    assert [it.rounds(device) for device in range(4)] == [2, 2, 2, 2]
    assert it.wall_s < free.runtime.liveness_wall_s
