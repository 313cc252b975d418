"""Schedules as the roster hands them out: to all who live, or to nobody, in whatever order they ask."""

from itertools import permutations

import pytest
from builders import make_report
from test_roster import done, said, started

from coordinator.roster import Phase
from protocol.messages import Bye, Done, Gains, NeighbourDied, Schedule, TreePlace

EPOCH = 2


def running(devices=4, **sections):
    """Return a roster whose devices average along trees, two rounds each, and have reported two."""
    it = started(
        devices,
        "complete",
        aggregation={"scheme": "tree", "epoch_rounds": EPOCH},
        radio={"fading": "none", "tx_power_dbm": 20},
        **sections,
    )
    it.scheduled.clear()
    for device in range(devices):
        for round_ in range(EPOCH):
            it.hear(b"%d" % device, make_report(device, round_), 1.0)
    return it


def gains(device, round_=EPOCH, devices=4):
    return Gains(round=round_, snr_db={other: 20.0 + other for other in range(devices) if other != device})


def left(device, rounds=EPOCH):
    why = "of its 1 J 0.1 J are left"
    return Done(run_id="run-1", device=device, rounds=rounds, parameters="", why_early=why)


def schedules(tells):
    return {int(tell.peer): tell.message for tell in tells if isinstance(tell.message, Schedule)}


def members_of(told):
    """Return who is in the tree of a schedule, after checking that all places fit together."""
    places = {device: schedule.place for device, schedule in told.items()}
    assert all(isinstance(place, TreePlace) for place in places.values())
    [root] = [device for device, place in places.items() if place.parent is None]
    for device, place in places.items():
        assert place.members == len(places)
        for turn, child in enumerate(place.children):
            assert (places[child].parent, places[child].turn) == (device, turn)
    reached, todo = set(), [root]
    while todo:
        device = todo.pop()
        reached.add(device)
        todo += places[device].children
    return reached


@pytest.mark.parametrize("order", [*permutations(range(4))])
def test_all_get_a_schedule_when_the_last_has_asked(order):
    it = running()
    for device in order[:-1]:
        assert it.hear(b"%d" % device, gains(device), 2.0) == []
    told = schedules(it.hear(b"%d" % order[-1], gains(order[-1]), 2.0))
    assert sorted(told) == [0, 1, 2, 3]
    assert {schedule.round for schedule in told.values()} == {EPOCH}
    assert members_of(told) == {0, 1, 2, 3}
    [event] = it.scheduled
    assert (event.round, event.scheme) == (EPOCH, "tree")
    assert all(member.gains is None for member in it.members)


ENDS = {
    "a death": lambda it: it.lose(3, "killed"),
    "a farewell": lambda it: it.hear(b"3", left(3), 2.0),
}


@pytest.mark.parametrize("after", range(4))
@pytest.mark.parametrize("end", ENDS)
def test_who_ends_while_others_wait_is_not_waited_for(end, after):
    """Before anybody has asked, between, or last, when its end is what lets the others go on."""
    it, told = running(), {}
    for number in range(4):
        if number == after:
            tells = ENDS[end](it)
            deaths = [peer for peer, kind in said(tells) if kind is NeighbourDied]
            assert deaths == ([b"0", b"1", b"2"] if end == "a death" else [])
            told |= schedules(tells)
        if number < 3:
            told |= schedules(it.hear(b"%d" % number, gains(number), 2.0))
    assert sorted(told) == [0, 1, 2]
    assert members_of(told) == {0, 1, 2}
    [event] = it.scheduled
    assert event.parents[3] == -2


def test_who_asked_and_then_ends_gets_nothing_and_is_in_no_tree():
    it = running()
    for device in (3, 0, 1):
        assert it.hear(b"%d" % device, gains(device), 2.0) == []
    assert not schedules(it.hear(b"3", left(3), 2.0))
    assert members_of(schedules(it.hear(b"2", gains(2), 2.0))) == {0, 1, 2}


def test_who_asks_when_others_have_gone_on_gossips_as_they_do():
    it = running()
    for device in (0, 1, 2):
        assert it.hear(b"%d" % device, gains(device), 2.0) == []
    it.hear(b"0", make_report(0, EPOCH), 40.0)  # it has waited long enough, and gossiped
    assert it.members[0].gains is None
    [tell] = it.hear(b"3", gains(3), 41.0)
    assert (tell.peer, tell.message) == (b"3", Schedule(round=EPOCH, place=None))
    assert it.scheduled == []
    for device in (1, 2, 3):
        it.hear(b"%d" % device, make_report(device, EPOCH), 42.0)
    next_ = {}
    for device in range(4):  # all are together again in the next epoch
        next_ |= schedules(it.hear(b"%d" % device, gains(device, 2 * EPOCH), 43.0))
    assert members_of(next_) == {0, 1, 2, 3}


def test_different_rounds_have_no_schedule_in_common():
    it = running()
    for device in (0, 1, 2):
        it.hear(b"%d" % device, gains(device, 2 * EPOCH), 2.0)
    assert schedules(it.hear(b"3", gains(3, EPOCH), 2.0)) == {}
    assert it.scheduled == []


def test_nobody_is_lost_for_having_waited_for_a_schedule_and_then_for_frames():
    """Device 3 hangs. The others wait once for its gains and once for its frames, and say nothing."""
    it = running(runtime={"liveness_wall_s": 10})
    for device in (0, 1, 2):
        it.hear(b"%d" % device, gains(device), 2.0)
    assert it.overdue(2.0 + 2 * 10 + 1) == []
    for device in (0, 1, 2):
        it.hear(b"%d" % device, make_report(device, EPOCH), 23.0)
    assert it.overdue(1.0 + 4 * 10 + 0.1) == [3]


def test_leaving_is_no_loss_and_all_may_leave():
    it = running(3)
    assert it.hear(b"0", left(0), 2.0) == []
    assert (it.members[0].left, it.members[0].lost) == ("of its 1 J 0.1 J are left", "")
    assert it.hear(b"2", done(2), 2.0) == []
    assert said(it.hear(b"1", left(1), 2.0)) == [(b"0", Bye), (b"1", Bye), (b"2", Bye)]
    assert it.phase is Phase.OVER
