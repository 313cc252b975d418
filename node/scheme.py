"""What every way to exchange parameters does, whoever waits for the frames."""

from dataclasses import dataclass
from typing import Protocol

import torch

from node.stopwatch import Stopwatch
from node.transport.zmq import Outgoing


@dataclass(frozen=True)
class Sent:
    """What this device puts on the air, for each neighbour (often the same for all).

    `xhat` is how its neighbours decode it; None: as x itself.
    """

    outgoing: dict[int, Outgoing]
    xhat: torch.Tensor | None


class Scheme(Protocol):
    """One sweep of a round, in which every device hears every neighbour; called in this order."""

    @property
    def at_most_j(self) -> float:
        """What all sweeps of a round may cost this device at most, without idling [J]."""

    def encode(self, x: torch.Tensor, round_: int, sweep: int) -> Sent:
        """Turn the parameters x, shape (num_values,), into what goes on the air."""

    def begin(self, sent: Sent, round_: int, sweep: int) -> None:
        """Enter a sweep and send the first frame to every neighbour."""

    def advance(self, watch: Stopwatch) -> bool:
        """Pass what has come in through the air, answer it, accumulate it; True once nothing may follow."""

    def end(self) -> float:
        """Return when the sweep is over, in modelled seconds."""
