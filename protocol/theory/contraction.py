"""How much one exchange over random links shrinks the distance from consensus, in the mean square.

    W~ = I - sum_e beta_e W_e L_e,   L_e = (e_i - e_j)(e_i - e_j)^T,   beta_e ~ Bernoulli(p_e)
    E[W~^T W~] = (I - sum_e p_e W_e L_e)^2 + 2 sum_e p_e (1 - p_e) W_e^2 L_e
    rho = largest eigenvalue of E[W~^T W~] - J,   J = (1/N) 1 1^T,   delta = 1 - rho^q after q sweeps

W is symmetric and doubly stochastic; links fail independently of each other, in each sweep anew, and in
both directions at once (p_e is the probability that both succeed). Derived for this project from the model
of Yan and Li, arXiv 2308.06496, with L_e^2 = 2 L_e.
"""

import numpy as np
import numpy.typing as npt

from protocol.theory.bounds import Floats

_ROUNDING = 1e-12  # of an eigenvalue: a network in two parts must not mix by it


def contraction(W: Floats, success: npt.ArrayLike) -> float:
    """Return rho in [0, 1]: E||x - xbar||^2 shrinks at least by this factor per sweep; 1 if nothing mixes.

    W: shape (N, N); success: p of all links, or p_ij in a symmetric (N, N).
    """
    J = np.full_like(W, 1 / len(W))
    largest = np.linalg.eigvalsh(mean_square_mixing(W, success) - J)[-1]
    return 1.0 if largest > 1 - _ROUNDING else max(0.0, float(largest))


def mean_square_mixing(W: Floats, success: npt.ArrayLike) -> Floats:
    """E[W~^T W~], shape (N, N)."""
    p = np.asarray(success, dtype=np.float64)
    assert p.ndim == 0 or (p == p.T).all(), "links fail in both directions at once"
    mean = np.eye(len(W)) - laplacian(p * W)
    return mean @ mean + 2 * laplacian(p * (1 - p) * W**2)


def equal_weight_contraction(modes: Floats, *, weight: float, success: float) -> float:
    """Return rho in closed form where every edge has the same weight w and every link the same p.

    rho = max over mu of (1 - p mu)^2 + 2 p (1 - p) w mu,   mu the `laplacian_modes`
    """
    p = success
    return float(np.max((1 - p * modes) ** 2 + 2 * p * (1 - p) * weight * modes, initial=0))


def laplacian_modes(W: Floats) -> Floats:
    """Eigenvalues mu of I - W but for the zero of the mean, rising, shape (N - 1,)."""
    return np.asarray(np.linalg.eigvalsh(np.eye(len(W)) - W)[1:], dtype=np.float64)


def consensus_rate(contraction: float, *, num_sweeps: int = 1) -> float:
    """Return delta = 1 - rho^q: what q sweeps take off the distance from consensus."""
    return float(1 - contraction**num_sweeps)


def laplacian(weights: Floats) -> Floats:
    """sum_e weights_e L_e over the edges of symmetric weights; their diagonal cancels."""
    return np.diag(weights.sum(axis=1)) - weights
