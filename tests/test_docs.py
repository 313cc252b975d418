"""The docs against the code: what they name exists, and what is on the wire is there, byte by byte."""

import json
import re
import tomllib
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from pydantic import BaseModel

from coordinator.events import Event
from coordinator.plan import Plan
from coordinator.summary import Summary
from node.partial import Partial
from protocol import messages
from protocol.codec import Chunk, Layout
from protocol.config import Experiment
from protocol.frame import FLAG_FINAL, FLAG_LEAVES, FLAG_VOID, VERSION, Kind, shape_of
from protocol.messages import PROTOCOL_VERSION
from protocol.scalars import NUM_BYTES, Scalars

ROOT = Path(__file__).parents[1]
PAGES = {
    path.relative_to(ROOT): path.read_text(encoding="utf-8")
    for path in sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
}
WIRE, OPERATIONS = (PAGES[Path("docs") / name] for name in ("wire.md", "operations.md"))
pages = pytest.mark.parametrize("page", PAGES, ids=str)


def names(model, prefix=""):
    """Return the dotted names of all fields of a model, those of its sections included."""
    found = set()
    for name, field in model.model_fields.items():
        found.add(f"{prefix}{name}")
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found |= names(kind, f"{prefix}{name}.")
    return found


def section(page, heading):
    """Return what stands below a heading, up to the next one."""
    (text,) = re.findall(rf"^#+ {re.escape(heading)}\n(.+?)(?=^#|\Z)", page, re.MULTILINE | re.DOTALL)
    return text


def column(text, number=1):
    """Return what stands in backticks in a column of a page's tables."""
    cells = [line.split(" | ")[number - 1] for line in text.split("\n") if line.startswith("| ")]
    return [name for cell in cells for name in re.findall(r"`(.+?)`", cell)]


def anchors(page):
    """Return what a page's headings are linked by."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page, flags=re.M | re.S), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pages
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\((?!https?:)([^)]+)\)", PAGES[page]):
        name, _, anchor = target.partition("#")
        path = (ROOT / page.parent / name).resolve() if name else ROOT / page
        assert path.exists(), target
        if anchor:
            assert anchor in anchors(PAGES[path.relative_to(ROOT)]), target


@pages
def test_every_key_that_is_named_exists(page):
    """Keys of experiments, and what `hearsay plan --json` calls alike."""
    sections = "|".join({name.partition(".")[0] for name in names(Experiment) if "." in name})
    spans = re.findall(r"`([^`\n]+)`", PAGES[page])
    settings = re.findall(r"(?<=--set )\S+(?==)", PAGES[page])
    known = names(Experiment) | names(Plan)
    for span in (*spans, *settings):
        if named := re.fullmatch(rf"((?:{sections})\.[a-z][a-z_.]*)(?: ?=.*)?", span):
            assert named[1] in known or named[1].endswith(".md"), span


@pages
def test_every_experiment_of_a_page_is_one(page):
    for block in re.findall(r"^```toml\n(.+?)^```", PAGES[page], re.MULTILINE | re.DOTALL):
        Experiment.model_validate(tomllib.loads(block))


def test_every_page_is_linked_from_the_readme():
    readme = PAGES[Path("README.md")]
    linked = {target.partition("#")[0] for target in re.findall(r"\]\((docs/[^)]+\.md[^)]*)\)", readme)}
    assert linked >= {str(page) for page in PAGES if page.parent == Path("docs")}


def test_the_wire_has_the_kinds_flags_and_versions_of_its_page():
    (kinds,) = re.findall(r"\| uint8 \| kind \| (.+?) \|", WIRE)
    assert [(int(n), words) for n, words in re.findall(r"(\d) ([a-z ]+)", kinds)] == [
        (Kind.PARAMETERS, "parameters"),
        (Kind.ACK, "acknowledgement"),
        (Kind.SCALE, "scale"),
        (Kind.GONE_ON, "gone on"),
    ]
    assert len(Kind) == 4
    checked = shape_of(Layout("float32", 1, 512, checked=True))[1]
    flags = {"checked": checked, "final": FLAG_FINAL, "leaves": FLAG_LEAVES, "void": FLAG_VOID}
    bits = re.findall(r"^\| (\d) \| (\w+) \|", section(WIRE, "Flags"), re.MULTILINE)
    assert {name: 1 << int(bit) for bit, name in bits} == flags
    assert f"that of frames is {VERSION} " in WIRE
    assert f"that of control messages is {PROTOCOL_VERSION} " in WIRE


def test_side_information_lies_as_the_page_says():
    """Scalars, counts, padding, numbers, trailers: written by us, read as docs/wire.md has it."""
    text = section(WIRE, "Side information")
    table = re.findall(r"^\| (\d+) \| 4 \| `(\w+)` \|", text, re.MULTILINE)
    scalars = Scalars(*np.arange(1.0, 5.0).tolist())
    layout = Layout("float32", 1000, 512, checked=True)
    for adaptive, start in ((True, 16), (False, 0)):
        partial = Partial(Chunk(slice(0, 1000), layout), members=9, adaptive=adaptive)
        partial.scalars, partial.counts = scalars, np.arange(1, 9)
        shape = partial.shape(0)
        side = np.zeros(shape.side_bytes, dtype=np.uint8)
        partial.write_side(side)
        written = side.tobytes()
        if adaptive:
            for number, (offset, name) in enumerate(table):
                value = np.frombuffer(written, "<f4", 1, int(offset))[0]
                assert value == getattr(scalars, name) == number + 1
            assert len(table) == NUM_BYTES // 4
        assert np.frombuffer(written, "<u2", 8, start).tolist() == list(range(1, 9))
        assert shape.side_bits == 8 * start + 16 * 8
        parts = "16 + 16" if adaptive else "16"
        assert f"{parts} + 4032 = {shape.side_bytes + layout.payload_bytes}" in text.replace("\n", " ")


def test_every_control_message_is_on_the_page():
    table = section(WIRE, "Control plane")
    sent = {"device": messages.FromDevice, "coordinator": messages.FromCoordinator}
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", table, re.MULTILINE)
    assert sorted(rows) == sorted(
        (kind.model_fields["kind"].default, who)
        for who, union in sent.items()
        for kind in get_args(get_args(union)[0])
    )


@pytest.mark.parametrize(
    ("heading", "models"),
    [
        ("Schedule", [messages.TreePlace, messages.RingPlace]),
        ("Prospect", [messages.Prospect]),
        ("Averaged", [messages.Averaged]),
        ("Pilot", [messages.Pilot]),
    ],
)
def test_every_field_of_what_schedules_bring_is_on_the_page(heading, models):
    text = section(WIRE, heading)
    named = set(column(text, 1)) | set(column(text, 2)) if heading == "Schedule" else set(column(text))
    assert {name for model in models for name in model.model_fields} == named - {"tree", "ring"}


def test_the_summary_is_on_the_page_key_by_key():
    assert set(column(section(OPERATIONS, "summary.json"))) == set(Summary.model_fields)


def test_the_events_are_on_the_page_key_by_key():
    """Every kind has a paragraph and a real line, which may be shortened where a mark stands."""
    text = section(OPERATIONS, "events.jsonl")
    kinds = {kind.model_fields["kind"].default: kind for kind in get_args(get_args(Event)[0])}
    assert set(re.findall(r"^\*\*`(\w+)`\*\*", text, re.MULTILINE)) == set(kinds)
    lines = re.findall(r"^```json\n(.+)\n```", text, re.MULTILINE)
    assert {json.loads(re.sub(r",?…", "", line))["kind"] for line in lines} == set(kinds)
    for line in lines:
        event = json.loads(re.sub(r",?…", "", line))
        fields = kinds[event["kind"]].model_fields
        assert set(event) <= set(fields)
        assert {name for name, field in fields.items() if field.is_required()} <= set(event)
    report = messages.Report
    told = set(column(text)) | {"kind", "run_id", "device", "round"}
    assert set(report.model_fields) <= told
    for name in ("heard", "spent", "averaged"):
        model = {"heard": messages.Heard, "spent": messages.Spent, "averaged": messages.Averaged}[name]
        assert {f"….{field}" for field in model.model_fields} <= told, name
