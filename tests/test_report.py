"""The picture of a run: what its panels show, panel by panel, and that it is drawn whatever happened."""

import struct
import sys

import matplotlib as mpl
import numpy as np
import pytest
from builders import make_heard, make_report, make_spent, make_stages
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from coordinator.cost_panels import (
    MAX_NAMED_LINKS,
    draw_energy,
    draw_energy_per_link,
    draw_modelled_time,
)
from coordinator.events import EVENT, Consensus, Died, Edge, Ended, Left, Started
from coordinator.report import (
    AMBER,
    LEFT,
    MAX_LABELLED,
    RED,
    draw,
    draw_accuracy,
    draw_consensus,
    draw_graph,
    draw_loss,
    draw_packet_loss,
    draw_stages,
    headline,
)
from coordinator.series import MAX_POINTS, link_losses, mean_stages_wall_s, over_devices
from coordinator.summary import history
from protocol.errors import RunError
from protocol.messages import Stages

STAGES = {
    "train": 0.05,
    "encode": 0.001,
    "send": 0.004,
    "wait": 0.02,
    "air": 0.003,
    "decode": 0.002,
    "mix": 0,
    "pace": 0.01,
}


def both(value):
    """Return what a link has in both directions, which may be said once."""
    return value if isinstance(value, tuple) else (value, value)


def started(num_devices, edges, **changes):
    return Started(
        run_id="run",
        num_parameters=10_026,
        payload_bytes=40_420,
        pids=tuple(range(100, 100 + num_devices)),
        num_samples=(50,) * num_devices,
        positions_m=tuple((10.0 * d, 7.0 * (d % 5)) for d in range(num_devices)),
        edges=tuple(
            Edge(devices=(a, b), weight=0.3, mean_snr_db=both(snr_db), packet_loss=both(expected))
            for a, b, snr_db, expected in edges
        ),
        startup_wall_s=1.0,
        **changes,
    )


def report(device, round_, *, accuracy=0.5, stages=STAGES, **changes):
    return make_report(
        device,
        round_,
        accuracy=accuracy,
        wall_s=sum(stages.values()),
        stages_wall_s=make_stages(**stages),
        **changes,
    )


def heard(sent=100, corrupted=0, lost=0, missing="", resent=0):
    return make_heard(
        packets_sent=sent,
        packets_resent=resent,
        packets_corrupted=corrupted,
        packets_lost=lost,
        missing=missing,
    )


def run_of(num_devices, *, edges=(), reports=(), distances=(), died=None, left=None, how="finished", **start):
    """Make the history of a run, through its log, so that numbers are what a reader of the log gets."""
    died, left = died or {}, left or {}
    events = [
        started(num_devices, edges, **start),
        *reports,
        *(Consensus(round=r, distance=d, devices=num_devices) for r, d in enumerate(distances)),
        *(Died(device=d, rounds=r, reason="killed", wall_s=1.0) for d, r in died.items()),
        *(Left(device=d, rounds=r, reason="poor") for d, r in left.items()),
        Ended(
            how=how,
            rounds=tuple(sum(r.device == d for r in reports) for d in range(num_devices)),
            wall_s=9.0,
        ),
    ]
    return history([EVENT.validate_json(event.model_dump_json()) for event in events])


def usual(num_devices=4, num_rounds=6, *, accuracy_gain=0.0, **changes):
    """Make a sound run on a ring: device d is 0.01 d^2 better than 0, and loss falls tenfold a round."""
    edges = [(d, (d + 1) % num_devices, 20.0 + d, 0.2 / (d + 1)) for d in range(num_devices)]
    reports = [
        report(
            d,
            r,
            accuracy=0.1 + 0.1 * r + 0.01 * d * d + accuracy_gain,
            loss=10.0**-r,
            heard={(d + side) % num_devices: heard(corrupted=10, lost=12) for side in (-1, 1)},
        )
        for r in range(num_rounds)
        for d in range(num_devices)
    ]
    distances = [2.0**-r for r in range(num_rounds)]
    return run_of(num_devices, **({"edges": edges, "reports": reports, "distances": distances} | changes))


def panel(draw_panel, what):
    axes = Figure().add_subplot()
    draw_panel(axes, what)
    return axes


def legend_of(axes):
    legend = axes.get_legend()
    return [] if legend is None else [text.get_text() for text in legend.get_texts()]


def texts_of(axes):
    return [text.get_text() for text in axes.texts]


def aside_of(axes):
    return axes.get_title(loc="right")


def offsets_of(axes, label):
    return next(np.asarray(c.get_offsets()) for c in axes.collections if c.get_label().startswith(label))


# Panels over rounds


def test_accuracy_is_the_mean_in_a_band_from_the_worst_device_to_the_best():
    axes = panel(draw_accuracy, {"run": usual()})
    (line,) = axes.lines
    assert list(line.get_xdata()) == [1, 2, 3, 4, 5, 6]
    assert line.get_ydata() == pytest.approx([0.135 + 0.1 * r for r in range(6)])
    (band,) = axes.collections
    corners = band.get_paths()[0].vertices
    first_round = corners[corners[:, 0] == 1][:, 1]
    assert (first_round.min(), first_round.max()) == pytest.approx((0.1, 0.19))
    assert legend_of(axes) == []
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("round", "share classified correctly")


@pytest.mark.parametrize("draw_panel", [draw_accuracy, draw_loss, draw_consensus])
def test_runs_that_are_compared_lie_beside_the_first_and_are_told_apart_by_more_than_colour(draw_panel):
    runs = {"run": usual(), "isolated": usual(accuracy_gain=-0.05), "ideal": usual(accuracy_gain=0.1)}
    axes = panel(draw_panel, runs)
    assert legend_of(axes) == ["run", "isolated", "ideal"]
    assert [line.get_label() for line in axes.lines] == ["run", "isolated", "ideal"]
    assert len({line.get_color() for line in axes.lines}) == 3
    assert len({line._dash_pattern[1] and tuple(line._dash_pattern[1]) for line in axes.lines}) == 3


def test_compared_runs_show_their_own_numbers_and_may_be_shorter():
    axes = panel(draw_accuracy, {"run": usual(num_rounds=6), "isolated": usual(num_rounds=2)})
    assert [len(line.get_xdata()) for line in axes.lines] == [6, 2]
    better = panel(draw_accuracy, {"run": usual(), "ideal": usual(accuracy_gain=0.2)})
    run, ideal = (line.get_ydata() for line in better.lines)
    assert ideal - run == pytest.approx(np.full(6, 0.2))


def evaluated_last(num_rounds, accuracies):
    return run_of(
        len(accuracies),
        reports=[
            report(d, r, accuracy=accuracy if r == num_rounds - 1 else None)
            for r in range(num_rounds)
            for d, accuracy in enumerate(accuracies)
        ],
    )


def test_a_single_evaluation_is_a_marked_point_at_its_round_with_a_bar_from_worst_to_best():
    axes = panel(draw_accuracy, {"run": evaluated_last(20, [0.8, 0.9])})
    (line,) = axes.lines
    assert (list(line.get_xdata()), list(line.get_ydata())) == ([20], pytest.approx([0.85]))
    assert line.get_marker() == "o"
    (bar,) = axes.collections
    assert bar.get_segments()[0] == pytest.approx(np.array([[20, 0.8], [20, 0.9]]))
    left, right = axes.get_xlim()
    assert left < 1
    assert right > 20


def test_single_evaluations_of_compared_runs_do_not_hide_each_other():
    runs = {name: evaluated_last(20, [0.8, 0.9]) for name in ("run", "isolated", "ideal")}
    axes = panel(draw_accuracy, runs)
    places = [line.get_xdata()[0] for line in axes.lines]
    assert len(set(places)) == 3
    assert all(19 < place <= 20 for place in places)


def test_a_dead_device_counts_in_no_mean_and_its_last_round_is_crossed():
    reports = [report(d, r, accuracy=0.9 if d else 0.1) for r in range(5) for d in range(3) if d or r < 2]
    run = run_of(3, reports=reports, distances=[1.0] * 5, died={0: 2})
    for draw_panel in (draw_accuracy, draw_loss, draw_consensus):
        axes = panel(draw_panel, {"run": run})
        line, cross = axes.lines
        assert len(line.get_xdata()) == 5
        assert (list(cross.get_xdata()), cross.get_marker(), cross.get_color()) == ([2], "x", RED)
        assert legend_of(axes) == ["run", "device lost"]
    assert over_devices(run, "accuracy").mean == pytest.approx(np.full(5, 0.9))


def test_who_left_counts_until_then_and_its_last_round_is_marked():
    reports = [report(d, r, accuracy=0.9 if d else 0.3) for r in range(5) for d in range(3) if d or r < 2]
    run = run_of(3, reports=reports, distances=[1.0] * 5, left={0: 2})
    for draw_panel in (draw_accuracy, draw_loss, draw_consensus):
        axes = panel(draw_panel, {"run": run})
        line, mark = axes.lines
        assert len(line.get_xdata()) == 5
        assert (list(mark.get_xdata()), mark.get_marker(), mark.get_color()) == ([2], "v", AMBER)
        assert legend_of(axes) == ["run", LEFT]
    assert over_devices(run, "accuracy").mean == pytest.approx([0.7, 0.7, 0.9, 0.9, 0.9])
    assert headline(run).endswith("finished after 5 rounds; 1 device left early")
    axes = panel(draw_graph, run)
    assert legend_of(axes)[-1] == LEFT
    assert [to_hex(text.get_color()) == AMBER.lower() for text in axes.texts] == [True, False, False]
    everybody = run_of(3, reports=reports, left={0: 2, 1: 5, 2: 5})
    assert headline(everybody).endswith("finished after 2 rounds; 3 devices left early")
    assert list(over_devices(everybody, "accuracy").rounds) == [1, 2]


def test_where_nobody_survived_the_dead_are_drawn():
    run = run_of(2, reports=[report(d, r) for r in range(3) for d in range(2)], died={0: 3, 1: 3})
    assert over_devices(run, "accuracy").mean == pytest.approx(np.full(3, 0.5))


def test_rounds_that_not_every_device_reached_are_left_out():
    stopped = run_of(2, reports=[report(0, 0), report(1, 0), report(0, 1)], how="stopped")
    assert list(over_devices(stopped, "loss").rounds) == [1]
    nearly_nothing = run_of(2, reports=[report(0, 0), report(0, 1)], how="stopped")
    assert list(over_devices(nearly_nothing, "loss").rounds) == [1, 2]


def test_a_diverged_device_is_in_no_mean_and_is_told_of():
    nan, inf = float("nan"), float("inf")
    reports = [report(d, r, loss=loss) for r, d, loss in [(0, 0, 2), (0, 1, 4), (1, 0, 3), (1, 1, nan)]]
    axes = panel(
        draw_loss, {"run": run_of(2, reports=[*reports, report(0, 2, loss=inf), report(1, 2, loss=nan)])}
    )
    assert np.array_equal(axes.lines[0].get_ydata(), [3, 3, nan], equal_nan=True)
    assert aside_of(axes) == "not finite on up to 2 devices, first in round 2"
    assert aside_of(panel(draw_loss, {"run": usual()})) == "mean, lowest to highest device"


def test_a_consensus_distance_that_is_not_finite_leaves_a_gap_and_is_told_of():
    axes = panel(draw_consensus, {"run": usual(distances=[1.0, float("inf"), float("nan"), 0.5])})
    assert np.array_equal(axes.lines[0].get_ydata(), [1, np.nan, np.nan, 0.5], equal_nan=True)
    assert aside_of(axes) == "not finite, first in round 2"


def test_losses_that_span_decades_are_on_a_log_scale_with_plain_numbers():
    axes = panel(draw_loss, {"run": usual()})
    axes.figure.draw_without_rendering()
    assert axes.get_yscale() == "log"
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert {"1", "0.1", "0.01"} <= set(labels)
    assert not any(label.get_text() for label in axes.get_yticklabels(minor=True))


def test_a_log_scale_of_less_than_two_decades_still_has_numbers():
    axes = panel(draw_consensus, {"run": usual(distances=[0.7, 0.4, 0.15])})
    axes.figure.draw_without_rendering()
    bottom, top = axes.get_ylim()
    seen = [t.get_text() for t in axes.get_yticklabels() if bottom <= t.get_position()[1] <= top]
    assert seen == ["0.2", "0.3", "0.5"]
    assert not any(label.get_text() for label in axes.get_yticklabels(minor=True))


def test_numbers_of_one_size_are_on_a_linear_scale_from_zero():
    for draw_panel in (draw_loss, draw_consensus):
        axes = panel(draw_panel, {"run": usual(reports=usual(num_rounds=1).reports, distances=[0.0, 0.0])})
        assert axes.get_yscale() == "linear"
        assert axes.get_ylim()[0] == 0


def test_a_distance_of_zero_among_others_does_not_stretch_the_log_scale():
    axes = panel(draw_consensus, {"run": usual(distances=[1.0, 0.1, 0.0])})
    axes.figure.draw_without_rendering()
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] > 0.05


def test_more_rounds_than_pixels_are_drawn_as_means_of_blocks_and_say_so():
    num_rounds = 2 * MAX_POINTS + 1
    accuracies = np.random.default_rng(5).random(num_rounds).tolist()
    run = run_of(1, reports=[report(0, r, accuracy=a) for r, a in enumerate(accuracies)])
    axes = panel(draw_accuracy, {"run": run})
    x, y = axes.lines[0].get_data()
    assert len(x) <= MAX_POINTS
    assert (x[0], x[-1]) == (2, num_rounds - 0.5)
    assert y[0] == pytest.approx(np.mean(accuracies[:3]))
    assert y[-1] == pytest.approx(np.mean(accuracies[-2:]))
    assert axes.lines[0].get_marker() == "None"
    assert axes.get_xlabel() == "round (means of 3)"


def test_a_panel_over_rounds_without_any_says_why():
    untrained = run_of(2, reports=[report(d, 0, loss=None, accuracy=None) for d in range(2)])
    for draw_panel, reason in (
        (draw_accuracy, "no round was evaluated"),
        (draw_loss, "no round was trained"),
        (draw_consensus, "no round was completed"),
    ):
        axes = panel(draw_panel, {"run": untrained})
        assert texts_of(axes) == [reason]
        assert not axes.lines


# Packet loss


def test_a_link_counts_the_packets_of_both_directions():
    run = run_of(
        3,
        edges=[(1, 0, 20.0, 0.1), (1, 2, 30.0, 0.01)],
        reports=[
            report(0, 0, heard={1: heard(sent=50, corrupted=5, lost=10)}),
            report(1, 0, heard={0: heard(sent=150, corrupted=1, lost=20), 2: heard(sent=100)}),
            report(0, 1, heard={1: heard(sent=200, corrupted=2, lost=50)}),
        ],
    )
    lossy, clean = link_losses(run)
    assert (lossy.devices, lossy.packets_sent, lossy.corrupted, lossy.lost) == ((0, 1), 400, 0.02, 0.2)
    assert (lossy.snr_db, lossy.expected) == (20.0, 0.1)
    assert (clean.devices, clean.packets_sent, clean.corrupted, clean.lost) == ((1, 2), 100, 0, 0)


def test_what_failed_is_a_share_of_all_transmissions_and_what_was_lost_of_all_packets():
    run = run_of(
        2,
        edges=[(0, 1, 20.0, 0.1)],
        reports=[
            report(0, 0, heard={1: heard(sent=100, resent=60, corrupted=50, lost=10)}),
            report(1, 0, heard={0: heard(sent=100, resent=40, corrupted=25, lost=10)}),
        ],
    )
    (link,) = link_losses(run)
    assert (link.packets_sent, link.transmissions, link.corrupted, link.lost) == (200, 300, 75 / 300, 0.1)


def test_a_link_that_sends_much_again_weighs_more_in_what_failed():
    run = run_of(
        3,
        edges=[(0, 1, 10.0, 0.1), (1, 2, 20.0, 0.1)],
        reports=[
            report(0, 0, heard={1: heard(sent=100, resent=300, corrupted=200, lost=50)}),
            report(1, 0, heard={2: heard(sent=100, corrupted=0, lost=0)}),
        ],
    )
    legend = legend_of(panel(draw_packet_loss, run))
    assert "failed CRC: 40 % of all" in legend  # 200 of 500 transmissions
    assert "not mixed: 25 % of all" in legend  # 50 of 200 packets


def test_an_analog_run_has_links_that_are_silent_and_no_packets_that_fail():
    run = run_of(
        2,
        scheme="analog",
        edges=[(0, 1, 20.0, 0.1)],
        reports=[report(0, 0, heard={1: heard(sent=100, lost=20)})],
    )
    assert legend_of(panel(draw_packet_loss, run)) == [
        "expected to be silent: 10 % of all",
        "not mixed: 20 % of all",
    ]


def test_what_the_dead_did_not_send_is_no_loss_of_the_link():
    run = run_of(
        2,
        edges=[(0, 1, 20.0, 0.1)],
        reports=[
            report(0, 0, heard={1: heard(lost=1)}),
            report(0, 1, heard={1: heard(sent=0, lost=100, missing="dead")}),
        ],
        died={1: 1},
    )
    assert link_losses(run)[0].lost == 0.01


def test_frames_that_were_late_or_never_delivered_are_lost_and_never_more_than_all():
    late = run_of(
        2, edges=[(0, 1, 20, 0.1)], reports=[report(0, 0, heard={1: heard(lost=100, missing="air")})]
    )
    assert link_losses(late)[0].lost == 1
    unreached = [
        report(0, 0, heard={1: heard(sent=0, lost=100, missing="wall")}),
        report(1, 0, heard={0: heard()}),
    ]
    assert link_losses(run_of(2, edges=[(0, 1, 20, 0.1)], reports=[*unreached, unreached[0]]))[0].lost == 1


def test_packet_loss_is_drawn_per_link_over_snr_measured_beside_expected():
    run = run_of(
        4,
        edges=[(2, 3, 40.0, 0.0), (0, 1, 10.0, 0.3), (1, 2, 25.0, 0.04)],
        reports=[
            report(0, 0, heard={1: heard(sent=200, corrupted=40, lost=72)}),
            report(1, 0, heard={2: heard(corrupted=0, lost=4)}),
            report(2, 0, heard={3: heard()}),
        ],
    )
    axes = panel(draw_packet_loss, run)
    (expected,) = axes.lines
    assert list(expected.get_xdata()) == [10, 25, 40]
    assert expected.get_ydata() == pytest.approx([30, 4, 0])
    assert offsets_of(axes, "failed CRC").tolist() == [[10, 20]]
    assert offsets_of(axes, "not mixed").tolist() == [[10, 36], [25, 4]]
    assert offsets_of(axes, "lost nothing") == pytest.approx(np.array([[40, axes.get_ylim()[0]]]))
    assert legend_of(axes) == [
        "expected to fail, one attempt: 16 % of all",
        "not mixed: 19 % of all",
        "failed CRC: 10 % of all",
        "lost nothing: 1 of 3 links",
    ]
    assert axes.get_yscale() == "log"
    assert axes.get_ylim()[0] < 4
    assert (axes.get_xlabel(), axes.get_ylabel()) == (
        "mean SNR of the link [dB]",
        "share of packets sent [%]",
    )


def test_a_link_of_unlike_ends_stands_in_the_middle_and_says_so():
    run = run_of(
        3,
        edges=[(0, 1, (10.0, 20.0), (0.3, 0.1)), (1, 2, 25.0, 0.04)],
        reports=[report(0, 0, heard={1: heard(sent=100, corrupted=20, lost=20)})],
    )
    axes = panel(draw_packet_loss, run)
    (expected,) = axes.lines
    assert list(expected.get_xdata()) == [15, 25]
    assert expected.get_ydata() == pytest.approx([20, 4])
    assert offsets_of(axes, "failed CRC").tolist() == [[15, 20]]
    assert aside_of(axes) == "one mark per link, mean of both directions"
    assert aside_of(panel(draw_packet_loss, usual())) == "one mark per link"


def test_the_smallest_loss_lies_above_the_lower_edge():
    run = run_of(
        2,
        edges=[(0, 1, 50.0, 1e-5)],
        reports=[report(0, 0, heard={1: heard(sent=10**6, corrupted=3, lost=3)})],
    )
    axes = panel(draw_packet_loss, run)
    assert 0 < axes.get_ylim()[0] < offsets_of(axes, "failed CRC")[0, 1] == pytest.approx(3e-4)


def test_over_an_ideal_radio_no_link_lost_anything():
    silent = {1: heard(), 3: heard()}
    run = usual(
        edges=[(0, 1, 20.0, 0.0), (0, 3, 30.0, 0.0)], reports=[report(d, 0, heard=silent) for d in (0, 2)]
    )
    axes = panel(draw_packet_loss, run)
    axes.figure.draw_without_rendering()
    assert legend_of(axes)[0] == "expected to fail, one attempt: 0 % of all"
    assert legend_of(axes)[-1] == "lost nothing: 2 of 2 links"
    assert offsets_of(axes, "failed CRC").size == 0


def test_before_any_report_only_the_expectation_is_drawn():
    axes = panel(draw_packet_loss, without_reports())
    assert axes.lines[0].get_ydata() == pytest.approx([20, 10, 20 / 3, 5])
    assert legend_of(axes) == ["expected to fail, one attempt: 10.4 % of all"]


def test_isolated_devices_have_no_packet_loss():
    axes = panel(draw_packet_loss, usual(edges=()))
    assert texts_of(axes) == ["no links: the devices never talk"]


# The graph


def test_the_graph_has_devices_at_their_places_and_links_by_snr_and_loss():
    run = run_of(
        4,
        edges=[(0, 1, 10.0, 0.3), (1, 2, 25.0, 0.04), (2, 3, 40.0, 0.0), (0, 3, 30.0, 0.05)],
        reports=[
            report(0, 0, heard={1: heard(lost=36)}),
            report(1, 0, heard={2: heard(lost=4)}),
            report(2, 0, heard={3: heard()}),
        ],
    )
    axes = panel(draw_graph, run)
    links, places = axes.collections
    assert list(links.get_array()) == [10, 25, 40, 30]
    assert links.get_segments()[1].tolist() == [[10, 7], [20, 14]]
    dashes = [style[1] and tuple(style[1]) for style in links.get_linestyle()]
    assert len({*dashes[:3]}) == 3
    assert dashes[2] is None
    assert dashes[3] == dashes[1]  # nothing was sent on it: as expected
    assert legend_of(axes) == ["up to 1 %", "up to 10 %", "above 10 %"]
    assert np.asarray(places.get_offsets()).tolist() == [list(place) for place in run.started.positions_m]
    assert texts_of(axes) == ["0", "1", "2", "3"]
    assert [text.xy for text in axes.texts] == list(run.started.positions_m)
    assert (axes.get_xlabel(), axes.get_ylabel(), axes.get_aspect()) == ("x [m]", "y [m]", 1)
    bar = next(other for other in axes.figure.axes if other is not axes)
    assert bar.get_ylabel() == "mean SNR [dB]"
    assert bar.get_ylim() == (10, 40)


def test_dead_devices_are_crossed_out_in_red():
    run = usual(num_devices=5, died={1: 2, 3: 4})
    axes = panel(draw_graph, run)
    crosses = next(c for c in axes.collections if len(c.get_offsets()) == 2)
    assert np.asarray(crosses.get_offsets()).tolist() == [list(run.started.positions_m[d]) for d in (1, 3)]
    assert to_hex(crosses.get_edgecolor()[0]) == RED.lower()
    assert [to_hex(text.get_color()) == RED.lower() for text in axes.texts] == [
        False,
        True,
        False,
        True,
        False,
    ]
    assert legend_of(axes)[-1] == "device lost"
    assert legend_of(panel(draw_graph, usual())) == ["above 10 %"]


def test_a_graph_without_links_needs_neither_colour_bar_nor_legend():
    for run in (usual(edges=()), run_of(1, reports=[report(0, 0)])):
        axes = panel(draw_graph, run)
        assert axes.figure.axes == [axes]
        assert legend_of(axes) == []
        assert aside_of(axes) == ""
        assert len(axes.texts) == run.num_devices


def test_numbers_are_left_out_where_they_would_cover_the_graph():
    assert len(panel(draw_graph, run_of(MAX_LABELLED)).texts) == MAX_LABELLED
    assert not panel(draw_graph, run_of(MAX_LABELLED + 1)).texts


# Where the time went


def layers_of(axes):
    """Return the height of each layer of bars, one per device, after checking that they are stacked."""
    layers, stacked = {}, None
    for patch in axes.patches:
        tops, edges, bottoms = patch.get_data()
        if stacked is None:
            stacked = np.zeros(len(tops[::2]))
        assert bottoms[::2] == pytest.approx(stacked)
        assert np.isnan(tops[1::2]).all()
        devices = np.arange(len(stacked))
        assert edges == pytest.approx(np.stack((devices - 0.4, devices + 0.4), axis=1).ravel())
        layers[patch.get_label()] = tops[::2] - stacked
        stacked = tops[::2]
    return layers


def test_stages_are_averaged_over_the_rounds_of_each_device():
    slow = STAGES | {"train": 0.15, "mix": 0.5}
    run = run_of(3, reports=[report(0, 0), report(0, 1, stages=slow), report(2, 0)])
    mean = mean_stages_wall_s(run)
    assert mean[:, 0] == pytest.approx([0.1, 0.001, 0.004, 0.02, 0.003, 0.002, 0.25, 0.01])
    assert mean[:, 1] == pytest.approx(np.zeros(8))
    assert mean[:, 2] == pytest.approx(list(STAGES.values()))


def test_stages_are_stacked_per_device_in_their_order_to_the_whole_round():
    run = run_of(3, reports=[report(d, 0, stages=STAGES | {"wait": 0.01 * d}) for d in range(3)])
    axes = panel(draw_stages, run)
    assert [patch.get_label() for patch in axes.patches] == list(Stages.model_fields)
    assert len({to_hex(patch.get_facecolor()) for patch in axes.patches}) == 8
    assert sum(layers_of(axes).values()) == pytest.approx([70, 80, 90])
    assert axes.get_ylabel() == "wall time [ms]"
    assert legend_of(axes) == list(Stages.model_fields)[::-1]


def test_long_rounds_are_in_seconds():
    axes = panel(draw_stages, run_of(1, reports=[report(0, 0, stages=STAGES | {"train": 2.5})]))
    assert axes.get_ylabel() == "wall time [s]"
    assert axes.patches[0].get_data().values == pytest.approx([2.5])


def test_without_a_round_no_time_went_anywhere():
    assert texts_of(panel(draw_stages, run_of(2))) == ["no round was completed"]


# What it would have cost


def cost(device, round_, **changes):
    """Return a round that ends at this device's own modelled time, and what it spent on its neighbours."""
    usual = {
        "spent": make_spent(
            air_s=4.0 * (round_ + 1) + device,
            compute_air_s=1.0,
            slot_wait_air_s=0.25,
            compute_j=0.5,
            idle_j=8.0,
        ),
        "heard": {
            (device + 1) % 3: make_heard(tx_air_s=0.5, tx_j=0.125, rx_j=2.0 * (device + 1)),
            (device + 2) % 3: make_heard(tx_air_s=0.125, tx_j=0.0625),
        },
    }
    return report(device, round_, **(usual | changes))


def costs(num_rounds=2):
    edges = [(0, 1, 20.0, 0.1), (0, 2, 20.0, 0.1), (1, 2, 20.0, 0.1)]
    return run_of(3, edges=edges, reports=[cost(d, r) for r in range(num_rounds) for d in range(3)])


def test_modelled_time_is_filled_to_each_devices_clock():
    axes = panel(draw_modelled_time, costs())
    layers = layers_of(axes)
    assert list(layers) == ["computing", "slot wait", "sending", "receiving, waiting"]
    assert layers["computing"] == pytest.approx([2, 2, 2])
    assert layers["slot wait"] == pytest.approx([0.5, 0.5, 0.5])
    assert layers["sending"] == pytest.approx([1.25, 1.25, 1.25])
    assert sum(layers.values()) == pytest.approx([8, 9, 10])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("device", "air time [s]")
    assert legend_of(axes) == list(layers)[::-1]


def test_a_device_that_sends_on_several_links_at_once_has_no_time_left_to_wait():
    busy = cost(0, 0, heard={1: make_heard(tx_air_s=3.0), 2: make_heard(tx_air_s=3.0)})
    layers = layers_of(panel(draw_modelled_time, run_of(3, reports=[busy])))
    assert layers["sending"][0] == 6.0
    assert layers["receiving, waiting"][0] == 0.0


def test_energy_is_stacked_by_what_it_was_spent_on():
    axes = panel(draw_energy, costs())
    layers = layers_of(axes)
    assert list(layers) == ["computing", "sending", "receiving", "idling"]
    assert layers["computing"] == pytest.approx([1, 1, 1])
    assert layers["sending"] == pytest.approx([0.375, 0.375, 0.375])
    assert layers["receiving"] == pytest.approx([4, 8, 12])
    assert layers["idling"] == pytest.approx([16, 16, 16])
    assert aside_of(axes) == "whole run, 76.12 J in all"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("device", "energy [J]")
    assert len({to_hex(patch.get_facecolor()) for patch in axes.patches}) == 4


def test_the_dearest_link_comes_first_and_all_are_what_sending_and_receiving_cost():
    axes = panel(draw_energy_per_link, costs())
    heights = [bar.get_height() for bar in axes.patches]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0-2", "1-2", "0-1"]
    # Two rounds; each link is the next one of one end and the last but one of the other.
    assert heights == pytest.approx([2 * (0.1875 + rx_j) for rx_j in (6.0, 4.0, 2.0)])
    joules = layers_of(panel(draw_energy, costs()))
    assert sum(heights) == pytest.approx(sum(joules["sending"]) + sum(joules["receiving"]))


def test_more_links_than_have_room_are_counted_instead_of_named():
    heard = {device: make_heard(tx_j=1.0) for device in range(1, MAX_NAMED_LINKS + 2)}
    axes = panel(draw_energy_per_link, run_of(1, reports=[cost(0, 0, heard=heard)]))
    assert len(axes.patches) == MAX_NAMED_LINKS + 1
    assert not axes.get_xticklabels()
    assert axes.get_xlabel() == f"{MAX_NAMED_LINKS + 1} links, the dearest first"
    heard.pop(1)
    named = panel(draw_energy_per_link, run_of(1, reports=[cost(0, 0, heard=heard)]))
    assert len(named.get_xticklabels()) == MAX_NAMED_LINKS


COSTS = pytest.mark.parametrize("draw_panel", [draw_modelled_time, draw_energy, draw_energy_per_link])


@COSTS
def test_a_run_by_the_wall_clock_has_no_costs_to_show(draw_panel):
    timeless = report(0, 0, heard={1: make_heard(tx_air_s=0.5, tx_j=0.125)})
    axes = panel(draw_panel, run_of(2, reports=[timeless], clock="wall"))
    assert texts_of(axes) == ["no modelled time was kept (runtime.clock = wall)"]
    assert not axes.patches


@COSTS
def test_before_the_first_round_nothing_has_cost_anything(draw_panel):
    assert texts_of(panel(draw_panel, run_of(2))) == ["no round was completed"]


def test_what_cost_nothing_says_so():
    free = run_of(1, reports=[report(0, 0)])
    assert texts_of(panel(draw_modelled_time, free)) == ["nothing took any time"]
    assert texts_of(panel(draw_energy, free)) == ["nothing was spent"]


def test_devices_that_never_talk_spend_nothing_on_links():
    alone = run_of(1, reports=[cost(0, 0, heard={})])
    assert texts_of(panel(draw_energy_per_link, alone)) == ["nothing was spent on links"]
    assert layers_of(panel(draw_energy, alone))["computing"] == pytest.approx([0.5])


# The whole page


def test_the_headline_says_what_was_run_and_what_went_wrong():
    assert headline(usual()) == "4 devices, 4 links, 10,026 parameters; finished after 6 rounds"
    fault = {1: heard(lost=100, missing="wall")}
    reports = [report(0, 0, heard=fault), report(0, 1, heard=fault), report(1, 0)]
    broken = run_of(2, edges=[(0, 1, 20.0, 0.1)], reports=reports, died={1: 1}, how="stopped")
    assert headline(broken) == (
        "2 devices, 1 link, 10,026 parameters; stopped after 2 rounds; 1 device lost; "
        "2 frames not delivered by the host"
    )


def without_reports(**changes):
    return usual(reports=(), distances=(), how="stopped", **changes)


def diverged():
    nan = float("nan")
    return usual(
        reports=[report(d, r, loss=nan) for r in range(3) for d in range(4)], distances=[nan] * 3, died={2: 1}
    )


PAGES = {
    "compared": lambda: {"run": usual(), "isolated": usual(edges=()), "ideal": without_reports()},
    "one device": lambda: {"run": run_of(1, reports=[report(0, r) for r in range(3)], distances=[0.0] * 3)},
    "one link, no report": lambda: {"run": without_reports(edges=[(0, 1, 20.0, 0.1)])},
    "all diverged, one dead": lambda: {"run": diverged()},
    "many devices": lambda: {"run": usual(64, 2)},
    "with its costs": lambda: {"run": costs()},
}


def global_settings():
    """Return matplotlib's own, but for the backend: whoever asks for that one loads pyplot."""
    return {name: mpl.rcParams[name] for name in mpl.rcParams if name != "backend"}


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_drawn_whatever_happened_and_nothing_else_is_touched(page, tmp_path):
    settings = global_settings()
    path = tmp_path / "report.png"
    path.write_bytes(b"an older report")
    draw(PAGES[page](), path, title="quickstart-20250101-120000-abcd")
    image = path.read_bytes()
    assert image[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", image[16:24]) == (1960, 1764)
    assert image[-8:-4] == b"IEND"
    assert list(tmp_path.iterdir()) == [path]
    assert global_settings() == settings
    assert "matplotlib.pyplot" not in sys.modules


def with_long_legends():
    """Make a run with links of every style which a device left, and wide numbers beside an axis."""
    lost = {1: 0, 2: 5, 3: 50}
    hub = {d: make_heard(packets_sent=100, packets_lost=n, tx_air_s=0.1, tx_j=0.012) for d, n in lost.items()}
    reports = [cost(0, 0, heard=hub), *(cost(d, 0, heard={}) for d in lost)]
    edges = [(0, d, 20.0, 0.1) for d in lost]
    return run_of(4, edges=edges, reports=reports, distances=[1.0], left={0: 1})


def test_what_stands_beside_a_title_does_not_stand_on_it(tmp_path, monkeypatch):
    monkeypatch.setattr("coordinator.report.save_whole", lambda figure, path: pages.append(figure))
    pages = []
    draw({"run": with_long_legends()}, tmp_path / "report.png", title="x")
    [page] = pages
    page.draw_without_rendering()
    for row in page.subfigs:
        for axes in row.axes:
            title, aside = axes._left_title, axes._right_title
            if title.get_text() and aside.get_text():
                gap = aside.get_window_extent().x0 - title.get_window_extent().x1
                assert gap > 8, title.get_text()


def test_a_page_that_cannot_be_drawn_leaves_the_older_one(tmp_path, monkeypatch):
    path = tmp_path / "report.png"
    path.write_bytes(b"an older report")

    def fill_the_disk(figure, partial, **_):
        partial.write_bytes(b"half")
        raise OSError("no space left")

    monkeypatch.setattr(Figure, "savefig", fill_the_disk)
    with pytest.raises(RunError, match="no space left"):
        draw({"run": usual()}, path, title="run")
    assert path.read_bytes() == b"an older report"
