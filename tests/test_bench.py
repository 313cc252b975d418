"""The benchmark's own arithmetic: quantiles, order, use of processes, limits, what it refuses and keeps."""

import os
import re
import subprocess
import sys
from collections import Counter
from io import StringIO
from pathlib import Path
from time import process_time

import numpy as np
import psutil
import pytest
from bench_records import CASES, drawn_record, make_case, make_limits, make_measurement, make_record
from builders import make_report, make_stages
from pydantic import ValidationError
from rich.console import Console

from coordinator.bench import latency
from coordinator.bench import probe as probes
from coordinator.bench.cases import (
    PARAMS,
    RADIOS,
    TRANSPORTS,
    Case,
    Options,
    Size,
    experiment,
    order,
    parse_request,
)
from coordinator.bench.figure import draw
from coordinator.bench.measure import Measured
from coordinator.bench.probe import Probe, Reading, cpu_s, pss_bytes
from coordinator.bench.record import (
    BenchRecord,
    CaseRecord,
    Environment,
    Limits,
    Measurement,
    Quantiles,
    SizeRecord,
    Times,
    over_limit,
    read,
    write,
)
from coordinator.bench.rounds import STAGES, after_warmup, times
from coordinator.bench.table import bench_tables, heading
from coordinator.events import Ended, Started
from coordinator.interrupt import Interrupt
from coordinator.summary import history
from node.agent import build_model
from node.floor import CLASSES, SIZES
from node.model import build
from protocol.config import Runtime, Transport
from protocol.errors import BadInput, RunError
from protocol.link import mean_packet_loss
from protocol.radio import Radio

SMALL = Options("4,8", "100k,1.6M", "zmq,memory", "ideal,digital", rounds="10", repeats="4")
STARTED = Started(
    run_id="run-1",
    num_parameters=10,
    payload_bytes=40,
    pids=(1, 2),
    num_samples=(5, 5),
    positions_m=((0.0, 0.0), (1.0, 0.0)),
    edges=(),
    startup_wall_s=1.0,
)


def make_log(stages_s):
    """Return the log of a run from the seconds of its stages, shape (devices, rounds, stages)."""
    reports = [
        make_report(
            device, number, wall_s=sum(row), stages_wall_s=make_stages(**dict(zip(STAGES, row, strict=True)))
        )
        for device, rows in enumerate(stages_s.tolist())
        for number, row in enumerate(rows)
    ]
    return history([STARTED, *reports, Ended(how="finished", rounds=(9, 9), wall_s=1.0)])


def test_quantiles_of_a_log_are_those_of_numpy_without_the_warm_up():
    seconds = np.random.default_rng(1).lognormal(size=(2, 57, len(STAGES)))
    seconds[:, :5] *= 1000  # whoever counts a round of the warm-up, sees it
    devices = after_warmup(make_log(seconds), 5)
    assert [len(device) for device in devices] == [52, 52]
    kept = seconds[:, 5:]
    cases = [
        (times(devices[0]), kept[:1]),
        (times(devices[1]), kept[1:]),
        (times([*devices[0], *devices[1]]), kept),
    ]
    for found, rows in cases:
        columns = {"round": rows.sum(axis=2)} | {s: rows[..., k] for k, s in enumerate(STAGES)}
        for name, column in columns.items():
            of = found.round if name == "round" else found.stages[name]
            expected = [*np.percentile(column, [50, 95, 99]), column.mean()]
            assert [of.p50, of.p95, of.p99, of.mean] == pytest.approx(expected, rel=1e-12), name


def test_each_repeat_has_every_step_once_and_goes_back_where_the_last_one_came_from():
    request = parse_request(SMALL)
    steps = order(request)
    assert len(request.cases) == 16
    assert [step.repeat for step in steps] == [r for r in range(4) for _ in range(16 + 4)]
    repeats = [[step.what for step in steps if step.repeat == r] for r in range(4)]
    assert all(Counter(repeat) == Counter([*request.cases, *request.sizes]) for repeat in repeats)
    assert repeats[0] == repeats[1][::-1] == repeats[2] == repeats[3][::-1]
    places = Counter()
    for number, step in enumerate(steps):
        places[step.what] += number
    assert len(set(places.values())) == 1  # a steady drift hits all alike
    for number, what in enumerate(repeats[0]):
        if not isinstance(what, Case):  # a floor, its cases behind it
            assert {case.size for case in repeats[0][number + 1 : number + 5]} == {what}


def test_cases_are_the_work_of_their_floors():
    for name in PARAMS:
        settings = experiment(Case(devices=4, params=name, transport="zmq", radio="ideal"), 1)
        floor = SIZES[name]
        same = build(floor.model, floor.sample_shape, CLASSES, seed=1)
        ours = build_model(settings)
        assert ours.schema_hash == same.schema_hash
        assert (settings.training.batch_size, settings.training.local_rounds) == (floor.batch_size, 1)
    assert SIZES.keys() == set(PARAMS)


def test_the_largest_ring_of_the_quickstart_still_fills_its_batches():
    settings = experiment(Case(devices=128, params="quickstart", transport="zmq", radio="ideal"), 1)
    assert 0.8 * 1797 // settings.devices >= settings.training.batch_size


def test_a_slow_host_is_waited_for():
    """A device that a busy host keeps from running for a minute is slow, which is what is measured."""
    settings = experiment(Case(devices=16, params="1.6M", transport="zmq", radio="digital"), 50)
    assert settings.runtime.liveness_wall_s >= 10 * Runtime().liveness_wall_s
    assert settings.runtime.join_wall_s >= settings.runtime.liveness_wall_s


def test_a_digital_radio_loses_one_packet_in_a_hundred_on_every_link():
    settings = experiment(Case(devices=16, params="1.6M", transport="zmq", radio="digital"), 50)
    bits = 8 * settings.codec.packet_bytes
    loss = mean_packet_loss(settings.radio, settings.radio.snr_db, bits)
    assert loss == pytest.approx(0.01, rel=0.1)
    assert (settings.radio.fading, settings.radio.snr) == ("none", "given")


def test_whatever_transport_and_radio_an_experiment_takes_can_be_measured():
    assert set(TRANSPORTS) >= {"zmq", "memory"}
    for transport in TRANSPORTS:
        for radio in RADIOS:
            case = Case(devices=4, params="100k", transport=transport, radio=radio)
            settings = experiment(case, 1)
            assert (settings.transport.kind, settings.radio.scheme) == (transport, radio)
    for model, key, names in ((Transport, "kind", TRANSPORTS), (Radio, "scheme", RADIOS)):
        with pytest.raises(ValidationError) as refused:
            model(**{key: "none"})
        [fault] = refused.value.errors()
        assert re.findall(r"'(\w+)'", fault["ctx"]["expected"]) == list(names)  # none is left out


BAD = {
    "no number": ({"devices": "4,x"}, "--devices x: expected a whole number from 3 to 1,024"),
    "too few for a ring": ({"devices": "2"}, "--devices 2: expected a whole number from 3 to 1,024"),
    "an empty place": ({"devices": "4,,8"}, "--devices 4,,8: expected values separated by commas"),
    "a number twice": ({"devices": "4,4"}, "--devices 4,4: name each number once"),
    "a size that is none": ({"params": "1.7M"}, "--params 1.7M: there is none; did you mean '1.6M'?"),
    "a transport that is none": ({"transport": "zmp"}, "--transport zmp: there is none; did you mean 'zmq'?"),
    "a transport twice": ({"transport": "zmq,zmq"}, "--transport zmq,zmq: name each once"),
    "a radio that is none": ({"radio": "digitl"}, "--radio digitl: there is none; did you mean 'digital'?"),
    "one round": ({"rounds": "1"}, "--rounds 1: expected a whole number from 2 to 100,000"),
    "half a round": ({"rounds": "2.5"}, "--rounds 2.5: expected a whole number"),
    "no repeat": ({"repeats": "0"}, "--repeats 0: expected a whole number from 1 to 1,000"),
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_options_are_refused_in_one_line(fault):
    changes, what = BAD[fault]
    with pytest.raises(BadInput) as refused:
        parse_request(Options(**(vars(SMALL) | changes)))
    assert str(refused.value).startswith(what)
    assert "\n" not in str(refused.value)


def test_memory_and_processor_seconds_are_those_of_the_kernel():
    full = psutil.Process().memory_full_info()
    assert pss_bytes(os.getpid()) == pytest.approx(full.pss, rel=0.05)
    before = process_time()
    found = cpu_s(os.getpid())
    after = process_time()
    assert before <= found <= after
    with pytest.raises(OSError, match="Invalid argument"):
        cpu_s(2**22 + 1)  # beyond any pid
    with pytest.raises(RunError, match="memory of process 4194305: cannot be read"):
        pss_bytes(2**22 + 1)


@pytest.fixture
def watched(monkeypatch):
    """Watch two devices of 15 rounds whose clocks go on by 3 s a round, the coordinator's by 0.5 s."""
    settings = experiment(Case(devices=4, params="100k", transport="zmq", radio="ideal"), 15)
    probe = Probe(settings.model_copy(update={"devices": 2}))
    clock = {"round": 0.0}
    monkeypatch.setattr(probes, "cpu_s", lambda pid: 1000 * pid + 3 * clock["round"])
    monkeypatch.setattr(probes, "process_time", lambda: clock["round"] / 2)
    monkeypatch.setattr(probes, "pss_bytes", lambda pid: 10 * pid if pid in (1, 2) else 7)

    def hear(rounds, now):
        clock["round"] = now
        for device, number in rounds:
            probe.show(make_report(device, number))
        probe.tick()

    probe.show(STARTED)
    return probe, hear


def test_processor_seconds_of_a_round_leave_out_the_warm_up(watched):
    probe, hear = watched
    hear([(0, 0), (1, 0)], 50)  # a first round that took as long as fifty
    for number in range(1, 15):
        hear([(0, number), (1, number)], 50 + number)
    usage = probe.usage(warmup_rounds=5)
    assert (usage.devices_cpu_s, usage.coordinator_cpu_s) == pytest.approx((6.0, 0.5))
    assert (probe.devices_pss_bytes, probe.coordinator_pss_bytes) == (30, 7)


def test_reports_that_travel_together_are_read_as_of_their_last(watched):
    probe, hear = watched
    hear([(device, number) for device in (0, 1) for number in range(8)], 8)
    hear([(device, number) for device in (0, 1) for number in range(8, 15)], 15)
    assert [reading.round for reading in probe.readings] == [-1, 7, 14]
    assert probe.usage(warmup_rounds=5).devices_cpu_s == pytest.approx(6.0)
    # Too late to tell much of: then all rounds count.
    probe.readings[1] = Reading(12, 1e9, 0.0)
    assert probe.usage(warmup_rounds=5).devices_cpu_s == pytest.approx(6.0)


def test_a_run_that_was_not_watched_to_its_end_has_no_numbers(watched):
    probe, hear = watched
    hear([(0, number) for number in range(15)], 15)
    with pytest.raises(RunError, match="not all devices reported their last round"):
        probe.usage(warmup_rounds=5)


def test_a_round_is_held_against_the_floor_of_its_own_size_and_repeat():
    [case, *_] = CASES
    floors, rounds = (0.01, 0.02, 0.04), (0.03, 0.04, 0.2)  # 3, 2 and 5 times
    limits = tuple(make_limits(repeat, floors[repeat]) for repeat in (2, 0, 1))
    measured = make_case(case, [make_measurement(repeat, rounds[repeat]) for repeat in (1, 2, 0)])
    other = SizeRecord(size=Size(devices=99, params="1.6M"), limits=tuple(map(make_limits, range(3))))
    record = make_record([measured], [SizeRecord(size=case.size, limits=limits), other])
    assert over_limit(record, measured, "floor_wall_s") == pytest.approx(3)
    assert over_limit(record, measured, "zmq_wall_s") == pytest.approx(6)
    assert over_limit(make_record([measured]), measured, "floor_wall_s") is None


def test_a_machine_whose_floors_differ_is_not_trusted():
    [case, *_] = CASES
    for longest, noisy in ((1.19, False), (1.22, True)):
        limits = tuple(make_limits(r, 0.01 * f) for r, f in enumerate((1, longest, 1.05)))
        said = make_record((), [SizeRecord(size=case.size, limits=limits)]).warnings
        assert [line.startswith("NOISY") for line in said] == [True] * noisy
        assert all("22%" in line and "4 devices, 100k" in line for line in said)
    [once] = make_record((), [SizeRecord(size=case.size, limits=(make_limits(0),))]).warnings
    assert "--repeats 3" in once


def test_a_record_is_read_back_as_it_was_written(tmp_path):
    record = drawn_record(1)
    file = tmp_path / "bench.json"
    write(record, file)
    assert read(file) == record
    assert [p.name for p in tmp_path.iterdir()] == ["bench.json"]


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """Measure one size and one case in two repeats, with steps that take no time, as a test says of each."""
    steps = []

    def begin(step, at):
        steps.append(at)
        step(len(steps))

    def measure(step):
        def limits(size, *, rounds, repeat, interrupt):
            begin(lambda n: step(n, interrupt), (repeat, size))
            return make_limits(repeat)

        def case(case, folder, *, rounds, repeat, interrupt):
            begin(lambda n: step(n, interrupt), (repeat, case))
            return Measured(make_measurement(repeat), num_parameters=10, frame_bytes=40)

        monkeypatch.setattr(latency, "measure_limits", limits)
        monkeypatch.setattr(latency, "measure_case", case)
        monkeypatch.setattr(latency, "warm_up", lambda preload: None)
        monkeypatch.setattr(latency, "cold_startup_wall_s", lambda case, folder, interrupt: 3.0)
        request = parse_request(Options("4", "100k", "zmq", "ideal", rounds="10", repeats="2"))
        made = latency.Bench(request, tmp_path, Interrupt())
        return latency.measure_all(made, lambda step: None), steps

    return measure


def test_what_was_measured_is_kept_in_the_order_in_which_it_was(bench, tmp_path):
    record, steps = bench(lambda number, interrupt: None)
    [case], [size] = record.cases, record.sizes
    assert steps == [(0, size.size), (0, case.case), (1, case.case), (1, size.size)]
    assert [measurement.repeat for measurement in case.measurements] == [0, 1]
    assert [limits.repeat for limits in size.limits] == [0, 1]
    assert read(tmp_path / "bench.json") == record
    assert (record.cold_startup_wall_s, record.warmup_rounds) == (3.0, 5)


def test_an_interrupt_ends_the_steps_and_what_was_measured_is_on_disk(bench, tmp_path):
    def interrupted(number, interrupt):
        interrupt.count += number == 2

    record, steps = bench(interrupted)
    assert len(steps) == 2
    assert [len(case.measurements) for case in record.cases] == [1]
    assert read(tmp_path / "bench.json") == record


def test_a_step_that_fails_says_which_and_what_was_kept(bench, tmp_path):
    def fail(at):
        def step(number, interrupt):
            if number == at:
                raise RunError("no device is left")

        return step

    with pytest.raises(RunError) as failed:
        bench(fail(3))
    kept = tmp_path / "bench.json"
    assert str(failed.value) == (
        f"4 devices, 100k, zmq, ideal: no device is left; what was measured before is in {kept}"
    )
    assert len(read(kept).cases) == 1
    kept.unlink()
    with pytest.raises(RunError, match=r"^4 devices, 100k, zmq, ideal: no device is left$"):
        bench(fail(3 + 2))  # the first run of the next benchmark, its floor before it
    assert not kept.exists()


def test_a_file_that_is_no_record_is_one_line(tmp_path):
    file = tmp_path / "bench.json"
    with pytest.raises(BadInput, match=r"bench.json: cannot be read \(No such file or directory\); expected"):
        read(file)
    later = drawn_record(1).model_dump_json().replace('"version":1', '"version":2')
    for text in ("{", "{}", "[1]", later):
        file.write_text(text)
        with pytest.raises(BadInput, match=r"no bench.json of this version; measure it anew") as refused:
            read(file)
        assert "\n" not in str(refused.value)


def test_the_tables_have_a_line_for_each_case_and_mark_the_interpreter_lock():
    record = drawn_record(1)
    console = Console(width=200, file=StringIO())
    console.print(*bench_tables(record), heading(record), sep="\n")
    text = console.file.getvalue()
    assert text.count("memory*") == 2 * 12
    assert text.count(" zmq ") >= 2 * 12
    assert "one process for all devices: bound by the interpreter lock" in text
    assert "50 rounds a run after 5 of warm-up that are left out" in text


def test_the_picture_is_drawn_of_whatever_there_is(tmp_path):
    whole = drawn_record(1)
    broken_off = make_record(whole.cases[:1])  # its floor was to come
    for record in (whole, broken_off):
        draw(record, tmp_path / "bench.png")
        assert (tmp_path / "bench.png").read_bytes().startswith(b"\x89PNG")


def test_neither_torch_nor_pictures_are_loaded_before_the_measurement():
    """What the coordinator has loaded counts in its memory."""
    code = "import sys, coordinator.bench.latency, coordinator.bench.table; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert not {"torch", "matplotlib"} & set(done.stdout.split())


def test_sizes_and_cases_are_named_as_people_do():
    case = Case(devices=4, params="100k", transport="zmq", radio="ideal")
    assert (str(case), str(case.size)) == ("4 devices, 100k, zmq, ideal", "4 devices, 100k")
    assert case.size == Size(devices=4, params="100k")


def test_the_file_is_on_its_page_key_by_key():
    page = (Path(__file__).parents[1] / "docs" / "bench.md").read_text(encoding="utf-8")
    table = page.partition("## bench.json")[2].partition("\n\n| key")[2]
    named = {name.lstrip("….") for name in re.findall(r"`(.+?)`", table)}
    models = (BenchRecord, Environment, SizeRecord, Limits, CaseRecord, Measurement, Times, Quantiles, Case)
    assert {name for model in models for name in model.model_fields} <= named
