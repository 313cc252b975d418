"""Unpacked image sets: one file per machine, mapped into memory by all devices that learn from it."""

import os
import sys
import tempfile
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from node.cache import cache_folder
from node.images.arrays import Images, assemble
from node.images.catalogue import ImageSet
from node.images.files import data_folder, find, missing, read
from protocol.errors import BadInput

FORMAT = 1
"""Raised when the same files come to other arrays: older ones are then not mapped any more."""
_ARRAYS = ("train_x", "train_y", "test_x", "test_y")


def open_images(image_set: ImageSet) -> Images:
    """Map the arrays of an image set, or unpack them if nobody has; downloads nothing; raises BadInput."""
    files = find_all(image_set)
    try:
        with safe_open(_kept(image_set, files), framework="pt") as kept:  # only torch maps, numpy would copy
            x = {name: kept.get_tensor(name).numpy() for name in _ARRAYS}
            return Images(**x, found=kept.metadata()["found"])
    except (OSError, SafetensorError, KeyError):  # not there yet, or broken: unpacked anew
        return unpack(image_set, files)


def unpack(image_set: ImageSet, files: Mapping[str, Path]) -> Images:
    """Check the files, make arrays of them and keep those for whoever comes next; raises BadInput."""
    images = assemble(image_set, read(image_set, files))
    kept = _kept(image_set, files)
    try:
        _write(kept, images)
    except (OSError, SafetensorError) as error:  # the arrays are right all the same
        reason = getattr(error, "strerror", None) or error
        sys.stderr.write(f"node: {kept}: not written, so every device holds its own copy ({reason})\n")
    return images


def find_all(image_set: ImageSet) -> dict[str, Path]:
    """Return which file holds each part; raises BadInput if that is too little to learn from."""
    files = find(image_set, data_folder())
    if absent := missing(image_set, files):
        raise BadInput(
            f"data.dataset = {image_set.name}: no {', '.join(absent)} in {data_folder()}; `python -m node "
            f"--fetch FILE` downloads it, and docs/data.md says what may lie there instead"
        )
    return files


def what_is_unpacked(image_set: ImageSet, files: Mapping[str, Path]) -> str | None:
    """Return what was found in these very files when they were unpacked, or None if they never were."""
    try:
        with safe_open(_kept(image_set, files), framework="np") as kept:
            found: str = kept.metadata()["found"]
    except (OSError, SafetensorError, KeyError):
        return None
    return found


def _kept(image_set: ImageSet, files: Mapping[str, Path]) -> Path:
    """Name the file for the arrays: another one as soon as any source is another, or has changed."""
    sources = [
        (part, str(file), file.stat().st_size, file.stat().st_mtime_ns) for part, file in files.items()
    ]
    digest = blake2b(repr((FORMAT, sources)).encode(), digest_size=8).hexdigest()
    return cache_folder() / "unpacked" / f"{image_set.name}-{digest}.safetensors"


def _write(kept: Path, images: Images) -> None:
    """Write all of it or nothing; raises OSError."""
    kept.parent.mkdir(parents=True, exist_ok=True)
    descriptor, draft = tempfile.mkstemp(dir=kept.parent, prefix=".")
    os.close(descriptor)
    try:
        arrays = {name: getattr(images, name) for name in _ARRAYS}
        save_file(arrays, draft, metadata={"found": images.found})
        Path(draft).replace(kept)
    finally:
        Path(draft).unlink(missing_ok=True)
