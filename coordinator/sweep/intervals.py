"""The mean of a few repetitions and how far it can be trusted: Student's t.

Legend: n values with mean m and sample standard deviation s, drawn independently from a normal
distribution. m +- t s / sqrt(n) covers its mean with the given confidence, where t is the
(1 + confidence) / 2 quantile of Student's t with n - 1 degrees of freedom (Student, "The probable
error of a mean", Biometrika 6, 1908).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import fsum, isfinite, nan, sqrt

from scipy.special import stdtrit

CONFIDENCE = 0.95
ROUNDING = 1e-9
"""Share of a mean below which an interval is what rounding makes of numbers that are the same."""


@dataclass(frozen=True)
class Estimate:
    """A mean, half the width of its interval (none of a single value), and of how many values it is."""

    mean: float
    half_width: float | None
    n: int


def estimate(values: Sequence[float], *, confidence: float = CONFIDENCE) -> Estimate | None:
    """Estimate a mean; None where there are no values, and not a number where one of them is not finite."""
    n = len(values)
    if n == 0:
        return None
    if not all(isfinite(value) for value in values):
        return Estimate(nan, nan if n > 1 else None, n)
    mean = fsum(values) / n
    if n == 1:
        return Estimate(mean, None, n)
    std = sqrt(fsum((value - mean) ** 2 for value in values) / (n - 1))
    t = float(stdtrit(n - 1, (1 + confidence) / 2))
    return Estimate(mean, t * std / sqrt(n), n)
