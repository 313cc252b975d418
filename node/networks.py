"""Plain stacks of layers: convolutional and fully connected networks."""

from math import prod

from torch import nn

from protocol.errors import BadInput
from protocol.learning import Model

GROUPS = 4
MIN_VALUES_PER_GROUP = 4


def cnn(model: Model, sample_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Build convolution blocks, each but the first of which halves the image, and a linear layer."""
    channels, height, width = sample_shape
    layers: list[nn.Module] = []
    for block, out in enumerate(model.channels):
        layers += [
            nn.Conv2d(channels, out, 3, padding=1),
            *group_norm(model, out, values_per_channel=height * width),
            nn.ReLU(),
        ]
        if block > 0:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        channels = out
    if not height * width:
        raise BadInput(f"model.channels: {len(model.channels)} blocks halve the image away; use fewer")
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * height * width, num_classes))


def mlp(model: Model, sample_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Build fully connected layers; without hidden ones, this is softmax regression."""
    layers: list[nn.Module] = [nn.Flatten()]
    width = prod(sample_shape)
    if model.norm == "group" and 1 in model.hidden:
        raise BadInput(
            "model.hidden: a layer of width 1 is normalised to zero; widen it, or set model.norm = none"
        )
    for out in model.hidden:
        layers += [nn.Linear(width, out), *group_norm(model, out, values_per_channel=1), nn.ReLU()]
        width = out
    return nn.Sequential(*layers, nn.Linear(width, num_classes))


def group_norm(model: Model, channels: int, *, values_per_channel: int) -> list[nn.Module]:
    """Return the norm that follows a layer, if the model has any."""
    if model.norm == "none":
        return []
    # A group of one value is normalised to nothing but zero, and one of two to nothing but a sign.
    wide = channels * values_per_channel >= GROUPS * MIN_VALUES_PER_GROUP
    return [nn.GroupNorm(GROUPS if wide and channels % GROUPS == 0 else 1, channels)]
