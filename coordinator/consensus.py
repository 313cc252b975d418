"""Consensus distance: sqrt((1/N) sum_i ||x_i - mean||^2), sampled every round and exact at the end.

Legend: N devices, x_i the parameters of device i. The sample is the same coordinates on every device,
so its squared distance times num_values / num_sampled is an unbiased estimate of the whole one.
"""

from collections.abc import Iterable
from math import sqrt
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors.numpy import load_file

Float32s = npt.NDArray[np.float32]


class ConsensusMeter:
    """Collects the samples of each round until every device that can still report it has."""

    def __init__(self, num_devices: int, num_values: int) -> None:
        self._living = set(range(num_devices))
        self.num_values = num_values
        self._samples: dict[int, dict[int, Float32s]] = {}
        self._newest: dict[int, int] = {}

    def add(self, round_: int, device: int, sample: Float32s) -> list[tuple[int, float, int]]:
        """Take a device's sample; return (round, distance, devices) of every round that is now complete."""
        self._samples.setdefault(round_, {})[device] = sample
        self._newest[device] = max(round_, self._newest.get(device, -1))
        return self._complete(sorted(r for r in self._samples if r <= round_))

    def lose(self, device: int) -> list[tuple[int, float, int]]:
        """Wait for a device no longer; return the rounds that only waited for it."""
        self._living.discard(device)
        return self._complete(sorted(self._samples))

    def _complete(self, rounds: list[int]) -> list[tuple[int, float, int]]:
        done = []
        for round_ in rounds:
            samples = self._samples[round_]
            # Reports come in order: whoever is further has no more to say about this round.
            if all(d in samples or self._newest.get(d, -1) > round_ for d in self._living):
                x = np.stack([samples[device] for device in sorted(samples)]).astype(np.float64)
                scale = self.num_values / x.shape[1]
                with np.errstate(invalid="ignore", over="ignore"):  # diverged models are infinitely far apart
                    squares = ((x - x.mean(axis=0)) ** 2).sum(axis=1)
                done.append((round_, sqrt(scale * squares.mean()), len(samples)))
                del self._samples[round_]
        return done


def exact_distance(files: Iterable[Path]) -> float | None:
    """Compute the distance from the devices' parameter files; None where no device wrote any.

    Each file is read twice, so that only one is in memory at a time.
    """
    files = list(files)
    if not files:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        mean = sum(_flat(file).astype(np.float64) for file in files) / len(files)
        return sqrt(sum(float(((_flat(file) - mean) ** 2).sum()) for file in files) / len(files))


def _flat(file: Path) -> Float32s:
    parameters = load_file(file)
    return np.concatenate([parameters[name].reshape(-1) for name in sorted(parameters)])
