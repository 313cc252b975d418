"""What `hearsay bench compare` prints."""

from rich.table import Table

from coordinator.bench.compare import MEMORY, ROUND, Comparison, Difference
from coordinator.bench.welch import CONFIDENCE, FALSE_SHARE


def comparison_table(comparison: Comparison) -> Table:
    """Lay out each case's round, and whatever else really differs."""
    table = Table(title=f"A {comparison.a}\nB {comparison.b}", title_justify="left", caption_justify="left")
    for name in ("devices", "params", "transport", "radio", "what", "A", "B"):
        table.add_column(name, justify="right" if name in ("devices", "A", "B") else "left")
    table.add_column("B over A", justify="right")
    table.add_column(f"{CONFIDENCE:.0%} interval")
    table.add_column("")
    for found in comparison.differences:
        if found.quantity == ROUND or found.real:
            case = found.case
            table.add_row(
                str(case.devices),
                case.params,
                case.transport,
                case.radio,
                found.quantity,
                _amount(found, found.a),
                _amount(found, found.b),
                f"{found.ratio:.3f}",
                f"{found.low:.3f} to {found.high:.3f}",
                _verdict(found),
            )
    table.caption = "\n".join(_captions(comparison))
    return table


def _captions(comparison: Comparison) -> list[str]:
    m, num_real = len(comparison.differences), sum(found.real for found in comparison.differences)
    n_a, n_b = comparison.repeats
    lines = [
        f"{num_real} of {m} differences are real: Welch's test on logarithms over {n_a} and {n_b} repeats, "
        f"at most {FALSE_SHARE:.0%} of such claims false (Benjamini and Hochberg)",
        "B over A: of seconds, each over the floor of its own repeat, so that a slower machine is no "
        "difference; of memory, of bytes. A, B: medians as measured",
    ]
    if not comparison.same_machine:
        lines.append(f"DIFFERENT MACHINES: A {comparison.machines[0]}; B {comparison.machines[1]}")
    if not comparison.same_versions:
        lines.append("different versions, see the files")
    if comparison.left_out:
        lines.append(f"not in both, or not repeated: {'; '.join(comparison.left_out)}")
    return [*lines, *comparison.warnings]


def _amount(found: Difference, value: float) -> str:
    return f"{value / 1e6:.1f} MB" if found.quantity == MEMORY else f"{1e3 * value:.4g} ms"


def _verdict(found: Difference) -> str:
    if not found.real:
        return "not told apart"
    more, less = ("more", "less") if found.quantity == MEMORY else ("slower", "faster")
    where = f" ({found.where})" if found.where else ""
    return f"B is {more if found.ratio > 1 else less}{where}"
