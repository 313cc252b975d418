"""How facts are gathered: control groups of either version, programs that hang, what they say."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic

import psutil
import pytest
from conftest import alive, wait_until

from coordinator.doctor import cgroup
from coordinator.doctor.commands import Answer, Command, Commands
from coordinator.doctor.facts import Docker, Gpu, Graphics
from coordinator.doctor.probe import (
    COMPOSE_PORT,
    probe_folder,
    probe_machine,
    probe_run_folder,
    probe_software,
    read_docker,
    read_graphics,
    read_survey,
)
from coordinator.interrupt import Interrupt
from protocol.errors import BadInput, Interrupted
from protocol.messages import Survey

MIB = 2**20
V2 = "0::/user.slice/run.scope\n"
V1 = "8:pids:/box\n4:memory:/box/inner\n1:cpu,cpuacct:/box\n0::/\n"
NO_LIMIT = 9_223_372_036_854_771_712


@pytest.fixture
def tree(tmp_path):
    """Lay out a file system in which these files hold these texts."""

    def lay_out(files):
        for name, text in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}")
        return tmp_path

    return lay_out


def test_without_control_groups_nothing_is_limited(tree):
    for root in (tree({}), tree({"proc/self/cgroup": V2})):
        assert cgroup.memory_left_bytes(root) is cgroup.cores(root) is cgroup.threads_left(root) is None


def test_of_version_2_the_tightest_group_above_counts(tree):
    top, leaf = "sys/fs/cgroup", "sys/fs/cgroup/user.slice/run.scope"
    root = tree(
        {
            "proc/self/cgroup": V2,
            f"{top}/user.slice/memory.max": 300 * MIB,
            f"{top}/user.slice/memory.current": 250 * MIB,
            f"{top}/user.slice/memory.stat": f"anon 5\ninactive_file {100 * MIB}\n",
            f"{leaf}/memory.max": 200 * MIB,
            f"{leaf}/memory.current": 10 * MIB,
            f"{top}/user.slice/cpu.max": "150000 100000",
            f"{leaf}/cpu.max": "max 100000",
            f"{leaf}/pids.max": "max",
            f"{top}/user.slice/pids.max": 100,
            f"{top}/user.slice/pids.current": 30,
        }
    )
    assert cgroup.memory_left_bytes(root) == 150 * MIB  # 300 - (250 - 100), less than 200 - 10
    assert cgroup.cores(root) == 1.5
    assert cgroup.threads_left(root) == 70


def test_of_version_1_each_controller_has_a_group_of_its_own(tree):
    root = tree(
        {
            "proc/self/cgroup": V1,
            "sys/fs/cgroup/memory/memory.limit_in_bytes": NO_LIMIT,
            "sys/fs/cgroup/memory/box/memory.limit_in_bytes": 80 * MIB,
            "sys/fs/cgroup/memory/box/memory.usage_in_bytes": 50 * MIB,
            "sys/fs/cgroup/memory/box/memory.stat": f"inactive_file 1\ntotal_inactive_file {20 * MIB}\n",
            "sys/fs/cgroup/memory/box/inner/memory.limit_in_bytes": NO_LIMIT,
            "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us": 50_000,
            "sys/fs/cgroup/cpu/box/cpu.cfs_period_us": 100_000,
            "sys/fs/cgroup/cpu/cpu.cfs_quota_us": -1,
            "sys/fs/cgroup/cpu/cpu.cfs_period_us": 100_000,
            "sys/fs/cgroup/pids/box/pids.max": 64,
            "sys/fs/cgroup/pids/box/pids.current": 65,
        }
    )
    assert cgroup.memory_left_bytes(root) == 50 * MIB
    assert cgroup.cores(root) == 0.5
    assert cgroup.threads_left(root) == 0


def test_in_a_container_its_own_group_may_be_all_that_is_mounted(tree):
    """The name is then the host's, and no folder of that name is there."""
    limits = {
        "sys/fs/cgroup/memory/memory.limit_in_bytes": 64 * MIB,
        "sys/fs/cgroup/memory.max": 32 * MIB,
    }
    root = tree(limits | {"proc/self/cgroup": "4:memory:/docker/0123\n"})
    assert cgroup.memory_left_bytes(root) == 64 * MIB
    root = tree(limits | {"proc/self/cgroup": "0::/docker/0123\n"})
    assert cgroup.memory_left_bytes(root) == 32 * MIB


HOST = {
    "proc/meminfo": "MemTotal: 9000 kB\nMemAvailable:    4096 kB\n",
    "proc/sys/net/ipv4/ip_local_port_range": "32768\t60999\n",
    "proc/self/cgroup": "0::/\n",
}


def test_a_container_has_what_its_group_leaves_and_a_host_what_is_there(tree):
    here = float(len(os.sched_getaffinity(0)))
    host = probe_machine(tree(HOST))
    assert (host.memory_bytes, host.memory_by) == (4 * MIB, "the machine")
    assert (host.cores, host.cores_by, host.shm_bytes) == (here, "the machine", 0)
    assert host.num_ports == 60_999 - 32_768 + 1
    box = probe_machine(
        tree({"sys/fs/cgroup/memory.max": 3 * MIB, "sys/fs/cgroup/cpu.max": "50000 100000", "dev/shm/x": ""})
    )
    assert (box.memory_bytes, box.memory_by) == (3 * MIB, "its cgroup")
    assert (box.cores, box.cores_by) == (0.5, "its cgroup")
    assert box.shm_bytes > 0
    wide = probe_machine(
        tree({"sys/fs/cgroup/memory.max": 5 * MIB, "sys/fs/cgroup/cpu.max": "99900000 100000"})
    )
    assert (wide.memory_bytes, wide.memory_by, wide.cores_by) == (4 * MIB, "the machine", "the machine")


def test_this_machine_can_be_looked_at():
    machine = probe_machine(Path("/"))
    assert machine.loopback
    assert machine.fork_server
    assert machine.cores > 0
    assert 0 < machine.memory_bytes <= psutil.virtual_memory().total


def test_a_port_that_somebody_listens_on_is_busy(tree):
    import socket

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", COMPOSE_PORT))
            listener.listen()
        except OSError:  # then somebody else does
            pass
        assert COMPOSE_PORT in probe_machine(tree(HOST)).busy_ports


def test_a_folder_that_is_not_there_yet_is_judged_by_the_nearest_above(tmp_path):
    folder = probe_folder(tmp_path / "a" / "b")
    assert (folder.path, folder.there, folder.writable) == (tmp_path / "a" / "b", tmp_path, True)
    assert folder.free_bytes > 0
    assert not folder.taken
    assert not probe_folder(tmp_path).taken
    (tmp_path / "a").write_text("a file")
    assert probe_folder(tmp_path / "a" / "b").writable is False
    assert probe_folder(tmp_path).taken


def test_a_run_makes_a_folder_of_its_own_unless_one_is_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    assert not probe_run_folder(None).taken
    assert probe_run_folder(tmp_path / "runs").taken
    assert probe_run_folder(None).there == tmp_path / "runs"


def test_what_is_installed_is_held_against_the_project():
    import tomllib

    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    software = probe_software()
    assert software.python_suits
    assert software.python_wanted == project["requires-python"]
    by_name = {package.name: package for package in software.packages}
    assert {"numpy", "torch", "sionna-no-rt"} <= by_name.keys()
    assert "pytest" not in by_name
    assert (by_name["torch"].extra, by_name["numpy"].extra) == ("node", "")
    assert by_name["numpy"].suits
    assert by_name["numpy"].found


NO_ENGINE = '{"ServerVersion":"","ServerErrors":["Cannot connect"],"ClientInfo":{"Debug":false}}'


def test_what_docker_says_is_read():
    engine = Answer(0, '{"ServerVersion":"26.1.5","MemTotal":1024}\n', "")
    sound = read_docker({"engine": engine, "compose": Answer(0, "v2.26.1-4\n", "")})
    assert (sound.cli, sound.engine, sound.compose) == (True, "26.1.5", "2.26.1-4")
    assert sound.memory_bytes == 1024
    gone = read_docker(
        {
            "engine": Answer(1, NO_ENGINE, "WARNING: x\nCannot connect to the Docker daemon\n"),
            "compose": Answer(1, "", "docker: 'compose' is not a docker command."),
        }
    )
    assert (gone.engine, gone.engine_fault) == ("", "Cannot connect to the Docker daemon")
    assert (gone.compose, gone.compose_fault) == ("", "docker: 'compose' is not a docker command.")
    hung = read_docker({"engine": Answer(None, "", ""), "compose": Answer(0, "nonsense", "")})
    assert (hung.engine, hung.engine_fault) == ("", "no answer in time")
    assert (hung.compose, hung.compose_fault) == ("", "it told no version")
    strange = read_docker({"engine": Answer(0, "[", ""), "compose": Answer(0, "", "")})
    assert (strange.engine, strange.engine_fault) == ("", "it told nothing of itself")
    assert read_docker({}) == Docker()


def test_what_nvidia_smi_says_is_read():
    rows = "550.54, 80000, NVIDIA H100 80GB HBM3\n550.54, [N/A], A, B\n"
    assert read_graphics({"gpus": Answer(0, rows, "")}) == Graphics(
        driver="550.54",
        gpus=(Gpu("NVIDIA H100 80GB HBM3", 80_000 * MIB), Gpu("A, B", 0)),
    )
    failed = Answer(9, "NVIDIA-SMI has failed because it couldn't communicate\n", "")
    assert read_graphics({"gpus": failed}).fault.startswith("NVIDIA-SMI has failed")
    assert read_graphics({}) == Graphics()
    assert read_graphics({"gpus": Answer(0, "No devices were found\n", "")}) == Graphics()


def python(code, wall_s=30.0):
    return Command((sys.executable, "-c", code), wall_s)


def test_programs_are_asked_side_by_side_and_the_missing_ones_left_out():
    commands = {
        "good": python("print('hello')"),
        "bad": python("import sys; print('why', file=sys.stderr); sys.exit(3)"),
        "missing": Command(("no-such-program-at-all",), 30.0),
    }
    with Commands.started(commands) as running:
        answers = running.answers(Interrupt())
    assert answers == {"good": Answer(0, "hello\n", ""), "bad": Answer(3, "", "why\n")}
    assert [answers[name].fault for name in ("good", "bad")] == ["", "why"]


# It starts a child that holds on to its output, as a plugin of docker's does, and says its number.
HANGS = """
import subprocess, sys, threading
child = subprocess.Popen([sys.executable, "-c", "import threading; threading.Event().wait()"])
print(child.pid, flush=True)
threading.Event().wait()
"""


def test_whoever_hangs_is_killed_with_its_children(tmp_path):
    with Commands.started({"hangs": python(HANGS, wall_s=0.0)}) as running:
        process = running._processes["hangs"]
        wait_until(lambda: psutil.Process(process.pid).children())
        began_s = monotonic()
        answers = running.answers(Interrupt())
        assert monotonic() - began_s < 1
        assert answers["hangs"].code is None
        assert answers["hangs"].fault == "no answer in time"
        children = [child.pid for child in psutil.Process(process.pid).children()]
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: not alive(children))


def test_an_interrupt_ends_the_wait_and_what_is_waited_for():
    interrupt = Interrupt()
    interrupt.count = 1
    with Commands.started({"hangs": python(HANGS)}) as running:
        process = running._processes["hangs"]
        with pytest.raises(Interrupted):
            running.answers(interrupt)
    assert process.returncode == -signal.SIGKILL


def test_an_interrupt_after_all_have_had_their_time_still_counts():
    interrupt = Interrupt()
    interrupt.count = 1
    with Commands.started({"done": python("", wall_s=0.0)}) as running, pytest.raises(Interrupted):
        running.answers(interrupt)


def test_what_a_device_says_is_read():
    survey = Survey(
        num_parameters=1, sample_bytes=4, activation_bytes=4, num_samples=(1,), num_test=1, torch="2.13.0"
    )
    assert read_survey({"device": Answer(0, survey.model_dump_json() + "\n", "")}) == (survey, "")
    missing = "Traceback\nModuleNotFoundError: No module named 'torch'\n"
    for answer, why in (
        (Answer(1, "", missing), "ModuleNotFoundError: No module named 'torch'"),
        (Answer(1, "", "node: torch cannot be loaded\n"), "torch cannot be loaded"),
        (Answer(None, "", ""), "no answer in time"),
        (Answer(-9, "", ""), "exit code -9"),
        (Answer(0, "{}", ""), "python -m node is of another version"),
    ):
        assert read_survey({"device": answer}) == (None, why)
    with pytest.raises(BadInput, match=r"^at most 3 devices fit$"):
        read_survey({"device": Answer(2, "", "node: at most 3 devices fit\n")})


FAKE = "#!/bin/sh\necho $$ > {pids}/$$\nsleep 1000\n"


@pytest.mark.processes
def test_ctrl_c_ends_the_doctor_and_a_docker_that_hangs(tmp_path, small):
    docker, pids = tmp_path / "bin" / "docker", tmp_path / "pids"
    docker.parent.mkdir()
    pids.mkdir()
    docker.write_text(FAKE.format(pids=pids))
    docker.chmod(0o755)
    with subprocess.Popen(
        [sys.executable, "-m", "coordinator", "doctor", str(small)],
        env=os.environ | {"PATH": f"{docker.parent}:{os.environ['PATH']}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as doctor:
        wait_until(lambda: len(list(pids.iterdir())) == 2, doctor)
        started = [int(file.name) for file in pids.iterdir()]
        os.killpg(doctor.pid, signal.SIGINT)  # as a terminal does
        stdout, stderr = doctor.communicate(timeout=60)
    assert (doctor.returncode, stdout) == (130, "")
    assert stderr == "hearsay: interrupted\n"
    wait_until(lambda: not alive(started))
