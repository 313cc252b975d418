"""Just-in-time computing: the slowest processor frequency that meets the deadline costs the least.

A cycle at frequency f costs kappa f^2 joules and 1 / f seconds, as in protocol/ledger.py. Derived for this
project from the model of Yan and Li, arXiv 2403.20075.
"""

from dataclasses import dataclass
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Frequencies a processor can run at, and its effective switched capacitance kappa."""

    min_hz: float
    max_hz: float
    switched_capacitance: float


class Pace(NamedTuple):
    """A frequency, and the joules that it saves against the highest one."""

    cpu_hz: float
    saved_j: float


def just_in_time(processor: Processor, *, cycles: float, air_s: float) -> Pace:
    """Return the frequency at which so many cycles take air_s seconds, within the processor's limits.

    f = cycles / air_s, saved = kappa cycles (f_max^2 - f^2). At f_max it may still be late.
    """
    wanted_hz = cycles / air_s if air_s > 0 else processor.max_hz
    cpu_hz = min(max(wanted_hz, processor.min_hz), processor.max_hz)
    return Pace(cpu_hz, processor.switched_capacitance * cycles * (processor.max_hz**2 - cpu_hz**2))
