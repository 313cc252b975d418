"""Floor and bare limits of a size, asked of `python -m node.floor`: the coordinator loads no torch."""

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from time import monotonic

from coordinator.bench.cases import Size
from coordinator.bench.record import Limits
from coordinator.interrupt import Interrupt
from protocol.errors import Interrupted, RunError

LOOK_WALL_S = 0.2
"""Between two looks whether somebody wants an end."""
FLOOR_WALL_S = 1800.0
FLOOR_ROUNDS = 100
"""Rounds of the floor at most: it has a median to tell, and no tail."""


def measure_limits(size: Size, *, rounds: int, repeat: int, interrupt: Interrupt) -> Limits:
    """Run the floor once; raises Interrupted, or RunError if it fails or does not end."""
    command = [sys.executable, "-P", "-m", "node.floor", "--bare", "--json", "--repeats=1"]
    command += [
        f"--devices={size.devices}",
        f"--params={size.params}",
        f"--rounds={min(rounds, FLOOR_ROUNDS)}",
    ]
    # A session of its own: its devices end with it, and Ctrl-C is heard here alone.
    with subprocess.Popen(  # noqa: S603
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            answer, said = _wait_for(process, interrupt)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    if process.returncode:
        reason = said.strip().splitlines()[-1:] or [f"exit code {process.returncode}"]
        raise RunError(f"the floor of {size} failed: {reason[0]}")
    found = json.loads(answer)
    return Limits(
        repeat=repeat,
        floor_wall_s=found["round_wall_s_p50"],
        floor_startup_wall_s=found["startup_wall_s"],
        zmq_wall_s=found["transfer_wall_s_mean"],
        gloo_wall_s=found["gloo_wall_s_mean"],
        copy_wall_s=found["copy_wall_s_mean"],
    )


def _wait_for(process: "subprocess.Popen[str]", interrupt: Interrupt) -> tuple[str, str]:
    deadline = monotonic() + FLOOR_WALL_S
    while monotonic() < deadline:
        if interrupt.count:
            raise Interrupted
        with suppress(subprocess.TimeoutExpired):
            return process.communicate(timeout=LOOK_WALL_S)
    raise RunError(f"the floor did not end within {FLOOR_WALL_S:g} s")
