"""What a run would hold: model and data, for a coordinator that loads neither torch nor datasets."""

from math import prod

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from node.agent import build_model
from node.data import load, parts
from node.model import outline
from protocol.config import Experiment
from protocol.learning import Model
from protocol.messages import Description

FLOAT_BYTES, LABEL_BYTES = 4, 8


def describe(experiment: Experiment) -> Description:
    """Build the model and split the data once, and say what came out; raises BadInput where a run would."""
    dataset = load(experiment.data, experiment.seed)
    model = build_model(experiment)
    shares = parts(experiment.data, experiment.devices, seed=experiment.seed)
    largest = max(map(len, shares))
    return Description(
        num_parameters=model.x.numel(),
        num_train=len(dataset.train_y),
        num_test=len(dataset.test_y),
        samples_per_class=tuple(
            tuple(np.bincount(dataset.train_y[part], minlength=dataset.num_classes).tolist())
            for part in shares
        ),
        data_found=dataset.found,
        data_bytes=(largest + len(dataset.test_y)) * (FLOAT_BYTES * prod(dataset.sample_shape) + LABEL_BYTES),
        activation_bytes=activation_bytes(
            experiment.model,
            dataset.sample_shape,
            dataset.num_classes,
            batch_size=min(experiment.training.batch_size, largest),
        ),
        num_gpus=torch.cuda.device_count(),
    )


def activation_bytes(
    model: Model, sample_shape: tuple[int, ...], num_classes: int, *, batch_size: int
) -> int:
    """Count what one batch leaves behind for the backward pass, in shapes only: all that autograd saves.

    What two layers save counts twice, which makes up for the gradients on the way back. What does not grow
    with the batch, such as weights, does not count.
    """
    module = outline(model, sample_shape, num_classes)

    def saved_bytes(num_samples: int) -> int:
        saved = []

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            saved.append(tensor.numel() * tensor.element_size())
            return tensor

        with torch.device("meta"):
            x, y = torch.empty(num_samples, *sample_shape), torch.empty(num_samples, dtype=torch.int64)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            cross_entropy(module(x), y)
        return sum(saved)

    return saved_bytes(2 * batch_size) - saved_bytes(batch_size)
