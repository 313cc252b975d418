"""Whole pages of real runs, tiny ones: every comparison, one that fails, going on, and Ctrl-C."""

import json
import os
import re
import signal
import subprocess
import sys

import pytest
from conftest import RUN_WALL_S, end_session, session, wait_until

from coordinator.reproduce.comparison import EXPERIMENTS

pytestmark = pytest.mark.processes

# Both papers' comparisons, with few rounds, few seeds and few arms.
TINY = """\
import sys
from dataclasses import replace
from pathlib import Path
from coordinator.cli import app
from coordinator.reproduce import papers
from coordinator.reproduce.adaptive import adaptive_against_fixed, adaptive_over_schemes
from coordinator.reproduce.analog import analog_over_snr
from coordinator.reproduce.bounds import gradients_against_bounds
from coordinator.reproduce.comparison import Arm
from coordinator.reproduce.contraction import measured_contraction
from coordinator.reproduce.energy import aggregation_energy
from coordinator.reproduce.knee import knee
from coordinator.reproduce.split import local_rounds_at_equal_joules
from coordinator.reproduce.success import accuracy_over_success

files, seeds = Path(sys.argv[1]), (1, 2)
softmax, digits, joules = (files / f"p2-digits{end}.toml" for end in ("-softmax", "", "-joules"))

def p1():
    few = ("rounds=2",)
    fixed = adaptive_against_fixed(files / "p1-digits.toml", few, local_rounds=(20,), seeds=seeds)
    poor = Arm("poor", ("budget.joules=1e-6",))
    return (
        replace(fixed, arms=(*fixed.arms, poor)),
        aggregation_energy(files / "p1-energy.toml", seeds=seeds),
        adaptive_over_schemes(
            files / "p1-digits.toml", {"tree": few, "ring": (*few, "aggregation.scheme=ring")}, seeds=(1,)
        ),
    )

def p2():
    split = local_rounds_at_equal_joules(joules, local_rounds=(60, 200), practical_rate=0.5, seeds=seeds)
    cheap = [replace(arm, overrides=(*arm.overrides, "budget.joules=0.2")) for arm in split.arms]
    return (
        measured_contraction(softmax, successes=(1.0, 0.5), seeds=seeds),
        accuracy_over_success(softmax, successes=(1.0, 0.5), seeds=seeds[:1]),
        gradients_against_bounds(softmax, successes=(1.0,), snrs_db=(10,), seeds=seeds[:1]),
        knee(digits, (("regression", (*papers.REGRESSION, "rounds=2")),), successes=(1.0, 0.1), seeds=seeds),
        analog_over_snr(digits, (*papers.REGRESSION, "rounds=2"), snrs_db=(10,), seeds=seeds),
        replace(split, arms=tuple(cheap)),
    )

papers.PAPERS = {
    "p1": replace(papers.PAPERS["p1"], quick=p1), "p2": replace(papers.PAPERS["p2"], quick=p2)
}
app(sys.argv[2:])
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", TINY, str(EXPERIMENTS), "reproduce", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


@pytest.fixture
def tiny():
    """Start tiny pages; none of their processes outlives the test."""
    pages = []

    def begin(*arguments):
        pages.append(start(*arguments))
        return pages[-1]

    yield begin
    for page in pages:
        end_session(page)


def finish(page):
    stdout, stderr = page.communicate(timeout=RUN_WALL_S)
    return page.returncode, stdout, stderr


def verdicts(markdown):
    """Return claim -> verdict of the table at the top."""
    lines = markdown.split("## Claims")[1].split("An interval is")[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("| ")][2:]
    return {row[1]: row[2] for row in rows}


def test_the_first_papers_page_shows_its_claims_and_names_what_failed(tiny, tmp_path):
    code, stdout, stderr = finish(tiny("p1", "--quick", "--out", tmp_path / "page"))
    assert "Traceback" not in stderr
    assert code == 1  # two runs cannot pay for a single round
    assert stdout.count("FAILED: adaptive-digits, poor, seed") == 2
    markdown = (tmp_path / "page" / "page.md").read_text()
    assert "**2 runs failed**" in markdown
    assert "budget.joules: device " in markdown
    found = verdicts(markdown)
    assert found["No device spends more than its budget"] == "shows"
    # Two drops make wide intervals, but not so wide that what costs half as much could cost more.
    assert found["The minimum-energy tree takes less than 0.9 of the spanning tree"] != "does not show"
    assert found["Trees and ring take what the coordinator had predicted, within 10 %"] != "does not show"
    shares = dict(re.findall(r"^\| ([a-z -]+) \| [^|]+ \| ([0-9.]+) ± ", markdown, re.MULTILINE))
    assert float(shares["full mesh"]) == 100
    assert 5 < float(shares["minimum-energy tree"]) < float(shares["spanning tree"]) < 25
    assert float(shares["spanning tree"]) < float(shares["ring"]) < 30
    html = (tmp_path / "page" / "index.html").read_text()
    assert html.count("data:image/png") == 3


def interrupt(page):
    """Press Ctrl-C, as a terminal does: the whole group gets it."""
    os.killpg(page.pid, signal.SIGINT)
    code, _, stderr = finish(page)
    assert "Traceback" not in stderr
    assert code == 128 + signal.SIGINT
    wait_until(lambda: not session(page))


def test_the_second_papers_page_goes_on_after_ctrl_c(tiny, tmp_path):
    out = tmp_path / "page"
    page = tiny("p2", "--quick", "--out", out)
    wait_until(lambda: len(list(out.glob("points/*seed=?/summary.json"))) >= 3, page)
    interrupt(page)
    markdown = (out / "page.md").read_text()
    assert "Interrupted" in markdown
    finished = int(re.search(r"(\d+) of \d+ runs finished", markdown).group(1))
    before = {
        path: json.loads(path.read_text())["run_id"] for path in out.glob("points/*seed=?/summary.json")
    }
    assert 3 <= finished == len(before)

    code, _, stderr = finish(tiny("p2", "--quick", "--out", out))
    assert "Traceback" not in stderr
    assert code == 0
    assert all(json.loads(path.read_text())["run_id"] == run_id for path, run_id in before.items())
    markdown = (out / "page.md").read_text()
    assert f"{len(before)} of them by an earlier call" in markdown
    assert "Interrupted" not in markdown
    assert not list(out.glob("points/*.partial"))
    assert len(list(out.glob("*.png"))) == 6
    found = verdicts(markdown)
    # One seed: there is no interval.
    assert found["From p_min on, consensus is at least as near as the bound allows"] == "not decided"
    ratio = re.search(r"^\| complete \| 0.5 \| ([0-9.]+) ± \S+ \| ([0-9.]+) ± \S+ \| 0.3 \|", markdown, re.M)
    success, left = map(float, ratio.groups())
    # Of 45 x 50 packets of each seed a fair coin loses the half: 0.01 to either side, and so the distance.
    assert success == pytest.approx(0.5, abs=0.05)
    assert left == pytest.approx(0.3, abs=0.1)
    measured, bound = map(float, re.search(r"digital, p = 1 \| ([0-9.]+) \| ([0-9.]+)", markdown).groups())
    assert 0.05 < measured < bound  # the squared gradient is below 0.5 at the start


def test_ctrl_c_ends_a_page_that_has_not_begun(tiny, tmp_path):
    """While the fork server imports torch it would die of the signal, and with it the command."""
    out = tmp_path / "page"
    page = tiny("p1", "--quick", "--out", out)
    wait_until(lambda: list(out.glob("points/*.partial")), page)
    interrupt(page)
    assert "0 of 20 runs finished" in (out / "page.md").read_text()
