"""What the image sets are: parts, sizes, checksums, where they are published, how pixels are scaled."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import numpy as np
import numpy.typing as npt

from node.images.cifar import RECORD_BYTES

Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Part:
    """One unpacked file of a set; its MD5 is None where none is known."""

    name: str
    num_bytes: int
    md5: str | None = None
    may_be_prefix: bool = False
    """Whether a file that ends early, after a whole record, will do."""


@dataclass(frozen=True)
class ImageSet:
    """An image set as published: train and test are its parts, downloads maps file names to their MD5s.

    Pixels of channel c are scaled to (pixel / 255 - mean[c]) / std[c].
    """

    name: str
    folder: str
    sample_shape: tuple[int, int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    train: tuple[Part, ...]
    test: tuple[Part, ...]
    layout: Literal["idx", "records"]
    """Parts of images and of labels, all needed; or parts with both, of which some will do for training."""
    url: str
    downloads: Mapping[str, str]
    archive: str = ""
    """The download that holds every part, in its folder archive_folder; empty where each part is one."""
    archive_folder: str = ""

    @property
    def parts(self) -> tuple[Part, ...]:
        """Every part, for training or for testing."""
        return self.train + self.test

    def normalise(self, pixels: npt.NDArray[np.generic]) -> Floats:
        """Scale pixels, shape (n, channels, height, width), by the mean and deviation of each channel."""
        x = pixels.astype(np.float32)
        x /= 255
        x -= np.array(self.mean, np.float32)[:, np.newaxis, np.newaxis]
        x /= np.array(self.std, np.float32)[:, np.newaxis, np.newaxis]
        return x


FASHION_MNIST = ImageSet(  # Xiao, Rasul and Vollgraf, arXiv 1708.07747
    name="fashion_mnist",
    folder="fashion-mnist",
    sample_shape=(1, 28, 28),
    mean=(0.2860,),
    std=(0.3530,),
    train=(
        Part("train-images-idx3-ubyte", 16 + 60_000 * 28 * 28, "f4a8712d7a061bf5bd6d2ca38dc4d50a"),
        Part("train-labels-idx1-ubyte", 8 + 60_000, "9018921c3c673c538a1fc5bad174d6f9"),
    ),
    test=(
        Part("t10k-images-idx3-ubyte", 16 + 10_000 * 28 * 28, "8181f5470baa50b63fa0f6fddb340f0a"),
        Part("t10k-labels-idx1-ubyte", 8 + 10_000, "15d484375f8d13e6eb1aabb0c3f46965"),
    ),
    layout="idx",
    url="http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
    downloads=MappingProxyType(
        {
            "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
            "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
            "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
            "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
        }
    ),
)

CIFAR10 = ImageSet(  # Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009
    name="cifar10",
    folder="cifar-10",
    sample_shape=(3, 32, 32),
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    train=(
        Part("data_batch_1.bin", 10_000 * RECORD_BYTES, "5dd7e06a14cb22eb9f671a540d1b7c25"),
        Part("data_batch_2.bin", 10_000 * RECORD_BYTES, "5ea93a67294ea407fff1d09f752e9692"),
        *(Part(f"data_batch_{number}.bin", 10_000 * RECORD_BYTES) for number in (3, 4, 5)),
    ),
    test=(Part("test_batch.bin", 10_000 * RECORD_BYTES, may_be_prefix=True),),
    layout="records",
    url="https://www.cs.toronto.edu/~kriz/",
    downloads=MappingProxyType({"cifar-10-binary.tar.gz": "c32a1d4ab5d03f1284b67883e8d87530"}),
    archive="cifar-10-binary.tar.gz",
    archive_folder="cifar-10-batches-bin",
)

IMAGE_SETS: Mapping[str, ImageSet] = MappingProxyType({s.name: s for s in (FASHION_MNIST, CIFAR10)})
NUM_CLASSES = 10
"""Labels of either set."""
