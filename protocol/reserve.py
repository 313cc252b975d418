"""What devices and plans keep back for exchanges to come, so that no budget is ever exceeded.

Exchanges cost what the channel makes of them. The next two, this one and the one after, which a device shall
not have to leave before, are reckoned at their dearest; those that only follow as usual.
"""

from dataclasses import dataclass

from protocol.config import Aggregation
from protocol.theory.caps import Budget


@dataclass(frozen=True, kw_only=True)
class Exchange:
    """What one exchange takes a device, with the idling that goes with it."""

    at_most_j: float
    """Joules at the slowest rate with all repeats."""
    usual_j: float
    """Joules, as expected or as seen."""
    usual_air_s: float
    """Modelled seconds, waiting included."""

    def reserve(self, number: int) -> Budget:
        """Return what so many exchanges in a row have to find."""
        dearest = min(number, 2)
        return Budget(
            energy_j=dearest * self.at_most_j + (number - dearest) * self.usual_j,
            air_s=number * self.usual_air_s,
        )

    @property
    def kept_back_j(self) -> float:
        """Joules beyond the usual ones that local rounds must leave, or the last rounds would be cut."""
        return 2 * max(self.at_most_j - self.usual_j, 0.0)


def starts_epoch(aggregation: Aggregation, round_: int) -> bool:
    """Say whether a new schedule is due before this round."""
    return aggregation.is_scheduled and round_ % aggregation.epoch_rounds == 0


def num_ahead(aggregation: Aggregation, round_: int, *, num_rounds: int) -> int:
    """Return how many exchanges a device must be good for to take part from a round on.

    That of the round alone; where a new schedule is due before it, all of its epoch.
    """
    begins = starts_epoch(aggregation, round_)
    return num_relied_on(aggregation, round_, num_rounds=num_rounds) if begins else 1


def num_relied_on(aggregation: Aggregation, round_: int, *, num_rounds: int) -> int:
    """Return in how many exchanges, from this round's on, others rely on a device: until its epoch ends.

    Who leaves on the way breaks the tree or ring of all others.
    """
    if not aggregation.is_scheduled:
        return 1
    return min(aggregation.epoch_rounds - round_ % aggregation.epoch_rounds, num_rounds - round_)
