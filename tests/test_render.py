"""Rendered compose files: shares and limits by hand, words that YAML must not misread, what is refused."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.footprint import LONE_BYTES, footprint
from coordinator.render.compose import Source, device_groups, parse_cores, render_compose
from coordinator.render.output import refuse_output, write_output
from coordinator.render.yaml import quoted, to_yaml
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.experiment_file import load
from protocol.messages import Survey

MIB = 2**20
FLOAT32 = 4
SURVEY = Survey(
    num_parameters=1_000_000,
    sample_bytes=1000,
    activation_bytes=10_000,
    num_samples=(200, 100, 100, 100),
    num_test=100,
    torch="2.13.0",
)
UNLIKE = {"devices": 4, "device": {"cpu_hz": [2e9, 1e9, 5e8, 2e9]}}
ALIKE = {"devices": 4}


def experiment(**settings):
    return Experiment.model_validate(settings)


def render(tmp_path, settings, *overrides, name="odd.toml", cores=1.0):
    source = Source(tmp_path / name, overrides, tmp_path / "compose.yaml")
    return render_compose(experiment(**settings), SURVEY, source, cores=cores)


def read(text, folder):
    """Let docker compose read a file; it needs no engine for that."""
    version = ("docker", "compose", "version")
    if (
        not shutil.which("docker")
        or subprocess.run(version, capture_output=True, timeout=60, check=False).returncode
    ):
        pytest.skip("docker compose is not installed")
    (folder / "compose.yaml").write_text(text)
    done = subprocess.run(
        ["docker", "compose", "-f", str(folder / "compose.yaml"), "config", "--format", "json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_unlike_devices_have_the_shares_of_their_frequencies():
    groups = device_groups(experiment(**UNLIKE), [100 * MIB] * 4, cores=1.0)
    assert [(g.name, g.replicas, g.cores, g.device) for g in groups] == [
        ("node-0", 1, 1.0, 0),
        ("node-1", 1, 0.5, 1),
        ("node-2", 1, 0.25, 2),
        ("node-3", 1, 1.0, 3),
    ]
    groups = device_groups(experiment(**UNLIKE), [100 * MIB] * 4, cores=0.2)
    assert [g.cores for g in groups] == [0.2, 0.1, 0.05, 0.2]


def test_devices_that_are_alike_are_replicas_with_the_memory_of_the_greediest():
    [group] = device_groups(experiment(**ALIKE), [1, 100 * MIB, 2, 3], cores=2.0)
    assert (group.name, group.replicas, group.cores, group.device) == ("node", 4, 2.0, None)
    assert group.memory_bytes == 256 * MIB  # twice as much, in steps of 64 MiB


def test_the_memory_of_a_container_is_twice_what_a_device_holds():
    """Three vectors, two frames and two of each neighbour, all samples, a batch; a torch of its own."""
    vectors, frames = 3 * FLOAT32 * 1_000_000, 2 + 2 * 2
    frame = FLOAT32 * 1_000_000 + FLOAT32 * 7875  # packets of 127 numbers and a CRC
    common = (500 + 100) * 1000
    held = [vectors + frames * frame + common + n * 1000 + 2 * 32 * 10_000 for n in SURVEY.num_samples]
    of_each = footprint(experiment(**ALIKE), SURVEY).container_bytes
    assert of_each == tuple(LONE_BYTES + own for own in held)
    groups = device_groups(experiment(**UNLIKE), of_each, cores=1.0)
    step = 64 * MIB
    assert [g.memory_bytes for g in groups] == [-(-2 * own // step) * step for own in of_each]


def test_many_devices_are_named_in_order():
    many = experiment(devices=11, device={"cpu_hz": [1e9] * 10 + [2e9]})
    names = [group.name for group in device_groups(many, [MIB] * 11, cores=1.0)]
    assert names == sorted(names)
    assert (names[0], names[10]) == ("node-00", "node-10")


def test_no_container_gets_less_than_docker_gives():
    slow = experiment(devices=2, device={"cpu_hz": [1e9, 5e6]})
    with pytest.raises(BadInput, match=r"device 1 would have 0\.005 of a core, .* use --cores 2 or more"):
        device_groups(slow, [MIB] * 2, cores=1.0)
    assert device_groups(slow, [MIB] * 2, cores=2.0)[1].cores == 0.01


def test_the_file_reads_as_it_should(tmp_path):
    text = render(tmp_path, UNLIKE, "rounds=9")
    limits = [line.strip() for line in text.splitlines() if "cpus" in line]
    assert limits == ['cpus: "1.000"', 'cpus: "0.500"', 'cpus: "0.250"', 'cpus: "1.000"']
    assert "# Devices may use 2.75 cores together." in text
    node = text[text.index("  node-2:\n") : text.index("  node-3:\n")]
    (memory,) = [line for line in node.splitlines() if "memory" in line]
    assert (
        node
        == f"""\
  node-2:
    user: "0:0"
    cap_drop:
      - ALL
    cap_add:
      - SETUID
      - SETGID
    security_opt:
      - "no-new-privileges:true"
    init: true
    stop_grace_period: "20s"
    image: hearsay-node
    command:
      - python
      - "-m"
      - node
      - "--coordinator"
      - "tcp://coordinator:5555"
      - "--device"
      - "2"
    volumes:
      - "./runs:/runs"
      - "./data:/data:ro"
    environment:
      HEARSAY_DATA: /data
    depends_on:
      coordinator:
        condition: service_healthy
    restart: "on-failure:5"
    deploy:
      replicas: 1
      resources:
        limits:
          cpus: "0.250"
{memory}
    networks:
      - air
"""
    )


NODE = ["python", "-m", "node", "--coordinator", "tcp://coordinator:5555"]


@pytest.mark.processes
def test_docker_compose_reads_it_with_odd_names(tmp_path):
    folder = tmp_path / 'it\'s: a "folder" $HOME ü\t#1'
    folder.mkdir()
    read_back = read(
        render_compose(
            experiment(name="Odd.Name_1", **UNLIKE),
            SURVEY,
            Source(folder / "no.toml", ("name=$x: 'y'", "seed=1"), tmp_path / "compose.yaml"),
            cores=1.0,
        ),
        tmp_path,
    )
    assert read_back["name"] == "hearsay-odd-name_1"
    services = read_back["services"]
    assert list(services) == ["coordinator", "node-0", "node-1", "node-2", "node-3"]
    coordinator = services["coordinator"]
    assert coordinator["command"][:7] == [
        "hearsay",
        "run",
        "/experiments/no.toml",
        "--set",
        "name=$$x: 'y'",
        "--set",
        "seed=1",
    ]
    (mounted,) = [volume for volume in coordinator["volumes"] if volume["target"] == "/experiments"]
    assert mounted["source"].replace("$$", "$") == str(folder)
    assert mounted["read_only"]
    assert coordinator["healthcheck"]["test"][:3] == ["CMD", "python3", "-c"]
    for number, cpus in enumerate((1, 0.5, 0.25, 1)):
        node = services[f"node-{number}"]
        assert node["command"] == [*NODE, "--device", str(number)]
        assert float(node["deploy"]["resources"]["limits"]["cpus"]) == cpus
        assert node["depends_on"]["coordinator"]["condition"] == "service_healthy"
    [alike] = [
        s for n, s in read(render(tmp_path, ALIKE), tmp_path)["services"].items() if n != "coordinator"
    ]
    assert alike["command"] == NODE
    assert alike["deploy"]["replicas"] == 4


def test_the_health_check_knocks_at_the_port():
    """It runs as it stands there, and fails while nobody listens."""
    import socket
    import sys

    text = render(Path("/"), ALIKE)
    (knock,) = [line.strip() for line in text.splitlines() if "create_connection" in line]
    code = knock.removeprefix('- "').removesuffix('"')
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        here = code.replace("5555", str(listener.getsockname()[1]))
        assert here != code
        for listens in (False, True):
            if listens:
                listener.listen()
            done = subprocess.run([sys.executable, "-c", here], capture_output=True, timeout=30, check=False)
            assert (done.returncode == 0) is listens


PLAIN = ("node", "./runs", "../a", "/runs", "a-b_c.d/e")
MISREAD = (
    "1",
    "1e3",
    ".5",
    "yes",
    "No",
    "null",
    "~",
    "",
    "a: b",
    "a:",
    "- a",
    "#",
    "a #b",
    "*a",
    "&a",
    "!a",
    " a",
)


def test_words_that_yaml_reads_as_something_else_are_quoted():
    assert to_yaml({"a": list(PLAIN)}) == "a:\n" + "".join(f"  - {word}\n" for word in PLAIN)
    assert to_yaml({"a": list(MISREAD)}) == "a:\n" + "".join(f'  - "{word}"\n' for word in MISREAD)


@settings(derandomize=True, deadline=None)
@given(st.text())
def test_a_quoted_string_is_printable_ascii_and_means_the_same(text):
    written = quoted(text)
    assert written.isascii()
    assert written.isprintable()
    unescaped = written[1:-1].encode().decode("unicode_escape")  # Python's escapes are those of YAML
    assert unescaped == text


def test_nested_lists_and_mappings_are_written_in_blocks():
    document = {"a": {"b": [{"c": 1, "d": [True, "x"]}, "z"], "e": {}, "f": []}, "g h": False}
    assert to_yaml(document).splitlines() == [
        "a:",
        "  b:",
        "    - c: 1",
        "      d:",
        "        - true",
        "        - x",
        "    - z",
        "  e: {}",
        "  f: []",
        '"g h": false',
    ]


def test_what_containers_cannot_run_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"^transport\.kind = memory"):
        render(tmp_path, {"devices": 4, "transport": {"kind": "memory"}})
    graph = {"kind": "edges", "file": "/elsewhere/edges.txt"}
    source = Source(tmp_path / "a.toml")
    with pytest.raises(BadInput, match=r"^graph\.file = /elsewhere/edges\.txt: containers see only"):
        render_compose(experiment(devices=4, graph=graph), SURVEY, source, cores=1.0)
    beside = tmp_path / "edges.txt"
    beside.write_text("0 1\n1 2\n2 3\n")
    graph = {"kind": "edges", "file": str(beside)}
    assert render_compose(experiment(devices=4, graph=graph), SURVEY, source, cores=1.0)


@pytest.mark.parametrize("text", ["many", "0", "-1", "0.009", "inf", "nan", "1025"])
def test_cores_that_there_are_not_are_refused(text):
    with pytest.raises(BadInput, match=rf"^--cores {text}: "):
        parse_cores(text, experiment())


def test_the_fastest_device_has_a_core_for_each_thread_unless_told():
    assert parse_cores("", experiment(runtime={"torch_threads": 3})) == 3.0
    assert parse_cores("0.5", experiment()) == 0.5


def test_a_file_that_is_there_is_kept_unless_forced(tmp_path):
    out = tmp_path / "compose.yaml"
    refuse_output(out, force=False)
    write_output("one", out)
    with pytest.raises(BadInput, match="is there already; --force replaces it"):
        refuse_output(out, force=False)
    refuse_output(out, force=True)
    write_output("two", out)
    assert out.read_text() == "two"
    assert [path.name for path in tmp_path.iterdir()] == ["compose.yaml"]
    with pytest.raises(BadInput, match="is a folder"):
        refuse_output(tmp_path, force=True)
    with pytest.raises(BadInput, match="there is no folder"):
        refuse_output(tmp_path / "a" / "b", force=False)
    with pytest.raises(BadInput, match=r"^--out .* cannot be written"):
        write_output("three", tmp_path / "a" / "b")


@pytest.mark.processes
def test_the_command_writes_the_file_or_leaves_it_alone(shell, small, tmp_path):
    out = tmp_path / "compose.yaml"
    code, stdout, stderr = shell("render", "compose", small, "--set", "seed=2", "--out", out)
    assert (code, stdout) == (0, ""), stderr
    assert load(small, ["seed=2"]).devices == 4
    assert "replicas: 4" in out.read_text()
    assert '"seed=2"' in out.read_text()
    out.write_text("precious")
    code, _, stderr = shell("render", "compose", small, "--out", out)
    assert code == 2
    assert stderr == f"hearsay: --out {out}: is there already; --force replaces it\n"
    assert out.read_text() == "precious"
