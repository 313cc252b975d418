"""What the coordinator makes of a device that ends before the start: a fault, or what a signal did."""

from time import monotonic

import pytest
import zmq

from coordinator.interrupt import Interrupt
from coordinator.network import lay_out
from coordinator.planning.pilots import Unwatched
from coordinator.roster import Roster
from coordinator.server import Server, control_socket
from coordinator.store import RunFolder
from protocol.config import Experiment
from protocol.errors import BadInput, Interrupted, RunError
from protocol.messages import Hello, Refuse, Stop, Welcome, from_coordinator, pack


class OneDied:
    """Processes of which one has ended."""

    sentinels = ()
    logs = "nowhere"

    def deaths(self):
        return [(4711, "killed by SIGTERM")]

    def kill(self, pid):
        raise AssertionError(pid)


def serve(path, interrupt):
    experiment = Experiment(devices=2)
    with (
        RunFolder.create(experiment, path) as folder,
        zmq.Context() as context,
        control_socket(context, "tcp://127.0.0.1:*") as (socket, _),
    ):
        roster = Roster(experiment, folder.run_id, str(folder.path), lay_out(experiment))
        Server(socket, roster, folder, Unwatched(), launched_s=monotonic()).serve(OneDied(), interrupt)


@pytest.mark.parametrize(("signals", "expected"), [(0, RunError), (1, Interrupted)])
def test_a_signal_that_ended_a_device_too_is_an_interrupt_and_no_fault(tmp_path, signals, expected):
    interrupt = Interrupt()
    interrupt.count = signals
    with pytest.raises(expected):
        serve(tmp_path / "run", interrupt)
    assert (tmp_path / "run").exists() == (expected is RunError)


class Silent(OneDied):
    """Devices of which nothing is known but what they say."""

    def deaths(self):
        return []


def test_devices_that_wait_for_a_start_are_told_when_none_comes(tmp_path):
    experiment = Experiment(devices=2, runtime={"join_wall_s": 1.0})
    with (
        RunFolder.create(experiment, tmp_path / "run") as folder,
        zmq.Context() as context,
        control_socket(context, "tcp://127.0.0.1:*") as (socket, url),
        context.socket(zmq.DEALER) as device,
    ):
        device.set(zmq.RCVTIMEO, 10_000)
        device.connect(url)
        device.send(pack(Hello(pid=1, host="elsewhere")))
        roster = Roster(experiment, folder.run_id, str(folder.path), lay_out(experiment))
        server = Server(socket, roster, folder, Unwatched(), launched_s=monotonic())
        with pytest.raises(RunError, match=r"0 of 2 devices were ready within 1 s .* see nowhere"):
            server.serve(Silent(), Interrupt())
        told = [from_coordinator(device.recv()) for _ in range(2)]
    assert [type(message) for message in told] == [Welcome, Stop]


def test_whoever_makes_a_run_impossible_is_told_why(tmp_path):
    experiment = Experiment(devices=2)
    with (
        RunFolder.create(experiment, tmp_path / "run") as folder,
        zmq.Context() as context,
        control_socket(context, "tcp://127.0.0.1:*") as (socket, url),
        context.socket(zmq.DEALER) as device,
    ):
        device.set(zmq.RCVTIMEO, 5000)
        device.set(zmq.RCVTIMEO, 10_000)
        device.connect(url)
        device.send(pack(Hello(pid=1, host="elsewhere", rank=0, world_size=5)))
        roster = Roster(experiment, folder.run_id, str(folder.path), lay_out(experiment))
        server = Server(socket, roster, folder, Unwatched(), launched_s=monotonic())
        with pytest.raises(BadInput, match="started 5 processes, and this run needs 2") as refused:
            server.serve(Silent(), Interrupt())
        assert from_coordinator(device.recv()) == Refuse(reason=str(refused.value))


class Batch:
    """A socket with two messages to be read, and a signal that comes between them."""

    def __init__(self, interrupt):
        self.interrupt, self.left = interrupt, [b"first", b"second"]

    def recv_multipart(self, _flags):
        if not self.left:
            raise zmq.Again
        self.interrupt.count = int(len(self.left) == 1)
        return [self.left.pop(0), b""]


def test_a_signal_is_heeded_before_the_message_that_comes_after_it(tmp_path, monkeypatch):
    """What a device says that was told to leave must not be read as if it had left by itself."""
    experiment, interrupt, stopped = Experiment(devices=2), Interrupt(), []
    with (
        RunFolder.create(experiment, tmp_path / "run") as folder,
        zmq.Context() as context,
        control_socket(context, "tcp://127.0.0.1:*") as (socket, _),
    ):
        roster = Roster(experiment, folder.run_id, str(folder.path), lay_out(experiment))
        server = Server(socket, roster, folder, Unwatched(), launched_s=monotonic())
        monkeypatch.setattr(server, "_socket", Batch(interrupt))
        monkeypatch.setattr(server, "_hear", lambda peer, _: stopped.append((peer, roster.stopped)))
        server._listen([], interrupt)
    assert stopped == [(b"first", False), (b"second", True)]
