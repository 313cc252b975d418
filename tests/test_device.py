"""What the coordinator asks of a device: answers, progress, faults, and no answer at all."""

import stat
from types import SimpleNamespace

import pytest

from coordinator import device, run
from coordinator.device import describe, fetch, packet_error_tables
from protocol.config import Experiment
from protocol.errors import BadInput, Interrupted, RunError
from protocol.learning import Data
from protocol.radio import Radio

FILES = Experiment(data=Data(dataset="cifar10"))
CODED = Experiment(radio=Radio(packet_errors="sionna", code_rate=0.5))


@pytest.fixture
def answering(tmp_path, monkeypatch):
    """Let a shell script stand in for the interpreter that the coordinator starts."""

    def answer(script):
        python = tmp_path / "python"
        python.write_text(f"#!/bin/sh\n{script}\n")
        python.chmod(python.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(device.sys, "executable", str(python))

    return answer


def test_progress_is_passed_on_and_the_answer_read(answering, capfd):
    answering("echo node: a tenth >&2; echo node: all of it >&2; echo '[]'")
    assert packet_error_tables(CODED) == ()
    assert capfd.readouterr().err == "hearsay: a tenth\nhearsay: all of it\n"


def test_the_last_line_is_the_fault_and_is_not_said_twice(answering, capfd):
    answering("echo node: a tenth >&2; echo node: no such code >&2; exit 2")
    with pytest.raises(BadInput, match=r"^no such code$"):
        packet_error_tables(CODED)
    assert capfd.readouterr().err == "hearsay: a tenth\n"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("echo node: broken >&2; exit 1", r"^python -m node --describe failed: broken$"),
        ("exit 7", r"^python -m node --describe failed: exit code 7$"),
        ("echo '{}'", r"is of another version than this coordinator$"),
        ("kill -9 $$", r"^python -m node --describe: killed, or no answer within 120 s$"),
    ],
)
def test_a_device_that_cannot_answer_ends_the_plan_with_the_reason(answering, script, says):
    answering(script)
    with pytest.raises(RunError, match=says):
        describe(Experiment())


def test_a_device_that_never_answers_is_given_up(answering, monkeypatch):
    monkeypatch.setattr(device, "DESCRIBE_WALL_S", 0.2)
    answering("exec tail -f /dev/null")
    with pytest.raises(RunError, match=r"no answer within 0\.2 s$"):
        describe(Experiment())


def test_nobody_is_asked_for_tables_that_nothing_uses(answering):
    answering("exit 1")
    assert packet_error_tables(Experiment()) == ()
    assert packet_error_tables(CODED.model_copy(update={"radio": Radio(scheme="ideal")})) == ()


def test_a_simulation_that_was_interrupted_is_an_interrupted_run(answering, tmp_path):
    answering("exit 1")
    for count, error in ((1, Interrupted), (0, RunError)):
        with pytest.raises(error):
            run.run(CODED, tmp_path / "out", lambda: None, SimpleNamespace(count=count))
    assert not (tmp_path / "out").exists()


def test_files_are_fetched_before_anything_else_and_only_where_there_are_any(answering, tmp_path, capfd):
    """One process for all devices of a run; a plan asks for files before it asks what is in them."""
    answering(f"echo $4 >> {tmp_path}/asked; echo node: half of it >&2; echo node: no such file >&2; exit 2")
    fetch(Experiment())
    assert not (tmp_path / "asked").exists()
    with pytest.raises(BadInput, match=r"^no such file$"):
        describe(FILES)
    with pytest.raises(BadInput, match=r"^no such file$"):
        run.run(FILES, tmp_path / "out", lambda: None, SimpleNamespace(count=0))
    assert (tmp_path / "asked").read_text() == "--fetch\n--fetch\n"
    assert capfd.readouterr().err == "hearsay: half of it\nhearsay: half of it\n"
    assert not (tmp_path / "out").exists()


def test_a_download_that_was_interrupted_is_an_interrupted_run(answering, tmp_path):
    answering("exit 130")
    with pytest.raises(Interrupted):
        run.run(FILES, tmp_path / "out", lambda: None, SimpleNamespace(count=1))
    assert not (tmp_path / "out").exists()
