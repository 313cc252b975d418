"""Architectures: what they compute, held against other implementations, and how many parameters they have."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, cross_entropy, group_norm

from node.model import POSITIONS_STD, build
from node.vit import Attention, Block, Positions
from protocol.learning import Model

VIT = Model(kind="vit", patch_size=4, width=24, depth=2, heads=3)
SHAPE = (3, 16, 12)
SMALL = (3, 8, 8)


def images(shape=SHAPE, num_images=5):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((num_images, *shape), np.float32))


def scramble_(x):
    """Make every parameter count, those too that begin as zeros and ones."""
    x.copy_(torch.from_numpy(np.random.default_rng(1).standard_normal(len(x), np.float32)) / 4)


# --- softmax regression and ResNet-20


def test_an_mlp_without_hidden_layers_is_softmax_regression():
    flat = build(Model(kind="mlp", hidden=()), (1, 28, 28), 10, seed=1)
    assert flat.x.numel() == 28 * 28 * 10 + 10
    x = images((1, 28, 28))
    weight, bias = flat.x[:7840].view(10, 784), flat.x[7840:]
    torch.testing.assert_close(flat.module(x), x.flatten(1) @ weight.T + bias)


def test_resnet20_is_as_large_as_in_the_paper():
    """0.27 million (table 6): convolutions 9 c_in c_out, two numbers a channel for norms, a linear layer."""
    widths = [3, 16, *[16] * 6, *[32] * 6, *[64] * 6]
    convolutions = sum(9 * a * b + 2 * b for a, b in pairwise(widths))
    flat = build(Model(kind="resnet20"), (3, 32, 32), 10, seed=1)
    assert flat.x.numel() == convolutions + 64 * 10 + 10 == 269_722
    layers = [layer for layer in flat.module.modules() if isinstance(layer, nn.Conv2d)]
    assert len(layers) == 19


@pytest.mark.parametrize("shape", [(3, 32, 32), (1, 28, 28), (1, 7, 7)])
def test_resnet20_is_the_one_of_the_paper(shape):
    """Written out by its state, block by block, with zeros for the channels that are new (option A)."""
    flat = build(Model(kind="resnet20"), shape, 10, seed=1)
    scramble_(flat.x)
    values = iter(flat.state().values())

    def convolve(x, stride):
        weight, scale, shift = (next(values) for _ in range(3))
        return group_norm(conv2d(x, weight, stride=stride, padding=1), 4, scale, shift)

    y = convolve(images(shape), 1).clamp(min=0)
    for block in range(9):
        stride = 2 if block in (3, 6) else 1
        inner = convolve(convolve(y, stride).clamp(min=0), 1)
        shortcut = torch.zeros_like(inner)
        shortcut[:, : y.shape[1]] = y[:, :, ::stride, ::stride]
        y = (inner + shortcut).clamp(min=0)
    weight, bias = next(values), next(values)
    expected = y.mean(dim=(2, 3)) @ weight.T + bias
    assert expected.std() > 0.1
    torch.testing.assert_close(flat.module(images(shape)), expected, rtol=1e-4, atol=1e-4)


# --- the vision transformer


def test_attention_is_that_of_torch():
    flat = build(VIT, SHAPE, 10, seed=1)
    scramble_(flat.x)
    ours = next(layer for layer in flat.module.modules() if isinstance(layer, Attention))
    theirs = nn.MultiheadAttention(24, 3, batch_first=True)
    theirs.load_state_dict(
        {
            "in_proj_weight": ours.query_key_value.weight,
            "in_proj_bias": ours.query_key_value.bias,
            "out_proj.weight": ours.out.weight,
            "out_proj.bias": ours.out.bias,
        }
    )
    tokens = images((12, 24))
    expected, _ = theirs(tokens, tokens, tokens)
    torch.testing.assert_close(ours(tokens), expected, rtol=1e-4, atol=1e-5)


def theirs_of(block):
    """Return torch's own pre-norm block with the same weights."""
    attention, (norm, wide, _, narrow) = block.attend[1], block.transform
    theirs = nn.TransformerEncoderLayer(
        24, 3, 96, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
    theirs.load_state_dict(
        {
            "self_attn.in_proj_weight": attention.query_key_value.weight,
            "self_attn.in_proj_bias": attention.query_key_value.bias,
            "self_attn.out_proj.weight": attention.out.weight,
            "self_attn.out_proj.bias": attention.out.bias,
            "linear1.weight": wide.weight,
            "linear1.bias": wide.bias,
            "linear2.weight": narrow.weight,
            "linear2.bias": narrow.bias,
            "norm1.weight": block.attend[0].weight,
            "norm1.bias": block.attend[0].bias,
            "norm2.weight": norm.weight,
            "norm2.bias": norm.bias,
        }
    )
    return theirs


def test_the_vit_is_that_of_torch_from_patches_to_classes():
    """Patches cut out by hand, torch's transformer with our weights, the mean of all tokens."""
    flat = build(VIT, SHAPE, 10, seed=1)
    scramble_(flat.x)
    patches, _, positions, *blocks, norm, _, head = flat.module
    assert [type(block) for block in blocks] == [Block, Block]
    x = images()
    cut = [x[:, :, i : i + 4, j : j + 4].flatten(1) for i in range(0, 16, 4) for j in range(0, 12, 4)]
    tokens = torch.stack(cut, dim=1) @ patches.weight.flatten(1).T + patches.bias + positions.weight
    for block in blocks:
        tokens = theirs_of(block)(tokens)
    tokens = (tokens - tokens.mean(-1, keepdim=True)) / (
        tokens.var(-1, keepdim=True, correction=0) + 1e-5
    ).sqrt()
    expected = (tokens * norm.weight + norm.bias).mean(dim=1) @ head.weight.T + head.bias
    assert expected.std() > 0.1
    torch.testing.assert_close(flat.module(x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("model", "shape", "num_tokens"),
    [
        (VIT, SHAPE, 12),
        (Model(kind="vit"), (3, 32, 32), 64),
        (Model(kind="vit", patch_size=7), (1, 28, 28), 16),
    ],
)
def test_the_vit_has_as_many_parameters_as_it_says(model, shape, num_tokens):
    d, patch = model.width, shape[0] * model.patch_size**2
    expected = (patch + 1) * d + num_tokens * d + model.depth * (12 * d**2 + 13 * d) + 2 * d + (d + 1) * 10
    assert build(model, shape, 10, seed=1).x.numel() == expected


def test_the_usual_vit_has_about_a_million_parameters():
    assert build(Model(kind="vit"), (3, 32, 32), 10, seed=1).x.numel() == 1_205_642


def test_places_matter_and_only_by_their_positions():
    flat = build(VIT, SHAPE, 10, seed=1)
    scramble_(flat.x)
    x = images()
    swapped = x.clone()
    swapped[:, :, :4, :4], swapped[:, :, 4:8, 4:8] = x[:, :, 4:8, 4:8], x[:, :, :4, :4]
    assert not torch.allclose(flat.module(x), flat.module(swapped), atol=1e-3)
    (positions,) = (layer for layer in flat.module if isinstance(layer, Positions))
    with torch.no_grad():
        positions.weight.zero_()
    torch.testing.assert_close(flat.module(x), flat.module(swapped), rtol=1e-4, atol=1e-4)


def test_positions_begin_as_small_noise_and_norms_as_identity():
    flat = build(Model(kind="vit"), (3, 32, 32), 10, seed=1)
    (positions,) = (layer for layer in flat.module if isinstance(layer, Positions))
    # 8,192 draws: their deviation is known to 0.8 %, three times that here.
    assert positions.weight.std().item() == pytest.approx(POSITIONS_STD, rel=0.024)
    norms = [layer for layer in flat.module.modules() if isinstance(layer, nn.LayerNorm)]
    assert len(norms) == 2 * 6 + 1
    assert all(bool((norm.weight == 1).all()) and not norm.bias.any() for norm in norms)


# --- both


@pytest.mark.parametrize("model", [VIT, Model(kind="resnet20")])
def test_gradients_reach_every_parameter(model):
    """All but what adds the same to every key, which no softmax sees, and what ReLUs cut off."""
    flat = build(model, SHAPE, 10, seed=1)
    cross_entropy(flat.module(images()), torch.arange(5)).backward()
    for name, parameter in flat.module.named_parameters():
        gradient = parameter.grad
        if name.endswith("query_key_value.bias"):
            keys = gradient[24:48]
            assert keys.abs().max() < 1e-6 * gradient.abs().max() + 1e-8
            gradient = torch.cat((gradient[:24], gradient[48:]))
        assert gradient.count_nonzero() > 0.8 * gradient.numel(), name


@pytest.mark.parametrize("model", [VIT, Model(kind="resnet20")])
def test_learns_and_repeats_to_the_last_bit(model):
    def train():
        flat = build(model, SMALL, 10, seed=1)
        optimiser = torch.optim.AdamW(flat.module.parameters(), lr=3e-3)
        losses = []
        for _ in range(6):
            loss = cross_entropy(flat.module(images(SMALL)), torch.arange(5))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        return losses, flat.x

    (losses, x), (_, again) = train(), train()
    assert losses[0] > 1.5
    assert losses[-1] < 0.7 * losses[0]
    assert torch.equal(x, again)
