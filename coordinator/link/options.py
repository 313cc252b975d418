"""The options of `hearsay link`: which benches to set up, one or one for each point of a sweep."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import NamedTuple

from coordinator.link.bench import MAX_FRAME_BYTES, SENDER, Bench
from coordinator.link.point import fading_text
from coordinator.link.sweep import Curve, Number, Sweep
from coordinator.ranges import parse_range
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.experiment_file import Table, load, nearest, parse
from protocol.fading import Fading
from protocol.hardware import hardware
from protocol.link import mean_snr_db
from protocol.modulation import BITS_PER_SYMBOL

PACKETS, SWEEP_PACKETS = 20_000, 2_000
"""Of a point on its own, and of each point of a sweep."""
PACKET_BYTES = 256
MAX_PACKETS = 10**9
MAX_POINTS = 1000
"""Of one curve."""
MAX_CURVES = 10
SHAPES = {"rician": ("rician_k", "K", 6), "nakagami": ("nakagami_m", "M", 2)}
"""Key, name and usual value of the shape of a fading that has one."""
FADINGS = ("none", "rayleigh", "rician", "nakagami")
ARQS = ("none", "selective_repeat")


class Knob(NamedTuple):
    """A numeric option: which key of an experiment it is (none: it is the bench's own)."""

    section: str
    key: str
    label: str
    unit: str = ""
    whole: bool = False


KNOBS: dict[str, Knob] = {
    "snr-db": Knob("radio", "snr_db", "mean Es/N0", "dB"),
    "distance-m": Knob("", "", "distance", "m"),
    "packet-bytes": Knob("codec", "packet_bytes", "packet", "bytes", whole=True),
    "packets": Knob("", "", "packets", whole=True),
    "coherence-packets": Knob("radio", "coherence_packets", "packets in a fade", whole=True),
    "max-attempts": Knob("radio", "max_attempts", "attempts at most", whole=True),
    "tx-power-dbm": Knob("radio", "tx_power_dbm", "transmit power", "dBm"),
    "bandwidth-hz": Knob("radio", "bandwidth_hz", "bandwidth", "Hz"),
    "seed": Knob("", "seed", "seed", whole=True),
}
"""All numeric options, which are also what can be swept."""


@dataclass(frozen=True)
class LinkOptions:
    """What the user typed; numbers by the name of their option."""

    file: Path | None = None
    overrides: tuple[str, ...] = ()
    modulation: str = ""
    fading: str = ""
    arq: str = ""
    numbers: Mapping[str, str] = field(default_factory=dict)
    sweep: str = ""


def set_up(options: LinkOptions) -> Sweep:
    """Check all options, and set up a bench for every point of every curve; raises BadInput."""
    base = _load(options.file, options.overrides)
    if base.radio.scheme != "digital":
        raise BadInput(
            f"radio.scheme = {base.radio.scheme}: the bench sends the packets of a digital radio "
            f"(use --set radio.scheme=digital)"
        )
    numbers = {name: _number(name, text, f"--{name} {text}") for name, text in options.numbers.items()}
    swept, values = _swept(options.sweep)
    _no_contradiction(options, base, numbers, swept)
    modulations = _list("--modulation", options.modulation, swept) or [base.radio.modulation]
    fadings = _list("--fading", options.fading, swept)
    fades = [_fading(text) for text in fadings] or [base.radio.fade]
    _known("--modulation", modulations, BITS_PER_SYMBOL)
    if options.arq:
        _known("--arq", [options.arq], ARQS)
    if len(modulations) * len(fades) > MAX_CURVES:
        raise BadInput(
            f"--modulation, --fading: make {len(modulations) * len(fades)} curves, at most {MAX_CURVES}"
        )
    keep_fades = any(o.partition("=")[0].strip() == "radio.coherence_packets" for o in options.overrides)
    usual: dict[str, Number] = {"packets": SWEEP_PACKETS if swept else PACKETS, "seed": base.seed}
    usual |= numbers
    # Every point has a seed of its own, lest all of them meet the same unusual fades.
    points = [usual | {"seed": usual["seed"] + k} | {swept: value} for k, value in enumerate(values)]
    curves = []
    for modulation in modulations:
        for fade in fades:
            radio: Table = {"modulation": modulation, "fading": fade.kind, "rate": "fixed"}
            if fade.kind in SHAPES:
                radio[SHAPES[fade.kind][0]] = fade.shape
            if options.arq:
                radio["arq"] = options.arq
            benches = tuple(_bench(base, radio, point, keep_fades=keep_fades) for point in points)
            curves.append(Curve(modulation, fading_text(fade), benches))
    return Sweep(swept, values if swept else (), tuple(curves))


def _load(file: Path | None, overrides: tuple[str, ...]) -> Experiment:
    """Read the experiment; without a file, what is laid over lies over the defaults of a bench."""
    if file is not None:
        return load(file, overrides)
    try:
        return load(Path(os.devnull), (f"codec.packet_bytes={PACKET_BYTES}", *overrides))
    except BadInput as error:
        raise BadInput(str(error).removeprefix(f"{os.devnull} with ")) from error


def _number(name: str, text: str, where: str) -> Number:
    whole = KNOBS[name].whole
    try:
        number = int(text) if whole else float(text)
    except ValueError as error:
        raise BadInput(f"{where}: expected a {'whole ' if whole else ''}number") from error
    if not isfinite(number):
        raise BadInput(f"{where}: expected a finite number")
    return number


def _swept(sweep: str) -> tuple[str, tuple[Number, ...]]:
    """Read NAME=FIRST:LAST:STEP; without one, there is one nameless point."""
    if not sweep:
        return "", (0,)
    name, equals, text = sweep.partition("=")
    name = name.strip().removeprefix("--").replace("_", "-")
    where = f"--sweep {sweep}"
    if not equals or ":" not in text:
        raise BadInput(f"{where}: expected NAME=FIRST:LAST:STEP, as in snr-db=-5:30:1")
    if name not in KNOBS:
        raise BadInput(f"{where}: no number to sweep is called {name!r}; {nearest(name, KNOBS)}")
    for part in text.split(":"):
        _number(name, part, where)
    values = parse_range(text, where=where, max_values=MAX_POINTS)
    return name, tuple(int(value) if KNOBS[name].whole else float(value) for value in values)


def _no_contradiction(
    options: LinkOptions, base: Experiment, numbers: Mapping[str, Number], swept: str
) -> None:
    named = {*numbers, swept}
    if swept in numbers:
        raise BadInput(f"--{swept} {options.numbers[swept]}: is what --sweep sweeps; leave one of them out")
    if {"snr-db", "distance-m"} <= named:
        raise BadInput("--distance-m: gives the mean SNR by path loss, so leave out --snr-db")
    if "max-attempts" in named and (options.arq or base.radio.arq) == "none":
        raise BadInput("--max-attempts: nothing is sent again without --arq selective_repeat")
    if base.radio.rate == "adaptive" and not options.modulation:
        raise BadInput("radio.rate = adaptive: the bench keeps to one modulation; say which by --modulation")
    if not isinstance(base.radio.tx_power_dbm, float) and "tx-power-dbm" not in named:
        raise BadInput(
            "radio.tx_power_dbm: differs from device to device, and the bench has two that are alike; "
            "say which by --tx-power-dbm"
        )


def _list(option: str, text: str, swept: str) -> list[str]:
    """Split what is separated by commas; more than one only for the curves of a sweep."""
    names = [name.strip() for name in text.split(",")] if text else []
    if len(names) > 1 and not swept:
        raise BadInput(
            f"{option} {text}: several are the curves of a sweep; add --sweep, as in snr-db=-5:30:1"
        )
    if len(set(names)) < len(names):
        raise BadInput(f"{option} {text}: names each once")
    return names


def _known(option: str, names: Iterable[str], known: Iterable[str]) -> None:
    for name in names:
        if name not in known:
            raise BadInput(f"{option} {name}: no such thing; {nearest(name, known)}")


def _fading(text: str) -> Fading:
    """Read none, rayleigh, rician:K or nakagami:M; the ranges of K and M are those of the radio's keys."""
    kind, colon, shape = text.partition(":")
    if kind not in FADINGS:
        raise BadInput(f"--fading {text}: no such fading; {nearest(kind, FADINGS)}")
    radio: Table = {"fading": kind}
    if kind in SHAPES:
        key, name, example = SHAPES[kind]
        try:
            radio[key] = float(shape)
        except ValueError as error:
            raise BadInput(f"--fading {text}: expected {kind}:{name}, as in {kind}:{example}") from error
    elif colon:
        raise BadInput(f"--fading {text}: {kind} fading has no shape")
    return parse({"radio": radio}, source=f"--fading {text}").radio.fade


def _bench(base: Experiment, radio: Table, numbers: Mapping[str, Number], *, keep_fades: bool) -> Bench:
    """Take from an experiment what concerns one link, and lay the options over it."""
    sections: dict[str, Table] = {
        "": {"seed": base.seed, "devices": 2, "training": {"local_rounds": 0}},
        # Nothing is computed on the bench.
        "device": base.device.model_dump(include={"rx_power_w", "idle_power_w"}),
        "codec": base.codec.model_dump(),
        # A link alone: no slots, and the whole band is its own.
        "radio": base.radio.model_dump()
        | {"snr": "given", "snr_file": "", "shadowing_std_db": 0.0, "bad_packets": "erase"}
        | {"access": "parallel", "shared_bandwidth": False, "cast": "unicast"}
        | radio,
    }
    if not base.radio.coherence_packets and not keep_fades:
        sections["radio"]["coherence_packets"] = 1
    for name, knob in KNOBS.items():
        if name in numbers and knob.key:
            sections[knob.section][knob.key] = numbers[name]
    if sections["radio"]["coherence_packets"]:
        sections["radio"]["coherence_rounds"] = 1
    experiment = _experiment(sections, "the bench")
    packets, distance_m = numbers["packets"], numbers.get("distance-m")
    if not 1 <= packets <= MAX_PACKETS:
        raise BadInput(f"--packets {packets}: must be >= 1 and <= {MAX_PACKETS:,}")
    if distance_m is not None:
        if distance_m <= 0:
            raise BadInput(f"--distance-m {distance_m:g}: must be > 0 metres")
        knobs = experiment.radio
        sections["radio"]["snr_db"] = mean_snr_db(
            distance_m, knobs, knobs.bandwidth_hz, tx_power_dbm=hardware(experiment, SENDER).tx_power_dbm
        )
        experiment = _experiment(sections, f"the bench at {distance_m:g} m")
    bench = Bench(experiment, int(packets), distance_m)
    num_bytes = bench.frame_packets * experiment.codec.packet_bytes
    if num_bytes > MAX_FRAME_BYTES:
        raise BadInput(
            f"--coherence-packets {experiment.radio.coherence_packets}: they make {num_bytes:,} bytes, "
            f"and at most {MAX_FRAME_BYTES:,} fit"
        )
    return bench


def _experiment(sections: Mapping[str, Table], source: str) -> Experiment:
    table: Table = dict(sections[""])
    table.update({name: section for name, section in sections.items() if name})
    return parse(table, source=source)
