"""Datasets as arrays: loaded once, split by the experiment's seed, cut to one device's share."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from protocol.config import Data
from protocol.partition import Indices, partition
from protocol.streams import Purpose, stream

DIGITS_MAX = 16.0


@dataclass(frozen=True)
class Dataset:
    """Samples of shape (num_samples, *sample_shape), labels of shape (num_samples,); test set apart."""

    train_x: npt.NDArray[np.float32]
    train_y: Indices
    test_x: npt.NDArray[np.float32]
    test_y: Indices
    num_classes: int

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of one sample: (channels, height, width) of an image, (features,) of a vector."""
        return self.train_x.shape[1:]


@dataclass(frozen=True)
class Share:
    """One device's training samples and the common test set, as tensors."""

    x: torch.Tensor
    y: torch.Tensor
    test_x: torch.Tensor
    test_y: torch.Tensor


@cache
def load(data: Data, seed: int) -> Dataset:
    """Load a dataset and hold back its test set; cached, so that forked devices share one copy."""
    if data.dataset == "digits":
        x, y, num_classes = _digits()
    else:
        x, y, num_classes = _synthetic(data, seed)
    order = stream(seed, Purpose.TEST_SPLIT).permutation(len(y))
    num_test = max(1, round(len(y) * data.test_fraction))
    test, train = np.sort(order[:num_test]), np.sort(order[num_test:])
    return Dataset(x[train], y[train], x[test], y[test], num_classes)


def parts(data: Data, num_devices: int, *, seed: int) -> list[Indices]:
    """Return which training samples each device holds."""
    return partition(load(data, seed).train_y, num_devices, data, seed=seed)


def share(data: Data, device: int, num_devices: int, *, seed: int) -> Share:
    """Return one device's part of the training set, and the test set that all have in common."""
    dataset = load(data, seed)
    mine = parts(data, num_devices, seed=seed)[device]
    return Share(
        torch.from_numpy(dataset.train_x[mine]),
        torch.from_numpy(dataset.train_y[mine]),
        torch.from_numpy(dataset.test_x),
        torch.from_numpy(dataset.test_y),
    )


def _digits() -> tuple[npt.NDArray[np.float32], Indices, int]:
    """Read the 1,797 8x8 digits that scikit-learn ships (UCI optdigits test set), scaled to [0, 1]."""
    from sklearn.datasets import load_digits  # 1 s to import, and only this set needs it

    pixels, labels = load_digits(return_X_y=True)
    x = (pixels / DIGITS_MAX).astype(np.float32).reshape(-1, 1, 8, 8)
    return x, labels.astype(np.int64), 10


def _synthetic(data: Data, seed: int) -> tuple[npt.NDArray[np.float32], Indices, int]:
    """Draw Gaussian classes: unit noise around class means that lie 3 apart on average."""
    rng = stream(seed, Purpose.SYNTHETIC_DATA)
    y = np.arange(data.num_samples, dtype=np.int64) % data.num_classes
    means = rng.standard_normal((data.num_classes, data.num_features), dtype=np.float32)
    means *= 3 / np.sqrt(2 * data.num_features)
    x = rng.standard_normal((data.num_samples, data.num_features), dtype=np.float32)
    x += means[y]
    return x, y, data.num_classes
