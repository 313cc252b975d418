"""Constants of the convergence bounds, as far as the user knows them."""

from typing import Annotated

from pydantic import Field

from protocol.section import Section
from protocol.theory.constants import Constants


class Theory(Section):
    """What the bounds assume of the task, and how far training should get; what is left out is not known."""

    smoothness: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """L: every device's loss has gradients that change at most L times as much as the parameters."""
    gradient_variance: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    """sigma^2: mean squared L2 distance of a minibatch gradient from the gradient of its device's loss."""
    heterogeneity: Annotated[float | None, Field(ge=0, allow_inf_nan=False)] = None
    """zeta^2: squared L2 distance of any device's gradient from the mean gradient, at most."""
    initial_gap: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """Delta: mean loss of the first parameters above `loss_floor`."""
    target: Annotated[float | None, Field(gt=0, allow_inf_nan=False)] = None
    """epsilon: squared L2 norm of the mean gradient to get down to, as a mean over the rounds."""
    loss_floor: Annotated[float, Field(allow_inf_nan=False)] = 0.0
    """F_inf: what the mean loss never falls below; no cross-entropy is below 0."""

    @property
    def constants(self) -> Constants | None:
        """All that the bounds need; none where one of them is not known."""
        if (
            self.smoothness is None
            or self.gradient_variance is None
            or self.heterogeneity is None
            or self.initial_gap is None
        ):
            return None
        return Constants(
            smoothness=self.smoothness,
            gradient_variance=self.gradient_variance,
            heterogeneity=self.heterogeneity,
            initial_gap=self.initial_gap,
        )
