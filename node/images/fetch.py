"""Download an image set, once for all devices of a machine."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pooch
import requests

from node.images.catalogue import ImageSet
from node.images.files import data_folder, find, missing
from node.images.store import find_all, unpack, what_is_unpacked
from protocol.errors import BadInput, RunError

SILENCE_WALL_S = 30.0
"""How long a server may say nothing."""
_CHUNK_BYTES = 2**16


def fetch(image_set: ImageSet) -> str:
    """Have an image set on this machine, unpacked for all its devices; return what it is and where.

    Raises BadInput for files that are not what they should be, RunError if a download fails.
    """
    folder = data_folder()
    if missing(image_set, find(image_set, folder)):
        download(image_set, folder, base_url=image_set.url)
    files = find_all(image_set)
    found = what_is_unpacked(image_set, files) or unpack(image_set, files).found
    return f"{image_set.name}: {found}, from {folder}"


def download(image_set: ImageSet, folder: Path, *, base_url: str) -> None:
    """Download what is missing into the set's own folder there: each file whole and checked, or not at all.

    Raises BadInput for a wrong checksum or a folder that cannot be written, RunError if no server delivers.
    """
    own = folder / image_set.folder
    pooch.get_logger().setLevel("WARNING")
    try:
        own.mkdir(parents=True, exist_ok=True)
        with _alone_in(own):
            for name in wanted(image_set, folder):
                _download(base_url + name, own / name, md5=image_set.downloads[name])
    except requests.RequestException as error:
        raise RunError(
            f"data.dataset = {image_set.name}: not in {folder}, and {base_url} did not deliver it "
            f"({type(error).__name__}); docs/data.md says what may lie there instead"
        ) from error
    except OSError as error:
        raise BadInput(f"{own}: cannot be written ({error.strerror or error}); set HEARSAY_DATA") from error


class Progress:
    """What pooch tells of a download, as a line on stderr for every tenth of it."""

    def __init__(self, name: str) -> None:
        self.total = 0
        self._name = name
        self._done = 0
        self._tenths = 0

    def update(self, num_bytes: int) -> None:
        """Count what arrived."""
        self._done = min(self._done + num_bytes, self.total)
        tenths = 10 * self._done // self.total if self.total else 0
        if tenths > self._tenths:
            self._tenths = tenths
            sys.stderr.write(f"node: {self._name}: {10 * tenths} % of {self.total / 1e6:.3g} MB\n")

    def reset(self) -> None:
        """Do nothing: at the end pooch counts the whole once more, and more than that is not counted."""

    def close(self) -> None:
        """Do nothing: every line is out already."""


def _download(url: str, file: Path, *, md5: str) -> None:
    """Download into a temporary file beside the file, which it becomes when its checksum is right."""
    progress = Progress(file.name)
    try:
        pooch.retrieve(
            url,
            f"md5:{md5}",
            fname=file.name,
            path=file.parent,
            downloader=pooch.HTTPDownloader(
                progressbar=progress, chunk_size=_CHUNK_BYTES, timeout=SILENCE_WALL_S
            ),
        )
    except ValueError as error:
        raise BadInput(f"{url}: wrong checksum, not MD5 {md5}; nothing was kept") from error
    file.chmod(0o644)  # temporary files are their owner's alone, a data folder may be shared


def wanted(image_set: ImageSet, folder: Path) -> list[str]:
    """Name what has to be downloaded: the archive, or the file of each part that is missing."""
    absent = missing(image_set, find(image_set, folder))
    return [
        name
        for name in image_set.downloads
        if absent and (name == image_set.archive or name.removesuffix(".gz") in absent)
    ]


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until nobody else downloads into the folder; whoever ends a download's process ends its claim."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
