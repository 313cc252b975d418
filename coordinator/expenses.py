"""What a run cost in joules: by device, and the same joules by link."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import fsum
from typing import TypeAlias

from protocol.messages import Report

Link: TypeAlias = tuple[int, int]


@dataclass(frozen=True)
class Joules:
    """Joules by what they were spent on; idling is what a device draws all the time."""

    compute: float
    tx: float
    rx: float
    idle: float

    @property
    def total(self) -> float:
        """All of them."""
        return fsum((self.compute, self.tx, self.rx, self.idle))


def joules_of(report: Report) -> float:
    """Sum up what one device spent in one round."""
    links = [joules for heard in report.heard.values() for joules in (heard.tx_j, heard.rx_j)]
    return fsum((report.spent.compute_j, report.spent.idle_j, *links))


def by_device(reports: Iterable[Report], num_devices: int) -> list[Joules]:
    """Sum up what each device spent."""
    spent: list[list[Report]] = [[] for _ in range(num_devices)]
    for report in reports:
        spent[report.device].append(report)
    return [
        Joules(
            compute=fsum(r.spent.compute_j for r in mine),
            tx=fsum(h.tx_j for r in mine for h in r.heard.values()),
            rx=fsum(h.rx_j for r in mine for h in r.heard.values()),
            idle=fsum(r.spent.idle_j for r in mine),
        )
        for mine in spent
    ]


def by_link(reports: Iterable[Report]) -> dict[Link, float]:
    """Sum up what both ends of each link spent on it: the sending and receiving of `by_device`."""
    spent: dict[Link, list[float]] = {}
    for report in reports:
        for neighbour, heard in report.heard.items():
            link = (min(report.device, neighbour), max(report.device, neighbour))
            spent.setdefault(link, []).extend((heard.tx_j, heard.rx_j))
    return {link: fsum(joules) for link, joules in sorted(spent.items())}
