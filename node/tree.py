"""Exact averaging along a tree: partial means go up to the root, the mean comes down to everybody.

The parameters are cut into chunks that follow each other, so that all levels of the tree work at a time.
A device waits for a chunk of all its children, adds its own, and passes it on. The way down is a
multicast, one transmission to all children, where `radio.cast` is broadcast.
"""

from collections.abc import Iterable
from typing import Literal

from node.averaging import Averaging, Program, Turns
from node.digital import Digital, Inbound
from node.door import Part
from protocol.codec import Layout
from protocol.messages import TreePlace

UP_TURN, DOWN_TURN = 0, 1
"""Turns of a device's slot: the first to its parent, then one to all its children, or one to each."""


class Tree(Averaging):
    """One device's place in a tree."""

    kind: Literal["tree"] = "tree"

    def __init__(self, digital: Digital, place: TreePlace, layout: Layout) -> None:
        links = set(place.children) | ({place.parent} if place.parent is not None else set())
        down_turns = 1 if digital.radio.knobs.cast == "broadcast" else place.max_children
        super().__init__(
            digital,
            layout.cut(min(digital.radio.experiment.aggregation.chunks, layout.num_values)),
            members=place.members,
            links=links,
            turns=Turns(data=1 + down_turns, ack=1 + place.max_children),
        )
        self._place = place
        self._down_turns = {
            child: DOWN_TURN + (0 if self._broadcast else turn) for turn, child in enumerate(place.children)
        }
        self._from_children: list[list[Inbound]] = []
        self._from_parent: list[Inbound] = []

    @property
    def parts(self) -> dict[int, Part]:
        """What frames are like: of every chunk one on its way up, then one on its way down."""
        return {
            part: self._part(partial, partial)
            for k, partial in enumerate(self._partials)
            for part in (self._up_part(k), self._down_part(k))
        }

    @property
    def at_most_j(self) -> float:
        """What one exchange may cost this device at most, without idling [J]."""
        up, links = int(self._place.parent is not None), len(self._grid.turns)
        sends = up + len(set(self._down_turns.values()))
        one = self._grid.access.at_most_j(self._radio.hardware, sends=sends, to=links, hears=links)
        return len(self._partials) * one

    def _up_part(self, k: int) -> int:
        return self._first_part + 2 * k

    def _down_part(self, k: int) -> int:
        return self._first_part + 2 * k + 1

    def _programs(self) -> Iterable[Program]:
        place, chunks = self._place, list(enumerate(self._partials))
        self._from_children = [
            [
                self._listen(
                    p,
                    child,
                    part=self._up_part(k),
                    turn=UP_TURN,
                    deadline_s=place.height * self._deadline_s,
                )
                for child in place.children
            ]
            for k, p in chunks
        ]
        if place.parent is None:
            return [self._turn_round()]
        turn = DOWN_TURN + (0 if self._broadcast else place.turn)
        self._from_parent = [
            self._listen(p, place.parent, part=self._down_part(k), turn=turn) for k, p in chunks
        ]
        return [self._up(place.parent), self._down()]

    def _gather(self, k: int) -> Program:
        """Join a chunk of one's own with those of all children, in their order."""
        partial = self._partials[k]
        self._add_own_(partial)
        for inbound in self._from_children[k]:
            yield inbound
            partial.add_(inbound)

    def _ready_air_s(self, k: int) -> float:
        return max([self._radio.air_s, *(inbound.end_air_s for inbound in self._from_children[k])])

    def _up(self, parent: int) -> Program:
        for k, partial in enumerate(self._partials):
            yield from self._gather(k)
            part = self._up_part(k)
            partial.mean_()
            outgoing = self._pack(partial, part=part)
            yield from self._send(
                outgoing, partial, {parent: UP_TURN}, part=part, ready_air_s=self._ready_air_s(k)
            )

    def _turn_round(self) -> Program:
        """Let the mean, which is complete at the root, go down."""
        for k, partial in enumerate(self._partials):
            yield from self._gather(k)
            part = self._down_part(k)
            partial.mean_()
            outgoing = self._pack(partial, part=part)
            partial.round_(outgoing.payload)  # everybody shall have the same
            if self._down_turns:
                yield from self._send(
                    outgoing, partial, self._down_turns, part=part, ready_air_s=self._ready_air_s(k)
                )

    def _down(self) -> Program:
        for k, partial in enumerate(self._partials):
            inbound = self._from_parent[k]
            yield inbound
            partial.take_(inbound)
            if self._down_turns:
                part = self._down_part(k)
                outgoing = self._forward(partial, inbound, part=part)
                yield from self._send(
                    outgoing, partial, self._down_turns, part=part, ready_air_s=inbound.end_air_s
                )
