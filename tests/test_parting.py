"""What a device does when a neighbour is gone without which nobody goes on, and who says why."""

import numpy as np
import pytest
import torch
from devices import Device, complete, experiment_of
from ether import Ether, Port

from node import exchanges
from node.control import Leave, Terminated
from node.transport.transport import Parted
from protocol.config import Transport
from protocol.errors import RunError
from protocol.messages import NeighbourDied
from protocol.radio import Radio


class Broken(Port):
    """A transport over which nothing comes, since somebody is gone."""

    def __init__(self, *, silent):
        super().__init__(Ether(2), 0)
        self._silent = silent

    def receive(self, timeout_s):
        if timeout_s > 0:
            raise Parted("device 1 has gone", silent=self._silent)

    def forget(self, device):
        raise Parted(f"device {device} died")


class Later:
    """A control plane that has this to say after some waits, each of which takes as long as it may."""

    def __init__(self, clock, waits, said):
        self._clock, self._waits, self._said = clock, waits, said
        self.waited_s = 0.0
        self.terminated, self._heard = False, 0

    def wait(self, wall_s):
        self._waits -= 1
        self._clock[0] += wall_s
        self.waited_s += wall_s

    def news(self):
        if self._waits > 0 or self._said is None:
            self._heard += 1
            if self.terminated and self._heard > 1:  # first before the exchange
                raise Terminated("terminated")
            return []
        if isinstance(self._said, Exception):
            raise self._said
        return [self._said]


@pytest.fixture
def clock(monkeypatch):
    """Yield the time, which passes only where somebody waits."""
    now = [0.0]
    monkeypatch.setattr(exchanges, "monotonic", lambda: now[0])
    return now


def exchange(control, *, silent=False):
    """Begin an exchange in step whose other end is gone."""
    experiment = experiment_of(Radio(), devices=2).model_copy(update={"transport": Transport(kind="gloo")})
    Device(experiment, complete(2), 0, Broken(silent=silent)).exchange(0, control=control)


def test_who_hears_nothing_says_who_has_gone(clock):
    control = Later(clock, 0, None)
    with pytest.raises(Parted, match="device 1 has gone"):
        exchange(control)
    assert control.waited_s == exchanges.FLUSH_WALL_S


def test_a_stop_that_was_on_its_way_is_no_fault(clock):
    with pytest.raises(Leave):
        exchange(Later(clock, 3, Leave("told to stop")))
    control = Later(clock, 1, Leave("told to stop"))
    control.terminated = True  # as all are by a signal to the whole group
    with pytest.raises(Leave, match="told to stop"):
        exchange(control)


def test_the_coordinator_knows_better_who_it_was(clock):
    with pytest.raises(RunError, match="device 7: killed"):
        exchange(Later(clock, 1, RunError("device 7: killed")))


def test_who_is_ended_with_the_others_still_says_who_has_gone(clock):
    """Torchrun ends all its processes when one of them dies."""
    control = Later(clock, 9, None)
    control.terminated = True
    with pytest.raises(Parted, match="device 1 has gone"):
        exchange(control)
    assert control.waited_s == exchanges.SLICE_WALL_S  # for the coordinator, which may be ending all


def test_a_silence_has_been_waited_for_already(clock):
    control = Later(clock, 0, None)
    with pytest.raises(Parted, match="device 1"):
        exchange(control, silent=True)
    assert control.waited_s == 0
    with pytest.raises(Leave):
        exchange(Later(clock, 0, Leave("told to stop")), silent=True)


def test_a_death_told_of_ends_it_too(clock):
    death = NeighbourDied(device=1, incarnation=4)
    with pytest.raises(Parted, match="device 1 died"):
        exchange(Later(clock, 0, death))


def test_in_step_nobody_is_given_up_however_late(clock):
    """Whoever went on without a neighbour would be out of step with all others."""

    class Late(Port):
        def receive(self, timeout_s):
            clock[0] += 1e6
            if clock[0] > 1e7:
                raise Parted("device 1 has gone", silent=True)

    experiment = experiment_of(Radio(), devices=2).model_copy(update={"transport": Transport(kind="gloo")})
    device = Device(experiment, complete(2), 0, Late(Ether(2), 0))
    device.x += torch.from_numpy(np.ones(len(device.x), dtype=np.float32))
    with pytest.raises(Parted):
        device.exchange(0, control=Later(clock, 0, None))
