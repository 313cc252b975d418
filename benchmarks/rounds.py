"""The round of a run against the floor, held to its limits: `python -m benchmarks.rounds`.

The measurement is `hearsay bench latency` of eight and sixteen devices over an ideal radio.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from coordinator.bench.latency import RECORD
from coordinator.bench.record import over_limit, read

LIMITS = {"100k": 2.0, "1.6M": 1.5}
"""Times the floor's round, by the size of the model."""


def main() -> None:
    """Measure every case and print its ratio; exit with 1 if one is beyond its limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.rounds", description=__doc__)
    parser.add_argument("--rounds", default="50", help="rounds a run (default: %(default)s)")
    parser.add_argument("--repeats", default="5", help="interleaved repeats (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "bench"
        command = [
            sys.executable,
            "-m",
            "coordinator",
            "bench",
            "latency",
            "--devices=8,16",
            "--out",
            str(out),
        ]
        command += ["--transport=zmq", "--radio=ideal", f"--params={','.join(LIMITS)}"]
        command += [f"--rounds={args.rounds}", f"--repeats={args.repeats}"]
        if code := subprocess.run(command, check=False).returncode:
            sys.exit(code)
        record = read(out / RECORD)
    beyond = False
    for case in record.cases:
        limit, ratio = LIMITS[case.case.params], over_limit(record, case, "floor_wall_s")
        assert ratio is not None
        beyond |= ratio > limit
        floors = record.limits_of(case.case)
        whole = median(m.period_wall_s / floors[m.repeat].floor_wall_s for m in case.measurements)
        print(
            f"{case.case}: {ratio:.2f} x floor (limit {limit:g}), the whole run over its rounds {whole:.2f} x"
        )
    sys.exit(beyond)


if __name__ == "__main__":
    main()
