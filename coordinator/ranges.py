"""Ranges as users type them: FIRST:LAST:STEP, both ends included."""

from decimal import Decimal, InvalidOperation
from math import isinf

from protocol.errors import BadInput


def parse_range(text: str, *, where: str, max_values: int) -> tuple[Decimal, ...]:
    """Read FIRST:LAST:STEP; between whole numbers the step may be left out, and is 1.

    The values are decimal, in which 0.1 is what was typed: both ends are met, and 0.3 stays 0.3.
    Raises BadInput, which begins with where.
    """
    parts = [part.strip() for part in text.split(":")]
    if len(parts) not in (2, 3):
        raise BadInput(f"{where}: expected FIRST:LAST:STEP, as in 0:20:5")
    first, last, *given = (_number(part, where) for part in parts)
    if not given and any(end != end.to_integral_value() for end in (first, last)):
        raise BadInput(f"{where}: needs a step between numbers that are not whole, as in 0:1:0.25")
    [step] = given or [Decimal(1)]
    if step <= 0 or last < first:
        raise BadInput(f"{where}: expected FIRST <= LAST and STEP > 0")
    if (last - first) / step >= max_values:
        raise BadInput(f"{where}: more than {max_values:,} points")
    num_steps, left_over = divmod(last - first, step)
    if left_over:
        ends = last - left_over
        raise BadInput(f"{where}: steps of {step:f} from {first:f} come to {ends:f}, not to {last:f}")
    return tuple(first + k * step for k in range(int(num_steps) + 1))


def _number(text: str, where: str) -> Decimal:
    try:
        number = Decimal(text)
    except InvalidOperation as error:
        raise BadInput(f"{where}: expected a number, not {text!r}") from error
    if not number.is_finite() or isinf(float(number)):
        raise BadInput(f"{where}: expected a finite number")
    # What a float cannot tell from zero is zero; an exponent without end would have no end in decimal either.
    return number if float(number) else Decimal(0)
