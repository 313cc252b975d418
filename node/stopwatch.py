"""Where the host's seconds of one round went."""

from time import perf_counter
from typing import Literal, TypeAlias

from protocol.messages import Stages

Stage: TypeAlias = Literal["train", "encode", "send", "wait", "air", "decode", "mix", "pace"]


class Stopwatch:
    """Adds up wall seconds per stage: each lap goes to the stage that it ends."""

    def __init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin a new round at zero."""
        self._lap = perf_counter()
        self._spent = dict.fromkeys(Stages.model_fields, 0.0)

    def lap(self, stage: Stage) -> None:
        """Charge the time since the last lap to a stage."""
        now = perf_counter()
        self._spent[stage] += now - self._lap
        self._lap = now

    def stages(self) -> Stages:
        """Return the seconds of each stage."""
        return Stages.model_validate(self._spent)

    @property
    def wall_s(self) -> float:
        """Seconds of all stages together."""
        return sum(self._spent.values())
