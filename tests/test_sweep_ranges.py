"""Ranges: both ends, exact steps, and one line for what is none."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.ranges import parse_range
from protocol.errors import BadInput

fixed = settings(derandomize=True, deadline=None)


def values(text, max_values=1000):
    return [float(value) for value in parse_range(text, where="x", max_values=max_values)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0:20:5", [0, 5, 10, 15, 20]),
        ("1:3", [1, 2, 3]),
        ("-2:0", [-2, -1, 0]),
        ("7:7", [7]),
        ("0.5:0.5:2", [0.5]),
        ("-0.3:0.3:0.1", [-0.3, -0.2, -0.1, 0, 0.1, 0.2, 0.3]),
        (" 1 : 2 : 0.5 ", [1, 1.5, 2]),
        ("1e3:2e3:5e2", [1000, 1500, 2000]),
    ],
)
def test_a_range_has_both_its_ends(text, expected):
    assert values(text) == expected


@fixed
@given(
    first=st.decimals(-1000, 1000, places=3),
    step=st.decimals("0.001", 100, places=3),
    num_steps=st.integers(0, 99),
)
def test_any_range_that_comes_to_its_end_is_what_was_typed(first, step, num_steps):
    found = parse_range(f"{first}:{first + num_steps * step}:{step}", where="x", max_values=100)
    assert found == tuple(first + k * step for k in range(num_steps + 1))


@fixed
@given(st.text("0123456789.:-+eEinfasN_ ", max_size=14))
def test_any_text_is_a_range_or_is_refused_in_one_line(text):
    try:
        found = parse_range(text, where="--sweep x", max_values=50)
    except BadInput as refusal:
        message = str(refusal)
    else:
        message = "--sweep x: "
        assert 1 <= len(found) <= 50
        assert list(found) == sorted(set(found))
    assert message.startswith("--sweep x: ")
    assert len(message.splitlines()) == 1
    assert len(message) < 1000


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("1", "expected FIRST:LAST:STEP"),
        ("1:2:3:4", "expected FIRST:LAST:STEP"),
        ("0.5:2", "needs a step between numbers that are not whole"),
        ("1:x", "expected a number, not 'x'"),
        (":3", "expected a number, not ''"),
        ("0:inf:1", "expected a finite number"),
        ("0:snan:1", "expected a finite number"),
        ("0:1e400:1", "expected a finite number"),
        ("3:1", "expected FIRST <= LAST and STEP > 0"),
        ("0:1:0", "expected FIRST <= LAST and STEP > 0"),
        ("0:1:-1", "expected FIRST <= LAST and STEP > 0"),
        ("0:1:1e-999999", "expected FIRST <= LAST and STEP > 0"),
        ("0:10:4", "steps of 4 from 0 come to 8, not to 10"),
        ("0:1:1e-9", "more than 1,000 points"),
        ("1e300:2e300", "more than 1,000 points"),
    ],
)
def test_what_is_no_range_is_refused(text, what):
    with pytest.raises(BadInput, match=what):
        parse_range(text, where="x", max_values=1000)


def test_a_range_may_have_as_many_values_as_are_allowed_and_no_more():
    assert len(parse_range("1:10", where="x", max_values=10)) == 10
    with pytest.raises(BadInput, match="more than 10 points"):
        parse_range("1:11", where="x", max_values=10)
    assert parse_range("0.1:0.2:0.1", where="x", max_values=2) == (Decimal("0.1"), Decimal("0.2"))
