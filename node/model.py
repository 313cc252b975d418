"""A model as the one flat vector that it is.

Every parameter is a view of one contiguous float32 vector x: a local step moves x, mixing x moves the
model, and sending the model is sending x. There is no copy to keep in step.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from math import sqrt

import torch
from torch import nn

from node.networks import cnn, mlp
from node.resnet import resnet20
from node.vit import Positions, vit
from protocol.errors import BadInput
from protocol.learning import Model
from protocol.streams import Purpose, sub_seed

NETWORKS: dict[str, Callable[[Model, tuple[int, ...], int], nn.Sequential]] = {
    "cnn": cnn,
    "mlp": mlp,
    "resnet20": resnet20,
    "vit": vit,
}
POSITIONS_STD = 0.02
"""Of the positions that a vision transformer begins with."""


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

    def on(self, processor: torch.device) -> "FlatModel":
        """Return it with x on a processor: itself where it is there."""
        if self.x.device == processor:
            return self
        x = self.x.to(processor)
        _become_views_(self.module, x)
        return FlatModel(self.module, x)

    def state(self) -> dict[str, torch.Tensor]:
        """Return name -> parameter, as a checkpoint stores it."""
        return {name: p.detach().cpu().contiguous() for name, p in self.module.named_parameters()}


def build(model: Model, sample_shape: tuple[int, ...], num_classes: int, *, seed: int) -> FlatModel:
    """Build a model whose parameters all devices of an experiment start from alike.

    Raises BadInput if the model cannot take samples of this shape.
    """
    module = outline(model, sample_shape, num_classes)
    x = torch.zeros(sum(p.numel() for p in module.parameters()))
    _become_views_(module, x)
    _initialise_(module, torch.Generator().manual_seed(sub_seed(seed, Purpose.PARAMETERS)))
    return FlatModel(module, x)


def outline(model: Model, sample_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Build the network of a model in shapes only: nothing is allocated or drawn from a global generator.

    Raises BadInput as `build`.
    """
    if model.kind != "mlp" and len(sample_shape) != 3:
        raise BadInput(f"model.kind = {model.kind}: samples of shape {sample_shape} are no images")
    with torch.device("meta"):
        return NETWORKS[model.kind](model, sample_shape, num_classes)


def _become_views_(module: nn.Module, x: torch.Tensor) -> None:
    start = 0
    for layer in module.modules():
        own: OrderedDict[str, nn.Parameter] = OrderedDict(layer.named_parameters(recurse=False))
        for name, shape in ((name, p.shape) for name, p in own.items()):
            setattr(layer, name, nn.Parameter(x[start : start + shape.numel()].view(shape)))
            start += shape.numel()


def _initialise_(module: nn.Module, generator: torch.Generator) -> None:
    """Draw weights and biases uniformly in +-1/sqrt(fan_in), torch's own default; norms start as identity.

    Positions are normal with deviation POSITIONS_STD.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = 1 / sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        elif isinstance(layer, nn.GroupNorm | nn.LayerNorm):
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
        elif isinstance(layer, Positions):
            nn.init.normal_(layer.weight, std=POSITIONS_STD, generator=generator)
        else:
            assert not list(layer.parameters(recurse=False)), f"nobody said how a {layer} begins"
