"""The table of a sweep: a line for each setting, means over its seeds with their intervals."""

from math import isfinite

from rich.console import Console
from rich.table import Table

from coordinator.sweep.folder import PICTURE, RECORD
from coordinator.sweep.grid import describe, label
from coordinator.sweep.intervals import ROUNDING, Estimate
from coordinator.sweep.quantities import QUANTITIES, interval_note
from coordinator.sweep.record import Cell, SweepRecord
from coordinator.sweep.sweep import Swept

MAX_REASONS = 10
"""Why points failed, in so many lines at most."""


def print_results(swept: Swept, console: Console) -> None:
    """Print the table of a sweep, and where to find the rest."""
    record = swept.record
    console.width = max(console.width, 0 if console.is_terminal else 160)
    console.print(results_table(record))
    picture = f"no picture: {swept.no_picture}" if swept.no_picture else f"picture: {swept.folder / PICTURE}"
    lines = [f"FAILED: {describe(point.settings)}: {point.reason}" for point in record.failed[:MAX_REASONS]]
    if len(record.failed) > MAX_REASONS:
        lines.append(f"FAILED: {len(record.failed) - MAX_REASONS} more; their reasons are in {RECORD}")
    lines += [picture, f"sweep folder: {swept.folder}"]
    if record.num_finished < len(record.points):
        lines.append(f"to go on, give the same command --out {swept.folder}")
    console.print("\n".join(lines), soft_wrap=True, highlight=False, markup=False)


def results_table(record: SweepRecord) -> Table:
    """Lay out the means of all cells; numbers that no point has are left out."""
    table = Table(
        title=f"{record.name}: {record.num_finished} of {len(record.points)} points finished",
        title_justify="left",
        min_width=60,
        caption="\n".join(_captions(record)) or None,
        caption_justify="left",
    )
    keys = list(record.cells[0].settings)
    shown = [q for q in QUANTITIES if any(q.name in cell.estimates for cell in record.cells)]
    for key in keys:
        words = any(isinstance(cell.settings[key], str) for cell in record.cells)
        table.add_column(key, justify="left" if words else "right", overflow="fold")
    for name in ("n", *(quantity.column for quantity in shown)):
        table.add_column(name, justify="right", overflow="fold")
    for cell in record.cells:
        table.add_row(
            *(label(cell.settings[key]) for key in keys),
            _count(cell),
            *(_mean(cell.estimates.get(quantity.name), quantity.form) for quantity in shown),
        )
    return table


def _captions(record: SweepRecord) -> list[str]:
    captions = []
    if record.num_finished:
        captions.append(interval_note(record))
    if faulty := sum(not point.sound for point in record.points):
        captions.append(f"{faulty} finished with devices lost, frames not delivered, or an invalid clock")
    return captions


def _count(cell: Cell) -> str:
    missing = cell.num_finished < cell.num_points
    return f"{cell.num_finished} of {cell.num_points}" if missing else str(cell.num_finished)


def _mean(found: Estimate | None, form: str) -> str:
    if found is None:
        return "-"
    mean, half = found.mean, found.half_width
    if not isfinite(mean):
        return "not finite"
    if half is None:
        return f"{mean:{form}}"
    return f"{mean:{form}} ± {0 if half < ROUNDING * abs(mean) else half:.2g}"
