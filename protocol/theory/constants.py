"""What the bounds must know of a learning task and of how it is trained.

F = (1/N) sum_i F_i           the mean of the devices' losses F_i
L       smoothness            ||grad F_i(x) - grad F_i(y)|| <= L ||x - y||
sigma^2 gradient variance     E||g_i - grad F_i||^2 <= sigma^2, g_i the gradient of one minibatch
zeta^2  heterogeneity         ||grad F_i - grad F||^2 <= zeta^2, for each device or in the mean
Delta   initial gap           F(x^0) - F_inf, F_inf the infimum of F
eta, N, tau, K                learning rate, devices, local rounds per round, rounds
"""

from dataclasses import dataclass
from typing import Final

MAX_LOCAL_ROUNDS: Final = 1_000_000
"""No plan goes beyond it; an unlimited budget affords so many."""
MAX_ROUNDS: Final = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Constants:
    """The task."""

    smoothness: float
    """L > 0."""
    gradient_variance: float
    """sigma^2 >= 0."""
    heterogeneity: float
    """zeta^2 >= 0."""
    initial_gap: float
    """Delta >= 0."""


@dataclass(frozen=True, kw_only=True)
class Training:
    """How all devices train, with the same number of local rounds."""

    learning_rate: float
    """eta > 0."""
    num_devices: int
    """N."""
    num_local_rounds: int
    """tau >= 1, minibatch steps between two exchanges."""
    num_rounds: int
    """K >= 1."""
