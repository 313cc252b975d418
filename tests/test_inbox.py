"""The inbox: which frames count, whom it waits for, and that no order of arrival changes either."""

import weakref
from collections import deque
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.inbox import Expected, Frame, Inbox, Verdict
from protocol.frame import Header, Kind

fixed = settings(derandomize=True, deadline=None)

PARAMETERS_BYTES, ACK_BYTES = 40, 2
BYTES = {Kind.PARAMETERS: PARAMETERS_BYTES, Kind.ACK: ACK_BYTES}
EXPECTED = Expected(run=7, epoch=3, shape=(1, 1, 10, 512), payload_bytes=BYTES)
BOTH = (Kind.PARAMETERS, Kind.ACK)
NEIGHBOURS = {1: 5, 2: 0}
"""Device -> incarnation."""
ROUND = 4


def header(sender=1, round_=ROUND, kind=Kind.PARAMETERS):
    return Header(kind, 7, 3, sender, NEIGHBOURS.get(sender, 0), round_, 0, 1, 1, 10, 512, BYTES[kind], 0.0)


def frame(sender=1, round_=ROUND, kind=Kind.PARAMETERS):
    return Frame(header(sender, round_, kind), np.zeros(BYTES[kind], dtype=np.uint8))


def inbox_at(round_, kinds=BOTH):
    inbox = Inbox(EXPECTED, NEIGHBOURS, kinds)
    inbox.begin(round_)
    return inbox


def feed_round(inbox, device, round_):
    for kind in BOTH:
        inbox.feed(frame(device, round_, kind))


GOOD = header()
REFUSED = [
    (replace(GOOD, round=ROUND - 1), PARAMETERS_BYTES, Verdict.STALE),
    (replace(GOOD, round=ROUND + 2), PARAMETERS_BYTES, Verdict.TOO_EARLY),
    (replace(GOOD, run=8), PARAMETERS_BYTES, Verdict.FOREIGN_RUN),
    (replace(GOOD, epoch=2), PARAMETERS_BYTES, Verdict.FOREIGN_EPOCH),
    (replace(GOOD, sender=9), PARAMETERS_BYTES, Verdict.STRANGER),
    (replace(GOOD, incarnation=4), PARAMETERS_BYTES, Verdict.REBORN),
    (replace(GOOD, incarnation=6), PARAMETERS_BYTES, Verdict.REBORN),
    (replace(GOOD, codec=2), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, flags=0), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, num_values=11), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, packet_bytes=256), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, payload_bytes=39), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, payload_bytes=39), 39, Verdict.SHAPE),
    (GOOD, PARAMETERS_BYTES - 1, Verdict.SHAPE),
    (GOOD, PARAMETERS_BYTES + 1, Verdict.SHAPE),
    (GOOD, 0, Verdict.SHAPE),
    (replace(GOOD, kind=Kind.ACK), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, kind=Kind.ACK, payload_bytes=ACK_BYTES), PARAMETERS_BYTES, Verdict.SHAPE),
]


@pytest.mark.parametrize(("head", "num_bytes", "verdict"), REFUSED)
def test_a_refused_frame_is_counted_and_leaves_no_trace(head, num_bytes, verdict):
    inbox = inbox_at(ROUND)
    assert inbox.feed(Frame(head, np.zeros(num_bytes, dtype=np.uint8))) is verdict
    assert inbox.dropped == {(head.sender, verdict): 1}
    assert all(inbox.get(device, kind) is None for device in NEIGHBOURS for kind in BOTH)
    # Two rounds ahead is the one refusal that says something: that sender is past this round.
    assert inbox.waiting_for() == ([2] if verdict is Verdict.TOO_EARLY else [1, 2])


def test_every_verdict_is_reached():
    inbox = inbox_at(ROUND)
    fed = [inbox.feed(frame()), inbox.feed(frame()), inbox.feed(frame(round_=ROUND + 1))]
    assert fed == [Verdict.TAKEN, Verdict.DUPLICATE, Verdict.EARLY]
    assert set(fed) | {verdict for _, _, verdict in REFUSED} == set(Verdict)


def test_a_taken_frame_is_handed_out_as_it_came():
    inbox, mine = inbox_at(ROUND), frame()
    inbox.feed(mine)
    inbox.feed(frame())  # a duplicate must not take its place
    assert inbox.get(1, Kind.PARAMETERS) is mine
    assert inbox.get(1, Kind.ACK) is None
    assert inbox.get(2, Kind.PARAMETERS) is None


def test_an_early_frame_waits_for_its_round():
    inbox, tomorrow = inbox_at(ROUND), frame(round_=ROUND + 1)
    feed_round(inbox, 1, ROUND)
    assert inbox.feed(tomorrow) is Verdict.EARLY
    assert inbox.get(1, Kind.PARAMETERS) is not tomorrow
    inbox.begin(ROUND + 1)
    assert inbox.get(1, Kind.PARAMETERS) is tomorrow
    assert inbox.feed(frame(round_=ROUND + 1)) is Verdict.DUPLICATE
    assert inbox.may_come(1)  # its acknowledgement is still out
    inbox.feed(frame(round_=ROUND + 1, kind=Kind.ACK))
    assert not inbox.may_come(1)


def test_waits_for_every_kind_of_frame_of_every_neighbour():
    inbox = inbox_at(ROUND)
    assert inbox.waiting_for() == [1, 2]
    inbox.feed(frame(1))
    assert inbox.waiting_for() == [1, 2]
    inbox.feed(frame(1, kind=Kind.ACK))
    assert inbox.waiting_for() == [2]
    feed_round(inbox, 2, ROUND)
    assert inbox.waiting_for() == []
    inbox.begin(ROUND + 1)
    assert inbox.waiting_for() == [1, 2]


def test_without_acknowledgements_waits_for_parameters_alone():
    inbox = inbox_at(ROUND, kinds=(Kind.PARAMETERS,))
    inbox.feed(frame(1))
    assert inbox.waiting_for() == [2]


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_a_neighbour_that_went_on_to_a_later_round_is_not_waited_for(ahead):
    """Its frames come in order: what is missing of this round was lost."""
    inbox = inbox_at(ROUND)
    inbox.feed(frame(1, ROUND))
    inbox.feed(frame(1, ROUND + ahead))
    assert inbox.waiting_for() == [2]
    inbox.begin(ROUND + 1)
    assert inbox.may_come(1) == (ahead == 1)  # but it is, as soon as its own round begins


def test_silence_costs_one_deadline_once_and_is_lifted_when_heard_again():
    inbox = inbox_at(ROUND)
    feed_round(inbox, 2, ROUND)
    assert inbox.silence() == [1]
    assert inbox.waiting_for() == []
    for round_ in range(ROUND + 1, ROUND + 4):
        inbox.begin(round_)
        assert inbox.waiting_for() == [2]
        feed_round(inbox, 2, round_)
        assert inbox.silence() == []
    inbox.begin(ROUND + 4)
    assert inbox.feed(frame(1, ROUND)) is Verdict.STALE
    assert not inbox.may_come(1)  # still behind: it would cost a deadline in every round
    inbox.feed(frame(1, ROUND + 4))
    assert inbox.may_come(1)
    assert inbox.get(1, Kind.PARAMETERS) is not None


def test_an_early_frame_lifts_silence_too():
    inbox = inbox_at(ROUND)
    inbox.silence()
    inbox.feed(frame(1, ROUND + 1))
    inbox.begin(ROUND + 1)
    assert inbox.waiting_for() == [1]


def test_the_dead_are_not_waited_for():
    inbox = inbox_at(ROUND)
    inbox.feed(frame(1))
    inbox.died(1, NEIGHBOURS[1])
    assert inbox.is_dead(1)
    assert not inbox.is_dead(2)
    assert inbox.waiting_for() == [2]
    assert inbox.get(1, Kind.PARAMETERS) is not None  # what it said before still counts
    inbox.begin(ROUND + 1)
    assert inbox.waiting_for() == [2]
    assert inbox.silence() == [2]


@pytest.mark.parametrize(("device", "incarnation"), [(1, 4), (1, 6), (9, 0)])
def test_a_death_of_another_life_or_of_a_stranger_changes_nothing(device, incarnation):
    inbox = inbox_at(ROUND)
    inbox.died(device, incarnation)
    assert inbox.waiting_for() == [1, 2]


def test_memory_holds_two_rounds_of_frames_whatever_arrives():
    inbox, payloads = inbox_at(0), []
    for round_ in range(50):
        inbox.begin(round_)
        for sent in [round_ - 1, round_, round_ + 1, round_ + 2, round_ + 40] * 3:
            for sender in (1, 2, 9):
                for kind in BOTH:
                    arrived = frame(sender, max(0, sent), kind)
                    payloads.append(weakref.ref(arrived.payload))
                    inbox.feed(arrived)
                    del arrived
        assert sum(ref() is not None for ref in payloads) <= 2 * len(BOTH) * len(NEIGHBOURS)
    inbox.begin(52)
    assert not any(ref() is not None for ref in payloads)


# What a neighbour sends: of each round some of its frames (the others were lost), each once or twice.
some_frames = st.lists(
    st.tuples(st.sampled_from([(k,) for k in BOTH] + [BOTH, BOTH]), st.integers(1, 2)), min_size=5, max_size=5
)


def stream_of(device, rounds):
    """Lay out what one neighbour sends, in its order; its last round is complete."""
    sent = [
        frame(device, round_, kind)
        for round_, (kinds, repeats) in enumerate(rounds)
        for kind in kinds
        for _ in range(repeats)
    ]
    return sent + [frame(device, len(rounds), kind) for kind in BOTH]


@fixed
@given(some_frames, some_frames, st.lists(st.booleans(), min_size=48, max_size=48))
def test_what_is_taken_does_not_depend_on_how_streams_interleave(first, second, order):
    """No frame outruns the round by more than one: its sender waits for ours, too."""
    streams = {1: stream_of(1, first), 2: stream_of(2, second)}
    coming = {device: deque(frames) for device, frames in streams.items()}
    turns = iter(order)
    inbox = inbox_at(0)
    for round_ in range(len(first) + 1):
        inbox.begin(round_)
        while inbox.waiting_for():
            ready = [d for d, frames in coming.items() if frames and frames[0].header.round <= round_ + 1]
            inbox.feed(coming[ready[next(turns) % len(ready)]].popleft())
        for device, frames in streams.items():
            for kind in BOTH:
                sent = next((f for f in frames if (f.header.round, f.header.kind) == (round_, kind)), None)
                assert inbox.get(device, kind) is sent


events = st.one_of(
    st.tuples(st.just("feed"), st.sampled_from([1, 2, 9]), st.integers(0, 8), st.sampled_from(BOTH)),
    st.tuples(st.just("begin"), st.integers(0, 2)),
    st.tuples(st.just("silence")),
    st.tuples(st.just("died"), st.sampled_from([1, 2, 9]), st.sampled_from([0, 5])),
)


@fixed
@given(st.lists(events, max_size=40))
def test_whatever_happens_the_dead_and_the_silent_are_not_waited_for(happened):
    inbox, round_, fed, kept = inbox_at(0), 0, 0, 0
    dead, silent = set(), set()
    for event in happened:
        match event:
            case ("feed", sender, frame_round, kind):
                verdict = inbox.feed(frame(sender, frame_round, kind))
                fed += 1
                if verdict in (Verdict.TAKEN, Verdict.EARLY):
                    kept += 1
                    silent.discard(sender)
                    assert (verdict is Verdict.TAKEN) == (frame_round == round_)
                assert (verdict is Verdict.STRANGER) == (sender == 9)
            case ("begin", steps):
                round_ += steps
                inbox.begin(round_)
            case ("silence",):
                waited_for = inbox.waiting_for()
                assert inbox.silence() == waited_for
                silent.update(waited_for)
            case ("died", device, incarnation):
                inbox.died(device, incarnation)
                if NEIGHBOURS.get(device) == incarnation:
                    dead.add(device)
        assert not set(inbox.waiting_for()) & (dead | silent)
        assert {device for device in NEIGHBOURS if inbox.is_dead(device)} == dead
        assert inbox.dropped.total() == fed - kept
        for device in NEIGHBOURS:
            missing = [kind for kind in BOTH if inbox.get(device, kind) is None]
            assert missing or not inbox.may_come(device)


def test_a_device_is_behind_when_a_living_neighbour_is_beyond_its_round():
    inbox = inbox_at(ROUND)
    assert not inbox.is_behind(ROUND)
    inbox.feed(frame(round_=ROUND + 1))
    assert inbox.is_behind(ROUND)
    assert not inbox.is_behind(ROUND + 1)
    assert inbox.died(1, NEIGHBOURS[1])
    assert not inbox.is_behind(ROUND)
