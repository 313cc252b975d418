"""Claims, and what measured numbers say of them: an interval within a claimed range, or not."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal, NamedTuple, TypeAlias

from coordinator.drawing import count
from coordinator.sweep.intervals import CONFIDENCE, ROUNDING, Estimate, estimate

Outcome: TypeAlias = Literal["shows", "does not show", "not decided"]


@dataclass(frozen=True)
class Verdict:
    """One claim, what came of it, and the numbers behind that in words."""

    claim: str
    outcome: Outcome
    finding: str


@dataclass(frozen=True)
class Case:
    """One of the places at which a claim is tested: values over seeds, and the range of their mean."""

    label: str
    values: Sequence[float]
    low: float = -inf
    high: float = inf


class _Found(NamedTuple):
    outcome: Outcome
    excess: float
    """How far the mean is out of its range, in half widths of its interval; negative within."""
    finding: str


def judge(claim: str, cases: Sequence[Case]) -> Verdict:
    """Test whether the mean of every case is in its range.

    It shows if all intervals lie in their ranges, and does not if one lies wholly outside. With m cases
    each interval has a confidence of 1 - 0.05 / m, so that all hold together with 95 % (Bonferroni). The
    finding names the case that is nearest to an end of its range, or furthest beyond.
    """
    if not cases:
        return Verdict(claim, "not decided", "there is nothing to judge by")
    confidence = 1 - (1 - CONFIDENCE) / len(cases)
    found = [_judge_case(case, confidence) for case in cases]
    outcomes = {one.outcome for one in found}
    worst = max(found, key=lambda one: one.excess)
    outcome: Outcome = "shows" if outcomes == {"shows"} else "not decided"
    if "does not show" in outcomes:
        outcome = "does not show"
        worst = max((one for one in found if one.outcome == outcome), key=lambda one: one.excess)
    return Verdict(
        claim, outcome, worst.finding + (f"; the one of {len(cases)} that decides" if len(cases) > 1 else "")
    )


def judge_count(claim: str, found: Sequence[int], *, noun: str) -> Verdict:
    """Test a claim that something never happens, from how often it did in each run."""
    if not found:
        return Verdict(claim, "not decided", "no run was finished")
    outcome: Outcome = "does not show" if sum(found) else "shows"
    return Verdict(claim, outcome, f"{count(sum(found), noun)} in {count(len(found), 'run')}")


def interval(found: Estimate | None, form: str = ".3g") -> str:
    """Write a mean with its interval."""
    if found is None:
        return "-"
    if found.half_width is None:
        return f"{found.mean:{form}}"
    half = 0.0 if found.half_width < ROUNDING * abs(found.mean) else found.half_width
    return f"{found.mean:{form}} ± {half:.2g}"


def _judge_case(case: Case, confidence: float) -> _Found:
    label = f"{case.label}: " if case.label else ""
    mean = estimate(case.values, confidence=confidence)
    if mean is None or mean.half_width is None:
        what = "no run" if mean is None else "one run"
        return _Found("not decided", inf, f"{label}{what} to judge by, where two make an interval")
    if not isfinite(mean.mean):
        return _Found("not decided", inf, f"{label}a run is not finite")
    width = mean.half_width
    out = max(case.low - mean.mean, mean.mean - case.high)
    outcome: Outcome = "shows" if out + width <= 0 else "does not show" if out - width > 0 else "not decided"
    finding = f"{label}{interval(mean)}, claimed {_range(case)} (n = {mean.n})"
    return _Found(outcome, out / width if width else out * inf if out else 0.0, finding)


def _range(case: Case) -> str:
    if case.low == -inf:
        return f"at most {case.high:.3g}"
    if case.high == inf:
        return f"at least {case.low:.3g}"
    return f"{case.low:.3g} to {case.high:.3g}"
