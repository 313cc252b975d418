"""Exact averaging as a program of frames: what devices on a tree and on a ring have in common.

What a device does is written down as the order in which it waits and sends (`_programs`); several of them
go on side by side. Exactness is claimed only where every packet came: one that stays lost takes devices
out of the mean on the way in, and on the way back leaves those behind it with their own numbers. Where
somebody is gone that this device waits for, the exchange is broken, and nothing of it is used.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Literal, TypeAlias

import numpy as np
import torch

from node.digital import Digital, Inbound, Outbound
from node.door import SCHEDULED, Part
from node.gossip import rounding_stream
from node.partial import Partial, PartialFrames
from node.radio import Grid
from node.stopwatch import Stopwatch
from node.transport.zmq import Outgoing
from protocol.access import plan_scheduled_access
from protocol.codec import Chunk
from protocol.frame import Kind
from protocol.messages import Averaged
from protocol.scalars import Scalars

Program: TypeAlias = Iterator[Inbound | Outbound]
"""What one device does in order; it yields whatever it waits for, and goes on when nothing more may come."""


@dataclass(frozen=True)
class Turns:
    """Turns that a slot needs, of any device of a schedule: to send its frames, and to answer others."""

    data: int
    ack: int


class Averaging(ABC):
    """One device's part in exact averaging, for as long as its schedule lasts."""

    def __init__(
        self, digital: Digital, chunks: tuple[Chunk, ...], *, members: int, links: Iterable[int], turns: Turns
    ) -> None:
        self._digital = digital
        self._radio = digital.radio
        self._inbox = digital.peers.inbox
        self._device = digital.peers.device
        self._broadcast = digital.radio.knobs.cast == "broadcast"
        self._answered = digital.radio.knobs.attempts > 1
        adaptive = digital.radio.experiment.training.is_adaptive
        self._partials = [Partial(chunk, members=members, adaptive=adaptive) for chunk in chunks]
        self._frames = PartialFrames()
        self._grid = self._plan_grid(links, turns)
        aggregation = digital.radio.experiment.aggregation
        self._first_part = aggregation.sweeps
        self._deadline_s = aggregation.round_deadline_air_s
        """Within which partial means must come, once more for each that had to wait for others itself; the
        complete one is waited for."""
        self._waits: list[tuple[Program, Inbound | Outbound | None]] = []
        self._x = torch.empty(0)
        self._round = 0
        self._contributes = True
        self.broken = False

    @property
    @abstractmethod
    def kind(self) -> Literal["tree", "ring"]:
        """What devices are joined to."""

    @property
    @abstractmethod
    def at_most_j(self) -> float:
        """What one exchange may cost this device at most, without idling [J]."""

    @property
    @abstractmethod
    def parts(self) -> dict[int, Part]:
        """What the frames of each part are like that this device receives."""

    @abstractmethod
    def _programs(self) -> Iterable[Program]:
        """Return what this device does in a round, as programs that go on side by side."""

    def begin(self, x: torch.Tensor, round_: int, *, contributes: bool) -> None:
        """Enter a round with the parameters x, shape (num_values,), and send what can be sent at once."""
        self._x, self._round, self.broken = x, round_, False
        self._contributes = contributes
        self._digital.begin(round_, SCHEDULED, self._grid, answered=self._answered)
        for partial in self._partials:
            partial.clear_()
        self._waits = [(program, next(program, None)) for program in self._programs()]

    def break_off(self) -> None:
        """Let nothing be waited for any more, nor used of what has come."""
        self.broken = True

    def advance(self, watch: Stopwatch) -> bool:
        """Go as far as possible with what has come in; True once nothing is left to do, or it is broken."""
        self._digital.hear(watch)
        if self._inbox.is_schedule_left() or self._radio.is_cut:
            self.broken = True
        self._waits = [
            (program, wait)
            for program, awaited in self._waits
            if (wait := self._go_on(program, awaited)) is not None
        ]
        watch.lap("decode")
        return self.broken or not self._waits

    def end(self) -> float:
        """Return when all that this device sent and waited for is through."""
        return self._digital.end_air_s

    def settle_(self, x: torch.Tensor, step: float) -> Averaged:
        """Move x, shape (num_values,), to the mean wherever there is one: x += step (mean - x)."""
        counts = np.concatenate([partial.counts for partial in self._partials])
        if self.broken:
            counts.fill(0)
        else:
            for partial in self._partials:
                partial.settle_(x, step)
            heard = [partial.scalars for partial in self._partials if partial.scalars.devices > 0]
            self._radio.told = heard[0] if heard else Scalars()
        there = counts[counts > 0]
        return Averaged(
            kind=self.kind,
            broken=self.broken,
            blocks=len(counts),
            blocks_kept=len(counts) - len(there),
            contributors_min=int(counts.min()),
            contributors_mean=float(there.mean()) if len(there) else 0.0,
        )

    def _go_on(self, program: Program, wait: Inbound | Outbound | None) -> Inbound | Outbound | None:
        """Let a program go as far as it can; return what it waits for then, None at its end."""
        while wait is not None and not self.broken and not self._must_wait(wait):
            if isinstance(wait, Inbound):
                if not wait.heard:
                    self.broken = True
                    break
                lost = wait.shape.layout.num_packets - np.count_nonzero(wait.receiving.intact)
                self._radio.tally(wait.device).packets_lost += int(lost)
            wait = next(program, None)
        return wait

    def _must_wait(self, wait: Inbound | Outbound) -> bool:
        """Say whether more may come of what a program waits for."""
        if isinstance(wait, Inbound):
            return self._digital.is_coming(wait)
        return any(self._digital.is_going(wait, device) for device in wait.turns)

    def _listen(
        self, partial: Partial, device: int, *, part: int, turn: int, deadline_s: float = inf
    ) -> Inbound:
        """Await the frame of a mean from a device, sent in a turn of its slot."""
        return self._digital.listen(
            partial.shape(part),
            device,
            self._x[partial.chunk.values].numpy(),
            turn=turn,
            deadline_air_s=self._radio.air_s + deadline_s,
        )

    def _add_own_(self, partial: Partial) -> None:
        """Add what this device has learned, and what it tells the others; who only relays is in no mean."""
        if self._contributes:
            partial.add_own_(self._x)
        partial.scalars = partial.scalars.joined(self._radio.said)

    def _pack(self, partial: Partial, *, part: int) -> Outgoing:
        """Write the frame of a partial mean."""
        layout, seed = partial.chunk.layout, self._radio.experiment.seed
        rounding = rounding_stream(layout, seed, self._round, part=part, device=self._device)
        return self._frames.pack(partial, part, rounding)

    def _forward(self, partial: Partial, inbound: Inbound, *, part: int) -> Outgoing:
        """Return the frame of a mean as it came, so that nothing is rounded twice.

        Packets that did not come are marked as holding nobody; where bit errors were accepted it is written
        anew.
        """
        if inbound.accepted:
            return self._pack(partial, part=part)
        return self._frames.copy(inbound.whole, partial, part)

    def _send(
        self, outgoing: Outgoing, partial: Partial, turns: Mapping[int, int], *, part: int, ready_air_s: float
    ) -> Program:
        """Send a frame, each receiver in its turn; the next one waits until this one has been answered."""
        outbound = self._digital.send(partial.shape(part), outgoing, turns, ready_air_s=ready_air_s)
        missed = turns.keys() - outbound.reached
        if not all(self._inbox.is_dead(device) for device in missed):  # its queue is full: it waits in vain
            self.broken = True
        if self._answered:
            yield outbound

    def _plan_grid(self, links: Iterable[int], turns: Turns) -> Grid:
        """Lay out the slots for frames of the largest chunk."""
        largest = max((partial.shape(0) for partial in self._partials), key=lambda s: s.layout.payload_bytes)
        access = plan_scheduled_access(
            self._radio.experiment,
            largest.layout,
            num_colours=self._radio.num_colours,
            data_turns=turns.data,
            ack_turns=turns.ack,
            side_bits=largest.side_bits,
        )
        return Grid(
            access, self._radio.grid.slot, {device: turn for turn, device in enumerate(sorted(links))}
        )

    def _part(self, comes: Partial, goes: Partial) -> Part:
        """Say what frames and answers are like, where one chunk comes and another one goes."""
        shape = comes.shape(0)
        frame = shape.side_bytes + shape.layout.payload_bytes
        return Part({Kind.PARAMETERS: frame, Kind.ACK: -(-goes.chunk.layout.num_packets // 8)}, shape.layout)
