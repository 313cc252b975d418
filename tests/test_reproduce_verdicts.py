"""Verdicts on made-up data: an interval within a claimed range, outside of it, or across its end."""

from math import inf, nan

import numpy as np
import pytest

from coordinator.reproduce.verdicts import Case, interval, judge, judge_count
from coordinator.sweep.intervals import Estimate

# Mean 1, standard deviation 0.1, four values: Student's 3.182 for three degrees of freedom, so +- 0.159.
AROUND_ONE = (0.9, 1.1, 1.0 - 0.1 / 2**0.5, 1.0 + 0.1 / 2**0.5)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [
        (-inf, 1.2, "shows"),
        (-inf, 1.1, "not decided"),
        (-inf, 0.9, "not decided"),
        (-inf, 0.8, "does not show"),
        (0.8, inf, "shows"),
        (0.9, inf, "not decided"),
        (1.1, inf, "not decided"),
        (1.2, inf, "does not show"),
        (0.8, 1.2, "shows"),
        (0.9, 1.2, "not decided"),
        (1.2, 1.4, "does not show"),
    ],
)
def test_an_interval_is_held_against_a_range(low, high, outcome):
    assert judge("claim", [Case("", AROUND_ONE, low, high)]).outcome == outcome


def test_the_interval_of_one_case_is_students_at_95_percent():
    half_width = 3.182 * np.std(AROUND_ONE, ddof=1) / 2
    assert judge("", [Case("", AROUND_ONE, high=1 + half_width + 0.001)]).outcome == "shows"
    assert judge("", [Case("", AROUND_ONE, high=1 + half_width - 0.001)]).outcome == "not decided"


def test_cases_share_the_five_percent_among_them():
    half_width = 3.182 * np.std(AROUND_ONE, ddof=1) / 2
    case = Case("", AROUND_ONE, high=1 + half_width + 0.001)
    assert judge("", [case]).outcome == "shows"
    assert judge("", [case, case]).outcome == "not decided"


def test_a_claim_shows_only_where_every_case_does():
    good, open_, bad = (Case(str(high), AROUND_ONE, high=high) for high in (2.0, 1.0, 0.1))
    assert judge("", [good, good]).outcome == "shows"
    assert judge("", [good, open_]).outcome == "not decided"
    assert judge("", [good, open_, bad]).outcome == "does not show"
    assert judge("", [good, Case("none", ()), bad]).outcome == "does not show"


def test_the_finding_names_the_case_that_decides():
    near, far = Case("near", AROUND_ONE, high=2), Case("far", AROUND_ONE, high=9)
    found = judge("", [far, near])
    assert found.finding.startswith("near: 1 ± ")
    assert "claimed at most 2 (n = 4); the one of 2 that decides" in found.finding
    worse = Case("worse", AROUND_ONE, low=7)
    assert judge("", [near, Case("bad", AROUND_ONE, low=5), worse]).finding.startswith("worse: ")


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ((), "no run to judge by"),
        ((1.0,), "one run to judge by"),
        ((1.0, nan), "not finite"),
        ((1.0, inf), "not finite"),
    ],
)
def test_what_has_no_interval_decides_nothing(values, why):
    found = judge("claim", [Case("here", values, high=0.0)])
    assert found.outcome == "not decided"
    assert found.finding.startswith("here: ")
    assert why in found.finding
    assert judge("claim", []).outcome == "not decided"


def test_values_that_are_all_the_same_are_sure():
    assert judge("", [Case("", (2.0, 2.0), high=2.0)]).outcome == "shows"
    assert judge("", [Case("", (2.0, 2.0), high=1.9)]).outcome == "does not show"


def test_what_never_happens_is_counted():
    assert judge_count("never", [0, 0, 0], noun="fault").outcome == "shows"
    assert judge_count("never", [0, 2, 1], noun="fault").outcome == "does not show"
    assert judge_count("never", [0, 2, 1], noun="fault").finding == "3 faults in 3 runs"
    assert judge_count("never", [], noun="fault").outcome == "not decided"


def test_an_interval_is_written_as_people_read_it():
    assert interval(Estimate(0.12345, 0.0123, 5)) == "0.123 ± 0.012"
    assert interval(Estimate(0.12345, 1e-17, 5)) == "0.123 ± 0"  # the same number, but for rounding
    assert interval(Estimate(0.12345, None, 1)) == "0.123"
    assert interval(None) == "-"
