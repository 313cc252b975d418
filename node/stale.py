"""Gossip without waiting in step: of each neighbour the newest frame counts, at most so many rounds old.

A frame counts in every round until a newer one has come or it is too old, lost packets and all. The air is
drawn for the round of the sender, so that what came of a frame does not depend on when it is used.
"""

from dataclasses import dataclass

import torch

from node.antenna import Antenna, Emission, Shape
from node.door import Expected
from node.gossip import at_most_j, rounding_stream, write_packets
from node.mailboxes import Mailboxes
from node.mixing import Arrived
from node.peers import Peers
from node.scheme import Sent
from node.stopwatch import Stopwatch
from node.transport.zmq import Buffers
from protocol.access import Access
from protocol.channel import Mask
from protocol.codec import Float32s, Layout, decode, finite_packets
from protocol.frame import MODULATION_OF, Kind
from protocol.messages import Start, Welcome


@dataclass(frozen=True)
class Copy:
    """A neighbour's parameters as they came: numbers, shape (num_values,), and which packets are intact."""

    round: int
    x: Float32s
    intact: Mask


def mailboxes(welcome: Welcome, start: Start, layout: Layout, access: Access) -> Mailboxes:
    """Return a device's mailboxes, all of them empty."""
    experiment = welcome.experiment
    expected = Expected.of(welcome, layout, {Kind.PARAMETERS: layout.payload_bytes})
    airtimes_s = {n: access.frame_airtime_s(layout, MODULATION_OF[n]) for n in expected.modulations}
    return Mailboxes(
        expected,
        {neighbour.device: neighbour.incarnation for neighbour in start.neighbours},
        staleness_rounds=experiment.aggregation.staleness_rounds,
        num_rounds=experiment.rounds,
        airtimes_s=None if experiment.runtime.clock == "wall" else airtimes_s,
    )


class StaleGossip:
    """One device's averaging with what it last heard of its neighbours, for as long as the run lasts."""

    def __init__(self, peers: Peers[Mailboxes], antenna: Antenna, layout: Layout, arrived: Arrived) -> None:
        self._peers = peers
        self._radio = antenna.radio
        self._antenna = antenna
        self._layout = layout
        self._shape = Shape(0, layout)
        self._arrived = arrived
        self._staleness_rounds = self._radio.experiment.aggregation.staleness_rounds
        self._buffers = Buffers(layout.payload_bytes)
        self._copies: dict[int, Copy] = {}
        self._told_air_s = dict.fromkeys(peers.neighbours, 0.0)
        """Before when each neighbour knows that nothing more comes of this device."""
        self._sent_air_s = self._end_air_s = 0.0
        self._settled = False

    @property
    def at_most_j(self) -> float:
        """What the next round may cost this device at most, without idling [J]."""
        peers = self._peers
        return at_most_j(self._radio, len(peers.neighbours), hears=peers.inbox.most_to_come)

    def encode(self, x: torch.Tensor, round_: int, sweep: int) -> Sent:
        """Turn the parameters x, shape (num_values,), into radio packets, once for all neighbours."""
        [outgoing] = self._buffers.take(1)
        seed, me = self._radio.experiment.seed, self._peers.device
        rounding = rounding_stream(self._layout, seed, round_, part=sweep, device=me)
        xhat = write_packets(x, self._layout, outgoing.payload, rounding)
        if self._radio.experiment.runtime.clock == "paced":  # it is sent only when that moment has come
            self._tell(round_, self._radio.air_s)
        return Sent(dict.fromkeys(self._peers.neighbours, outgoing), xhat)

    def begin(self, sent: Sent, round_: int, sweep: int) -> None:
        """Send the frame to every neighbour, before any of theirs is waited for."""
        radio, ready_air_s = self._radio, self._radio.air_s
        self._arrived.clear_()
        self._peers.inbox.begin(round_)
        self._antenna.begin(round_, radio.grid, answered=False)
        self._sent_air_s, self._settled = ready_air_s, False
        everybody, together = tuple(sent.outgoing), radio.knobs.cast == "broadcast"
        for group in [everybody] if together and everybody else [(device,) for device in everybody]:
            turn = 0 if together else radio.grid.turns[group[0]]
            emission = Emission(self._shape, sent.outgoing[group[0]], group, turn)
            emitted = self._antenna.transmit(emission, ready_air_s)
            self._sent_air_s = max(self._sent_air_s, emitted.end_air_s)
            for device in emitted.reached:
                radio.tally(device).packets_sent += self._layout.num_packets
                self._told_air_s[device] = emitted.end_air_s

    def advance(self, watch: Stopwatch) -> bool:
        """Once nothing of this round's time may come any more, mix what has come by its end."""
        if self._settled:
            return True
        mailboxes = self._peers.inbox
        self._end_air_s, self._settled = mailboxes.settle(self._sent_air_s, self._radio.until_air_s)
        self._tell(mailboxes.round + 1, self._end_air_s)
        if not self._settled:
            return False
        for device in self._peers.neighbours:
            self._hear(device, watch)
            self._add(device)
        watch.lap("decode")
        return True

    def end(self) -> float:
        """Return when the round is over."""
        return self._end_air_s

    def _tell(self, next_round: int, air_s: float) -> None:
        """Let all know how late it has become here: they may wait for what cannot come before that."""
        untold = [device for device, told_air_s in self._told_air_s.items() if told_air_s < air_s]
        for device in self._peers.tell_not_before(untold, next_round, air_s):
            self._told_air_s[device] = air_s

    def _hear(self, device: int, watch: Stopwatch) -> None:
        """Pass what has come of a neighbour through the air, and keep the newest of it."""
        tally = self._radio.tally(device)
        turn = 0 if self._radio.knobs.cast == "broadcast" else self._peers.neighbours[device].turn
        for frame in self._peers.inbox.take(device):
            reception = self._antenna.cross(frame.header, frame.payload, self._shape, turn=turn)
            watch.lap("air")
            x = decode(frame.payload, self._layout)
            intact = reception.intact & finite_packets(x, self._layout)
            self._copies[device] = Copy(frame.header.round, x, intact)
            tally.attempts += 1
            tally.packets_corrupted += int((~reception.intact).sum())
            tally.packets_lost += int((~intact).sum())
            tally.bit_errors += reception.bit_errors
            watch.lap("decode")

    def _add(self, device: int) -> None:
        """Add the packets of a neighbour's newest frame, or write down why it has none."""
        tally, mailboxes = self._radio.tally(device), self._peers.inbox
        copy = self._copies.get(device)
        if copy is None or copy.round < mailboxes.round - self._staleness_rounds:
            self._copies.pop(device, None)
            tally.missing = mailboxes.why_missing(device)
            return
        tally.stale_rounds = max(mailboxes.round - copy.round, 0)
        if copy.intact.any():
            self._arrived.add_(copy.x, self._peers.neighbours[device].weight, copy.intact)
