"""ResNet-20 for small images (He et al., "Deep Residual Learning for Image Recognition", CVPR 2016, 4.2).

As in the paper but for the norms, which are GroupNorm. Shortcuts are the paper's option A: where a block
halves the image and doubles the channels, the identity takes every other pixel and zeros for the channels
that are new. They have no parameters, so nothing of them goes on the air.
"""

import torch
from torch import nn
from torch.nn.functional import pad, relu

from node.networks import group_norm
from protocol.learning import Model

STAGES = (16, 32, 64)
"""Channels; each stage but the first begins by halving the image."""
BLOCKS_PER_STAGE = 3


class ResidualBlock(nn.Module):
    """Two convolutions, to whose output the input is added; side is that of the output in pixels."""

    def __init__(self, model: Model, channels_in: int, channels_out: int, side: int, *, stride: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            *_convolution(model, channels_in, channels_out, side, stride=stride),
            nn.ReLU(),
            *_convolution(model, channels_out, channels_out, side, stride=1),
        )
        self._stride, self._new_channels = stride, channels_out - channels_in

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return relu(residual(x) + shortcut(x))."""
        shortcut = pad(x[:, :, :: self._stride, :: self._stride], (0, 0, 0, 0, 0, self._new_channels))
        return relu(self.residual(x) + shortcut)


def resnet20(model: Model, sample_shape: tuple[int, ...], num_classes: int) -> nn.Sequential:
    """Build 19 convolutions in three stages, the mean over pixels, and a linear layer."""
    channels, side, _ = sample_shape
    layers = [*_convolution(model, channels, STAGES[0], side, stride=1), nn.ReLU()]
    channels = STAGES[0]
    for out in STAGES:
        for block in range(BLOCKS_PER_STAGE):
            stride = 2 if block == 0 and out != channels else 1
            side = -(-side // stride)
            layers.append(ResidualBlock(model, channels, out, side, stride=stride))
            channels = out
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, num_classes))


def _convolution(
    model: Model, channels_in: int, channels_out: int, side: int, *, stride: int
) -> list[nn.Module]:
    """Return a 3x3 convolution and its norm; without a norm it has a bias of its own."""
    return [
        nn.Conv2d(channels_in, channels_out, 3, stride, padding=1, bias=model.norm == "none"),
        *group_norm(model, channels_out, values_per_channel=side**2),
    ]
