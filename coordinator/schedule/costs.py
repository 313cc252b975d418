"""What sending one model costs: on every link, and summed over an aggregation."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.intp]
Ends: TypeAlias = Callable[[Floats], Floats]
"""When each device is through with an aggregation, from when it is ready for it; shapes (n,) [s]."""


@dataclass(frozen=True, eq=False)
class Answers:
    """What answers to one whole model cost; matrices as in `LinkCosts`, the column answers, the row hears."""

    tx_j: Floats
    """What the receiver of the model spends to answer."""
    rx_j: Floats
    """What its sender spends to hear that."""


@dataclass(frozen=True, eq=False)
class LinkCosts:
    """The price of one whole model on every link.

    Matrices of shape (n, n), the row sends and the column hears; infinite where there is no link. Diagonals
    are not looked at. A transmission to several receivers lasts as long as the slowest of them needs, and
    all hear it to its end: the largest tx_j and air_s among them once, the largest rx_j for each; answers are
    each one's own.
    """

    tx_j: Floats
    rx_j: Floats
    air_s: Floats
    access: Literal["tdma", "parallel"]
    """Whether one transmission follows the other, or every link has a band of its own."""
    absent: frozenset[int] = frozenset()
    """Devices that take no part: dead, or without the joules for it."""
    answers: Answers | None = None
    """None where nobody answers."""
    times_on_air: Floats | float = 1.0
    """How often a frame is sent, in the mean: once, and again for what got lost."""

    def __post_init__(self) -> None:
        assert self.tx_j.shape == self.rx_j.shape == self.air_s.shape == (self.num_devices,) * 2

    @property
    def num_devices(self) -> int:
        """All devices, absent ones included."""
        return len(self.tx_j)

    @cached_property
    def devices(self) -> Ints:
        """Those that take part, in order."""
        return np.array([i for i in range(self.num_devices) if i not in self.absent], dtype=np.intp)

    def without(self, devices: Iterable[int]) -> "LinkCosts":
        """Return the links among the devices that are left."""
        absent = self.absent | set(devices)
        present = np.isin(np.arange(self.num_devices), list(absent), invert=True)
        left = np.logical_and.outer(present, present)
        tx_j, rx_j, air_s = (np.where(left, matrix, np.inf) for matrix in (self.tx_j, self.rx_j, self.air_s))
        return replace(self, tx_j=tx_j, rx_j=rx_j, air_s=air_s, absent=absent)

    @property
    def each_j(self) -> Floats:
        """What every receiver of a transmission adds to its cost: hearing it, and answers, at both ends."""
        return self.rx_j if self.answers is None else self.rx_j + self.answers.tx_j + self.answers.rx_j

    def among_present(self, matrix: Floats) -> Floats:
        """Return the rows and columns of those that take part, shape (k, k), with an infinite diagonal."""
        part = matrix[np.ix_(self.devices, self.devices)]
        np.fill_diagonal(part, np.inf)
        return part


@dataclass(frozen=True, eq=False)
class Cost:
    """What one aggregation of one model costs; infinite where it lacks a link."""

    tx_j: Floats
    """Of each device, shape (n,)."""
    rx_j: Floats
    """Of each device, shape (n,)."""
    air_s: float
    """From when all are ready to the end of the last transmission."""
    ends: Ends | None = None
    """Where the grid is known."""

    @property
    def joules(self) -> Floats:
        """Of each device, shape (n,)."""
        return self.tx_j + self.rx_j

    @property
    def total_j(self) -> float:
        """Of all devices."""
        return float(self.joules.sum())

    @property
    def total_tx_j(self) -> float:
        """Of all devices, without what receiving costs."""
        return float(self.tx_j.sum())

    def times(self, factor: float) -> "Cost":
        """Return the cost of as many, one after the other."""
        return Cost(self.tx_j * factor, self.rx_j * factor, self.air_s * factor)


def charge(costs: LinkCosts, unicast: Bools, multicast: Bools, *, parallel_s: float) -> Cost:
    """Sum up transmissions of whole models: one for each pair of unicast, and one for each row of multicast.

    Boolean matrices, shape (n, n), the row sends and the column hears. parallel_s is how long that takes
    where every link has a band of its own. With `tdma` it takes the sum of all airtimes, an upper bound:
    transmissions that do not interfere could overlap.
    """
    tx_j = _each(unicast, costs.tx_j).sum(axis=1) + _each(multicast, costs.tx_j).max(axis=1, initial=0.0)
    longest_rx_j = _each(multicast, costs.rx_j).max(axis=1, initial=0.0)
    rx_j = _each(unicast, costs.rx_j).sum(axis=0) + _each(multicast, longest_rx_j[:, None]).sum(axis=0)
    if costs.answers is not None:
        for sent in (unicast, multicast):
            tx_j += _each(sent, costs.answers.tx_j).sum(axis=0)
            rx_j += _each(sent, costs.answers.rx_j).sum(axis=1)
    if costs.access == "parallel":
        return Cost(tx_j, rx_j, parallel_s)
    air_s = _each(unicast, costs.air_s).sum() + _each(multicast, costs.air_s).max(axis=1, initial=0.0).sum()
    return Cost(tx_j, rx_j, float(air_s))


def _each(sent: Bools, matrix: Floats) -> Floats:
    return np.where(sent, matrix, 0.0)
