"""What a device exchanges with others, for as long as the run lasts: who waits for what, and how long.

What is sent and what becomes of what arrives is up to the scheme: digital gossip, an analog sum, or, as
long as a schedule holds, exact averaging along a tree or a ring.
"""

from collections.abc import Callable
from math import inf
from time import monotonic

import torch

from node.analog import Analog
from node.antenna import Antenna
from node.averaging import Averaging
from node.control import FLUSH_WALL_S, SLICE_WALL_S, Control, Terminated
from node.digital import Digital
from node.door import Expected, Keeper
from node.gossip import Gossip
from node.inbox import Inbox
from node.mirror import mirror
from node.mixing import Arrived, mixing_step
from node.peers import Peers
from node.radio import Radio
from node.ring import Ring
from node.scheme import Scheme, Sent
from node.stale import StaleGossip, mailboxes
from node.stopwatch import Stopwatch
from node.transport.transport import Awaited, Parted, Transport
from node.tree import Tree
from protocol.access import num_blocks
from protocol.codec import Layout
from protocol.messages import Averaged, Gains, RingPlace, Schedule, Start, TreePlace, Welcome
from protocol.reserve import starts_epoch


class Exchanges:
    """One device's way to its neighbours."""

    def __init__(
        self, welcome: Welcome, start: Start, transport: Transport, layout: Layout, x: torch.Tensor
    ) -> None:
        experiment = welcome.experiment
        # In step nobody goes on without the others: the transport keeps this deadline, and ends the run.
        in_step = experiment.transport.in_step
        self._liveness_wall_s = inf if in_step else experiment.runtime.liveness_wall_s
        self._mirror = mirror(x)
        self._arrived = Arrived(layout)
        self.radio = Radio(experiment, start, layout, welcome.device)
        self._layout = layout
        self._averaging: Averaging | None = None
        self._digital: Digital | None = None
        """What schedules are followed over, where there can be some."""
        self.peers: Peers[Keeper]
        self._scheme: Scheme
        self.awaited: Awaited = tuple
        """From which neighbours a frame may still come, where all go in step."""
        if experiment.aggregation.staleness_rounds:
            boxes = mailboxes(welcome, start, layout, self.radio.grid.access)
            boxed = Peers(welcome, start.neighbours, transport, layout, boxes)
            self.peers = boxed
            self._scheme = StaleGossip(boxed, Antenna(boxed, self.radio), layout, self._arrived)
            return
        analog = experiment.radio.scheme == "analog"
        if analog:
            sizes = Analog.payload_bytes(layout, num_blocks(experiment.radio, layout))
        else:
            sizes = Gossip.payload_bytes(experiment.training, layout)
        inbox = Inbox(
            Expected.of(welcome, layout, sizes), {n.device: n.incarnation for n in start.neighbours}
        )
        peers = Peers(welcome, start.neighbours, transport, layout, inbox)
        self.peers, self.awaited = peers, inbox.waiting_for
        if analog:
            self._scheme = Analog(peers, self.radio, layout, self._arrived, self._mirror.read(x))
        else:
            self._digital = Digital(peers, Antenna(peers, self.radio))
            self._scheme = Gossip(peers, self.radio, self._digital, layout, self._arrived)

    def reschedule(self, round_: int, control: Control, watch: Stopwatch) -> None:
        """Before an epoch's first round, tell the coordinator how neighbours are heard, and do as it says.

        Raises Leave as `exchange`.
        """
        aggregation = self.radio.experiment.aggregation
        if round_ and starts_epoch(aggregation, round_):
            if self._averaging is not None:  # for whom it broke meanwhile waits for this device's gossip
                self.peers.tell_gone_on(round_, self.radio.air_s)
            gains = Gains(round=round_, snr_db=self.radio.snrs_db(round_ - 1))
            self.follow(control.ask_for_schedule(gains, self._liveness_wall_s))
            watch.lap("wait")

    def follow(self, schedule: Schedule | None) -> None:
        """Average by a schedule from the next round on, or gossip."""
        if self._digital is None:
            return
        match schedule.place if schedule else None:
            case TreePlace() as place:
                self._averaging = Tree(self._digital, place, self._layout)
            case RingPlace() as place:
                self._averaging = Ring(self._digital, place, self._layout)
            case None:
                self._averaging = None
        self._digital.peers.inbox.expect(
            self._averaging.parts if self._averaging else {}, since=schedule.round if schedule else 0
        )

    @property
    def follows_schedule(self) -> bool:
        """Whether it averages along a tree or a ring."""
        return self._averaging is not None

    @property
    def at_most_j(self) -> float:
        """What the next exchange may cost this device at most, without idling [J]."""
        return self._averaging.at_most_j if self._averaging else self.gossip_at_most_j

    @property
    def gossip_at_most_j(self) -> float:
        """What all sweeps of a round may cost this device at most, without idling [J]."""
        return self._scheme.at_most_j

    def average(
        self, x: torch.Tensor, round_: int, control: Control, watch: Stopwatch, *, contributes: bool = True
    ) -> Averaged | None:
        """Move x, shape (num_values,), to its mean over all devices, along the tree or ring of the schedule.

        None if there is no schedule, or it broke in an earlier round; if it breaks in this one, x stays as
        it is. Waits and raises as `exchange`; who was silent shows only in the gossip that follows, since
        here a device waits for others who wait themselves.
        """
        averaging = self._averaging
        if averaging is None:
            return None
        self.radio.reserve(averaging.at_most_j)
        averaging.begin(self._mirror.read(x), round_, contributes=contributes)
        self._wait_for(averaging, control, watch, averaging.break_off)
        if averaging.broken:  # until the next schedule
            self._averaging = None
        averaged = averaging.settle_(x, mixing_step(self.radio.experiment.aggregation, round_))
        watch.lap("mix")
        return averaged

    def encode(self, x: torch.Tensor, round_: int, sweep: int = 0) -> Sent:
        """Turn the parameters x, shape (num_values,), into what goes on the air."""
        return self._scheme.encode(self._mirror.read(x), round_, sweep)

    def exchange(
        self, sent: Sent, round_: int, control: Control, watch: Stopwatch, *, sweep: int = 0
    ) -> Arrived:
        """Send to every neighbour and hear every neighbour; return (s, m) of what arrived in time.

        Waits at most `runtime.liveness_wall_s` for whoever is neither dead nor silent. Raises Leave
        when the coordinator says so, or is away for longer than the grace.
        """
        if sweep == 0:
            self.radio.reserve(self._scheme.at_most_j)
        self._scheme.begin(sent, round_, sweep)
        try:
            self._wait_for(self._scheme, control, watch, self.peers.inbox.silence)
        except Parted as parted:
            self._hear_why(control, 0.0 if parted.silent else FLUSH_WALL_S)
            raise
        return self._arrived

    def _wait_for(
        self,
        scheme: Scheme | Averaging,
        control: Control,
        watch: Stopwatch,
        give_up: Callable[[], object],
    ) -> None:
        """Receive until a scheme has nothing to wait for any more, and let the clock feel it."""
        peers = self.peers
        peers.heed(control)
        watch.lap("send")
        next_look = monotonic() + SLICE_WALL_S
        deadline = monotonic() + self._liveness_wall_s
        # Whoever was silent may be back: its frames count though nobody waits for them.
        while monotonic() < deadline and peers.receive(0):
            pass
        while not scheme.advance(watch):
            received = peers.receive(min(deadline - monotonic(), SLICE_WALL_S))
            watch.lap("wait")
            now = monotonic()
            if not received or now >= next_look:  # however much arrives, the coordinator is heard
                peers.heed(control)
                next_look = now + SLICE_WALL_S
            if now >= deadline:
                give_up()
        peers.settle()
        watch.lap("wait")
        self.radio.pass_to(min(scheme.end(), self.radio.until_air_s))

    def _hear_why(self, control: Control, wait_wall_s: float) -> None:
        """Let the coordinator say why a neighbour has gone: raises Leave if all have been told to."""
        deadline = monotonic() + wait_wall_s
        while True:
            try:
                self.peers.heed(control)
            except Terminated:
                # Either the user ends all, as the coordinator is about to say, or whoever started that
                # neighbour and this device saw it end: then others have to know of whom it was.
                deadline = min(deadline, monotonic() + SLICE_WALL_S)
            left_s = deadline - monotonic()
            if left_s <= 0:
                return
            control.wait(min(left_s, SLICE_WALL_S))

    def is_behind(self, round_: int) -> bool:
        """Say whether a living neighbour has gone beyond this round, so that there is no time to train."""
        return self.peers.inbox.is_behind(round_)
