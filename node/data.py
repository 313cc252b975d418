"""Datasets as arrays: loaded once, split by the experiment's seed, cut to one device's share.

Image sets of files (`node/images`) are mapped into memory: all devices of a machine share the pixels and the
test set, and each makes floats of its own share alone.
"""

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import numpy.typing as npt
import torch

from node.images.catalogue import IMAGE_SETS, NUM_CLASSES, Floats
from node.images.store import open_images
from protocol.learning import Data
from protocol.partition import Indices, partition
from protocol.streams import Purpose, stream

DIGITS_MAX = 16.0


@dataclass(frozen=True)
class Dataset:
    """Samples of shape (num_samples, *sample_shape), labels of shape (num_samples,); test set apart.

    Training samples are what a model takes, or pixels that have yet to be scaled.
    """

    train_x: npt.NDArray[np.float32 | np.uint8]
    train_y: Indices
    test_x: Floats
    test_y: Indices
    num_classes: int
    found: str = ""
    """Which parts of a data set of files were there."""

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

    def on(self, processor: torch.device) -> "Share":
        """Return it on a processor, nothing copied where it is there."""
        return Share(*(tensor.to(processor) for tensor in (self.x, self.y, self.test_x, self.test_y)))


@cache
def load(data: Data, seed: int) -> Dataset:
    """Load a dataset with its test set apart, both cut to what the experiment wants at most; cached.

    Raises BadInput for an image set that is not there: nothing is downloaded.
    """
    match data.dataset:
        case "digits":
            dataset = _split(*_digits(), test_fraction=data.test_fraction, seed=seed)
        case "synthetic":
            dataset = _split(*_synthetic(data, seed), test_fraction=data.test_fraction, seed=seed)
        case _:
            images = open_images(IMAGE_SETS[data.dataset])
            dataset = Dataset(
                images.train_x, images.train_y, images.test_x, images.test_y, NUM_CLASSES, images.found
            )
    train = _drawn(len(dataset.train_y), data.max_samples, seed, a=1)
    test = _drawn(len(dataset.test_y), data.max_test_samples, seed, a=2)
    return replace(
        dataset,
        train_x=dataset.train_x[train],
        train_y=dataset.train_y[train],
        test_x=dataset.test_x[test],
        test_y=dataset.test_y[test],
    )


def parts(data: Data, num_devices: int, *, seed: int) -> list[Indices]:
    """Return which training samples each device holds."""
    return partition(load(data, seed).train_y, num_devices, data, seed=seed)


def share(data: Data, device: int, num_devices: int, *, seed: int) -> Share:
    """Return one device's part of the training set, and the test set that all have in common."""
    dataset = load(data, seed)
    mine = parts(data, num_devices, seed=seed)[device]
    x = dataset.train_x[mine]
    return Share(
        torch.from_numpy(IMAGE_SETS[data.dataset].normalise(x) if data.is_files else x),
        torch.from_numpy(dataset.train_y[mine]),
        torch.from_numpy(dataset.test_x),
        torch.from_numpy(dataset.test_y),
    )


def _split(x: Floats, y: Indices, num_classes: int, *, test_fraction: float, seed: int) -> Dataset:
    """Hold back a random test set."""
    order = stream(seed, Purpose.TEST_SPLIT).permutation(len(y))
    num_test = max(1, round(len(y) * test_fraction))
    test, train = np.sort(order[:num_test]), np.sort(order[num_test:])
    return Dataset(x[train], y[train], x[test], y[test], num_classes)


def _drawn(num_samples: int, at_most: int, seed: int, *, a: int) -> Indices | slice:
    """Choose which samples are used; a slice where all are, since what is mapped is then not copied."""
    if not 0 < at_most < num_samples:
        return slice(None)
    return np.sort(stream(seed, Purpose.TEST_SPLIT, a=a).permutation(num_samples)[:at_most])


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
