"""The analog receiver on one core, against plain numpy on the same vectors: `python -m benchmarks.analog`.

Adding up neighbours' weighted signals is held against their plain sum, adding noise against one call of
the generator for as many normal numbers. All take turns; medians of the paired ratios are quoted.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.runs import environment
from protocol.analog import Signal, add_noise_, energies, superpose_
from protocol.streams import Purpose, stream

NUM_VALUES = 1_600_000
NUM_NEIGHBOURS = 4
WEIGHT = 0.2
GAIN_ERROR = 0.1 + 0.1j
LIMITS = {"superposition": 4.0, "noise": 1.2}
"""Times the plain sum, and times the plain normal numbers."""


@dataclass(frozen=True)
class Result:
    """Medians of one kind of work."""

    wall_s: float
    plain: str
    """What it is held against."""
    plain_wall_s: float
    ratio: float
    limit: float | None


def main() -> None:
    """Measure and print the ratios; exit with 1 if one is beyond its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.analog", description=__doc__)
    parser.add_argument("--repeats", type=int, default=31, help="interleaved repeats (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    results = measure(args.repeats)
    if args.json:
        print(json.dumps({"environment": environment()} | {name: asdict(of) for name, of in results.items()}))
    else:
        print(f"{environment()}; {NUM_NEIGHBOURS} neighbours, float32 vectors of {NUM_VALUES:,} numbers")
        for name, of in results.items():
            limit = f" (limit {of.limit:g})" if of.limit else ""
            print(f"{name:>28}  {1e3 * of.wall_s:6.2f} ms, {of.ratio:5.2f} x {of.plain}{limit}")
    sys.exit(any(of.limit is not None and of.ratio > of.limit for of in results.values()))


def measure(repeats: int) -> dict[str, Result]:
    """Time the receiver's work and the plain one in turn, repeats times over."""
    rng = stream(1, Purpose.PARAMETERS)
    s = [rng.standard_normal(NUM_VALUES, dtype=np.float32) for _ in range(NUM_NEIGHBOURS)]
    energy = float(energies(s[0], NUM_VALUES)[0])
    signals = [Signal(x, WEIGHT, energy, snr=10.0) for x in s]
    turned = [Signal(x, WEIGHT, energy, snr=10.0, gain_error=GAIN_ERROR) for x in s]
    noise = stream(1, Purpose.ANALOG_NOISE)
    out = np.zeros(NUM_VALUES, dtype=np.float32)
    works: dict[str, Callable[[], object]] = {
        "plain sum": lambda: s[0] + s[1] + s[2] + s[3],
        "superposition": lambda: superpose_(out, signals),
        "superposition, gain errors": lambda: superpose_(out, turned),
        "plain normals": lambda: noise.standard_normal(NUM_VALUES, dtype=np.float32),
        "noise": lambda: add_noise_(out, 1.0, noise),
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(repeats):
        for name, work in works.items():
            start = perf_counter()
            work()
            times[name].append(perf_counter() - start)
    held_against = {
        "superposition": "plain sum",
        "superposition, gain errors": "plain sum",
        "noise": "plain normals",
    }
    return {
        name: Result(
            wall_s=median(times[name]),
            plain=plain,
            plain_wall_s=median(times[plain]),
            ratio=median(t / p for t, p in zip(times[name], times[plain], strict=True)),
            limit=LIMITS.get(name),
        )
        for name, plain in held_against.items()
    }


if __name__ == "__main__":
    main()
