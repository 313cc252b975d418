"""Exact averaging along a tree and a ring against gloo's all-reduce: `python -m benchmarks.averaging`.

The same number of floats over the same number of processes, in turn: rounds of `hearsay run` that only
average, with an ideal channel, and all-reduces of torch.distributed over gloo.
"""

import argparse
import json
import multiprocessing
import os
import socket
import sys
from multiprocessing.connection import Connection
from statistics import median
from time import perf_counter

import torch
import torch.distributed as dist

from benchmarks.runs import Case, environment, hearsay

LIMIT = 3.0
WAIT_WALL_S = 300.0
NUM_VALUES = {"100k": 784 * 126 + 126 + 126 * 10 + 10, "1.6M": 784 * 1000 + 1000 + 1000 * 800 + 800 + 8010}


def main() -> None:
    """Measure and print a table, or with --json one object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.averaging", description=__doc__)
    parser.add_argument("--devices", type=int, default=16, help="devices (default: %(default)s)")
    parser.add_argument("--params", choices=tuple(NUM_VALUES), default="1.6M", help="size of the model")
    parser.add_argument("--rounds", type=int, default=20, help="rounds a run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    case = Case(args.devices, args.params, args.rounds)
    seconds: dict[str, list[float]] = {"gloo": [], "tree": [], "ring": []}
    for repeat in range(args.repeats):
        sys.stderr.write(f"repeat {repeat + 1} of {args.repeats}\n")
        seconds["gloo"].append(gloo_s(case))
        for scheme in ("tree", "ring"):
            seconds[scheme].append(averaging_s(case, scheme))
    ratios = {
        scheme: median(ours / theirs for ours, theirs in zip(seconds[scheme], seconds["gloo"], strict=True))
        for scheme in ("tree", "ring")
    }
    if args.json:
        print(json.dumps({"environment": environment(), "seconds": seconds, "ratios": ratios}))
        return
    print(environment())
    print(f"{args.devices} devices, {NUM_VALUES[args.params]:,} float32")
    print(f"gloo all-reduce {1e3 * median(seconds['gloo']):.1f} ms")
    for scheme, ratio in ratios.items():
        limit = f" (limit {LIMIT:g})" if scheme == "tree" else ""
        print(f"{scheme} {1e3 * median(seconds[scheme]):.1f} ms, {ratio:.2f} times gloo{limit}")


def averaging_s(case: Case, scheme: str) -> float:
    """Return the median wall seconds of a round in which devices do nothing but average."""
    summary = hearsay(
        case,
        "graph.kind=complete",
        f"aggregation.scheme={scheme}",
        f"aggregation.epoch_rounds={case.rounds}",
        "training.local_rounds=0",
    )
    return float(summary["round_wall_s_p50"])


def gloo_s(case: Case) -> float:
    """Return the median wall seconds of an all-reduce, each as long as its slowest process takes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch.distributed"])
    ends, processes = [], []
    for rank in range(case.devices):
        ours, theirs = context.Pipe()
        process = context.Process(target=_rank, args=(rank, port, case, theirs), daemon=True)
        process.start()
        theirs.close()
        ends.append(ours)
        processes.append(process)
    spent = []
    for end in ends:
        if not end.poll(WAIT_WALL_S):
            raise SystemExit(f"gloo was silent for {WAIT_WALL_S:g} s")
        spent.append(end.recv())
    for process in processes:
        process.join(WAIT_WALL_S)
    return float(median(max(of_one) for of_one in zip(*spent, strict=True)))


def _rank(rank: int, port: int, case: Case, parent: "Connection[object, object]") -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    dist.init_process_group("gloo", rank=rank, world_size=case.devices)
    x = torch.ones(NUM_VALUES[case.params])
    spent = []
    for _ in range(case.rounds + 1):
        dist.barrier()
        began_s = perf_counter()
        dist.all_reduce(x)
        x.div_(case.devices)
        spent.append(perf_counter() - began_s)
    parent.send(spent[1:])  # the first one connects
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
