"""Which of many differences between a few repeats each are real: Welch's test, and a bound on false claims.

Legend: a and b are the repeats of one number in two measurements, n_a and n_b of them, with the sample
variances s^2 of their logarithms. The logarithm of their ratio is estimated by the difference d of the
means of the logarithms. t = d / se, se^2 = s_a^2 / n_a + s_b^2 / n_b, follows Student's distribution with
nu = se^4 / (s_a^4 / (n_a^2 (n_a - 1)) + s_b^4 / (n_b^2 (n_b - 1))) degrees of freedom where there is no
difference (Welch, "The generalization of Student's problem when several different population variances are
involved", Biometrika 34, 1947). Of m probabilities the k smallest are taken for real, k the largest with
p_(k) <= q k / m: then at most a share q of such claims is false on average, and where nothing differs the
probability of any claim is at most q (Benjamini and Hochberg, "Controlling the false discovery rate",
Journal of the Royal Statistical Society B 57, 1995; it holds for numbers that depend on each other
positively, as those beside the same floor do: Benjamini and Yekutieli, Annals of Statistics 29, 2001).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, inf, log, sqrt

from scipy.special import stdtr, stdtrit

CONFIDENCE = 0.95
FALSE_SHARE = 0.05
MIN_REPEATS = 2


@dataclass(frozen=True)
class Ratio:
    """By what factor b exceeds a, its 95 % interval, and how probable that much is without a difference."""

    ratio: float
    low: float
    high: float
    p: float


def ratio_of(a: Sequence[float], b: Sequence[float]) -> Ratio:
    """Compare repeats of one number, at least two positive ones on either side."""
    (mean_a, var_a), (mean_b, var_b) = _moments(a), _moments(b)
    d, se_sq = mean_b - mean_a, var_a + var_b
    if se_sq == 0:  # numbers that never vary differ or do not
        return Ratio(exp(d), exp(d), exp(d), 1.0 if d == 0 else 0.0)
    nu = se_sq**2 / (var_a**2 / (len(a) - 1) + var_b**2 / (len(b) - 1))
    half = float(stdtrit(nu, (1 + CONFIDENCE) / 2)) * sqrt(se_sq)
    p = 2 * float(stdtr(nu, -abs(d) / sqrt(se_sq)))
    return Ratio(exp(d), exp(d - half), exp(d + half), p)


def real(probabilities: Sequence[float]) -> list[bool]:
    """Say of each difference whether it is taken for real."""
    ranked = sorted(probabilities)
    m = len(ranked)
    bound = max((p for k, p in enumerate(ranked, start=1) if p <= FALSE_SHARE * k / m), default=-inf)
    return [p <= bound for p in probabilities]


def _moments(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of the logarithms and the variance of that mean."""
    logs = [log(value) for value in values]
    n = len(logs)
    mean = fsum(logs) / n
    return mean, fsum((value - mean) ** 2 for value in logs) / (n - 1) / n
