"""A page as a list of blocks, written as Markdown and as one HTML file that needs nothing else."""

import re
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeAlias

from coordinator.reproduce.comparison import Table


@dataclass(frozen=True)
class Heading:
    """A heading; level 1 is the page's own."""

    level: int
    text: str


@dataclass(frozen=True)
class Paragraph:
    """Running text; `**words**` are bold and `` `words` `` are code."""

    text: str


@dataclass(frozen=True)
class Bullets:
    """A list."""

    items: Sequence[str]


@dataclass(frozen=True)
class Picture:
    """A figure: a PNG file beside the page, embedded in HTML."""

    file: Path
    caption: str


@dataclass(frozen=True)
class Details:
    """Text as it is, folded away in HTML."""

    summary: str
    text: str


Block: TypeAlias = Heading | Paragraph | Bullets | Picture | Details | Table

STYLE = """\
body { font: 16px/1.5 system-ui, sans-serif; color: #333 }
body { max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; line-height: 1.25 } h2 { font-size: 1.25rem; margin-top: 2.5rem }
h3 { font-size: 1rem }
table { border-collapse: collapse; font-size: .875rem; margin: 1rem 0; display: block; overflow-x: auto }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top }
th { border-bottom: 2px solid #777 }
figure { margin: 1rem 0 } img { max-width: 100% } figcaption { font-size: .875rem; color: #666 }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: .8rem }
code { background: #f6f6f6 } summary { cursor: pointer; color: #0072B2 }
.shows { color: #00704f; font-weight: 600 } .not { color: #c00000; font-weight: 600 }
.undecided { color: #8a6d00; font-weight: 600 }
"""
_CLASSES = {"shows": "shows", "does not show": "not", "not decided": "undecided"}


def to_markdown(blocks: Sequence[Block]) -> str:
    """Write a page as Markdown; figures are linked."""
    return "\n\n".join(_markdown(block) for block in blocks) + "\n"


def to_html(blocks: Sequence[Block]) -> str:
    """Write a page as HTML with everything in it."""
    title = next(block.text for block in blocks if isinstance(block, Heading))
    body = "\n".join(_html(block) for block in blocks)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def _markdown(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"{'#' * level} {text}"
        case Paragraph(text):
            return text
        case Bullets(items):
            return "\n".join(f"- {item}" for item in items)
        case Picture(file, caption):
            return f"![{caption}]({file.name})\n\n*{caption}*"
        case Details(summary, text):
            return f"{summary}:\n\n```\n{text.rstrip()}\n```"
        case Table(head, rows):
            lines = [head, ("---",) * len(head), *rows]
            return "\n".join(
                "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
            )


def _html(block: Block) -> str:
    match block:
        case Heading(level, text):
            return f"<h{level}>{_inline(text)}</h{level}>"
        case Paragraph(text):
            return f"<p>{_inline(text)}</p>"
        case Bullets(items):
            return "<ul>\n" + "\n".join(f"<li>{_inline(item)}</li>" for item in items) + "\n</ul>"
        case Picture(file, caption):
            data = b64encode(file.read_bytes()).decode()
            return (
                f'<figure><img src="data:image/png;base64,{data}" alt="{escape(caption)}">'
                f"<figcaption>{_inline(caption)}</figcaption></figure>"
            )
        case Details(summary, text):
            return f"<details><summary>{_inline(summary)}</summary><pre>{escape(text)}</pre></details>"
        case Table(head, rows):
            cells = "".join(f"<th>{_inline(cell)}</th>" for cell in head)
            lines = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
            return f"<table>\n<thead><tr>{cells}</tr></thead>\n<tbody>\n{lines}\n</tbody>\n</table>"


def _cell(text: str) -> str:
    name = _CLASSES.get(text)
    return f'<td class="{name}">{text}</td>' if name else f"<td>{_inline(text)}</td>"


def _inline(text: str) -> str:
    bold = re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", escape(text))
    return re.sub(r"`(.+?)`", r"<code>\1</code>", bold)
