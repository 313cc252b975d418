"""From the contents of a set's files to arrays: pixels and labels, for training and for testing."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from node.images.catalogue import NUM_CLASSES, Floats, ImageSet, Part, Pixels
from node.images.cifar import RECORD_BYTES, parse_records
from node.images.idx import parse_idx
from protocol.errors import BadInput
from protocol.partition import Indices


@dataclass(frozen=True)
class Images:
    """Pixels of the training set, shape (n, channels, height, width), and the test set as models take it.

    Labels have shape (n,). A device scales only the training samples that are its own.
    """

    train_x: Pixels
    train_y: Indices
    test_x: Floats
    test_y: Indices
    found: str
    """What of the set this is: all of it, or which parts."""


def assemble(image_set: ImageSet, contents: Mapping[str, bytes]) -> Images:
    """Make arrays of the parts that are there, by name; raises BadInput that names an unsound one."""
    train_x, train_y = _pixels_and_labels(image_set, image_set.train, contents)
    test_x, test_y = _pixels_and_labels(image_set, image_set.test, contents)
    return Images(train_x, train_y, image_set.normalise(test_x), test_y, _found(image_set, contents))


def _pixels_and_labels(
    image_set: ImageSet, parts: tuple[Part, ...], contents: Mapping[str, bytes]
) -> tuple[Pixels, Indices]:
    there = [part for part in parts if part.name in contents]
    pixels, labels = [], []
    for part in there:
        try:
            if image_set.layout == "records":
                x, y = parse_records(contents[part.name])
                pixels.append(x)
                labels.append(y)
            elif not pixels:  # images first, then their labels
                pixels.append(parse_idx(contents[part.name], num_dimensions=3)[:, np.newaxis])
            else:
                labels.append(parse_idx(contents[part.name], num_dimensions=1))
        except ValueError as error:
            raise BadInput(f"{image_set.name}: {part.name}: {error}; get it again") from error
    x, y = np.concatenate(pixels), np.concatenate(labels)
    named = " and ".join(part.name for part in there)
    if x.shape[1:] != image_set.sample_shape or len(x) != len(y):
        raise BadInput(
            f"{image_set.name}: {named}: {len(x)} images of shape {x.shape[1:]} and {len(y)} labels; "
            f"expected as many of shape {image_set.sample_shape}"
        )
    if y.max(initial=0) >= NUM_CLASSES:
        raise BadInput(f"{image_set.name}: {named}: label {y.max()}; labels end at {NUM_CLASSES - 1}")
    return x, y.astype(np.int64)


def _found(image_set: ImageSet, contents: Mapping[str, bytes]) -> str:
    there, absent = [], []
    for part in image_set.parts:
        if part.name not in contents:
            absent.append(part.name)
        elif len(contents[part.name]) == part.num_bytes:
            there.append(part.name)
        else:
            num_records = len(contents[part.name]) // RECORD_BYTES
            there.append(f"only the first {num_records:,} records of {part.name}")
    if there == [part.name for part in image_set.parts]:
        return "all of it"
    return ", ".join(there) + (f"; not {', '.join(absent)}" if absent else "")
