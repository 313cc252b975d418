"""Image sets from files: parsed within bounds, checked, refused by name, unpacked once and mapped by all."""

import gzip
import os
import struct
import tracemalloc
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import PACKED, archive, digest, idx, packed, records, small_cifar, small_fashion
from safetensors.numpy import load_file

import node.images.files
import node.images.store
from node.cache import cache_folder
from node.images.arrays import assemble
from node.images.catalogue import CIFAR10, FASHION_MNIST
from node.images.cifar import RECORD_BYTES, parse_records
from node.images.files import data_folder, find, missing, read
from node.images.idx import parse_idx
from node.images.store import open_images, unpack, what_is_unpacked
from protocol.errors import BadInput

fixed = settings(derandomize=True, deadline=None)
FASHION, FASHION_CONTENTS = small_fashion()
CIFAR, CIFAR_CONTENTS = small_cifar()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return a data folder, empty as the cache beside it."""
    monkeypatch.setenv("HEARSAY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HEARSAY_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def put(folder, contents, *, suffix=""):
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in contents.items():
        (folder / (name + suffix)).write_bytes(PACKED[suffix](data))


# --- formats


def test_idx_is_read_as_it_is_written():
    """The header by hand, so that it is not only our own writer that agrees."""
    data = bytes([0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 3]) + bytes(range(6))
    assert parse_idx(data, num_dimensions=2).tolist() == [[0, 1, 2], [3, 4, 5]]
    array = np.random.default_rng(0).integers(0, 256, (7, 4, 3), np.uint8)
    assert np.array_equal(parse_idx(idx(array), num_dimensions=3), array)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        idx(np.zeros((2, 3), np.uint8))[:11],
        b"\1" + idx(np.zeros((2, 3), np.uint8))[1:],
        bytes([0, 0, 9, 2]) + idx(np.zeros((2, 3), np.uint8))[4:],
        idx(np.zeros((2, 3, 1), np.uint8)),
        idx(np.zeros((2, 3), np.uint8)) + b"\0",
        idx(np.zeros((2, 3), np.uint8))[:-1],
        packed(idx(np.zeros((2, 3), np.uint8))),
    ],
    ids=["empty", "half a header", "magic", "type", "dimensions", "too long", "too short", "packed"],
)
def test_what_is_no_idx_of_these_dimensions_is_refused(data):
    with pytest.raises(ValueError, match="header"):
        parse_idx(data, num_dimensions=2)


@fixed
@given(
    st.lists(st.integers(0, 2**32 - 1) | st.integers(0, 4), min_size=1, max_size=4),
    st.binary(max_size=64),
    st.integers(1, 4),
)
def test_an_idx_header_is_never_believed(sizes, body, num_dimensions):
    """Whatever it promises, what comes out is the bytes that are there, or nothing."""
    data = bytes([0, 0, 8, len(sizes)]) + struct.pack(f">{len(sizes)}I", *sizes) + body
    try:
        array = parse_idx(data, num_dimensions=num_dimensions)
    except ValueError:
        assert num_dimensions != len(sizes) or np.prod(np.array(sizes, dtype=object)) != len(body) or not body
    else:
        assert array.shape == tuple(sizes)
        assert array.tobytes() == body


@fixed
@given(st.binary(max_size=64))
def test_any_bytes_are_idx_or_refused(data):
    with suppress(ValueError):
        assert parse_idx(data, num_dimensions=1).tobytes() == data[8:]


def test_records_are_a_label_and_three_planes():
    data = bytes([7, *[1] * 1024, *[2] * 1024, *[3] * 1024, 9, *range(256), *[0] * (3072 - 256)])
    pixels, labels = parse_records(data)
    assert labels.tolist() == [7, 9]
    assert [np.unique(plane).tolist() for plane in pixels[0]] == [[1], [2], [3]]
    assert pixels[1, 0, 1, 2] == 32 + 2  # row by row


@pytest.mark.parametrize("num_bytes", [0, 1, RECORD_BYTES - 1, RECORD_BYTES + 1, 2 * RECORD_BYTES - 1])
def test_half_a_record_is_refused(num_bytes):
    with pytest.raises(ValueError, match="no whole number of records"):
        parse_records(bytes(num_bytes))


# --- files


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("place", [".", "fashion-mnist"])
def test_idx_files_are_read_in_any_wrapping_from_either_place(folder, suffix, place):
    put(folder / place, FASHION_CONTENTS, suffix=suffix)
    files = find(FASHION, folder)
    assert not missing(FASHION, files)
    assert read(FASHION, files) == FASHION_CONTENTS


@pytest.mark.parametrize("suffix", PACKED)
@pytest.mark.parametrize("place", [".", "cifar-10", "cifar-10-batches-bin", "cifar-10/cifar-10-batches-bin"])
def test_batches_are_read_in_any_wrapping_from_any_place(folder, suffix, place):
    put(folder / place, CIFAR_CONTENTS, suffix=suffix)
    assert read(CIFAR, find(CIFAR, folder)) == CIFAR_CONTENTS


@pytest.mark.parametrize("place", [".", "cifar-10"])
def test_the_archive_is_read_and_comes_before_single_files(folder, place):
    put(folder, {name: bytes(len(data)) for name, data in CIFAR_CONTENTS.items()})
    put(folder / place, {CIFAR.archive: archive(CIFAR_CONTENTS)})
    assert read(CIFAR, find(CIFAR, folder)) == CIFAR_CONTENTS


def test_parts_may_lie_in_several_places(folder):
    names = list(FASHION_CONTENTS)
    put(folder, {name: FASHION_CONTENTS[name] for name in names[:1]}, suffix=".xz")
    put(folder / "fashion-mnist", {name: FASHION_CONTENTS[name] for name in names[1:]}, suffix=".gz")
    assert read(FASHION, find(FASHION, folder)) == FASHION_CONTENTS


@pytest.mark.parametrize(
    ("image_set", "there", "absent"),
    [
        (FASHION, [], [part.name for part in FASHION.parts]),
        (
            FASHION,
            ["train-images-idx3-ubyte", "t10k-images-idx3-ubyte"],
            ["train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"],
        ),
        (CIFAR, [], [part.name for part in CIFAR.parts]),
        (CIFAR, ["data_batch_4.bin", "test_batch.bin"], []),
        (CIFAR, ["data_batch_4.bin"], ["test_batch.bin"]),
        (CIFAR, ["test_batch.bin"], [part.name for part in CIFAR.train]),
    ],
)
def test_what_is_missing(image_set, there, absent):
    assert missing(image_set, {name: Path(name) for name in there}) == absent


def refused(image_set, folder):
    with pytest.raises(BadInput) as error:
        read(image_set, find(image_set, folder))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_wrong_checksum_is_refused_by_name(folder):
    contents = dict(FASHION_CONTENTS)
    name = "t10k-images-idx3-ubyte"
    contents[name] = contents[name][:-1] + bytes([contents[name][-1] ^ 1])
    put(folder, contents, suffix=".gz")
    assert refused(FASHION, folder) == (
        f"{folder / name}.gz: wrong checksum, MD5 {digest(contents[name])} instead of "
        f"{digest(FASHION_CONTENTS[name])}; get it again"
    )


def test_an_archive_with_a_wrong_checksum_is_refused_by_name(folder):
    (folder / CIFAR.archive).write_bytes(archive(CIFAR_CONTENTS | {"test_batch.bin": records(6, 99)}))
    assert refused(CIFAR, folder).startswith(f"{folder / CIFAR.archive}: wrong checksum, MD5 ")


def test_an_archive_without_a_part_is_refused_by_name(folder):
    data = archive({name: CIFAR_CONTENTS[name] for name in list(CIFAR_CONTENTS)[1:]})
    (folder / CIFAR.archive).write_bytes(data)
    other = replace(CIFAR, downloads={CIFAR.archive: digest(data)})
    assert "holds no data_batch_1.bin" in refused(other, folder)


@pytest.mark.parametrize("name", ["data_batch_1.bin", "data_batch_3.bin", "test_batch.bin"])
@pytest.mark.parametrize("suffix", PACKED)
def test_a_file_that_is_too_long_is_refused_by_name(folder, name, suffix):
    """However much it unpacks to: no more of it is read than a byte too many."""
    put(folder, CIFAR_CONTENTS | {name: CIFAR_CONTENTS[name] + bytes(20_000_000)}, suffix=suffix)
    tracemalloc.start()
    line = refused(CIFAR, folder)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak_bytes < 12_000_000  # of which the window of xz takes 8
    assert line == (
        f"{folder / name}{suffix}: more than the {6 * RECORD_BYTES:,} bytes of {name}; get it again"
    )


@pytest.mark.parametrize("name", ["data_batch_1.bin", "data_batch_3.bin"])
def test_a_batch_that_ends_early_is_refused_by_name(folder, name):
    put(folder, CIFAR_CONTENTS | {name: CIFAR_CONTENTS[name][:-RECORD_BYTES]})
    assert refused(CIFAR, folder) == (
        f"{folder / name}: {5 * RECORD_BYTES:,} bytes, not the {6 * RECORD_BYTES:,} bytes of {name}; "
        f"get it again"
    )


@pytest.mark.parametrize("suffix", [".gz", ".xz"])
@pytest.mark.parametrize("damage", [lambda data: data[:-9], lambda data: b"no archive" + data, lambda _: b""])
def test_a_file_that_cannot_be_unpacked_is_refused_by_name(folder, suffix, damage):
    put(folder, FASHION_CONTENTS, suffix=suffix)
    file = folder / f"train-labels-idx1-ubyte{suffix}"
    file.write_bytes(damage(file.read_bytes()))
    line = refused(FASHION, folder)
    assert line.startswith(f"{file}: ")
    assert line.endswith("; get it again")


def test_an_archive_that_is_none_is_refused_by_name(folder):
    (folder / CIFAR.archive).write_bytes(b"not a tar")
    other = replace(CIFAR, downloads={CIFAR.archive: digest(b"not a tar")})
    assert refused(other, folder).startswith(f"{folder / CIFAR.archive}: cannot be read (")


def test_where_files_are_looked_for(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder() == tmp_path / ".cache" / "hearsay"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("HEARSAY_CACHE", raising=False)
    monkeypatch.delenv("HEARSAY_DATA", raising=False)
    assert data_folder() == cache_folder() == tmp_path / "xdg" / "hearsay"
    monkeypatch.setenv("HEARSAY_CACHE", str(tmp_path / "own"))
    assert data_folder() == cache_folder() == tmp_path / "own"
    monkeypatch.setenv("HEARSAY_DATA", str(tmp_path / "data"))
    assert (data_folder(), cache_folder()) == (tmp_path / "data", tmp_path / "own")


# --- arrays


def test_idx_pixels_and_labels_come_out_scaled():
    images = assemble(FASHION, FASHION_CONTENTS)
    assert images.train_x.tobytes() == FASHION_CONTENTS["train-images-idx3-ubyte"][16:]
    assert images.train_y.tolist() == list(FASHION_CONTENTS["train-labels-idx1-ubyte"][8:])
    assert images.test_y.tolist() == list(FASHION_CONTENTS["t10k-labels-idx1-ubyte"][8:])
    assert (images.train_x.dtype, images.train_x.shape) == (np.uint8, (30, 1, 5, 5))
    assert (images.test_x.dtype, images.test_x.shape) == (np.float32, (10, 1, 5, 5))
    pixels = np.frombuffer(FASHION_CONTENTS["t10k-images-idx3-ubyte"][16:], np.uint8).astype(float)
    np.testing.assert_allclose(images.test_x.ravel(), (pixels / 255 - 0.2860) / 0.3530, rtol=1e-5, atol=1e-6)
    assert images.found == "all of it"


def test_channels_are_scaled_each_by_its_own():
    pixels = np.full((2, 3, 32, 32), 51, np.uint8)
    x = CIFAR10.normalise(pixels)
    for channel, (mean, std) in enumerate(zip(CIFAR10.mean, CIFAR10.std, strict=True)):
        np.testing.assert_allclose(x[:, channel], (0.2 - mean) / std, rtol=1e-5)


def test_some_batches_and_the_beginning_of_the_test_batch_will_do_and_are_named():
    contents = {
        "data_batch_2.bin": CIFAR_CONTENTS["data_batch_2.bin"],
        "data_batch_5.bin": CIFAR_CONTENTS["data_batch_5.bin"],
        "test_batch.bin": CIFAR_CONTENTS["test_batch.bin"][: 2 * RECORD_BYTES],
    }
    images = assemble(CIFAR, contents)
    assert (len(images.train_y), len(images.test_y)) == (12, 2)
    assert images.train_x[6].tobytes() == CIFAR_CONTENTS["data_batch_5.bin"][1:RECORD_BYTES]
    assert images.found == (
        "data_batch_2.bin, data_batch_5.bin, only the first 2 records of test_batch.bin; "
        "not data_batch_1.bin, data_batch_3.bin, data_batch_4.bin"
    )


@pytest.mark.parametrize(
    ("name", "data", "says"),
    [
        ("train-images-idx3-ubyte", idx(np.zeros((30, 5, 4), np.uint8)), "images of shape (1, 5, 4)"),
        ("train-images-idx3-ubyte", idx(np.zeros((29, 5, 5), np.uint8)), "29 images"),
        ("train-labels-idx1-ubyte", idx(np.zeros((29,), np.uint8)), "29 labels"),
        ("train-labels-idx1-ubyte", idx(np.full((30,), 10, np.uint8)), "label 10"),
        ("t10k-labels-idx1-ubyte", b"\0\0\10", "no idx header"),
    ],
)
def test_what_does_not_fit_together_is_bad_input(name, data, says):
    with pytest.raises(BadInput) as error:
        assemble(FASHION, FASHION_CONTENTS | {name: data})
    assert says in str(error.value)
    assert name in str(error.value)


def test_a_label_that_no_class_has_is_bad_input():
    with pytest.raises(BadInput, match=r"data_batch_1\.bin.*label 10"):
        assemble(CIFAR, CIFAR_CONTENTS | {"data_batch_1.bin": b"\n" + CIFAR_CONTENTS["data_batch_1.bin"][1:]})


# --- the store


def test_is_unpacked_once_and_then_mapped(folder, tmp_path, monkeypatch):
    put(folder, CIFAR_CONTENTS, suffix=".xz")
    first = unpack(CIFAR, find(CIFAR, folder))
    (kept,) = (tmp_path / "cache" / "unpacked").iterdir()
    monkeypatch.setattr(node.images.store, "read", lambda *_: pytest.fail("unpacked twice"))
    images = open_images(CIFAR)
    for name in ("train_x", "train_y", "test_x", "test_y"):
        assert np.array_equal(getattr(images, name), getattr(first, name))
        assert getattr(images, name).dtype == getattr(first, name).dtype
    assert images.found == first.found == what_is_unpacked(CIFAR, find(CIFAR, folder)) == "all of it"
    address = images.train_x.ctypes.data
    (line,) = [
        line
        for line in Path("/proc/self/maps").read_text().splitlines()
        if int(line.split("-")[0], 16) <= address < int(line.split("-")[1].split()[0], 16)
    ]
    assert line.endswith(str(kept)), "one copy for all devices is a page of the file, not of a process"


def test_writing_to_what_is_mapped_changes_nobody_elses(folder):
    put(folder, CIFAR_CONTENTS)
    unpack(CIFAR, find(CIFAR, folder))
    mine, other = open_images(CIFAR), open_images(CIFAR)
    before = other.train_x.copy()
    mine.train_x[:] = 0
    assert np.array_equal(other.train_x, before)
    assert np.array_equal(open_images(CIFAR).train_x, before)


def test_other_files_are_unpacked_anew(folder, tmp_path):
    put(folder, CIFAR_CONTENTS)
    unpack(CIFAR, find(CIFAR, folder))
    put(folder, {"test_batch.bin": records(3, 5)})
    assert what_is_unpacked(CIFAR, find(CIFAR, folder)) is None
    assert len(open_images(CIFAR).test_y) == 3
    (folder / "data_batch_2.bin").unlink()
    assert len(open_images(CIFAR).train_y) == 24
    assert len(list((tmp_path / "cache" / "unpacked").iterdir())) == 3


def test_a_file_that_changed_is_checked_anew_even_if_its_size_did_not(folder):
    put(folder, CIFAR_CONTENTS)
    unpack(CIFAR, find(CIFAR, folder))
    changed = folder / "data_batch_1.bin"
    then_ns = changed.stat().st_mtime_ns
    changed.write_bytes(bytes(len(CIFAR_CONTENTS["data_batch_1.bin"])))
    os.utime(changed, ns=(then_ns, then_ns + 1))
    with pytest.raises(BadInput, match=r"data_batch_1\.bin: wrong checksum"):
        open_images(CIFAR)


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: bytes(len(data))])
def test_a_broken_store_is_made_anew(folder, tmp_path, damage):
    put(folder, CIFAR_CONTENTS)
    expected = unpack(CIFAR, find(CIFAR, folder))
    (kept,) = (tmp_path / "cache" / "unpacked").iterdir()
    kept.write_bytes(damage(kept.read_bytes()))
    assert np.array_equal(open_images(CIFAR).train_x, expected.train_x)
    assert len(load_file(kept)["train_y"]) == 30
    assert list(kept.parent.iterdir()) == [kept], "and no draft is left over"


def test_where_the_cache_cannot_be_written_the_arrays_are_there_all_the_same(folder, tmp_path, capsys):
    (tmp_path / "cache").write_text("a file where the folder would be")
    put(folder, CIFAR_CONTENTS)
    assert len(open_images(CIFAR).train_y) == 30
    (line,) = capsys.readouterr().err.splitlines()
    assert "not written" in line


def test_nothing_there_says_what_and_where_and_downloads_nothing(folder, monkeypatch):
    monkeypatch.setattr("requests.get", lambda *_, **__: pytest.fail("a device downloads"))
    with pytest.raises(BadInput) as error:
        open_images(CIFAR10)
    assert str(error.value).startswith("data.dataset = cifar10: no data_batch_1.bin, ")
    assert str(folder) in str(error.value)
    assert "docs/data.md" in str(error.value)


# --- the real ones


def real(image_set, folder, *, without=()):
    """Return the contents of a real set, checked, but for some of its parts."""
    files = find(image_set, folder)
    if missing(image_set, files):
        pytest.skip(f"{folder} has no {image_set.name}")
    return read(image_set, {name: file for name, file in files.items() if name not in without})


def test_fashion_mnist_is_the_published_one_in_whatever_wrapping(real_folder, folder):
    contents = real(FASHION_MNIST, real_folder)
    images = assemble(FASHION_MNIST, contents)
    assert (images.train_x.shape, images.test_x.shape) == ((60_000, 1, 28, 28), (10_000, 1, 28, 28))
    assert np.bincount(images.train_y).tolist() == [6000] * 10
    assert np.bincount(images.test_y).tolist() == [1000] * 10
    x = images.train_x[:10_000] / 255  # of 60,000, over which the constants are known to four digits
    assert (x.mean(), x.std()) == pytest.approx((FASHION_MNIST.mean[0], FASHION_MNIST.std[0]), abs=0.005)
    # Drawn on black: corners are empty, and trousers (1) have no more than two thirds of a pullover (2).
    assert images.train_x[:, 0, 0, 0].mean() < 1
    ink = [images.train_x[images.train_y == label].mean() for label in (1, 2)]
    assert ink[0] < ink[1] * 2 / 3
    # The MD5 of this file is none that was published; what it holds has one.
    (folder / "t10k-images-idx3-ubyte.gz").write_bytes(gzip.compress(contents["t10k-images-idx3-ubyte"], 1))
    only = replace(FASHION_MNIST, train=(), test=FASHION_MNIST.test[:1])
    assert read(only, find(only, folder)) == {only.test[0].name: contents[only.test[0].name]}


def test_cifar10_is_the_published_one(real_folder):
    images = assemble(
        CIFAR10, real(CIFAR10, real_folder, without=[f"data_batch_{k}.bin" for k in range(2, 6)])
    )
    assert images.train_x.shape == (10_000, 3, 32, 32)
    # Pixels of an image go together, so that 10,000 images are as many draws of its mean, of standard
    # deviation about 0.13: three standard errors are 0.004.
    x = images.train_x / 255
    assert x.mean(axis=(0, 2, 3)) == pytest.approx(np.array(CIFAR10.mean), abs=0.004)
    assert x.std(axis=(0, 2, 3)) == pytest.approx(np.array(CIFAR10.std), abs=0.004)
    # The first image of the first batch is a frog, of the test batch a cat.
    assert (images.train_y[0], images.test_y[0]) == (6, 3)
