"""What the rest of a device knows of whatever carries its frames."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeAlias

from node.transport.zmq import Delivery, Outgoing
from protocol.errors import RunError
from protocol.messages import Start

Awaited: TypeAlias = Callable[[], Iterable[int]]
"""Says from which neighbours a frame may still come."""


class Parted(RunError):
    """A neighbour without which nobody can go on has gone, or, if silent, says nothing."""

    def __init__(self, message: str, *, silent: bool = False) -> None:
        super().__init__(message)
        self.silent = silent


class Transport(Protocol):
    """One device's end of the data plane, for as long as the run lasts."""

    @property
    def address(self) -> str:
        """Where others reach this device; empty where they need not know."""

    @property
    def bytes_sent(self) -> int:
        """Bytes of all frames sent so far, headers included."""

    def meet(self, start: Start, awaited: Awaited) -> None:
        """Open the ways to all neighbours."""

    def send(self, device: int, header: bytes, outgoing: Outgoing) -> bool:
        """Queue a frame for a neighbour; False if its queue is full or gone.

        The payload must not be written until `outgoing.free`, nor before the exchange has settled.
        """

    def receive(self, timeout_s: float) -> Delivery | None:
        """Return the next frame that came in; None if none did in time."""

    def settle(self) -> None:
        """Let go what was queued, at the end of an exchange."""

    def forget(self, device: int) -> None:
        """Close the way to a neighbour that died."""

    def break_off(self) -> None:
        """Let nobody wait for this device any more: it leaves before the end."""

    def flush(self, linger_s: float) -> None:
        """Close every way out; what is queued still goes for up to linger_s after this returns."""
