"""The machine and the versions that a page was made with."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

from coordinator.store import git_revision


def describe_machine() -> str:
    """Name processor, cores and system."""
    num_cores = len(os.sched_getaffinity(0))
    cores = f"{num_cores} core{'' if num_cores == 1 else 's'}"
    return f"{_processor()}, {cores}; {platform.system()} {platform.release()}"


def describe_versions() -> str:
    """Name the versions that numbers may depend on."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "numpy"))
    return (
        f"hearsay {version('hearsay')}, git {git_revision()}; Python {platform.python_version()}, {packages}"
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
