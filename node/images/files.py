"""The files of an image set: where they are looked for, how they are read, and what is refused."""

import gzip
import lzma
import os
import tarfile
import zlib
from collections.abc import Mapping
from hashlib import md5
from pathlib import Path
from typing import BinaryIO

from node.cache import cache_folder
from node.images.catalogue import ImageSet, Part
from protocol.errors import BadInput

SUFFIXES = ("", ".gz", ".xz")
_UNREADABLE = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError)


def data_folder() -> Path:
    """Return where image sets are looked for and downloaded to: $HEARSAY_DATA, else the cache."""
    given = os.environ.get("HEARSAY_DATA")
    return Path(given).expanduser().resolve() if given else cache_folder()


def find(image_set: ImageSet, folder: Path) -> dict[str, Path]:
    """Return which file holds each part, of those that are there: the archive for all, or single files.

    They lie in the folder itself or in that of the set, and what was unpacked also in the archive's own.
    """
    places = [folder / image_set.folder, folder]
    if image_set.archive:
        for place in places:
            if (place / image_set.archive).is_file():
                return {part.name: place / image_set.archive for part in image_set.parts}
        places += [place / image_set.archive_folder for place in places]
    files = {}
    for part in image_set.parts:
        there = [place / (part.name + suffix) for place in places for suffix in SUFFIXES]
        if file := next((file for file in there if file.is_file()), None):
            files[part.name] = file
    return files


def missing(image_set: ImageSet, files: Mapping[str, Path]) -> list[str]:
    """Name the parts without which nothing can be learned; some records for training will do."""
    absent = [part.name for part in image_set.parts if part.name not in files]
    if image_set.layout == "records" and any(part.name in files for part in image_set.train):
        return [name for name in absent if name not in {part.name for part in image_set.train}]
    return absent


def read(image_set: ImageSet, files: Mapping[str, Path]) -> dict[str, bytes]:
    """Return the contents of each part, checked by size and MD5.

    Raises BadInput that names the file with another one.
    """
    parts = [part for part in image_set.parts if part.name in files]
    archives = {file for file in files.values() if file.name == image_set.archive}
    contents = {}
    for archive in archives:
        contents.update(_read_archive(image_set, archive))
    for part in parts:
        if files[part.name] not in archives:
            contents[part.name] = _read_file(part, files[part.name])
        _check(part, contents[part.name], files[part.name])
    return contents


def _read_file(part: Part, file: Path) -> bytes:
    """Unpack a file by its suffix, but no more than a byte too many."""
    try:
        with _open(file) as unpacked:
            return unpacked.read(part.num_bytes + 1)
    except _UNREADABLE as error:
        raise _broken(file, error) from error


def _open(file: Path) -> BinaryIO | gzip.GzipFile | lzma.LZMAFile:
    match file.suffix:
        case ".gz":
            return gzip.open(file)
        case ".xz":
            return lzma.open(file)
        case _:
            return file.open("rb")


def _read_archive(image_set: ImageSet, archive: Path) -> dict[str, bytes]:
    """Take the parts out of the archive in one pass; nothing is written, and no other name looked at."""
    wanted = {f"{image_set.archive_folder}/{part.name}": part for part in image_set.parts}
    contents = {}
    try:
        with archive.open("rb") as packed:
            digest = md5(usedforsecurity=False)
            while block := packed.read(2**20):
                digest.update(block)
        _same_md5(archive, digest.hexdigest(), image_set.downloads[image_set.archive])
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                part = wanted.get(member.name)
                if part is not None and (file := tar.extractfile(member)) is not None:
                    contents[part.name] = file.read(part.num_bytes + 1)
    except _UNREADABLE as error:
        raise _broken(archive, error) from error
    if absent := [part.name for part in image_set.parts if part.name not in contents]:
        raise BadInput(f"{archive}: holds no {', '.join(absent)}; get it again")
    return contents


def _check(part: Part, contents: bytes, file: Path) -> None:
    size = len(contents)
    if size > part.num_bytes or (size < part.num_bytes and not part.may_be_prefix):
        more = "more than " if size > part.num_bytes else f"{size:,} bytes, not "
        raise BadInput(f"{file}: {more}the {part.num_bytes:,} bytes of {part.name}; get it again")
    if part.md5 is not None and size == part.num_bytes:
        _same_md5(file, md5(contents, usedforsecurity=False).hexdigest(), part.md5)


def _same_md5(file: Path, found: str, expected: str) -> None:
    if found != expected:
        raise BadInput(f"{file}: wrong checksum, MD5 {found} instead of {expected}; get it again")


def _broken(file: Path, error: Exception) -> BadInput:
    reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return BadInput(f"{file}: cannot be read ({reason}); get it again")
