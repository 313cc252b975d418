"""The digital channel on one core, against a memcpy of the same payload: `python -m benchmarks.channel`.

The promise: at least 1 GB/s of payload at a bit-error rate (BER) of 1e-5 and below. Speed must follow
the errors and not the bits, which the ratio to the memcpy shows on any machine.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from statistics import median
from time import perf_counter

import numpy as np

from benchmarks.runs import environment
from protocol.channel import receive
from protocol.codec import Layout, encode
from protocol.streams import Purpose, stream

NUM_VALUES = 16_000_000
PACKET_BYTES = (512, 1500)
BERS = (1e-4, 1e-5, 1e-6, 0.0)


@dataclass(frozen=True)
class Result:
    """Medians of one packet size and bit-error rate."""

    packet_bytes: int
    ber: float
    bytes_per_s: float
    memcpy_ratio: float
    """Payload rate of the channel over that of a memcpy; more is better."""


def main() -> None:
    """Measure and print, or with --json print one object."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.channel", description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="interleaved repeats (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    results = [result for size in PACKET_BYTES for result in measure(size, args.repeats)]
    if args.json:
        print(json.dumps({"environment": environment(), "results": [asdict(result) for result in results]}))
        return
    print(f"{environment()}; float32 payload of {NUM_VALUES:,} numbers")
    for result in results:
        print(
            f"packets of {result.packet_bytes:>4} bytes, BER {result.ber:>6g}: "
            f"{result.bytes_per_s / 1e9:6.2f} GB/s, {result.memcpy_ratio:5.2f} x memcpy"
        )


def measure(packet_bytes: int, repeats: int) -> list[Result]:
    """Time memcpy and the channel at each BER in turn, repeats times over."""
    layout = Layout("float32", NUM_VALUES, packet_bytes, checked=True)
    payload = np.empty(layout.payload_bytes, dtype=np.uint8)
    rng = stream(1, Purpose.PARAMETERS)
    encode(rng.standard_normal(NUM_VALUES, dtype=np.float32), layout, payload, rng)
    copy = np.zeros_like(payload)
    memcpy_s: list[float] = []
    channel_s: dict[float, list[float]] = {ber: [] for ber in BERS}
    for repeat in range(repeats):
        memcpy_s.append(seconds(partial(np.copyto, copy, payload)))
        for ber in BERS:
            rates = np.full(layout.num_packets, ber)
            flips = stream(1, Purpose.BIT_ERRORS, round_=repeat)
            channel_s[ber].append(seconds(partial(receive, payload, layout, rates, flips)))
    return [
        Result(
            packet_bytes,
            ber,
            bytes_per_s=layout.payload_bytes / median(times),
            memcpy_ratio=median(m / t for m, t in zip(memcpy_s, times, strict=True)),
        )
        for ber, times in channel_s.items()
    ]


def seconds(work: Callable[[], object]) -> float:
    """Time one call on the host's clock."""
    start = perf_counter()
    work()
    return perf_counter() - start


if __name__ == "__main__":
    main()
