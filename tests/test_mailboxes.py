"""Mailboxes: until when a round lasts, what has come by then, and who is waited for."""

from dataclasses import replace
from math import inf

import numpy as np
import pytest
from test_inbox import EXPECTED, NEIGHBOURS, header

from node.door import Frame, Verdict
from node.mailboxes import Mailboxes
from protocol.frame import FLAG_LEAVES, FLAG_VOID, Kind

STALENESS_ROUNDS, NUM_ROUNDS = 2, 20
AIRTIME_S = 0.5
ROUND = 4
NOTHING = np.zeros(0, dtype=np.uint8)


def mailboxes_at(round_, *, airtime_s=AIRTIME_S, keeps_time=True):
    boxes = Mailboxes(
        EXPECTED,
        NEIGHBOURS,
        staleness_rounds=STALENESS_ROUNDS,
        num_rounds=NUM_ROUNDS,
        airtimes_s={2: airtime_s, 3: 3 * airtime_s} if keeps_time else None,
    )
    boxes.begin(round_)
    return boxes


def frame(sender, round_, arrival_s, *, airtime_s=AIRTIME_S):
    """Return a frame, the last bit of which comes at a moment."""
    head = replace(header(sender, round_), air_s=arrival_s - airtime_s)
    return Frame(head, np.zeros(head.payload_bytes, dtype=np.uint8))


def gone_on(sender, round_, air_s, *, leaves=False):
    head = replace(header(sender, round_), kind=Kind.GONE_ON, modulation=0, payload_bytes=0, air_s=air_s)
    return Frame(replace(head, flags=head.flags | (FLAG_LEAVES if leaves else 0)), NOTHING)


IN_TIME = frame(2, 3, 1.0), frame(2, 4, 9.0)
"""What device 2 sends, who is not what a test is about."""


def rounds_of(frames):
    return [one.header.round for one in frames]


def feed(boxes, *frames):
    assert {boxes.feed(one) for one in frames} == {Verdict.TAKEN}


def test_a_round_ends_when_there_is_a_frame_of_each_that_is_new_enough():
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 1, 3.0), frame(1, 2, 8.0), frame(1, 3, 9.0), frame(2, 2, 6.0), frame(2, 3, 8.5))
    assert boxes.settle(7.0, inf) == (8.0, True)
    assert rounds_of(boxes.take(1)) == [1, 2]
    assert rounds_of(boxes.take(2)) == [2]


def test_what_comes_at_the_very_end_counts_if_it_is_of_no_later_round():
    """Where rounds take no time all are of one moment, and one may have gone through several by then."""
    boxes = mailboxes_at(ROUND, airtime_s=0.0)
    feed(boxes, *(frame(1, round_, 7.0, airtime_s=0.0) for round_ in range(3, 7)))
    feed(boxes, frame(2, 4, 7.0, airtime_s=0.0))
    assert boxes.settle(7.0, inf) == (7.0, True)  # the next of device 2 is of a later round
    assert rounds_of(boxes.take(1)) == [3, 4]
    assert rounds_of(boxes.take(2)) == [4]
    boxes.begin(ROUND + 1)
    assert boxes.settle(7.0, inf) == (7.0, False)
    assert boxes.silence() == [2]


def test_the_end_is_settled_only_when_nothing_earlier_can_come():
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 3, 5.0), *IN_TIME)
    assert boxes.settle(7.0, inf) == (7.0, False)
    assert boxes.waits_for == [1]
    feed(boxes, gone_on(1, 4, 6.4))
    assert boxes.settle(7.0, inf) == (7.0, False)
    feed(boxes, gone_on(1, 4, 6.6))  # what begins then has not come before 7.1
    assert boxes.settle(7.0, inf) == (7.0, True)


def test_a_frame_tells_that_no_other_comes_for_as_long_as_one_takes():
    """So those who wait for it go on at once, not when its sender has trained again."""
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 2, 7.0), *IN_TIME)
    assert boxes.settle(6.0, inf) == (7.0, True)
    assert boxes.settle(7.5, inf) == (7.5, False)
    assert boxes.waits_for == [1]


def test_the_clock_goes_as_far_as_is_known_while_it_waits():
    """So that others need not wait for what cannot come before: that is what they are told."""
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 1, 8.0), *IN_TIME)
    assert boxes.settle(7.0, inf) == (8.5, False)
    assert boxes.waits_for == [1]
    feed(boxes, gone_on(1, 2, 8.25))
    assert boxes.settle(7.0, inf) == (8.75, False)
    feed(boxes, frame(1, 2, 8.8))
    assert boxes.settle(7.0, inf) == (8.8, True)


def test_before_its_first_frames_nobody_needs_any():
    boxes = mailboxes_at(STALENESS_ROUNDS - 1)
    feed(boxes, *(gone_on(sender, 0, 9.0) for sender in NEIGHBOURS))
    assert boxes.settle(1.0, inf) == (1.0, True)
    assert boxes.why_missing(1) == "air"
    boxes.begin(STALENESS_ROUNDS)
    assert boxes.settle(2.0, inf) == (9.5, False)


def test_who_must_be_silent_waits_no_longer_on_the_models_clock():
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 3, 5.0), frame(1, 4, 9.0), frame(2, 1, 8.5))
    assert boxes.settle(7.0, 8.0) == (8.0, True)
    assert rounds_of(boxes.take(1)) == [3]
    assert rounds_of(boxes.take(2)) == []
    assert boxes.why_missing(2) == "air"


def test_nothing_more_is_waited_for_after_the_last_round():
    boxes = mailboxes_at(NUM_ROUNDS - 2)
    feed(boxes, frame(1, NUM_ROUNDS - 1, 1.0), frame(2, NUM_ROUNDS - 2, 1.0))
    assert boxes.settle(7.0, inf) == (7.0, False)
    assert boxes.waits_for == [2]


def test_who_leaves_is_waited_for_until_it_says_when():
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 1, 3.0), *IN_TIME)
    assert boxes.settle(4.0, inf) == (4.0, False)
    feed(boxes, gone_on(1, 2, 6.0, leaves=True))
    assert boxes.settle(4.0, inf) == (6.5, True)  # had it begun anything, that would have come by now
    assert rounds_of(boxes.take(1)) == [1]
    assert boxes.why_missing(1) == "dead"
    assert not boxes.is_dead(1)  # at that very moment it may have been there
    boxes.begin(ROUND + 1)
    assert boxes.settle(7.0, inf) == (7.0, True)
    assert boxes.is_dead(1)


def test_who_has_left_by_the_host_is_there_for_as_long_as_by_the_model():
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 3, 3.0), gone_on(1, 4, 6.0, leaves=True), *IN_TIME)
    assert boxes.settle(4.0, inf) == (4.0, True)
    assert rounds_of(boxes.take(1)) == [3]
    assert not boxes.is_dead(1)


def test_a_frame_that_was_kept_back_is_none():
    boxes = mailboxes_at(ROUND)
    feed(boxes, *IN_TIME, frame(1, 3, 3.0))
    head = replace(header(1, 4), modulation=0, payload_bytes=0, air_s=12.0)
    feed(boxes, Frame(replace(head, flags=head.flags | FLAG_VOID), NOTHING))
    assert boxes.settle(4.0, inf) == (4.0, False)
    feed(boxes, gone_on(1, 4, 6.0, leaves=True))
    assert boxes.settle(4.0, inf) == (4.0, True)


def test_the_dead_are_waited_for_no_longer_and_what_they_sent_counts():
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 3, 3.0), frame(2, 1, 3.0))
    assert not boxes.died(1, NEIGHBOURS[1] + 1)
    assert not boxes.died(9, 0)
    assert boxes.died(1, NEIGHBOURS[1])
    assert boxes.died(2, NEIGHBOURS[2])
    assert boxes.settle(4.0, inf) == (4.0, True)
    assert rounds_of(boxes.take(1)) == [3]
    assert boxes.is_dead(1)
    assert boxes.why_missing(2) == "dead"


def test_who_is_silent_is_waited_for_again_once_it_is_nearly_in_step():
    boxes = mailboxes_at(ROUND)
    feed(boxes, *IN_TIME)
    assert boxes.settle(4.0, inf) == (4.0, False)
    assert boxes.silence() == [1]
    assert boxes.settle(4.0, inf) == (4.0, True)
    assert boxes.why_missing(1) == "wall"
    feed(boxes, frame(1, 0, 3.0))
    assert boxes.settle(4.0, inf) == (4.0, True)
    feed(boxes, frame(1, ROUND - STALENESS_ROUNDS - 1, 3.0))
    assert boxes.settle(4.0, inf) == (4.0, False)
    assert boxes.waits_for == [1]


def test_nobody_can_be_more_than_one_round_further_ahead_than_it_may_be_behind():
    boxes = mailboxes_at(ROUND)
    farthest = ROUND + STALENESS_ROUNDS + 1
    assert not boxes.is_behind(ROUND + 1)
    feed(boxes, frame(1, farthest, 5.0), *IN_TIME)
    assert not boxes.is_behind(ROUND + 1)
    assert boxes.feed(frame(1, farthest + 1, 6.0)) is Verdict.TOO_EARLY
    assert boxes.is_behind(ROUND + 1)  # as only a stop explains
    assert boxes.settle(4.0, inf) == (5.0, True)  # with the newest one that was kept
    boxes.take(1)
    boxes.begin(farthest + STALENESS_ROUNDS + 1)
    boxes.settle(4.0, inf)
    boxes.take(1)
    assert boxes.why_missing(1) == "wall"


@pytest.mark.parametrize(
    ("change", "verdict"),
    [
        ({"round": 3}, Verdict.DUPLICATE),
        ({"round": 2}, Verdict.STALE),
        ({"sender": 3}, Verdict.STRANGER),
        ({"incarnation": 1}, Verdict.REBORN),
        ({"run": 8}, Verdict.FOREIGN_RUN),
        ({"epoch": 4}, Verdict.FOREIGN_EPOCH),
        ({"attempt": 3}, Verdict.SHAPE),
        ({"part": 1}, Verdict.SHAPE),
        ({"num_values": 11}, Verdict.SHAPE),
    ],
)
def test_what_does_not_belong_here_is_dropped_and_counted(change, verdict):
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 3, 3.0))
    other = frame(1, 4, 4.0)
    wrong = Frame(replace(other.header, **change), other.payload)
    assert boxes.feed(wrong) is verdict
    assert boxes.dropped == {(wrong.header.sender, verdict): 1}
    boxes.settle(9.0, inf)
    assert rounds_of(boxes.take(1)) == []  # not settled


def test_without_a_modelled_clock_all_counts_that_is_here():
    boxes = mailboxes_at(ROUND, keeps_time=False)
    feed(boxes, frame(1, 1, 3.0), frame(1, 2, 8.0), frame(1, 3, 9.0), frame(2, 1, 6.0))
    assert boxes.settle(0.0, inf) == (0.0, False)
    assert boxes.waits_for == [2]
    feed(boxes, frame(2, 2, 6.0))
    assert boxes.settle(0.0, inf) == (0.0, True)
    assert rounds_of(boxes.take(1)) == [1, 2, 3]
    feed(boxes, gone_on(2, 3, 0.0, leaves=True))
    assert boxes.is_dead(2)
    boxes.begin(ROUND + 1)
    assert boxes.settle(0.0, inf) == (0.0, True)
    boxes.take(2)
    assert boxes.why_missing(2) == "dead"


def test_what_may_yet_come_is_counted():
    boxes = mailboxes_at(ROUND)
    feed(boxes, frame(1, 4, 3.0), frame(2, 2, 3.0), frame(2, 3, 5.0))
    boxes.settle(3.5, inf)
    feed(boxes, frame(1, 5, 9.0))
    assert boxes.settle(3.5, inf) == (3.5, True)
    boxes.take(1)
    boxes.take(2)
    farthest = ROUND + 1 + STALENESS_ROUNDS + 1
    assert boxes.most_to_come == (farthest - 4) + (farthest - 2)
    boxes.died(2, NEIGHBOURS[2])
    assert boxes.most_to_come == (farthest - 4) + 1  # that of round 3 is on its way
    boxes.begin(NUM_ROUNDS - 2)
    assert boxes.most_to_come == (NUM_ROUNDS - 1 - 4) + 1
