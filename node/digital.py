"""The digital radio of one device: packets with checksums, bit errors, and repeats of what got lost.

A frame of packets goes out to some neighbours (`Outbound`) or comes in from one (`Inbound`), attempt
after attempt. It is answered by bitmaps of what arrived (unless nobody needs them), and with ARQ further
attempts hold only the packets still missing. The air is applied where a frame is received. Who sends
what to whom, and what becomes of it, is up to those who use this radio.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from node.antenna import Antenna, Emission, Shape
from node.inbox import Inbox
from node.mixing import Arrived
from node.peers import Peers, Stamp
from node.radio import Grid
from node.stopwatch import Stopwatch
from node.transport.zmq import Outgoing
from protocol.arq import Receiving, Repeat, Sending
from protocol.channel import Counts, Mask
from protocol.codec import Bytes, Float32s, Selection, decode, finite_packets, select, selected
from protocol.frame import FLAG_FINAL, Kind


@dataclass
class Outbound:
    """One frame of this device's on its way to some neighbours."""

    shape: Shape
    outgoing: Outgoing
    turns: Mapping[int, int]
    """Which turn of this device's slot each receiver is reached in; one turn is one transmission."""
    sending: Sending
    reached: list[int]
    """Receivers whose queue took it."""
    start_air_s: float


@dataclass
class Inbound:
    """One neighbour's frame on its way here."""

    shape: Shape
    device: int
    turn: int
    """Of its sender's slot."""
    deadline_air_s: float
    own: Float32s
    """This device's own numbers, which take the places of those that cannot be."""
    receiving: Receiving
    end_air_s: float
    """When the last of it had come, or the deadline if that was before."""
    whole: Bytes = field(default_factory=lambda: np.empty(0, dtype=np.uint8))
    """The first attempt as it came, side information and packets: received memory, not to be written."""
    pieces: list[tuple[Float32s, Selection | None, Mask]] = field(default_factory=list)
    """Numbers as they came (Selection: of these packets only), and which packets of them to use."""
    accepted: bool = False
    """Whether some packets of it were taken with their flipped bits."""
    closed: bool = False

    @property
    def heard(self) -> bool:
        """Say whether anything of it came."""
        return self.receiving.attempt >= 0

    @property
    def side(self) -> Bytes:
        """Its side information."""
        return self.whole[: self.shape.side_bytes]


def accumulate_(arrived: Arrived, inbound: Inbound, weight: float, wanted: Mask) -> None:
    """Add the wanted ones of the packets that came, each once; wanted has shape (num_packets,)."""
    for x, selection, fresh in inbound.pieces:
        if selection is None:
            counted = fresh & wanted
            if counted.any():
                arrived.add_(x, weight, counted)
        elif (counted := fresh & wanted[selection.packets]).any():
            arrived.add_selection_(x, weight, selection, counted)


class Digital:
    """The digital radio, and with `radio.scheme = "ideal"` the same without an air."""

    def __init__(self, peers: Peers[Inbox], antenna: Antenna) -> None:
        self.peers = peers
        self.radio = antenna.radio
        self._antenna = antenna
        self._knobs = self.radio.knobs
        self._outbounds: list[Outbound] = []
        self._inbounds: list[Inbound] = []
        self._free_air_s: dict[int, float] = {}
        """When each turn of this device's slot is free again."""
        self.end_air_s = 0.0
        """When all that this device sent and waited for is through."""

    def begin(self, round_: int, sweep: int, grid: Grid, *, answered: bool) -> None:
        """Enter an exchange, in which receivers answer frames or do not; nothing is on its way yet."""
        self.peers.inbox.begin(round_, sweep)
        self._antenna.begin(round_, grid, answered=answered)
        self._outbounds, self._inbounds, self._free_air_s = [], [], {}
        self.end_air_s = self.radio.air_s

    def send(
        self, shape: Shape, outgoing: Outgoing, turns: Mapping[int, int], *, ready_air_s: float
    ) -> Outbound:
        """Send a frame to neighbours, each in its turn of this device's slot, not before ready_air_s."""
        together = self._knobs.cast == "broadcast"
        sending = Sending(
            turns if self._antenna.answered else (), max_attempts=self._knobs.attempts, together=together
        )
        outbound = Outbound(shape, outgoing, turns, sending, [], ready_air_s)
        self._outbounds.append(outbound)
        groups = [tuple(turns)] if together else [(device,) for device in turns]
        starts = []
        for group in groups:
            emission = Emission(shape, outgoing, group, turns[group[0]])
            start_air_s, reached = self._transmit(emission, ready_air_s)
            starts.append(start_air_s)
            outbound.reached += reached
        for device in outbound.reached:
            self.radio.tally(device).packets_sent += shape.layout.num_packets
        if self._antenna.answered:
            self.peers.inbox.await_(outbound.reached, Kind.ACK, part=shape.part)
            for device in turns:
                self._hear_answer(outbound, device)  # none will come of whoever is gone, or was not reached
        outbound.start_air_s = min(starts)
        return outbound

    def listen(
        self, shape: Shape, device: int, own: Float32s, *, turn: int, deadline_air_s: float
    ) -> Inbound:
        """Await a neighbour's frame, sent in a turn of its slot; it counts if it comes by the deadline."""
        deadline_air_s = min(deadline_air_s, self.radio.until_air_s)
        receiving = Receiving(shape.layout.num_packets, max_attempts=self._knobs.attempts)
        inbound = Inbound(shape, device, turn, deadline_air_s, own, receiving, self.radio.air_s)
        self._inbounds.append(inbound)
        self.peers.inbox.await_((device,), Kind.PARAMETERS, part=shape.part)
        return inbound

    def hear(self, watch: Stopwatch) -> None:
        """Pass every frame that came in through the air, answer it, and repeat what was asked for."""
        for inbound in self._inbounds:
            while not inbound.closed and self._hear_frame(inbound, watch):  # closed: back after that
                pass
        for outbound in self._outbounds if self._antenna.answered else ():
            for device in outbound.turns:
                self._hear_answer(outbound, device)
            for repeat in outbound.sending.repeats():
                self._repeat(outbound, repeat)
                watch.lap("send")

    def is_coming(self, inbound: Inbound) -> bool:
        """Say whether more may come of a neighbour's frame."""
        return self.peers.inbox.may_come(inbound.device, Kind.PARAMETERS, inbound.shape.part)

    def is_going(self, outbound: Outbound, device: int) -> bool:
        """Say whether a neighbour may yet answer a frame, or be sent something of it again."""
        return outbound.sending.wants(device) or self.peers.inbox.may_come(
            device, Kind.ACK, outbound.shape.part
        )

    def _transmit(self, emission: Emission, ready_air_s: float) -> tuple[float, list[int]]:
        """Send as soon as the turn is free; return when that began and who could be reached."""
        free_air_s = self._free_air_s.get(emission.turn, 0.0)
        emitted = self._antenna.transmit(emission, max(ready_air_s, free_air_s))
        self._free_air_s[emission.turn] = max(free_air_s, emitted.end_air_s)
        self.end_air_s = max(self.end_air_s, emitted.end_air_s)
        return emitted.start_air_s, emitted.reached

    def _hear_frame(self, inbound: Inbound, watch: Stopwatch) -> bool:
        """Take in the next attempt of a neighbour's frame; False if it is not there."""
        receiving, tally, part = inbound.receiving, self.radio.tally(inbound.device), inbound.shape.part
        attempt = receiving.attempt + 1
        frame = self.peers.inbox.get(inbound.device, Kind.PARAMETERS, part=part, attempt=attempt)
        if frame is None or (attempt and receiving.complete):
            return False
        if frame.is_void:
            receiving.late = True
            return False
        packets: Counts | slice
        if attempt:
            selection = selected(frame.payload, inbound.shape.layout)
            payload, packets = selection.payload, selection.packets
            shape = Shape(part, selection.layout, side_bits=inbound.shape.layout.num_packets)
        else:
            selection, shape, packets = None, inbound.shape, slice(None)
            inbound.whole, payload = frame.payload, frame.payload[shape.side_bytes :]
        arrival_air_s = self._antenna.arrival_air_s(frame.header, shape)
        reception = self._antenna.cross(frame.header, payload, shape, turn=inbound.turn)
        watch.lap("air")
        on_time = arrival_air_s <= inbound.deadline_air_s
        if self._antenna.answered:
            answer_end_s = self._answer_start_s(inbound, arrival_air_s) + self._antenna.grid.access.ack_turn_s
            on_time = on_time and answer_end_s <= self.radio.until_air_s
        x = decode(payload, shape.layout)
        fresh = receiving.take(
            attempt, packets, reception.intact & finite_packets(x, shape.layout), on_time=on_time
        )
        inbound.pieces.append((x, selection, fresh))
        if receiving.complete and on_time:
            for bad in reception.bad:
                self._accept(inbound, bad, packets)
        tally.attempts += 1
        tally.packets_corrupted += int(np.count_nonzero(~reception.intact))
        tally.bit_errors += reception.bit_errors
        inbound.end_air_s = min(arrival_air_s, inbound.deadline_air_s)
        self.end_air_s = max(self.end_air_s, inbound.end_air_s)
        if not receiving.complete:
            self.peers.inbox.await_((inbound.device,), Kind.PARAMETERS, part=part, attempt=attempt + 1)
        watch.lap("decode")
        if self._antenna.answered:
            answered_air_s = self._answer(inbound, arrival_air_s)
            if on_time:  # what came too late is refused after the round has ended
                self.end_air_s = max(self.end_air_s, answered_air_s)
            watch.lap("send")
        return True

    def _accept(self, inbound: Inbound, bad: Selection, packets: Counts | slice) -> None:
        """Take packets that stay bad with their flipped bits; impossible numbers count as erased.

        A number is erased by putting this device's own in its place, which leaves the weight with it.
        """
        x = decode(bad.payload, bad.layout).copy()
        which = bad.packets if isinstance(packets, slice) else packets[bad.packets]
        wanted = Selection(which, bad.layout, bad.payload)
        with np.errstate(invalid="ignore"):
            impossible = ~(np.abs(x) <= self._knobs.max_abs_value)
        if impossible.any():
            starts = [inbound.own[inbound.shape.layout.values(int(packet))] for packet in which]
            x[impossible] = np.concatenate(starts)[impossible]
        fresh = ~inbound.receiving.intact[which]
        inbound.accepted = inbound.accepted or bool(fresh.any())
        inbound.receiving.intact[which] = True
        inbound.pieces.append((x, wanted, fresh))

    def _answer_start_s(self, inbound: Inbound, arrival_air_s: float) -> float:
        turn = self._antenna.grid.turns[inbound.device]
        return self._antenna.grid.access.ack_start_s(arrival_air_s, self._antenna.grid.slot, turn)

    def _answer(self, inbound: Inbound, arrival_air_s: float) -> float:
        """Tell a neighbour which of its packets are here by now; return when that is through."""
        access, receiving, device = self._antenna.grid.access, inbound.receiving, inbound.device
        start_air_s = self._answer_start_s(inbound, arrival_air_s)
        if not self.radio.has_time_until(start_air_s + access.ack_turn_s):
            stamp = Stamp(start_air_s, inbound.shape.part, receiving.attempt)
            self.peers.keep_back((device,), Kind.ACK, stamp)
            return arrival_air_s
        bitmap = Outgoing(np.packbits(receiving.intact))
        stamp = Stamp(start_air_s, inbound.shape.part, receiving.attempt, final=receiving.complete)
        if self.peers.send((device,), Kind.ACK, bitmap, stamp):
            self.radio.ledger.transmit((device,), access.ack_turn_s, start_air_s=start_air_s)
        return start_air_s + access.ack_turn_s

    def _hear_answer(self, outbound: Outbound, device: int) -> None:
        sending, part = outbound.sending, outbound.shape.part
        attempt = sending.unanswered(device)
        if attempt is None:
            return
        frame = self.peers.inbox.get(device, Kind.ACK, part=part, attempt=attempt)
        if frame is None:
            if not self.peers.inbox.may_come(device, Kind.ACK, part):
                sending.give_up(device)  # or whoever still misses something would wait for it
            return
        if frame.is_void:
            sending.unsent(device)  # it took nothing of this attempt
            return
        arrival_air_s = frame.header.air_s + self._antenna.grid.access.ack_turn_s
        got = np.unpackbits(frame.payload, count=outbound.shape.layout.num_packets).view(np.bool_)
        final = bool(frame.header.flags & FLAG_FINAL) or bool(got.all())
        sending.answer(device, got, final=final, air_s=arrival_air_s)
        self.radio.ledger.receive(device, self._antenna.grid.access.ack_turn_s)
        turn = outbound.turns[device]  # what follows was not known before
        self._free_air_s[turn] = max(self._free_air_s[turn], arrival_air_s)
        self.end_air_s = max(self.end_air_s, arrival_air_s)

    def _repeat(self, outbound: Outbound, repeat: Repeat) -> None:
        """Send packets again, for whoever misses some of them."""
        whole = outbound.shape
        payload = outbound.outgoing.payload[whole.side_bytes :]
        outgoing = Outgoing(select(payload, whole.layout, repeat.packets))
        shape = Shape(whole.part, whole.layout.of(repeat.packets), side_bits=whole.layout.num_packets)
        turn = outbound.turns[repeat.receivers[0]]
        emission = Emission(shape, outgoing, repeat.receivers, turn, repeat.attempt)
        _, reached = self._transmit(emission, repeat.ready_air_s)
        for device in repeat.receivers:
            if device in reached:
                self.radio.tally(device).packets_resent += len(repeat.packets)
                self.peers.inbox.await_((device,), Kind.ACK, part=whole.part, attempt=repeat.attempt)
            else:
                outbound.sending.unsent(device)
            self._hear_answer(outbound, device)
