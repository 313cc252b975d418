"""Small image sets for tests: of the layout of the real ones, with files that a test writes itself."""

import gzip
import io
import lzma
import tarfile
from dataclasses import replace
from hashlib import md5

import numpy as np

from node.images.catalogue import CIFAR10, FASHION_MNIST, Part
from node.images.cifar import RECORD_BYTES

PACKED = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


def digest(data):
    return md5(data, usedforsecurity=False).hexdigest()


def idx(array):
    """Write an array as idx does."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 8, array.ndim]) + sizes + array.tobytes()


def records(num_records, seed):
    """Write random records of CIFAR-10."""
    rng = np.random.default_rng(seed)
    data = rng.integers(0, 256, (num_records, RECORD_BYTES), np.uint8)
    data[:, 0] = rng.integers(0, 10, num_records)
    return data.tobytes()


def small_fashion(num_train=30, num_test=10):
    """Return a set of 5 x 5 pixels, and the contents of its parts."""
    rng, contents = np.random.default_rng(1), {}
    for parts, num in ((FASHION_MNIST.train, num_train), (FASHION_MNIST.test, num_test)):
        contents[parts[0].name] = idx(rng.integers(0, 256, (num, 5, 5), np.uint8))
        contents[parts[1].name] = idx(rng.integers(0, 10, num).astype(np.uint8))
    return replace(
        FASHION_MNIST,
        sample_shape=(1, 5, 5),
        train=tuple(_part(part, contents) for part in FASHION_MNIST.train),
        test=tuple(_part(part, contents) for part in FASHION_MNIST.test),
        downloads={name + ".gz": digest(packed(data)) for name, data in contents.items()},
    ), contents


def small_cifar():
    """Return a set of six records in each part, of which the first has a known MD5, and the contents."""
    contents = {part.name: records(6, seed) for seed, part in enumerate(CIFAR10.parts)}
    first, *others = (_part(part, contents) for part in CIFAR10.train)
    return replace(
        CIFAR10,
        train=(first, *(replace(part, md5=None) for part in others)),
        test=(replace(CIFAR10.test[0], num_bytes=6 * RECORD_BYTES),),
        downloads={CIFAR10.archive: digest(archive(contents))},
    ), contents


def packed(data):
    """Compress the same data to the same bytes whenever."""
    return gzip.compress(data, mtime=0)


def archive(contents):
    """Write a tar.gz as the official one is laid out, with a file in it that nobody asked for."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in {"readme.html": b"<html>", **contents}.items():
            member = tarfile.TarInfo(f"{CIFAR10.archive_folder}/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed(buffer.getvalue())


def _part(part: Part, contents):
    data = contents[part.name]
    return replace(part, num_bytes=len(data), md5=digest(data))
