"""The `hearsay` command: bad input in one line, plans, help that is quick because it loads nothing."""

import json
import subprocess
import sys

import pytest


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
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_input_is_one_line_and_leaves_nothing(small, tmp_path, fault):
    arguments, what = BAD[fault]
    done = hearsay("run", small, *arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert what in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["small.toml"]


@pytest.mark.processes
def test_more_devices_than_samples_is_one_line_and_leaves_nothing(small, tmp_path):
    for command in ("run", "plan"):
        done = hearsay(command, small, "--set", "devices=60", "--set", "graph.kind=complete", cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        [fault] = [line for line in done.stderr.splitlines() if line.startswith("hearsay: ")]
        assert "at most 40 devices fit" in fault
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
def test_plan_says_what_a_run_would_be(small):
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
    assert all(0 <= link["packet_loss"] <= 1 for link in plan["links"])
    assert "spectral gap" in hearsay("plan", small).stdout
    isolated = json.loads(hearsay("plan", small, "--set", "aggregation.scheme=isolated", "--json").stdout)
    assert isolated["links"] == []
    assert isolated["spectral_gap"] == isolated["degree_max"] == 0


def test_schema_describes_every_key():
    schema = json.loads(hearsay("schema").stdout, parse_constant=pytest.fail)  # JSON has no Infinity
    assert {"name", "seed", "devices", "rounds", "radio"} <= schema["properties"].keys()
    assert schema["$defs"]["Radio"]["properties"]["tx_power_dbm"]["description"]


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
