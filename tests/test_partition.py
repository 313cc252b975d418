"""Partitions: every sample to exactly one device, as skewed as asked, or a reason why not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.errors import BadInput
from protocol.learning import Data
from protocol.partition import partition

fixed = settings(derandomize=True, deadline=None)

KINDS = ("iid", "dirichlet", "shards", "quantity")
LABELS = np.random.default_rng(1).integers(0, 10, size=1438)

data = st.builds(
    Data,
    partition=st.sampled_from(KINDS),
    dirichlet_alpha=st.floats(0.05, 100),
    shards_per_device=st.integers(1, 4),
    min_samples_per_device=st.integers(1, 20),
)
all_labels = st.builds(
    lambda seed, num_samples, num_classes: np.random.default_rng(seed).integers(0, num_classes, num_samples),
    st.integers(0, 2**32),
    st.integers(1, 600),
    st.integers(1, 12),
)


def label_skew(parts, labels):
    """Mean total variation distance between a device's label shares and those of all samples."""
    everywhere = np.bincount(labels, minlength=10) / len(labels)
    shares = [np.bincount(labels[part], minlength=10) / len(part) for part in parts]
    return np.mean([np.abs(share - everywhere).sum() / 2 for share in shares])


@fixed
@given(all_labels, st.integers(1, 20), data, st.integers(0, 2**63 - 1))
def test_complete_disjoint_large_enough_and_repeatable_or_refused(labels, num_devices, data, seed):
    try:
        parts, refusal = partition(labels, num_devices, data, seed=seed), ""
    except BadInput as error:
        parts, refusal = [], str(error)
    if not parts:
        assert refusal.startswith("data")
        if len(labels) >= num_devices * data.min_samples_per_device:
            assert data.partition != "iid"  # an even split of enough samples is always possible
        return
    assert len(parts) == num_devices
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(labels)))
    assert min(len(part) for part in parts) >= data.min_samples_per_device
    assert all(np.all(np.diff(part) > 0) for part in parts)
    again = partition(labels, num_devices, data, seed=seed)
    assert [part.tolist() for part in again] == [part.tolist() for part in parts]


@pytest.mark.parametrize("kind", KINDS)
def test_another_seed_splits_otherwise(kind):
    one, two = (partition(LABELS, 8, Data(partition=kind), seed=seed) for seed in (1, 2))
    assert [part.tolist() for part in one] != [part.tolist() for part in two]


def test_iid_is_even_and_mixes_labels():
    parts = partition(LABELS, 8, Data(partition="iid"), seed=1)
    assert {len(part) for part in parts} <= {1438 // 8, 1438 // 8 + 1}
    assert label_skew(parts, LABELS) < 0.15


@pytest.mark.parametrize("kind", ["dirichlet", "quantity"])
def test_smaller_alpha_is_more_uneven(kind):
    """Averaged over seeds, each step down in alpha raises the skew of labels, or of sizes, clearly."""
    alphas, seeds = (100.0, 10.0, 1.0, 0.3, 0.1), range(20)

    def skew(alpha):
        split = Data(partition=kind, dirichlet_alpha=alpha, min_samples_per_device=1)
        splits = [partition(LABELS, 6, split, seed=seed) for seed in seeds]
        if kind == "dirichlet":
            return np.mean([label_skew(parts, LABELS) for parts in splits])
        return np.mean([np.std([len(part) for part in parts]) / (1438 / 6) for parts in splits])

    skews = [skew(alpha) for alpha in alphas]
    assert skews[0] < 0.15
    assert np.all(np.diff(skews) > 0.02)


def test_dirichlet_shares_have_the_moments_of_a_dirichlet():
    """Var[share] = (1/n)(1 - 1/n) / (n alpha + 1) for n devices; 400 labels, each its own draw, say so."""
    num_devices, alpha, per_label = 5, 0.7, 200
    labels = np.repeat(np.arange(400), per_label)
    parts = partition(labels, num_devices, Data(partition="dirichlet", dirichlet_alpha=alpha), seed=3)
    shares = np.array([np.bincount(labels[part], minlength=400) for part in parts]) / per_label
    variance = (1 / num_devices) * (1 - 1 / num_devices) / (num_devices * alpha + 1)
    assert shares.mean() == pytest.approx(1 / num_devices)
    assert shares.var() == pytest.approx(variance, rel=0.1)


def test_quantity_skew_keeps_the_label_mix():
    split = Data(partition="quantity", dirichlet_alpha=1.0, min_samples_per_device=60)
    parts = partition(LABELS, 6, split, seed=1)
    assert max(len(part) for part in parts) > 2 * min(len(part) for part in parts)
    assert label_skew(parts, LABELS) < 0.15


@pytest.mark.parametrize("shards_per_device", [1, 2])
def test_shards_give_a_device_few_labels(shards_per_device):
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(10), 100))
    split = Data(partition="shards", shards_per_device=shards_per_device)
    parts = partition(labels, 10, split, seed=1)
    # A shard of 100 or 50 samples cut from 10 sorted runs of 100 lies within one label.
    assert all(len(np.unique(labels[part])) <= shards_per_device for part in parts)
    assert {len(part) for part in parts} == {100}
    dealt = [partition(labels, 10, split, seed=seed)[0] for seed in range(5)]
    assert len({tuple(np.unique(labels[part])) for part in dealt}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_which_samples_of_a_label_go_where_is_random(kind):
    """Of one label in file order, each share must reach over the whole file, not be a run of it."""
    parts = partition(np.zeros(1000, dtype=np.int64), 5, Data(partition=kind, dirichlet_alpha=5), seed=1)
    assert min(part[-1] - part[0] for part in parts) > 800


def test_min_samples_per_device_is_honoured_by_redrawing():
    loose = Data(partition="dirichlet", dirichlet_alpha=0.1, min_samples_per_device=1)
    strict = Data(partition="dirichlet", dirichlet_alpha=0.1, min_samples_per_device=60)
    smallest = [
        [min(map(len, partition(LABELS, 8, split, seed=seed))) for seed in range(10)]
        for split in (loose, strict)
    ]
    assert min(smallest[0]) < 60 <= min(smallest[1])


@pytest.mark.parametrize("kind", KINDS)
def test_more_devices_than_samples_says_how_many_fit(kind):
    with pytest.raises(BadInput, match=r"^data: 1438 training samples .* 200 devices 8 each .* at most 179 "):
        partition(LABELS, 200, Data(partition=kind), seed=1)


def test_too_many_shards_says_so():
    split = Data(partition="shards", shards_per_device=1000)
    with pytest.raises(
        BadInput, match=r"^data\.shards_per_device = 1000: 1438 training samples make no 8000"
    ):
        partition(LABELS, 8, split, seed=1)


def test_unlikely_split_gives_up_and_says_what_to_change():
    """Only sizes are redrawn: a thousand draws over a million samples end well before the time-out."""
    split = Data(partition="dirichlet", dirichlet_alpha=0.01, min_samples_per_device=5000)
    labels = np.arange(1_000_000) % 10
    with pytest.raises(BadInput, match=r"^data\.dirichlet_alpha = 0\.01: in 1000 draws .*raise it, or lower"):
        partition(labels, 150, split, seed=1)
