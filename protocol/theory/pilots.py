"""Constants of the bounds, estimated from scalars that devices report in a few pilot rounds.

    sigma_i^2   mean over devices of the variance of one minibatch gradient
    ||grad F||^2   ||mean_i g_i||^2 less the noise of that mean, (1/N^2) sum_i sigma_i^2 / b_i
    zeta^2      mean_i (||g_i||^2 - sigma_i^2 / b_i) - ||grad F||^2
    L           largest secant ||grad change|| / ||movement||: a lower bound that rises with more pilots
    Delta       loss at the start less the least loss that is possible

g_i is device i's mean gradient over b_i minibatches at the common model. The estimates of sigma^2,
||grad F||^2 and zeta^2 are unbiased, so a single one may be negative; only their mean over the pilots is cut
at 0. They describe the models that the pilots passed, where the bounds want the largest over all models.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum
from typing import Self

from protocol.theory.constants import Constants


@dataclass(frozen=True, kw_only=True)
class PilotRound:
    """What one pilot round tells, one entry per device, all at the same model."""

    losses: Sequence[float]
    """F_i."""
    gradient_norms_sq: Sequence[float]
    """||g_i||^2."""
    gradient_variances: Sequence[float]
    """Unbiased estimate of sigma_i^2, such as `variance_of_two`."""
    num_batches: Sequence[int]
    """b_i minibatches behind g_i."""
    mean_gradient_norm_sq: float
    """||mean_i g_i||^2; after one exact average of single steps, ||movement of the mean||^2 / eta^2."""
    secants: Sequence[float]
    """||grad change|| / ||movement|| on the same minibatch; nothing from a device that did not move."""


@dataclass(frozen=True)
class Pilots:
    """All pilot rounds so far."""

    num_rounds: int = 0
    initial_loss: float = 0.0
    """Mean of the devices' losses in the first of them."""
    sum_gradient_variance: float = 0.0
    sum_mean_gradient_sq: float = 0.0
    sum_heterogeneity: float = 0.0
    largest_secant: float = 0.0

    def add(self, pilot: PilotRound) -> Self:
        """Return what is known after one more round."""
        n = len(pilot.losses)
        noises = [
            variance / batches
            for variance, batches in zip(pilot.gradient_variances, pilot.num_batches, strict=True)
        ]
        mean_gradient_sq = pilot.mean_gradient_norm_sq - fsum(noises) / n**2
        own_gradients_sq = (fsum(pilot.gradient_norms_sq) - fsum(noises)) / n
        return type(self)(
            num_rounds=self.num_rounds + 1,
            initial_loss=self.initial_loss if self.num_rounds else fsum(pilot.losses) / n,
            sum_gradient_variance=self.sum_gradient_variance + fsum(pilot.gradient_variances) / n,
            sum_mean_gradient_sq=self.sum_mean_gradient_sq + mean_gradient_sq,
            sum_heterogeneity=self.sum_heterogeneity + own_gradients_sq - mean_gradient_sq,
            largest_secant=max(self.largest_secant, *pilot.secants, 0.0),
        )

    @property
    def mean_gradient_norm_sq(self) -> float:
        """||grad F||^2, mean over the pilots: what the bounds are about."""
        return max(0.0, self.sum_mean_gradient_sq / self.num_rounds)

    def constants(self, *, least_loss: float = 0.0) -> Constants:
        """Return the estimates; needs at least one round, and one in which somebody moved.

        least_loss: a lower bound of F; 0 for cross-entropy and squares, which makes Delta an upper bound.
        """
        assert self.num_rounds > 0, "constants come from pilot rounds"
        assert self.largest_secant > 0, "smoothness comes from a movement"
        return Constants(
            smoothness=self.largest_secant,
            gradient_variance=max(0.0, self.sum_gradient_variance / self.num_rounds),
            heterogeneity=max(0.0, self.sum_heterogeneity / self.num_rounds),
            initial_gap=max(0.0, self.initial_loss - least_loss),
        )


def variance_of_two(difference_norm_sq: float) -> float:
    """||g1 - g2||^2 / 2: unbiased for the variance of one minibatch gradient, from two independent ones."""
    return difference_norm_sq / 2
