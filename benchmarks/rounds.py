"""The round of a run against the floor: `python -m benchmarks.rounds`.

Runs and floors take turns, so that a machine whose speed drifts hits both alike; medians are quoted.
"""

import argparse
import itertools
import json
import sys
from statistics import median

from benchmarks.runs import Case, environment, floor, hearsay


def main() -> None:
    """Measure every case and print a table, or with --json one object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounds", description=__doc__)
    parser.add_argument("--devices", default="8,16", help="ring sizes (default: %(default)s)")
    parser.add_argument("--params", default="100k,1.6M", help="model sizes (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=50, help="rounds a run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    devices = [int(number) for number in args.devices.split(",")]
    results = []
    for number, params in itertools.product(devices, args.params.split(",")):
        sys.stderr.write(f"{number} devices, {params} parameters\n")
        results.append(compare(Case(number, params, args.rounds), args.repeats))
    if args.json:
        print(json.dumps({"environment": environment(), "cases": results}))
        return
    print(environment())
    columns = ("devices", "params", "floor [ms]", "hearsay [ms]", "ratio", "means", "floor/bare")
    print("  ".join(columns))
    for row in results:
        cells = (
            f"{row['devices']}",
            f"{row['params']}",
            f"{1e3 * row['floor_round_wall_s']:.2f}",
            f"{1e3 * row['round_wall_s']:.2f}",
            f"{row['ratio']:.2f}",
            f"{row['ratio_of_means']:.2f}",
            f"{row['floor_over_parts']:.2f}",
        )
        print("  ".join(cell.rjust(len(name)) for cell, name in zip(cells, columns, strict=True)))
    print("ratio: of the median rounds; means: of whole run / rounds, reports and start included")


def compare(case: Case, repeats: int) -> dict[str, float]:
    """Run floor and hearsay in turn; return medians and the median of the paired ratios."""
    pairs = [(floor(case), hearsay(case)) for _ in range(repeats)]
    return {
        "devices": case.devices,
        "params": case.params,  # type: ignore[dict-item]
        "floor_round_wall_s": median(f["round_wall_s_p50"] for f, _ in pairs),
        "round_wall_s": median(h["round_wall_s_p50"] for _, h in pairs),
        "ratio": median(h["round_wall_s_p50"] / f["round_wall_s_p50"] for f, h in pairs),
        "ratio_of_means": median(h["wall_s"] / case.rounds / f["round_wall_s_mean"] for f, h in pairs),
        "floor_over_parts": median(f["round_over_parts"] for f, _ in pairs),
    }


if __name__ == "__main__":
    main()
