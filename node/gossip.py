"""Gossip over the digital radio: one frame to every neighbour, one of each, mixed with fixed weights.

What arrived is accumulated in neighbour order, so the sum does not depend on the order of arrival.
"""

import numpy as np
import torch

from node.antenna import Shape
from node.digital import Digital, Inbound, Outbound, accumulate_
from node.inbox import Inbox
from node.mixing import Arrived
from node.peers import Peers
from node.radio import Missing, Radio
from node.scheme import Sent
from node.stopwatch import Stopwatch
from node.transport.zmq import Buffers
from protocol.channel import Mask
from protocol.codec import Bytes, Float32s, Layout, decode, encode, side_bytes
from protocol.frame import Kind
from protocol.learning import Training
from protocol.scalars import NUM_BITS, NUM_BYTES, Scalars
from protocol.streams import Purpose, stream


def rounding_stream(
    layout: Layout, seed: int, round_: int, *, part: int, device: int
) -> np.random.Generator | None:
    """Return what a device rounds a part of a round to int8 with, at random, so that no mean is biased."""
    if layout.kind != "int8":
        return None
    return stream(seed, Purpose.QUANTISATION, round_=round_, attempt=part, a=device)


def at_most_j(radio: Radio, degree: int, *, hears: int) -> float:
    """Return the most that a frame to all neighbours and hearing so many may cost, without idling [J]."""
    sends = degree if radio.knobs.cast == "unicast" else min(degree, 1)
    return radio.grid.access.at_most_j(radio.hardware, sends=sends, to=degree, hears=hears)


def write_packets(
    x: torch.Tensor, layout: Layout, payload: Bytes, rounding: np.random.Generator | None
) -> torch.Tensor | None:
    """Write x, shape (num_values,), into a payload; return it as it will be decoded, None if that is x."""
    encode(x.numpy(), layout, payload, rounding)
    return None if layout.kind == "float32" else torch.from_numpy(decode(payload, layout))


class Gossip:
    """One device's averaging with its neighbours, for as long as the run lasts."""

    def __init__(
        self, peers: Peers[Inbox], radio: Radio, digital: Digital, layout: Layout, arrived: Arrived
    ) -> None:
        self._peers = peers
        self._radio = radio
        self._digital = digital
        self._layout = layout
        self._arrived = arrived
        self._adaptive = radio.experiment.training.is_adaptive
        self._buffers = Buffers(self.payload_bytes(radio.experiment.training, layout)[Kind.PARAMETERS])
        self._own: Float32s = np.empty(0, dtype=np.float32)
        """This device's numbers as its neighbours decode them."""
        self._sweep = 0
        self._inbounds: list[Inbound] = []
        self._outbound: Outbound | None = None  # a device without neighbours sends nothing

    @property
    def at_most_j(self) -> float:
        """What all sweeps of a round may cost this device at most, without idling [J]."""
        degree = len(self._peers.neighbours)
        return self._radio.experiment.aggregation.sweeps * at_most_j(self._radio, degree, hears=degree)

    @staticmethod
    def payload_bytes(training: Training, layout: Layout) -> dict[Kind, int]:
        """Bytes of the payload of each kind of frame."""
        side = side_bytes(NUM_BYTES) if training.is_adaptive else 0
        return {Kind.PARAMETERS: side + layout.payload_bytes, Kind.ACK: -(-layout.num_packets // 8)}

    def encode(self, x: torch.Tensor, round_: int, sweep: int) -> Sent:
        """Turn the parameters x, shape (num_values,), into radio packets, once for all neighbours."""
        [outgoing] = self._buffers.take(1)
        seed, me = self._radio.experiment.seed, self._peers.device
        rounding = rounding_stream(self._layout, seed, round_, part=sweep, device=me)
        payload = outgoing.payload[self._shape(sweep).side_bytes :]
        xhat = write_packets(x, self._layout, payload, rounding)
        if self._adaptive:
            self._radio.said.write(outgoing.payload)
        self._own = (x if xhat is None else xhat).numpy()
        return Sent(dict.fromkeys(self._peers.neighbours, outgoing), xhat)

    def begin(self, sent: Sent, round_: int, sweep: int) -> None:
        """Send the whole frame to every neighbour, and await theirs and their answers."""
        digital, knobs, neighbours = self._digital, self._radio.knobs, self._peers.neighbours
        self._arrived.clear_()
        self._sweep = sweep
        if sweep == 0:
            own_weight = 1 - sum(neighbour.weight for neighbour in neighbours.values())
            self._radio.told = Scalars().joined(self._radio.said, own_weight)
        digital.begin(round_, sweep, self._radio.grid, answered=knobs.acknowledged)
        self._inbounds, self._outbound = [], None
        if not neighbours:
            return
        broadcast, shape = knobs.cast == "broadcast", self._shape(sweep)
        turns = dict.fromkeys(neighbours, 0) if broadcast else self._radio.grid.turns
        [outgoing] = set(sent.outgoing.values())
        self._outbound = digital.send(shape, outgoing, turns, ready_air_s=self._radio.air_s)
        deadline_air_s = self._outbound.start_air_s + self._radio.experiment.aggregation.round_deadline_air_s
        for device, neighbour in neighbours.items():
            self._radio.tally(device)
            turn = 0 if broadcast else neighbour.turn
            self._inbounds.append(
                digital.listen(shape, device, self._own, turn=turn, deadline_air_s=deadline_air_s)
            )

    def advance(self, watch: Stopwatch) -> bool:
        """Let the radio hear, and accumulate in order whatever is complete; True once nothing may follow."""
        if self._outbound is None:
            return True
        self._digital.hear(watch)
        while self._inbounds and not (
            self._digital.is_coming(self._inbounds[0])
            or self._digital.is_going(self._outbound, self._inbounds[0].device)
        ):
            self._close(self._inbounds.pop(0), self._outbound)
        watch.lap("decode")
        return not self._inbounds

    def end(self) -> float:
        """Return when all that this device sent and waited for is through."""
        return self._digital.end_air_s

    def _shape(self, sweep: int) -> Shape:
        return Shape(sweep, self._layout, side_bits=NUM_BITS if self._adaptive else 0)

    def _close(self, inbound: Inbound, outbound: Outbound) -> None:
        """Add the packets that count, and write down what became of the others."""
        inbound.closed = True
        device, tally = inbound.device, self._radio.tally(inbound.device)
        mixed = self._counted(inbound, outbound)
        if mixed is None:
            tally.missing = self._why_missing(inbound, outbound)
            return
        weight = self._peers.neighbours[device].weight
        accumulate_(self._arrived, inbound, weight, mixed)
        if self._adaptive and self._sweep == 0:
            self._radio.told = self._radio.told.joined(Scalars.read(inbound.whole), weight)
        if inbound.receiving.late and inbound.receiving.attempt == 0:  # a late repeat leaves what came before
            tally.missing = "air"
        tally.packets_lost += self._layout.num_packets - int(np.count_nonzero(mixed))

    def _why_missing(self, inbound: Inbound, outbound: Outbound) -> Missing:
        """Say why nothing is mixed of a neighbour: on the air where one of both had no time left."""
        kept_back = self._radio.is_cut and inbound.device not in outbound.reached
        refused = outbound.sending.unanswered(inbound.device) is None
        if inbound.receiving.late or (inbound.heard and (kept_back or refused)):
            return "air"
        return "dead" if self._peers.inbox.has_ended(inbound.device) else "wall"

    def _counted(self, inbound: Inbound, outbound: Outbound) -> Mask | None:
        """Return which packets of a neighbour are mixed; None if it, or its answer, is missing."""
        if not inbound.heard:
            return None
        knobs = self._radio.knobs
        if not (knobs.acknowledged and knobs.symmetric):
            return inbound.receiving.intact
        theirs = outbound.sending.got(inbound.device)
        return None if theirs is None else inbound.receiving.intact & theirs
