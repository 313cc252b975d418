"""Devices as processes of this host, forked from one server process that has torch loaded.

Importing torch costs two seconds and 200 MB; a forked device pays neither. `torch._dynamo` is
preloaded too, since the first optimiser of a process imports it. CUDA is never touched before the
fork. Runs in several threads share the server. This module is imported by every device, so it
imports nothing heavy.
"""

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import wait
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from time import monotonic

PRELOAD = ["torch", "torch._dynamo", "node.host", "coordinator.launch.local"]
END_WALL_S = 5.0
"""How long processes have to end by themselves before they are killed."""

_one_at_a_time = threading.Lock()
"""Held to start a process or to ask how one ended: multiprocessing asks all others whenever it starts one,
those of other threads too, and how a process ended can be read but once."""


class LocalProcesses:
    """The device processes of one run, and the news of their deaths."""

    def __init__(self, logs: str) -> None:
        self.logs = logs
        """The folder of what they said."""
        self._processes: list[ForkServerProcess] = []
        self._buried: set[int] = set()

    @classmethod
    @contextmanager
    def launch(
        cls, num_processes: int, url: str, logs: Path, preload: tuple[str, ...]
    ) -> "Iterator[LocalProcesses]":
        """Start processes that join the run at url; whatever happens, none is left at the end."""
        warm_up(preload)
        context = multiprocessing.get_context("forkserver")
        processes = cls(str(logs))
        try:
            for _ in range(num_processes):
                process = context.Process(target=become_node, args=(url, str(logs)))
                with _one_at_a_time:
                    process.start()
                processes._processes.append(process)
            yield processes
            processes._end(END_WALL_S)
        finally:
            processes._end(0.0)

    @property
    def sentinels(self) -> list[int]:
        """File descriptors that become readable when a process dies, for a poller."""
        return [p.sentinel for p in self._processes if p.sentinel not in self._buried]

    def deaths(self) -> list[tuple[int, str]]:
        """Return (pid, how it ended) of every process that died since the last call."""
        with _one_at_a_time:
            dead = [p for p in self._processes if p.sentinel not in self._buried and not p.is_alive()]
        self._buried.update(p.sentinel for p in dead)
        return [(p.pid or 0, _how_it_ended(p.exitcode or 0)) for p in dead]

    def kill(self, pid: int) -> None:
        """Kill one process."""
        for process in self._processes:
            if process.pid == pid:
                process.kill()

    def _end(self, wait_wall_s: float) -> None:
        deadline = monotonic() + wait_wall_s
        for process in self._processes:
            wait([process.sentinel], max(0.0, deadline - monotonic()))
        for process in self._living():
            process.kill()
        for process in self._living():
            wait([process.sentinel])

    def _living(self) -> list[ForkServerProcess]:
        with _one_at_a_time:
            return [p for p in self._processes if p.is_alive()]


def warm_up(preload: Iterable[str]) -> None:
    """Start the server that devices are forked from, unless it runs: it imports torch, and preload, once.

    Whoever starts several runs calls this first, with what any of their devices would import.
    """
    with _one_at_a_time:
        # Two descriptors a device here, and one a link in a process that hosts all: 1,024 are soon used up.
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOAD, *preload])
        _start_server()


def become_node(url: str, logs: str) -> None:
    """Turn this fresh process into `python -m node --coordinator URL`, its output into `<pid>.log`."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the coordinator, which tells the devices
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})  # a device heeds what the server does not
    descriptor = os.open(f"{logs}/{os.getpid()}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    os.close(descriptor)
    for name in ("RANK", "WORLD_SIZE"):  # of whoever started the run: no device of it is theirs
        os.environ.pop(name, None)
    sys.argv = ["node", "--coordinator", url]
    runpy.run_module("node", run_name="__main__", alter_sys=True)


def _start_server() -> None:
    """Start the fork server deaf to signals: one to the whole group must not end it before its devices.

    It is through the server that their deaths are known; without it all of them would seem dead. Python lets
    it ignore Ctrl-C, too, but only once all is loaded.
    """
    resource_tracker.ensure_running()  # started on the way otherwise, which would let signals through again
    # What is blocked stays so across exec; and a thread, unlike a handler, has a mask of its own.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _how_it_ended(exit_code: int) -> str:
    return f"killed by {signal.Signals(-exit_code).name}" if exit_code < 0 else f"exit code {exit_code}"
