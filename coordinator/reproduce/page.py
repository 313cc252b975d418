"""The page: claims and verdicts first, then each comparison with its figure, table and settings."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from coordinator.drawing import count, save_whole
from coordinator.reproduce.blocks import (
    Block,
    Bullets,
    Details,
    Heading,
    Paragraph,
    Picture,
    to_html,
    to_markdown,
)
from coordinator.reproduce.comparison import Comparison, Table
from coordinator.reproduce.machine import describe_machine, describe_versions
from coordinator.reproduce.papers import Paper
from coordinator.reproduce.reproduce import Reproduced, Section
from coordinator.store import write_whole
from coordinator.sweep.intervals import CONFIDENCE
from protocol.errors import RunError
from protocol.experiment_file import dump

HTML, MARKDOWN = "index.html", "page.md"
MAX_NAMED = 20
"""Failed runs that are named."""


@dataclass(frozen=True)
class Call:
    """How the page was asked for."""

    command: str
    quick: bool
    jobs: int
    interrupted: bool


def write_page(paper: Paper, reproduced: Reproduced, call: Call, folder: Path) -> Path:
    """Write figures, `page.md` and `index.html`; returns the latter. Raises RunError if it cannot."""
    try:
        for section in reproduced.sections:
            if section.shown is not None:
                save_whole(section.shown.figure, _picture(folder, section.comparison))
        blocks = list(_blocks(paper, reproduced, call, folder))
        write_whole(folder / MARKDOWN, to_markdown(blocks))
        write_whole(folder / HTML, to_html(blocks))
    except OSError as error:
        raise RunError(f"{folder}: the page cannot be written ({error.strerror})") from error
    return folder / HTML


def claims_table(reproduced: Reproduced) -> Table:
    """List every claim with its verdict."""
    return Table(
        head=("comparison", "claim", "verdict", "what was measured"),
        rows=[
            (section.comparison.name, verdict.claim, verdict.outcome, verdict.finding)
            for section in reproduced.sections
            if section.shown is not None
            for verdict in section.shown.verdicts
        ],
    )


def _blocks(paper: Paper, reproduced: Reproduced, call: Call, folder: Path) -> Iterator[Block]:
    yield Heading(1, f"Reproduced{', quickly' if call.quick else ''}: {paper.title}")
    yield Paragraph(f"{paper.source}. Made {datetime.now():%Y-%m-%d %H:%M} by `{call.command}`.")
    yield from _state(reproduced, call)
    yield Heading(2, "Claims")
    yield claims_table(reproduced)
    yield Paragraph(
        f"An interval is Student's t at {100 * CONFIDENCE:g} % over seeds; a claim of several places shares "
        "its 5 % of error among them. A claim **shows** if its interval lies wholly on its side of the "
        "limit, **does not show** if wholly on the other, and is **not decided** if the limit lies within. "
        "What does not show is a result. A seed draws the same places, data and minibatches in every arm, so "
        "differences and ratios are taken seed by seed."
    )
    yield Heading(2, "What is the paper's, and what is not")
    yield Paragraph("What the paper does, as far as its abstract and public summaries tell:")
    yield Bullets(paper.facts)
    yield Paragraph(paper.derived)
    for section in reproduced.sections:
        yield from _section(section, folder)
    yield Heading(2, "Machine")
    yield Bullets(
        (
            describe_machine(),
            describe_versions(),
            "Modelled joules and seconds, losses and accuracies follow from settings and seeds alone; only "
            "wall seconds are the machine's.",
        )
    )


def _state(reproduced: Reproduced, call: Call) -> Iterator[Block]:
    """Say how much of the page there is, and what is missing."""
    text = f"{reproduced.num_finished} of {count(reproduced.num_runs, 'run')} finished"
    text += f", {reproduced.num_before} of them by an earlier call" if reproduced.num_before else ""
    text += f"; this call took {reproduced.wall_s:.0f} s of wall time with {call.jobs} at a time."
    yield Paragraph(text)
    if call.interrupted:
        yield Paragraph(
            "**Interrupted: this page holds what was finished by then.** The same command goes on."
        )
    if reproduced.failures:
        yield Paragraph(f"**{count(len(reproduced.failures), 'run')} failed**, and no mean below has them:")
        named = [f"{one.title}: {one.reason}" for one in reproduced.failures[:MAX_NAMED]]
        more = len(reproduced.failures) - MAX_NAMED
        yield Bullets([*named, *([f"and {more} more"] if more > 0 else [])])


def _section(section: Section, folder: Path) -> Iterator[Block]:
    comparison, shown = section.comparison, section.shown
    yield Heading(2, comparison.title)
    yield Paragraph(comparison.text)
    if shown is None:
        yield Paragraph("**No run of this comparison was finished.**")
    else:
        yield Picture(_picture(folder, comparison), shown.caption)
        yield Table(
            head=("claim", "verdict", "what was measured"),
            rows=[(verdict.claim, verdict.outcome, verdict.finding) for verdict in shown.verdicts],
        )
        for note in shown.notes:
            yield Paragraph(note)
        yield shown.table
    yield Paragraph(
        f"Settings: `experiments/papers/{comparison.file.name}`, "
        f"{count(len(comparison.arms), 'arm')}, seeds {_in_short(comparison.seeds)}; {section.num_finished} "
        f"of {len(comparison.arms) * len(comparison.seeds)} runs, {section.runs_wall_s:.0f} s of wall time "
        "in all when each is counted by itself."
    )
    overrides = [
        f"{arm.name}: {' '.join(f'--set {one}' for one in arm.overrides)}" for arm in comparison.arms
    ]
    yield Details("What each arm changes", "\n".join(overrides))
    first = next(iter(comparison.experiments().values()))
    yield Details(f"The first arm's experiment, whole ({comparison.arms[0].name})", dump(first))


def _in_short(seeds: Sequence[int]) -> str:
    """Write seeds in order, a run of them by its ends."""
    first, last = seeds[0], seeds[-1]
    if len(seeds) > 2 and tuple(seeds) == tuple(range(first, last + 1)):
        return f"{first} to {last}"
    return ", ".join(map(str, seeds))


def _picture(folder: Path, comparison: Comparison) -> Path:
    return folder / f"{comparison.name}.png"
