"""The `hearsay` command: bad input in one line, plans, help that is quick because it loads nothing."""

import json
import subprocess
import sys

import pytest
from conftest import (
    ACK_AIR_S,
    COMPUTE_AIR_S,
    FRAME_AIR_S,
    HEADER_AIR_S,
    NUM_PACKETS,
    NUM_PARAMETERS,
    SUPERFRAME_AIR_S,
)


def hearsay(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "coordinator", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=cwd,
    )


def loaded_by(code):
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print(*sys.modules)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


DEAF = {
    "nobody can be heard": (["--set", "radio.tx_power_dbm=-60"], "no link can carry anything: the best has"),
    "nobody is loud enough": (
        # A gain of 11.5 occurs once in 100,000 fades, so no run ever sees one.
        ["--set", "radio.scheme=analog", "--set", "radio.analog.gain_threshold=11.5"],
        "radio.analog.gain_threshold = 11.5 silences them all",
    ),
}
BAD = {
    "misspelt key": (["--set", "radio.tx_powr_dbm=1"], "did you mean 'tx_power_dbm'?"),
    "misspelt section": (["--set", "radoi.modulation=bpsk"], "did you mean 'radio'?"),
    "out of range": (["--set", "radio.tx_power_dbm=99"], ">= -60 and <= 60 dBm"),
    "not a number": (["--set", "rounds=many"], "rounds"),
    "unknown choice": (["--set", "radio.modulation=qam3"], "'bpsk', 'qpsk'"),
    "no value": (["--set", "rounds"], "expected section.key=value"),
    "disconnected graph": (["--set", "graph.kind=geometric", "--set", "graph.radius_m=1"], "graph.radius_m"),
    "unknown comparison": (["--compare", "isolatd"], "did you mean 'isolated'?"),
    "a comparison twice": (["--compare", "ideal,ideal"], "names each condition once"),
    "odd degree of an odd graph": (
        ["--set", "devices=5", "--set", "graph.kind=expander", "--set", "graph.degree=3"],
        "use an even degree or an even number of devices",
    ),
    "a folder name too long": (["--out", "x" * 300], "cannot be made"),
    "a number without end": (["--set", "seed=0x" + "f" * 5000], "a number of thousands of digits"),
    "no edges file": (["--set", "graph.kind=edges", "--set", "graph.file=none.txt"], "none.txt"),
    "a misspelt key of a section in a section": (
        ["--set", "radio.analog.payloads=models"],
        "unknown key 'radio.analog.payloads': did you mean 'payload'?",
    ),
    "no matrix file": (["--set", "radio.snr=matrix", "--set", "radio.snr_file=none.txt"], "none.txt"),
    "a threshold above every fade": (
        ["--set", "radio.scheme=analog", "--set", "radio.analog.gain_threshold=20"],
        "radio.analog.gain_threshold = 20: silences every link",
    ),
    **DEAF,
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(shell, small, tmp_path, fault):
    arguments, what = BAD[fault]
    code, stdout, stderr = shell("run", small, *arguments)
    assert (code, stdout) == (2, ""), stderr
    assert len(stderr.splitlines()) == 1
    assert what in stderr
    assert [p.name for p in tmp_path.iterdir()] == ["small.toml"]
    assert not list(shell.folder.iterdir())


def test_a_process_that_was_given_bad_input_ends_with_exit_code_2(small, tmp_path):
    done = hearsay("run", small, "--set", "radio.bandwidth_hz=-1", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"hearsay: {small} with --set: radio.bandwidth_hz = -1: must be >= 1 and <= 1e+12 Hz\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["small.toml"]


@pytest.mark.parametrize("fault", DEAF)
def test_plan_says_in_one_line_that_nobody_can_be_heard(shell, small, fault):
    arguments, what = DEAF[fault]
    code, stdout, stderr = shell("plan", small, *arguments)
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert what in stderr


@pytest.mark.processes
def test_more_devices_than_samples_is_one_line_and_leaves_nothing(small, tmp_path):
    for command in ("run", "plan"):
        done = hearsay(command, small, "--set", "data.min_samples_per_device=100", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        [fault] = [line for line in done.stderr.splitlines() if line.startswith("hearsay: ")]
        assert "at most 3 devices fit" in fault
        assert "Traceback" not in done.stderr
        assert [p.name for p in tmp_path.iterdir()] == ["small.toml"] or not list(
            (tmp_path / "runs").iterdir()
        )


def test_a_missing_file_is_one_line(tmp_path):
    for command in ("run", "plan"):
        done = hearsay(command, tmp_path / "nothing.toml")
        assert done.returncode == 2
        assert done.stderr.splitlines() == [
            f"hearsay: {tmp_path}/nothing.toml: cannot be read (No such file or directory)"
        ]


def test_a_taken_folder_is_refused_and_not_touched(small, tmp_path):
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "precious").write_text("1")
    done = hearsay("run", small, "--out", taken)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert "not empty" in done.stderr
    assert [p.name for p in taken.iterdir()] == ["precious"]


@pytest.mark.processes
def test_plan_says_what_a_run_would_be(shell, small):
    done = hearsay("plan", small, "--json")
    assert done.returncode == 0, done.stderr
    plan = json.loads(done.stdout)
    assert plan["num_parameters"] == (16 * 16 + 16) + 2 * 16 + (16 * 10 + 10)
    # packets of 64 bytes: 15 numbers and a CRC
    assert plan["packets_per_frame"] == -(-plan["num_parameters"] // 15)
    assert plan["bytes_per_frame"] == 4 * plan["num_parameters"] + 4 * plan["packets_per_frame"]
    assert sum(map(sum, plan["samples_per_class"])) == plan["num_train"] == 320
    assert plan["spectral_gap"] == pytest.approx(2 / 3)  # ring of 4, Metropolis: 1 - (1/3 + 2/3 cos 90)
    assert len(plan["links"]) == 4
    assert all(0 <= loss <= 1 for link in plan["links"] for loss in link["packet_loss"])
    assert plan["num_slots"] == 4
    assert plan["superframe_s"] == pytest.approx(SUPERFRAME_AIR_S, rel=1e-12)
    assert plan["warnings"] == []
    code, stdout, _ = shell("plan", small, "--set", "aggregation.round_deadline_air_s=0.008")
    assert code == 0
    said = " ".join(stdout.split())
    assert "spectral gap" in said
    assert "slots (colours of the graph)" in said
    assert "aggregation.round_deadline_air_s = 0.008: a frame takes 0.008576 s on the air, so every" in said
    isolated = json.loads(shell("plan", small, "--set", "aggregation.scheme=isolated", "--json")[1])
    assert isolated["links"] == []
    assert isolated["spectral_gap"] == isolated["degree_max"] == isolated["superframe_s"] == 0


PACKETS_AIR_S = FRAME_AIR_S - HEADER_AIR_S
BITMAP_AIR_S = NUM_PACKETS / 1e6
# Analog: two numbers to a symbol; behind a header 32 bits say how strong they are, or how they are scaled.
SYMBOLS_AIR_S = NUM_PARAMETERS / 2 / 1e6
NORMS_AIR_S = HEADER_AIR_S + 32 / 1e6

# By hand: slots, seconds of a frame, of a superframe, of all attempts; on a ring each has two neighbours.
PLANS = {
    "small": ((), 4, FRAME_AIR_S, SUPERFRAME_AIR_S, SUPERFRAME_AIR_S),
    "nobody answers": (("radio.symmetric=false",), 4, FRAME_AIR_S, 4 * FRAME_AIR_S, 4 * FRAME_AIR_S),
    "four attempts, with a bitmap each": (
        ("radio.arq=selective_repeat",),
        4,
        FRAME_AIR_S + BITMAP_AIR_S,
        SUPERFRAME_AIR_S + 4 * BITMAP_AIR_S,
        4 * (SUPERFRAME_AIR_S + 4 * BITMAP_AIR_S),
    ),
    "two turns in a slot": (
        ("radio.cast=unicast",),
        4,
        FRAME_AIR_S,
        SUPERFRAME_AIR_S + 4 * FRAME_AIR_S,
        SUPERFRAME_AIR_S + 4 * FRAME_AIR_S,
    ),
    "at the slowest rate": (
        ("radio.rate=adaptive", "radio.modulation=qam256"),
        4,
        FRAME_AIR_S + PACKETS_AIR_S,
        SUPERFRAME_AIR_S + 4 * PACKETS_AIR_S,
        SUPERFRAME_AIR_S + 4 * PACKETS_AIR_S,
    ),
    "half the rate": (
        ("radio.code_rate=0.5",),
        4,
        FRAME_AIR_S + PACKETS_AIR_S,
        SUPERFRAME_AIR_S + 4 * PACKETS_AIR_S,
        SUPERFRAME_AIR_S + 4 * PACKETS_AIR_S,
    ),
    "a band for each": (("radio.access=parallel",), 0, FRAME_AIR_S, 0, FRAME_AIR_S + ACK_AIR_S),
    "a quarter of the band for each": (
        ("radio.access=parallel", "radio.shared_bandwidth=true"),
        0,
        4 * FRAME_AIR_S,
        0,
        4 * (FRAME_AIR_S + ACK_AIR_S),
    ),
    "three colours": (
        ("devices=9",),
        3,
        FRAME_AIR_S,
        3 * (FRAME_AIR_S + 2 * ACK_AIR_S),
        3 * (FRAME_AIR_S + 2 * ACK_AIR_S),
    ),
    "analog, all at once": (
        ("radio.scheme=analog",),
        4,
        SYMBOLS_AIR_S + 3 * NORMS_AIR_S,
        4 * (SYMBOLS_AIR_S + 3 * NORMS_AIR_S),
        4 * (SYMBOLS_AIR_S + 3 * NORMS_AIR_S),
    ),
    "analog, one by one": (
        ("radio.scheme=analog", "radio.analog.superposition=orthogonal"),
        4,
        SYMBOLS_AIR_S + 2 * NORMS_AIR_S,
        4 * 2 * (SYMBOLS_AIR_S + 2 * NORMS_AIR_S),
        4 * 2 * (SYMBOLS_AIR_S + 2 * NORMS_AIR_S),
    ),
    "ideal": (("radio.scheme=ideal",), 0, 0, 0, 0),
    "nobody talks": (("aggregation.scheme=isolated",), 0, 0, 0, 0),
}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_has_the_grid_that_follows_by_hand(planned, name):
    settings, num_slots, frame_s, superframe_s, attempts_s = PLANS[name]
    plan = planned(*settings)
    assert plan.num_slots == num_slots
    assert plan.airtime_per_frame_s == pytest.approx(frame_s, rel=1e-12)
    assert plan.superframe_s == pytest.approx(superframe_s, rel=1e-12)
    assert plan.round_air_s == pytest.approx(COMPUTE_AIR_S + attempts_s, rel=1e-12)


def test_the_plan_warns_of_a_deadline_that_no_frame_can_keep(planned):
    [warning] = planned("aggregation.round_deadline_air_s=0.0085").warnings
    assert warning == (
        "aggregation.round_deadline_air_s = 0.0085: a frame takes 0.008576 s on the air, so every one is late"
    )
    assert planned("aggregation.round_deadline_air_s=0.0086").warnings == ()
    # Another scheme or modulation changes what a frame takes, and so what a deadline may be.
    assert planned("aggregation.round_deadline_air_s=0.0085", "radio.scheme=analog").warnings == ()
    assert planned("aggregation.round_deadline_air_s=1e-9", "radio.scheme=ideal").warnings == ()
    assert len(planned("aggregation.round_deadline_air_s=0.0086", "radio.modulation=bpsk").warnings) == 1
    # Nobody waits for frames that nobody sends.
    assert planned("aggregation.round_deadline_air_s=1e-9", "aggregation.scheme=isolated").warnings == ()


def test_schema_describes_every_key():
    schema = json.loads(hearsay("schema").stdout, parse_constant=pytest.fail)  # JSON has no Infinity
    assert {"name", "seed", "devices", "rounds", "radio"} <= schema["properties"].keys()
    assert schema["$defs"]["Radio"]["properties"]["tx_power_dbm"]["description"]
    assert schema["$defs"]["Analog"]["properties"]["payload"]["description"]
    assert {"mobility", "device"} <= schema["properties"].keys()


def test_help_loads_neither_torch_nor_anything_heavy():
    heavy = {"torch", "numpy", "scipy", "networkx", "pydantic", "zmq", "matplotlib", "sklearn"}
    assert not heavy & loaded_by("from coordinator.cli import app")
    assert hearsay("--help").returncode == 0


def test_a_forked_device_does_not_pay_for_the_coordinator():
    loaded = loaded_by("import coordinator.__main__, coordinator.launch.local")
    assert not {"typer", "rich", "numpy", "networkx", "zmq", "pydantic"} & loaded


def test_running_loads_no_torch():
    assert "torch" not in loaded_by("import coordinator.run, coordinator.plan, coordinator.live")


def test_the_packages_are_ours():
    import coordinator
    import node
    import protocol

    root = __file__.rpartition("/tests/")[0]
    assert node.__file__ == f"{root}/node/__init__.py"
    assert coordinator.__file__ == f"{root}/coordinator/__init__.py"
    assert protocol.__file__ == f"{root}/protocol/__init__.py"


def test_version():
    from importlib.metadata import version

    assert hearsay("--version").stdout.strip() == f"hearsay {version('hearsay')}"


@pytest.mark.processes
def test_plan_runs_our_node_wherever_it_is_called(small, tmp_path):
    (tmp_path / "node.py").write_text("raise SystemExit('not this one')")
    done = hearsay("plan", small, "--json", cwd=tmp_path)
    # `python -m coordinator` puts the folder on its own path; only the described node must not follow.
    assert done.returncode == 0, done.stderr
