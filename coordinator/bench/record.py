"""`bench.json`: what was measured, on what machine; read back by `hearsay bench compare`."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.bench.cases import Case, Size
from coordinator.store import write_whole
from protocol.errors import BadInput

TRUSTED_SPREAD = 0.2
"""By how much the floor's longest repeat may exceed its shortest. It is the same program each time, so what
it varies by is the machine; and 20 % is what a comparison is made to find."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Environment(_Part):
    """Where and with what it was measured."""

    machine: str
    """Processor, cores, system."""
    versions: str
    """Of hearsay, its source, Python and what does the work."""
    num_cores: int
    """Cores that devices may use."""
    memory_bytes: int
    torch_threads: int
    """Of each device and of the floor."""
    load_before: float
    """Processes that wanted a core in the minute before it began, those of others."""


class Quantiles(_Part):
    """Of the rounds of a run after its warm-up, host seconds."""

    p50: float
    p95: float
    p99: float
    mean: float


class Times(_Part):
    """Where the seconds of a round went; a round is the sum of its stages, its quantiles are not."""

    round: Quantiles
    stages: dict[str, Quantiles]


class Measurement(_Part):
    """One run of a case."""

    repeat: int
    all_devices: Times
    """Of the rounds of all devices together."""
    each_device: tuple[Times, ...]
    startup_wall_s: float
    """From the first fork until every device was ready; torch was loaded before."""
    period_wall_s: float
    """The whole run over its rounds: connecting, warm-up, reports and end included."""
    sent_bytes_per_s: float
    """Bytes that all devices handed to sockets over the seconds of their rounds."""
    device_pss_bytes: float
    """Memory of a device at the end, mean: what is shared is divided by those who share it."""
    coordinator_pss_bytes: float
    device_cpu_s: float
    """Processor seconds of a round, all threads of a device, mean over devices."""
    coordinator_cpu_s: float


class Limits(_Part):
    """The least that the work of a round can take, host seconds, measured between the cases."""

    repeat: int
    floor_wall_s: float
    """Round of the floor (`node.floor`), median."""
    floor_startup_wall_s: float
    """Its start-up, torch loaded anew."""
    zmq_wall_s: float
    """The floor's exchange alone: the bytes of a round over ZeroMQ."""
    gloo_wall_s: float
    """The same bytes over gloo."""
    copy_wall_s: float
    """The same bytes copied in memory."""


class CaseRecord(_Part):
    """A case and what came of each repeat."""

    case: Case
    bound_by_interpreter_lock: bool
    """Whether all devices are threads of one interpreter, which its seconds then say more of than of them."""
    num_parameters: int
    frame_bytes: int
    """Bytes of one frame without its header."""
    measurements: tuple[Measurement, ...]


class SizeRecord(_Part):
    """A size and its limits in each repeat."""

    size: Size
    limits: tuple[Limits, ...]

    @property
    def spread(self) -> float:
        """By what share the floor's longest repeat exceeds its shortest."""
        return spread([limits.floor_wall_s for limits in self.limits])


class BenchRecord(_Part):
    """The object that `hearsay bench latency --json` prints and `bench.json` holds."""

    version: Literal[1] = 1
    """Of this file."""
    began: str
    """ISO 8601, UTC."""
    environment: Environment
    rounds: int
    """Rounds of a run that count."""
    warmup_rounds: int
    """Rounds before them that do not: sockets connect, torch sets up what it keeps, buffers are new."""
    repeats: int
    """Repeats that were asked for."""
    cold_startup_wall_s: float | None
    """Of a run that had to load torch first; none if that was interrupted."""
    sizes: tuple[SizeRecord, ...] = ()
    cases: tuple[CaseRecord, ...] = ()

    def limits_of(self, case: Case) -> dict[int, Limits]:
        """Return the limits that were measured beside a case, by repeat."""
        return {
            limits.repeat: limits
            for record in self.sizes
            if record.size == case.size
            for limits in record.limits
        }

    @property
    def warnings(self) -> list[str]:
        """Why not to trust it."""
        said = []
        if noisy := [record for record in self.sizes if record.spread > TRUSTED_SPREAD]:
            worst = max(noisy, key=lambda record: record.spread)
            said.append(
                f"NOISY: between repeats the floor, always the same program, varied by up to "
                f"{worst.spread:.0%} ({worst.size}); above {TRUSTED_SPREAD:.0%} the machine has other work, "
                f"and differences of that size mean nothing"
            )
        if any(len(record.limits) < 2 for record in self.sizes):
            said.append("one repeat cannot tell how noisy the machine is; use --repeats 3")
        return said


def over_limit(record: BenchRecord, case: CaseRecord, limit: str) -> float | None:
    """Return the median over repeats of a median round over a limit of the same repeat, None without any."""
    beside = record.limits_of(case.case)
    ratios = [
        m.all_devices.round.p50 / getattr(beside[m.repeat], limit)
        for m in case.measurements
        if m.repeat in beside
    ]
    return median(ratios) if ratios else None


def spread(values: Sequence[float]) -> float:
    """By what share the largest exceeds the smallest."""
    return max(values) / min(values) - 1


def write(record: BenchRecord, file: Path) -> None:
    """Write a record of which a reader never sees half."""
    write_whole(file, record.model_dump_json(indent=2) + "\n")


def read(file: Path) -> BenchRecord:
    """Read a record; raises BadInput if there is none, or none of this version."""
    try:
        text = file.read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror}); expected a bench.json") from error
    try:
        return BenchRecord.model_validate_json(text)
    except ValidationError as error:
        raise BadInput(
            f"{file}: no bench.json of this version; measure it anew with hearsay bench latency"
        ) from error
