"""The summary, the history and the consensus distance, from small logs written by hand."""

from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from builders import make_heard, make_report, make_spent
from matplotlib.figure import Figure
from rich.console import Console
from safetensors.numpy import save_file

from coordinator.consensus import ConsensusMeter, exact_distance
from coordinator.drawing import save_whole
from coordinator.events import Consensus, Died, Ended, Left, Started
from coordinator.store import EVENTS, RunFolder, read_events, write_whole
from coordinator.summary import history, summarise
from coordinator.tables import summary_table
from protocol.config import Experiment
from protocol.errors import BadInput, Interrupted, RunError
from protocol.experiment_file import load

STARTED = Started(
    run_id="r",
    num_parameters=2,
    payload_bytes=8,
    pids=(1, 2, 3),
    num_samples=(1, 1, 1),
    positions_m=((0, 0),) * 3,
    edges=(),
    startup_wall_s=1.5,
)


def report(device, round_, **changes):
    """Return a round that ends at this device's own modelled time, in which two frames were dropped."""
    usual = {
        "bytes_sent": 100,
        "dropped": {"device 9: another run": 2},
        "spent": make_spent(air_s=round_ + device / 10),
        "wall_s": 0.1,
    }
    return make_report(device, round_, run_id="r", **(usual | changes))


def heard(lost, missing="", **changes):
    return make_heard(packets_corrupted=1, packets_lost=lost, bit_errors=3, missing=missing, **changes)


def test_a_summary_counts_what_the_log_says():
    events = [
        STARTED,
        report(0, 0, accuracy=0.5, heard={1: heard(2), 2: heard(10, "dead")}, wall_s=1.0),
        report(1, 0, accuracy=0.7, heard={0: heard(2)}, wall_s=2.0),
        report(2, 0, accuracy=0.0, wall_s=3.0),
        Died(device=2, rounds=1, reason="killed", wall_s=1.0),
        report(0, 1, accuracy=0.6, loss=0.5, heard={1: heard(10, "wall")}, wall_s=4.0),
        report(1, 1, accuracy=0.8, loss=0.7, heard={0: heard(10, "air")}, wall_s=5.0),
        report(0, 2, accuracy=0.1, loss=9.0, wall_s=6.0),  # a round that device 1 never finished
        Ended(how="stopped", rounds=(3, 2, 1), wall_s=20.0),
    ]
    summary = summarise(history(events), Experiment(devices=3), [], run_dir="here")
    assert summary.devices_lost == (2,)
    assert summary.rounds == 2
    assert summary.accuracy_mean == pytest.approx(0.7)
    assert summary.accuracy_min == pytest.approx(0.6)
    assert summary.loss_mean == pytest.approx(0.6)
    assert summary.packets_sent == 50
    assert summary.packets_lost == 34
    assert summary.packets_corrupted == 5
    assert summary.bit_errors == 15
    assert (summary.frames_missing_dead, summary.frames_missing_wall, summary.frames_missing_air) == (1, 1, 1)
    assert summary.frames_dropped == 12
    assert summary.bytes_sent == 600
    assert summary.round_wall_s_p50 == pytest.approx(3.5)
    assert summary.air_s == pytest.approx(2.0)
    assert summary.wall_s == 20.0
    assert summary.startup_wall_s == 1.5
    assert summary.how == "stopped"
    assert summary.consensus_distance is None


def summary_of(*reports, rounds=2, died=(), **sections):
    """Summarise reports of three devices."""
    deaths = [Died(device=device, rounds=1, reason="killed", wall_s=1.0) for device in died]
    ended = Ended(how="finished", rounds=(rounds,) * 3, wall_s=20.0)
    run = history([STARTED, *reports, *deaths, ended])
    return summarise(run, Experiment(devices=3, **sections), [], run_dir="here")


SPENT = [
    report(
        device,
        round_,
        spent=make_spent(
            air_s=10.0 * round_ + device, compute_air_s=0.5, slot_wait_air_s=0.25, compute_j=2.0, idle_j=1.0
        ),
        heard={
            (device + 1) % 3: heard(0, packets_resent=4, tx_air_s=0.125, tx_j=8.0, rx_j=16.0),
            (device + 2) % 3: heard(0, tx_air_s=0.5, rx_j=32.0),
        },
    )
    for round_ in range(2)
    for device in range(3)
]


def test_modelled_seconds_and_joules_are_summed_or_averaged_as_their_names_say():
    summary = summary_of(*SPENT)
    assert (summary.clock, summary.valid, summary.invalid_reason) == ("virtual", True, "")
    assert summary.air_s == 12.0  # the slowest clock
    assert summary.compute_air_s == 2 * 0.5  # mean over devices
    assert summary.slot_wait_air_s == 2 * 0.25
    assert summary.tx_air_s == 6 * 0.625  # all devices
    assert summary.packets_resent == 24
    assert summary.joules_compute == 12.0
    assert summary.joules_tx == 48.0
    assert summary.joules_rx == 6 * 48.0
    assert summary.joules_idle == 6.0
    assert summary.joules == 12.0 + 48.0 + 6 * 48.0 + 6.0
    assert summary.joules_per_device == (118.0,) * 3
    assert summary.joules_per_link == {"0-1": 112.0, "0-2": 112.0, "1-2": 112.0}


def test_joules_of_the_dead_count_and_their_clocks_do_not():
    summary = summary_of(*SPENT, died=[2])
    assert summary.devices_lost == (2,)
    assert summary.air_s == 11.0
    assert summary.joules == summary_of(*SPENT).joules
    assert summary.joules_per_device == (118.0,) * 3


def test_who_left_early_is_named_and_its_last_accuracy_counts():
    reports = [
        report(d, r, accuracy=0.5 + 0.1 * d + 0.01 * r) for r in range(2) for d in range(3) if d or not r
    ]
    gone = Left(device=0, rounds=1, reason="of its 1 J 0.1 J are left")
    ended = Ended(how="finished", rounds=(1, 2, 2), wall_s=20.0)
    summary = summarise(history([STARTED, *reports, gone, ended]), Experiment(devices=3), [], run_dir="here")
    assert (summary.devices_left, summary.devices_lost, summary.rounds) == ((0,), (), 2)
    assert summary.accuracy_mean == pytest.approx((0.5 + 0.61 + 0.71) / 3)
    all_left = [gone, *(gone.model_copy(update={"device": d, "rounds": 2}) for d in (1, 2))]
    summary = summarise(
        history([STARTED, *reports, *all_left, ended]), Experiment(devices=3), [], run_dir="here"
    )
    assert (summary.devices_left, summary.rounds) == ((0, 1, 2), 1)
    assert summary.accuracy_mean == pytest.approx((0.5 + 0.61 + 0.71) / 3)


def test_a_run_without_a_single_round_cost_nothing():
    summary = summary_of(rounds=0)
    assert summary.air_s == summary.joules == summary.tx_air_s == summary.compute_air_s == 0
    assert summary.joules_per_device == (0, 0, 0)
    assert summary.joules_per_link == {}


def test_the_wall_clock_has_no_modelled_seconds_and_no_joules():
    summary = summary_of(*SPENT, runtime={"clock": "wall"})
    nothing = (None,) * 4
    assert (summary.air_s, summary.compute_air_s, summary.tx_air_s, summary.slot_wait_air_s) == nothing
    assert (summary.joules_compute, summary.joules_tx, summary.joules_rx, summary.joules_idle) == nothing
    assert summary.joules is None
    assert summary.joules_per_device == ()
    assert summary.joules_per_link == {}
    assert summary.valid
    assert summary.packets_resent == 24  # what was counted stays


def paced(num_reports, missed):
    """Summarise paced rounds, two deadlines each, of which so many were missed."""
    reports = [
        report(0, round_, deadlines_missed=missed // num_reports + (round_ < missed % num_reports))
        for round_ in range(num_reports)
    ]
    return summary_of(*reports, runtime={"clock": "paced", "pace": 0.5, "pace_slack_wall_s": 0.125})


def test_a_paced_run_is_valid_up_to_one_missed_deadline_in_a_hundred():
    assert paced(100, 0).valid
    assert (paced(100, 2).valid, paced(100, 2).deadlines_missed) == (True, 2)
    late = paced(100, 3)
    assert (late.valid, late.deadlines_missed) == (False, 3)
    assert late.invalid_reason == (
        "3 of 200 deadlines were passed by more than 0.125 s: this host is too slow for runtime.pace = 0.5"
    )
    assert not paced(10, 1).valid
    assert paced(10, 20).invalid_reason.startswith("20 of 20 deadlines")


def test_only_a_paced_clock_makes_a_run_invalid():
    assert summary_of(report(0, 0, deadlines_missed=2)).valid
    assert not summary_of(report(0, 0, deadlines_missed=2), runtime={"clock": "paced"}).valid
    assert summary_of(rounds=0, runtime={"clock": "paced"}).valid


def printed(summary):
    """Return the lines of a summary's table, white space made single."""
    console = Console(width=200, file=StringIO())
    console.print(summary_table(summary))
    return [" ".join(line.replace("│", " ").split()) for line in console.file.getvalue().splitlines()]


def test_the_table_says_invalid_and_why():
    late = paced(100, 3)
    lines = printed(late)
    assert "paced clock INVALID" in lines
    assert f"INVALID: {late.invalid_reason}" in " ".join(lines)  # it is wrapped below the table
    sound = printed(paced(100, 2))
    assert "paced clock valid" in sound
    assert not any("INVALID" in line for line in sound)


def test_the_table_has_joules_and_modelled_seconds():
    lines = printed(summary_of(*SPENT))
    assert "whole run (air s) 12.00" in lines
    assert "sending, all devices (air s) 3.75" in lines
    assert "energy, all devices (J) 354" in lines
    assert {"computing (J) 12", "sending (J) 48", "receiving (J) 288", "idling (J) 6"} <= set(lines)
    assert "packets sent again 24" in lines
    assert "packets that failed their CRC 12 (8.33%)" in lines  # of all 144 transmissions
    assert not any("paced" in line for line in lines)


def test_the_table_has_dashes_where_the_clock_keeps_nothing():
    lines = printed(summary_of(*SPENT, runtime={"clock": "wall"}))
    assert "whole run (air s) -" in lines
    assert "energy, all devices (J) -" in lines
    assert {"computing (J) -", "sending (J) -", "receiving (J) -", "idling (J) -"} <= set(lines)


def test_the_table_has_a_column_for_each_run_that_is_compared():
    compared = paced(100, 3).model_copy(update={"compare": {"ideal": summary_of(*SPENT)}})
    lines = printed(compared)
    assert "packets sent again 0 24" in lines
    assert "paced clock INVALID" in lines  # the other one keeps no pace, and says nothing


def test_a_log_without_an_end_is_a_stopped_run_and_one_without_a_start_is_none():
    run = history([STARTED, report(0, 0), report(1, 0), report(0, 1)])
    assert run.ended.how == "stopped"
    assert run.ended.rounds == (2, 1, 0)
    with pytest.raises(RunError, match="never started"):
        history([])


def test_the_meter_waits_for_everybody_alive_and_measures_the_distance():
    meter = ConsensusMeter(3, num_values=8)  # two of eight coordinates are sampled: squares count fourfold
    x = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 3.0]], dtype=np.float32)
    assert meter.add(0, 0, x[0]) == []
    assert meter.add(1, 0, x[0]) == []
    assert meter.add(0, 2, x[2]) == []
    [(round_, distance, devices)] = meter.add(0, 1, x[1])
    expected = np.sqrt(4 * ((x - x.mean(0)) ** 2).sum(1).mean())
    assert (round_, devices) == (0, 3)
    assert distance == pytest.approx(expected)
    assert meter.add(1, 1, x[1]) == []
    [(round_, distance, devices)] = meter.lose(2)
    assert (round_, devices) == (1, 2)
    assert distance == pytest.approx(np.sqrt(4 * 1.5**2))


def test_a_report_that_was_lost_does_not_keep_its_round_open():
    meter = ConsensusMeter(2, num_values=1)
    x = np.zeros(1, dtype=np.float32)
    assert meter.add(0, 0, x) == []
    assert meter.add(1, 0, x) == []
    assert [(r, n) for r, _, n in meter.add(1, 1, x)] == [(0, 1), (1, 2)]


def test_the_sampled_distance_is_an_unbiased_estimate_of_the_whole():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((4, 1000)).astype(np.float32) * np.linspace(0, 3, 1000, dtype=np.float32)
    whole = ((x - x.mean(0)) ** 2).sum(1).mean()
    squares = []
    for trial in range(400):
        meter, sample = ConsensusMeter(4, 1000), np.sort(rng.choice(1000, 50, replace=False))
        squares += [
            distance**2
            for device in range(4)
            for _, distance, _ in meter.add(trial, device, x[device, sample])
        ]
    # The mean of 400 estimates lies within 4 standard errors of the truth.
    assert len(squares) == 400
    assert abs(np.mean(squares) - whole) < 4 * np.std(squares) / 20


def test_the_exact_distance_reads_parameter_files(tmp_path):
    x = [{"w": np.full((2, 2), k, np.float32), "b": np.zeros(3, np.float32)} for k in (0, 2)]
    files = [tmp_path / f"device-{k}.safetensors" for k in range(2)]
    for parameters, file in zip(x, files, strict=True):
        save_file(parameters, file)
    assert exact_distance(files) == pytest.approx(2.0)  # each is 1 off the mean in 4 coordinates
    assert exact_distance(files[:1]) == 0
    assert exact_distance([]) is None


def test_a_folder_round_trips_events_and_experiment(tmp_path):
    experiment = Experiment(devices=3, name="x")
    nan = report(0, 0, loss=float("nan"))
    with RunFolder.create(experiment, tmp_path / "run") as folder:
        for event in (STARTED, nan.model_dump_json().encode(), Consensus(round=0, distance=1.0, devices=3)):
            folder.append(event)
        assert folder.run_id.startswith("x-")
    events = read_events(tmp_path / "run")
    assert [event.kind for event in events] == ["started", "report", "consensus"]
    assert np.isnan(events[1].loss)
    assert load(tmp_path / "run" / "experiment.toml") == experiment
    head = (tmp_path / "run" / "experiment.toml").read_text().splitlines()[:2]
    assert head[0].startswith("# hearsay 0.")
    assert ", git " in head[0]


def test_half_a_last_line_is_ignored_and_a_damaged_one_is_named(tmp_path):
    line = STARTED.model_dump_json().encode()
    (tmp_path / EVENTS).write_bytes(line + b"\n" + line[:20])
    assert len(read_events(tmp_path)) == 1
    (tmp_path / EVENTS).write_bytes(line + b"\n" + line[:20] + b"\n")
    with pytest.raises(BadInput, match=r"events\.jsonl:2"):
        read_events(tmp_path)
    with pytest.raises(BadInput, match="not the folder of a run"):
        read_events(tmp_path / "nowhere")


@pytest.mark.parametrize("fault", [BadInput("x"), Interrupted()])
def test_nothing_is_left_of_a_folder_whose_run_never_began(tmp_path, fault):
    with pytest.raises(type(fault)), RunFolder.create(Experiment(), tmp_path / "run"):
        raise fault
    assert not (tmp_path / "run").exists()


def test_a_folder_that_the_user_had_made_stays(tmp_path):
    with pytest.raises(Interrupted), RunFolder.create(Experiment(), tmp_path):
        raise Interrupted
    assert tmp_path.is_dir()
    assert not list(tmp_path.iterdir())


def full_disk(*_, **__):
    raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_at_the_end_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(Figure, "savefig", full_disk)
    with pytest.raises(RunError, match=r"report\.png: cannot be written \(No space left on device\)"):
        save_whole(Figure(), tmp_path / "report.png")
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(RunError, match=r"summary\.json: cannot be written \(No space left on device\)"):
        write_whole(tmp_path / "summary.json", "{}")
    assert not list(tmp_path.iterdir())


def test_nothing_is_left_where_the_disk_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(Path, "write_text", full_disk)
    with pytest.raises(BadInput, match="No space left"), RunFolder.create(Experiment(), tmp_path / "run"):
        pytest.fail("there is no folder to run in")
    assert not (tmp_path / "run").exists()


def fail_after_a_log_was_written(path):
    with RunFolder.create(Experiment(), path) as folder:
        (folder.logs / "process-0.log").write_text("why")
        raise RunError("x")


def test_a_folder_that_failed_otherwise_keeps_its_logs(tmp_path):
    with pytest.raises(RunError):
        fail_after_a_log_was_written(tmp_path / "run")
    assert (tmp_path / "run" / "logs" / "process-0.log").read_text() == "why"
