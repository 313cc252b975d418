"""The models, and the one flat vector that each of them is.

Every parameter is a view of one contiguous float32 vector x: a local step moves x, mixing x moves the
model, and sending the model is sending x. There is no copy to keep in step.
"""

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from math import prod, sqrt

import torch
from torch import nn

from protocol.config import Model
from protocol.errors import BadInput
from protocol.streams import Purpose, sub_seed

GROUPS = 4
MIN_VALUES_PER_GROUP = 4


@dataclass(frozen=True)
class FlatModel:
    """A module and the vector x, shape (num_parameters,), that its parameters are views of."""

    module: nn.Module
    x: torch.Tensor

    @property
    def schema_hash(self) -> str:
        """Fingerprint of parameter names and shapes: devices whose models differ must not mix."""
        schema = [(name, tuple(p.shape)) for name, p in self.module.named_parameters()]
        return hashlib.blake2b(repr(schema).encode(), digest_size=8).hexdigest()

    def state(self) -> dict[str, torch.Tensor]:
        """Return name -> parameter, as a checkpoint stores it."""
        return {name: p.detach().contiguous() for name, p in self.module.named_parameters()}


def build(model: Model, sample_shape: tuple[int, ...], num_classes: int, *, seed: int) -> FlatModel:
    """Build a model whose parameters all devices of an experiment start from alike.

    Raises BadInput if the model cannot take samples of this shape.
    """
    with torch.device("meta"):  # shapes only: nothing is allocated or drawn from a global generator
        module = (
            _cnn(model, sample_shape, num_classes)
            if model.kind == "cnn"
            else _mlp(model, sample_shape, num_classes)
        )
    x = torch.zeros(sum(p.numel() for p in module.parameters()))
    _become_views_(module, x)
    _initialise_(module, torch.Generator().manual_seed(sub_seed(seed, Purpose.PARAMETERS)))
    return FlatModel(module, x)


def _cnn(model: Model, sample_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    if len(sample_shape) != 3:
        raise BadInput(f"model.kind = cnn: samples of shape {sample_shape} are no images")
    channels, height, width = sample_shape
    layers: list[nn.Module] = []
    for block, out in enumerate(model.channels):
        layers += [
            nn.Conv2d(channels, out, 3, padding=1),
            *_norm(model, out, values_per_channel=height * width),
            nn.ReLU(),
        ]
        if block > 0:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = out
    if not height * width:
        raise BadInput(f"model.channels: {len(model.channels)} blocks halve the image away; use fewer")
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, num_classes))


def _mlp(model: Model, sample_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    width = prod(sample_shape)
    if model.norm == "group" and 1 in model.hidden:
        raise BadInput(
            "model.hidden: a layer of width 1 is normalised to zero; widen it, or set model.norm = none"
        )
    for out in model.hidden:
        layers += [nn.Linear(width, out), *_norm(model, out, values_per_channel=1), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


def _norm(model: Model, channels: int, *, values_per_channel: int) -> list[nn.Module]:
    if model.norm == "none":
        return []
    # A group of one value is normalised to nothing but zero, and one of two to nothing but a sign.
    wide = channels * values_per_channel >= GROUPS * MIN_VALUES_PER_GROUP
    return [nn.GroupNorm(GROUPS if wide and channels % GROUPS == 0 else 1, channels)]


def _become_views_(module: nn.Module, x: torch.Tensor) -> None:
    start = 0
    for layer in module.modules():
        own: OrderedDict[str, nn.Parameter] = OrderedDict(layer.named_parameters(recurse=False))
        for name, shape in ((name, p.shape) for name, p in own.items()):
            setattr(layer, name, nn.Parameter(x[start : start + shape.numel()].view(shape)))
            start += shape.numel()


def _initialise_(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases uniformly in +-1/sqrt(fan_in), torch's own default; norms start as identity."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        elif isinstance(layer, nn.GroupNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
