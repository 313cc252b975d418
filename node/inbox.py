"""The inbox: which frames of which neighbour belong to this round. No sockets, no clock.

Frames come in, verdicts and the state of the round come out. A neighbour is waited for until its
frames of this round are in, it is known dead, it has gone on to a later round (its frames come in
order, so what is missing was lost), or it fell silent once and has not caught up since.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TypeAlias

from protocol.codec import Bytes, Layout, selected
from protocol.errors import FrameError
from protocol.frame import FLAG_FINAL, Header, Kind

Awaited: TypeAlias = tuple[Kind, int]
"""A frame of this round: its kind and attempt."""


class Verdict(StrEnum):
    """What the inbox did with a frame."""

    TAKEN = "taken"
    EARLY = "early"
    STALE = "stale round"
    DUPLICATE = "duplicate"
    FOREIGN_RUN = "another run"
    FOREIGN_EPOCH = "another epoch"
    STRANGER = "not a neighbour"
    REBORN = "another incarnation"
    SHAPE = "another model or codec"
    TOO_EARLY = "too many rounds ahead"


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame as it arrived: the payload is received memory and must not be written."""

    header: Header
    payload: Bytes


@dataclass(frozen=True)
class Expected:
    """What every frame of this run must say about itself."""

    run: int
    epoch: int
    shape: tuple[int, int, int, int]
    payload_bytes: dict[Kind, int]
    """Of the kinds that this run has, at attempt 0."""
    layout: Layout
    modulations: frozenset[int] = frozenset({0})
    """Numbers that frames of parameters may carry."""
    max_attempts: int = 1

    def fits(self, frame: Frame) -> bool:
        """Say whether a frame is of this run's model and codec, and as long as it must be."""
        header = frame.header
        shape = (header.codec, header.flags & ~FLAG_FINAL, header.num_values, header.packet_bytes)
        size = self.payload_bytes.get(header.kind)
        if shape != self.shape or header.payload_bytes != len(frame.payload) or size is None:
            return False
        if header.modulation not in (self.modulations if header.kind is Kind.PARAMETERS else {0}):
            return False
        if header.attempt == 0 or header.kind is not Kind.PARAMETERS:
            return header.attempt < self.max_attempts and len(frame.payload) == size
        try:
            selected(frame.payload, self.layout)
        except FrameError:
            return False
        return header.attempt < self.max_attempts


@dataclass
class _Sender:
    incarnation: int
    dead: bool = False
    silent: bool = False
    round: int = -1
    """Newest round heard of it."""
    missed: int = -1
    """Newest round of which a frame came too early to be kept: nothing more of it is waited for."""
    frames: dict[tuple[int, Kind, int], Frame] = field(default_factory=dict)
    awaited: set[Awaited] = field(default_factory=set)


class Inbox:
    """State machine of one device's reception.

    At most two rounds are ever in flight from a neighbour (it cannot finish round r + 1 without this
    device's frame of r + 1, short of giving it up for dead), which bounds what is kept here.
    """

    ROUNDS_AHEAD = 1

    def __init__(self, expected: Expected, incarnations: dict[int, int]) -> None:
        self._expected = expected
        self._senders = {device: _Sender(incarnation) for device, incarnation in incarnations.items()}
        self.round = 0
        self.dropped: Counter[tuple[int, Verdict]] = Counter()

    def begin(self, round_: int, awaited: Iterable[Awaited]) -> None:
        """Enter a round, forget every frame of earlier ones, and await these of every neighbour."""
        self.round = round_
        awaited = set(awaited)
        for sender in self._senders.values():
            sender.frames = {key: frame for key, frame in sender.frames.items() if key[0] >= round_}
            sender.awaited = set(awaited)

    def await_also(self, device: int, kind: Kind, attempt: int) -> None:
        """Await one more frame of this round of a neighbour."""
        self._senders[device].awaited.add((kind, attempt))

    def feed(self, frame: Frame) -> Verdict:
        """Take a frame in, or drop and count it; TAKEN means it belongs to this round."""
        verdict = self._judge(frame)
        if verdict in (Verdict.TAKEN, Verdict.EARLY):
            sender, header = self._senders[frame.header.sender], frame.header
            sender.frames[header.round, header.kind, header.attempt] = frame
            sender.round = max(sender.round, header.round)
            sender.silent = False
        else:
            self.dropped[frame.header.sender, verdict] += 1
        return verdict

    def get(self, device: int, kind: Kind, attempt: int = 0) -> Frame | None:
        """Return a neighbour's frame of this round, if it is in."""
        return self._senders[device].frames.get((self.round, kind, attempt))

    def died(self, device: int, incarnation: int) -> bool:
        """Stop waiting for a neighbour; False if the life that ended is not its present one."""
        sender = self._senders.get(device)
        if sender is None or sender.incarnation != incarnation:
            return False
        sender.dead = True
        return True

    def is_dead(self, device: int) -> bool:
        """Say whether a neighbour is known to be dead."""
        return self._senders[device].dead

    def is_behind(self, round_: int) -> bool:
        """Say whether a living neighbour has been heard from a later round: without faults none can be."""
        return any(sender.round > round_ and not sender.dead for sender in self._senders.values())

    def silence(self) -> list[int]:
        """Give up on whoever is still waited for: each costs one deadline once, until it is heard again."""
        late = self.waiting_for()
        for device in late:
            self._senders[device].silent = True
        return late

    def waiting_for(self) -> list[int]:
        """Return the neighbours whose frames of this round may still come."""
        return [device for device in self._senders if self.may_come(device)]

    def may_come(self, device: int, kind: Kind | None = None) -> bool:
        """Say whether an awaited frame (of this kind) is missing from a neighbour that may yet send it."""
        sender = self._senders[device]
        if sender.dead or sender.silent or sender.round > self.round or sender.missed >= self.round:
            return False
        return any(
            (self.round, *awaited) not in sender.frames
            for awaited in sender.awaited
            if kind is None or awaited[0] is kind
        )

    def _judge(self, frame: Frame) -> Verdict:
        header, expected = frame.header, self._expected
        sender = self._senders.get(header.sender)
        if header.run != expected.run:
            return Verdict.FOREIGN_RUN
        if header.epoch != expected.epoch:
            return Verdict.FOREIGN_EPOCH
        if sender is None:
            return Verdict.STRANGER
        if header.incarnation != sender.incarnation:
            return Verdict.REBORN
        if not expected.fits(frame):
            return Verdict.SHAPE
        if header.round < self.round:
            if header.round == self.round - 1:  # one step behind: waited for once, it is in step again
                sender.silent = False
            return Verdict.STALE
        if header.round > self.round + self.ROUNDS_AHEAD:
            sender.round = sender.missed = max(sender.round, header.round)  # it has left this round behind
            return Verdict.TOO_EARLY
        if (header.round, header.kind, header.attempt) in sender.frames:
            return Verdict.DUPLICATE
        return Verdict.TAKEN if header.round == self.round else Verdict.EARLY
