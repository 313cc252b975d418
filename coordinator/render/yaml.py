"""YAML, as much of it as files that we write need: mappings, lists, words, whole numbers."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

Yaml: TypeAlias = "str | int | bool | Sequence[Yaml] | Mapping[str, Yaml]"

_PLAIN = re.compile(r"(?:[A-Za-z]|\.{0,2}/)[A-Za-z0-9_./-]*")
_NO_STRINGS = {"y", "n", "yes", "no", "on", "off", "true", "false", "null"}
"""Plain words that some version of YAML reads as something else."""


def to_yaml(value: Mapping[str, Yaml]) -> str:
    """Write a document in block style; strings that could be taken for anything else are quoted."""
    return "".join(f"{line}\n" for line in _lines(value))


def quoted(text: str) -> str:
    """Write a string in double quotes, everything beyond printable ASCII escaped."""
    return '"' + "".join(map(_escaped, text)) + '"'


def _lines(value: "Sequence[Yaml] | Mapping[str, Yaml]") -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _entry(f"{_scalar(key)}:", inner)
    else:
        for inner in value:
            yield from _entry("-", inner)


def _entry(mark: str, value: Yaml) -> Iterator[str]:
    if isinstance(value, str | int):
        yield f"{mark} {_scalar(value)}"
    elif not value:
        yield f"{mark} {'{}' if isinstance(value, Mapping) else '[]'}"
    elif mark == "-":
        yield from (f"{'  ' if number else '- '}{line}" for number, line in enumerate(_lines(value)))
    else:
        yield mark
        yield from (f"  {line}" for line in _lines(value))


def _scalar(value: str | int) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    return value if _PLAIN.fullmatch(value) and value.lower() not in _NO_STRINGS else quoted(value)


def _escaped(character: str) -> str:
    if character in '"\\':
        return f"\\{character}"
    if " " <= character <= "~":
        return character
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
