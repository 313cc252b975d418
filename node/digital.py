"""The digital radio of one device: packets with checksums, bit errors, and repeats of what got lost.

A round is one frame of parameters to every neighbour, an acknowledgement bitmap for every frame heard
(unless nobody needs one), and with ARQ further frames that hold only the packets still missing. The air
is applied where a frame is received.
"""

from dataclasses import dataclass, field

import numpy as np
import torch

from node.mixing import Arrived
from node.peers import Peers, Stamp
from node.radio import Radio
from node.scheme import Sent, Tally
from node.stopwatch import Stopwatch
from node.transport.zmq import Buffers, Outgoing
from protocol.air import Transmission, cross, meets_target
from protocol.arq import Receiving, Repeat, Sending
from protocol.channel import Counts, Mask, Reception
from protocol.codec import (
    Bytes,
    Float32s,
    Layout,
    Selection,
    decode,
    encode,
    finite_packets,
    select,
    selected,
)
from protocol.frame import FLAG_FINAL, MODULATION_OF, Header, Kind
from protocol.messages import Heard
from protocol.modulation import permitted
from protocol.radio import Modulation
from protocol.streams import Purpose, stream


@dataclass
class _Hearing:
    """One neighbour's frame of this round, attempt after attempt."""

    receiving: Receiving
    tally: Tally
    pieces: list[tuple[Float32s, Selection | None, Mask]] = field(default_factory=list)
    """Numbers as they came (Selection: of these packets only), and which packets of them to use."""


class Digital:
    """The digital scheme, and with `radio.scheme = "ideal"` the same without an air."""

    def __init__(self, peers: Peers, radio: Radio, layout: Layout, arrived: Arrived) -> None:
        self._peers = peers
        self._radio = radio
        self._layout = layout
        self._arrived = arrived
        self._knobs = radio.knobs
        self._ideal = radio.knobs.scheme == "ideal"
        self._buffers = Buffers(layout.payload_bytes)
        self._lossless = layout.kind == "float32"
        self._payload: Bytes = np.empty(0, dtype=np.uint8)
        self._own: Float32s = np.empty(0, dtype=np.float32)
        self._hearings: dict[int, _Hearing] = {}
        self._sending = Sending((), max_attempts=1, together=True)
        self._start_air_s = self._end_air_s = 0.0
        self._closed: set[int] = set()

    @staticmethod
    def payload_bytes(layout: Layout) -> dict[Kind, int]:
        """Bytes of the payload of each kind of frame."""
        return {Kind.PARAMETERS: layout.payload_bytes, Kind.ACK: -(-layout.num_packets // 8)}

    def encode(self, x: torch.Tensor, round_: int) -> Sent:
        """Turn the parameters x, shape (num_values,), into radio packets, once for all neighbours."""
        [outgoing] = self._buffers.take(1)
        rounding = None
        if self._layout.kind == "int8":
            seed = self._radio.experiment.seed
            rounding = stream(seed, Purpose.QUANTISATION, round_=round_, a=self._peers.device)
        encode(x.numpy(), self._layout, outgoing.payload, rounding)
        self._own = x.numpy() if self._lossless else decode(outgoing.payload, self._layout)
        xhat = None if self._lossless else torch.from_numpy(self._own)
        return Sent(dict.fromkeys(self._peers.neighbours, outgoing), xhat)

    def begin(self, sent: Sent, round_: int) -> None:
        """Send the whole frame to every neighbour, and await theirs and their answers."""
        neighbours = tuple(self._peers.neighbours)
        answered = self._knobs.acknowledged
        self._peers.begin(
            round_, [(Kind.PARAMETERS, 0), (Kind.ACK, 0)] if answered else [(Kind.PARAMETERS, 0)]
        )
        self._arrived.clear_()
        self._closed = set()
        attempts = self._knobs.attempts
        self._hearings = {
            device: _Hearing(Receiving(self._layout.num_packets, max_attempts=attempts), Tally())
            for device in neighbours
        }
        self._sending = Sending(
            neighbours if answered else (), max_attempts=attempts, together=self._knobs.cast == "broadcast"
        )
        ready_air_s = self._start_air_s = self._end_air_s = self._radio.air_s
        if not neighbours:
            return
        outgoing = sent.outgoing[neighbours[0]]
        self._payload = outgoing.payload
        starts = []
        for group in self._groups(neighbours):
            start_air_s, reached = self._transmit(group, outgoing, self._layout, 0, ready_air_s)
            starts.append(start_air_s)
            for device in reached:
                self._hearings[device].tally.packets_sent = self._layout.num_packets
        self._start_air_s = min(starts)

    def hear(self, watch: Stopwatch) -> None:
        """Pass every frame that came in through the air, answer it, and repeat what was asked for."""
        for device in self._peers.neighbours:
            if device in self._closed:  # back after this round had closed without it
                continue
            while self._hear_frame(device, watch):
                pass
            if self._knobs.acknowledged:
                self._hear_answer(device)
        for repeat in self._sending.repeats() if self._knobs.acknowledged else ():
            self._repeat(repeat)
            watch.lap("send")

    def is_open(self, device: int) -> bool:
        """Say whether frames are awaited of a neighbour, or it may yet be sent something again."""
        return self._peers.inbox.may_come(device) or self._sending.wants(device)

    def close(self, device: int) -> Heard:
        """Add the packets that count, and write down what became of the others."""
        self._closed.add(device)
        hearing = self._hearings[device]
        mixed = hearing.receiving.intact if hearing.receiving.attempt >= 0 else None
        if mixed is not None and self._knobs.acknowledged and self._knobs.symmetric:
            theirs = self._sending.got(device)
            mixed = None if theirs is None else mixed & theirs
        tally = hearing.tally
        if mixed is None:
            tally.missing = "dead" if self._peers.inbox.is_dead(device) else "wall"
        else:
            weight = self._peers.neighbours[device].weight
            for x, selection, fresh in hearing.pieces:
                if selection is None:
                    counted = fresh & mixed
                    if counted.any():
                        self._arrived.add_(x, weight, counted)
                elif (counted := fresh & mixed[selection.packets]).any():
                    self._arrived.add_selection_(x, weight, selection, counted)
            late = hearing.receiving.late and hearing.receiving.attempt == 0
            tally.missing = "air" if late else ""  # a late repeat leaves what came before it
            tally.packets_lost = self._layout.num_packets - int(np.count_nonzero(mixed))
        return tally.heard(self._radio.ledger.account(device))

    def end(self) -> float:
        """Return when all that this device sent and waited for is through."""
        return self._end_air_s

    def _groups(self, devices: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Who is reached by one transmission."""
        return [devices] if self._knobs.cast == "broadcast" else [(device,) for device in devices]

    def _transmit(
        self, group: tuple[int, ...], outgoing: Outgoing, layout: Layout, attempt: int, ready_air_s: float
    ) -> tuple[float, list[int]]:
        """Put one transmission on the air; return when it began and who could be reached."""
        access = self._radio.access
        turn = 0 if self._knobs.cast == "broadcast" else self._radio.turns[group[0]]
        modulation = self._choose(group, layout, attempt, turn)
        start_air_s = access.data_start_s(ready_air_s, self._radio.slot, turn)
        stamp = Stamp(start_air_s, attempt, modulation)
        reached = self._peers.send(group, Kind.PARAMETERS, outgoing, stamp)
        airtime_s = self._airtime_s(layout, modulation, attempt)
        if reached and not self._ideal:
            self._radio.ledger.wait_for_slot(ready_air_s, start_air_s)
            self._radio.ledger.transmit(reached, airtime_s, start_air_s=start_air_s)
        self._end_air_s = max(self._end_air_s, start_air_s + airtime_s)
        return start_air_s, reached

    def _airtime_s(self, layout: Layout, modulation: Modulation, attempt: int) -> float:
        """Airtime of a transmission; a repeat says by a bitmap which packets of the whole frame it holds."""
        bitmap_bits = self._layout.num_packets if attempt else 0
        return self._radio.access.frame_airtime_s(layout, modulation, bitmap_bits=bitmap_bits)

    def _choose(self, group: tuple[int, ...], layout: Layout, attempt: int, turn: int) -> Modulation:
        """Choose the highest modulation that meets the target at every receiver, or the most robust one."""
        slowest, *faster = permitted(self._knobs)
        for modulation in reversed(faster):
            mine = Transmission(
                self._peers.inbox.round, self._peers.device, self._radio.slot, turn, attempt, modulation
            )
            table = self._radio.tables.get(modulation)
            packet_bits = int(layout.packet_bits[0])
            if all(
                meets_target(
                    self._knobs, modulation, self._radio.links[device].snr(mine, layout), packet_bits, table
                )
                for device in group
            ):
                return modulation
        return slowest

    def _hear_frame(self, device: int, watch: Stopwatch) -> bool:
        """Take in the next attempt of a neighbour's frame; False if it is not there."""
        hearing = self._hearings[device]
        receiving, tally = hearing.receiving, hearing.tally
        attempt = receiving.attempt + 1
        frame = self._peers.inbox.get(device, Kind.PARAMETERS, attempt)
        if frame is None or (attempt and receiving.complete):
            return False
        header = frame.header
        selection = selected(frame.payload, self._layout) if attempt else None
        layout, payload = (
            (self._layout, frame.payload) if selection is None else (selection.layout, selection.payload)
        )
        packets: Counts | slice = slice(None) if selection is None else selection.packets
        reception, arrival_air_s = self._cross(device, header, payload, layout)
        watch.lap("air")
        deadline_air_s = self._start_air_s + self._radio.experiment.aggregation.round_deadline_air_s
        on_time = arrival_air_s <= deadline_air_s
        x = decode(payload, layout)
        fresh = receiving.take(
            attempt, packets, reception.intact & finite_packets(x, layout), on_time=on_time
        )
        hearing.pieces.append((x, selection, fresh))
        if receiving.complete and on_time:
            for bad in reception.bad:
                self._accept(hearing, bad, packets)
        tally.attempts += 1
        tally.packets_corrupted += int(np.count_nonzero(~reception.intact))
        tally.bit_errors += reception.bit_errors
        self._end_air_s = max(self._end_air_s, min(arrival_air_s, deadline_air_s))
        if not receiving.complete:
            self._peers.inbox.await_also(device, Kind.PARAMETERS, attempt + 1)
        watch.lap("decode")
        if self._knobs.acknowledged:
            answered_air_s = self._answer(device, receiving, arrival_air_s)
            if on_time:  # what came too late is refused after the round has ended
                self._end_air_s = max(self._end_air_s, answered_air_s)
            watch.lap("send")
        return True

    def _cross(self, device: int, header: Header, payload: Bytes, layout: Layout) -> tuple[Reception, float]:
        """Let a frame cross the air; return what came of it and when it had arrived."""
        if self._ideal:
            return Reception(np.ones(layout.num_packets, dtype=np.bool_), 0), header.air_s
        neighbour = self._peers.neighbours[device]
        modulation = MODULATION_OF[header.modulation]
        turn = 0 if self._knobs.cast == "broadcast" else neighbour.turn
        theirs = Transmission(header.round, device, neighbour.slot, turn, header.attempt, modulation)
        reception = cross(
            payload,
            layout,
            self._knobs,
            self._radio.links[device].snr(theirs, layout),
            theirs,
            seed=self._radio.experiment.seed,
            receiver=self._peers.device,
            table=self._radio.tables.get(modulation),
        )
        airtime_s = self._airtime_s(layout, modulation, header.attempt)
        self._radio.ledger.receive(device, airtime_s)
        return reception, header.air_s + airtime_s

    def _accept(self, hearing: _Hearing, bad: Selection, packets: Counts | slice) -> None:
        """Take packets that stay bad with their flipped bits; impossible numbers count as erased.

        A number is erased by putting this device's own in its place, which leaves the weight with it.
        """
        x = decode(bad.payload, bad.layout).copy()
        which = bad.packets if isinstance(packets, slice) else packets[bad.packets]
        wanted = Selection(which, bad.layout, bad.payload)
        with np.errstate(invalid="ignore"):
            impossible = ~(np.abs(x) <= self._knobs.max_abs_value)
        if impossible.any():
            starts = [self._own[self._layout.values(int(packet))] for packet in which]
            x[impossible] = np.concatenate(starts)[impossible]
        fresh = ~hearing.receiving.intact[which]
        hearing.receiving.intact[which] = True
        hearing.pieces.append((x, wanted, fresh))

    def _answer(self, device: int, receiving: Receiving, arrival_air_s: float) -> float:
        """Tell a neighbour which of its packets are here by now; return when that is through."""
        access = self._radio.access
        bitmap = Outgoing(np.packbits(receiving.intact))
        start_air_s = access.ack_start_s(arrival_air_s, self._radio.slot, self._radio.turns[device])
        stamp = Stamp(start_air_s, receiving.attempt, final=receiving.complete)
        if self._peers.send((device,), Kind.ACK, bitmap, stamp):
            self._radio.ledger.transmit((device,), access.ack_turn_s, start_air_s=start_air_s)
        return start_air_s + access.ack_turn_s

    def _hear_answer(self, device: int) -> None:
        attempt = self._sending.unanswered(device)
        if attempt is None:
            return
        frame = self._peers.inbox.get(device, Kind.ACK, attempt)
        if frame is None:
            if not self._peers.inbox.may_come(device, Kind.ACK):
                self._sending.give_up(device)  # or whoever still misses something would wait for it
            return
        arrival_air_s = frame.header.air_s + self._radio.access.ack_turn_s
        got = np.unpackbits(frame.payload, count=self._layout.num_packets).view(np.bool_)
        final = bool(frame.header.flags & FLAG_FINAL) or bool(got.all())
        self._sending.answer(device, got, final=final, air_s=arrival_air_s)
        self._radio.ledger.receive(device, self._radio.access.ack_turn_s)
        self._end_air_s = max(self._end_air_s, arrival_air_s)

    def _repeat(self, repeat: Repeat) -> None:
        """Send packets again, for whoever misses some of them."""
        outgoing = Outgoing(select(self._payload, self._layout, repeat.packets))
        layout = self._layout.of(repeat.packets)
        _, reached = self._transmit(repeat.receivers, outgoing, layout, repeat.attempt, repeat.ready_air_s)
        for device in repeat.receivers:
            if device in reached:
                self._hearings[device].tally.packets_resent += len(repeat.packets)
                self._peers.inbox.await_also(device, Kind.ACK, repeat.attempt)
            else:
                self._sending.unsent(device)
