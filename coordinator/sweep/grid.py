"""The points of a sweep: every combination of the axes' values, each a whole experiment."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TypeAlias
from urllib.parse import quote

from coordinator.sweep.axes import SEED, parse_axes
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.experiment_file import load

Value: TypeAlias = bool | int | float | str
Settings: TypeAlias = Mapping[str, Value]
"""The value of each axis, by key, in the order of the axes."""

MAX_NAME_BYTES = 200
"""Of a point's folder: file systems take 255, and a run under way adds to them."""


@dataclass(frozen=True)
class GridPoint:
    """One combination of the axes' values."""

    settings: Settings
    experiment: Experiment

    @property
    def name(self) -> str:
        """Name of its folder: the same whatever the order of the axes, and whatever points are beside it."""
        keys = sorted(self.settings, key=lambda key: (key == SEED, key))
        return ",".join(f"{key}={quote(label(self.settings[key]), safe='[]+')}" for key in keys)

    @property
    def title(self) -> str:
        """What a reader calls it."""
        return describe(self.settings)


@dataclass(frozen=True)
class Grid:
    """All points of a sweep, the last axis varying fastest."""

    name: str
    keys: tuple[str, ...]
    points: tuple[GridPoint, ...]


def lay_out_grid(file: Path, overrides: Sequence[str], arguments: Sequence[str]) -> Grid:
    """Lay every combination of the axes' values over the experiment in file, as `--set` does.

    Raises BadInput for the first point that is no experiment, so that nothing runs before all are.
    """
    axes = parse_axes(arguments)
    keys = tuple(axis.key for axis in axes)
    for override in overrides:
        if override.partition("=")[0].strip() in keys:
            raise BadInput(f"--set {override}: is swept as well; leave one of them out")
    points: dict[str, GridPoint] = {}
    for texts in product(*(axis.texts for axis in axes)):
        point = _point(file, overrides, dict(zip(keys, texts, strict=True)))
        size = len(point.name.encode())
        if size > MAX_NAME_BYTES:
            raise BadInput(f"{point.title}: makes a folder's name of {size} bytes, at most {MAX_NAME_BYTES}")
        if point.name in points:
            raise BadInput(f"{' '.join(arguments)}: {point.title} occurs twice; name each value once")
        points[point.name] = point
    first = next(iter(points.values()))
    return Grid(first.experiment.name, keys, tuple(points.values()))


def label(value: Value) -> str:
    """Write a value as TOML does, but for words, which go without quotes, and floats that are whole."""
    match value:
        case bool():
            return str(value).lower()
        case float():
            return repr(value).removesuffix(".0")
        case _:
            return str(value)


def describe(settings: Settings) -> str:
    """Write settings in one line."""
    return ", ".join(f"{key}={label(value)}" for key, value in settings.items())


def apart_from_seed(keys: Iterable[str]) -> list[str]:
    """Leave out the axis of repetitions."""
    return [key for key in keys if key != SEED]


def _point(file: Path, overrides: Sequence[str], texts: Mapping[str, str]) -> GridPoint:
    laid_over = [f"{key}={text}" for key, text in texts.items()]
    try:
        experiment = load(file, (*overrides, *laid_over))
    except BadInput as error:
        what = str(error).removeprefix(f"{file} with --set: ")
        if _fault_of(file, overrides).endswith(what):  # with or without the axes
            raise
        raise BadInput(f"{' '.join(laid_over)}: {what}") from error
    return GridPoint({key: _value(experiment, key, text) for key, text in texts.items()}, experiment)


def _value(experiment: Experiment, key: str, text: str) -> Value:
    """Return a number as the experiment took it, so that 5 and 5.0 are the same power; words as typed."""
    found: object = experiment
    for part in key.split("."):
        found = getattr(found, part)
    return found if isinstance(found, bool | int | float) else text.strip("\"'")


def _fault_of(file: Path, overrides: Sequence[str]) -> str:
    try:
        load(file, overrides)
    except BadInput as error:
        return str(error)
    return ""
