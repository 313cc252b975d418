"""Which device lives on which GPU: by free memory, within limits, or refused with what fits."""

import os
import re
import stat
from dataclasses import replace

import pytest
import tomli_w
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.launch import gpus as gpus_module
from coordinator.launch.gpus import MIB, Gpu, Seen, parse, see_gpus, visible
from coordinator.launch.placement import (
    CONTEXT_BYTES,
    GIB,
    USABLE,
    Need,
    candidates,
    need_of,
    place,
    without_gpus,
)
from node.describe import activation_bytes, describe
from protocol.config import Experiment, Transport
from protocol.errors import EXIT_BAD_INPUT, BadInput
from protocol.experiment_file import dump, load
from protocol.learning import Data, Model, Training
from protocol.messages import Description
from protocol.radio import Device
from protocol.resources import Resources

SAID = """\
0, GPU-aaaa-1, NVIDIA H100 80GB HBM3, 81000, 81559
1, GPU-aabb-2, NVIDIA A100-SXM4-40GB, 40000, 40960
2, GPU-cccc-3, NVIDIA GB10, [N/A], [N/A]
"""
BIG, SMALL = parse(SAID)
NOTHING = Seen((), "no nvidia-smi")


def gpu(index, free_gib):
    return Gpu(index, f"GPU-{index}", "a card", int(free_gib * GIB), 100 * GIB)


def described(num_gpus=64, *, num_parameters=0):
    return Description(
        num_parameters=num_parameters, num_train=1, num_test=1, samples_per_class=(), num_gpus=num_gpus
    )


def run_of(devices, wanted="all", kind="zmq", **resources):
    return Experiment(
        devices=devices, resources=Resources(gpus=wanted, **resources), transport=Transport(kind=kind)
    )


def test_the_driver_is_read_line_by_line_and_what_it_does_not_know_is_left_out():
    assert Gpu(0, "GPU-aaaa-1", "NVIDIA H100 80GB HBM3", 81000 * MIB, 81559 * MIB) == BIG
    assert (SMALL.index, SMALL.free_bytes) == (1, 40000 * MIB)
    assert parse("") == parse("No devices were found\n") == ()


@pytest.mark.parametrize(
    ("shown", "uuids"),
    [
        (None, ["GPU-aaaa-1", "GPU-aabb-2"]),
        ("1,0", ["GPU-aabb-2", "GPU-aaaa-1"]),
        (" 1 ", ["GPU-aabb-2"]),
        ("GPU-aab", ["GPU-aabb-2"]),
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("1,7,0", ["GPU-aabb-2"]),
        ("GPU-aa", []),  # which of both it is, CUDA cannot tell either
    ],
)
def test_what_is_hidden_from_cuda_is_not_placed_on_and_the_rest_is_counted_as_cuda_does(shown, uuids):
    found = visible((BIG, SMALL), shown)
    assert [g.uuid for g in found] == uuids
    assert [g.index for g in found] == list(range(len(uuids)))


@pytest.fixture
def driver(tmp_path, monkeypatch):
    """Let a shell script stand in for nvidia-smi."""

    def say(script):
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(gpus_module, "QUERY", (str(program), *gpus_module.QUERY[1:]))

    return say


def test_the_driver_is_asked_for_what_is_read(driver, tmp_path):
    driver(f'echo "$@" > {tmp_path}/asked; printf "%s" "{SAID}"')
    assert see_gpus({}) == Seen((BIG, SMALL))
    asked = "--query-gpu=index,uuid,name,memory.free,memory.total --format=csv,noheader,nounits"
    assert (tmp_path / "asked").read_text().strip() == asked
    assert see_gpus({"CUDA_VISIBLE_DEVICES": "1"}) == Seen((replace(SMALL, index=0),))
    assert see_gpus({"CUDA_VISIBLE_DEVICES": ""}) == Seen((), "CUDA_VISIBLE_DEVICES =  shows none")


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("echo one; echo cannot talk to the driver; exit 9", "nvidia-smi failed: cannot talk to the driver"),
        ("exit 1", "nvidia-smi failed: it does not say why"),
        ("true", "nvidia-smi names none whose memory it knows"),
        ("exec tail -f /dev/null", "nvidia-smi did not answer within 0.3 s"),
    ],
)
def test_a_driver_that_does_not_answer_is_no_gpu_and_the_reason_is_kept(driver, monkeypatch, script, why):
    monkeypatch.setattr(gpus_module, "ASK_WALL_S", 0.3)
    driver(script)
    assert see_gpus({}) == Seen((), why)


def test_a_host_without_a_driver_has_no_gpu(monkeypatch):
    monkeypatch.setattr(gpus_module, "QUERY", ("no-such-program-here",))
    assert see_gpus({}) == NOTHING


@pytest.mark.parametrize(
    ("training", "vectors"),
    [
        (Training(), 6),
        (Training(momentum=0.9), 7),
        (Training(optimiser="adamw"), 8),
    ],
)
def test_a_device_needs_what_can_be_counted_by_hand(training, vectors):
    """Parameters, gradients, moments of the optimiser and four vectors that come and go, 4 bytes a number."""
    description = described(num_parameters=1000).model_copy(
        update={"data_bytes": 77, "activation_bytes": 5_000}
    )
    need = need_of(Experiment(training=training), description)
    assert need == Need(CONTEXT_BYTES, 4 * 1000 * vectors, 77, 5_000)
    assert need.total_bytes == CONTEXT_BYTES + 4000 * vectors + 5_077


def test_equal_gpus_are_filled_evenly_and_the_reason_is_told():
    made = place(run_of(5), (gpu(0, 50), gpu(1, 50)), described())
    assert made.gpus == (0, 1, 0, 1, 0)
    need, first, second = made.lines
    assert need == (
        "each device needs 0.50 GiB (CUDA 0.50 GiB, model 0.00 GiB, data 0.00 GiB, a batch 0.00 GiB), and "
        "lives where most memory is left"
    )
    assert first == "GPU 0, a card, 50.00 GiB of 100.00 GiB free: devices 0, 2, 4, which leaves 48.50 GiB"
    assert second == "GPU 1, a card, 50.00 GiB of 100.00 GiB free: devices 1, 3, which leaves 49.00 GiB"


def test_a_fuller_gpu_waits_its_turn():
    made = place(run_of(4), (gpu(0, 2), gpu(1, 3.2)), described())
    assert made.gpus == (1, 1, 1, 0)
    assert "no device" in place(run_of(1), (gpu(0, 2), gpu(1, 3)), described()).lines[1]


@settings(derandomize=True, deadline=None)
@given(
    free_gib=st.lists(st.floats(0, 40), min_size=1, max_size=5),
    devices=st.integers(1, 64),
    most=st.integers(0, 8),
)
def test_nobody_is_placed_where_there_is_no_room_and_all_are_where_there_is(free_gib, devices, most):
    chosen = [gpu(index, free) for index, free in enumerate(free_gib)]
    rooms = [int(USABLE * g.free_bytes) // CONTEXT_BYTES for g in chosen]
    fit = [min(room, most or devices) for room in rooms]
    experiment = run_of(devices, devices_per_gpu=most)
    if sum(fit) < devices:
        with pytest.raises(BadInput, match=rf"^{sum(fit)} of {devices} devices .* fit: {fit[0]} on GPU 0 "):
            place(experiment, chosen, described())
        return
    made = place(experiment, chosen, described()).gpus
    assert len(made) == devices
    assert all(made.count(g.index) <= fit[g.index] for g in chosen)
    left = {g.index: g.free_bytes - made.count(g.index) * CONTEXT_BYTES for g in chosen}
    for g in chosen:  # nobody would have had more room elsewhere when it was placed
        others = [left[o.index] for o in chosen if made.count(o.index) < fit[o.index]]
        assert not made.count(g.index) or left[g.index] + CONTEXT_BYTES >= max(others, default=0)


def test_a_refusal_says_how_many_fit_and_what_would_do():
    with pytest.raises(BadInput) as refused:
        place(run_of(4, devices_per_gpu=1), (gpu(0, 50), gpu(1, 0.1)), described())
    assert str(refused.value) == (
        "1 of 4 devices of 0.50 GiB (CUDA 0.50 GiB, model 0.00 GiB, data 0.00 GiB, a batch 0.00 GiB) fit: "
        "1 on GPU 0 (50.00 GiB free), 0 on GPU 1 (0.10 GiB free); use fewer devices, other "
        "resources.gpus, or none"
    )


def test_who_leaves_it_open_gets_the_cpu_where_not_all_fit_and_is_told():
    made = place(run_of(4, "auto"), (gpu(0, 0.7),), described())
    assert made.gpus == (None,) * 4
    [line] = made.lines
    assert line.startswith("1 of 4 devices of ")
    assert line.endswith("1 on GPU 0 (0.70 GiB free): devices compute on the CPU")


def test_a_torch_without_cuda_is_found_out_before_the_start():
    made = place(run_of(2, "auto"), (gpu(0, 50),), described(num_gpus=0))
    assert made.gpus == (None, None)
    assert made.lines == (
        "torch can use 0 of the GPUs that nvidia-smi sees; is it a build with CUDA?: devices compute on the "
        "CPU",
    )
    with pytest.raises(BadInput, match=r"is it a build with CUDA\?; use fewer"):
        place(run_of(2, "all"), (gpu(0, 50),), described(num_gpus=0))


def test_a_gpu_that_is_not_there_is_refused_with_those_that_are():
    seen = Seen((BIG, SMALL))
    assert candidates(run_of(2, (1,)), seen) == (SMALL,)
    assert candidates(run_of(2, "all"), seen) == candidates(run_of(2, "auto"), seen) == (BIG, SMALL)
    with pytest.raises(
        BadInput, match=re.escape("resources.gpus = [1, 2, 5]: this host has [0, 1], and no [2, 5]")
    ):
        candidates(run_of(2, (1, 2, 5)), seen)
    with pytest.raises(
        BadInput, match=re.escape("this host has none (no nvidia-smi), and no [0]; list those")
    ):
        candidates(run_of(2, (0,)), NOTHING)


def test_nccl_wants_a_gpu_for_each_device():
    chosen = (gpu(0, 50), gpu(1, 60))
    assert place(run_of(2, "auto", "nccl"), chosen, described()).gpus == (1, 0)
    with pytest.raises(BadInput, match=re.escape("own, and this host has 2 for 3; use zmq or gloo")):
        candidates(run_of(3, "auto", "nccl"), Seen(chosen))
    with pytest.raises(BadInput, match=r"^1 of 2 devices"):
        place(run_of(2, "auto", "nccl"), (gpu(0, 50), gpu(1, 0)), described())


@pytest.mark.parametrize(("wanted", "num_lines"), [("auto", 0), ("none", 0), ("all", 1)])
def test_without_a_gpu_only_who_wanted_all_of_them_is_told(wanted, num_lines):
    made = without_gpus(run_of(3, wanted), NOTHING)
    assert made.gpus == (None,) * 3
    assert made.lines == ("no GPU here (no nvidia-smi): devices compute on the CPU",) * num_lines


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"resources": {"gpus": [1, 1]}}, "resources.gpus = [1, 1]: names each GPU once"),
        ({"resources": {"gpus": "none"}, "transport": {"kind": "nccl"}}, "resources.gpus = none (use zmq"),
        (
            {"resources": {"devices_per_gpu": 2}, "transport": {"kind": "nccl"}},
            "resources.devices_per_gpu = 2 (use zmq or gloo)",
        ),
        (
            {"resources": {"gpus": [0]}, "device": {"compute": "measured"}},
            "device.compute = measured: counts the processor's time, and with resources.gpus = [0] a GPU",
        ),
        (
            {"transport": {"kind": "nccl"}, "device": {"compute": "measured"}},
            "with transport.kind = nccl a GPU does the work; set device.compute = modelled",
        ),
        ({"resources": {"gpus": 0}}, "resources.gpus"),
        ({"resources": {"gpus": []}}, "resources.gpus"),
        ({"resources": {"gpus": [-1]}}, "resources.gpus"),
        ({"resources": {"gpus": "some"}}, "resources.gpus"),
        ({"resources": {"devices_per_gpu": -1}}, "resources.devices_per_gpu"),
    ],
)
def test_what_no_gpu_can_be_is_refused_in_one_line(sections, message, write):
    with pytest.raises(BadInput) as refused:
        load(write(tomli_w.dumps(sections)))
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("wanted", "compute", "may"),
    [
        ("auto", "modelled", True),
        ("auto", "measured", False),  # of what is not set, the processor's time is what is wanted
        ("all", "modelled", True),
        ("none", "modelled", False),
    ],
)
def test_models_live_on_gpus_unless_the_processor_is_what_counts(wanted, compute, may):
    assert run_of(2, wanted).model_copy(update={"device": Device(compute=compute)}).may_use_gpus is may


def test_a_file_written_out_is_read_back(write):
    for wanted in ("auto", (0, 2)):
        experiment = run_of(3, wanted, devices_per_gpu=4)
        assert load(write(dump(experiment))) == experiment


def test_what_a_batch_leaves_behind_is_counted_as_autograd_saves_it():
    """Softmax regression keeps its input, probabilities twice, and labels."""
    softmax = Model(kind="mlp", hidden=())
    assert activation_bytes(softmax, (3,), 2, batch_size=5) == 5 * 3 * 4 + 2 * (5 * 2 * 4) + 5 * 8
    one, two = (activation_bytes(Model(), (1, 8, 8), 10, batch_size=n) for n in (10, 20))
    assert two == 2 * one


def test_a_description_has_what_a_placement_asks_for():
    data = Data(dataset="synthetic", num_samples=100, num_features=7, test_fraction=0.2)
    described = describe(Experiment(devices=3, data=data, model=Model(kind="mlp", hidden=())))
    largest = max(map(sum, described.samples_per_class))
    assert described.data_bytes == (largest + 20) * (7 * 4 + 8)
    assert described.activation_bytes == activation_bytes(
        Model(kind="mlp", hidden=()), (7,), 10, batch_size=largest
    )
    assert described.num_gpus == torch.cuda.device_count()


NVIDIA = """\
#!/bin/sh
echo "0, GPU-a, A card, 8000, 8192"
"""


@pytest.mark.processes
@pytest.mark.skipif(torch.cuda.device_count() > 0, reason="torch can use a GPU here")
def test_a_host_with_a_gpu_that_torch_cannot_use_learns_on_its_cpu_and_says_so(
    hearsay, small, tmp_path, monkeypatch
):
    """The other way round too: whoever insists is refused, and nothing is left."""
    program = tmp_path / "nvidia-smi"
    program.write_text(NVIDIA)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    run = hearsay(small, "resources.gpus=auto", "rounds=1")
    refused = hearsay(small, "resources.gpus=[0]", out="refused")
    code, _, stderr = run.finish()
    assert code == 0, stderr
    line = "torch can use 0 of the GPUs that nvidia-smi sees; is it a build with CUDA?"
    assert f"hearsay: {line}: devices compute on the CPU\n" in stderr
    code, stdout, stderr = refused.finish()
    assert (code, stdout) == (EXIT_BAD_INPUT, "")
    assert stderr == f"hearsay: {line}; use fewer devices, other resources.gpus, or none\n"
    assert not refused.out.exists()
