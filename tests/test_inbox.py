"""The inbox: which frames count, whom it waits for, and that no order of arrival changes either."""

import weakref
from collections import deque
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.inbox import ROUNDS_ALONE, SCHEDULED, Expected, Frame, Inbox, Part, Verdict
from protocol.codec import Layout, select
from protocol.frame import FLAG_FINAL, Header, Kind, shape_of

fixed = settings(derandomize=True, deadline=None)

LAYOUT = Layout("float32", 10, 16, checked=True)
"""Four packets: three numbers in each but the last."""
PARAMETERS_BYTES, ACK_BYTES, REPEAT_BYTES = LAYOUT.payload_bytes, 1, 8 + 16 + 8
BYTES = {Kind.PARAMETERS: PARAMETERS_BYTES, Kind.ACK: ACK_BYTES}
MAX_ATTEMPTS = 3
EXPECTED = Expected(
    run=7,
    epoch=3,
    shape=shape_of(LAYOUT),
    sweep=Part(BYTES, LAYOUT),
    modulations=frozenset({2, 3}),
    max_attempts=MAX_ATTEMPTS,
)
BOTH = (Kind.PARAMETERS, Kind.ACK)
FIRST = tuple((kind, 0) for kind in BOTH)
NEIGHBOURS = {1: 5, 2: 0}
"""Device -> incarnation."""
ROUND = 4


def header(sender=1, round_=ROUND, kind=Kind.PARAMETERS, attempt=0, part=0):
    return Header(
        kind=kind,
        run=7,
        epoch=3,
        sender=sender,
        incarnation=NEIGHBOURS.get(sender, 0),
        round=round_,
        part=part,
        attempt=attempt,
        modulation=2 if kind is Kind.PARAMETERS else 0,
        codec=1,
        flags=1,
        num_values=10,
        packet_bytes=16,
        payload_bytes=REPEAT_BYTES if attempt and kind is Kind.PARAMETERS else BYTES[kind],
        air_s=0.0,
    )


def frame(sender=1, round_=ROUND, kind=Kind.PARAMETERS, attempt=0, part=0):
    """Return a frame; a further attempt holds packets 1 and 3."""
    payload = np.zeros(BYTES[kind], dtype=np.uint8)
    if attempt and kind is Kind.PARAMETERS:
        payload = select(payload, LAYOUT, np.array([1, 3]))
    return Frame(header(sender, round_, kind, attempt, part), payload)


def inbox_at(round_, awaited=FIRST, expected=EXPECTED):
    inbox = Inbox(expected, NEIGHBOURS)
    begin(inbox, round_, awaited)
    return inbox


def begin(inbox, round_, awaited=FIRST, sweep=0):
    """Enter a round, or a sweep of it, in which these frames of every neighbour are awaited."""
    inbox.begin(round_, sweep)
    for kind, attempt in awaited:
        inbox.await_(NEIGHBOURS, kind, part=sweep, attempt=attempt)


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
    (replace(GOOD, payload_bytes=55), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, payload_bytes=55), 55, Verdict.SHAPE),
    (GOOD, PARAMETERS_BYTES - 1, Verdict.SHAPE),
    (GOOD, PARAMETERS_BYTES + 1, Verdict.SHAPE),
    (GOOD, 0, Verdict.SHAPE),
    (replace(GOOD, kind=Kind.ACK), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, kind=Kind.ACK, payload_bytes=ACK_BYTES), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, kind=Kind.SCALE), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, flags=9), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, modulation=0), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, modulation=1), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(header(kind=Kind.ACK), modulation=2), ACK_BYTES, Verdict.SHAPE),
    (replace(GOOD, attempt=1), PARAMETERS_BYTES, Verdict.SHAPE),
    (replace(GOOD, part=1), PARAMETERS_BYTES, Verdict.SHAPE),
    (header(kind=Kind.ACK, attempt=MAX_ATTEMPTS), ACK_BYTES, Verdict.SHAPE),
    (header(kind=Kind.ACK, attempt=1), ACK_BYTES + 1, Verdict.SHAPE),
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
    begin(inbox, ROUND + 1)
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
    begin(inbox, ROUND + 1)
    assert inbox.waiting_for() == [1, 2]


def test_without_acknowledgements_waits_for_parameters_alone():
    inbox = inbox_at(ROUND, awaited=[(Kind.PARAMETERS, 0)])
    inbox.feed(frame(1))
    assert inbox.waiting_for() == [2]


@pytest.mark.parametrize("ahead", [1, 2, 9])
def test_a_neighbour_that_went_on_to_a_later_round_is_not_waited_for(ahead):
    """Its frames come in order: what is missing of this round was lost."""
    inbox = inbox_at(ROUND)
    inbox.feed(frame(1, ROUND))
    inbox.feed(frame(1, ROUND + ahead))
    assert inbox.waiting_for() == [2]
    begin(inbox, ROUND + 1)
    assert inbox.may_come(1) == (ahead == 1)  # but it is, as soon as its own round begins


def test_silence_costs_one_deadline_once_and_is_lifted_when_heard_again():
    inbox = inbox_at(ROUND)
    feed_round(inbox, 2, ROUND)
    assert inbox.silence() == [1]
    assert inbox.waiting_for() == []
    for round_ in range(ROUND + 1, ROUND + 4):
        begin(inbox, round_)
        assert inbox.waiting_for() == [2]
        feed_round(inbox, 2, round_)
        assert inbox.silence() == []
    begin(inbox, ROUND + 4)
    assert inbox.feed(frame(1, ROUND)) is Verdict.STALE
    assert not inbox.may_come(1)  # still behind: it would cost a deadline in every round
    inbox.feed(frame(1, ROUND + 4))
    assert inbox.may_come(1)
    assert inbox.get(1, Kind.PARAMETERS) is not None


def test_who_hears_nobody_at_all_is_cut_off_itself_and_does_not_run_ahead():
    inbox = inbox_at(ROUND)
    assert inbox.silence() == [1, 2]
    for round_ in range(ROUND + 1, ROUND + 1 + ROUNDS_ALONE):
        begin(inbox, round_)
        assert inbox.waiting_for() == []  # it may be no more than a tie
    for round_ in range(ROUND + 1 + ROUNDS_ALONE, ROUND + 4 + ROUNDS_ALONE):
        begin(inbox, round_)
        assert inbox.waiting_for() == [1, 2]
        if round_ == ROUND + 3 + ROUNDS_ALONE:
            feed_round(inbox, 1, round_)
        inbox.silence()
        begin(inbox, round_, sweep=1)
        assert inbox.waiting_for() == ([1] if round_ == ROUND + 3 + ROUNDS_ALONE else [])
    begin(inbox, round_ + 1)
    assert inbox.waiting_for() == [1]  # one is heard: the other one is at fault


def test_an_early_frame_lifts_silence_too():
    inbox = inbox_at(ROUND)
    inbox.silence()
    inbox.feed(frame(1, ROUND + 1))
    begin(inbox, ROUND + 1)
    assert inbox.waiting_for() == [1]


def test_the_dead_are_not_waited_for():
    inbox = inbox_at(ROUND)
    inbox.feed(frame(1))
    inbox.died(1, NEIGHBOURS[1])
    assert inbox.is_dead(1)
    assert not inbox.is_dead(2)
    assert inbox.waiting_for() == [2]
    assert inbox.get(1, Kind.PARAMETERS) is not None  # what it said before still counts
    begin(inbox, ROUND + 1)
    assert inbox.waiting_for() == [2]
    assert inbox.silence() == [2]


@pytest.mark.parametrize(("device", "incarnation"), [(1, 4), (1, 6), (9, 0)])
def test_a_death_of_another_life_or_of_a_stranger_changes_nothing(device, incarnation):
    inbox = inbox_at(ROUND)
    inbox.died(device, incarnation)
    assert inbox.waiting_for() == [1, 2]


def test_memory_holds_two_rounds_of_frames_whatever_arrives():
    inbox, payloads = inbox_at(0), []
    for round_ in range(30):
        begin(inbox, round_)
        for sent in [round_ - 1, round_, round_ + 1, round_ + 2, round_ + 40] * 2:
            for sender in (1, 2, 9):
                for kind, attempt in product(BOTH, range(MAX_ATTEMPTS + 2)):
                    arrived = frame(sender, max(0, sent), kind, attempt)
                    payloads.append(weakref.ref(arrived.payload))
                    inbox.feed(arrived)
                    del arrived
        most = 2 * len(BOTH) * MAX_ATTEMPTS * len(NEIGHBOURS)
        assert sum(ref() is not None for ref in payloads) <= most
    begin(inbox, 32)
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
        begin(inbox, round_)
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
    inbox, round_, fed, kept, alone = inbox_at(0), 0, 0, 0, 0
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
                elif verdict is Verdict.STALE and frame_round == round_ - 1:
                    silent.discard(sender)  # one step behind: waited for once, it is in step again
                assert (verdict is Verdict.STRANGER) == (sender == 9)
            case ("begin", steps):
                round_ += steps
                living = NEIGHBOURS.keys() - dead
                if steps:
                    alone = alone + 1 if len(living) > 1 and living <= silent else 0
                if steps and alone > ROUNDS_ALONE:
                    silent.clear()  # it is cut off itself
                begin(inbox, round_)
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


# Further attempts


def test_a_further_attempt_is_awaited_only_when_it_is_asked_for():
    inbox = inbox_at(ROUND)
    feed_round(inbox, 2, ROUND)
    feed_round(inbox, 1, ROUND)
    assert inbox.waiting_for() == []
    inbox.await_([1], Kind.PARAMETERS, attempt=1)
    assert inbox.waiting_for() == [1]
    assert inbox.may_come(1, Kind.PARAMETERS)
    assert not inbox.may_come(1, Kind.ACK)
    again = frame(attempt=1)
    assert inbox.feed(again) is Verdict.TAKEN
    assert inbox.get(1, Kind.PARAMETERS, attempt=1) is again
    assert inbox.get(1, Kind.PARAMETERS) is not again
    assert inbox.waiting_for() == []
    begin(inbox, ROUND + 1)
    assert inbox.get(1, Kind.PARAMETERS, attempt=1) is None
    assert inbox.waiting_for() == [1, 2]
    inbox.feed(frame(1, ROUND + 1))
    inbox.feed(frame(1, ROUND + 1, Kind.ACK))
    assert inbox.waiting_for() == [2]  # what was awaited in the round before is forgotten


@pytest.mark.parametrize("kind", BOTH)
def test_attempts_are_told_apart_and_each_counts_once(kind):
    inbox = inbox_at(ROUND)
    fed = [frame(kind=kind, attempt=attempt) for attempt in range(MAX_ATTEMPTS)]
    assert [inbox.feed(one) for one in fed] == [Verdict.TAKEN] * MAX_ATTEMPTS
    assert [inbox.feed(frame(kind=kind, attempt=k)) for k in range(MAX_ATTEMPTS)] == [
        Verdict.DUPLICATE
    ] * MAX_ATTEMPTS
    assert [inbox.get(1, kind, attempt=attempt) for attempt in range(MAX_ATTEMPTS)] == fed
    assert inbox.dropped == {(1, Verdict.DUPLICATE): MAX_ATTEMPTS}


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("attempt", [MAX_ATTEMPTS, MAX_ATTEMPTS + 1, 2**32 - 1])
def test_an_attempt_beyond_the_maximum_is_dropped(kind, attempt):
    inbox = inbox_at(ROUND)
    assert inbox.feed(frame(kind=kind, attempt=attempt)) is Verdict.SHAPE
    assert inbox.dropped == {(1, Verdict.SHAPE): 1}
    assert inbox.get(1, kind, attempt=attempt) is None


def test_without_arq_there_is_no_second_attempt():
    inbox = Inbox(replace(EXPECTED, max_attempts=1), NEIGHBOURS)
    begin(inbox, ROUND)
    assert inbox.feed(frame()) is Verdict.TAKEN
    assert inbox.feed(frame(attempt=1)) is Verdict.SHAPE
    assert inbox.feed(frame(kind=Kind.ACK, attempt=1)) is Verdict.SHAPE


@pytest.mark.parametrize(
    "num_bytes", [0, 1, 7, 8, REPEAT_BYTES - 1, REPEAT_BYTES + 1, REPEAT_BYTES + 8, PARAMETERS_BYTES]
)
def test_a_repeat_whose_size_does_not_fit_its_bitmap_is_dropped(num_bytes):
    inbox, whole = inbox_at(ROUND), frame(attempt=1)
    payload = np.resize(whole.payload, num_bytes)
    cut = Frame(replace(whole.header, payload_bytes=num_bytes), payload)
    assert inbox.feed(cut) is Verdict.SHAPE
    assert inbox.dropped == {(1, Verdict.SHAPE): 1}
    assert inbox.feed(whole) is Verdict.TAKEN


def test_a_repeat_of_no_packet_is_dropped():
    nothing = Frame(replace(header(attempt=1), payload_bytes=8), np.zeros(8, dtype=np.uint8))
    assert inbox_at(ROUND).feed(nothing) is Verdict.SHAPE


@pytest.mark.parametrize("attempt", range(MAX_ATTEMPTS))
def test_an_answer_may_be_final(attempt):
    whole = frame(kind=Kind.ACK, attempt=attempt)
    final = Frame(replace(whole.header, flags=1 | FLAG_FINAL), whole.payload)
    assert inbox_at(ROUND).feed(final) is Verdict.TAKEN


def test_silence_ends_the_wait_for_a_repeat_and_a_death_does():
    for end in (lambda inbox: inbox.silence(), lambda inbox: inbox.died(1, NEIGHBOURS[1])):
        inbox = inbox_at(ROUND)
        feed_round(inbox, 1, ROUND)
        feed_round(inbox, 2, ROUND)
        inbox.await_([1], Kind.ACK, attempt=1)
        assert inbox.may_come(1, Kind.ACK)
        end(inbox)
        assert not inbox.may_come(1, Kind.ACK)
        assert inbox.waiting_for() == []


def test_whoever_went_on_sends_no_more_repeats_of_this_round():
    inbox = inbox_at(ROUND)
    feed_round(inbox, 1, ROUND)
    inbox.await_([1], Kind.PARAMETERS, attempt=1)
    inbox.feed(frame(1, ROUND + 1))
    assert not inbox.may_come(1, Kind.PARAMETERS)
    assert not inbox.may_come(1)


@fixed
@given(st.lists(st.tuples(st.sampled_from(BOTH), st.integers(0, 5), st.sampled_from([1, 2])), max_size=30))
def test_every_frame_of_a_round_is_either_kept_once_or_counted(fed):
    inbox, kept = inbox_at(ROUND), set()
    for kind, attempt, sender in fed:
        verdict = inbox.feed(frame(sender, kind=kind, attempt=attempt))
        key = (sender, kind, attempt)
        expected = Verdict.TAKEN if key not in kept else Verdict.DUPLICATE
        assert verdict is (expected if attempt < MAX_ATTEMPTS else Verdict.SHAPE)
        if verdict is Verdict.TAKEN:
            kept.add(key)
    assert inbox.dropped.total() == len(fed) - len(kept)
    for sender in NEIGHBOURS:
        for kind in BOTH:
            for attempt in range(MAX_ATTEMPTS):
                assert (inbox.get(sender, kind, attempt=attempt) is not None) == (
                    (sender, kind, attempt) in kept
                )


# Rounds of several parts

TWO_SWEEPS = replace(EXPECTED, num_sweeps=2)
CHUNK = Layout("float32", 4, 16, checked=True)
CHUNK_BYTES = {Kind.PARAMETERS: 8 + CHUNK.payload_bytes, Kind.ACK: 1}


def chunk(sender=1, round_=ROUND, part=2):
    """Return a frame of a scheduled part."""
    payload = np.zeros(CHUNK_BYTES[Kind.PARAMETERS], dtype=np.uint8)
    return Frame(replace(header(sender, round_, part=part), payload_bytes=len(payload)), payload)


def test_sweeps_are_told_apart_and_the_next_one_may_come_early():
    inbox = inbox_at(ROUND, expected=TWO_SWEEPS)
    for sweep in (0, 1):
        assert inbox.feed(frame(part=sweep)) is Verdict.TAKEN
        assert inbox.feed(frame(part=sweep)) is Verdict.DUPLICATE
    assert inbox.feed(frame(part=2)) is Verdict.SHAPE
    assert inbox.get(1, Kind.PARAMETERS).header.part == 0
    begin(inbox, ROUND, sweep=1)
    assert inbox.get(1, Kind.PARAMETERS) is None  # its sweep is over
    assert inbox.get(1, Kind.PARAMETERS, part=1).header.part == 1
    assert inbox.waiting_for() == [1, 2]
    assert not inbox.may_come(1, Kind.PARAMETERS)
    assert inbox.may_come(1, Kind.ACK)
    assert inbox.feed(frame(2)) is Verdict.STALE


def test_a_neighbour_in_the_next_sweep_is_not_waited_for_in_this_one():
    inbox = inbox_at(ROUND, expected=TWO_SWEEPS)
    inbox.feed(frame(1, part=1))
    assert inbox.waiting_for() == [2]
    assert inbox.is_gone(1)
    assert not inbox.is_behind(ROUND)  # it is in this round all the same


def test_scheduled_parts_come_before_sweeps_and_are_as_the_schedule_has_them():
    inbox = inbox_at(ROUND, awaited=())
    inbox.begin(ROUND, SCHEDULED)
    assert inbox.feed(chunk()) is Verdict.SHAPE  # nothing is scheduled
    inbox.expect({2: Part(CHUNK_BYTES, CHUNK), 3: Part(CHUNK_BYTES, CHUNK)})
    inbox.await_([1], Kind.PARAMETERS, part=2)
    assert inbox.may_come(1, part=2)
    assert not inbox.may_come(1, part=3)
    assert inbox.feed(chunk(part=3)) is Verdict.TAKEN
    assert inbox.may_come(1, part=2)  # parts of a schedule have no order
    assert inbox.feed(chunk(part=4)) is Verdict.SHAPE
    assert inbox.feed(chunk()) is Verdict.TAKEN
    assert not inbox.may_come(1)
    assert inbox.feed(chunk(round_=ROUND + 1)) is Verdict.EARLY


def test_who_gossips_has_left_the_schedule():
    inbox = inbox_at(ROUND, awaited=())
    inbox.begin(ROUND, SCHEDULED)
    inbox.expect({2: Part(CHUNK_BYTES, CHUNK)})
    inbox.await_([1, 2], Kind.PARAMETERS, part=2)
    assert inbox.feed(frame(1)) is Verdict.TAKEN
    assert inbox.is_gone(1)
    assert inbox.waiting_for() == [2]
    begin(inbox, ROUND)
    assert inbox.get(1, Kind.PARAMETERS) is not None
    assert inbox.feed(chunk(2)) is Verdict.STALE
    assert inbox.waiting_for() == [1, 2]


def test_who_gossiped_in_an_earlier_round_of_a_schedule_has_left_it():
    inbox = inbox_at(ROUND, awaited=())
    inbox.begin(ROUND, SCHEDULED)
    inbox.expect({2: Part(CHUNK_BYTES, CHUNK)}, since=ROUND - 1)
    assert inbox.feed(frame(1, round_=ROUND - 2)) is Verdict.STALE  # before it began
    assert not inbox.is_schedule_left()
    assert inbox.feed(chunk(2)) is Verdict.TAKEN
    assert not inbox.is_schedule_left()
    assert inbox.feed(frame(1, round_=ROUND - 1)) is Verdict.STALE
    assert inbox.is_schedule_left()
    inbox.died(1, NEIGHBOURS[1])
    assert not inbox.is_schedule_left()  # those who need it see so themselves


def test_who_broke_off_waits_for_nobody_where_another_completed_the_round():
    inbox = inbox_at(ROUND, awaited=())
    inbox.expect({2: Part(CHUNK_BYTES, CHUNK)})
    inbox.begin(ROUND, SCHEDULED)
    begin(inbox, ROUND)
    assert inbox.waiting_for() == [1, 2]
    assert inbox.feed(chunk(1, round_=ROUND + 1)) is Verdict.EARLY
    assert inbox.waiting_for() == []
    inbox.died(1, NEIGHBOURS[1])
    assert inbox.waiting_for() == [2]


def test_who_gossips_waits_for_others_where_one_goes_on():
    inbox = inbox_at(ROUND, awaited=())
    begin(inbox, ROUND)
    assert inbox.feed(frame(1, round_=ROUND + 1)) is Verdict.EARLY
    assert inbox.waiting_for() == [2]
