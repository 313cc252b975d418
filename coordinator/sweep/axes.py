"""The axes of a sweep as they are typed: KEY=FIRST:LAST:STEP, KEY=A,B,C or KEY=VALUE."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from coordinator.ranges import parse_range
from protocol.errors import BadInput

MAX_POINTS = 10_000
SEED = "seed"
"""The axis of repetitions, over which means are taken."""


@dataclass(frozen=True)
class Axis:
    """A key of the experiment, and its values as `--set` takes them."""

    key: str
    texts: tuple[str, ...]


def parse_axes(arguments: Sequence[str]) -> tuple[Axis, ...]:
    """Read all axes; raises BadInput if one of them is none, or they span more than MAX_POINTS points."""
    axes = tuple(_axis(argument) for argument in arguments)
    for number, axis in enumerate(axes):
        if axis.key in (other.key for other in axes[:number]):
            raise BadInput(f"{arguments[number]}: {axis.key} is an axis already; give all its values at once")
    num_points = prod(len(axis.texts) for axis in axes)
    if num_points > MAX_POINTS:
        raise BadInput(f"{' '.join(arguments)}: a grid of {num_points:,} points; at most {MAX_POINTS:,}")
    return axes


def _axis(argument: str) -> Axis:
    key, equals, text = (part.strip() for part in argument.partition("="))
    if not equals or not key:
        raise BadInput(
            f"{argument}: expected KEY=VALUES, as in radio.tx_power_dbm=0:20:5 or graph.kind=ring,complete"
        )
    if ":" in text:
        return Axis(key, tuple(f"{v:f}" for v in parse_range(text, where=argument, max_values=MAX_POINTS)))
    # Commas inside brackets belong to a value that is a list or a draw itself: model.hidden=[16],[32,32].
    texts = tuple(part.strip() for part in re.split(r",(?![^\[{]*[\]}])", text))
    if not all(texts):
        raise BadInput(f"{argument}: expected values between the commas, as in graph.kind=ring,complete")
    return Axis(key, texts)
