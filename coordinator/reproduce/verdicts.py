"""Claims, and what measured numbers say of them: an interval on one side of a limit, or across it."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Literal, NamedTuple, TypeAlias

from coordinator.drawing import count
from coordinator.sweep.intervals import CONFIDENCE, Estimate, estimate

Outcome: TypeAlias = Literal["shows", "does not show", "not decided"]


@dataclass(frozen=True)
class Verdict:
    """One claim, what came of it, and the numbers behind that in words."""

    claim: str
    outcome: Outcome
    finding: str


class Case(NamedTuple):
    """One of the places at which a claim is tested: values over seeds, and the limit of their mean there."""

    label: str
    values: Sequence[float]
    limit: float


def judge(
    claim: str, cases: Sequence[Case], *, relation: Literal["at most", "at least"], form: str = ".3g"
) -> Verdict:
    """Test whether the mean of every case keeps to its limit.

    It shows if all intervals lie on the right side, and does not if one lies wholly on the wrong side.
    With m cases each interval has a confidence of 1 - 0.05 / m, so that all hold together with 95 %
    (Bonferroni); the finding names the case that is nearest to its limit, or furthest beyond it.
    """
    if not cases:
        return Verdict(claim, "not decided", "there is nothing to judge by")
    found = [estimate(case.values, confidence=1 - (1 - CONFIDENCE) / len(cases)) for case in cases]
    for case, one in zip(cases, found, strict=True):
        if one is None or one.half_width is None or not isfinite(one.mean):
            why = "is not finite" if one is not None and not isfinite(one.mean) else "has no interval"
            return Verdict(claim, "not decided", f"{_prefix(case)}a mean of {_runs(case)} {why}")
    sign = 1.0 if relation == "at most" else -1.0
    margins = [sign * (one.mean - case.limit) for case, one in zip(cases, found, strict=True) if one]
    widths = [one.half_width or 0.0 for one in found if one]
    outcome: Outcome
    if all(margin + width <= 0 for margin, width in zip(margins, widths, strict=True)):
        outcome = "shows"
    elif any(margin - width > 0 for margin, width in zip(margins, widths, strict=True)):
        outcome = "does not show"
    else:
        outcome = "not decided"
    # The nearest to its limit from inside, or, where some are beyond it, the one surest to be.
    surest = {"shows": 1.0, "does not show": -1.0, "not decided": 1.0}[outcome]
    worst = max(range(len(cases)), key=lambda i: margins[i] + surest * widths[i])
    finding = f"{_prefix(cases[worst])}{interval(found[worst], form)}, where {relation} "
    finding += f"{cases[worst].limit:{form}} is claimed; {_runs(cases[worst])}"
    if len(cases) > 1:
        finding += f"; the one of {len(cases)} cases that decides"
    return Verdict(claim, outcome, finding)


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
    return f"{found.mean:{form}} ± {found.half_width:.2g}"


def _prefix(case: Case) -> str:
    return f"{case.label}: " if case.label else ""


def _runs(case: Case) -> str:
    return f"n = {len(case.values)}"
