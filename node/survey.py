"""What a device of an experiment would find on this machine, and what it would hold; nothing is written."""

from dataclasses import dataclass
from math import prod

import torch
from torch.autograd.graph import saved_tensors_hooks
from torch.nn.functional import cross_entropy

from node.data import load, parts
from node.images.catalogue import IMAGE_SETS, NUM_CLASSES, ImageSet, Part
from node.images.fetch import wanted
from node.images.files import data_folder, find, missing, read
from node.images.store import what_is_unpacked
from node.model import FlatModel, build
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.messages import Survey

FLOAT32_BYTES = 4


@dataclass(frozen=True)
class _Files:
    """What was found of a set of files; all empty for a data set that is made."""

    folder: str = ""
    found: str = ""
    missing: tuple[str, ...] = ()
    num_bytes: int = 0
    fault: str = ""
    unpacked: bool = True
    """Whether devices need only load it."""


@dataclass(frozen=True)
class _Samples:
    shape: tuple[int, ...]
    num_classes: int
    of_each: tuple[int, ...]
    num_test: int


def survey(experiment: Experiment) -> Survey:
    """Look at data, model and torch; raises BadInput for what would be refused on any machine."""
    data = experiment.data
    files = _look_for(IMAGE_SETS[data.dataset]) if data.is_files else _Files()
    samples = _samples(experiment) if files.unpacked else _expected_samples(experiment)
    model = build(experiment.model, samples.shape, samples.num_classes, seed=experiment.seed)
    return Survey(
        num_parameters=model.x.numel(),
        sample_bytes=FLOAT32_BYTES * prod(samples.shape),
        activation_bytes=activation_bytes(model, samples.shape),
        num_samples=samples.of_each,
        num_test=samples.num_test,
        data_folder=files.folder,
        data_found=files.found,
        data_missing=files.missing,
        data_bytes=files.num_bytes,
        data_fault=files.fault,
        torch=str(torch.__version__),
        torch_cuda=torch.version.cuda or "",
        num_gpus=torch.cuda.device_count() if torch.cuda.is_available() else 0,
    )


def activation_bytes(model: FlatModel, sample_shape: tuple[int, ...]) -> int:
    """Count what autograd keeps of one sample from the forward to the backward pass, parameters left out."""
    own, kept = model.x.untyped_storage().data_ptr(), dict[int, torch.UntypedStorage]()

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() != own:
            kept[storage.data_ptr()] = storage  # held, so that no address comes twice
        return tensor

    with saved_tensors_hooks(keep, lambda tensor: tensor):
        logits = model.module(torch.zeros(1, *sample_shape))
        cross_entropy(logits, torch.zeros(1, dtype=torch.int64))
    return sum(storage.nbytes() for storage in kept.values())


def _samples(experiment: Experiment) -> _Samples:
    dataset = load(experiment.data, experiment.seed)
    own = parts(experiment.data, experiment.devices, seed=experiment.seed)
    of_each = tuple(len(part) for part in own)
    return _Samples(dataset.sample_shape, dataset.num_classes, of_each, len(dataset.test_y))


def _expected_samples(experiment: Experiment) -> _Samples:
    """Say what files that are not unpacked come to: nearly, since headers and labels count as pixels."""
    data, devices = experiment.data, experiment.devices
    image_set = IMAGE_SETS[data.dataset]
    files = find(image_set, data_folder())
    there = image_set.parts if missing(image_set, files) else [p for p in image_set.parts if p.name in files]
    num_train = _num_samples(image_set, [part for part in there if part in image_set.train])
    num_test = _num_samples(image_set, [part for part in there if part in image_set.test])
    num_train = min(num_train, data.max_samples or num_train)
    num_test = min(num_test, data.max_test_samples or num_test)
    return _Samples(image_set.sample_shape, NUM_CLASSES, (-(-num_train // devices),) * devices, num_test)


def _num_samples(image_set: ImageSet, parts: list[Part]) -> int:
    return sum(part.num_bytes for part in parts) // prod(image_set.sample_shape)


def _look_for(image_set: ImageSet) -> _Files:
    """Check the files of a set as a run would, but keep nothing of them."""
    folder = data_folder()
    files = find(image_set, folder)
    num_bytes = sum(part.num_bytes for part in image_set.parts)
    if missing(image_set, files):
        urls = tuple(image_set.url + name for name in wanted(image_set, folder))
        return _Files(str(folder), missing=urls, num_bytes=num_bytes, unpacked=False)
    found = what_is_unpacked(image_set, files)
    if found is not None:
        return _Files(str(folder), found, num_bytes=num_bytes)
    try:
        read(image_set, files)
    except BadInput as error:
        return _Files(str(folder), num_bytes=num_bytes, fault=str(error), unpacked=False)
    names = ", ".join(sorted({file.name for file in files.values()}))
    return _Files(str(folder), names, num_bytes=num_bytes, unpacked=False)
