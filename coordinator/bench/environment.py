"""The machine that is measured, as it was when the measurement began."""

import os
from importlib.metadata import version

from coordinator.bench.record import Environment
from coordinator.reproduce.machine import describe_machine, describe_versions
from protocol.config import Experiment


def describe_environment() -> Environment:
    """Look at processor, memory, versions and load."""
    return Environment(
        machine=describe_machine(),
        versions=f"{describe_versions()}, pyzmq {version('pyzmq')}",
        num_cores=len(os.sched_getaffinity(0)),
        memory_bytes=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        torch_threads=Experiment().runtime.torch_threads,
        load_before=os.getloadavg()[0],
    )
