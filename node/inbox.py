"""The inbox: which frames of which neighbour belong to this round. No sockets, no clock.

Frames come in, verdicts and the state of the round come out. A round is one frame of every neighbour or
several, its parts: one for each sweep of gossip, in order, and before them those of a schedule, if there
is one. A neighbour is waited for until its awaited frames are in, it is known dead, it has gone on to
what comes later (its frames come in order, so what is missing was lost), or it fell silent once and has
not caught up since.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import inf
from typing import TypeAlias

from node.door import SCHEDULED, Expected, Frame, Part, Position, Verdict
from protocol.frame import FLAG_LEAVES, Kind

Awaited: TypeAlias = tuple[int, Kind, int]
"""A frame of this round: its part, kind and attempt."""


ROUNDS_ALONE = 3
"""Two devices that give each other up at one moment, while both wait for a third, hear each other before."""


@dataclass
class _Sender:
    incarnation: int
    dead: bool = False
    silent: bool = False
    position: Position = (-1, SCHEDULED)
    """The latest one heard of it."""
    leaves: float = inf
    """The last round in which it is sent anything, as it has told."""
    left: bool = False
    """Whether it has gone for good: what has not come of it will not come."""
    missed: int = -1
    """Newest round of which a frame came too early to be kept: nothing more of it is waited for."""
    frames: dict[tuple[int, int, Kind, int], Frame] = field(default_factory=dict)
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
        self._position: Position = (0, SCHEDULED)
        self._scheduled: Mapping[int, Part] = {}
        self._scheduled_since = 0
        self._rounds_alone = 0
        """Rounds in a row that began with all neighbours silent."""
        self._followed = -1
        """The latest round in which this device followed the schedule, or began to."""
        self.dropped: Counter[tuple[int, Verdict]] = Counter()

    @property
    def round(self) -> int:
        """The round this device is in."""
        return self._position[0]

    def expect(self, scheduled: Mapping[int, Part], *, since: int = 0) -> None:
        """Take these parts of a schedule, which holds since a round, from now on, and no others."""
        self._scheduled, self._scheduled_since = scheduled, since

    def begin(self, round_: int, sweep: int = 0) -> None:
        """Enter a sweep of a round, or its schedule; forget all earlier frames, and await none yet."""
        if round_ > self.round:
            self._wait_anew_if_all_are_silent()
        self._position = (round_, sweep)
        if sweep == SCHEDULED:
            self._followed = round_
        for sender in self._senders.values():
            sender.dead = sender.dead or round_ > sender.leaves
            sender.frames = {
                key: frame
                for key, frame in sender.frames.items()
                if self._expected.position(frame.header) >= self._position
            }
            sender.awaited = set()

    def _wait_anew_if_all_are_silent(self) -> None:
        """Give up on nobody where nobody is heard at all: it is this device that is cut off.

        Without waiting it would run ahead of those that it will hear again, and never be in step with them.
        """
        living = [sender for sender in self._senders.values() if not (sender.dead or sender.left)]
        alone = len(living) > 1 and all(sender.silent for sender in living)
        self._rounds_alone = self._rounds_alone + 1 if alone else 0
        if self._rounds_alone > ROUNDS_ALONE:
            for sender in living:
                sender.silent = False

    def await_(self, devices: Iterable[int], kind: Kind, *, part: int = 0, attempt: int = 0) -> None:
        """Await one more frame of this round of some neighbours."""
        for device in devices:
            self._senders[device].awaited.add((part, kind, attempt))

    def feed(self, frame: Frame) -> Verdict:
        """Take a frame in, or drop and count it; TAKEN means it belongs to this round."""
        verdict = self._judge(frame)
        if verdict in (Verdict.TAKEN, Verdict.EARLY):
            sender, header = self._senders[frame.header.sender], frame.header
            if header.kind is Kind.GONE_ON:
                if header.flags & FLAG_LEAVES:
                    sender.left, sender.leaves = True, min(sender.leaves, header.round)
                else:
                    sender.position = max(sender.position, (header.round, SCHEDULED))
                return verdict
            sender.frames[header.round, header.part, header.kind, header.attempt] = frame
            sender.position = max(sender.position, self._expected.position(header))
            sender.silent = False
            if header.flags & FLAG_LEAVES:
                sender.leaves = min(sender.leaves, header.round)
        else:
            self.dropped[frame.header.sender, verdict] += 1
        return verdict

    def get(self, device: int, kind: Kind, *, part: int = 0, attempt: int = 0) -> Frame | None:
        """Return a neighbour's frame of this round, if it is in."""
        return self._senders[device].frames.get((self.round, part, kind, attempt))

    def died(self, device: int, incarnation: int) -> bool:
        """Stop waiting for a neighbour; False if the life that ended is not its present one."""
        sender = self._senders.get(device)
        if sender is None or sender.incarnation != incarnation:
            return False
        sender.dead = True
        return True

    def is_dead(self, device: int) -> bool:
        """Say whether a neighbour is known to be dead, or to have left in an earlier round."""
        return self._senders[device].dead

    def has_ended(self, device: int) -> bool:
        """Say whether a neighbour is dead or has left."""
        return self._senders[device].dead or self._senders[device].left

    def is_gone(self, device: int) -> bool:
        """Say whether nothing of where this device is can come of a neighbour any more."""
        sender = self._senders[device]
        return (
            sender.dead
            or sender.left
            or sender.silent
            or sender.position > self._position
            or sender.missed >= self.round
        )

    def is_schedule_left(self) -> bool:
        """Say whether a living neighbour gossiped in an earlier round of the schedule.

        It will not follow it again, and waits for the gossip of that round: from whoever completed that
        round by the schedule it will come only if those leave, too.
        """
        return any(
            self._scheduled_since <= sender.position[0] < self.round
            and sender.position[1] != SCHEDULED
            and not sender.dead
            for sender in self._senders.values()
        )

    def is_behind(self, round_: int) -> bool:
        """Say whether a living neighbour has been heard from a later round: without faults none can be."""
        return any(sender.position[0] > round_ and not sender.dead for sender in self._senders.values())

    def silence(self) -> list[int]:
        """Give up on whoever is still waited for: each costs one deadline once, until it is heard again."""
        late = self.waiting_for()
        for device in late:
            self._senders[device].silent = True
        return late

    def waiting_for(self) -> list[int]:
        """Return the neighbours whose frames of this round may still come."""
        return [device for device in self._senders if self.may_come(device)]

    def may_come(self, device: int, kind: Kind | None = None, part: int | None = None) -> bool:
        """Say whether an awaited frame (of this kind, of this part) is missing and may yet be sent."""
        missing = any(
            (self.round, *awaited) not in self._senders[device].frames
            for awaited in self._senders[device].awaited
            if kind in (None, awaited[1]) and part in (None, awaited[0])
        )
        return missing and not self.is_gone(device) and not self._is_overtaken()

    def _is_overtaken(self) -> bool:
        """Say whether this device broke off this round's schedule, and a living neighbour completed it.

        That one waits in the next round, and if this device waited here for somebody silent, it would give
        up both.
        """
        if self._followed != self.round or self._position[1] == SCHEDULED:
            return False
        return any(
            (self.round, part, kind, attempt) not in sender.frames
            for sender in self._senders.values()
            if sender.position > self._position and not sender.dead
            for part, kind, attempt in sender.awaited
            if kind is Kind.PARAMETERS and attempt == 0
        )

    def _judge(self, frame: Frame) -> Verdict:
        header, expected = frame.header, self._expected
        sender = self._senders.get(header.sender)
        refusal = expected.refusal(frame, sender.incarnation if sender else None, self._scheduled)
        if sender is None or refusal:
            return refusal or Verdict.STRANGER
        if header.kind is Kind.GONE_ON:
            return Verdict.TAKEN
        position = expected.position(header)
        if position < self._position:
            sender.position = max(sender.position, position)
            # One step behind: waited for once, it is in step again.
            if position >= (self.round - 1, SCHEDULED):
                sender.silent = False
            return Verdict.STALE
        if header.round > self.round + self.ROUNDS_AHEAD:
            # It has left this round behind.
            sender.position = max(sender.position, position)
            sender.missed = max(sender.missed, header.round)
            return Verdict.TOO_EARLY
        if (header.round, header.part, header.kind, header.attempt) in sender.frames:
            return Verdict.DUPLICATE
        return Verdict.TAKEN if header.round == self.round else Verdict.EARLY
