"""`hearsay bench compare`: which differences between two records are real."""

from pathlib import Path
from statistics import median

from pydantic import BaseModel, ConfigDict

from coordinator.bench.cases import Case
from coordinator.bench.record import BenchRecord, CaseRecord, Measurement, read
from coordinator.bench.welch import MIN_REPEATS, ratio_of, real
from protocol.errors import BadInput


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Difference(_Part):
    """One number of one case in both records."""

    case: Case
    quantity: str
    a: float
    b: float
    """Medians over repeats, as they were measured: seconds or bytes."""
    ratio: float
    """b over a; of seconds, each first divided by the floor's round of the same repeat."""
    low: float
    high: float
    """95 % interval of the ratio, by itself."""
    p: float
    """Probability of a difference like this if there is none, by itself."""
    real: bool
    """Whether it is taken for real among all of them."""
    where: str = ""
    """Of a round that really differs: the stage whose median moved most."""


class Comparison(_Part):
    """The object that `hearsay bench compare --json` prints."""

    a: str
    b: str
    same_machine: bool
    same_versions: bool
    machines: tuple[str, str]
    repeats: tuple[int, int]
    """Fewest of any case."""
    differences: tuple[Difference, ...]
    left_out: tuple[str, ...]
    """Cases of one record alone, or of too few repeats."""
    warnings: tuple[str, ...]


def compare(file_a: Path, file_b: Path) -> Comparison:
    """Compare what two records have in common; raises BadInput where that is nothing."""
    a, b = read(file_a), read(file_b)
    return compare_records(a, b, names=(str(file_a), str(file_b)))


def compare_records(a: BenchRecord, b: BenchRecord, *, names: tuple[str, str]) -> Comparison:
    """Compare two records; raises BadInput where there is nothing to compare."""
    name_a, name_b = names
    if (a.rounds, a.warmup_rounds) != (b.rounds, b.warmup_rounds):
        raise BadInput(
            f"{name_b}: {b.rounds} rounds a run after {b.warmup_rounds} of warm-up, and {name_a} {a.rounds} "
            f"after {a.warmup_rounds}; measure one again with the same --rounds"
        )
    cases_a, cases_b = ({record.case: record for record in one.cases} for one in (a, b))
    common = [case for case in cases_a if case in cases_b]
    if not common:
        raise BadInput(
            f"{name_b}: no case in common with {name_a}; measure one again with the other's --devices, "
            f"--params, --transport and --radio"
        )
    values = {
        (case, quantity): (_repeats(a, cases_a[case], quantity), _repeats(b, cases_b[case], quantity))
        for case in common
        for quantity in QUANTITIES
    }
    enough = [case for case in common if min(map(len, values[case, ROUND])) >= MIN_REPEATS]
    if not enough:
        raise BadInput(f"{name_a} and {name_b}: no case that both repeated; measure with --repeats 3 or more")
    found = {key: ratio_of(*pair) for key, pair in values.items() if key[0] in enough}
    verdicts = real([ratio.p for ratio in found.values()])
    differences = [
        Difference(
            case=case,
            quantity=quantity,
            a=median(map(QUANTITIES[quantity], cases_a[case].measurements)),
            b=median(map(QUANTITIES[quantity], cases_b[case].measurements)),
            ratio=ratio.ratio,
            low=ratio.low,
            high=ratio.high,
            p=ratio.p,
            real=verdict,
            where=_where(cases_a[case], cases_b[case]) if verdict and quantity == ROUND else "",
        )
        for ((case, quantity), ratio), verdict in zip(found.items(), verdicts, strict=True)
    ]
    left_out = [str(case) for case in {**cases_a, **cases_b} if case not in enough]
    where_a, where_b = a.environment, b.environment
    return Comparison(
        a=name_a,
        b=name_b,
        same_machine=(where_a.machine, where_a.memory_bytes) == (where_b.machine, where_b.memory_bytes),
        same_versions=where_a.versions == where_b.versions,
        machines=(where_a.machine, where_b.machine),
        repeats=(
            min(len(values[case, ROUND][0]) for case in enough),
            min(len(values[case, ROUND][1]) for case in enough),
        ),
        differences=tuple(differences),
        left_out=tuple(left_out),
        warnings=tuple(
            f"{name}: {said}" for name, one in ((name_a, a), (name_b, b)) for said in one.warnings
        ),
    )


def _round_s(measurement: Measurement) -> float:
    return measurement.all_devices.round.p50


def _startup_s(measurement: Measurement) -> float:
    return measurement.startup_wall_s


def _cpu_s(measurement: Measurement) -> float:
    return measurement.device_cpu_s


def _memory_bytes(measurement: Measurement) -> float:
    return measurement.device_pss_bytes


ROUND, MEMORY = "round", "memory"
QUANTITIES = {ROUND: _round_s, "start-up": _startup_s, "processor": _cpu_s, MEMORY: _memory_bytes}


def _repeats(record: BenchRecord, case: CaseRecord, quantity: str) -> list[float]:
    """Return a number of each repeat that has a floor beside it; seconds as multiples of the floor's round.

    So what slows down the whole machine for minutes is no difference.
    """
    limits, number = record.limits_of(case.case), QUANTITIES[quantity]
    return [
        number(measurement) / (1 if quantity == MEMORY else limits[measurement.repeat].floor_wall_s)
        for measurement in case.measurements
        if measurement.repeat in limits
    ]


def _where(a: CaseRecord, b: CaseRecord) -> str:
    """Name the stage whose median moved most, with its seconds in both."""
    moved = {}
    for stage in a.measurements[0].all_devices.stages:
        before, after = (
            median(m.all_devices.stages[stage].p50 for m in case.measurements) for case in (a, b)
        )
        moved[stage] = (abs(after - before), before, after)
    stage = max(moved, key=lambda name: moved[name][0])
    _, before, after = moved[stage]
    return f"{stage}: {1e3 * before:.3g} to {1e3 * after:.3g} ms"
