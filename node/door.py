"""The door: which frames may come in at all, judged by who sent them and what they say of themselves.

When they count is up to who keeps them: the inbox of synchronous rounds, or mailboxes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeAlias

from protocol.codec import Bytes, Layout, selected
from protocol.errors import FrameError
from protocol.frame import (
    FLAG_FINAL,
    FLAG_LEAVES,
    FLAG_VOID,
    MODULATION_NUMBER,
    Header,
    Kind,
    run_number,
    shape_of,
)
from protocol.messages import Welcome
from protocol.modulation import permitted

Position: TypeAlias = tuple[int, int]
"""How far a device is: its round, and in it the sweep, or SCHEDULED before the first one."""

SCHEDULED = -1
_FLAGS = FLAG_FINAL | FLAG_LEAVES | FLAG_VOID


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

    @property
    def is_void(self) -> bool:
        """Whether it only stands for one that its sender had no time to send."""
        return bool(self.header.flags & FLAG_VOID)


@dataclass(frozen=True)
class Part:
    """What the frames of one part of a round are like: bytes of each kind at attempt 0, and their packets."""

    payload_bytes: Mapping[Kind, int]
    layout: Layout


@dataclass(frozen=True)
class Expected:
    """What every frame of this run must say about itself."""

    run: int
    epoch: int
    shape: tuple[int, int, int, int]
    sweep: Part
    num_sweeps: int = 1
    """Parts 0 to num_sweeps - 1 are sweeps; what comes behind them is up to the schedule."""
    modulations: frozenset[int] = frozenset({0})
    """Numbers that frames of parameters may carry."""
    max_attempts: int = 1

    @classmethod
    def of(cls, welcome: Welcome, layout: Layout, payload_bytes: Mapping[Kind, int]) -> "Expected":
        """Expect what everybody sends who takes part in the same run."""
        radio = welcome.experiment.radio
        modulations = {0} if radio.scheme == "analog" else {MODULATION_NUMBER[m] for m in permitted(radio)}
        return cls(
            run=run_number(welcome.run_id),
            epoch=welcome.epoch,
            shape=shape_of(layout),
            sweep=Part(payload_bytes, layout),
            num_sweeps=welcome.experiment.aggregation.sweeps,
            modulations=frozenset(modulations),
            max_attempts=radio.attempts,
        )

    def position(self, header: Header) -> Position:
        """Return how far the sender of a frame is."""
        return header.round, header.part if header.part < self.num_sweeps else SCHEDULED

    def fits(self, frame: Frame, scheduled: Mapping[int, Part]) -> bool:
        """Say whether a frame is of this run's model and codec, and as long as it must be."""
        header = frame.header
        part = self.sweep if header.part < self.num_sweeps else scheduled.get(header.part)
        shape = (header.codec, header.flags & ~_FLAGS, header.num_values, header.packet_bytes)
        if part is None or shape != self.shape or header.payload_bytes != len(frame.payload):
            return False
        size = part.payload_bytes.get(header.kind)
        if size is None or header.attempt >= self.max_attempts:
            return False
        if frame.is_void:
            return not header.payload_bytes
        if header.modulation not in (self.modulations if header.kind is Kind.PARAMETERS else {0}):
            return False
        if header.attempt == 0 or header.kind is not Kind.PARAMETERS:
            return len(frame.payload) == size
        try:
            selected(frame.payload, part.layout)
        except FrameError:
            return False
        return True

    def refusal(self, frame: Frame, incarnation: int | None, scheduled: Mapping[int, Part]) -> Verdict | None:
        """Say why a frame stays outside; incarnation: of the neighbour that it names, if it names one."""
        header = frame.header
        if header.run != self.run:
            return Verdict.FOREIGN_RUN
        if header.epoch != self.epoch:
            return Verdict.FOREIGN_EPOCH
        if incarnation is None:
            return Verdict.STRANGER
        if header.incarnation != incarnation:
            return Verdict.REBORN
        if header.kind is Kind.GONE_ON:
            return Verdict.SHAPE if header.payload_bytes or len(frame.payload) else None
        return None if self.fits(frame, scheduled) else Verdict.SHAPE


class Keeper(Protocol):
    """What keeps the frames of all neighbours, and knows who may still send some."""

    dropped: Counter[tuple[int, Verdict]]

    @property
    def round(self) -> int:
        """The round this device is in."""

    def feed(self, frame: Frame) -> Verdict:
        """Take a frame in, or drop and count it."""

    def died(self, device: int, incarnation: int) -> bool:
        """Stop waiting for a neighbour; False if the life that ended is not its present one."""

    def is_dead(self, device: int) -> bool:
        """Say whether a neighbour is sent nothing any more."""

    def is_behind(self, round_: int) -> bool:
        """Say whether a living neighbour is further ahead than without faults any can be."""

    def silence(self) -> list[int]:
        """Give up on whoever is still waited for: each costs one deadline once, until it is heard again."""
