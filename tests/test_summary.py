"""The summary, the history and the consensus distance, from small logs written by hand."""

import numpy as np
import pytest
from safetensors.numpy import save_file

from coordinator.consensus import ConsensusMeter, exact_distance
from coordinator.events import Consensus, Died, Ended, Started
from coordinator.store import EVENTS, RunFolder, read_events
from coordinator.summary import history, summarise
from protocol.config import Experiment
from protocol.errors import BadInput, Interrupted, RunError
from protocol.experiment_file import load
from protocol.messages import Heard, Report, Stages

STAGES = Stages(train=0, encode=0, send=0, wait=0, air=0, decode=0, mix=0)
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


def report(device, round_, *, accuracy=None, loss=1.0, heard=None, wall_s=0.1):
    return Report(
        run_id="r",
        device=device,
        round=round_,
        loss=loss,
        accuracy=accuracy,
        test_loss=None,
        bytes_sent=100,
        heard=heard or {},
        dropped={"device 9: another run": 2},
        air_s=round_ + device / 10,
        wall_s=wall_s,
        stages_wall_s=STAGES,
    )


def heard(lost, missing=""):
    return Heard(packets_sent=10, packets_corrupted=1, packets_lost=lost, bit_errors=3, missing=missing)


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


def test_nothing_is_left_where_the_disk_is_full(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("coordinator.store.write_whole", full)
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
