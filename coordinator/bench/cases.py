"""What is measured: cases, the sizes that they have in common, their experiments and their order."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

from pydantic import BaseModel, ConfigDict

from protocol.config import Experiment, Transport
from protocol.errors import BadInput
from protocol.experiment_file import Table, nearest, parse
from protocol.radio import Radio

WARMUP_ROUNDS = 5
"""Rounds that are run and left out: in the first one sockets connect and torch sets up what it keeps, in the
next ones buffers are touched for the first time."""
MIN_DEVICES, MAX_DEVICES = 3, 1024
"""A ring has three; the floor's neighbours are two different ones."""
MAX_ROUNDS, MAX_REPEATS = 100_000, 1000
PATIENCE_WALL_S = 600.0
"""How long devices wait for each other: on a busy host a slow one is a result, no fault."""
SNR_DB = 13.2
"""At which QPSK loses one packet of 512 bytes in a hundred."""
TRANSPORTS: tuple[str, ...] = get_args(Transport.model_fields["kind"].annotation)
RADIOS: tuple[str, ...] = get_args(Radio.model_fields["scheme"].annotation)
USUAL_RADIOS = ("ideal", "digital")

_MLP: Table = {"kind": "mlp", "norm": "none"}
_MODELS: dict[str, Table] = {
    "100k": _MLP | {"hidden": [126]},
    "1.6M": _MLP | {"hidden": [1000, 800]},
    "quickstart": {"kind": "cnn"},
}
"""As in `node.floor`, which a test holds them against."""
PARAMS = tuple(_MODELS)
USUAL_PARAMS = ("100k", "1.6M")


class Size(BaseModel):
    """What the floor depends on: devices on a ring, and the size of their model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    devices: int
    params: str

    def __str__(self) -> str:
        return f"{self.devices} devices, {self.params}"


class Case(Size):
    """What a run depends on, beside its rounds."""

    transport: str
    radio: str

    @property
    def size(self) -> Size:
        """What it has in common with its floor."""
        return Size(devices=self.devices, params=self.params)

    def __str__(self) -> str:
        return f"{self.size}, {self.transport}, {self.radio}"


@dataclass(frozen=True)
class Options:
    """What was typed, each of it several values with commas between, but the last two."""

    devices: str
    params: str
    transport: str
    radio: str
    rounds: str
    repeats: str


@dataclass(frozen=True)
class Request:
    """All that is to be measured, and how often."""

    cases: tuple[Case, ...]
    rounds: int
    repeats: int

    @property
    def sizes(self) -> list[Size]:
        """Each size once, in the order of the cases."""
        return list(dict.fromkeys(case.size for case in self.cases))


@dataclass(frozen=True)
class Step:
    """One thing to measure: a case, or the floor and the limits of a size."""

    repeat: int
    what: Case | Size


def parse_request(options: Options) -> Request:
    """Read the options of `hearsay bench latency`; raises BadInput."""
    devices = [
        _whole("devices", text, MIN_DEVICES, MAX_DEVICES) for text in _several("devices", options.devices)
    ]
    if len(set(devices)) < len(devices):
        raise BadInput(f"--devices {options.devices}: name each number once")
    cases = tuple(
        Case(devices=number, params=params, transport=transport, radio=radio)
        for params in _chosen("params", options.params, PARAMS)
        for number in devices
        for transport in _chosen("transport", options.transport, TRANSPORTS)
        for radio in _chosen("radio", options.radio, RADIOS)
    )
    request = Request(
        cases,
        rounds=_whole("rounds", options.rounds, 2, MAX_ROUNDS),
        repeats=_whole("repeats", options.repeats, 1, MAX_REPEATS),
    )
    for case in cases:
        experiment(case, request.rounds)  # raises what cannot work together before anything is measured
    return request


def order(request: Request) -> list[Step]:
    """Return every step of every repeat: each floor just before its cases, every other repeat backwards.

    There and back, so that a machine that gets steadily slower hits all cases alike on average.
    """
    forwards: list[Case | Size] = []
    for size in request.sizes:
        forwards += [size, *(case for case in request.cases if case.size == size)]
    return [
        Step(repeat, what)
        for repeat in range(request.repeats)
        for what in (forwards if repeat % 2 == 0 else reversed(forwards))
    ]


def experiment(case: Case, rounds: int) -> Experiment:
    """Return the run of a case: one local round, a ring, no evaluation but a sample at the end.

    No link fades and all have the same SNR, so that percentiles tell of the host: a round in a deep fade
    takes long, since every flipped bit is drawn, and how often that happens is a matter of the seed.
    """
    image = case.params == "quickstart"
    synthetic: Table = {
        "dataset": "synthetic",
        "num_features": 784,
        "num_samples": max(2000, 64 * case.devices),
    }
    digits: Table = {"dataset": "digits"}
    table: Table = {
        "name": "bench",
        "devices": case.devices,
        "rounds": rounds,
        "data": (digits if image else synthetic) | {"max_test_samples": 1},
        "model": _MODELS[case.params],
        # Of digits 128 devices have 11 each: the batch is one that all of them can fill.
        "training": {"local_rounds": 1, "evaluate_every": 0, "batch_size": 8 if image else 32},
        "graph": {"kind": "ring"},
        "radio": {"scheme": case.radio, "fading": "none", "snr": "given", "snr_db": SNR_DB},
        "transport": {"kind": case.transport},
        "runtime": {"liveness_wall_s": PATIENCE_WALL_S, "join_wall_s": PATIENCE_WALL_S},
    }
    return parse(table, source=f"hearsay bench: {case}")


def _several(option: str, text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise BadInput(f"--{option} {text}: expected values separated by commas")
    return words


def _chosen(option: str, text: str, known: Sequence[str]) -> list[str]:
    words = _several(option, text)
    for word in words:
        if word not in known:
            raise BadInput(f"--{option} {word}: there is none; {nearest(word, known)}")
    if len(set(words)) < len(words):
        raise BadInput(f"--{option} {text}: name each once")
    return words


def _whole(option: str, text: str, least: int, most: int) -> int:
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if not least <= number <= most:
        raise BadInput(f"--{option} {text}: expected a whole number from {least} to {most:,}")
    return number
