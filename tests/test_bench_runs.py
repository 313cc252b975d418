"""A whole benchmark of seconds: what it leaves, and what it refuses."""

import json

import pytest

pytestmark = pytest.mark.processes

TINY = ("--devices", "3", "--params", "100k", "--transport", "memory", "--radio", "ideal", "--rounds", "4")


@pytest.fixture(scope="module")
def measured(shell, tmp_path_factory):
    """Measure one case."""
    out = tmp_path_factory.mktemp("bench") / "bench"
    code, stdout, stderr = shell("bench", "latency", *TINY, "--repeats", "1", "--json", "--out", out)
    assert code == 0, stderr
    return out, stdout, stderr


def test_a_benchmark_leaves_numbers_and_a_picture(measured):
    out, stdout, stderr = measured
    found = json.loads(stdout)  # exactly one object
    assert found == json.loads((out / "bench.json").read_text())
    assert {p.name for p in out.iterdir()} == {"bench.json", "bench.png"}
    assert (found["version"], found["rounds"], found["warmup_rounds"], found["repeats"]) == (1, 4, 5, 1)
    [case], [size] = found["cases"], found["sizes"]
    assert case["bound_by_interpreter_lock"]
    assert (case["num_parameters"], case["frame_bytes"] >= 4 * 100_180) == (100_180, True)
    [one], [limits] = case["measurements"], size["limits"]
    assert len(one["each_device"]) == 3
    assert 0 < one["all_devices"]["round"]["p50"] <= one["all_devices"]["round"]["p95"]
    parts = sum(of["mean"] for of in one["all_devices"]["stages"].values())
    assert parts == pytest.approx(one["all_devices"]["round"]["mean"], rel=1e-9)
    # Two frames of each device in each round.
    seconds = sum(times["round"]["mean"] for times in one["each_device"]) / 3
    sent = one["sent_bytes_per_s"] * seconds / 3
    assert 2 * case["frame_bytes"] < sent < 2.01 * case["frame_bytes"]
    assert one["device_cpu_s"] > 0
    assert one["device_pss_bytes"] > 1e7
    assert one["startup_wall_s"] < found["cold_startup_wall_s"]  # torch was loaded before
    assert all(limits[name] > 0 for name in limits if name.endswith("wall_s"))
    # A copy is the least of all, and a whole round more than its exchange.
    assert limits["copy_wall_s"] < limits["zmq_wall_s"]
    assert "bound by the interpreter lock" in stderr
    assert f"numbers: {out / 'bench.json'}" in stderr


def test_bad_input_leaves_nothing(measured, shell, tmp_path):
    faults = {
        ("--devices", "2"): "--devices 2: expected a whole number from 3",
        ("--transport", "tcp"): "--transport tcp: there is none",
        ("--out", measured[0]): "the folder is not empty; name one that is new",
    }
    for arguments, what in faults.items():
        code, stdout, stderr = shell("bench", "latency", *TINY, *arguments)
        assert (code, stdout, len(stderr.splitlines())) == (2, "", 1)
        assert what in stderr
    assert not list(shell.folder.iterdir())
    assert {p.name for p in measured[0].iterdir()} == {"bench.json", "bench.png"}
