"""On which GPU a device's model lives, and that nothing touches CUDA before a device has been told."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from node import processor
from node.place import Ranked
from node.processor import CPU, choose_gpu, take_processor
from protocol.config import Experiment, Transport
from protocol.errors import BadInput
from protocol.messages import Welcome
from protocol.radio import Device
from protocol.resources import Resources

TESTS = Path(__file__).parent
FORK = """\
import json, multiprocessing, sys
from coordinator.launch import local

def tell(connection):
    import cuda_spy, torch
    state = torch.cuda.is_initialized(), torch.cuda._is_in_bad_fork()
    connection.send(["node.host" in sys.modules, cuda_spy.woken, *state])

if __name__ == "__main__":
    local.PRELOAD.insert(0, "cuda_spy")
    local.warm_up(["sklearn.datasets", *sys.argv[1:]])
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("forkserver").Process(target=tell, args=(theirs,))
    process.start()
    print(json.dumps(ours.recv()))
"""


def told(gpu, *, device=0, wanted="auto", kind="zmq", compute="modelled"):
    experiment = Experiment(
        resources=Resources(gpus=wanted), transport=Transport(kind=kind), device=Device(compute=compute)
    )
    return Welcome(
        run_id="r", epoch=0, device=device, incarnation=0, experiment=experiment, run_dir="", gpu=gpu
    )


@pytest.mark.processes
@pytest.mark.parametrize("preloads", [(), ("wakes_cuda_up",)], ids=["as it is", "broken"])
def test_the_fork_server_never_wakes_cuda_up(tmp_path, preloads):
    """A process forked from one that has cannot use a GPU; a server that is broken so is found out."""
    (tmp_path / "fork.py").write_text(FORK)
    (tmp_path / "wakes_cuda_up.py").write_text("import torch\ntorch.cuda.is_available()\n")
    path = os.pathsep.join([str(TESTS), str(tmp_path), os.environ.get("PYTHONPATH", "")])
    asked = subprocess.run(
        [sys.executable, tmp_path / "fork.py", *preloads],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
        timeout=60,
    )
    has_loaded, woken, *state = json.loads(asked.stdout)
    assert has_loaded
    assert (woken == []) is not bool(preloads)
    assert state == [False, False]


@pytest.mark.parametrize(
    "welcome", [told(None), told("seen", wanted="none"), told("seen", compute="measured")]
)
def test_a_device_that_needs_no_gpu_does_not_even_ask_for_one(monkeypatch, welcome):
    monkeypatch.setattr(processor.torch, "cuda", None)
    assert take_processor(welcome, None) == CPU


def test_a_device_that_sees_none_lives_on_the_cpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert take_processor(told("seen"), None) == CPU
    assert not torch.are_deterministic_algorithms_enabled()


RANKED = Ranked(rank=6, world_size=8, local_rank=2)


@pytest.mark.parametrize(
    ("welcome", "among", "num_seen", "gpu"),
    [
        (told(3, device=9), None, 4, 3),  # the local launcher's word
        (told(3), RANKED, 4, 3),
        (told("seen", device=6), None, 1, 0),  # a container with one GPU
        (told("seen", device=6), None, 4, 2),  # a host with four, devices started by hand
        (told("seen", device=6), RANKED, 4, 2),  # torchrun counts by host
        (told("seen", device=6), RANKED, 2, 0),
        (told("seen", device=6, wanted="all"), RANKED, 2, 0),
        (told("seen", device=6, wanted=(1, 3)), None, 4, 1),
        (told("seen", device=7, wanted=(1, 3)), None, 4, 3),
        (told("seen", device=7), None, 0, None),
        (told("seen", device=7, wanted="all"), None, 0, None),
        (told("seen", device=6, kind="nccl"), RANKED, 3, 2),
        (told("seen", device=6, kind="nccl"), None, 1, 0),
    ],
)
def test_devices_take_turns_over_what_they_see(welcome, among, num_seen, gpu):
    assert choose_gpu(welcome, among, num_seen) == gpu


@pytest.mark.parametrize(
    ("welcome", "among", "num_seen", "message"),
    [
        (told(1, device=3), None, 1, "device 3 needs GPU 1 and sees 1; list others in resources.gpus"),
        (told(0), None, 0, "device 0 needs GPU 0 and sees 0"),
        (told("seen", wanted=(0, 4)), None, 4, "needs GPU 4 and sees 4"),
        (told("seen", kind="nccl"), None, 0, "nccl: each device needs a GPU of its own, and device 0"),
        (told("seen", kind="nccl", device=6), RANKED, 2, "device 6, number 2 of its host, sees 2; use zmq"),
    ],
)
def test_a_gpu_that_is_not_there_is_refused_in_one_line(welcome, among, num_seen, message):
    with pytest.raises(BadInput, match=message) as refused:
        choose_gpu(welcome, among, num_seen)
    assert "\n" not in str(refused.value)
