"""Selective-repeat ARQ: who still misses which packets of a frame, and what to send again. No sockets.

A frame goes out whole (attempt 0). Every receiver answers each attempt with the bitmap of all that it has
by then; what is missing is sent again until nothing is, or a packet has been sent `max_attempts` times.
With broadcast the union of what is missing is sent once for all who miss something, when everybody who
was addressed has answered; with unicast every receiver has its own turn.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from protocol.channel import Counts, Mask


@dataclass(frozen=True)
class Repeat:
    """One more attempt: these packets, rising, to these receivers, not before ready_air_s."""

    attempt: int
    packets: Counts
    receivers: tuple[int, ...]
    ready_air_s: float


@dataclass
class _Receiver:
    got: Mask | None = None
    """What it had at its last answer."""
    final: bool = False
    attempt: int = 0
    """The attempt that was last addressed to it."""
    answered: bool = False
    given_up: bool = False
    answered_air_s: float = 0.0


class Sending:
    """One frame on its way to some receivers."""

    def __init__(self, receivers: Iterable[int], *, max_attempts: int, together: bool) -> None:
        self._receivers = {device: _Receiver() for device in receivers}
        self._max_attempts = max_attempts
        self._together = together

    def unanswered(self, device: int) -> int | None:
        """Return the attempt that a receiver has not answered, whether or not it was given up."""
        receiver = self._receivers.get(device)
        return None if receiver is None or receiver.answered else receiver.attempt

    def wants(self, device: int) -> bool:
        """Say whether a receiver is still to be sent something again."""
        receiver = self._receivers.get(device)
        return receiver is not None and self._wants_more(receiver)

    def got(self, device: int) -> Mask | None:
        """Return which packets a receiver has by its last answer; None if it never answered."""
        receiver = self._receivers.get(device)
        return None if receiver is None or (receiver.given_up and not receiver.answered) else receiver.got

    def answer(self, device: int, got: Mask, *, final: bool, air_s: float) -> None:
        """Take in a receiver's answer to the attempt that was awaited; it arrived at air_s."""
        receiver = self._receivers[device]
        receiver.got, receiver.final, receiver.answered = got, final, True
        receiver.answered_air_s = air_s

    def give_up(self, device: int) -> None:
        """Let nobody wait for a receiver any more, and send it nothing more; its answer may still come."""
        self._receivers[device].given_up = True

    def unsent(self, device: int) -> None:
        """Take back a repeat that could not be sent: the receiver has what it last said."""
        receiver = self._receivers[device]
        receiver.answered = receiver.final = True

    def repeats(self) -> list[Repeat]:
        """Return what is to be sent now; from here on its receivers' next answers are awaited."""
        everybody = list(self._receivers)
        groups = [everybody] if self._together else [[device] for device in everybody]
        return [repeat for group in groups if (repeat := self._repeat(group)) is not None]

    def _repeat(self, group: list[int]) -> Repeat | None:
        if not all(self._receivers[d].answered or self._receivers[d].given_up for d in group):
            return None
        wanting = [device for device in group if self._wants_more(self._receivers[device])]
        if not wanting:
            return None
        masks = [got for device in wanting if (got := self._receivers[device].got) is not None]
        attempt = self._receivers[wanting[0]].attempt + 1
        # Everybody who was addressed has answered by then, also those who miss nothing.
        ready_air_s = max(
            receiver.answered_air_s
            for receiver in map(self._receivers.__getitem__, group)
            if receiver.attempt == attempt - 1
        )
        for device in wanting:
            receiver = self._receivers[device]
            receiver.attempt, receiver.answered = attempt, False
        return Repeat(attempt, np.flatnonzero(~np.logical_and.reduce(masks)), tuple(wanting), ready_air_s)

    def _wants_more(self, receiver: _Receiver) -> bool:
        return not receiver.final and not receiver.given_up and receiver.attempt + 1 < self._max_attempts


class Receiving:
    """One frame as it comes in: what is intact by now, and whether more of it is wanted."""

    def __init__(self, num_packets: int, *, max_attempts: int) -> None:
        self.intact: Mask = np.zeros(num_packets, dtype=np.bool_)
        self.attempt = -1
        self._max_attempts = max_attempts
        self.late = False
        """An attempt came after the deadline; the later ones would, too."""

    def take(self, attempt: int, packets: Counts | slice, intact: Mask, *, on_time: bool) -> Mask:
        """Take in an attempt; return which of its packets are new and intact, same shape as intact."""
        self.attempt = attempt
        self.late = self.late or not on_time
        if not on_time:
            return np.zeros_like(intact)
        if attempt == 0:  # the whole frame, and nothing was there before
            self.intact = intact.copy()
            return intact
        fresh = intact & ~self.intact[packets]
        self.intact[packets] |= fresh
        return fresh

    @property
    def complete(self) -> bool:
        """Say whether nothing more of this frame is wanted: all is there, tried often enough, or too late."""
        return self.late or self.attempt + 1 >= self._max_attempts or bool(self.intact.all())
