"""Datasets: what they hold, a test set that nobody trains on, shares that lose and repeat nothing."""

import numpy as np
import pytest
import torch
from image_files import small_cifar
from sklearn.datasets import load_digits

import node.data
from node.data import load, parts, share
from node.model import build
from node.train import Trainer
from protocol.errors import BadInput
from protocol.learning import Data, Model, Training

DIGITS, SYNTHETIC = Data(), Data(dataset="synthetic")
CIFAR, CIFAR_CONTENTS = small_cifar()


@pytest.fixture
def images(tmp_path, monkeypatch):
    """Put a small CIFAR-10 of 30 and 6 images where the real one would be; return its settings."""
    monkeypatch.setenv("HEARSAY_DATA", str(tmp_path))
    monkeypatch.setenv("HEARSAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(node.data, "IMAGE_SETS", {"cifar10": CIFAR})
    for name, data in CIFAR_CONTENTS.items():
        (tmp_path / name).write_bytes(data)
    load.cache_clear()
    yield Data(dataset="cifar10", min_samples_per_device=1)
    load.cache_clear()


def rows(x):
    """Turn samples into a multiset of bytes, so that they can be compared whatever their order."""
    return sorted(sample.tobytes() for sample in np.ascontiguousarray(x))


def test_digits_are_the_ones_of_scikit_learn_scaled_to_one():
    dataset = load(DIGITS, 1)
    assert (dataset.sample_shape, dataset.num_classes) == ((1, 8, 8), 10)
    assert dataset.train_x.dtype == dataset.test_x.dtype == np.float32
    x, y = (
        np.concatenate((dataset.train_x, dataset.test_x)),
        np.concatenate((dataset.train_y, dataset.test_y)),
    )
    assert (x.min(), x.max()) == (0, 1)
    pixels, labels = load_digits(return_X_y=True)
    assert rows((16 * x).reshape(-1, 64).astype(np.float64)) == rows(pixels)
    images = {pixel.tobytes(): label for pixel, label in zip(pixels, labels, strict=True)}
    assert [images[(16 * sample.astype(np.float64)).tobytes()] for sample in x] == y.tolist()


def test_synthetic_has_the_size_asked_for_and_even_labels():
    data = Data(dataset="synthetic", num_samples=300, num_features=7, num_classes=6, test_fraction=0.25)
    dataset = load(data, 1)
    assert dataset.train_x.shape == (225, 7)
    assert dataset.test_x.shape == (75, 7)
    assert dataset.sample_shape == (7,)
    assert dataset.train_x.dtype == np.float32
    labels = np.concatenate((dataset.train_y, dataset.test_y))
    assert np.bincount(labels).tolist() == [50] * 6


def test_synthetic_is_unit_noise_around_means_three_apart():
    data = Data(dataset="synthetic", num_samples=20_000, num_classes=4)
    dataset = load(data, 5)
    means = np.array([dataset.train_x[dataset.train_y == label].mean(axis=0) for label in range(4)])
    noise = dataset.train_x - means[dataset.train_y]
    assert noise.std() == pytest.approx(1, abs=0.01)
    distances = np.linalg.norm(means[:, np.newaxis] - means, axis=2)[np.triu_indices(4, 1)]
    assert distances.mean() == pytest.approx(3, abs=0.4)


@pytest.mark.parametrize("data", [DIGITS, SYNTHETIC], ids=["digits", "synthetic"])
@pytest.mark.parametrize("test_fraction", [0.2, 0.5])
def test_the_test_set_is_apart(data, test_fraction):
    dataset = load(data.model_copy(update={"test_fraction": test_fraction}), 1)
    num_test, num_train = len(dataset.test_y), len(dataset.train_y)
    assert num_test == round(test_fraction * (num_test + num_train))
    train, test = set(rows(dataset.train_x)), set(rows(dataset.test_x))
    assert len(train) == num_train  # no two samples are alike, so disjoint samples are disjoint indices
    assert not train & test


@pytest.mark.parametrize("data", [DIGITS, SYNTHETIC], ids=["digits", "synthetic"])
def test_the_seed_decides_the_split(data):
    first, other = load(data, 1), load(data, 2)
    load.cache_clear()
    again = load(data, 1)
    assert again is not first
    assert np.array_equal(again.train_x, first.train_x)
    assert np.array_equal(again.test_y, first.test_y)
    assert rows(other.test_x) != rows(first.test_x)


def test_is_loaded_once():
    """Forked devices then share one copy."""
    assert load(DIGITS, 1) is load(Data(), 1)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "shards", "quantity"])
def test_shares_are_the_training_set_and_nothing_twice(kind):
    data, num_devices = Data(partition=kind), 6
    dataset = load(data, 3)
    shares = [share(data, device, num_devices, seed=3) for device in range(num_devices)]
    assert rows(np.concatenate([mine.x for mine in shares])) == rows(dataset.train_x)
    assert np.array_equal(
        np.sort(np.concatenate([mine.y for mine in shares])),
        np.sort(dataset.train_y),
    )
    labels = {sample.tobytes(): label for sample, label in zip(dataset.train_x, dataset.train_y, strict=True)}
    for mine, part in zip(shares, parts(data, num_devices, seed=3), strict=True):
        assert len(mine.y) == len(part) >= data.min_samples_per_device
        assert [labels[sample.tobytes()] for sample in mine.x.numpy()] == mine.y.tolist()
        assert np.array_equal(mine.test_x, dataset.test_x)
        assert np.array_equal(mine.test_y, dataset.test_y)


def test_shares_repeat_per_seed():
    first, again, other = (share(DIGITS, 0, 4, seed=seed).x for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert first.shape != other.shape or not torch.equal(first, other)


def test_more_devices_than_samples_is_bad_input():
    with pytest.raises(BadInput, match="devices"):
        share(DIGITS, 0, 1000, seed=1)


def test_synthetic_is_learnable_in_a_few_steps():
    data = Data(dataset="synthetic", num_classes=4)
    model = build(Model(kind="mlp"), (data.num_features,), data.num_classes, seed=1)
    trainer = Trainer(model, share(data, 0, 1, seed=1), Training(), seed=1, device=0)
    assert trainer.evaluate().accuracy < 0.45
    trainer.local_sgd(60)
    assert trainer.evaluate().accuracy > 0.75


def test_images_come_with_their_own_test_set(images):
    dataset = load(images, 1)
    assert (dataset.train_x.shape, dataset.train_x.dtype) == ((30, 3, 32, 32), np.uint8)
    assert (dataset.test_x.shape, dataset.test_x.dtype) == ((6, 3, 32, 32), np.float32)
    assert (dataset.sample_shape, dataset.num_classes, dataset.found) == ((3, 32, 32), 10, "all of it")
    assert dataset.test_y.tolist() == list(CIFAR_CONTENTS["test_batch.bin"][::3073])
    other = load(images.model_copy(update={"test_fraction": 0.9}), 2)
    assert np.array_equal(other.train_x, dataset.train_x)
    assert np.array_equal(other.test_x, dataset.test_x)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "quantity"])
def test_shares_of_images_are_the_training_set_scaled_and_nothing_twice(images, kind):
    data = images.model_copy(update={"partition": kind})
    dataset = load(data, 3)
    shares = [share(data, device, 4, seed=3) for device in range(4)]
    assert rows(np.concatenate([mine.x for mine in shares])) == rows(CIFAR.normalise(dataset.train_x))
    for mine, part in zip(shares, parts(data, 4, seed=3), strict=True):
        assert np.array_equal(mine.y, dataset.train_y[part])
        assert mine.x.dtype == mine.test_x.dtype == torch.float32
        assert mine.test_x.data_ptr() == dataset.test_x.ctypes.data, "mapped, not copied"


def test_whole_sets_stay_where_they_are_mapped(images, monkeypatch):
    opened = node.data.open_images(CIFAR)
    monkeypatch.setattr(node.data, "open_images", lambda _: opened)
    dataset = load(images, 1)
    assert np.shares_memory(dataset.train_x, opened.train_x)
    assert np.shares_memory(dataset.test_x, opened.test_x)


@pytest.mark.parametrize("dataset", ["digits", "synthetic", "cifar10"])
def test_as_many_samples_as_wanted_at_most_drawn_by_the_seed(images, dataset):
    data = images.model_copy(update={"dataset": dataset})
    whole = load(data, 1)
    some = load(data.model_copy(update={"max_samples": 20, "max_test_samples": 4}), 1)
    assert (len(some.train_x), len(some.train_y), len(some.test_x), len(some.test_y)) == (20, 20, 4, 4)
    for part in ("train", "test"):
        x, y = getattr(whole, f"{part}_x"), getattr(whole, f"{part}_y")
        label = {sample.tobytes(): of for sample, of in zip(x, y, strict=True)}
        chosen = getattr(some, f"{part}_x")
        assert len(set(rows(chosen))) == len(chosen)
        assert [label[sample.tobytes()] for sample in chosen] == getattr(some, f"{part}_y").tolist()
    wanted = data.model_copy(update={"max_samples": 20})
    first, other = load(wanted, 1), load(wanted, 2)
    load.cache_clear()
    assert np.array_equal(load(wanted, 1).train_x, first.train_x)
    assert rows(other.train_x) != rows(first.train_x)
    more = load(data.model_copy(update={"max_samples": 10**6, "max_test_samples": 10**6}), 1)
    assert np.array_equal(more.train_x, whole.train_x)
    assert np.array_equal(more.test_y, whole.test_y)
