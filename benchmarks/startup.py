"""Start-up and memory: 32 devices against 8, and what a device owns: `python -m benchmarks.startup`."""

import argparse
import json
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from statistics import median

import psutil

from benchmarks.runs import HIDDEN, Case, environment, hearsay

LOOK_WALL_S = 0.2


def main() -> None:
    """Measure and print, or with --json print one object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    few, many = Case(8, "100k", 3), Case(32, "100k", 3)
    pairs = [(hearsay(few)["startup_wall_s"], hearsay(many)["startup_wall_s"]) for _ in range(args.repeats)]
    result = {
        "startup_wall_s_8": median(a for a, _ in pairs),
        "startup_wall_s_32": median(b for _, b in pairs),
        "ratio": median(b / a for a, b in pairs),
        "own_memory_mb": own_memory_mb(),
    }
    if args.json:
        print(json.dumps({"environment": environment()} | result))
        return
    print(environment())
    print(f"ready for round 1: 8 devices {result['startup_wall_s_8']:.2f} s, ", end="")
    print(f"32 devices {result['startup_wall_s_32']:.2f} s, ratio {result['ratio']:.2f}")
    print(f"own (unshared) memory of a device, 100k parameters: {result['own_memory_mb']:.1f} MB")


def own_memory_mb() -> float:
    """Return the largest USS of any of 8 devices while they train [MB]."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "benchmark.toml"
        file.write_text(
            'devices = 8\nrounds = 1000000\n[data]\ndataset = "synthetic"\nnum_features = 784\n'
            f'[model]\nkind = "mlp"\nnorm = "none"\nhidden = {HIDDEN["100k"]}\n'
            '[training]\nlocal_rounds = 1\nevaluate_every = 0\n[radio]\nscheme = "ideal"\n',
            encoding="utf-8",
        )
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "coordinator", "run", str(file), "--json", "--out", str(out)]
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            pids = _pids_after_round(out / "events.jsonl", 50, run)
            return max(psutil.Process(pid).memory_full_info().uss for pid in pids) / 1e6
        finally:
            run.terminate()
            run.wait(60)


def _pids_after_round(log: Path, round_: int, run: "subprocess.Popen[bytes]") -> list[int]:
    pids: list[int] = []
    while True:
        with suppress(subprocess.TimeoutExpired):
            run.wait(LOOK_WALL_S)
            raise SystemExit("the run ended before its memory was read")
        for line in log.read_text().splitlines() if log.exists() else []:
            event = json.loads(line)
            if event["kind"] == "started":
                pids = event["pids"]
            if event["kind"] == "report" and event["round"] >= round_:
                return pids


if __name__ == "__main__":
    main()
