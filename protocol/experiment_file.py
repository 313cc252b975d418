"""Experiments as TOML files: read them, write them, and say in one line what is wrong with them."""

import difflib
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeAlias

import annotated_types
import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from protocol.config import Experiment
from protocol.errors import BadInput

Table: TypeAlias = "dict[str, str | int | float | bool | list[str | int | float | bool] | Table]"

UNITS = {
    "_hz": "Hz",
    "_dbm": "dBm",
    "_db": "dB",
    "_dbm_hz": "dBm/Hz",
    "_s": "seconds",
    "_m": "metres",
    "_bytes": "bytes",
    "_j": "joules",
}


def load(path: Path, overrides: Iterable[str] = ()) -> Experiment:
    """Read the experiment in path, with `section.key=value` overrides laid over it.

    Raises BadInput with one line that says what is wrong, where, and what would be right.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise BadInput(f"{path}: not TOML: {error}") from error
    for override in overrides:
        _lay_over(table, override)
    experiment = parse(table, source=str(path))
    if experiment.graph.file:
        # Relative to the experiment, not to wherever the command was typed.
        edges = (path.parent / experiment.graph.file).resolve()
        experiment = experiment.model_copy(
            update={"graph": experiment.graph.model_copy(update={"file": str(edges)})}
        )
    return experiment


def parse(table: Table, *, source: str) -> Experiment:
    """Build an experiment from nested tables; raises BadInput that names the first fault and its source."""
    try:
        return Experiment.model_validate(table)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BadInput(f"{source}: {_one_line(faults[0])}{more}") from error


def dump(experiment: Experiment, *, comments: Iterable[str] = ()) -> str:
    """Write an experiment as TOML, every default spelled out, with leading comment lines."""
    head = "".join(f"# {line}\n" for line in comments)
    return head + tomli_w.dumps(experiment.model_dump(mode="python"))


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word nearest to a misspelt one, or lists them all."""
    known = sorted(known)
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"known here: {', '.join(known)}"


def _lay_over(table: Table, override: str) -> None:
    dotted, equals, value = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise BadInput(f"--set {override}: expected section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value.strip()  # a bare word is a string: --set graph.kind=ring
    for key in keys[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise BadInput(f"--set {override}: {key} is a value, not a section")
        table = inner
    table[keys[-1]] = parsed


def _one_line(fault: ErrorDetails) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        known = _section_at(fault["loc"][:-1]).model_fields
        return f"unknown key {where!r}: {nearest(str(fault['loc'][-1]), known)}"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    if fault["type"] == "literal_error":
        return f"{where} = {fault['input']!r}: expected {fault['ctx']['expected']}"
    name = str(fault["loc"][-1]) if fault["loc"] else "experiment"
    limits = _limits(fault["loc"]) if fault["type"].startswith(("greater", "less", "finite")) else ""
    return f"{where} = {fault['input']!r}: " + (limits or _lower_first(fault["msg"])) + _unit(name)


def _section_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = Experiment
    for part in location:
        inner = section.model_fields[str(part)].annotation
        assert isinstance(inner, type)
        assert issubclass(inner, BaseModel)
        section = inner
    return section


def _limits(location: tuple[int | str, ...]) -> str:
    """Say the range of a field from its own constraints, both ends."""
    fields = [part for part in location if isinstance(part, str)]
    metadata = _section_at(tuple(fields[:-1])).model_fields[fields[-1]].metadata
    signs: dict[type, str] = {
        annotated_types.Gt: ">",
        annotated_types.Ge: ">=",
        annotated_types.Lt: "<",
        annotated_types.Le: "<=",
    }
    bounds = [
        f"{signs[type(limit)]} {getattr(limit, type(limit).__name__.lower()):g}"
        for limit in metadata
        if type(limit) in signs
    ]
    return f"must be finite and {' and '.join(bounds)}" if bounds else ""


def _unit(name: str) -> str:
    suffix = max((s for s in UNITS if name.endswith(s)), key=len, default=None)
    return f" {UNITS[suffix]}" if suffix else ""


def _lower_first(message: str) -> str:
    return message[:1].lower() + message[1:]
