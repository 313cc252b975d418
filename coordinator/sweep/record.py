"""`sweep.json`: what was swept, what came of every point, and means with intervals over seeds."""

from collections.abc import Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue, TypeAdapter

from coordinator.summary import Summary
from coordinator.sweep.axes import SEED
from coordinator.sweep.grid import Grid, GridPoint, Value, describe
from coordinator.sweep.intervals import Estimate, estimate
from coordinator.sweep.runner import Result

_OBJECT: TypeAdapter[dict[str, JsonValue]] = TypeAdapter(dict[str, JsonValue])


class _Part(BaseModel):
    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )


class Numbers(_Part):
    """What a sweep compares of its runs, named as in their summaries."""

    accuracy_mean: float | None
    accuracy_min: float | None
    loss_mean: float | None
    consensus_distance: float | None
    joules: float | None
    air_s: float | None
    packet_loss: float | None
    """Share of radio packets lost, with a digital radio."""
    wall_s: float


class PointRecord(_Part):
    """One point: its settings, its run's folder, and what came of it."""

    settings: dict[str, Value]
    folder: str
    """Beside this file; there is none for a point that is not finished."""
    state: Literal["waiting", "finished", "failed"] = "waiting"
    reason: str = ""
    """Why it failed."""
    sound: bool = True
    """Whether no device was lost, the host delivered every frame, and a paced clock was kept."""
    numbers: Numbers | None = None


class Cell(_Part):
    """All points that differ in their seed alone."""

    settings: dict[str, Value]
    num_points: int
    num_finished: int
    estimates: dict[str, Estimate]
    """Of each of the numbers that any of them has."""


class SweepRecord(_Part):
    """The object that `hearsay sweep --json` prints and `sweep.json` holds."""

    name: str
    base: dict[str, JsonValue]
    """The experiment that all points have in common, without what is swept."""
    keys: tuple[str, ...]
    """What is swept, in the order of the axes."""
    points: tuple[PointRecord, ...]
    cells: tuple[Cell, ...]

    @property
    def failed(self) -> list[PointRecord]:
        """Points that failed."""
        return [point for point in self.points if point.state == "failed"]

    @property
    def num_finished(self) -> int:
        """Points that were run to their end."""
        return sum(point.state == "finished" for point in self.points)


def make_record(grid: Grid, results: Mapping[int, Result], folders: Sequence[str]) -> SweepRecord:
    """Gather what is known of a grid's points, those without a result among them."""
    points = tuple(
        _point(point, folder, results.get(number))
        for number, (point, folder) in enumerate(zip(grid.points, folders, strict=True))
    )
    return SweepRecord(
        name=grid.name, base=base_of(grid), keys=grid.keys, points=points, cells=tuple(_cells(points))
    )


def base_of(grid: Grid) -> dict[str, JsonValue]:
    """Return the experiment of all points, without what is swept."""
    base = _OBJECT.validate_json(grid.points[0].experiment.model_dump_json())
    for key in grid.keys:
        *sections, last = key.split(".")
        table = base
        for section in sections:
            inner = table[section]
            assert isinstance(inner, dict)
            table = inner
        del table[last]
    return base


def _point(point: GridPoint, folder: str, result: Result | None) -> PointRecord:
    settings = dict(point.settings)
    if result is None:
        return PointRecord(settings=settings, folder=folder)
    summary = result.summary
    if summary is None:
        return PointRecord(settings=settings, folder=folder, state="failed", reason=result.failure)
    return PointRecord(
        settings=settings,
        folder=folder,
        state="finished",
        sound=summary.valid and not summary.devices_lost and not summary.frames_missing_wall,
        numbers=_numbers(summary, digital=point.experiment.radio.scheme == "digital"),
    )


def _numbers(summary: Summary, *, digital: bool) -> Numbers:
    return Numbers(
        accuracy_mean=summary.accuracy_mean,
        accuracy_min=summary.accuracy_min,
        loss_mean=summary.loss_mean,
        consensus_distance=summary.consensus_distance,
        joules=summary.joules,
        air_s=summary.air_s,
        packet_loss=summary.packets_lost / summary.packets_sent if digital and summary.packets_sent else None,
        wall_s=summary.wall_s,
    )


def _cells(points: Sequence[PointRecord]) -> list[Cell]:
    """Take together the points that differ in their seed alone, in the order of the grid."""
    together: dict[str, list[PointRecord]] = {}
    for point in points:
        together.setdefault(describe(_without_seed(point.settings)), []).append(point)
    return [_cell(members) for members in together.values()]


def _cell(members: Sequence[PointRecord]) -> Cell:
    numbers = [point.numbers for point in members if point.numbers is not None]
    estimates = {}
    for name in Numbers.model_fields:
        values = [getattr(one, name) for one in numbers]
        if found := estimate([value for value in values if value is not None]):
            estimates[name] = found
    return Cell(
        settings=_without_seed(members[0].settings),
        num_points=len(members),
        num_finished=len(numbers),
        estimates=estimates,
    )


def _without_seed(settings: Mapping[str, Value]) -> dict[str, Value]:
    return {key: value for key, value in settings.items() if key != SEED}
