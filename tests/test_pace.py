"""The paced clock: what a device waits for, what it counts as missed, and what a run makes of that."""

import pytest
from conftest import COMPUTE_AIR_S, SUPERFRAME_AIR_S

from coordinator.summary import MAX_MISSED
from node import pace
from node.control import SLICE_WALL_S, Leave
from node.pace import Pacer
from protocol.config import Runtime

BEGAN_S = 1000.0


class Host:
    """A clock that moves only while a device waits, and whoever the device hears meanwhile."""

    def __init__(self, *, woken_after_s=None, overslept_s=0.0):
        self.now_s = BEGAN_S
        self.waits = []
        self.heeded = 0
        self._woken_after_s = woken_after_s
        self._overslept_s = overslept_s

    def monotonic(self):
        return self.now_s

    def wait(self, wall_s):
        """Wait as a device's control plane does: it may be woken by a word, or sleep too long."""
        assert wall_s > 0
        self.waits.append(wall_s)
        self.now_s += min(wall_s, self._woken_after_s or wall_s) + self._overslept_s

    def heed(self, control):
        assert control is self
        self.heeded += 1


@pytest.fixture
def begin(monkeypatch):
    """Begin a run whose device waits on a host of its own; times are exact in binary."""

    def begin(host=None, *, clock="paced", scale=2.0, slack_s=0.25):
        host = host or Host()
        monkeypatch.setattr(pace, "monotonic", host.monotonic)
        pacer = Pacer(Runtime(clock=clock, pace=scale, pace_slack_wall_s=slack_s))
        return host, lambda air_s: pacer.hold(air_s, host, host), pacer

    return begin


@pytest.mark.parametrize("clock", ["virtual", "wall"])
def test_other_clocks_wait_for_nothing_and_miss_nothing(begin, clock):
    host, hold, pacer = begin(clock=clock)
    hold(1e9)
    host.now_s += 1e6
    hold(1.0)
    assert (host.waits, host.heeded, pacer.missed()) == ([], 0, 0)


def test_modelled_seconds_take_host_seconds_at_their_scale(begin):
    host, hold, pacer = begin(scale=2.0)
    hold(3.0)
    assert host.now_s == BEGAN_S + 6.0
    host, hold, pacer = begin(scale=0.5)
    hold(3.0)
    assert host.now_s == BEGAN_S + 1.5
    assert pacer.missed() == 0


def test_the_coordinator_is_heard_while_waiting(begin):
    host, hold, _ = begin()
    hold(2.25)
    assert sum(host.waits) == 4.5
    assert max(host.waits) <= SLICE_WALL_S
    assert host.heeded == len(host.waits)


def test_a_word_of_the_coordinator_does_not_end_the_wait(begin):
    host, hold, _ = begin(Host(woken_after_s=0.125))
    hold(0.5)
    assert host.now_s == BEGAN_S + 1.0
    assert host.heeded == 8


def test_whoever_is_told_to_leave_does_not_wait_for_the_end(begin):
    host, hold, _ = begin()

    def heed(_):
        raise Leave("told to stop")

    host.heed = heed
    with pytest.raises(Leave):
        hold(100.0)
    assert host.now_s == BEGAN_S + SLICE_WALL_S


def test_deadlines_are_absolute_so_that_oversleeping_does_not_add_up(begin):
    host, hold, pacer = begin(Host(overslept_s=0.125))
    for air_s in (1.0, 2.0, 3.0):
        hold(air_s)
        assert host.now_s == BEGAN_S + 2 * air_s + 0.125
    assert pacer.missed() == 0


def test_a_deadline_passed_by_more_than_the_slack_is_missed_and_not_waited_for(begin):
    host, hold, pacer = begin(slack_s=0.25)
    host.now_s = BEGAN_S + 2.25
    hold(1.0)  # due at 2: passed by exactly the slack
    assert pacer.missed() == 0
    host.now_s = BEGAN_S + 2.5
    hold(1.0)
    assert pacer.missed() == 1
    assert host.waits == []
    hold(2.0)  # due at 4: once late is not always late
    assert host.now_s == BEGAN_S + 4.0
    assert pacer.missed() == 0


def test_missed_deadlines_are_counted_since_the_last_time_somebody_asked(begin):
    host, hold, pacer = begin()
    host.now_s += 100
    for air_s in (1.0, 2.0, 3.0):
        hold(air_s)
    assert pacer.missed() == 3
    assert pacer.missed() == 0


@pytest.mark.processes
def test_a_comfortable_pace_is_kept_and_takes_its_time(whole_run):
    # Seconds of slack: whether a host is on time to 20 ms is not for a test to find out.
    run = whole_run("runtime.clock=paced", "runtime.pace=2", "runtime.pace_slack_wall_s=10")
    summary, virtual = run.summary, whole_run().summary
    assert (summary["clock"], summary["valid"], summary["invalid_reason"]) == ("paced", True, "")
    assert summary["deadlines_missed"] == summary["frames_missing_wall"] == 0
    # Computing ends within the second superframe, when some slots are over: all are through after the third.
    assert SUPERFRAME_AIR_S < COMPUTE_AIR_S < 2 * SUPERFRAME_AIR_S
    assert summary["air_s"] == virtual["air_s"] == pytest.approx(6 * 3 * SUPERFRAME_AIR_S, rel=1e-12)
    # The coordinator's clock begins when it has said Start: on a busy host a few time slices after theirs.
    assert summary["wall_s"] > 2 * summary["air_s"] - 0.1
    assert all(report["stages_wall_s"]["pace"] > 0 for report in run.events("report"))
    assert "paced clock" in run.table
    assert "INVALID" not in run.table
    assert run.parameters().keys() == whole_run().parameters().keys()
    for name, x in whole_run().parameters().items():
        assert (run.parameters()[name] == x).all()


@pytest.mark.processes
def test_an_impossible_pace_makes_a_run_invalid_and_says_why(whole_run):
    run = whole_run("runtime.clock=paced", "runtime.pace=1e-6", "runtime.pace_slack_wall_s=1e-6")
    summary = run.summary
    num_deadlines = (1 + 1) * 4 * 6  # before the exchange, and after it
    assert MAX_MISSED * num_deadlines < summary["deadlines_missed"] <= num_deadlines
    assert summary["deadlines_missed"] == sum(r["deadlines_missed"] for r in run.events("report"))
    assert summary["valid"] is False
    assert summary["invalid_reason"] == (
        f"{summary['deadlines_missed']} of {num_deadlines} deadlines were passed by more than 1e-06 s: "
        f"this host is too slow for runtime.pace = 1e-06"
    )
    said = " ".join(run.table.split())
    assert "INVALID: " in said
    assert summary["invalid_reason"] in said
    assert summary["air_s"] == whole_run().summary["air_s"]  # it is the host that could not, not the model


@pytest.mark.processes
def test_the_wall_clock_keeps_no_modelled_time_and_no_joules(whole_run):
    run = whole_run("runtime.clock=wall")
    summary = run.summary
    modelled = {what: value for what, value in summary.items() if "air_s" in what or "joules" in what}
    assert modelled.keys() == {
        *(f"{what}air_s" for what in ("", "compute_", "tx_", "slot_wait_")),
        *(f"joules{what}" for what in ("", "_compute", "_tx", "_rx", "_idle", "_per_device", "_per_link")),
    }
    assert modelled.pop("joules_per_device") == []
    assert modelled.pop("joules_per_link") == {}
    assert set(modelled.values()) == {None}
    assert (summary["clock"], summary["valid"]) == ("wall", True)
    assert run.events("started")[0]["clock"] == "wall"  # or the report would draw what nobody kept
    for name, x in whole_run().parameters().items():  # what a clock says changes nothing that is learned
        assert (run.parameters()[name] == x).all()
