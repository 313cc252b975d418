"""The models: one flat vector that is the model, the same on every device."""

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from node.model import build
from protocol.errors import BadInput
from protocol.learning import Model

IMAGE, VECTOR = (1, 8, 8), (20,)
ZOO = [
    (Model(), IMAGE),
    (Model(norm="none"), IMAGE),
    (Model(channels=(6,)), IMAGE),
    (Model(channels=(4, 8, 12, 16)), (3, 8, 9)),
    (Model(kind="mlp"), IMAGE),
    (Model(kind="mlp", hidden=(32, 10)), VECTOR),
    (Model(kind="mlp", hidden=(), norm="none"), VECTOR),
    (Model(kind="resnet20"), (3, 8, 8)),
    (Model(kind="resnet20", norm="none"), IMAGE),
    (Model(kind="vit", patch_size=2, width=8, depth=2, heads=2), (3, 8, 6)),
]
in_the_zoo = pytest.mark.parametrize(("model", "shape"), ZOO)


def samples_of(shape, num_samples=5):
    return torch.from_numpy(np.random.default_rng(0).standard_normal((num_samples, *shape), np.float32))


@in_the_zoo
def test_every_parameter_is_a_view_of_x(model, shape):
    flat = build(model, shape, 10, seed=1)
    parameters = list(flat.module.parameters())
    assert flat.x.shape == (sum(p.numel() for p in parameters),)
    assert flat.x.dtype == torch.float32
    start = 0
    for p in parameters:  # one behind the other, with no gap and no overlap
        assert p.is_leaf
        assert p.requires_grad
        assert p.data_ptr() == flat.x.data_ptr() + 4 * start
        start += p.numel()
    assert start == flat.x.numel()


@in_the_zoo
def test_moving_x_moves_the_model(model, shape):
    flat, samples = build(model, shape, 10, seed=1), samples_of(shape)
    with torch.no_grad():
        before = flat.module(samples)
        flat.x.zero_()
        assert not flat.module(samples).any()
    assert before.any()
    assert before.shape == (5, 10)
    assert not any(p.any() for p in flat.module.parameters())


@in_the_zoo
def test_a_step_of_the_optimiser_moves_x(model, shape):
    flat = build(model, shape, 10, seed=1)
    before, optimiser = flat.x.clone(), torch.optim.SGD(flat.module.parameters(), lr=0.5, momentum=0.9)
    cross_entropy(flat.module(samples_of(shape)), torch.arange(5)).backward()
    optimiser.step()
    gradients = torch.cat([p.grad.reshape(-1) for p in flat.module.parameters()])
    assert gradients.any()
    torch.testing.assert_close(flat.x, before - 0.5 * gradients)


@in_the_zoo
def test_the_seed_decides_where_devices_start(model, shape):
    first, again, other = (build(model, shape, 10, seed=seed).x for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_building_does_not_touch_the_global_generator():
    before = torch.get_rng_state()
    build(Model(), IMAGE, 10, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_starts_like_torch_would():
    """Uniform in +-1/sqrt(fan_in), weights and biases; norms are the identity."""
    flat = build(Model(channels=(64, 64)), IMAGE, 10, seed=3)
    for layer in flat.module:
        match layer:
            case nn.Conv2d() | nn.Linear():
                bound = layer.weight[0].numel() ** -0.5
                assert layer.weight.abs().max() <= bound
                assert layer.weight.abs().mean().item() == pytest.approx(bound / 2, rel=0.1)
                assert 0.5 * bound < layer.bias.abs().max() <= bound
            case nn.GroupNorm():
                assert bool((layer.weight == 1).all())
                assert not layer.bias.any()


def test_groupnorm_and_never_batchnorm():
    """BatchNorm has state that gossip would have to average."""
    for model, shape in ZOO:
        module = build(model, shape, 10, seed=1).module
        norms = [layer for layer in module.modules() if isinstance(layer, nn.GroupNorm)]
        num_layers = {"cnn": len(model.channels), "mlp": len(model.hidden), "resnet20": 19, "vit": 0}[
            model.kind
        ]
        assert len(norms) == (num_layers if model.norm == "group" else 0)
        assert not list(module.buffers())


def test_groups_only_where_they_divide_the_channels():
    module = build(Model(channels=(6, 8)), IMAGE, 10, seed=1).module
    assert [layer.num_groups for layer in module.modules() if isinstance(layer, nn.GroupNorm)] == [1, 4]


def test_a_narrow_layer_still_carries_its_input():
    x = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
    for width in (2, 4, 8, 16):
        module = build(Model(kind="mlp", hidden=(width,)), (16,), 10, seed=1).module
        assert module(x).std(dim=0).max() > 0.1
        assert module(x[:1]).isfinite().all()  # a batch of one sample
    with pytest.raises(BadInput, match="width 1 is normalised to zero"):
        build(Model(kind="mlp", hidden=(1,)), (16,), 10, seed=1)


def test_schema_hash_tells_shapes_apart_and_nothing_else():
    def schema(model, shape, num_classes=10, seed=1):
        return build(model, shape, num_classes, seed=seed).schema_hash

    hashes = [schema(model, shape) for model, shape in ZOO]
    assert len(set(hashes)) == len(ZOO)
    assert schema(Model(), IMAGE, num_classes=11) != schema(Model(), IMAGE)
    assert schema(Model(), IMAGE, seed=2) == schema(Model(), IMAGE)
    # The same number of parameters in another shape is another model.
    wide, tall = Model(kind="mlp", hidden=(6,), norm="none"), Model(kind="mlp", hidden=(3,), norm="none")
    assert build(wide, (2,), 1, seed=1).x.numel() == build(tall, (6,), 1, seed=1).x.numel() == 25
    assert schema(wide, (2,), 1) != schema(tall, (6,), 1)


@pytest.mark.parametrize(
    ("model", "shape", "named"),
    [
        (Model(), VECTOR, "model.kind"),
        (Model(), (8, 8), "model.kind"),
        (Model(kind="resnet20"), VECTOR, "model.kind = resnet20"),
        (Model(kind="vit"), VECTOR, "model.kind = vit"),
        (Model(channels=(4, 4, 4, 4, 4)), IMAGE, "model.channels"),
        (Model(channels=(4, 4)), (1, 1, 8), "model.channels"),
    ],
)
def test_an_impossible_model_is_bad_input_that_names_the_key(model, shape, named):
    with pytest.raises(BadInput, match=named):
        build(model, shape, 10, seed=1)


@in_the_zoo
def test_state_round_trips_through_safetensors(model, shape, tmp_path):
    flat = build(model, shape, 10, seed=1)
    save_file(flat.state(), tmp_path / "device-0.safetensors", metadata={"device": "0"})
    loaded = load_file(tmp_path / "device-0.safetensors")
    assert list(flat.state()) == [name for name, _ in flat.module.named_parameters()]
    other = build(model, shape, 10, seed=2)
    assert not torch.equal(other.x, flat.x)
    other.module.load_state_dict(loaded)  # strict: every parameter and nothing else
    assert torch.equal(other.x, flat.x)
