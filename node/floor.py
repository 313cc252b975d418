"""The floor: the least program that does the work of a round, and the yardstick for the real one.

`python -m node.floor` forks devices from a server that has torch loaded. Every round each takes one
SGD step, sends its raw float32 vector to both ring neighbours over ZeroMQ without copying it, and
mixes theirs in place: no header, log, channel, deadline or fault handling. The bare parts (the step,
the transfer, the mix) are timed in the same processes, in turn with the whole; with `--bare` also the
same bytes over gloo, and copied in memory.
"""

import argparse
import json
import multiprocessing
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import torch
import zmq
from torch.nn.functional import cross_entropy

from node.bare import Bare
from node.model import build
from protocol.learning import Model

CLASSES = 10
PARTS = ("step", "transfer", "mix", "round")
BARE = ("gloo", "copy")
WAIT_WALL_S = 600.0


@dataclass(frozen=True)
class Size:
    """A model, what it takes, and the batch of a step."""

    model: Model
    sample_shape: tuple[int, ...]
    batch_size: int


SIZES = {
    "100k": Size(Model(kind="mlp", hidden=(126,), norm="none"), (784,), 32),
    "1.6M": Size(Model(kind="mlp", hidden=(1000, 800), norm="none"), (784,), 32),
    "quickstart": Size(Model(kind="cnn"), (1, 8, 8), 8),
}


@dataclass(frozen=True)
class Work:
    """How much of it: devices on a ring, rounds per part and repeat; where they meet for gloo, if they do."""

    devices: int
    params: str
    rounds: int
    repeats: int
    store: Path | None = None

    @property
    def parts(self) -> tuple[str, ...]:
        """What is timed, in turn."""
        return PARTS if self.store is None else PARTS + BARE


def main() -> None:
    """Measure the floor and print it."""
    parser = argparse.ArgumentParser(prog="python -m node.floor", description=__doc__.split("\n")[0])
    parser.add_argument("--devices", type=int, default=8, help="devices on the ring, 3 or more (default: 8)")
    parser.add_argument("--params", choices=tuple(SIZES), default="100k", help="size of the model")
    parser.add_argument("--rounds", type=int, default=50, help="rounds per part and repeat (default: 50)")
    parser.add_argument("--repeats", type=int, default=3, help="interleaved repeats (default: 3)")
    parser.add_argument("--bare", action="store_true", help="also time gloo and a copy of the same bytes")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    if args.devices < 3 or args.rounds < 1 or args.repeats < 1:
        parser.error("needs --devices of 3 or more, --rounds and --repeats of 1 or more")
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / "store" if args.bare else None
        result = measure(Work(args.devices, args.params, args.rounds, args.repeats, store))
    if args.json:
        sys.stdout.write(json.dumps(result) + "\n")
    else:
        for name, value in result.items():
            sys.stdout.write(f"{name:>24}  {value:.6g}\n")


def measure(work: Work) -> dict[str, float]:
    """Run the devices; return the wall seconds of a round and of its bare parts, and their ratio."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch", "torch._dynamo", "node.model", "node.bare"])
    launched_s = perf_counter()
    ends, processes = [], []
    for device in range(work.devices):
        ours, theirs = context.Pipe()
        process = context.Process(target=_device, args=(work, device, theirs), daemon=True)
        process.start()
        theirs.close()
        ends.append(ours)
        processes.append(process)
    addresses = [str(_receive(end)) for end in ends]
    for end in ends:
        end.send(addresses)
    for end in ends:
        _receive(end)
    startup_s = perf_counter() - launched_s
    spent: dict[str, list[float]] = {part: [] for part in work.parts}
    rounds: list[float] = []
    for _ in range(work.repeats):
        for part in work.parts:
            for end in ends:
                end.send(part)
            clocks = np.array([_receive(end) for end in ends])  # (devices, rounds + 1), one clock for all
            spent[part].append(float(clocks.max() - clocks.min()) / work.rounds)
            if part == "round":
                rounds += np.diff(clocks).reshape(-1).tolist()
    for end in ends:
        end.send("bye")
    for process in processes:
        process.join(WAIT_WALL_S)
    parts_s = {part: median(spent[part]) for part in work.parts}
    parts_sum_s = parts_s["step"] + parts_s["transfer"] + parts_s["mix"]
    return {
        "startup_wall_s": startup_s,
        "round_wall_s_p50": median(rounds),
        "round_wall_s_mean": parts_s["round"],
        "step_wall_s_mean": parts_s["step"],
        "transfer_wall_s_mean": parts_s["transfer"],
        "mix_wall_s_mean": parts_s["mix"],
        "round_over_parts": parts_s["round"] / parts_sum_s,
        **{f"{part}_wall_s_mean": parts_s[part] for part in work.parts[len(PARTS) :]},
    }


def _receive(end: "Connection[object, object]") -> object:
    if not end.poll(WAIT_WALL_S):
        raise SystemExit(f"node.floor: a device was silent for {WAIT_WALL_S:g} s")
    return end.recv()


def _device(work: Work, device: int, parent: "Connection[object, object]") -> None:
    torch.set_num_threads(1)
    ring = ((device - 1) % work.devices, (device + 1) % work.devices)
    size = SIZES[work.params]
    model = build(size.model, size.sample_shape, CLASSES, seed=1)
    optimiser = torch.optim.SGD(model.module.parameters(), lr=1e-3)
    generator = torch.Generator().manual_seed(device)
    samples = torch.randn(size.batch_size, *size.sample_shape, generator=generator)
    labels = torch.randint(CLASSES, (size.batch_size,), generator=generator)
    x = model.x
    buffers = [np.empty(prod(x.shape), dtype=np.float32) for _ in range(2)]
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.setsockopt(zmq.RCVTIMEO, round(WAIT_WALL_S * 1000))
        port = router.bind_to_random_port("tcp://127.0.0.1")
        parent.send(f"tcp://127.0.0.1:{port}")
        addresses = parent.recv()
        assert isinstance(addresses, list)
        dealers = []
        for neighbour in ring:
            dealer = context.socket(zmq.DEALER)
            dealer.setsockopt(zmq.ROUTING_ID, str(device).encode())
            dealer.connect(addresses[neighbour])
            dealers.append(dealer)
        parent.send("ready")
        inbox: dict[tuple[bytes, int], np.ndarray] = {}
        expected = [str(neighbour).encode() for neighbour in ring]
        number = 0

        def step() -> None:
            optimiser.zero_grad()
            cross_entropy(model.module(samples), labels).backward()  # type: ignore[no-untyped-call]
            optimiser.step()

        def transfer() -> list[np.ndarray]:
            nonlocal number
            # Two buffers suffice: a neighbour's frame of this round says that it has mixed our last one.
            buffer = buffers[number % 2]
            np.copyto(buffer, x.numpy())
            for dealer in dealers:
                dealer.send_multipart([number.to_bytes(4, "little"), buffer.data], copy=False)
            while not all((neighbour, number) in inbox for neighbour in expected):
                sender, round_, payload = router.recv_multipart(copy=False)
                key = sender.bytes, int.from_bytes(round_.bytes, "little")
                inbox[key] = np.frombuffer(payload.buffer, dtype=np.float32)
            heard = [inbox.pop((neighbour, number)) for neighbour in expected]
            number += 1
            return heard

        def mix(heard: list[np.ndarray]) -> None:
            x.mul_(1 / 3)
            for other in heard:
                x.add_(torch.from_numpy(other), alpha=1 / 3)

        def whole() -> None:
            step()
            mix(transfer())

        last = transfer()
        parts: dict[str, Callable[[], object]] = {
            "step": step,
            "transfer": transfer,
            "mix": lambda: mix(last),
            "round": whole,
        }
        if work.store is not None:
            bare = Bare.connect(device, work.devices, work.store, x)
            parts |= {"gloo": bare.gloo, "copy": bare.copy}
        while (part := parent.recv()) != "bye":
            clock = [perf_counter()]
            for _ in range(work.rounds):
                parts[str(part)]()
                clock.append(perf_counter())
            parent.send(clock)
        for dealer in dealers:
            dealer.close(linger=0)


if __name__ == "__main__":
    main()
