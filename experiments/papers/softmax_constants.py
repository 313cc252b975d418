"""The constants of [theory] for softmax regression: `python experiments/papers/softmax_constants.py FILE`.

Legend: z a sample's pixels and a 1, p its softmax probabilities, e_y its label. The gradient of the
cross-entropy is (p - e_y) z', its Hessian (diag(p) - p p') x (z z'), and the eigenvalues of
diag(p) - p p' are at most 1/2 (Boehning, "Multinomial logistic regression algorithm", Annals of the
Institute of Statistical Mathematics 44, 1992). So F_i is smooth with L_i = lambda_max(mean z z') / 2,
whatever the parameters. The other constants are the largest on the way of full-batch gradient descent on F,
over seeds 1 to 5: bounds of what training meets, not of all parameters.
"""

import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from node.agent import build_model
from node.data import load as load_data
from node.data import parts
from protocol.experiment_file import load

Floats = npt.NDArray[np.float64]
SEEDS = range(1, 6)
NUM_STEPS = 1000
LOOK_EVERY = 50


class Found(NamedTuple):
    """What one seed gives."""

    smoothness: float
    gradient_variance: float
    heterogeneity: float
    initial_gap: float
    gradient_norm_sq: float
    """At the start."""


def main() -> None:
    """Print the largest of each constant over the seeds."""
    found = [constants(Path(sys.argv[1]), seed) for seed in SEEDS]
    for name, values in zip(Found._fields, zip(*found, strict=True), strict=True):
        sys.stdout.write(f"{name} = {max(values):.3g}\n")


def constants(file: Path, seed: int) -> Found:
    """Return the constants of an experiment with one seed."""
    experiment = load(file, (f"seed={seed}",))
    data = load_data(experiment.data, seed)
    x = data.train_x.reshape(len(data.train_y), -1).astype(np.float64)
    z = np.hstack([x, np.ones((len(x), 1))])
    shares = parts(experiment.data, experiment.devices, seed=seed)
    smoothness = max(float(np.linalg.eigvalsh(z[own].T @ z[own] / len(own))[-1]) / 2 for own in shares)
    weights = build_model(experiment).x.detach().numpy().astype(np.float64)
    num_classes = data.num_classes
    split = num_classes * x.shape[1]  # the flat vector: all weights, then all biases
    W = np.hstack([weights[:split].reshape(num_classes, -1), weights[split:, None]])
    variances, distances, losses, norms = [], [], [], []
    for step in range(NUM_STEPS + 1):
        moments = [_moments(W, z[own], data.train_y[own]) for own in shares]
        gradients = np.array([gradient for gradient, _, _ in moments])
        mean = gradients.mean(axis=0)
        if step % LOOK_EVERY == 0:
            for (_, variance, _), own in zip(moments, shares, strict=True):
                batch = min(experiment.training.batch_size, len(own))
                # Drawn without replacement: a batch of all samples has no variance.
                variances.append(variance / batch * (len(own) - batch) / max(len(own) - 1, 1))
            distances.append(((gradients - mean) ** 2).sum(axis=(1, 2)).max())
            losses.append(np.mean([loss for _, _, loss in moments]))
            norms.append((mean**2).sum())
        W = W - experiment.training.learning_rate * mean
    return Found(smoothness, max(variances), max(distances), losses[0], norms[0])


def _moments(W: Floats, z: Floats, y: npt.NDArray[np.int64]) -> tuple[Floats, float, float]:
    """Return the gradient, the variance of one sample's gradient, and the loss."""
    logits = z @ W.T
    p = np.exp(logits - logits.max(axis=1, keepdims=True))
    p /= p.sum(axis=1, keepdims=True)
    loss = -float(np.log(p[np.arange(len(y)), y]).mean())
    p[np.arange(len(y)), y] -= 1
    gradient = p.T @ z / len(y)
    squares = (p**2).sum(axis=1) * (z**2).sum(axis=1)  # ||(p - e_y) z'||^2
    return gradient, float(squares.mean() - (gradient**2).sum()), loss


if __name__ == "__main__":
    main()
