"""Local learning: what moves, from which samples, and how the test set is counted."""

import time

import numpy as np
import pytest
import torch
from torch import nn

import node.train
from node.data import Share, share
from node.model import FlatModel, build
from node.train import Trainer
from protocol.learning import Data, Model, Training

DATA = Data(dataset="synthetic", num_samples=500, num_features=12, num_classes=4)
MLP = Model(kind="mlp", hidden=(16,))


def trainer_of(training, *, seed=1, device=0, mine=None):
    """Return a trainer, and the model that it trains."""
    model = build(MLP, (DATA.num_features,), DATA.num_classes, seed=1)
    return Trainer(model, mine or share(DATA, 0, 1, seed=1), training, seed=seed, device=device), model


def numbered(num_samples):
    """Make samples that carry their own number, and a model that takes them."""
    x = torch.arange(num_samples, dtype=torch.float32).reshape(-1, 1)
    y = torch.arange(num_samples) % 2
    return Share(x, y, x, y)


def batches_seen(num_samples, batch_size, local_rounds, device=0):
    """Return which samples each step of one round trained on."""
    model, seen = build(Model(kind="mlp", hidden=()), (1,), 2, seed=1), []
    model.module.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].flatten().int().tolist()))
    training = Training(batch_size=batch_size, learning_rate=1e-3)
    Trainer(model, numbered(num_samples), training, seed=7, device=device).local_sgd(local_rounds)
    return seen


def test_moves_x_and_only_x():
    mine = share(DATA, 0, 1, seed=1)
    trainer, model = trainer_of(Training(), mine=mine)
    kept = [tensor.clone() for tensor in (mine.x, mine.y, mine.test_x, mine.test_y)]
    x, before = model.x, model.x.clone()
    generator = torch.get_rng_state()
    trainer.local_sgd(3)
    assert model.x is x
    assert not torch.equal(x, before)
    assert torch.equal(x, torch.cat([p.reshape(-1) for p in model.module.parameters()]))
    assert all(map(torch.equal, kept, (mine.x, mine.y, mine.test_x, mine.test_y)))
    assert torch.equal(generator, torch.get_rng_state())


def test_a_step_is_that_of_sgd_in_numpy():
    """Softmax regression: the gradient of the weights is (softmax(logits) - onehot(y))^T x / batch."""
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((6, 3), dtype=np.float32), np.arange(6) % 2
    mine = Share(*(torch.from_numpy(array) for array in (x, y, x, y)))
    model = build(Model(kind="mlp", hidden=()), (3,), 2, seed=1)
    weight, bias = (p.detach().numpy().astype(np.float64) for p in model.module.parameters())
    training = Training(batch_size=6, learning_rate=0.5, weight_decay=0.1)
    loss = Trainer(model, mine, training, seed=1, device=0).local_sgd(1).loss
    logits = x @ weight.T + bias
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    error = (softmax - np.eye(2)[y]) / 6
    moved = [p.detach().numpy() for p in model.module.parameters()]
    np.testing.assert_allclose(moved[0], weight - 0.5 * (error.T @ x + 0.1 * weight), atol=1e-6)
    np.testing.assert_allclose(moved[1], bias - 0.5 * (error.sum(axis=0) + 0.1 * bias), atol=1e-6)
    assert loss == pytest.approx(-np.log(softmax[np.arange(6), y]).mean(), rel=1e-6)


def test_steps_are_those_of_adamw_in_numpy():
    """Three of them, with the moments that the device keeps.

    x shrinks by lr * decay * x and moves by lr * mhat / (sqrt(vhat) + 1e-8) (Loshchilov, Hutter, ICLR 2019).
    """
    rng = np.random.default_rng(3)
    x, y = rng.standard_normal((6, 3), dtype=np.float32), np.arange(6) % 2
    mine = Share(*(torch.from_numpy(array) for array in (x, y, x, y)))
    model = build(Model(kind="mlp", hidden=()), (3,), 2, seed=1)
    lr, decay, (beta_1, beta_2) = 0.01, 0.1, (0.8, 0.95)
    training = Training(
        batch_size=6,
        optimiser="adamw",
        learning_rate=lr,
        weight_decay=decay,
        adamw_betas=(beta_1, beta_2),
    )
    trainer = Trainer(model, mine, training, seed=1, device=0)
    weight, bias = (p.detach().numpy().astype(np.float64) for p in model.module.parameters())
    theta, m, v = np.concatenate((weight.ravel(), bias)), np.zeros(8), np.zeros(8)
    for step in (1, 2, 3):
        trainer.local_sgd(1)
        logits = x @ theta[:6].reshape(2, 3).T + theta[6:]
        softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
        error = (softmax - np.eye(2)[y]) / 6
        gradient = np.concatenate(((error.T @ x).ravel(), error.sum(axis=0)))
        m = beta_1 * m + (1 - beta_1) * gradient
        v = beta_2 * v + (1 - beta_2) * gradient**2
        mhat, vhat = m / (1 - beta_1**step), v / (1 - beta_2**step)
        theta = theta - lr * decay * theta - lr * mhat / (np.sqrt(vhat) + 1e-8)
        np.testing.assert_allclose(model.x.numpy(), theta, atol=2e-6)


def test_moments_stay_when_mixing_moves_the_parameters():
    """Whatever the neighbours make of x, the optimiser goes on from what it knows."""
    training = Training(optimiser="adamw", learning_rate=0.01)
    trainer, model = trainer_of(training)
    trainer.local_sgd(1)
    states = [dict(state) for state in trainer._optimiser.state.values()]
    kept = [(state["exp_avg"].clone(), state["exp_avg_sq"].clone()) for state in states]
    model.x.mul_(0.5)
    for state, moments in zip(trainer._optimiser.state.values(), kept, strict=True):
        assert torch.equal(state["exp_avg"], moments[0])
        assert torch.equal(state["exp_avg_sq"], moments[1])
        assert state["exp_avg"].any()
    trainer.local_sgd(1)
    assert {int(state["step"]) for state in trainer._optimiser.state.values()} == {2}


def test_returns_the_mean_loss_of_its_steps_and_they_get_better():
    one, _ = trainer_of(Training())
    three, _ = trainer_of(Training())
    assert three.local_sgd(3).loss == pytest.approx(np.mean([one.local_sgd(1).loss for _ in range(3)]))
    many, _ = trainer_of(Training())
    assert many.local_sgd(30).loss > many.local_sgd(30).loss > 0


@pytest.mark.parametrize(("num_samples", "batch_size", "samples"), [(20, 4, 12), (5, 32, 15), (20, 20, 60)])
def test_counts_the_samples_that_it_computed_with(num_samples, batch_size, samples):
    """Of three rounds: what a device's modelled processor is charged for."""
    model = build(Model(kind="mlp", hidden=()), (1,), 2, seed=1)
    training = Training(batch_size=batch_size)
    assert Trainer(model, numbered(num_samples), training, seed=7, device=0).local_sgd(3).samples == samples


def test_counts_this_threads_processor_time(monkeypatch):
    """By the clock of the thread: what other devices compute meanwhile is theirs."""
    readings = iter([10.0, 10.75])
    monkeypatch.setattr(node.train, "thread_time", lambda: next(readings))
    trainer, _ = trainer_of(Training())
    assert trainer.local_sgd(2).processor_s == 0.75
    monkeypatch.undo()
    assert node.train.thread_time is time.thread_time
    assert trainer_of(Training())[0].local_sgd(2).processor_s > 0


def test_repeats_per_seed_and_differs_between_devices():
    training = Training()
    moved = {}
    for name, seed, device in [("first", 1, 0), ("again", 1, 0), ("seed", 2, 0), ("device", 1, 1)]:
        trainer, model = trainer_of(training, seed=seed, device=device)
        trainer.local_sgd(2)
        moved[name] = model.x
    assert torch.equal(moved["first"], moved["again"])
    assert not torch.equal(moved["first"], moved["seed"])
    assert not torch.equal(moved["first"], moved["device"])


def test_batches_walk_through_the_samples_in_a_fresh_order_per_epoch():
    seen = batches_seen(num_samples=10, batch_size=3, local_rounds=6)
    assert [len(batch) for batch in seen] == [3] * 6  # the short rest is left out
    epochs = [[number for batch in part for number in batch] for part in (seen[:3], seen[3:])]
    assert all(len(set(epoch)) == 9 for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert seen == batches_seen(num_samples=10, batch_size=3, local_rounds=6)
    assert seen != batches_seen(num_samples=10, batch_size=3, local_rounds=6, device=1)


def test_an_epoch_goes_on_from_round_to_round():
    model, seen = build(Model(kind="mlp", hidden=()), (1,), 2, seed=1), []
    model.module.register_forward_pre_hook(lambda _, inputs: seen.extend(inputs[0].flatten().int().tolist()))
    trainer = Trainer(model, numbered(12), Training(batch_size=4), seed=7, device=0)
    for _ in range(3):
        trainer.local_sgd(1)
    assert sorted(seen) == list(range(12))


def test_a_device_with_fewer_samples_than_a_batch_uses_all_it_has():
    seen = batches_seen(num_samples=5, batch_size=32, local_rounds=3)
    assert [sorted(batch) for batch in seen] == [list(range(5))] * 3


def test_without_local_rounds_nothing_moves_and_there_is_no_loss():
    trainer, model = trainer_of(Training())
    before = model.x.clone()
    trained = trainer.local_sgd(0)
    assert (trained.loss, trained.samples) == (None, 0)
    assert torch.equal(model.x, before)


@pytest.mark.parametrize("batch", [7, 100, 1024])
def test_evaluate_counts_as_numpy_does(batch, monkeypatch):
    """100 test samples: in many batches with a rest, in exactly one, in one that is too large."""
    monkeypatch.setattr(node.train, "EVALUATION_BATCH", batch)
    trainer, model = trainer_of(Training())
    trainer.local_sgd(5)
    before = model.x.clone()
    evaluation = trainer.evaluate()
    mine = share(DATA, 0, 1, seed=1)
    with torch.no_grad():
        logits = model.module(mine.test_x).numpy().astype(np.float64)
    y = mine.test_y.numpy()
    assert len(y) == 100
    accuracy = np.mean(logits.argmax(axis=1) == y)
    assert 0 < accuracy < 1
    assert evaluation.accuracy == accuracy
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    assert evaluation.loss == pytest.approx(-log_softmax[np.arange(100), y].mean(), rel=1e-5)
    assert torch.equal(model.x, before)


def test_evaluating_leaves_no_graph_behind():
    trainer, model = trainer_of(Training(local_rounds=0))
    trainer.evaluate()
    assert all(p.grad is None for p in model.module.parameters())


def test_trains_whatever_module_it_is_given():
    """Momentum stays with the device: the second step of a constant gradient is the longer one."""
    x = torch.zeros(2)
    module = nn.Linear(1, 2, bias=False)
    module.weight = nn.Parameter(x.view(2, 1))
    mine = Share(*(torch.tensor(values) for values in ([[1e-3]], [0], [[1e-3]], [0])))
    training = Training(momentum=0.9, learning_rate=0.1)
    trainer = Trainer(FlatModel(module, x), mine, training, seed=1, device=0)
    trainer.local_sgd(1)
    first = x.clone()
    trainer.local_sgd(1)
    torch.testing.assert_close(x - first, 1.9 * first, rtol=1e-3, atol=0)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_normalised_updates_count_each_step_once_however_many_there_are(momentum):
    """On a constant gradient g every device moves by -lr ||a(tbar)||_1 g, whatever its own tau."""
    moved = {}
    for tau, mean in [(1, 4.0), (4, 4.0), (10, 4.0), (10, 0.0), (0, 4.0)]:
        x = torch.zeros(2)
        module = nn.Linear(1, 2, bias=False)
        module.weight = nn.Parameter(x.view(2, 1))
        mine = Share(*(torch.tensor(values) for values in ([[1e-3]], [0], [[1e-3]], [0])))
        training = Training(local_rounds="adaptive", momentum=momentum, learning_rate=0.1)
        trainer = Trainer(FlatModel(module, x), mine, training, seed=1, device=0)
        for _ in range(2):  # the second round must not inherit the first one's momentum
            before = x.clone()
            trainer.local_sgd(tau, mean)
        moved[tau, mean] = float((x - before)[0])
    steps = np.array([sum(momentum**k for k in range(t)) for t in range(1, 11)])  # a step's displacement
    g = moved[4, 4.0] / steps[:4].sum()
    assert moved[1, 4.0] == pytest.approx(moved[4, 4.0], rel=1e-3)
    assert moved[10, 4.0] == pytest.approx(moved[4, 4.0], rel=1e-3)
    if not momentum:
        assert moved[10, 0.0] == pytest.approx(10 * g, rel=1e-3)  # the mean is not known: plain
    assert moved[0, 4.0] == 0


def test_plain_averaging_leaves_every_step_as_it_is():
    plain = Training(local_rounds="adaptive", averaging="plain")
    (trainer, model), (other, fixed) = trainer_of(plain), trainer_of(Training())
    trainer.local_sgd(3, 7.0)
    other.local_sgd(3, 7.0)
    assert torch.equal(model.x, fixed.x)
