"""Pilot rounds: what a device measures, what it costs, and what constants come of it."""

import json

import numpy as np
import pytest
import torch
from conftest import COMPUTE_AIR_S
from scipy.stats import norm

from coordinator.interrupt import Interrupt
from coordinator.planning.pilots import pilot_round, with_constants_from, with_pilots
from node.data import Share, share
from node.model import build
from node.train import Trainer, sketch
from protocol.config import Experiment
from protocol.errors import BadInput, Interrupted
from protocol.experiment_file import load as load_experiment
from protocol.learning import Data, Model, Training
from protocol.messages import SKETCH_SIZE
from protocol.theory.pilots import Pilots, variance_of_two

N = 4
DIGITS = Data(dataset="digits", partition="dirichlet", dirichlet_alpha=0.5)
SOFTMAX = Model(kind="mlp", hidden=())


def shares():
    return [share(DIGITS, device, N, seed=1) for device in range(N)]


def trainer_of(mine, *, device=0, batch_size=32, learning_rate=0.1):
    model = build(SOFTMAX, tuple(mine.x.shape[1:]), 10, seed=1)
    training = Training(batch_size=batch_size, learning_rate=learning_rate)
    return Trainer(model, mine, training, seed=1, device=device), model


def gradients(mine, x):
    """Return the gradient of every sample by itself, shape (num_samples, num_values), in double precision."""
    z = np.hstack([mine.x.reshape(len(mine.y), -1).numpy().astype(np.float64), np.ones((len(mine.y), 1))])
    weights = np.hstack([x[:640].reshape(10, 64), x[640:, None]]).astype(np.float64)
    logits = z @ weights.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    p[np.arange(len(mine.y)), mine.y.numpy()] -= 1
    each = p[:, :, None] * z[:, None, :]
    return np.concatenate([each[:, :, :64].reshape(len(z), -1), each[:, :, 64]], axis=1), z


def test_a_pilot_changes_nothing_that_training_sees():
    [mine, *_] = shares()
    (one, x), (other, y) = trainer_of(mine), trainer_of(mine)
    measured = one.pilot(0)
    assert torch.equal(x.x, y.x)
    assert measured.took.samples == 3 * 32
    assert one.local_sgd(3).loss == other.local_sgd(3).loss
    assert torch.equal(x.x, y.x)


def test_smoothness_stays_below_its_closed_form():
    """With all samples in a batch the secant is that of F_i: at most lambda_max(mean z z') / 2 (Boehning)."""
    for mine in shares():
        trainer, model = trainer_of(mine, batch_size=10_000)
        _, z = gradients(mine, model.x.numpy())
        largest = np.linalg.eigvalsh(z.T @ z / len(z))[-1] / 2
        secants = []
        for round_ in range(5):
            pilot = trainer.pilot(round_).pilot
            secants.append(pilot.secant)
            assert pilot.difference_norm_sq < 1e-10  # twice the same batch
            trainer.local_sgd(20)
        assert 0.04 * largest < max(secants) < largest


def test_the_secant_of_a_quadratic_is_its_curvature():
    """Two classes and one pixel at the logit 0: the loss is a parabola up to fourth order."""
    x = torch.full((8, 1), 0.7)
    mine = Share(x, torch.arange(8) % 2, x, torch.arange(8) % 2)
    model = build(SOFTMAX, (1,), 2, seed=1)
    model.x.zero_()
    model.x[0] = 0.01  # nobody is quite right, so that there is a gradient
    trainer = Trainer(model, mine, Training(batch_size=8, learning_rate=1e-2), seed=1, device=0)
    # Along (1, -1) the Hessian (diag(p) - p p') x (z z') has the eigenvalue 1/2 ||z||^2.
    assert trainer.pilot(0).pilot.secant == pytest.approx((0.7**2 + 1) / 2, rel=1e-3)


def test_variance_and_loss_are_those_of_independent_minibatches():
    """Of b out of n samples without replacement: s^2 / b (n - b) / (n - 1)."""
    [mine, *_] = shares()
    trainer, model = trainer_of(mine)
    each, _ = gradients(mine, model.x.numpy())
    n, mean = len(each), each.mean(axis=0)
    expected = ((each - mean) ** 2).sum(axis=1).mean() / 32 * (n - 32) / (n - 1)
    found = np.array([trainer.pilot(round_).pilot.difference_norm_sq for round_ in range(600)]) / 2
    width = norm.isf(0.005) * found.std() / np.sqrt(len(found))
    assert abs(found.mean() - expected) < width < 0.1 * expected


def test_sketches_are_linear_the_same_everywhere_and_true_in_the_mean():
    rng = np.random.default_rng(3)
    one, other = rng.standard_normal((2, 5000), dtype=np.float32)
    together = np.array(sketch(one + other, 1, 0))
    assert together == pytest.approx(np.array(sketch(one, 1, 0)) + np.array(sketch(other, 1, 0)), abs=1e-4)
    assert sketch(one, 1, 0) == sketch(one, 1, 0) != sketch(one, 1, 1)
    norms = np.array([(np.array(sketch(one, 1, round_)) ** 2).sum() for round_ in range(400)])
    true = float((one.astype(np.float64) ** 2).sum())
    width = norm.isf(0.005) * norms.std() / np.sqrt(len(norms))
    assert abs(norms.mean() - true) < width
    assert norms.std() < 1.2 * np.sqrt(2 / SKETCH_SIZE) * true


def test_heterogeneity_and_mean_gradient_come_of_sketches():
    """At one model, over 400 pilots: within 99 % intervals of both."""
    everybody = [(mine, *trainer_of(mine, device=device)) for device, mine in enumerate(shares())]
    true = np.array([gradients(mine, model.x.numpy())[0].mean(axis=0) for mine, _, model in everybody])
    mean = true.mean(axis=0)
    singles = [
        Pilots().add(pilot_round([trainer.pilot(round_).pilot for _, trainer, _ in everybody]))
        for round_ in range(400)
    ]
    for name, expected in (
        ("sum_heterogeneity", ((true - mean) ** 2).sum(axis=1).mean()),
        ("sum_mean_gradient_sq", (mean**2).sum()),
    ):
        values = np.array([getattr(single, name) for single in singles])
        width = norm.isf(0.005 / 2) * values.std() / np.sqrt(len(values))
        assert abs(values.mean() - expected) < width < 0.1 * expected


def test_no_gradient_has_no_secant():
    x = torch.zeros((8, 1))
    mine = Share(x, torch.arange(8) % 2, x, torch.arange(8) % 2)
    model = build(SOFTMAX, (1,), 2, seed=1)
    model.x.zero_()
    pilot = Trainer(model, mine, Training(batch_size=8), seed=1, device=0).pilot(0).pilot
    assert (pilot.secant, pilot.difference_norm_sq) == (None, 0.0)
    assert variance_of_two(pilot.difference_norm_sq) == 0


def test_budgets_and_pilots_exclude_each_other(small):
    with pytest.raises(
        BadInput, match=r"training.pilot_rounds = 2: what they cost is in no plan, so budget.j"
    ):
        load_experiment(small, ("training.pilot_rounds=2", "budget.joules=9"))


@pytest.mark.processes
def test_a_run_measures_in_its_first_rounds_and_pays_for_it(shell, small, whole_run):
    run = whole_run("training.pilot_rounds=2")
    for report in run.events("report"):
        measures = report["round"] < 2
        assert (report["pilot"] is not None) == measures
        expected_s = COMPUTE_AIR_S * (4 if measures else 1)
        assert report["spent"]["compute_air_s"] == pytest.approx(expected_s, rel=1e-12)
        assert report["spent"]["compute_j"] == pytest.approx(expected_s / COMPUTE_AIR_S * 6.4e-3, rel=1e-12)
    same = whole_run()
    losses = [[report["loss"] for report in one.events("report")] for one in (run, same)]
    assert sorted(losses[0]) == sorted(losses[1])
    code, stdout, stderr = shell("plan", small, "--from", run.out, "--json")
    assert code == 0, stderr
    theory = json.loads(stdout)["theory"]
    assert theory["constants"]["source"] == str(run.out)
    assert theory["constants"]["missing"] == []
    pilots = Pilots()
    told = [report["pilot"] for report in run.events("report") if report["pilot"]]
    largest = max(pilot["secant"] for pilot in told)
    assert theory["constants"]["smoothness"] == largest
    assert theory["bounds"] is not None
    assert pilots.num_rounds == 0


@pytest.mark.processes
def test_runs_that_cannot_tell_are_refused(shell, small, whole_run, tmp_path):
    for run, settings, fault in (
        (whole_run().out, (), "its devices measured no gradients; run it with training.pilot_rounds = 5"),
        (
            whole_run("training.pilot_rounds=2").out,
            ("--set", "model.hidden=[8]"),
            "is of another task, model differs; expected the same data, model, devices",
        ),
        (tmp_path / "nothing", (), "not the folder of a run"),
    ):
        code, stdout, stderr = shell("plan", small, "--from", run, *settings)
        assert (code, stdout, len(stderr.splitlines())) == (2, "", 1), stderr
        assert fault in stderr


def test_options_that_exclude_each_other(shell, small):
    for options, fault in (
        (("--from", "run", "--pilot", "3"), "--from and --pilot: constants come from one or the other"),
        (("--pilot", "0"), "--pilot 0: expected a whole number from 1 to 10,000"),
        (("--pilot", "10001"), "--pilot 10001: expected a whole number from 1 to 10,000"),
        (("--pilot", "few"), "--pilot few: expected a whole number from 1 to 10,000"),
    ):
        code, _, stderr = shell("plan", small, *options)
        assert (code, len(stderr.splitlines())) == (2, 1)
        assert fault in stderr


@pytest.mark.processes
def test_pilot_rounds_give_the_constants_of_digits(shell, tmp_path):
    """Softmax regression on digits: L <= 5.7 in closed form, zeta^2 from the gradients of all samples."""
    file = tmp_path / "digits.toml"
    file.write_text(
        'devices = 4\n[graph]\nkind = "complete"\n[model]\nkind = "mlp"\nhidden = []\n'
        '[data]\npartition = "dirichlet"\n[theory]\ntarget = 0.5\n[training]\nlearning_rate = 0.01\n'
        'local_rounds = "adaptive"\n[budget]\njoules = 3\n'
    )
    code, stdout, stderr = shell("plan", file, "--pilot", "8", "--json")
    assert code == 0, stderr
    theory = json.loads(stdout)["theory"]
    found = theory["constants"]
    each = [gradients(mine, build(SOFTMAX, (1, 8, 8), 10, seed=1).x.numpy())[0] for mine in shares()]
    true = np.array([of_one.mean(axis=0) for of_one in each])
    heterogeneity = ((true - true.mean(axis=0)) ** 2).sum(axis=1).mean()
    assert found["source"] == "8 pilot rounds"
    assert 0.2 < found["smoothness"] <= 5.7
    # Eight pilots at the first few models: their deviation is about a tenth.
    assert found["heterogeneity"] == pytest.approx(heterogeneity, rel=0.3)
    assert found["initial_gap"] == pytest.approx(np.log(10), rel=0.2)
    assert theory["bounds"]["learning_rate_at_most"] > 0
    assert theory["bounds"]["complexity"]["rounds"] > 1


def test_pilot_rounds_that_were_interrupted_give_no_constants(small, monkeypatch):
    """A run that is stopped after its first round ends as one does that is finished."""
    interrupt = Interrupt()

    def stopped(*_):
        interrupt.count += 1

    monkeypatch.setattr("coordinator.planning.pilots.run", stopped)
    with pytest.raises(Interrupted):
        with_pilots(load_experiment(small), 3, interrupt)


def test_what_nobody_has_told_completely_gives_no_constants(tmp_path):
    with pytest.raises(BadInput, match="not the folder of a run"):
        with_constants_from(Experiment(), tmp_path)
