"""What every radio scheme does in an exchange, whoever waits for the frames."""

from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

import torch

from node.stopwatch import Stopwatch
from node.transport.zmq import Outgoing
from protocol.ledger import LinkAccount
from protocol.messages import Heard

Missing: TypeAlias = Literal["", "air", "wall", "dead"]


@dataclass(frozen=True)
class Sent:
    """What this device puts on the air this round, for each neighbour (often the same for all).

    `xhat` is how its neighbours decode it; None: as x itself.
    """

    outgoing: dict[int, Outgoing]
    xhat: torch.Tensor | None


class Scheme(Protocol):
    """A radio scheme during one exchange; `Gossip` calls these in this order."""

    def encode(self, x: torch.Tensor, round_: int) -> Sent:
        """Turn the parameters x, shape (num_values,), into what goes on the air."""

    def begin(self, sent: Sent, round_: int) -> None:
        """Enter a round and send the first frame to every neighbour."""

    def hear(self, watch: Stopwatch) -> None:
        """Pass what has come in through the air, and answer it."""

    def is_open(self, device: int) -> bool:
        """Say whether more may pass between this device and a neighbour in this round."""

    def close(self, device: int) -> Heard:
        """Accumulate what counts of one neighbour, in neighbour order, and say what became of it."""

    def end(self) -> float:
        """Return when the exchange is over, in modelled seconds."""


@dataclass
class Tally:
    """Counts of what passed between this device and one neighbour in one round."""

    packets_sent: int = 0
    packets_resent: int = 0
    attempts: int = 0
    packets_corrupted: int = 0
    packets_lost: int = 0
    bit_errors: int = 0
    missing: Missing = ""

    def heard(self, account: LinkAccount) -> Heard:
        """Join the counts with what was spent."""
        return Heard(
            packets_sent=self.packets_sent,
            packets_resent=self.packets_resent,
            attempts=self.attempts,
            packets_corrupted=self.packets_corrupted,
            packets_lost=self.packets_lost,
            bit_errors=self.bit_errors,
            missing=self.missing,
            tx_air_s=account.tx_air_s,
            rx_air_s=account.rx_air_s,
            tx_j=account.tx_j,
            rx_j=account.rx_j,
        )
