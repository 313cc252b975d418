"""The way to the coordinator: needed to start and to report, never to exchange parameters.

Whether the coordinator is still there is known from the connection itself (a closed socket at once,
a silent host by ZeroMQ's heartbeats), so a device that is busy training misses nothing.
"""

import os
import secrets
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from time import monotonic
from urllib.parse import urlsplit

import zmq
from zmq.utils.monitor import recv_monitor_message

from node.place import Ranked
from node.transport.zmq import Context, Socket
from protocol.errors import BadInput, FrameError, HearsayError, RunError
from protocol.messages import (
    PROTOCOL_VERSION,
    Bye,
    FromCoordinator,
    Gains,
    Hello,
    Message,
    NeighbourDied,
    Refuse,
    Report,
    Schedule,
    Start,
    Stop,
    Welcome,
    from_coordinator,
    pack,
)

HEARTBEAT_MS = 1000
SILENT_MS = 5000
"""A connection without a heartbeat for this long is closed."""
NAME_WALL_S = 3.0
"""How long the coordinator's host may be without an address that its name leads to."""
SLICE_WALL_S = 1.0
"""No wait is longer than this without a look at the connection and at signals."""
REPORT_WALL_S = 0.1
"""Reports wait at most about this long for others to travel with."""
FLUSH_WALL_S = 5.0
"""How long last words may take to leave."""


class Leave(HearsayError):
    """Break off the round: told to stop, or the coordinator stayed away too long."""


class Terminated(Leave):
    """Break off the round: whoever started this process ends it."""


class Control:
    """One device's connection to the coordinator."""

    def __init__(self, dealer: Socket, monitor: Socket, url: str, terminated: threading.Event) -> None:
        self.socket = dealer
        self._monitor = monitor
        self._url = url
        self._terminated = terminated
        self._absent_since: float | None = monotonic()
        self._deaths: list[NeighbourDied] = []
        self._reports: list[bytes] = []
        self._reported_s = float("-inf")
        self.grace_s = float("inf")

    @classmethod
    @contextmanager
    def open(cls, context: Context, url: str, terminated: threading.Event) -> "Iterator[Control]":
        """Connect to a coordinator; `terminated` is set from outside when this process should leave."""
        dealer: Socket = context.socket(zmq.DEALER)
        # Its own name, so that the coordinator knows it again after the connection was lost for a while.
        dealer.set(zmq.ROUTING_ID, secrets.token_bytes(8).replace(b"\0", b"\1"))
        dealer.set(zmq.HEARTBEAT_IVL, HEARTBEAT_MS)
        dealer.set(zmq.HEARTBEAT_TIMEOUT, SILENT_MS)
        control = cls(
            dealer,
            dealer.get_monitor_socket(zmq.Event.HANDSHAKE_SUCCEEDED | zmq.Event.DISCONNECTED),
            url,
            terminated,
        )
        try:
            _connect(dealer, url)
            yield control
        finally:
            linger_s = 0.0 if control.absent else FLUSH_WALL_S
            dealer.disable_monitor()
            control._monitor.close(linger=0)
            dealer.close(linger=round(linger_s * 1000))

    @property
    def absent(self) -> bool:
        """Say whether there is no connection to the coordinator right now."""
        while self._monitor.poll(0):
            event = recv_monitor_message(self._monitor)["event"]
            if event == zmq.Event.HANDSHAKE_SUCCEEDED:
                self._absent_since = None
            elif self._absent_since is None:
                self._absent_since = monotonic()
        return self._absent_since is not None

    def own_address(self) -> str:
        """Return the address of this host on the route to the coordinator; neighbours reach it there."""
        target = urlsplit(self._url)
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # UDP: connecting sends nothing
                probe.connect((target.hostname or "", target.port or 1))
                address: str = probe.getsockname()[0]
        except OSError as error:
            raise RunError(f"no IPv4 route to the coordinator at {self._url}: {error}") from error
        return address

    def join(self, wait_wall_s: float, ranked: Ranked | None = None, *, device: int | None = None) -> Welcome:
        """Say Hello and be told who this is; raises BadInput if nobody answers or the door stays shut.

        device: the number that it wants to have, where torchrun has given it none.
        """
        rank, world_size = (ranked.rank, ranked.world_size) if ranked else (device, None)
        self.send(Hello(pid=os.getpid(), host=socket.gethostname(), rank=rank, world_size=world_size))
        deadline = monotonic() + wait_wall_s
        answer = self._receive(min(deadline, monotonic() + NAME_WALL_S))
        if answer is None:
            self.check()
            self._refuse_unknown_host()
            answer = self._receive(deadline)
        match answer:
            case Welcome():
                self.grace_s = answer.experiment.runtime.coordinator_grace_s
                return answer
            case Refuse():
                raise BadInput(f"the coordinator at {self._url} refused: {answer.reason}")
            case None:
                self.check()
                raise BadInput(
                    f"no coordinator answered at {self._url} within {wait_wall_s:g} s (protocol "
                    f"{PROTOCOL_VERSION}); is `hearsay run` running there?"
                )
            case _:
                raise RunError(f"the coordinator at {self._url} answered Hello with {answer.kind}")

    def _refuse_unknown_host(self) -> None:
        """Raise BadInput where nobody has the coordinator's name: mistyped, or it has come and gone."""
        host = urlsplit(self._url).hostname
        try:
            socket.getaddrinfo(host, None, socket.AF_INET)
        except OSError as error:
            raise BadInput(
                f"--coordinator {self._url}: no host is called {host} ({error.strerror})"
            ) from error

    def wait_for_start(self, wait_wall_s: float) -> Start:
        """Wait until everybody is ready; raises Leave if the run ends before it begins."""
        deadline = monotonic() + wait_wall_s
        while monotonic() < deadline:
            self.check()
            message = self._receive(min(deadline, monotonic() + SLICE_WALL_S))
            if isinstance(message, Start):
                return message
            if isinstance(message, Stop | Bye):
                raise Leave("told to stop before the start")
        raise RunError(f"the run did not start within {wait_wall_s:g} s")

    def ask_for_schedule(self, gains: Gains, wait_wall_s: float) -> Schedule | None:
        """Tell how well neighbours are heard, and be told how to average from this round on.

        None if there is no answer in time, or nobody there to give one. Raises Leave as `news` does.
        """
        self.send(gains)
        deadline = monotonic() + wait_wall_s
        while monotonic() < deadline and not self.absent:
            message = self._receive(min(deadline, monotonic() + SLICE_WALL_S))
            if isinstance(message, Schedule) and message.round == gains.round:
                return message
            self._heed(message)
            self.check()
        return None

    def news(self) -> list[NeighbourDied]:
        """Return the deaths reported since the last call; raises Leave when it is time to go.

        RunError if that is since the run has failed.
        """
        self._send_reports_if_due()
        while (message := self._receive(0)) is not None:
            self._heed(message)
        self.check()
        deaths, self._deaths = self._deaths, []
        return deaths

    def _heed(self, message: FromCoordinator | None) -> None:
        if isinstance(message, NeighbourDied):
            self._deaths.append(message)
        elif isinstance(message, Stop) and message.failure:
            raise RunError(message.failure)
        elif isinstance(message, Stop | Bye):
            raise Leave("told to stop")

    def wait(self, wall_s: float) -> None:
        """Wait so long, or until the coordinator has said something."""
        self.socket.poll(ceil(1000 * wall_s))

    def check(self) -> None:
        """Raise Leave if this process was terminated, or the coordinator is away longer than the grace."""
        if self._terminated.is_set():
            raise Terminated("terminated")
        if self.absent and self._absent_since is not None:
            away_s = monotonic() - self._absent_since
            if away_s > self.grace_s:
                raise Leave(f"the coordinator has been away for {away_s:.1f} s")

    def wait_for_bye(self) -> None:
        """Wait until every device is done, so that nobody still needs this one's sockets.

        Ends at once when the coordinator is away: its heartbeats are this wait's deadline.
        """
        while not self.absent and not self._terminated.is_set():
            if isinstance(self._receive(monotonic() + SLICE_WALL_S), Bye):
                return

    def report(self, report: Report, sample: bytes) -> None:
        """Tell of a round; reports that follow each other quickly share a message, which spares both ends."""
        self._reports += [pack(report), sample]
        self._send_reports_if_due()

    def _send_reports_if_due(self) -> None:
        if self._reports and monotonic() - self._reported_s >= REPORT_WALL_S:
            self._send_reports()

    def _send_reports(self) -> None:
        if self._reports:
            # Lost where the coordinator has been away for a full queue: what waits for it is bounded.
            self._send(self._reports)
            self._reports, self._reported_s = [], monotonic()

    def send(self, message: Message) -> bool:
        """Queue a message behind all reports; False if the coordinator is away and the queue is full."""
        self._send_reports()
        return self._send([pack(message)])

    def _send(self, parts: list[bytes]) -> bool:
        try:
            self.socket.send_multipart(parts, flags=zmq.NOBLOCK)
        except zmq.Again:
            return False
        return True

    def _receive(self, deadline: float) -> FromCoordinator | None:
        while True:
            left_s = max(0.0, deadline - monotonic())
            if not self.socket.poll(round(min(left_s, SLICE_WALL_S) * 1000)):
                if left_s <= SLICE_WALL_S or self._terminated.is_set():
                    return None
                continue
            try:
                return from_coordinator(self.socket.recv_multipart()[0])
            except FrameError as error:
                raise RunError(f"{self._url} does not speak protocol {PROTOCOL_VERSION}: {error}") from error


def _connect(dealer: Socket, url: str) -> None:
    try:
        parts = urlsplit(url)
        if parts.scheme != "tcp" or not parts.hostname or not parts.port:
            raise ValueError("not an address")
        dealer.connect(url)
    except (ValueError, zmq.ZMQError) as error:
        raise BadInput(f"--coordinator {url}: {error}; use tcp://HOST:PORT") from error
