"""The ledger: modelled seconds and joules of one device, and over which link it spent them.

    computing     kappa f^2 per cycle, f cycles per second
    transmitting  P_tx T, once for a broadcast; its receivers' links share it equally
    receiving     P_rx T
    idling        P_idle over the whole clock: the other powers come on top of it

A link's joules are what its two ends spent on it; joules of computing and idling belong to no link. So a
run's joules are the sum over its devices, and also that over its links plus computing and idling.

Source of the computing model: Burd and Brodersen, "Processor design for portable systems", J. VLSI Signal
Processing 13, 1996; theory of the project, section 2.2.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import fsum
from typing import TypeAlias

from protocol.hardware import Hardware

Span: TypeAlias = tuple[float, float]
"""From when to when, in modelled seconds."""


@dataclass(frozen=True)
class LinkAccount:
    """What one device spent on one neighbour in one round."""

    tx_air_s: float = 0.0
    rx_air_s: float = 0.0
    tx_j: float = 0.0
    rx_j: float = 0.0


@dataclass
class Ledger:
    """One device's expenses of one round."""

    hardware: Hardware
    compute_air_s: float = 0.0
    compute_j: float = 0.0
    idle_j: float = 0.0
    _entries: dict[int, list[LinkAccount]] = field(default_factory=dict)
    _waits: list[Span] = field(default_factory=list)
    _sends: list[Span] = field(default_factory=list)

    @property
    def slot_wait_air_s(self) -> float:
        """Time in which this device was ready to send, not allowed to, and not sending anything else."""
        return uncovered_s(self._waits, self._sends)

    @property
    def links(self) -> dict[int, LinkAccount]:
        """What was spent on each neighbour; those on whom nothing was are left out."""
        return {device: self.account(device) for device in self._entries}

    def account(self, device: int) -> LinkAccount:
        """Sum up what was spent on one neighbour; exact, so that the order of frames does not matter."""
        entries = self._entries.get(device, [])
        return LinkAccount(
            tx_air_s=fsum(entry.tx_air_s for entry in entries),
            rx_air_s=fsum(entry.rx_air_s for entry in entries),
            tx_j=fsum(entry.tx_j for entry in entries),
            rx_j=fsum(entry.rx_j for entry in entries),
        )

    @property
    def total_j(self) -> float:
        """All joules of the round so far."""
        links = [joules for entries in self._entries.values() for e in entries for joules in (e.tx_j, e.rx_j)]
        return fsum((self.compute_j, self.idle_j, *links))

    def clear(self) -> None:
        """Start a round in which nothing has been spent yet."""
        self._entries, self._waits, self._sends = {}, [], []
        self.compute_air_s = self.compute_j = self.idle_j = 0.0

    def compute(self, cycles: float, cpu_hz: float | None = None) -> None:
        """Charge processor cycles: f of them a second, kappa f^2 joules each; cpu_hz: not at full speed."""
        own = self.hardware if cpu_hz is None else replace(self.hardware, cpu_hz=cpu_hz)
        self.compute_air_s += own.compute_air_s(cycles)
        self.compute_j += own.compute_j(cycles)

    def transmit(
        self,
        receivers: Sequence[int],
        airtime_s: float,
        *,
        joules: float | None = None,
        start_air_s: float | None = None,
    ) -> None:
        """Charge one transmission to so many receivers; joules where it is not sent at full power.

        start_air_s: when it begins, so that it is no wait for the slot of another.
        """
        if start_air_s is not None:
            self._sends.append((start_air_s, start_air_s + airtime_s))
        if joules is None:
            joules = self.hardware.tx_power_w * airtime_s
        for receiver in receivers:
            share = LinkAccount(tx_air_s=airtime_s / len(receivers), tx_j=joules / len(receivers))
            self._entries.setdefault(receiver, []).append(share)

    def receive(self, sender: int, airtime_s: float) -> None:
        """Charge listening to one transmission."""
        heard = LinkAccount(rx_air_s=airtime_s, rx_j=self.hardware.rx_power_w * airtime_s)
        self._entries.setdefault(sender, []).append(heard)

    def wait_for_slot(self, ready_air_s: float, start_air_s: float) -> None:
        """Note from when to when this device was ready to send and not allowed to."""
        self._waits.append((ready_air_s, start_air_s))

    def pass_time(self, air_s: float) -> None:
        """Charge what the device draws anyway while its clock moves on."""
        self.idle_j += self.hardware.idle_power_w * air_s


def uncovered_s(waits: Sequence[Span], busy: Sequence[Span]) -> float:
    """Length of the union of all waits less that of what was sent meanwhile, in whatever order they came."""
    steps = [(at, step, 0) for begin, end in waits for at, step in ((begin, 1), (end, -1))]
    steps += [(at, 0, step) for begin, end in busy for at, step in ((begin, 1), (end, -1))]
    total = before = 0.0
    waiting = sending = 0
    for at, waits_more, sends_more in sorted(steps):
        if waiting and not sending:
            total += at - before
        waiting, sending, before = waiting + waits_more, sending + sends_more, at
    return total
