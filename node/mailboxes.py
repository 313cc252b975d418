"""Mailboxes: what of each neighbour has come by a moment of the model's clock. No sockets, no host's clock.

A round that its device has sent its own frame of ends at the first moment at which it has a frame of each
living neighbour that is at most so many rounds older than its own. Which frames it has then does not
depend on the host: it is settled only when nothing of that time can come any more (conservative simulation
with null messages: Chandy and Misra, "Distributed simulation", IEEE Trans. Software Eng. SE-5, 1979).

Nobody waits in a circle. Let L be the moment until which a device's round k lasts at least: its neighbours
know it, by its frame or since it has told them, and its next frame, of round k + 1, begins no earlier. Who
waits for a newer frame has an L no smaller than its sender's and a higher round, and who waits to know what
comes by L waits for a sender whose (L, k) is smaller: the smallest (L, k) of all waits for nobody.

With a staleness of s, nobody is more than s + 1 rounds ahead of a neighbour, and in round k none older than
k - s is still to come: here lie never more than 2 s + 2 frames of a neighbour.
"""

from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import Literal

from node.door import Expected, Frame, Verdict
from protocol.frame import FLAG_LEAVES, Header, Kind


@dataclass
class _Sender:
    incarnation: int
    dead: bool = False
    silent: bool = False
    left_air_s: float = inf
    """When it has gone for good: from when on something would have come."""
    round: int = -1
    """The newest one heard of it; parameters that all begin with are of round -1."""
    not_before_air_s: float = 0.0
    """What may yet come of it does not come before."""
    taken: int = -1
    """The round of its newest frame that has come by the model's clock."""
    frames: deque[Frame] = field(default_factory=deque)
    """Newer ones, in order: here already, but not yet by the model's clock."""


class Mailboxes:
    """State machine of one device's reception, where frames of other rounds than its own count."""

    def __init__(
        self,
        expected: Expected,
        incarnations: Mapping[int, int],
        *,
        staleness_rounds: int,
        num_rounds: int,
        airtimes_s: Mapping[int, float] | None,
    ) -> None:
        """airtimes_s: of a frame, by the number of its modulation; None: there is no modelled time."""
        self._expected = expected
        self._senders = {device: _Sender(incarnation) for device, incarnation in incarnations.items()}
        self._staleness_rounds = staleness_rounds
        self._last_round = num_rounds - 1
        self._airtimes_s = airtimes_s
        self._shortest_s = min(airtimes_s.values()) if airtimes_s else 0.0
        self._round = 0
        self._air_s = 0.0
        """The end of the last round that is settled."""
        self.waits_for: list[int] = []
        """Neighbours without whose next word it could not be settled."""
        self.dropped: Counter[tuple[int, Verdict]] = Counter()

    @property
    def round(self) -> int:
        """The round this device is in."""
        return self._round

    @property
    def most_to_come(self) -> int:
        """How many frames can come at most, of all neighbours together, until the end of the next round."""
        newest = min(self._round + 1 + self._staleness_rounds + 1, self._last_round)
        return sum(
            len(sender.frames) if self.is_dead(device) else newest - sender.taken
            for device, sender in self._senders.items()
        )

    def begin(self, round_: int) -> None:
        """Enter a round."""
        self._round = round_

    def feed(self, frame: Frame) -> Verdict:
        """Take a frame in, or drop and count it."""
        verdict = self._judge(frame)
        if verdict is not Verdict.TAKEN:
            self.dropped[frame.header.sender, verdict] += 1
        return verdict

    def settle(self, air_s: float, until_air_s: float) -> tuple[float, bool]:
        """Return until when this round lasts at least, and whether that is its end.

        air_s: when its own frame was through; until_air_s: when it ends whatever is missing.
        """
        oldest, end_air_s, lacking = self._oldest, air_s, list[int]()
        for device, sender in self._senders.items():
            if sender.taken >= oldest:
                continue
            fresh = next((frame for frame in sender.frames if frame.header.round >= oldest), None)
            reached_air_s = self._arrival_air_s(fresh.header) if fresh else sender.not_before_air_s
            end_air_s = max(end_air_s, reached_air_s)
            if not fresh and sender.round < oldest and self._may_send(sender):
                lacking.append(device)
        if end_air_s >= until_air_s:
            end_air_s, lacking = until_air_s, []
        if not lacking and self._airtimes_s is not None:
            now = end_air_s, self._round
            lacking = [
                device
                for device, sender in self._senders.items()
                if self._may_send(sender) and (sender.not_before_air_s, sender.round + 1) <= now
            ]
        self.waits_for = lacking
        if not lacking:
            self._air_s = end_air_s
        return end_air_s, not lacking

    def take(self, device: int) -> list[Frame]:
        """Hand over what has come of a neighbour by the end of this round, oldest first."""
        sender, taken, now = self._senders[device], list[Frame](), (self._air_s, self._round)
        while sender.frames:
            header = sender.frames[0].header
            if self._airtimes_s is not None and (self._arrival_air_s(header), header.round) > now:
                break
            taken.append(sender.frames.popleft())
            sender.taken = header.round
        return taken

    def why_missing(self, device: int) -> Literal["air", "wall", "dead"]:
        """Say why there is no frame of a neighbour that is new enough."""
        sender = self._senders[device]
        if sender.dead or sender.left_air_s <= self._air_s:
            return "dead"
        refused = sender.round > sender.taken and not sender.frames
        return "wall" if sender.silent or refused else "air"

    def died(self, device: int, incarnation: int) -> bool:
        """Stop waiting for a neighbour; False if the life that ended is not its present one."""
        sender = self._senders.get(device)
        if sender is None or sender.incarnation != incarnation:
            return False
        sender.dead = True
        return True

    def is_dead(self, device: int) -> bool:
        """Say whether a neighbour is dead, or had left before this device's last round was over."""
        return self._senders[device].dead or self._senders[device].left_air_s < self._air_s

    def is_behind(self, round_: int) -> bool:
        """Say whether a living neighbour is further ahead than without faults any can be."""
        most = round_ + self._staleness_rounds
        return any(sender.round > most and not sender.dead for sender in self._senders.values())

    def silence(self) -> list[int]:
        """Give up on whoever is still waited for: each costs one deadline once, until it is heard again."""
        for device in self.waits_for:
            self._senders[device].silent = True
        return self.waits_for

    @property
    def _oldest(self) -> int:
        """The oldest round that is new enough."""
        return self._round - self._staleness_rounds

    def _may_send(self, sender: _Sender) -> bool:
        gone = sender.dead or sender.silent or sender.left_air_s < inf
        return not gone and sender.round < self._last_round

    def _arrival_air_s(self, header: Header) -> float:
        return header.air_s + self._airtimes_s[header.modulation] if self._airtimes_s else 0.0

    def _judge(self, frame: Frame) -> Verdict:
        header = frame.header
        sender = self._senders.get(header.sender)
        refusal = self._expected.refusal(frame, sender.incarnation if sender else None, {})
        if sender is None or refusal:
            return refusal or Verdict.STRANGER
        if header.kind is Kind.GONE_ON:
            sender.not_before_air_s = max(sender.not_before_air_s, header.air_s + self._shortest_s)
            if header.flags & FLAG_LEAVES:
                sender.left_air_s = -inf if self._airtimes_s is None else sender.not_before_air_s
            return Verdict.TAKEN
        if frame.is_void:  # its sender tells that it leaves, and when, as soon as it knows
            return Verdict.TAKEN
        if header.round <= sender.round:
            return Verdict.DUPLICATE if header.round == sender.round else Verdict.STALE
        sender.round = header.round
        next_air_s = self._arrival_air_s(header) + self._shortest_s  # it sends one after the other
        sender.not_before_air_s = max(sender.not_before_air_s, next_air_s)
        if header.round >= self._oldest - 1:  # waited for once, it is in step again
            sender.silent = False
        if header.round > self._round + self._staleness_rounds + 1:
            return Verdict.TOO_EARLY
        sender.frames.append(frame)
        return Verdict.TAKEN
