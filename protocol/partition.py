"""Split training samples over devices: (labels, seed) -> indices.

Every split is complete, disjoint and a pure function of its arguments. A request that cannot be met
raises BadInput that says why, instead of looping or leaving a device empty.
"""

import numpy as np
import numpy.typing as npt

from protocol.errors import BadInput
from protocol.learning import Data
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
        case "dirichlet":  # each label by its own draw (Hsu et al., arXiv 1909.06335)
            groups = [np.flatnonzero(labels == label) for label in np.unique(labels)]
            parts = _divide(groups, num_devices, data, rng)
        case "quantity":  # all samples by one draw: unequal amounts, the same label mix
            parts = _divide([np.arange(len(labels))], num_devices, data, rng)
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


def _divide(groups: list[Indices], num_devices: int, data: Data, rng: np.random.Generator) -> list[Indices]:
    """Divide each group over devices by a Dirichlet draw, redrawn until every device has enough samples.

    Only sizes are redrawn; which samples of a group make up a share is random and drawn last.
    """
    ends = _share_ends(groups, num_devices, data, rng)
    shuffled = [rng.permutation(group) for group in groups]
    pieces = [np.split(group, end[:-1]) for group, end in zip(shuffled, ends, strict=True)]
    return [np.concatenate(share) for share in zip(*pieces, strict=True)]


def _share_ends(groups: list[Indices], num_devices: int, data: Data, rng: np.random.Generator) -> Indices:
    """Draw where each device's share of each group ends, shape (num_groups, num_devices)."""
    sizes = np.array([len(group) for group in groups])[:, np.newaxis]
    best = 0
    for _ in range(_MAX_DRAWS):
        shares = rng.dirichlet(np.full(num_devices, data.dirichlet_alpha), len(groups))
        ends: Indices = np.rint(np.cumsum(shares, axis=1) * sizes).astype(np.int64)
        smallest = int(np.diff(ends, prepend=0, axis=1).sum(axis=0).min())
        if smallest >= data.min_samples_per_device:
            return ends
        best = max(best, smallest)
    raise BadInput(
        f"data.dirichlet_alpha = {data.dirichlet_alpha:g}: in {_MAX_DRAWS} draws over {num_devices} devices "
        f"the smallest share never exceeded {best} samples; raise it, or lower data.min_samples_per_device "
        f"(now {data.min_samples_per_device})"
    )
