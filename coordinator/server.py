"""The control socket: hears devices, keeps the roster, and writes the log. Never on the data path."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Protocol, TypeAlias

import numpy as np
import zmq

from coordinator.consensus import ConsensusMeter
from coordinator.events import Consensus, Died, Edge, Ended, Event, Left, Scheduled, Started
from coordinator.interrupt import Interrupt
from coordinator.roster import Member, Phase, Roster, Tell
from coordinator.store import RunFolder
from protocol.errors import BadInput, FrameError, Interrupted, RunError
from protocol.messages import CONSENSUS_SAMPLE, FromDevice, Refuse, Report, from_device, pack

Socket: TypeAlias = "zmq.Socket[bytes]"

POLL_WALL_S = 0.2
"""No wait is longer than this without a look at deaths, deadlines and signals."""
FAREWELL_WALL_S = 1.0
"""How long the last messages may take to leave."""
STOP_AGAIN_WALL_S = 1.0
STOP_WALL_S = 10.0
"""How long devices have to write their parameters after they were told to stop."""


class Processes(Protocol):
    """The devices of a run, watched from outside; of those on this host deaths are known at once."""

    @property
    def logs(self) -> str:
        """Where to read what they said."""

    @property
    def sentinels(self) -> Sequence[int]:
        """File descriptors that become readable when a process dies."""

    def deaths(self) -> list[tuple[int, str]]:
        """Return (pid, how it ended) of every process that died since the last call."""

    def kill(self, pid: int) -> None:
        """Kill one process."""


class View(Protocol):
    """Somebody who watches a run."""

    def show(self, event: Event) -> None:
        """Take in an event."""

    def tick(self) -> None:
        """Draw, if it is time to."""


class Server:
    """One run, from the first Hello to the last Bye; `launched_s` is when its first process was started."""

    def __init__(
        self, socket: Socket, roster: Roster, folder: RunFolder, view: View, *, launched_s: float
    ) -> None:
        self._socket = socket
        self._roster = roster
        self._folder = folder
        self._view = view
        self._launched_s = launched_s
        self._started_s = launched_s
        self._meter = ConsensusMeter(0, 0)
        self._watched: Sequence[int] = []
        self._poller = zmq.Poller()
        self._poller.register(socket, zmq.POLLIN)

    def serve(self, processes: Processes, interrupt: Interrupt) -> None:
        """Go on until every device is done, lost, or did not stop in time.

        Raises BadInput or RunError if the run cannot start, Interrupted if somebody ended it before
        that, RunError if no device is left.
        """
        try:
            self._serve(processes, interrupt)
        except BaseException:
            self._tell(self._roster.stop())  # who waits for the start shall not wait in vain
            raise

    def _serve(self, processes: Processes, interrupt: Interrupt) -> None:
        join_deadline = self._launched_s + self._roster.experiment.runtime.join_wall_s
        stop_deadline, next_stop_s = float("inf"), 0.0
        while self._roster.phase is not Phase.OVER:
            self._listen(processes.sentinels, interrupt)
            for pid, how in processes.deaths():
                self._listen([], interrupt)  # its last words say more than its exit code
                if self._roster.phase is Phase.GATHERING:
                    if interrupt.count:  # the same signal ended it
                        raise Interrupted
                    raise RunError(f"a device's process ended before the start ({how}); see {processes.logs}")
                for member in self._roster.at(pid):
                    self._lose(member.device, how)
            now_s = monotonic()
            for device in self._roster.overdue(now_s):
                times = "four times" if self._roster.experiment.aggregation.is_scheduled else "twice"
                silence = f"{self._roster.patience_s:g} s, {times} runtime.liveness_wall_s"
                self._lose(device, f"silent for {silence}")
                processes.kill(self._roster.of(device).pid)
            if interrupt.count and self._roster.phase is Phase.GATHERING:
                raise Interrupted
            if interrupt.count and now_s >= next_stop_s:
                # Said again until heard: a connection that is just being replaced loses what is sent into it.
                self._tell(self._roster.stop())
                stop_deadline = min(stop_deadline, now_s + STOP_WALL_S)
                next_stop_s = now_s + STOP_AGAIN_WALL_S
            if interrupt.count > 1 or now_s > stop_deadline:
                for member in [m for m in self._roster.members if m.active]:
                    processes.kill(member.pid)
                    self._lose(member.device, "did not stop in time")
                break
            if self._roster.phase is Phase.GATHERING and now_s > join_deadline:
                raise RunError(self._who_is_missing(processes.logs))
            self._view.tick()
        self._end(processes.logs)

    def _listen(self, sentinels: Sequence[int], interrupt: Interrupt) -> None:
        """Wait for devices to say something or die, and hear what they said."""
        if sentinels != self._watched:
            self._watched = sentinels
            self._poller = zmq.Poller()
            self._poller.register(self._socket, zmq.POLLIN)
            for sentinel in sentinels:
                self._poller.register(sentinel, zmq.POLLIN)
        self._poller.poll(round(POLL_WALL_S * 1000))
        for _ in range(1000):  # bounded, so that deadlines are looked at however much is said
            try:
                peer, *parts = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            if interrupt.count:  # a signal to the whole group: who says Done now was told to stop
                self._roster.stopped = True
            self._hear(peer, parts)

    def _hear(self, peer: bytes, parts: list[bytes]) -> None:
        """Hear one message: a single part, or reports that share one, each followed by its sample."""
        for part, sample in zip(parts[::2], [*parts[1::2], b""], strict=False):
            try:
                message = from_device(part)
            except FrameError as error:
                self._tell([Tell(peer, Refuse(reason=str(error)))])
                return
            if isinstance(message, Report):
                self._hear_report(peer, message, part, sample)
            else:
                self._hear_word(peer, message)

    def _hear_word(self, peer: bytes, message: FromDevice) -> None:
        gathering = self._roster.phase is Phase.GATHERING
        member = self._roster.member(peer)
        lost = [m.device for m in self._roster.members if m.lost]
        had_left = member is not None and bool(member.left)
        try:
            tells = self._roster.hear(peer, message, monotonic())
        except BadInput as error:
            self._tell([Tell(peer, Refuse(reason=str(error)))])
            raise
        if gathering and self._roster.phase is Phase.RUNNING:
            self._start()
        self._tell(tells)
        for other in self._roster.members:  # a process that comes again has lost what it was before
            if other.lost and other.device not in lost:
                self._note_death(other.device)
        if member is not None and member.left and not had_left:
            self._note(Left(device=member.device, rounds=member.rounds, reason=member.left))
            self._note_consensus(self._meter.lose(member.device))

    def _hear_report(self, peer: bytes, report: Report, line: bytes, sample: bytes) -> None:
        member = self._roster.member(peer)
        if member is None or member.lost:
            return
        if not self._is_own(member, report, sample):
            self._lose(member.device, "sent a report that is not its own")
            return
        self._tell(self._roster.hear(peer, report, monotonic()))
        self._folder.append(line)
        self._view.show(report)
        coordinates = np.frombuffer(sample, dtype="<f4")
        self._note_consensus(self._meter.add(report.round, member.device, coordinates))

    def _is_own(self, member: Member, report: Report, sample: bytes) -> bool:
        """Say whether a report speaks for its sender and carries the sample that was agreed."""
        sample_bytes = 4 * min(CONSENSUS_SAMPLE, self._meter.num_values)
        speaks_for_itself = report.run_id == self._roster.run_id and report.device == member.device
        return speaks_for_itself and len(sample) == sample_bytes

    def _start(self) -> None:
        self._started_s = monotonic()
        members, graph = self._roster.members, self._roster.network.graph
        ready = [m.ready for m in members if m.ready is not None]
        self._meter = ConsensusMeter(len(members), ready[0].num_parameters)
        edges = [
            Edge(
                devices=(a, b),
                weight=self._roster.network.weights[a, b],
                mean_snr_db=(link["mean_snr_db"][a], link["mean_snr_db"][b]),
                packet_loss=(link["packet_loss"][a], link["packet_loss"][b]),
            )
            for a, b, link in graph.edges(data=True)
        ]
        self._note(
            Started(
                run_id=self._roster.run_id,
                num_parameters=ready[0].num_parameters,
                payload_bytes=ready[0].payload_bytes,
                pids=tuple(m.pid for m in members),
                scheme=self._roster.experiment.radio.scheme,
                clock=self._roster.experiment.runtime.clock,
                num_samples=tuple(r.num_samples for r in ready),
                positions_m=tuple(graph.nodes[m.device]["position_m"] for m in members),
                edges=tuple(edges),
                startup_wall_s=self._started_s - self._launched_s,
            )
        )

    def _lose(self, device: int, reason: str) -> None:
        if self._roster.of(device).active:
            self._tell(self._roster.lose(device, reason))
            self._note_death(device)

    def _note_death(self, device: int) -> None:
        member = self._roster.of(device)
        self._note(
            Died(
                device=device, rounds=member.rounds, reason=member.lost, wall_s=monotonic() - self._started_s
            )
        )
        self._note_consensus(self._meter.lose(device))

    def _note_consensus(self, rounds: list[tuple[int, float, int]]) -> None:
        for round_, distance, devices in rounds:
            self._note(Consensus(round=round_, distance=distance, devices=devices))

    def _note(self, event: Started | Scheduled | Consensus | Died | Left | Ended) -> None:
        self._folder.append(event)
        self._view.show(event)

    def _tell(self, tells: list[Tell]) -> None:
        while self._roster.scheduled:
            self._note(self._roster.scheduled.pop(0))
        for tell in tells:
            # Devices are few and messages small: a full queue or a vanished peer is a dead device,
            # which its process or its silence will tell.
            self._socket.send_multipart([tell.peer, pack(tell.message)], zmq.NOBLOCK)

    def _end(self, logs: str) -> None:
        self._note(
            Ended(
                how="stopped" if self._roster.stopped else "finished",
                rounds=tuple(m.rounds for m in self._roster.members),
                wall_s=monotonic() - self._started_s,
            )
        )
        if self._roster.failure:
            raise RunError(f"{self._roster.failure}; see {logs}")
        if all(m.lost for m in self._roster.members) and not self._roster.stopped:
            reasons = ", ".join(sorted({m.lost for m in self._roster.members}))
            raise RunError(f"no device is left ({reasons}); see {logs}")

    def _who_is_missing(self, logs: str) -> str:
        ready = sum(m.ready is not None for m in self._roster.members)
        return (
            f"{ready} of {self._roster.experiment.devices} devices were ready within "
            f"{self._roster.experiment.runtime.join_wall_s:g} s (runtime.join_wall_s); see {logs}"
        )


@contextmanager
def control_socket(context: "zmq.Context[zmq.Socket[bytes]]", bind: str) -> Iterator[tuple[Socket, str]]:
    """Open the ROUTER that devices connect to; yield it and its URL. Raises BadInput if that fails."""
    socket: Socket = context.socket(zmq.ROUTER)
    socket.set(zmq.LINGER, round(FAREWELL_WALL_S * 1000))
    socket.set(zmq.ROUTER_HANDOVER, 1)  # a device that comes back under its name takes its old place
    try:
        try:
            socket.bind(bind)
        except zmq.ZMQError as error:
            raise BadInput(f"{bind}: cannot listen there ({error.strerror})") from error
        yield socket, socket.get_string(zmq.LAST_ENDPOINT)
    finally:
        socket.close()
