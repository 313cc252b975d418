"""Experiments as TOML files: read them, write them, and say in one line what is wrong with them."""

import difflib
import json
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from math import isfinite
from pathlib import Path
from typing import TypeAlias, get_args

import tomli_w
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from protocol.config import Experiment
from protocol.errors import BadInput

Table: TypeAlias = "dict[str, str | int | float | bool | list[str | int | float | bool] | Table]"

UNITS = {
    "_hz": "Hz",
    "_dbm": "dBm",
    "_db": "dB",
    "_dbm_hz": "dBm/Hz",
    "_dbi": "dBi",
    "_w": "W",
    "_m_s": "m/s",
    "_s": "seconds",
    "seconds": "seconds",
    "joules": "J",
    "_m": "metres",
    "_bytes": "bytes",
    "nakagami_m": "",  # a shape, not metres
}
_MAX_SHOWN = 60


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
    except (ValueError, RecursionError) as error:  # beyond its own error: endless numbers, endless nesting
        raise BadInput(f"{path}: not TOML: {error}") from error
    for override in overrides:
        _lay_over(table, override)
    experiment = parse(table, source=f"{path} with --set" if overrides else str(path))
    # Relative to the experiment, not to wherever the command was typed.
    graph, radio = experiment.graph, experiment.radio
    return experiment.model_copy(
        update={
            "graph": graph.model_copy(update={"file": _beside(path, "graph.file", graph.file)}),
            "radio": radio.model_copy(update={"snr_file": _beside(path, "radio.snr_file", radio.snr_file)}),
        }
    )


def _beside(experiment: Path, key: str, file: str) -> str:
    """Return the absolute path of a file that an experiment names; an empty name stays empty."""
    try:
        return str((experiment.parent / file).resolve()) if file else ""
    except (OSError, ValueError, RuntimeError) as error:
        raise BadInput(f"{key} = {file!r}: no path to a file ({error})") from error


def parse(table: Table, *, source: str) -> Experiment:
    """Build an experiment from nested tables; raises BadInput that names the first fault and its source."""
    try:
        return Experiment.model_validate(table)
    except ValidationError as error:
        faults = error.errors(include_url=False)
        more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
        raise BadInput(f"{source}: {_one_line(faults[0])}{more}") from error


def dump(experiment: Experiment, *, comments: Iterable[str] = ()) -> str:
    """Write an experiment as TOML, every default spelled out, with leading comment lines.

    What has no default and was not given stays out: TOML has no null.
    """
    head = "".join(f"# {line}\n" for comment in comments for line in comment.splitlines())
    return head + tomli_w.dumps(experiment.model_dump(mode="python", exclude_none=True))


def schema() -> str:
    """Write the JSON Schema of an experiment; JSON has no infinity, so such defaults are the string "inf"."""
    return json.dumps(_finite(Experiment.model_json_schema()), indent=2, allow_nan=False)


def nearest(word: str, known: Iterable[str]) -> str:
    """Return a hint that names the known word nearest to a misspelt one, or lists them all."""
    known = sorted(known)
    match = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"known here: {', '.join(known)}"


def _finite(value: object) -> object:
    match value:
        case dict():
            return {key: _finite(inner) for key, inner in value.items()}
        case list():
            return [_finite(inner) for inner in value]
        case float() if not isfinite(value):
            return str(value)
        case _:
            return value


def _lay_over(table: Table, override: str) -> None:
    dotted, equals, value = override.partition("=")
    keys = dotted.strip().split(".")
    if not equals or not all(keys):
        raise BadInput(f"--set {override}: expected section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (ValueError, RecursionError):
        parsed = value.strip()  # a bare word is a string: --set graph.kind=ring
    for key in keys[:-1]:
        inner = table.setdefault(key, {})
        if not isinstance(inner, dict):
            raise BadInput(f"--set {override}: {key} is a value, not a section")
        table = inner
    table[keys[-1]] = parsed


def _one_line(fault: ErrorDetails) -> str:
    loc = _named(fault["loc"])
    where = ".".join(str(part) for part in loc)
    if fault["type"] == "extra_forbidden":
        return f"unknown key {where!r}: {_right_key(loc)}"
    if fault["type"] == "value_error":
        return str(fault["ctx"]["error"])
    given = f"{where} = {_shown(fault['input'])}" if where else "the experiment"
    unit = unit_of(where)
    if fault["type"] == "model_type":
        return f"{given}: expected a section with keys"
    if fault["type"] == "no_boolean":
        return f"{given}: {fault['msg']}"
    if fault["type"] == "literal_error":
        return f"{given}: expected {fault['ctx']['expected']}"
    if fault["type"].startswith(("greater", "less", "finite")) and (limits := _limits(loc)):
        return f"{given}: must be {limits} {unit}".rstrip()
    return f"{given}: {fault['msg'][:1].lower()}{fault['msg'][1:]}" + (f" [{unit}]" if unit else "")


def _named(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """Leave out what is no key: which kind of value pydantic took a value for."""
    section: object = Experiment
    for number, part in enumerate(location):
        fields = _fields_in(section)
        if part not in fields:
            return location[:number] + tuple(
                p for p in location[number:] if p not in ("number", "word", "list")
            )
        section = fields[str(part)].annotation
    return location


def _shown(value: object) -> str:
    try:
        return textwrap.shorten(repr(value), _MAX_SHOWN)
    except ValueError:  # an integer of thousands of digits
        return "a number of thousands of digits"


def _right_key(location: tuple[int | str, ...]) -> str:
    """Hint at what an unknown key should have been: the same word in another section, or the nearest here."""
    word = str(location[-1])
    sections = [name for name in Experiment.model_fields if word in _fields_of(name)]
    if word in Experiment.model_fields:
        return f"did you mean {word!r}, outside of any section?"
    if len(sections) == 1:
        return f"did you mean '{sections[0]}.{word}'?"
    for name in Experiment.model_fields:
        for inner, field in _fields_of(name).items():
            if word in _fields_in(field.annotation):
                return f"did you mean '{name}.{inner}.{word}'?"
    return nearest(word, _section_at(location[:-1]).model_fields)


def _fields_of(name: str) -> Mapping[str, FieldInfo]:
    return _fields_in(Experiment.model_fields[name].annotation)


def _fields_in(section: object) -> Mapping[str, FieldInfo]:
    return section.model_fields if isinstance(section, type) and issubclass(section, BaseModel) else {}


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
    signs = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    field = _section_at(tuple(fields[:-1])).model_fields[fields[-1]]
    metadata = [*field.metadata, *_metadata_in(field.annotation)]
    bounds = [
        f"{sign} {bound:g}" if isinstance(bound, float) else f"{sign} {bound}"
        for limit in metadata
        for name, sign in signs.items()
        if (bound := getattr(limit, name, None)) is not None
    ]
    finite = any(getattr(limit, "allow_inf_nan", None) is False for limit in metadata)
    return " and ".join(["finite", *bounds] if finite else bounds)


def _metadata_in(annotation: object) -> Iterator[object]:
    """Yield the constraints on the members of a union, such as a number or a word."""
    for arg in get_args(annotation):
        if isinstance(arg, FieldInfo):
            yield from arg.metadata
        yield from _metadata_in(arg)


def unit_of(name: str) -> str:
    """Return the unit that a key's name ends in, or nothing."""
    suffix = max((s for s in UNITS if name.endswith(s)), key=len, default="")
    return UNITS.get(suffix, "")
