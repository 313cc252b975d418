"""Scalars that ride on the exchange: what devices must know of each other beside the parameters.

A frame carries the means over the devices that are in it (its sender alone, or all below it in a tree), so
joining two frames is joining two means; of when they were ready, the latest. They are side information:
taken as error-free, their airtime charged.
"""

from dataclasses import astuple, dataclass, fields, replace
from math import isfinite
from typing import Self

import numpy as np

from protocol.codec import Bytes


@dataclass(frozen=True)
class Scalars:
    """Means over so many devices; float32 on the wire."""

    devices: float = 0.0
    """Weight of the means: devices that train next round, in gossip each with its mixing weight."""
    inverse_local_rounds: float = 0.0
    """1 / tau of the NEXT round: known one round ahead, so that everybody knows the mean in time."""
    loss: float = 0.0
    """Training loss of this round."""
    ready_air_s: float = 0.0
    """When the last of all in the frame, those that only relay included, was ready to exchange."""

    def joined(self, other: "Scalars", weight: float = 1.0) -> "Scalars":
        """Return the means over both, the other's devices counted `weight` times, if all are finite."""
        if not all(map(isfinite, astuple(other))):
            return self
        ready_air_s = max(self.ready_air_s, other.ready_air_s)
        share = weight * other.devices
        if not share > 0:
            return replace(self, ready_air_s=ready_air_s)
        devices = self.devices + share

        def mean(mine: float, theirs: float) -> float:
            return (self.devices * mine + share * theirs) / devices

        return Scalars(
            devices,
            inverse_local_rounds=mean(self.inverse_local_rounds, other.inverse_local_rounds),
            loss=mean(self.loss, other.loss),
            ready_air_s=ready_air_s,
        )

    def write(self, side: Bytes) -> None:
        """Write them to the front of a frame's side information."""
        side[:NUM_BYTES].view("<f4")[:] = astuple(self)

    @classmethod
    def read(cls, side: Bytes) -> Self:
        """Read them from the front of a frame's side information."""
        return cls(*side[:NUM_BYTES].view("<f4").astype(np.float64).tolist())


NUM_BYTES = 4 * len(fields(Scalars))
NUM_BITS = 8 * NUM_BYTES
