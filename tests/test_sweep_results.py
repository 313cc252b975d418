"""What a sweep shows of its points: record, table, lines while it runs, and picture."""

import json
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from builders import make_report
from matplotlib.figure import Figure
from rich.console import Console

from coordinator.summary import Summary
from coordinator.sweep.figure import MAX_LINES, draw, draw_key, draw_quantity, why_no_picture
from coordinator.sweep.folder import PICTURE
from coordinator.sweep.grid import lay_out_grid
from coordinator.sweep.progress import SweepView
from coordinator.sweep.quantities import QUANTITIES, axis_label
from coordinator.sweep.record import SweepRecord, make_record
from coordinator.sweep.runner import Point, Result
from coordinator.sweep.sweep import Swept
from coordinator.sweep.table import print_results, results_table
from protocol.config import Experiment

BY_NAME = {quantity.name: quantity for quantity in QUANTITIES}
NAN = float("nan")


def summary(**changes):
    """Return the summary of a run in which every tenth packet was lost, unless changed."""
    usual = {
        name: field.default if not field.is_required() else 0 for name, field in Summary.model_fields.items()
    }
    usual |= {"run_id": "r", "run_dir": "d", "how": "finished", "transport": "zmq", "clock": "virtual"}
    usual |= {"valid": True, "invalid_reason": "", "devices_lost": (), "pids": (), "joules_per_device": ()}
    usual |= {"joules_per_link": {}, "accuracy_mean": 0.9, "packets_sent": 100, "packets_lost": 10}
    return Summary(**(usual | {"joules": 5.0, "air_s": 2.0, "consensus_distance": 0.5} | changes))


@pytest.fixture
def sweep(small):
    """Make the record of a sweep of the small experiment from what came of each of its settings."""

    def sweep(*axes, came, sets=()):
        grid = lay_out_grid(small, sets, axes)
        results = {}
        for number, point in enumerate(grid.points):
            result = came(*point.settings.values())
            if result is not None:
                results[number] = result if isinstance(result, Result) else Result(summary(**result))
        return make_record(grid, results, [point.name for point in grid.points])

    return sweep


def panel(record, name):
    axes = Figure().add_subplot()
    draw_quantity(axes, record, BY_NAME[name])
    return axes


def shown(table, width=160):
    console = Console(file=StringIO(), width=width)
    console.print(table)
    return console.file.getvalue()


# The record


def test_a_cell_is_what_differs_in_its_seed_alone(sweep):
    record = sweep(
        "seed=1:3",
        "radio.tx_power_dbm=0:5:5",
        came=lambda seed, power: {"accuracy_mean": 0.5 + 0.1 * seed + 0.01 * power},
    )
    assert [cell.settings for cell in record.cells] == [
        {"radio.tx_power_dbm": 0.0},
        {"radio.tx_power_dbm": 5.0},
    ]
    for cell, mean in zip(record.cells, (0.7, 0.75), strict=True):
        assert (cell.num_points, cell.num_finished) == (3, 3)
        found = cell.estimates["accuracy_mean"]
        # s = 0.1, and Student's table has 4.303 for two degrees of freedom.
        assert found.mean == pytest.approx(mean)
        assert found.half_width == pytest.approx(4.303 * 0.1 / 3**0.5, rel=1e-3)
        assert found.n == 3


def test_what_a_run_does_not_have_is_in_no_mean(sweep):
    record = sweep("seed=1:3", came=lambda seed: {"joules": None if seed == 2 else float(seed)})
    assert record.cells[0].estimates["joules"].n == 2
    assert record.cells[0].estimates["joules"].mean == 2.0
    nothing = sweep("seed=1:3", came=lambda seed: {"joules": None})
    assert "joules" not in nothing.cells[0].estimates


@pytest.mark.parametrize(("scheme", "loss"), [("digital", 0.1), ("analog", None), ("ideal", None)])
def test_packet_loss_is_that_of_a_digital_radio(sweep, scheme, loss):
    record = sweep("seed=1", came=lambda seed: {}, sets=[f"radio.scheme={scheme}"])
    assert record.points[0].numbers.packet_loss == loss


@pytest.mark.parametrize(
    "fault", [{"devices_lost": (1,)}, {"frames_missing_wall": 3}, {"valid": False, "invalid_reason": "slow"}]
)
def test_a_run_with_faults_of_the_host_is_told_of(sweep, fault):
    record = sweep("seed=1:2", came=lambda seed: fault if seed == 2 else {})
    assert [point.sound for point in record.points] == [True, False]
    assert "1 finished with devices lost, frames not delivered, or an invalid clock" in shown(
        results_table(record)
    )


def test_a_record_is_read_as_it_was_written_even_where_models_diverged(sweep):
    record = sweep(
        "seed=1:2",
        "radio.symmetric=true,false",
        came=lambda seed, symmetric: {"consensus_distance": NAN, "loss_mean": float("inf")},
    )
    text = record.model_dump_json()
    json.loads(text, parse_constant=pytest.fail)  # JSON has neither NaN nor Infinity
    assert SweepRecord.model_validate_json(text).model_dump_json() == text
    assert record.base["devices"] == 4
    assert "seed" not in record.base
    assert "symmetric" not in record.base["radio"]


# The table


def test_the_table_has_means_intervals_and_how_many_seeds_there_were(sweep):
    record = sweep(
        "graph.kind=ring,complete",
        "seed=1:3",
        came=lambda kind, seed: (
            {"accuracy_mean": 0.5 + 0.1 * seed} if kind == "ring" or seed < 3 else Result(None, "boom")
        ),
    )
    text = shown(results_table(record))
    assert "small: 5 of 6 points finished" in text
    ring, complete = (line for line in text.splitlines() if line.startswith("│ "))
    assert ring.split() == [
        *("│", "ring", "│", "3", "│", "0.7000", "±", "0.25", "│", "5", "±", "0", "│", "2", "±", "0"),
        *("│", "0.5", "±", "0", "│", "0.1", "±", "0", "│"),
    ]
    assert complete.split()[:9] == ["│", "complete", "│", "2", "of", "3", "│", "0.6500", "±"]
    assert "mean and 95 % interval by Student's t, n = 2 to 3 seeds" in text


def test_a_narrow_table_leaves_nothing_out(sweep):
    axes = ("radio.tx_power_dbm=0,5", "aggregation.scheme=gossip,tree", "seed=1:2")
    table = results_table(sweep(*axes, came=lambda power, scheme, seed: {"joules": 0.3 + seed / 7}))
    assert "…" not in shown(table, width=80)


def test_settings_that_all_failed_are_lines_of_nothing_and_no_number_of_seeds(sweep):
    came = {"ring": {}, "star": Result(None, "boom")}
    text = shown(results_table(sweep("graph.kind=ring,star", "seed=1:2", came=lambda kind, seed: came[kind])))
    assert "n = 2 seeds" in text
    [star] = (line for line in text.splitlines() if "star" in line)
    assert star.split() == ["│", "star", "│", "0", "of", "2", *["│", "-"] * 5, "│"]


def test_one_seed_has_no_interval_and_says_so(sweep):
    text = shown(results_table(sweep("graph.kind=ring,complete", came=lambda kind: {})))
    assert "±" not in text
    assert "one seed: no interval" in text


def test_numbers_that_differ_by_rounding_alone_have_an_interval_of_nothing(sweep):
    text = shown(results_table(sweep("seed=1:2", came=lambda seed: {"joules": 5 + seed * 1e-15})))
    assert "5 ± 0 " in text


def test_a_number_that_no_point_has_has_no_column_and_one_that_is_not_finite_says_so(sweep):
    text = shown(
        results_table(sweep("seed=1:2", came=lambda seed: {"air_s": None, "consensus_distance": NAN}))
    )
    assert "air s" not in text
    assert "not finite" in text


def printed(record, no_picture=""):
    console = Console(file=StringIO(), width=300)
    print_results(Swept(record, Path("/here"), no_picture), console)
    return console.file.getvalue()


def test_what_is_printed_last_says_what_failed_where_all_is_and_how_to_go_on(sweep):
    record = sweep(
        "seed=1:15",
        came=lambda seed: Result(None, f"[red]boom {seed}") if seed < 13 else {} if seed < 15 else None,
    )
    text = printed(record)
    assert "FAILED: seed=1: [red]boom 1\n" in text
    assert "boom 11" not in text
    assert "FAILED: 2 more; their reasons are in sweep.json" in text
    assert f"picture: /here/{PICTURE}" in text
    assert text.endswith("to go on, give the same command --out /here\n")
    done = printed(sweep("seed=1", came=lambda seed: {}), "seeds alone")
    assert done.endswith("no picture: seeds alone\nsweep folder: /here\n")


# While it runs


def running(console, num_points=3):
    return SweepView(console, "sweep of x", num_points), Point(
        "seed=1", Experiment(devices=2, rounds=4), Path()
    )


def test_without_a_terminal_there_is_a_line_for_each_point_that_ends():
    console = Console(file=StringIO(), width=40)
    view, point = running(console)
    with view:
        view.ended(point, Result(summary(), before=True))
        with view.watch(point) as run:
            run.show(make_report())
            view.tick()
        view.ended(point, Result(summary(accuracy_mean=0.5, wall_s=2.25)))
        view.ended(point, Result(None, "no link can carry anything, and this is a long line"))
    assert console.file.getvalue().splitlines() == [
        "2 of 3: seed=1: accuracy 0.500, 2.2 s",
        "3 of 3: seed=1: failed: no link can carry anything, and this is a long line",
    ]


def test_a_terminal_shows_runs_under_way_and_how_many_failed(monkeypatch):
    monkeypatch.setattr("coordinator.sweep.progress.REFRESH_WALL_S", 0.0)
    console = Console(file=StringIO(), width=100, force_terminal=True)
    view, point = running(console)
    with view:
        view.ended(point, Result(summary(), before=True))
        view.ended(point, Result(None, "boom"))
        with view.watch(point) as run:
            for device, round_ in ((0, 0), (1, 0), (0, 1)):
                run.show(make_report(device, round_))
            view.tick()
            drawn = console.file.getvalue()
        view.tick()
    assert "seed=1: failed: boom" in drawn
    assert "2 of 3 points, 1 failed" in drawn
    assert "seed=1: round 1 of 4" in drawn
    assert run.share == 3 / 8
    assert "round" not in console.file.getvalue()[len(drawn) :]


# The picture


def test_a_number_is_an_axis_with_a_line_in_a_band(sweep):
    record = sweep(
        "radio.tx_power_dbm=10,0,5",
        "seed=1:2",
        came=lambda power, seed: {"accuracy_mean": 0.5 + 0.01 * power + 0.01 * seed},
    )
    axes = panel(record, "accuracy_mean")
    assert axes.get_xlabel() == "radio.tx_power_dbm [dBm]"
    assert axes.get_ylabel() == "share classified correctly"
    (line,) = axes.lines
    assert list(line.get_xdata()) == [0, 5, 10]  # sorted, however it was typed
    assert line.get_ydata() == pytest.approx([0.515, 0.565, 0.615])
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    at_five = corners[corners[:, 0] == 5][:, 1]
    # Two seeds: 12.706 times half their distance.
    assert (at_five.min(), at_five.max()) == pytest.approx((0.565 - 0.06353, 0.565 + 0.06353), abs=1e-5)
    assert list(axes.get_xticks()) == [0, 5, 10]


def test_a_second_axis_is_a_line_each_told_apart_by_more_than_colour(sweep):
    record = sweep(
        "radio.tx_power_dbm=0:10:5",
        "graph.kind=ring,complete,star",
        came=lambda power, kind: {"joules": 1 + power + len(kind)},
    )
    axes = panel(record, "joules")
    assert [line.get_label() for line in axes.lines] == ["ring", "complete", "star"]
    assert axes.lines[1].get_ydata() == pytest.approx([9, 14, 19])
    for look in (lambda line: line.get_color(), lambda line: line.get_marker()):
        assert len({look(line) for line in axes.lines}) == 3
    key = Figure().add_subplot()
    draw_key(key, [axes], axis_label("graph.kind"))
    assert [text.get_text() for text in key.get_legend().get_texts()] == ["ring", "complete", "star"]
    assert key.get_legend().get_title().get_text() == "graph.kind"


def test_words_are_places_where_the_points_of_lines_stand_side_by_side_with_bars(sweep):
    record = sweep(
        "graph.kind=ring,complete,star",
        "codec.kind=int8,float32",
        "seed=1:2",
        came=lambda kind, codec, seed: {"accuracy_mean": 0.5 + 0.01 * seed},
    )
    axes = panel(record, "accuracy_mean")
    axes.figure.draw_without_rendering()
    assert [label.get_text() for label in axes.get_xticklabels()] == ["ring", "complete", "star"]
    int8, float32 = axes.lines
    assert int8.get_linestyle() == "None"
    assert int8.get_xdata() == pytest.approx(np.arange(3) - 0.125)
    assert float32.get_xdata() == pytest.approx(np.arange(3) + 0.125)
    assert len(axes.collections[0].get_segments()) == 3
    (x, low), (_, high) = axes.collections[0].get_segments()[0]
    assert (x, low, high) == pytest.approx((-0.125, 0.515 - 0.06353, 0.515 + 0.06353), abs=1e-5)


def test_truth_and_infinity_are_words_and_a_lone_number_has_a_bar(sweep):
    axes = panel(sweep("radio.symmetric=true,false", came=lambda symmetric: {}), "joules")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["true", "false"]
    endless = panel(sweep("budget.joules=inf,1", came=lambda joules: {}), "joules")
    assert [label.get_text() for label in endless.get_xticklabels()] == ["inf", "1"]
    lone = panel(sweep("devices=4", "seed=1:2", came=lambda n, seed: {"joules": 1.0 * seed}), "joules")
    assert list(lone.get_xticks()) == [4]
    assert len(lone.collections[0].get_segments()) == 1


def test_what_failed_or_diverged_is_a_gap_and_told_of(sweep):
    record = sweep(
        "radio.tx_power_dbm=0:15:5",
        came=lambda power: (
            Result(None, "boom") if power == 5 else {"consensus_distance": NAN if power == 10 else 1}
        ),
    )
    axes = panel(record, "consensus_distance")
    assert np.array_equal(axes.lines[0].get_ydata(), [1, NAN, NAN, 1], equal_nan=True)
    assert axes.get_title(loc="right") == "not finite at 1 place"
    assert panel(record, "joules").get_title(loc="right") == ""


def test_a_panel_without_numbers_says_why(sweep):
    record = sweep(
        "radio.tx_power_dbm=0:5:5",
        came=lambda power: {"joules": None, "consensus_distance": NAN},
        sets=["radio.scheme=analog"],
    )
    for name, why in (
        ("joules", "no modelled time was kept"),
        ("packet_loss", "no packets over a digital radio"),
        ("consensus_distance", "no mean is finite"),
    ):
        axes = panel(record, name)
        assert [text.get_text() for text in axes.texts] == [why]
        assert not axes.lines


def test_scales_are_logarithmic_where_numbers_span_decades(sweep):
    def came(size, seed):
        return {"joules": size**1.5, "packets_lost": 0 if size == 64 else 50, "air_s": 2.0 + seed}

    record = sweep("codec.packet_bytes=64,256,1024", "seed=1:2", came=came)
    joules, loss, time = (panel(record, name) for name in ("joules", "packet_loss", "air_s"))
    assert (joules.get_xscale(), joules.get_yscale()) == ("log", "log")
    assert list(joules.get_xticks()) == [64, 256, 1024]
    assert loss.get_yscale() == "linear"  # a log scale has no place for nothing lost
    assert loss.get_ylim() == pytest.approx((0, 0.575))
    assert time.get_yscale() == "linear"
    assert time.get_ylim()[0] == 0
    total = panel(
        sweep("devices=4,8,16", came=lambda n: {"packets_lost": 0 if n == 4 else 100}), "packet_loss"
    )
    assert total.get_ylim() == pytest.approx((0, 1.02))
    assert total.get_xscale() == "linear"
    even = panel(sweep("codec.packet_bytes=64:1024:240", came=lambda size: {}), "joules")
    assert even.get_xscale() == "linear"


def test_a_wide_interval_does_not_stretch_a_log_scale(sweep):
    record = sweep(
        "radio.tx_power_dbm=0:10:5",
        "seed=1:2",
        came=lambda power, seed: {"consensus_distance": 10.0 ** (-power / 5) * (1 + 0.5 * seed)},
    )
    axes = panel(record, "consensus_distance")
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] > 0.001
    corners = axes.collections[0].get_paths()[0].vertices
    assert corners[:, 1].min() == pytest.approx(axes.get_ylim()[0])


def test_shares_stay_within_one(sweep):
    record = sweep(
        "radio.tx_power_dbm=0:5:5", "seed=1:2", came=lambda power, seed: {"accuracy_mean": 0.5 + 0.2 * seed}
    )
    assert panel(record, "accuracy_mean").get_ylim() == pytest.approx((0, 1.02))


def test_what_cannot_be_drawn_is_said(sweep):
    assert why_no_picture(sweep("seed=1:3", came=lambda seed: {})) == "seeds alone have no axis to draw over"
    three = sweep("devices=4", "graph.kind=ring", "radio.symmetric=true", came=lambda *_: {})
    assert why_no_picture(three) == "at most two axes can be drawn besides the seed, not 3"
    many = ("devices=4,8", "radio.tx_power_dbm=1:10")
    assert f"at most {MAX_LINES} lines can be told apart, not 10" in why_no_picture(
        sweep(*many, came=lambda *_: {})
    )
    assert why_no_picture(sweep(*reversed(many), came=lambda *_: {})) == ""
    assert why_no_picture(sweep("devices=4", came=lambda n: None)) == "no point was finished"


def test_a_sweep_is_drawn_whole(sweep, tmp_path):
    record = sweep(
        "radio.tx_power_dbm=0:10:5",
        "graph.kind=ring,complete",
        "seed=1:2",
        came=lambda power, kind, seed: Result(None, "boom") if power == 5 else {},
    )
    draw(record, tmp_path / PICTURE)
    assert (tmp_path / PICTURE).read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in tmp_path.iterdir() if path.suffix != ".toml"] == [PICTURE]
