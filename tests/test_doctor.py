"""The doctor's checks, each with made-up facts: what is green, yellow and red, and whom a red one stops."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from coordinator.doctor import containers, room, software
from coordinator.doctor.doctor import QUICKSTART, diagnose, experiment_of
from coordinator.doctor.facts import Docker, Facts, Folder, Gpu, Graphics, Machine, Package, Software
from coordinator.doctor.finding import LAUNCHERS, size
from coordinator.doctor.table import diagnosis_tables
from coordinator.footprint import COORDINATOR_BYTES, LONE_BYTES, Footprint
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.experiment_file import load
from protocol.messages import Survey

ROOT = Path(__file__).parents[1]
MIB, GIB = 2**20, 2**30
HERE = ("local", "torchrun")

MACHINE = Machine(
    memory_bytes=8 * GIB,
    memory_by="the machine",
    cores=4.0,
    cores_by="the machine",
    threads=None,
    descriptors=4096,
    shm_bytes=64 * MIB,
    fork_server=True,
    loopback=True,
    num_ports=28_232,
    busy_ports=(),
)
# Ten devices of 10 MiB in processes of 20 MiB each, and 200 MiB once.
RUN = Footprint(
    devices=10,
    num_processes=10,
    threads_per_process=5,
    descriptors=64,
    descriptors_per_device=4,
    neighbour_descriptors=100,
    shared_bytes=200 * MIB,
    forked_bytes=20 * MIB,
    device_bytes=(10 * MIB,) * 10,
    disk_bytes=100 * MIB,
)
BLIND = replace(RUN, device_bytes=None, disk_bytes=None)
SURVEY = Survey(
    num_parameters=10_026,
    sample_bytes=256,
    activation_bytes=31_000,
    num_samples=(100,) * 8,
    num_test=50,
    torch="2.13.0+cu126",
    torch_cuda="12.6",
    num_gpus=1,
)
FOLDER = Folder(Path("/runs/new"), Path("/runs"), free_bytes=GIB, writable=True)
SOFTWARE = Software(
    python="3.11.7",
    python_wanted=">=3.11",
    python_suits=True,
    packages=(
        Package("numpy", ">=2.0", "2.4.6"),
        Package("torch", ">=2.6", "2.13.0", "node"),
        Package("sionna-no-rt", ">=2.2", "", "phy", suits=False),
    ),
    torchrun="/usr/bin/torchrun",
)
DOCKER = Docker(cli=True, engine="26.1.5", engine_fault="", compose="2.26.1-4", memory_bytes=16 * GIB)
FILES = {"data": {"dataset": "cifar10"}}


def experiment(**sections):
    return Experiment.model_validate(sections)


def of(finding):
    return finding.status, finding.stops, finding.fits


# 200 MiB once and 30 MiB for each of ten: 500 MiB, which may be 1000.
@pytest.mark.parametrize(
    ("there", "verdict"),
    [
        (1000 * MIB, ("green", (), 26)),
        (1000 * MIB - 1, ("yellow", (), 26)),
        (500 * MIB, ("yellow", (), 10)),
        (500 * MIB - 1, ("red", HERE, 9)),
        (100 * MIB, ("red", HERE, 0)),
    ],
)
def test_memory_is_held_against_what_is_left(there, verdict):
    finding = room.memory(replace(MACHINE, memory_bytes=there), RUN)
    assert of(finding) == verdict
    assert "take about 500 MiB, of which 200 MiB once; the machine leaves" in finding.found


def test_a_container_is_told_of_its_own_limit():
    tight = replace(MACHINE, memory_bytes=400 * MIB, memory_by="its cgroup")
    assert room.memory(tight, RUN).remedy == "give the container more memory, or use at most 6 devices"
    nothing = replace(MACHINE, memory_bytes=MIB)
    assert room.memory(nothing, RUN).remedy == "end other programs"


def test_what_needs_a_device_is_not_known_without_one():
    for finding in (
        room.memory(MACHINE, BLIND),
        room.disk(FOLDER, BLIND),
        containers.containers(DOCKER, BLIND),
    ):
        assert of(finding) == ("yellow", (), None)
        assert "not known" in finding.found


@pytest.mark.parametrize(
    ("settings", "status"),
    [
        ({"devices": 128}, "green"),
        ({"devices": 129}, "yellow"),
        ({"devices": 65, "runtime": {"torch_threads": 2}}, "yellow"),
        ({"devices": 4, "runtime": {"clock": "wall"}}, "green"),
        ({"devices": 5, "runtime": {"clock": "wall"}}, "yellow"),
        ({"devices": 5, "runtime": {"clock": "paced"}}, "yellow"),
    ],
)
def test_cores_may_be_shared_unless_their_seconds_count(settings, status):
    finding = room.cores(MACHINE, experiment(**settings))
    assert of(finding) == (status, (), None)


# 64 files and 4 for each of ten devices.
@pytest.mark.parametrize(
    ("run", "limit", "verdict"),
    [
        (RUN, 104, ("green", (), 10)),
        (RUN, 103, ("red", HERE, 9)),
        (RUN, None, ("green", (), None)),
        (replace(RUN, neighbour_descriptors=105), 104, ("red", HERE, 10)),
    ],
)
def test_open_files_of_the_process_that_has_most_are_counted(run, limit, verdict):
    assert of(room.descriptors(replace(MACHINE, descriptors=limit), run)) == verdict


# 32 threads of others, and 5 of each of ten processes.
@pytest.mark.parametrize(
    ("threads", "verdict"),
    [(82, ("green", (), 10)), (81, ("red", HERE, 9)), (None, ("green", (), None))],
)
def test_threads_are_held_against_their_limit(threads, verdict):
    assert of(room.processes(replace(MACHINE, threads=threads), RUN)) == verdict


def test_without_a_fork_server_only_the_local_launcher_is_stopped():
    finding = room.processes(replace(MACHINE, fork_server=False), RUN)
    assert of(finding) == ("red", ("local",), None)


@pytest.mark.parametrize(
    ("shm_bytes", "num_gpus", "status"),
    [(0, 0, "green"), (0, 1, "green"), (64 * MIB, 2, "yellow"), (0, 2, "yellow"), (GIB, 2, "green")],
)
def test_shared_memory_matters_between_gpus(shm_bytes, num_gpus, status):
    finding = room.shared_memory(replace(MACHINE, shm_bytes=shm_bytes), num_gpus)
    assert of(finding) == (status, (), None)


@pytest.mark.parametrize(
    ("free_bytes", "writable", "verdict"),
    [
        (200 * MIB, True, ("green", (), None)),
        (200 * MIB - 1, True, ("yellow", (), None)),
        (100 * MIB - 1, True, ("red", LAUNCHERS, None)),
        (GIB, False, ("red", LAUNCHERS, None)),
    ],
)
def test_the_folder_of_a_run_needs_room(free_bytes, writable, verdict):
    folder = replace(FOLDER, free_bytes=free_bytes, writable=writable)
    assert of(room.disk(folder, RUN)) == verdict
    assert of(room.disk(replace(folder, taken=True), RUN)) == ("red", LAUNCHERS, None)


@pytest.mark.parametrize(
    ("changes", "settings", "verdict"),
    [
        ({}, {}, ("green", (), 28_231)),
        ({"loopback": False}, {}, ("red", HERE, None)),
        ({"num_ports": 8}, {}, ("red", HERE, 7)),
        ({"num_ports": 9}, {}, ("green", (), 8)),
        ({"num_ports": 8}, {"transport": {"kind": "memory"}}, ("green", (), 7)),
        ({"busy_ports": (5555,)}, {}, ("yellow", (), 28_231)),
    ],
)
def test_each_device_needs_a_port(changes, settings, verdict):
    finding = room.ports(replace(MACHINE, **changes), experiment(**settings))
    assert of(finding) == verdict


def test_python_is_held_against_the_project():
    assert of(software.python(SOFTWARE)) == ("green", (), None)
    old = replace(SOFTWARE, python="3.10.2", python_suits=False)
    assert of(software.python(old)) == ("red", HERE, None)


def test_packages_are_named_with_what_is_wrong_with_them():
    assert of(software.packages(SOFTWARE, experiment())) == ("green", (), None)
    phy = software.packages(SOFTWARE, experiment(radio={"packet_errors": "sionna", "code_rate": 0.5}))
    assert of(phy) == ("red", HERE, None)
    assert (phy.found, phy.remedy) == ("sionna-no-rt>=2.2: not installed", "pip install 'hearsay[phy]'")
    old = replace(SOFTWARE, packages=(Package("numpy", ">=2.0", "1.26.4", suits=False),))
    finding = software.packages(old, experiment())
    assert (finding.found, finding.remedy) == ("numpy>=2.0: 1.26.4 is there", "pip install 'hearsay'")


def test_a_device_that_does_not_answer_stops_what_would_start_it():
    assert of(software.device(SURVEY, "")) == ("green", (), None)
    finding = software.device(None, "torch not installed")
    assert of(finding) == ("red", HERE, None)
    assert finding.found == "no answer: torch not installed"


@pytest.mark.parametrize(
    ("survey", "free_bytes", "writable", "status", "says"),
    [
        ({"data_found": "all of it"}, 0, False, "green", "all of it, in /data"),
        ({"data_missing": ("https://a/b.gz",)}, 200 * MIB, True, "yellow", "downloaded: https://a/b.gz"),
        ({"data_missing": ("https://a/b.gz",)}, 200 * MIB - 1, True, "red", "https://a/b.gz"),
        ({"data_missing": ("https://a/b.gz",)}, GIB, False, "red", "https://a/b.gz"),
        ({"data_fault": "/data/b.gz: wrong checksum"}, GIB, True, "red", "/data/b.gz: wrong checksum"),
    ],
)
def test_data_are_there_or_would_be_downloaded_or_broken(survey, free_bytes, writable, status, says):
    told = SURVEY.model_copy(update={"data_folder": "/data", "data_bytes": 100 * MIB} | survey)
    folder = Folder(Path("/data"), Path("/"), free_bytes, writable)
    finding = software.data(experiment(**FILES), told, folder)
    assert of(finding) == (status, HERE if status == "red" else (), None)
    assert says in finding.found


def test_data_that_are_made_need_nothing():
    for name in ("digits", "synthetic"):
        model = {"kind": "mlp"}
        finding = software.data(experiment(data={"dataset": name}, model=model), None, None)
        assert of(finding) == ("green", (), None)
    assert of(software.data(experiment(**FILES), None, None)) == ("yellow", (), None)


H100 = Gpu("H100", free_bytes=80 * GIB)


@pytest.mark.parametrize(
    ("graphics", "survey", "verdict"),
    [
        (Graphics(), SURVEY, ("green", (), None)),
        (Graphics(fault="couldn't communicate with the driver"), SURVEY, ("yellow", (), None)),
        (Graphics("550.1", (H100, H100)), SURVEY, ("green", (), 160)),
        (Graphics("550.1", (H100,)), SURVEY.model_copy(update={"torch_cuda": ""}), ("yellow", (), 80)),
        (Graphics("470.1", (H100,)), SURVEY.model_copy(update={"num_gpus": 0}), ("yellow", (), 80)),
        (Graphics("550.1", (H100,)), None, ("yellow", (), 80)),
    ],
)
def test_gpus_count_what_fits_and_whether_torch_sees_them(graphics, survey, verdict):
    facts = Facts(MACHINE, SOFTWARE, FOLDER, graphics=graphics, survey=survey)
    assert of(software.gpus(facts, GIB)) == verdict
    assert software.gpus(facts, None).fits is None


def test_torchrun_is_somewhere_or_stops_itself():
    assert of(software.torchrun(SOFTWARE)) == ("green", (), None)
    assert of(software.torchrun(replace(SOFTWARE, torchrun=""))) == ("red", ("torchrun",), None)


def test_docker_needs_a_command_and_an_engine():
    assert of(containers.docker(DOCKER)) == ("green", (), None)
    gone = replace(DOCKER, engine="", engine_fault="permission denied")
    assert of(containers.docker(gone)) == ("red", ("compose",), None)
    assert containers.docker(gone).found == "the engine does not answer: permission denied"
    assert containers.docker(Docker()).found == "no docker command"


@pytest.mark.parametrize(
    ("version", "status"),
    [
        ("2.17.0", "green"),
        ("2.26.1-4", "green"),
        ("5.0.2", "green"),
        ("2.100.0-desktop.1", "green"),
        ("2.16.9", "red"),
        ("1.29.2", "red"),
        ("", "red"),
    ],
)
def test_compose_is_new_enough_for_additional_contexts(version, status):
    finding = containers.compose(replace(DOCKER, compose=version))
    assert of(finding) == (status, ("compose",) if status == "red" else (), None)


def test_containers_share_no_torch():
    each = LONE_BYTES + 10 * MIB
    exactly = replace(DOCKER, memory_bytes=COORDINATOR_BYTES + 10 * each)
    assert of(containers.containers(exactly, RUN)) == ("green", (), 10)
    less = replace(exactly, memory_bytes=exactly.memory_bytes - 1)
    assert of(containers.containers(less, RUN)) == ("red", ("compose",), 9)
    assert containers.containers(Docker(), RUN) is None


def diagnosis(**changes):
    facts = Facts(MACHINE, SOFTWARE, FOLDER, docker=DOCKER, survey=SURVEY)
    return diagnose(experiment(), replace(facts, **changes), RUN)


def test_a_run_starts_unless_something_red_stands_in_its_way():
    sound = diagnosis()
    assert sound.starts
    assert sound.launchers == {"local": (), "compose": (), "torchrun": ()}
    assert {finding.status for finding in sound.findings} == {"green"}
    bare = diagnosis(docker=Docker(), software=replace(SOFTWARE, torchrun=""))
    assert bare.starts
    assert bare.launchers == {"local": (), "compose": ("docker", "compose"), "torchrun": ("torchrun",)}
    deaf = diagnosis(machine=replace(MACHINE, loopback=False))
    assert not deaf.starts
    assert deaf.launchers == {"local": ("ports",), "compose": (), "torchrun": ("ports",)}


def test_as_many_devices_fit_as_the_tightest_check_says():
    assert (diagnosis().devices_fit, diagnosis().fits_by) == (266, "memory")  # (8192 - 200) / 30
    tight = diagnosis(machine=replace(MACHINE, descriptors=164))
    assert (tight.devices_fit, tight.fits_by) == (25, "descriptors")


def test_whoever_is_not_green_has_a_remedy_and_red_stops_somebody():
    bad = diagnosis(
        machine=replace(MACHINE, memory_bytes=0, cores=0.1, descriptors=1, threads=1, busy_ports=(5555,)),
        software=replace(
            SOFTWARE, python_suits=False, packages=(Package("a", ">=1", "", "node", suits=False),)
        ),
        run_folder=replace(FOLDER, writable=False),
        docker=Docker(),
        graphics=Graphics(fault="no driver"),
        survey=None,
    )
    for finding in bad.findings:
        assert bool(finding.remedy) == (finding.status != "green"), finding
        assert bool(finding.stops) == (finding.status == "red"), finding
    assert sum(finding.status == "red" for finding in bad.findings) == 9


def test_the_page_has_every_check():
    page = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    (text,) = re.findall(r"^## hearsay doctor\n(.+?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    named = re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)
    assert named == [finding.check for finding in diagnosis().findings]


def test_the_usual_experiment_is_the_quickstart():
    assert experiment_of(None, ()) == load(ROOT / "experiments" / "quickstart.toml")
    assert experiment_of(None, ("devices=9",)).devices == 9
    with pytest.raises(BadInput, match=r"^--set: unknown key .radio\.tx_powr_dbm"):
        experiment_of(None, ("radio.tx_powr_dbm=1",))
    assert len(QUICKSTART) == 4


def test_sizes_are_written_as_people_read_them():
    assert [size(n) for n in (0, 512 * MIB, GIB, 1.5 * GIB)] == ["0 MiB", "512 MiB", "1.0 GiB", "1.5 GiB"]


def test_what_a_program_says_is_not_taken_for_markup():
    from rich.console import Console

    strange = replace(DOCKER, engine="", engine_fault="[red]no[/red] engine")
    console = Console(width=200)
    with console.capture() as capture:
        console.print(*diagnosis_tables(diagnosis(docker=strange)))
    assert "[red]no[/red] engine" in capture.get()


@pytest.mark.processes
def test_the_doctor_looks_at_this_very_machine(shell, small):
    """For a run into a folder that cannot be one: whatever else this machine is like, that is red."""
    code, stdout, stderr = shell("doctor", small, "--out", small, "--json")
    told = json.loads(stdout)
    assert (code, told["starts"]) == (1, False), stderr
    assert (told["experiment"], told["devices"]) == ("small", 4)
    assert "disk" in told["launchers"]["local"]
    by_name = {finding["check"]: finding for finding in told["findings"]}
    assert by_name["python"]["status"] == by_name["packages"]["status"] == "green"
    assert "474 parameters" in by_name["device"]["found"]


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_the_exit_code_says_whether_a_run_would_start(small, monkeypatch, capsys, options):
    from coordinator.cli import app

    for machine, code in ((MACHINE, 0), (replace(MACHINE, loopback=False), 1)):
        survey = SURVEY.model_copy(update={"num_samples": (80,) * 4})
        told = Facts(machine, SOFTWARE, FOLDER, survey=survey)
        monkeypatch.setattr("coordinator.doctor.doctor.probe", lambda *_, told=told: told)
        with pytest.raises(SystemExit) as end:
            app(["doctor", str(small), *options])
        assert (end.value.code or 0) == code
        out, err = capsys.readouterr()
        assert err == ""
        if options:
            assert json.loads(out)["starts"] is (code == 0)
        else:
            assert ("not without: ports" in out) is (code == 1)


@pytest.mark.parametrize(
    ("setting", "what"),
    [
        ("radio.tx_powr_dbm=1", "did you mean 'tx_power_dbm'?"),
        ("graph.kind=edges", "needs graph.file"),
        ("radio.tx_power_dbm=-60", "no link can carry anything"),
    ],
)
def test_a_file_that_does_not_load_is_bad_input(shell, small, setting, what):
    code, stdout, stderr = shell("doctor", small, "--set", setting)
    assert (code, stdout) == (2, "")
    assert len(stderr.splitlines()) == 1
    assert what in stderr
