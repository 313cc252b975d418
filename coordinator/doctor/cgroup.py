"""What the control group of this process leaves it: in a container that counts, not what the host has.

Both versions are read, the limit of the group and of every group above it. What is not there, or says that
there is no limit, limits nothing. `root` is where the file system begins.
"""

from collections.abc import Iterator
from pathlib import Path


def memory_left_bytes(root: Path) -> int | None:
    """Return what may yet be allocated; pages of files that nobody uses can be had again.

    Where version 1 has no limit, it says so with a number near 2^63.
    """
    left = []
    for folder in _folders(root, "memory"):
        limit = _number(folder / "memory.max") or _number(folder / "memory.limit_in_bytes")
        used = _number(folder / "memory.current") or _number(folder / "memory.usage_in_bytes") or 0
        if limit is not None:
            left.append(max(0, limit - max(0, used - _idle_bytes(folder))))
    return min(left, default=None)


def cores(root: Path) -> float | None:
    """Return how many cores' time may be used."""
    quotas = []
    for folder in _folders(root, "cpu"):
        words = _words(folder / "cpu.max") or [
            *_words(folder / "cpu.cfs_quota_us"),
            *_words(folder / "cpu.cfs_period_us"),
        ]
        if len(words) == 2 and words[0].isdecimal() and words[1].isdecimal():
            quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def threads_left(root: Path) -> int | None:
    """Return how many threads may yet be started: the controller calls them pids."""
    left = []
    for folder in _folders(root, "pids"):
        limit = _number(folder / "pids.max")
        if limit is not None:
            left.append(max(0, limit - (_number(folder / "pids.current") or 0)))
    return min(left, default=None)


def _folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of this process's group and those above it, in each hierarchy with this controller.

    In a container the group's name may be the host's while only its own folder is mounted: the uppermost.
    """
    mount = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, name = rest.partition(":")
        if controllers and controller not in controllers.split(","):
            continue
        top = mount / controller if controllers else mount
        group = top / name.strip("/")
        yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(top))


def _idle_bytes(folder: Path) -> int:
    """Return the pages of files that nobody uses; version 1 has a line for all groups below, too."""
    stat = dict(line.split(" ", 1) for line in _lines(folder / "memory.stat") if " " in line)
    return int(stat.get("total_inactive_file", stat.get("inactive_file", "0")))


def _number(file: Path) -> int | None:
    words = _words(file)
    return int(words[0]) if words and words[0].isdecimal() else None


def _words(file: Path) -> list[str]:
    return " ".join(_lines(file)).split()


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):  # not this version, not mounted, or not for us to read
        return []
