"""The hardware of each device: what computing and talking cost it, and what it may spend.

A cycle takes 1 / f seconds and kappa f^2 joules at frequency f; the ledger has the source.
"""

from dataclasses import dataclass
from enum import IntEnum
from functools import lru_cache

from protocol.config import Experiment
from protocol.quantities import PerDevice, numbers
from protocol.radio import Device
from protocol.theory.frequency import Processor, just_in_time, thriftiest_hz


class Drawn(IntEnum):
    """Quantities that may be drawn; the numbers are part of the reproducibility contract."""

    CPU_HZ = 0
    CYCLES_PER_SAMPLE = 1
    SWITCHED_CAPACITANCE = 2
    TX_POWER_DBM = 3
    BUDGET_J = 4
    BUDGET_AIR_S = 5


@dataclass(frozen=True)
class Hardware:
    """One device."""

    cpu_hz: float
    cycles_per_sample: float
    switched_capacitance: float
    tx_power_dbm: float
    rx_power_w: float
    idle_power_w: float
    batch_size: int
    """Samples of a local round."""
    budget_j: float
    """What it may spend in the run: the lesser of its own budget and its share of the run's."""
    budget_air_s: float
    """When it must be done."""

    @property
    def tx_power_w(self) -> float:
        """Transmit power [W]: 10^((P [dBm] - 30) / 10)."""
        return float(10 ** ((self.tx_power_dbm - 30) / 10))

    def compute_air_s(self, cycles: float) -> float:
        """Modelled seconds that so many cycles take."""
        return cycles / self.cpu_hz

    def compute_j(self, cycles: float) -> float:
        """Joules that so many cycles cost."""
        return self.switched_capacitance * self.cpu_hz**2 * cycles

    @property
    def local_round_cycles(self) -> float:
        """Cycles of one local round with a full batch."""
        return self.cycles_per_sample * self.batch_size

    @property
    def local_round_air_s(self) -> float:
        """Modelled seconds of one local round with a full batch."""
        return self.compute_air_s(self.local_round_cycles)

    @property
    def local_round_j(self) -> float:
        """Joules of one local round with a full batch."""
        return self.compute_j(self.local_round_cycles)

    def training_hz(self, device: Device, *, num_local_rounds: int, air_s: float) -> float:
        """Frequency at which so many local rounds are trained, with air_s seconds until the exchange."""
        if device.frequency == "fixed":
            return self.cpu_hz
        kappa = self.switched_capacitance
        thriftiest = thriftiest_hz(kappa, idle_power_w=self.idle_power_w, max_hz=self.cpu_hz)
        lowest_hz = max(min(device.cpu_min_hz, self.cpu_hz), thriftiest)
        processor = Processor(min_hz=lowest_hz, max_hz=self.cpu_hz, switched_capacitance=kappa)
        cycles = num_local_rounds * self.local_round_cycles
        return just_in_time(processor, cycles=cycles, air_s=air_s).cpu_hz


@lru_cache(maxsize=8)  # every link of a device asks for the slowest of all
def fleet(experiment: Experiment) -> tuple[Hardware, ...]:
    """Return the hardware of every device; lists are in order of device, draws follow from the seed."""
    device, budget, num_devices = experiment.device, experiment.budget, experiment.devices

    def of_each(quantity: PerDevice, which: Drawn) -> list[float]:
        return list(numbers(quantity, num_devices, seed=experiment.seed, which=which))

    share_j = budget.run_joules / num_devices
    return tuple(
        Hardware(
            cpu_hz=cpu_hz,
            cycles_per_sample=cycles_per_sample,
            switched_capacitance=switched_capacitance,
            tx_power_dbm=tx_power_dbm,
            rx_power_w=device.rx_power_w,
            idle_power_w=device.idle_power_w,
            batch_size=experiment.training.batch_size,
            budget_j=min(joules, share_j),
            budget_air_s=min(seconds, budget.run_seconds),
        )
        for cpu_hz, cycles_per_sample, switched_capacitance, tx_power_dbm, joules, seconds in zip(
            of_each(device.cpu_hz, Drawn.CPU_HZ),
            of_each(device.cycles_per_sample, Drawn.CYCLES_PER_SAMPLE),
            of_each(device.switched_capacitance, Drawn.SWITCHED_CAPACITANCE),
            of_each(experiment.radio.tx_power_dbm, Drawn.TX_POWER_DBM),
            of_each(budget.joules, Drawn.BUDGET_J),
            of_each(budget.seconds, Drawn.BUDGET_AIR_S),
            strict=True,
        )
    )


def hardware(experiment: Experiment, device: int) -> Hardware:
    """Return the hardware of one device."""
    return fleet(experiment)[device]
