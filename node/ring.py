"""Exact averaging along a ring: everybody adds to every chunk once, then every chunk goes round once more.

The parameters are cut into as many chunks as there are devices, N. In each of 2 (N - 1) steps every device
sends one chunk to the next and hears one from the one before: N - 1 steps until each device holds the
mean of one chunk over all devices, N - 1 until everybody holds all of them (ring all-reduce: Patarasuk
and Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations", J. Parallel Distrib.
Comput. 69(2), 2009).
"""

from collections.abc import Iterable
from math import inf
from typing import Literal

from node.averaging import Averaging, Program, Turns
from node.digital import Digital, Inbound
from node.door import Part
from node.partial import Partial
from protocol.codec import Layout
from protocol.messages import RingPlace

TURN = 0


class Ring(Averaging):
    """One device's place in a ring."""

    kind: Literal["ring"] = "ring"

    def __init__(self, digital: Digital, place: RingPlace, layout: Layout) -> None:
        super().__init__(
            digital,
            layout.cut(place.members),
            members=place.members,
            links=(place.previous,),
            turns=Turns(data=1, ack=1),
        )
        self._place = place
        self._steps = 2 * (place.members - 1)
        self._inbounds: list[Inbound] = []

    @property
    def parts(self) -> dict[int, Part]:
        """What the frames of each step are like; what is answered is the chunk that goes."""
        return {
            self._first_part + step: self._part(self._coming(step), self._going(step))
            for step in range(self._steps)
        }

    @property
    def at_most_j(self) -> float:
        """What one exchange may cost this device at most, without idling [J]."""
        return self._steps * self._grid.access.at_most_j(self._radio.hardware, sends=1, to=1, hears=1)

    def _going(self, step: int) -> Partial:
        """Return the chunk that this device sends in a step."""
        return self._partials[(self._place.position - step) % self._place.members]

    def _coming(self, step: int) -> Partial:
        """Return the chunk that it hears: the one that the device before it sends."""
        return self._partials[(self._place.position - 1 - step) % self._place.members]

    def _programs(self) -> Iterable[Program]:
        self._inbounds = [
            self._listen(
                self._coming(step),
                self._place.previous,
                part=self._first_part + step,
                turn=TURN,
                deadline_s=(step + 1) * self._deadline_s if step < self._place.members - 1 else inf,
            )
            for step in range(self._steps)
        ]
        return [self._go_round()]

    def _go_round(self) -> Program:
        first = self._going(0)
        self._add_own_(first)
        first.mean_()
        outgoing, ready_air_s = self._pack(first, part=self._first_part), self._radio.air_s
        for step, inbound in enumerate(self._inbounds):
            part = self._first_part + step
            yield from self._send(
                outgoing, self._going(step), {self._place.next: TURN}, part=part, ready_air_s=ready_air_s
            )
            yield inbound
            partial, ready_air_s = self._coming(step), inbound.end_air_s
            if step < self._place.members - 1:
                self._add_own_(partial)
                partial.add_(inbound)
                partial.mean_()
                outgoing = self._pack(partial, part=part + 1)
                if step == self._place.members - 2:  # complete, and everybody shall have the same
                    partial.round_(outgoing.payload)
            else:
                partial.take_(inbound)
                if inbound is not self._inbounds[-1]:
                    outgoing = self._forward(partial, inbound, part=part + 1)
