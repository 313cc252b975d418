"""Just-in-time computing: the slowest processor frequency that meets the deadline costs the least.

A cycle at frequency f costs kappa f^2 joules and 1 / f seconds, as in protocol/ledger.py. Derived for this
project from the model of Yan and Li, arXiv 2403.20075.
"""

from dataclasses import dataclass
from math import cbrt
from typing import NamedTuple


@dataclass(frozen=True, kw_only=True)
class Processor:
    """Frequencies a processor can run at, and its effective switched capacitance kappa."""

    min_hz: float
    max_hz: float
    switched_capacitance: float


def thriftiest_hz(switched_capacitance: float, *, idle_power_w: float, max_hz: float) -> float:
    """Return the frequency below which idling for longer costs more than computing saves.

    The least of kappa f^2 + P_idle / f, the joules per cycle, is at f = cbrt(P_idle / (2 kappa)).
    """
    if not switched_capacitance:  # cycles are free: the sooner they are over, the better
        return max_hz
    return min(cbrt(idle_power_w / (2 * switched_capacitance)), max_hz)


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
