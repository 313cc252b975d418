"""Pages of made-up and of real runs: what is compared, what is shown, and what a page says is missing."""

import re
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from coordinator.network import lay_out
from coordinator.reproduce.analog import analog_over_snr
from coordinator.reproduce.blocks import Bullets, Details, Heading, Paragraph, Picture, to_html, to_markdown
from coordinator.reproduce.comparison import EXPERIMENTS, Arm, Comparison, Measured, Run, Shown, Table
from coordinator.reproduce.contraction import measured_contraction
from coordinator.reproduce.folder import Mark, page_folder
from coordinator.reproduce.knee import knee
from coordinator.reproduce.links import joint_success, snr_db_for
from coordinator.reproduce.page import Call, write_page
from coordinator.reproduce.papers import PAPERS, REGRESSION, find_paper
from coordinator.reproduce.reproduce import Failure, Reproduced, Section, tasks_of
from coordinator.reproduce.success import accuracy_over_success
from coordinator.reproduce.verdicts import Verdict
from coordinator.summary import Summary
from protocol.errors import BadInput
from protocol.experiment_file import load
from protocol.link import mean_packet_loss

SOFTMAX, DIGITS = EXPERIMENTS / "p2-digits-softmax.toml", EXPERIMENTS / "p2-digits.toml"


def summary(**changes):
    """Return the summary of a run of which nothing is known, unless changed."""
    usual = {
        name: field.default if not field.is_required() else 0 for name, field in Summary.model_fields.items()
    }
    usual |= {"run_id": "r", "run_dir": "d", "how": "finished", "transport": "memory", "clock": "virtual"}
    usual |= {"valid": True, "invalid_reason": "", "devices_lost": (), "pids": (), "joules_per_device": ()}
    return Summary(**(usual | {"joules_per_link": {}, "packets_sent": 100} | changes))


def measured(comparison, came):
    """Make up the runs of a comparison: `came` returns an arm's summary for a seed; None: no run."""
    runs = []
    for (arm, seed), experiment in comparison.experiments().items():
        changes = came(arm, seed)
        if changes is not None:
            runs.append(Run(arm, experiment, summary(**changes), Path("nowhere")))
    return Measured(tuple(runs))


def outcomes(shown):
    return [verdict.outcome for verdict in shown.verdicts]


def arm_of(text):
    """Return the p that an arm's name ends in, and what stands before it."""
    line, _, p = text.rpartition("p = ")
    return line.rstrip(", "), float(p)


# Links


@pytest.mark.parametrize("success", [0.9, 0.5, 0.1])
def test_links_are_as_good_as_they_should_be(success):
    experiment = load(SOFTMAX)
    snr_db = snr_db_for(experiment, success)
    loss = mean_packet_loss(experiment.radio, snr_db, 8 * experiment.codec.packet_bytes)
    assert (1 - loss) ** 2 == pytest.approx(success, rel=1e-4)  # without fading both directions are apart
    assert snr_db_for(experiment, 1.0) > snr_db


def test_a_common_fade_makes_both_directions_succeed_together():
    experiment = load(SOFTMAX, ["radio.fading=rayleigh"])
    snr_db = snr_db_for(experiment, 0.5)
    one_way = 1 - mean_packet_loss(experiment.radio, snr_db, 8 * experiment.codec.packet_bytes)
    assert one_way**2 < joint_success(experiment, snr_db) < one_way
    assert joint_success(experiment, snr_db) == pytest.approx(0.5, abs=1e-5)


# Papers


@pytest.mark.parametrize("name", PAPERS)
@pytest.mark.parametrize("size", ["quick", "full"])
def test_every_run_of_a_page_can_be_and_has_a_place_of_its_own(name, size):
    comparisons = getattr(PAPERS[name], size)()
    assert len({comparison.name for comparison in comparisons}) == len(comparisons)
    tasks = tasks_of(comparisons, Path("page"))
    assert len({task.point.folder for task in tasks}) == len(tasks)
    for comparison in comparisons:
        assert len({arm.name for arm in comparison.arms}) == len(comparison.arms)
        lay_out(next(iter(comparison.experiments().values())))
    if size == "quick":
        assert {task.point.experiment.data.dataset for task in tasks} == {"digits"}
        assert {task.point.experiment.transport.kind for task in tasks} == {"memory"}
    else:
        assert {"fashion_mnist", "cifar10"} < {task.point.experiment.data.dataset for task in tasks}


def test_a_paper_that_is_none_names_the_nearest():
    with pytest.raises(BadInput, match=r"reproduce p3: no such paper; .*p[12]"):
        find_paper("p3")


def test_budgets_are_the_same_in_all_arms_and_adaptive_has_the_rounds_of_the_file():
    comparison, *_ = PAPERS["p1"].quick()
    found = comparison.experiments()
    assert len({experiment.budget for experiment in found.values()}) == 1
    for (arm, _), experiment in found.items():
        assert (experiment.rounds == load(comparison.file).rounds) == (arm == "adaptive")
        assert experiment.training.is_adaptive == (arm == "adaptive")


def test_an_arm_sets_the_snr_that_its_p_wants():
    comparison = accuracy_over_success(SOFTMAX, successes=(1.0, 0.5), seeds=(1,))
    base = load(SOFTMAX)
    for (arm, _), experiment in comparison.experiments().items():
        assert experiment.radio.snr_db == pytest.approx(snr_db_for(base, arm_of(arm)[1]), abs=1e-4)


# What is shown of made-up runs


@pytest.mark.parametrize(
    ("error", "expected"),
    [(1.0, ["shows", "shows"]), (1.3, ["does not show", "shows"]), (0.7, ["does not show", "shows"])],
)
def test_contraction_is_held_against_theory_on_the_complete_graph(error, expected):
    successes = (0.9, 0.5)
    comparison = measured_contraction(SOFTMAX, successes=successes, seeds=(1, 2, 3))

    def came(arm, seed):
        if arm == "no exchange":
            return {"consensus_distance": 2.0 * seed}
        graph, p = arm_of(arm)
        # (14) of docs/theory.md for W = J of ten devices: mu = 1, w = 1/10; a ring's is above 0.7.
        rho = (1 - p) ** 2 + 2 * p * (1 - p) / 10 if graph == "complete" else 0.3
        return {"consensus_distance": 2.0 * seed * (rho * error) ** 0.5}

    shown = comparison.show(measured(comparison, came))
    assert outcomes(shown) == expected
    row = next(row for row in shown.table.rows if row[:2] == ("complete", "0.5"))
    assert row[4] == "0.3"  # 0.25 + 0.05


def test_a_ring_that_agrees_more_slowly_than_theory_says_is_found_out():
    comparison = measured_contraction(SOFTMAX, successes=(0.5,), seeds=(1, 2))
    shown = comparison.show(measured(comparison, lambda arm, seed: {"consensus_distance": float(seed)}))
    assert outcomes(shown)[1] == "does not show"  # nothing was taken off the distance


def test_p_min_divides_what_the_bound_promises_from_what_it_does_not():
    comparison = accuracy_over_success(SOFTMAX, successes=(1.0, 0.9, 0.1), seeds=(1, 2, 3))

    def came(arm, seed):
        _, p = arm_of(arm)
        return {"accuracy_mean": 0.5 * (p > 0.2) + 0.01 * seed, "consensus_distance": 1e-3 / p**2}

    shown = comparison.show(measured(comparison, came))
    assert outcomes(shown) == ["shows", "shows", "shows"]
    assert [row[4] == "no bound: below p_min" for row in shown.table.rows] == [False, False, True]
    far = measured(comparison, lambda arm, seed: came(arm, seed) | {"consensus_distance": 10.0 + seed})
    assert outcomes(comparison.show(far)) == ["does not show", "shows", "does not show"]


def test_the_knee_is_the_least_p_that_learns_as_well():
    comparison = knee(
        DIGITS, (("regression", REGRESSION), ("CNN", ())), successes=(1.0, 0.7, 0.5, 0.1), seeds=(1, 2)
    )
    limits = {"regression": 0.6, "CNN": 0.2}

    def came(arm, seed):
        line, p = arm_of(arm)
        return {"accuracy_mean": 0.9 + 0.01 * seed - 0.4 * (p < limits[line]), "consensus_distance": 1 / p}

    shown = comparison.show(measured(comparison, came))
    assert shown.notes == ("regression: the knee is at p = 0.7.", "CNN: the knee is at p = 0.5.")
    assert outcomes(shown) == ["shows"] * 4
    assert "the bound gives no p_min" in comparison.text
    flat = measured(comparison, lambda arm, seed: {"accuracy_mean": 0.9})
    assert outcomes(comparison.show(flat)) == ["shows", "does not show"] * 2


def test_analog_payloads_are_compared_seed_by_seed():
    comparison = analog_over_snr(DIGITS, REGRESSION, snrs_db=(0, 20), seeds=(1, 2, 3))

    def came(arm, seed):
        worse = arm == "models, 0 dB"
        return {
            "accuracy_mean": 0.3 * seed - 0.2 * worse,
            "consensus_distance": seed * (4.0 if worse else 1.0),
        }

    assert outcomes(comparison.show(measured(comparison, came))) == ["shows", "shows", "shows"]
    same = measured(comparison, lambda arm, seed: {"accuracy_mean": 0.5, "consensus_distance": 1.0})
    assert outcomes(comparison.show(same)) == ["shows", "does not show", "shows"]


# The page


def make_comparison(**changes):
    usual = {"name": "one", "title": "One thing", "text": "What it is.", "file": SOFTMAX}
    usual |= {"arms": (Arm("a"), Arm("b", ("rounds=3",))), "seeds": (1, 2), "show": lambda measured: None}
    return Comparison(**(usual | changes))


def make_shown():
    figure = Figure(figsize=(2, 1))
    figure.subplots().plot([1, 2])
    return Shown(
        figure=figure,
        caption="A figure.",
        table=Table(("x", "y"), [("1", "a | b < c")]),
        verdicts=(Verdict("It holds", "shows", "1 ± 0"), Verdict("So does this", "does not show", "2 ± 0")),
        notes=("A note.",),
    )


def make_page(folder, *, interrupted=False, **changes):
    usual = {
        "sections": (Section(make_comparison(), make_shown(), 4, 8.0),),
        "failures": (),
        "num_runs": 4,
        "num_finished": 4,
        "num_before": 0,
        "wall_s": 12.0,
    }
    call = Call("hearsay reproduce p2 --quick", quick=True, jobs=2, interrupted=interrupted)
    write_page(PAPERS["p2"], Reproduced(**(usual | changes)), call, folder)
    return (folder / "index.html").read_text(), (folder / "page.md").read_text()


def test_a_page_has_its_claims_settings_and_machine(tmp_path):
    html, markdown = make_page(tmp_path)
    for text in (html, markdown):
        assert "hearsay reproduce p2 --quick" in text
        assert "arXiv 2308.06496" in text
        assert "4 of 4 runs finished; this call took 12 s of wall time with 2 at a time" in text
        assert text.count("does not show") >= 3
        assert "b: --set rounds=3" in text
        assert "learning_rate = 0.0065" in text
        assert "seeds 1, 2" in text
        assert "Python 3" in text
    assert "a | b &lt; c" in html
    assert "a \\| b < c" in markdown
    assert "![A figure.](one.png)" in markdown


def test_an_html_page_needs_nothing_beside_it(tmp_path):
    html, _ = make_page(tmp_path)
    assert re.findall(r'src="([a-z/:]+)', html) == ["data:image/png"]
    assert not re.search(r"<script|<link|url\(", html)
    assert (tmp_path / "one.png").read_bytes().startswith(b"\x89PNG")


def test_a_page_says_what_is_missing(tmp_path):
    for text in make_page(
        tmp_path,
        interrupted=True,
        failures=(Failure("one, a, seed 1", "no <luck>"),),
        num_finished=1,
        num_before=1,
        sections=(Section(make_comparison(), None, 0, 0.0),),
    ):
        assert "1 of 4 runs finished, 1 of them by an earlier call" in text
        assert "Interrupted" in text
        assert "1 run failed" in text
        assert re.search(r"one, a, seed 1: no (<|&lt;)luck", text)
        assert "No run of this comparison was finished." in text


def test_blocks_are_written_both_ways(tmp_path):
    figure = tmp_path / "f.png"
    figure.write_bytes(b"png")
    blocks = [
        Heading(1, "T & U"),
        Paragraph("**bold** `code` <b>"),
        Bullets(("x", "y")),
        Picture(figure, "caption"),
        Details("more", "a < b"),
        Table(("h",), [("not decided",)]),
    ]
    html, markdown = to_html(blocks), to_markdown(blocks)
    assert "<title>T &amp; U</title>" in html
    assert "<p><strong>bold</strong> <code>code</code> &lt;b&gt;</p>" in html
    assert "<pre>a &lt; b</pre>" in html
    assert '<td class="undecided">not decided</td>' in html
    assert "# T & U\n\n**bold** `code` <b>\n\n- x\n- y\n\n![caption](f.png)" in markdown
    assert "```\na < b\n```\n\n| h |\n| --- |\n| not decided |\n" in markdown


# Its folder


def test_a_folder_is_taken_up_again_by_the_same_page_alone(tmp_path):
    out = tmp_path / "page"
    with page_folder(out, Mark(paper="p1", quick=True)) as path:
        assert path == out
        with (
            pytest.raises(BadInput, match="another hearsay is at work"),
            page_folder(out, Mark(paper="p1", quick=True)),
        ):
            pass
    with page_folder(out, Mark(paper="p1", quick=True)):
        pass
    for other in (Mark(paper="p1", quick=False), Mark(paper="p2", quick=True)):
        with pytest.raises(BadInput, match="holds the page of reproduce p1 --quick"), page_folder(out, other):
            pass


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "mine").write_text("keep")
    with pytest.raises(BadInput, match="holds no page"), page_folder(tmp_path, Mark(paper="p1", quick=True)):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
