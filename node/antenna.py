"""The antenna: puts transmissions on the air, each with its time, rate and cost, and takes in what comes.

Nothing here waits or remembers what is under way: that is up to those who use it. With
`radio.scheme = "ideal"` it is the same without an air.
"""

from dataclasses import dataclass

import numpy as np

from node.door import Keeper
from node.peers import Peers, Stamp
from node.radio import Grid, Radio
from node.transport.zmq import Outgoing
from protocol.air import Transmission, cross, meets_target
from protocol.channel import Reception
from protocol.codec import Bytes, Layout, side_bytes
from protocol.frame import MODULATION_OF, Header, Kind
from protocol.modulation import permitted
from protocol.radio import Modulation


@dataclass(frozen=True)
class Shape:
    """What one frame is like: its part of the round, its packets, and how much side information it has.

    Side information lies before the packets and is taken as error-free.
    """

    part: int
    layout: Layout
    side_bits: int = 0

    @property
    def side_bytes(self) -> int:
        """Bytes before the packets."""
        return side_bytes(-(-self.side_bits // 8))


@dataclass(frozen=True)
class Emission:
    """One transmission of parameters: what, to whom, and in which turn of this device's slot."""

    shape: Shape
    outgoing: Outgoing
    receivers: tuple[int, ...]
    turn: int
    attempt: int = 0


@dataclass(frozen=True)
class Emitted:
    """What became of a transmission; where there was no time for it, nobody was reached."""

    start_air_s: float
    end_air_s: float
    """0 where there was no time for it."""
    reached: list[int]
    """Receivers whose queue took it."""


class Antenna:
    """One device's way into the air, and out of it."""

    def __init__(self, peers: Peers[Keeper], radio: Radio) -> None:
        self.radio = radio
        self._peers = peers
        self._knobs = radio.knobs
        self._ideal = radio.knobs.scheme == "ideal"
        self.grid = radio.grid
        """Of the present exchange."""
        self.answered = False
        """Whether receivers answer frames in it."""
        self._round = 0

    def begin(self, round_: int, grid: Grid, *, answered: bool) -> None:
        """Enter an exchange, in which receivers answer frames or do not."""
        self._round, self.grid, self.answered = round_, grid, answered

    def transmit(self, emission: Emission, ready_air_s: float) -> Emitted:
        """Put a transmission on the air, in its first turn that is not before ready_air_s.

        Nobody is reached if it or its answers would end after this device has to be silent.
        """
        shape, receivers, access = emission.shape, emission.receivers, self.grid.access
        modulation = self._choose(emission)
        start_air_s = access.data_start_s(ready_air_s, self.grid.slot, emission.turn)
        airtime_s = self._airtime_s(shape, modulation)
        end_air_s = start_air_s + airtime_s
        if not self.radio.has_time_until(access.answered_s(end_air_s) if self.answered else end_air_s):
            stamp = Stamp(start_air_s, shape.part, emission.attempt)
            self._peers.keep_back(receivers, Kind.PARAMETERS, stamp)
            return Emitted(start_air_s, 0.0, [])
        stamp = Stamp(start_air_s, shape.part, emission.attempt, modulation)
        reached = self._peers.send(receivers, Kind.PARAMETERS, emission.outgoing, stamp)
        if reached and not self._ideal:
            self.radio.ledger.wait_for_slot(ready_air_s, start_air_s)
            self.radio.ledger.transmit(reached, airtime_s, start_air_s=start_air_s)
        return Emitted(start_air_s, end_air_s, reached)

    def arrival_air_s(self, header: Header, shape: Shape) -> float:
        """Return when the last of a frame of parameters has come."""
        if self._ideal:
            return header.air_s
        return header.air_s + self._airtime_s(shape, MODULATION_OF[header.modulation])

    def cross(self, header: Header, payload: Bytes, shape: Shape, *, turn: int) -> Reception:
        """Let a frame, sent in a turn of its sender's slot, cross the air; return what came of it."""
        if self._ideal:
            return Reception(np.ones(shape.layout.num_packets, dtype=np.bool_), 0)
        modulation, sender = MODULATION_OF[header.modulation], header.sender
        theirs = Transmission(
            header.round,
            sender,
            self._peers.neighbours[sender].slot,
            turn,
            header.attempt,
            modulation,
            header.part,
        )
        reception = cross(
            payload,
            shape.layout,
            self._knobs,
            self.radio.links[sender].snr(theirs, shape.layout, self.grid.access),
            theirs,
            seed=self.radio.experiment.seed,
            receiver=self._peers.device,
            table=self.radio.tables.get(modulation),
        )
        if self.arrival_air_s(header, shape) <= self.radio.until_air_s:
            self.radio.ledger.receive(sender, self._airtime_s(shape, modulation))
        return reception

    def _airtime_s(self, shape: Shape, modulation: Modulation) -> float:
        return self.grid.access.frame_airtime_s(shape.layout, modulation, side_bits=shape.side_bits)

    def _choose(self, emission: Emission) -> Modulation:
        """Choose the highest modulation that meets the target at every receiver, or the most robust one."""
        slowest, *faster = permitted(self._knobs)
        shape, me, slot = emission.shape, self._peers.device, self.grid.slot
        for modulation in reversed(faster):
            mine = Transmission(
                self._round, me, slot, emission.turn, emission.attempt, modulation, shape.part
            )
            table, packet_bits = self.radio.tables.get(modulation), int(shape.layout.packet_bits[0])
            snrs = [self.radio.links[d].snr(mine, shape.layout, self.grid.access) for d in emission.receivers]
            if all(meets_target(self._knobs, modulation, snr, packet_bits, table) for snr in snrs):
                return modulation
        return slowest
