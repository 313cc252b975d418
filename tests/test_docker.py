"""A cluster of containers: whole runs with a real engine, a node killed, a node cut off and healed."""

import json
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import pytest
from conftest import events, wait_until

from protocol.errors import EXIT_BAD_INPUT

ROOT = Path(__file__).parents[1]
COMPOSE = ROOT / "docker" / "compose.yaml"
COMPOSE_GPU = ROOT / "docker" / "compose.gpu.yaml"
NODES = 4
OWNER = 4321
"""Whom the folder of runs belongs to, where this test may give it away."""
BUILD_WALL_S, COMMAND_WALL_S = 1500, 300

pytestmark = [pytest.mark.docker, pytest.mark.timeout(BUILD_WALL_S)]


@cache
def why_no_engine():
    """Say why there is no engine to test with; empty if there is one."""
    if shutil.which("docker") is None:
        return "no docker command"
    for what in (["version"], ["compose", "version"]):
        try:
            asked = subprocess.run(["docker", *what], capture_output=True, text=True, timeout=20)
        except subprocess.TimeoutExpired:
            return f"docker {' '.join(what)}: no answer"
        if asked.returncode:
            return f"docker {' '.join(what)}: {asked.stderr.strip().splitlines()[-1]}"
    return ""


@pytest.fixture(scope="module")
def overriding(tmp_path_factory):
    """Write what a build takes from outside: wheels that are there, if any. Skip without an engine."""
    if reason := why_no_engine():
        pytest.skip(reason)
    file = tmp_path_factory.mktemp("compose") / "wheels.yaml"
    wheels = os.environ.get("PIP_FIND_LINKS")
    contexts = {"additional_contexts": {"wheels": wheels}} if wheels else {}
    services = {name: {"build": contexts} for name in ("coordinator", "node")}
    file.write_text(json.dumps({"services": services}))
    return file


class Cluster:
    """One project of docker compose, and the folder of its runs."""

    def __init__(self, name, runs, overriding):
        self.name, self.runs = name, runs
        self._command = ["docker", "compose", "-p", name, "-f", str(COMPOSE), "-f", str(overriding)]

    def __call__(self, *arguments, wall_s=COMMAND_WALL_S, settings=(), **environment):
        """Run docker compose; return what it printed, and its exit code."""
        if settings:
            environment["HEARSAY_ARGS"] = " ".join(f"--set {setting}" for setting in settings)
        return subprocess.run(
            [*self._command, *arguments],
            env=os.environ | {"HEARSAY_RUNS": str(self.runs), "NODES": str(NODES)} | environment,
            capture_output=True,
            text=True,
            timeout=wall_s,
        )

    def folder(self):
        """Return the folder of the only run, once it is there."""
        wait_until(lambda: list(self.runs.glob("*/events.jsonl")), wall_s=COMMAND_WALL_S)
        [log] = self.runs.glob("*/events.jsonl")
        return log.parent

    def wait_for_round(self, round_):
        """Wait until every device has reported a round; return the run's folder."""
        folder = self.folder()

        def there():
            return len({e["device"] for e in events(folder, "report") if e["round"] >= round_}) == NODES

        wait_until(there, wall_s=COMMAND_WALL_S)
        return folder

    def finish(self):
        """Wait for the end of the run; return its exit code and its summary."""
        waited = self("wait", "coordinator")
        return waited.returncode, json.loads((self.folder() / "summary.json").read_text())

    def containers(self):
        """Return the ids of the nodes' containers by host name, which is what a node says of itself."""
        ids = self("ps", "-aq", "node").stdout.split()
        return {inspect(one, "{{.Config.Hostname}}"): one for one in ids}


def inspect(container, what):
    command = ["docker", "inspect", "--format", what, container]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def cluster(overriding, tmp_path):
    """Yield a cluster that is not up yet; nothing of it outlives the test."""
    runs = tmp_path / "runs"
    runs.mkdir()
    if os.getuid() == 0:
        os.chown(runs, OWNER, OWNER)
        tmp_path.chmod(0o755)
    made = Cluster(f"hearsay-{os.getpid()}-{tmp_path.name[-12:].strip('_-')}", runs, overriding)
    yield made
    made("down", "--timeout", "1", "--volumes")


@pytest.fixture(scope="module")
def images(overriding, tmp_path_factory):
    """Build both images."""
    built = Cluster("hearsay-build", tmp_path_factory.mktemp("runs"), overriding)(
        "build", wall_s=BUILD_WALL_S
    )
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]


def test_images_are_small_and_run_without_rights(images):
    for name, limit_bytes, torch in (("hearsay-coordinator", 500e6, False), ("hearsay-node", 1.6e9, True)):
        assert int(inspect(name, "{{.Size}}")) < limit_bytes
        assert inspect(name, "{{.Config.User}}") == "10001"
        look = "import importlib.util as u; print(u.find_spec('torch') is not None)"
        asked = subprocess.run(
            ["docker", "run", "--rm", name, "python", "-c", look], capture_output=True, text=True, check=True
        )
        assert asked.stdout.strip() == str(torch)


def test_up_learns_and_leaves_the_run_to_its_user(images, cluster):
    up = cluster("up", "--scale", "node=3")
    assert up.returncode == 0, up.stderr[-3000:]
    folder = cluster.folder()
    summary = json.loads((folder / "summary.json").read_text())
    assert (summary["devices"], summary["rounds"], summary["how"]) == (3, 30, "finished")
    assert len(list(folder.glob("device-*.safetensors"))) == 3
    assert (folder / "report.png").stat().st_size > 10_000
    owner = cluster.runs.stat().st_uid
    assert {path.stat().st_uid for path in folder.rglob("*")} == {owner}
    states = [inspect(one, "{{.State.ExitCode}}") for one in cluster("ps", "-aq").stdout.split()]
    assert states == ["0"] * 4
    cluster("down")
    left = ["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={cluster.name}"]
    assert subprocess.run(left, capture_output=True, text=True, check=True).stdout == ""
    networks = subprocess.run(["docker", "network", "ls"], capture_output=True, text=True, check=True).stdout
    assert cluster.name not in networks


def test_the_exit_code_of_a_run_that_cannot_be_is_told(images, cluster):
    assert cluster("up", "-d", EXPERIMENT="nowhere.toml").returncode == 0
    assert cluster("wait", "coordinator").returncode == EXIT_BAD_INPUT
    assert "nowhere.toml" in cluster("logs", "coordinator").stdout
    assert list(cluster.runs.iterdir()) == []


LONG = ["rounds=120", "runtime.liveness_wall_s=4", "training.evaluate_every=0", "graph.kind=ring"]


def test_the_rest_finish_when_a_node_is_killed_and_say_so(images, cluster):
    assert cluster("up", "-d", settings=LONG).returncode == 0
    cluster.wait_for_round(3)
    [victim, *_] = cluster.containers().values()
    subprocess.run(["docker", "kill", victim], check=True, capture_output=True)
    code, summary = cluster.finish()
    assert (code, summary["rounds"]) == (0, 120)
    assert len(summary["devices_lost"]) == 1
    [died] = events(cluster.folder(), "died")
    assert died["device"] == summary["devices_lost"][0]
    assert died["reason"] == "silent for 8 s, twice runtime.liveness_wall_s"
    assert len(list(cluster.folder().glob("device-*.safetensors"))) == NODES - 1


def test_a_node_cut_off_the_network_is_missed_and_heard_again_when_it_is_healed(images, cluster):
    if os.getuid() or shutil.which("nsenter") is None or shutil.which("iptables") is None:
        pytest.skip("needs root, nsenter and iptables to cut a container off")
    # TCP tries again after up to 6.2 s: the others must not have given it up by then (8 s), nor be done.
    # While they train, which who is behind leaves out, it catches up.
    slow = ["rounds=60", "training.local_rounds=100", *LONG[1:]]
    assert cluster("up", "-d", settings=slow).returncode == 0
    folder = cluster.wait_for_round(3)
    [victim, *_] = cluster.containers().values()
    pid = inspect(victim, "{{.State.Pid}}")

    def cut(option):
        for chain in ("INPUT", "OUTPUT"):
            command = ["nsenter", "-t", pid, "-n", "iptables", option, chain, "-j", "DROP"]
            subprocess.run(command, check=True, capture_output=True)

    def links(missing):
        """Return round by round who has heard, or missed, whom."""
        return [
            (report["round"], (report["device"], int(other)))
            for report in events(folder, "report")
            for other, heard in report["heard"].items()
            if heard["missing"] == missing
        ]

    def missed():
        return links("wall")

    cut("-A")
    wait_until(missed, wall_s=30)
    cut("-D")
    code, summary = cluster.finish()
    assert code == 0
    assert summary["devices_lost"] == []
    assert summary["frames_missing_wall"] > 0
    lost_at = {link: round_ for round_, link in links("wall")}
    assert {link for round_, link in links("") if round_ > lost_at.get(link, 60)} == lost_at.keys()
    assert len(lost_at) >= 4  # both ways with both neighbours on the ring, and who waited for who waited


def test_each_gpu_has_devices_of_its_own_which_the_coordinator_counts():
    if reason := why_no_engine():
        pytest.skip(reason)

    def read(**environment):
        command = ["docker", "compose", "-f", COMPOSE, "-f", COMPOSE_GPU, "config", "--format", "json"]
        clean = {name: value for name, value in os.environ.items() if name != "TORCH_INDEX"}
        return subprocess.run(command, env=clean | environment, capture_output=True, text=True)

    refused = read()
    assert refused.returncode != 0
    assert "TORCH_INDEX is missing a value: set it to" in refused.stderr
    services = json.loads(read(TORCH_INDEX="https://wheels.invalid", NODES_PER_GPU="3").stdout)["services"]
    assert services["node"]["deploy"]["replicas"] == 0
    assert sorted(services) == ["coordinator", "node", "node-gpu0", "node-gpu1"]
    for number in ("0", "1"):
        service = services[f"node-gpu{number}"]
        assert service["command"] == services["node"]["command"]
        assert service["volumes"] == services["node"]["volumes"]
        assert service["networks"]["air"]["aliases"] == ["node"]
        assert service["build"]["args"]["TORCH_INDEX"] == "https://wheels.invalid"
        assert service["deploy"]["replicas"] == 3
        [device] = service["deploy"]["resources"]["reservations"]["devices"]
        assert (device["driver"], device["device_ids"], device["capabilities"]) == (
            "nvidia",
            [number],
            ["gpu"],
        )
