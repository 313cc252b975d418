"""Whole sweeps: real runs, interrupted, killed, gone on with, some at a time."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from conftest import RUN_WALL_S, SMALL, end_session, events, parameters, session, wait_until

pytestmark = pytest.mark.processes

AXES = ("radio.tx_power_dbm=-5:5:10", "seed=1:2")
NAMES = {f"radio.tx_power_dbm={power},seed={seed}" for power in (-5, 5) for seed in (1, 2)}


class Sweep:
    """A `hearsay sweep` in the background."""

    def __init__(self, arguments, out):
        self.out = out
        self.process = subprocess.Popen(
            [sys.executable, "-m", "coordinator", "sweep", *map(str, arguments), "--out", str(out)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def under_way(self, name):
        """Return the folder of a point that is run now, once all its devices have reported a round."""
        wait_until(lambda: any(self._is_learning(folder) for folder in self._partial(name)), self.process)
        return next(folder for folder in self._partial(name) if self._is_learning(folder))

    def finish(self):
        """Wait for the end; return the exit code, stdout and stderr."""
        stdout, stderr = self.process.communicate(timeout=RUN_WALL_S)
        return self.process.returncode, stdout, stderr

    def _partial(self, name):
        return list((self.out / "points").glob(f"{name}.*.partial"))

    def _is_learning(self, folder):
        return len({e["device"] for e in events(folder, "report") if e["round"] >= 1}) == 4


@pytest.fixture
def start(small, tmp_path):
    """Start a sweep of the small experiment; whatever a test does, none of its processes outlives it."""
    sweeps = []

    def start(*arguments):
        sweeps.append(Sweep([small, *arguments], tmp_path / "sweep"))
        return sweeps[-1]

    yield start
    for sweep in sweeps:
        end_session(sweep.process)


def record(out):
    return json.loads((out / "sweep.json").read_text())


def states(out):
    return {Path(point["folder"]).name: point["state"] for point in record(out)["points"]}


def run_ids(out):
    return {
        folder.name: json.loads((folder / "summary.json").read_text())["run_id"]
        for folder in (out / "points").iterdir()
        if folder.suffix != ".partial"
    }


@pytest.fixture(scope="module")
def swept(shell, tmp_path_factory):
    """Sweep the small experiment, one run at a time."""
    folder = tmp_path_factory.mktemp("swept")
    (folder / "small.toml").write_text(SMALL)
    code, stdout, stderr = shell(
        "sweep", folder / "small.toml", *AXES, "--out", folder / "sweep", "--set", "rounds=4", "--json"
    )
    assert code == 0, stderr
    return folder / "small.toml", folder / "sweep", stdout, stderr


def test_a_sweep_leaves_its_points_their_numbers_and_a_picture(swept):
    _, out, stdout, stderr = swept
    found = json.loads(stdout)  # exactly one object
    assert found == record(out)
    assert (found["name"], found["keys"]) == ("small", ["radio.tx_power_dbm", "seed"])
    assert {Path(point["folder"]).name for point in found["points"]} == NAMES
    for point in found["points"]:
        folder = out / point["folder"]
        summary = json.loads((folder / "summary.json").read_text())
        assert summary["run_dir"] == str(folder)
        assert (point["state"], point["sound"], point["reason"]) == ("finished", True, "")
        assert point["numbers"]["packet_loss"] == summary["packets_lost"] / summary["packets_sent"]
        for name in point["numbers"].keys() & summary.keys():
            assert point["numbers"][name] == summary[name]
        assert len(parameters(folder)) == 4
        assert 'name = "small"' in (folder / "experiment.toml").read_text()
    weak, strong = found["cells"]
    assert (weak["settings"], weak["num_finished"]) == ({"radio.tx_power_dbm": -5.0}, 2)
    losses = [point["numbers"]["packet_loss"] for point in found["points"]]
    assert weak["estimates"]["packet_loss"]["mean"] == pytest.approx((losses[0] + losses[1]) / 2)
    # Two values and one degree of freedom: Student's 12.706 times half their distance.
    assert weak["estimates"]["packet_loss"]["half_width"] == pytest.approx(
        12.706 * abs(losses[0] - losses[1]) / 2, rel=1e-4
    )
    assert strong["estimates"]["packet_loss"]["mean"] < weak["estimates"]["packet_loss"]["mean"]
    assert (out / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert {p.name for p in out.iterdir()} == {"sweep.json", "sweep.png", "points", ".lock"}
    lines = stderr.splitlines()
    for number, line in enumerate(lines[:4], start=1):
        assert line.startswith(f"{number} of 4: radio.tx_power_dbm=")
    assert "4 of 4 points finished" in stderr
    assert "n = 2 seeds" in stderr


def test_two_at_a_time_are_the_same_runs_bit_for_bit(shell, swept, tmp_path):
    file, out, *_ = swept
    both = tmp_path / "both"
    code, _, stderr = shell("sweep", file, *AXES, "--out", both, "--set", "rounds=4", "--jobs", "2")
    assert code == 0, stderr
    for one, other in zip(record(out)["points"], record(both)["points"], strict=True):
        assert one["settings"] == other["settings"]
        for name in ("accuracy_mean", "accuracy_min", "loss_mean", "consensus_distance", "packet_loss"):
            assert one["numbers"][name] == other["numbers"][name], name
        for name in ("joules", "air_s"):  # summed in the order in which the host delivers
            assert one["numbers"][name] == pytest.approx(other["numbers"][name], rel=1e-12)
        first, second = parameters(out / one["folder"]), parameters(both / other["folder"])
        assert len(first) == 4
        assert all((first[name] == second[name]).all() for name in first)


def test_axes_can_grow_and_only_what_is_new_is_run(shell, swept, tmp_path):
    file, out, *_ = swept
    before = run_ids(out)
    sets = ("--set", "rounds=4", "--out", out)
    refused = {
        (*AXES, "--set", "radio.tx_power_dbm=0"): "is swept as well",
        (*AXES, "--set", "training.local_rounds=2"): "training.local_rounds = 1 there, 2 here",
        (
            "radio.tx_power_dbm=5",
            "seed=1:2",
        ): "holds radio.tx_power_dbm=-5,seed=1, which these axes leave out",
        (
            "radio.tx_power_dbm=-5:5:10",
        ): "holds a sweep over radio.tx_power_dbm, seed, not radio.tx_power_dbm",
    }
    for arguments, what in refused.items():
        code, stdout, stderr = shell("sweep", file, *arguments, *sets)
        assert (code, stdout, len(stderr.splitlines())) == (2, "", 1)
        assert what in stderr
    assert run_ids(out) == before
    code, _, stderr = shell("sweep", file, "seed=1:3", "radio.tx_power_dbm=-5:5:10", *sets)
    assert code == 0, stderr
    after = run_ids(out)
    assert after.keys() - before.keys() == {f"radio.tx_power_dbm={power},seed=3" for power in (-5, 5)}
    assert {name: after[name] for name in before} == before
    assert "5 of 6: " in stderr
    assert "1 of 6: " not in stderr
    # Another experiment in a point's folder, whatever its summary says, is not what would be run.
    changed = out / "points" / "radio.tx_power_dbm=5,seed=3" / "experiment.toml"
    changed.write_text(changed.read_text().replace("rounds = 4", "rounds = 3"))
    code, _, stderr = shell("sweep", file, "seed=1:3", "radio.tx_power_dbm=-5:5:10", *sets)
    assert code == 0, stderr
    assert [name for name, run_id in run_ids(out).items() if after[name] != run_id] == [changed.parent.name]


def test_a_point_that_fails_says_why_and_the_others_go_on(shell, small, tmp_path):
    out = tmp_path / "sweep"
    arguments = ("sweep", small, "runtime.join_wall_s=1e-3,100", "radio.tx_power_dbm=-60,5", "--out", out)
    code, stdout, stderr = shell(*arguments, "--json", "--set", "rounds=2")
    assert code == 1, stderr
    failed = {tuple(p["settings"].values()): p["reason"] for p in json.loads(stdout)["points"] if p["reason"]}
    assert failed.keys() == {(1e-3, -60), (1e-3, 5), (100, -60)}
    assert "no link can carry anything" in failed[100, -60]
    assert "of 4 devices were ready within 0.001 s (runtime.join_wall_s); see " in failed[1e-3, 5]
    logs = Path(failed[1e-3, 5].partition("; see ")[2])
    assert logs.is_dir()  # what a reader is told to read is there
    assert "FAILED: runtime.join_wall_s=0.001, radio.tx_power_dbm=5: " in stderr
    assert "1 of 4 points finished" in stderr
    assert (out / "sweep.png").exists()
    assert states(out)["radio.tx_power_dbm=5,runtime.join_wall_s=100"] == "finished"
    code, _, stderr = shell(*arguments, "--set", "rounds=2")
    assert code == 1  # tried again, and failed again
    assert not logs.exists()
    assert "2 of 4: " in stderr


def test_a_killed_sweep_is_gone_on_with_where_it_ended(shell, start, small):
    axes = ("rounds=4,150", "seed=1")
    sweep = start(*axes, "--set", "runtime.coordinator_grace_s=5")
    half = sweep.under_way("rounds=150,seed=1")
    sweep.process.kill()
    sweep.process.wait()
    before = run_ids(sweep.out)
    assert states(sweep.out) == {"rounds=4,seed=1": "finished", "rounds=150,seed=1": "waiting"}
    # At once, while devices without a coordinator are still about to write their parameters.
    code, stdout, stderr = shell(
        "sweep", small, *axes, "--set", "runtime.coordinator_grace_s=5", "--out", sweep.out, "--json"
    )
    assert code == 0, stderr
    assert "2 of 2: rounds=150, seed=1" in stderr
    assert "1 of 2: " not in stderr
    assert run_ids(sweep.out).items() > before.items()
    whole = sweep.out / "points" / "rounds=150,seed=1"
    assert len(events(whole, "report")) == 4 * 150
    assert not half.exists()
    wait_until(lambda: not session(sweep.process))
    assert {p.name for p in (sweep.out / "points").iterdir()} == {"rounds=4,seed=1", "rounds=150,seed=1"}
    assert json.loads(stdout)["points"][1]["numbers"]["consensus_distance"] == pytest.approx(
        events(whole, "consensus")[-1]["distance"], rel=1e-5
    )


def test_an_interrupt_stops_what_runs_and_keeps_what_was_finished(shell, start, small):
    axes = ("rounds=4,300", "seed=1:2")
    sweep = start(*axes, "--jobs", "2")
    halves = [sweep.under_way(f"rounds=300,seed={seed}") for seed in (1, 2)]
    started = [event for half in halves for event in events(half, "started")]
    pids = [pid for event in started for pid in event["pids"]]
    assert len(set(pids)) == 8
    assert len({psutil.Process(pid).ppid() for pid in pids}) == 1  # one server has loaded torch, once
    code, _, stderr = shell("sweep", small, *axes, "--out", sweep.out)
    assert code == 2
    assert "another sweep is at work in it" in stderr
    os.killpg(sweep.process.pid, signal.SIGINT)  # as a terminal does: the whole group gets it
    code, stdout, stderr = sweep.finish()
    assert code == 130, stderr
    wait_until(lambda: not session(sweep.process))
    assert "2 of 4 points finished" in stdout
    assert f"to go on, give the same command --out {sweep.out}" in stdout
    assert list(states(sweep.out).values()) == ["finished"] * 2 + ["waiting"] * 2
    assert (sweep.out / "sweep.png").exists()
    stopped = [json.loads((half / "summary.json").read_text()) for half in halves]
    assert [summary["how"] for summary in stopped] == ["stopped", "stopped"]
    before = run_ids(sweep.out)
    code, _, stderr = shell("sweep", small, *axes, "--out", sweep.out, "--jobs", "2")
    assert code == 0, stderr
    after = run_ids(sweep.out)
    assert {name: after[name] for name in before} == before
    assert {p.name for p in (sweep.out / "points").iterdir()} == after.keys()
    assert len(after) == 4
    assert not {summary["run_id"] for summary in stopped} & set(after.values())


BAD = {
    "no axis": ([], "Missing argument"),
    "unknown key": (["radio.tx_powr_dbm=0:20:5"], "did you mean 'tx_power_dbm'?"),
    "an absurd grid": (["seed=1:1000", "devices=1:1000"], "a grid of 1,000,000 points; at most 10,000"),
    "no job": (["seed=1:2", "--jobs", "0"], "--jobs 0: expected a whole number from 1 to 256"),
    "half a job": (["seed=1:2", "--jobs", "1.5"], "--jobs 1.5: expected a whole number"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_leaves_nothing(shell, small, tmp_path, fault):
    arguments, what = BAD[fault]
    code, stdout, stderr = shell("sweep", small, *arguments)
    assert (code, stdout) == (2, "")
    assert what in stderr
    assert arguments == [] or len(stderr.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["small.toml"]
    assert not list(shell.folder.iterdir())


def test_a_folder_that_holds_no_sweep_is_refused_and_not_touched(shell, small, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "precious").write_text("1")
    code, _, stderr = shell("sweep", small, "seed=1:2", "--out", taken)
    assert (code, len(stderr.splitlines())) == (2, 1)
    assert "is not empty and holds no sweep" in stderr
    assert [p.name for p in taken.iterdir()] == ["precious"]
    (taken / "sweep.json").write_text("{}")
    code, _, stderr = shell("sweep", small, "seed=1:2", "--out", taken)
    assert (code, len(stderr.splitlines())) == (2, 1)
    assert "its sweep.json is not of this version of hearsay" in stderr
    assert (taken / "precious").exists()
