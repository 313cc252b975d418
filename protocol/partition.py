"""Split training samples over devices: (labels, seed) -> indices.

Every split is complete, disjoint and a pure function of its arguments. A request that cannot be met
raises BadInput that says why, instead of looping or leaving a device empty.
"""

import numpy as np
import numpy.typing as npt

from protocol.config import Data
from protocol.errors import BadInput
from protocol.streams import Purpose, stream

Indices = npt.NDArray[np.int64]
_MAX_DRAWS = 1000


def partition(labels: Indices, num_devices: int, data: Data, *, seed: int) -> list[Indices]:
    """Return each device's sorted sample indices; together they are all of labels, shape (num_samples,)."""
    needed = num_devices * data.min_samples_per_device
    if len(labels) < needed:
        raise BadInput(
            f"data: {len(labels)} training samples cannot give {num_devices} devices "
            f"{data.min_samples_per_device} each (data.min_samples_per_device); at most "
            f"{len(labels) // data.min_samples_per_device} devices fit"
        )
    rng = stream(seed, Purpose.PARTITION)
    match data.partition:
        case "iid":
            parts = np.array_split(rng.permutation(len(labels)), num_devices)
        case "shards":
            parts = _shards(labels, num_devices, data, rng)
        case "dirichlet" | "quantity":
            parts = _drawn_until_large_enough(labels, num_devices, data, rng)
    return [np.sort(part) for part in parts]


def _shards(labels: Indices, num_devices: int, data: Data, rng: np.random.Generator) -> list[Indices]:
    """Sort by label, cut into equal shards, deal shards at random (McMahan et al., AISTATS 2017)."""
    num_shards = num_devices * data.shards_per_device
    if (
        len(labels) < num_shards
        or len(labels) // num_shards * data.shards_per_device < data.min_samples_per_device
    ):
        raise BadInput(
            f"data.shards_per_device = {data.shards_per_device}: {len(labels)} training samples make no "
            f"{num_shards} shards that leave every device {data.min_samples_per_device} samples"
        )
    # Shuffle before the stable sort, so that which samples of a label share a shard is random.
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    shards = np.array_split(order, num_shards)
    dealt = rng.permutation(num_shards).reshape(num_devices, data.shards_per_device)
    return [np.concatenate([shards[k] for k in row]) for row in dealt]


def _drawn_until_large_enough(
    labels: Indices, num_devices: int, data: Data, rng: np.random.Generator
) -> list[Indices]:
    """Draw a Dirichlet split until the smallest device has enough samples."""
    split = _label_skew if data.partition == "dirichlet" else _quantity_skew
    best = 0
    for _ in range(_MAX_DRAWS):
        parts = split(labels, num_devices, data.dirichlet_alpha, rng)
        smallest = min(len(part) for part in parts)
        if smallest >= data.min_samples_per_device:
            return parts
        best = max(best, smallest)
    raise BadInput(
        f"data.dirichlet_alpha = {data.dirichlet_alpha:g}: in {_MAX_DRAWS} draws over {num_devices} devices "
        f"the smallest share never exceeded {best} samples; raise it, or lower data.min_samples_per_device "
        f"(now {data.min_samples_per_device})"
    )


def _label_skew(labels: Indices, num_devices: int, alpha: float, rng: np.random.Generator) -> list[Indices]:
    """Divide each label's samples over devices by its own Dirichlet draw (Hsu et al., arXiv 1909.06335)."""
    shares: list[list[Indices]] = [[] for _ in range(num_devices)]
    for label in np.unique(labels):
        samples = rng.permutation(np.flatnonzero(labels == label))
        cuts = np.cumsum(rng.dirichlet(np.full(num_devices, alpha)))[:-1] * len(samples)
        for share, piece in zip(shares, np.split(samples, np.rint(cuts).astype(np.int64)), strict=True):
            share.append(piece)
    return [np.concatenate(share) for share in shares]


def _quantity_skew(
    labels: Indices, num_devices: int, alpha: float, rng: np.random.Generator
) -> list[Indices]:
    """Divide all samples by one Dirichlet draw: unequal amounts, the same label mix."""
    cuts = np.cumsum(rng.dirichlet(np.full(num_devices, alpha)))[:-1] * len(labels)
    return list(np.split(rng.permutation(len(labels)), np.rint(cuts).astype(np.int64)))
