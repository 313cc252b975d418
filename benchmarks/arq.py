"""The digital radio with ARQ at 1 % packet loss against the ideal channel: `python -m benchmarks.arq`.

Both take turns, so that a machine whose speed drifts hits both alike; medians are quoted.
"""

import argparse
import json
import sys
from statistics import median

from scipy.optimize import brentq

from benchmarks.runs import Case, environment, hearsay
from protocol.link import mean_packet_loss
from protocol.radio import Radio

PACKET_BYTES = 1500
PACKET_LOSS = 0.01
LIMIT = 1.6


def main() -> None:
    """Measure and print the ratio; exit with 1 if it is beyond the limit."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.arq", description=__doc__)
    parser.add_argument("--devices", type=int, default=8, help="devices on the ring (default: %(default)s)")
    parser.add_argument("--params", default="1.6M", help="model size (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=50, help="rounds a run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="interleaved repeats (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    args = parser.parse_args()
    result = compare(Case(args.devices, args.params, args.rounds), args.repeats)
    if args.json:
        print(json.dumps(result | {"environment": environment(), "limit": LIMIT}))
    else:
        print(environment())
        for name, value in result.items():
            print(f"{name:>28}  {value:.4g}")
        print(f"{'limit of the ratio':>28}  {LIMIT:g}")
    sys.exit(result["ratio"] > LIMIT)


def compare(case: Case, repeats: int) -> dict[str, float]:
    """Run the ideal channel and the digital one in turn; return medians, and that of the paired ratios."""
    settings = (
        f"codec.packet_bytes={PACKET_BYTES}",
        "radio.scheme=digital",
        "radio.arq=selective_repeat",
        "radio.max_attempts=8",
        "radio.fading=none",
        "radio.snr=given",
        f"radio.snr_db={snr_db_for(PACKET_LOSS):.4f}",
    )
    ideal, digital = [], []
    for repeat in range(repeats):
        sys.stderr.write(f"repeat {repeat + 1} of {repeats}\n")
        ideal.append(hearsay(case, f"codec.packet_bytes={PACKET_BYTES}"))
        digital.append(hearsay(case, *settings))
    return {
        "ideal_round_wall_s": median(run["round_wall_s_p50"] for run in ideal),
        "digital_round_wall_s": median(run["round_wall_s_p50"] for run in digital),
        "ratio": median(
            d["round_wall_s_p50"] / i["round_wall_s_p50"] for d, i in zip(digital, ideal, strict=True)
        ),
        "packet_loss_per_attempt": median(
            run["packets_corrupted"] / (run["packets_sent"] + run["packets_resent"]) for run in digital
        ),
        "packets_resent": median(run["packets_resent"] for run in digital),
        "packets_lost": median(run["packets_lost"] for run in digital),
    }


def snr_db_for(packet_loss: float) -> float:
    """Find the SNR [dB] without fading at which QPSK loses this share of packets."""
    radio = Radio(fading="none")
    found: float = brentq(
        lambda snr_db: mean_packet_loss(radio, snr_db, 8 * PACKET_BYTES) - packet_loss, 0.0, 30.0
    )
    return found


if __name__ == "__main__":
    main()
