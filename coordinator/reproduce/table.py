"""What `hearsay reproduce` prints at the end: claims with their verdicts, and where the page is."""

from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from coordinator.reproduce.page import claims_table
from coordinator.reproduce.reproduce import Reproduced

STYLES = {"shows": "green", "does not show": "red", "not decided": "yellow"}


def print_page(reproduced: Reproduced, page: Path, console: Console) -> None:
    """Print every claim, and the path of the page."""
    console.width = max(console.width, 0 if console.is_terminal else 160)
    claims = claims_table(reproduced)
    table = Table(
        title=f"{reproduced.num_finished} of {reproduced.num_runs} runs finished", title_justify="left"
    )
    for name in claims.head:
        table.add_column(name)
    for comparison, claim, outcome, finding in claims.rows:
        table.add_row(comparison, claim, Text(outcome, STYLES[outcome]), finding)
    console.print(table)
    for failure in reproduced.failures[:10]:
        line = f"FAILED: {failure.title}: {failure.reason}"
        console.print(line, soft_wrap=True, highlight=False, markup=False)
    console.print(f"page: {page}", soft_wrap=True, highlight=False, markup=False)
