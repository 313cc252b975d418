"""What processes use while a run goes on: processor seconds and memory, read from the kernel."""

import os
from dataclasses import dataclass
from pathlib import Path
from time import clock_gettime, process_time

from coordinator.events import Event, Started
from protocol.config import Experiment
from protocol.errors import RunError
from protocol.messages import Report


@dataclass(frozen=True)
class Reading:
    """Processor seconds since they began, once all devices had reported a round."""

    round: int
    devices_cpu_s: float
    coordinator_cpu_s: float


@dataclass(frozen=True)
class Usage:
    """What devices and coordinator used, processor seconds of one round."""

    devices_cpu_s: float
    coordinator_cpu_s: float


class Probe:
    """Watches one run, as a view does, from the thread that serves it.

    Processor seconds are read whenever all that was reported so far is heard; memory once, when the last
    round is reported: all devices then wait for each other, and nothing is timed any more.
    """

    def __init__(self, experiment: Experiment) -> None:
        self.readings: list[Reading] = []
        self.devices_pss_bytes = 0
        self.coordinator_pss_bytes = 0
        self._last_round = experiment.rounds - 1
        self._newest = [-1] * experiment.devices
        self._pids: set[int] = set()

    def show(self, event: Event) -> None:
        """Take in an event of the run."""
        if isinstance(event, Started):
            self._pids = set(event.pids)
            self._read()
        if isinstance(event, Report):
            self._newest[event.device] = event.round
            if min(self._newest) == self._last_round:
                self._read()
                self.devices_pss_bytes = sum(pss_bytes(pid) for pid in self._pids)
                self.coordinator_pss_bytes = pss_bytes(os.getpid())

    def tick(self) -> None:
        """Read, if there is something new."""
        if self.readings and self.readings[-1].round < min(self._newest) < self._last_round:
            self._read()

    def usage(self, warmup_rounds: int) -> Usage:
        """Return what a round took after the warm-up, or with it if reports came too seldom to tell.

        Raises RunError if the run was not watched to its end.
        """
        if not self.devices_pss_bytes:
            raise RunError("not all devices reported their last round")
        last = self.readings[-1]
        settled = [reading for reading in self.readings if reading.round >= warmup_rounds - 1]
        # Reports travel together, so the first reading may be late; half of the rounds have to follow it.
        half = (last.round + warmup_rounds) / 2
        first = settled[0] if settled[0].round <= half else self.readings[0]
        rounds = last.round - first.round
        return Usage(
            (last.devices_cpu_s - first.devices_cpu_s) / rounds,
            (last.coordinator_cpu_s - first.coordinator_cpu_s) / rounds,
        )

    def _read(self) -> None:
        try:
            devices_cpu_s = sum(cpu_s(pid) for pid in self._pids)
        except OSError:
            return  # one has died, which the run tells by itself
        self.readings.append(Reading(min(self._newest), devices_cpu_s, process_time()))


def cpu_s(pid: int) -> float:
    """Return processor seconds of all threads of a process so far; raises OSError if it is gone.

    Each process has a clock, of number (~pid << 3) | 2 (CPUCLOCK_SCHED in Linux' posix-timers.h); /proc has
    the same in steps of 10 ms, more than a round takes.
    """
    return clock_gettime((~pid << 3) | 2)


def pss_bytes(pid: int) -> int:
    """Return the proportional set size of a process: a page that n processes share counts 1/n in each."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()
    except OSError as error:
        raise RunError(f"memory of process {pid}: cannot be read ({error.strerror})") from error
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
