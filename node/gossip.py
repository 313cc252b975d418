"""Gossip: one exchange with every neighbour, through the radio, over whatever carries the frames.

A round is one frame of parameters to every neighbour and, unless the channel is ideal or losses may
be one-sided, one acknowledgement bitmap for every frame heard. Frames pass the air as they arrive
and are accumulated in neighbour order, so the sum does not depend on the order of arrival.
"""

from collections import Counter
from dataclasses import dataclass
from time import monotonic
from typing import Literal

import numpy as np
import torch

from node.control import SLICE_WALL_S, Control
from node.inbox import Expected, Frame, Inbox
from node.mixing import Arrived
from node.stopwatch import Stopwatch
from node.transport.zmq import Outgoing, ZmqTransport
from protocol.air import Hop, airtime_s, cross
from protocol.channel import Mask
from protocol.codec import Bytes, Float32s, Layout, decode, encode, finite_packets
from protocol.errors import FrameError
from protocol.frame import Header, Kind, run_number, shape_of, unpack
from protocol.messages import Heard, Neighbour, Welcome
from protocol.streams import Purpose, stream


@dataclass(frozen=True)
class Sent:
    """What this device put on the air this round; `xhat` is how its neighbours decode it (None: x itself)."""

    outgoing: Outgoing
    xhat: torch.Tensor | None


@dataclass
class _Hearing:
    """A neighbour's frame after the air: its numbers, which packets survived, and what was counted."""

    x: Float32s
    intact: Mask
    arrival_air_s: float
    on_time: bool
    packets_corrupted: int
    bit_errors: int


class Gossip:
    """One device's exchanges with its neighbours, for as long as the run lasts."""

    def __init__(
        self, welcome: Welcome, neighbours: tuple[Neighbour, ...], transport: ZmqTransport, layout: Layout
    ) -> None:
        experiment = welcome.experiment
        self._me = welcome
        self._experiment = experiment
        self._neighbours = {n.device: n for n in sorted(neighbours, key=lambda n: n.device)}
        self._transport = transport
        self._layout = layout
        self._acknowledged = experiment.radio.symmetric and experiment.radio.scheme != "ideal"
        self._run = run_number(welcome.run_id)
        ack_bytes = -(-layout.num_packets // 8)
        self._inbox = Inbox(
            Expected(
                run=self._run,
                epoch=welcome.epoch,
                shape=shape_of(layout),
                payload_bytes={Kind.PARAMETERS: layout.payload_bytes, Kind.ACK: ack_bytes},
            ),
            {n.device: n.incarnation for n in self._neighbours.values()},
            (Kind.PARAMETERS, Kind.ACK) if self._acknowledged else (Kind.PARAMETERS,),
        )
        self._outgoing = [Outgoing(layout.payload_bytes) for _ in range(2)]
        self._arrived = Arrived(layout)
        self._airtime_s = airtime_s(layout, experiment.radio) if neighbours else 0.0
        self._bytes_before = 0
        self._misnamed: Counter[str] = Counter()
        self.air_s = 0.0
        """This device's own modelled clock."""
        self.heard: dict[int, Heard] = {}
        """What passed in the last exchange, per neighbour."""

    def encode(self, x: torch.Tensor, round_: int) -> Sent:
        """Turn the parameters x, shape (num_values,), into radio packets, once for all neighbours."""
        outgoing = next((buffer for buffer in self._outgoing if buffer.free), None)
        if outgoing is None:  # a stalled neighbour still holds both; its queue bounds how many there can be
            outgoing = Outgoing(self._layout.payload_bytes)
            self._outgoing.append(outgoing)
        seed, rounding = self._experiment.seed, None
        if self._layout.kind == "int8":
            rounding = stream(seed, Purpose.QUANTISATION, round_=round_, a=self._me.device)
        encode(x.numpy(), self._layout, outgoing.payload, rounding)
        lossless = self._layout.kind == "float32"
        return Sent(outgoing, None if lossless else torch.from_numpy(decode(outgoing.payload, self._layout)))

    def exchange(self, sent: Sent, round_: int, control: Control, watch: Stopwatch) -> Arrived:
        """Send to every neighbour and hear every neighbour; return (s, m) of what arrived in time.

        Waits at most `runtime.liveness_wall_s` for whoever is neither dead nor silent. Raises Leave
        when the coordinator says so, or is away for longer than the grace.
        """
        self._inbox.begin(round_)
        self._arrived.clear_()
        self.heard = {}
        hearings: dict[int, _Hearing] = {}
        start_air_s = self.air_s
        reached = self._send_to_all(sent, round_)
        self._heed(control)
        watch.lap("send")
        next_look = monotonic() + SLICE_WALL_S
        deadline = monotonic() + self._experiment.runtime.liveness_wall_s
        # Whoever was silent may be back: its frames count though nobody waits for them.
        while monotonic() < deadline and (delivery := self._transport.receive(0)) is not None:
            self._take(delivery.peer, delivery.header, delivery.payload)
        in_order = iter(self._neighbours)
        turn = next(in_order, None)
        while True:
            self._hear(hearings, start_air_s, watch)
            while turn is not None and not self._inbox.may_come(turn):
                self._accumulate(turn, hearings.get(turn), reached)
                turn = next(in_order, None)
            watch.lap("decode")
            if turn is None:
                break
            delivery = self._transport.receive(min(deadline - monotonic(), SLICE_WALL_S))
            watch.lap("wait")
            now = monotonic()
            if delivery is not None:
                self._take(delivery.peer, delivery.header, delivery.payload)
            if delivery is None or now >= next_look:  # however much arrives, the coordinator is heard
                self._heed(control)
                next_look = now + SLICE_WALL_S
            if now >= deadline:
                self._inbox.silence()
        self._advance_clock(start_air_s, hearings)
        return self._arrived

    def is_behind(self, round_: int) -> bool:
        """Say whether a living neighbour has gone beyond this round, so that there is no time to train."""
        return self._inbox.is_behind(round_)

    def bytes_sent(self) -> int:
        """Bytes handed to the socket since the last call, headers included."""
        now = self._transport.bytes_sent
        sent, self._bytes_before = now - self._bytes_before, now
        return sent

    def dropped(self) -> dict[str, int]:
        """Return the frames refused since the last call, as `device N: reason` -> count."""
        counts = Counter({f"device {d}: {v}": n for (d, v), n in self._inbox.dropped.items()})
        counts += self._misnamed
        self._inbox.dropped.clear()
        self._misnamed.clear()
        return dict(counts)

    def _header(self, kind: Kind, round_: int, payload_bytes: int) -> bytes:
        codec, flags, num_values, packet_bytes = shape_of(self._layout)
        return Header(
            kind=kind,
            run=self._run,
            epoch=self._me.epoch,
            sender=self._me.device,
            incarnation=self._me.incarnation,
            round=round_,
            attempt=0,
            codec=codec,
            flags=flags,
            num_values=num_values,
            packet_bytes=packet_bytes,
            payload_bytes=payload_bytes,
            air_s=self.air_s,
        ).pack()

    def _send_to_all(self, sent: Sent, round_: int) -> set[int]:
        header = self._header(Kind.PARAMETERS, round_, len(sent.outgoing.payload))
        return {device for device in self._neighbours if self._transport.send(device, header, sent.outgoing)}

    def _heed(self, control: Control) -> None:
        """Wait no longer for whoever the coordinator says is dead."""
        for death in control.news():
            if self._inbox.died(death.device, death.incarnation):
                self._transport.forget(death.device)

    def _take(self, peer: str, header: bytes, payload: Bytes) -> None:
        try:
            frame = Frame(unpack(header), payload)
            if peer != str(frame.header.sender):
                raise FrameError(f"signed as device {frame.header.sender}")
        except FrameError as error:
            self._misnamed[f"device {peer}: {error}"] += 1
            return
        self._inbox.feed(frame)

    def _hear(self, hearings: dict[int, _Hearing], start_air_s: float, watch: Stopwatch) -> None:
        """Pass every frame that came in through the air, and acknowledge what survived."""
        for device, neighbour in self._neighbours.items():
            frame = self._inbox.get(device, Kind.PARAMETERS)
            if frame is None or device in hearings or device in self.heard:
                continue  # not in, already heard, or back after this round had closed without it
            hop = Hop(
                self._experiment.seed, self._inbox.round, device, self._me.device, neighbour.mean_snr_db
            )
            reception = cross(frame.payload, self._layout, self._experiment.radio, hop)
            watch.lap("air")
            x = decode(frame.payload, self._layout)
            arrival_air_s = frame.header.air_s + self._airtime_s
            on_time = arrival_air_s <= start_air_s + self._experiment.aggregation.round_deadline_air_s
            intact = reception.intact & finite_packets(x, self._layout) & on_time
            corrupted = int(np.count_nonzero(~reception.intact))
            hearings[device] = _Hearing(x, intact, arrival_air_s, on_time, corrupted, reception.bit_errors)
            watch.lap("decode")
            if self._acknowledged:
                bitmap = Outgoing(0)
                bitmap.payload = np.packbits(intact)
                header = self._header(Kind.ACK, self._inbox.round, len(bitmap.payload))
                self._transport.send(device, header, bitmap)
                watch.lap("send")

    def _accumulate(self, device: int, hearing: _Hearing | None, reached: set[int]) -> None:
        """Add what counts of one neighbour, and write down what became of its packets."""
        num_packets = self._layout.num_packets
        mixed = None if hearing is None else hearing.intact
        missing: Literal["", "air", "wall", "dead"] = ""
        if self._acknowledged and mixed is not None:
            ack = self._inbox.get(device, Kind.ACK)
            theirs = None if ack is None else np.unpackbits(ack.payload, count=num_packets).view(np.bool_)
            mixed = None if theirs is None else mixed & theirs
        if hearing is not None and mixed is not None:
            if mixed.any():
                self._arrived.add_(hearing.x, self._neighbours[device].weight, mixed)
            missing = "" if hearing.on_time else "air"
        else:
            missing = "dead" if self._inbox.is_dead(device) else "wall"
        self.heard[device] = Heard(
            packets_sent=num_packets if device in reached else 0,
            packets_corrupted=0 if hearing is None else hearing.packets_corrupted,
            packets_lost=0 if mixed is None else num_packets - int(np.count_nonzero(mixed)),
            bit_errors=0 if hearing is None else hearing.bit_errors,
            missing=missing,
        )

    def _advance_clock(self, start_air_s: float, hearings: dict[int, _Hearing]) -> None:
        """End the round when the own frame is out and the last frame is in, or at the deadline."""
        deadline_air_s = start_air_s + self._experiment.aggregation.round_deadline_air_s
        own_end_air_s = start_air_s + self._airtime_s
        last_air_s = max((hearing.arrival_air_s for hearing in hearings.values()), default=own_end_air_s)
        self.air_s = max(own_end_air_s, min(last_air_s, deadline_air_s))
