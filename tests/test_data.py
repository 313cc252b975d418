"""Datasets: what they hold, a test set that nobody trains on, shares that lose and repeat nothing."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from node.data import load, parts, share
from node.model import build
from node.train import Trainer
from protocol.config import Data, Model, Training
from protocol.errors import BadInput

DIGITS, SYNTHETIC = Data(), Data(dataset="synthetic")


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
    trainer = Trainer(model, share(data, 0, 1, seed=1), Training(local_rounds=60), seed=1, device=0)
    assert trainer.evaluate().accuracy < 0.45
    trainer.local_sgd()
    assert trainer.evaluate().accuracy > 0.75
