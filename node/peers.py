"""The neighbours as one device reaches them: frames with the right headers out, judged frames in."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

import numpy as np

from node.control import Control
from node.door import Frame, Keeper
from node.transport.transport import Transport
from node.transport.zmq import Outgoing
from protocol.codec import Layout
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
    unpack,
)
from protocol.messages import Neighbour, Welcome
from protocol.radio import Modulation

KeeperT_co = TypeVar("KeeperT_co", bound=Keeper, covariant=True)

NOTHING = Outgoing(np.empty(0, dtype=np.uint8))


@dataclass(frozen=True)
class Stamp:
    """What a frame says of its transmission: of which part, which attempt, begun when, how modulated."""

    air_s: float
    part: int = 0
    attempt: int = 0
    modulation: Modulation | None = None
    final: bool = False
    void: bool = False
    leaves: bool = False


class Peers(Generic[KeeperT_co]):
    """One device's neighbours, for as long as the run lasts."""

    def __init__(
        self,
        welcome: Welcome,
        neighbours: Iterable[Neighbour],
        transport: Transport,
        layout: Layout,
        inbox: KeeperT_co,
    ) -> None:
        self._me = welcome
        self._transport = transport
        self._run = run_number(welcome.run_id)
        self._shape = shape_of(layout)
        self._misnamed: Counter[str] = Counter()
        self._bytes_before = 0
        self.leaves = False
        """Whether this is this device's last round, which its frames tell."""
        self.neighbours = {n.device: n for n in sorted(neighbours, key=lambda n: n.device)}
        self.inbox = inbox

    @property
    def device(self) -> int:
        """This device's own number."""
        return self._me.device

    def send(self, devices: Iterable[int], kind: Kind, outgoing: Outgoing, stamp: Stamp) -> list[int]:
        """Send a frame of this round to neighbours; return those whose queue was not full or gone."""
        stamp = replace(stamp, leaves=self.leaves)
        return self._send(devices, self._header(kind, outgoing, stamp, self.inbox.round), outgoing)

    def keep_back(self, devices: Iterable[int], kind: Kind, stamp: Stamp) -> None:
        """Send nothing for want of time, and let nobody wait for it; this is no transmission."""
        self.send(devices, kind, NOTHING, replace(stamp, void=True))

    def tell_gone_on(self, round_: int, air_s: float) -> None:
        """Tell all neighbours that nothing more of earlier rounds comes of this device; if it leaves, at all.

        So nobody waits for it. This is no transmission: nobody hears anything.
        """
        stamp = Stamp(air_s, leaves=self.leaves)
        self._send(self.neighbours, self._header(Kind.GONE_ON, NOTHING, stamp, round_), NOTHING)

    def tell_not_before(self, devices: Iterable[int], round_: int, air_s: float) -> list[int]:
        """Tell neighbours that this device's next frame is of a round, and does not come before air_s.

        This is no transmission. Returns those who will know.
        """
        return self._send(devices, self._header(Kind.GONE_ON, NOTHING, Stamp(air_s), round_), NOTHING)

    def _header(self, kind: Kind, outgoing: Outgoing, stamp: Stamp, round_: int) -> Header:
        codec, flags, num_values, packet_bytes = self._shape
        return Header(
            kind=kind,
            run=self._run,
            epoch=self._me.epoch,
            sender=self._me.device,
            incarnation=self._me.incarnation,
            round=round_,
            part=stamp.part,
            attempt=stamp.attempt,
            modulation=MODULATION_NUMBER[stamp.modulation] if stamp.modulation else 0,
            codec=codec,
            flags=flags | self._flags(stamp),
            num_values=num_values,
            packet_bytes=packet_bytes,
            payload_bytes=len(outgoing.payload),
            air_s=stamp.air_s,
        )

    def _flags(self, stamp: Stamp) -> int:
        flags = FLAG_LEAVES if stamp.leaves else 0
        return flags | (FLAG_FINAL if stamp.final else 0) | (FLAG_VOID if stamp.void else 0)

    def _send(self, devices: Iterable[int], header: Header, outgoing: Outgoing) -> list[int]:
        packed = header.pack()
        return [
            device
            for device in devices
            if not self.inbox.is_dead(device) and self._transport.send(device, packed, outgoing)
        ]

    def receive(self, timeout_s: float) -> bool:
        """Take in one frame; False if none came in time."""
        delivery = self._transport.receive(timeout_s)
        if delivery is None:
            return False
        try:
            frame = Frame(unpack(delivery.header), delivery.payload)
            if delivery.peer != str(frame.header.sender):
                raise FrameError(f"signed as device {frame.header.sender}")
        except FrameError as error:
            self._misnamed[f"device {delivery.peer}: {error}"] += 1
            return True
        self.inbox.feed(frame)
        return True

    def settle(self) -> None:
        """Let go, at the end of an exchange, what nobody here waits for an answer to."""
        self._transport.settle()

    def heed(self, control: Control) -> None:
        """Wait no longer for whoever the coordinator says is dead; raises Leave when it is time to go."""
        for death in control.news():
            if self.inbox.died(death.device, death.incarnation):
                self._transport.forget(death.device)

    def bytes_sent(self) -> int:
        """Bytes handed to the socket since the last call, headers included."""
        now = self._transport.bytes_sent
        sent, self._bytes_before = now - self._bytes_before, now
        return sent

    def dropped(self) -> dict[str, int]:
        """Return the frames refused since the last call, as `device N: reason` -> count."""
        counts = Counter({f"device {d}: {v}": n for (d, v), n in self.inbox.dropped.items()})
        counts += self._misnamed
        self.inbox.dropped.clear()
        self._misnamed.clear()
        return dict(counts)
