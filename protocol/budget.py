"""What devices may spend before they have to stop, in modelled joules and seconds."""

from math import inf, isfinite
from typing import Annotated

from pydantic import Field

from protocol.quantities import Each, PerDevice, least
from protocol.section import Section


class Budget(Section):
    """Limits of a run and of each of its devices; inf: none."""

    joules: Annotated[PerDevice, Each(gt=0)] = inf
    """What one device may spend in the whole run: computing, sending, receiving and idling."""
    seconds: Annotated[PerDevice, Each(gt=0)] = inf
    """Modelled time at which one device must be done."""
    run_joules: Annotated[float, Field(gt=0)] = inf
    """What all devices may spend together: each has an equal share, or its own `joules` if they are less."""
    run_seconds: Annotated[float, Field(gt=0)] = inf
    """Modelled time at which every device must be done, whatever its own `seconds` allow."""

    @property
    def limited(self) -> list[str]:
        """Keys that set a limit."""
        limits: dict[str, PerDevice] = {
            "joules": self.joules,
            "seconds": self.seconds,
            "run_joules": self.run_joules,
            "run_seconds": self.run_seconds,
        }
        return [key for key, limit in limits.items() if isfinite(least(limit))]
