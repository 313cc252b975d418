"""One run of a case, and what is read from its log and from its processes."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from coordinator.bench.cases import WARMUP_ROUNDS, Case, experiment
from coordinator.bench.probe import Probe
from coordinator.bench.record import Measurement
from coordinator.bench.rounds import after_warmup, times
from coordinator.interrupt import Interrupt
from coordinator.run import Outcome, run
from protocol.errors import Interrupted, RunError


@dataclass(frozen=True)
class Measured:
    """What came of a run, and what is the same for all repeats of its case."""

    measurement: Measurement
    num_parameters: int
    frame_bytes: int


def measure_case(case: Case, folder: Path, *, rounds: int, repeat: int, interrupt: Interrupt) -> Measured:
    """Run a case once, in a folder of its own inside of folder.

    Raises Interrupted, or RunError if the run failed or was not sound.
    """
    wanted = experiment(case, WARMUP_ROUNDS + rounds)
    probe = Probe(wanted)
    with _run_folder(folder) as place:
        outcome = run(wanted, place, lambda: nullcontext(probe), interrupt)
        summary = outcome.summary
        if summary.how == "stopped":
            raise Interrupted
        if summary.devices_lost or summary.frames_missing_wall:
            raise RunError(
                f"devices lost: {list(summary.devices_lost)}, frames that the host did not deliver: "
                f"{summary.frames_missing_wall}, so its seconds say nothing; see {place}"
            )
    return Measured(
        _read(outcome, probe, case, repeat),
        num_parameters=summary.num_parameters,
        frame_bytes=outcome.history.started.payload_bytes,
    )


def cold_startup_wall_s(case: Case, folder: Path, interrupt: Interrupt) -> float:
    """Run one round of a case, so that what devices are forked from has loaded torch; raises as above."""
    first = experiment(case, 1)
    with _run_folder(folder) as place:
        outcome = run(first, place, lambda: nullcontext(Probe(first)), interrupt)
    return outcome.summary.startup_wall_s


@contextmanager
def _run_folder(folder: Path) -> Iterator[Path]:
    """Make a run's folder, and remove it unless the run fails: then its logs say why."""
    place = Path(tempfile.mkdtemp(dir=folder, prefix="run-"))
    try:
        yield place
    except RunError:
        raise
    except BaseException:
        shutil.rmtree(place, ignore_errors=True)
        raise
    shutil.rmtree(place)


def _read(outcome: Outcome, probe: Probe, case: Case, repeat: int) -> Measurement:
    summary, devices = outcome.summary, after_warmup(outcome.history, WARMUP_ROUNDS)
    reports = [report for device in devices for report in device]
    usage = probe.usage(WARMUP_ROUNDS)
    # All devices send at the same time: seconds are those of one of them, mean over devices.
    seconds = sum(report.wall_s for report in reports) / case.devices
    return Measurement(
        repeat=repeat,
        all_devices=times(reports),
        each_device=tuple(times(device) for device in devices),
        startup_wall_s=summary.startup_wall_s,
        period_wall_s=summary.wall_s / summary.rounds,
        sent_bytes_per_s=sum(report.bytes_sent for report in reports) / seconds,
        device_pss_bytes=probe.devices_pss_bytes / case.devices,
        coordinator_pss_bytes=probe.coordinator_pss_bytes,
        device_cpu_s=usage.devices_cpu_s / case.devices,
        coordinator_cpu_s=usage.coordinator_cpu_s,
    )
