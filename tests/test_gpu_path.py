"""What a model on a GPU goes through, with one and without: there a copy on the host stands for x itself."""

import subprocess
import sys

import devices
import numpy as np
import pytest
import torch
from conftest import events, parameters
from devices import NUM_VALUES, experiment_of, live_together, ring
from ether import Ether
from schedules import average, random_tree, ring_places, tree_places
from test_launcher import LISTEN
from test_torchrun import where
from torch._subclasses.fake_tensor import FakeTensorMode

import node.exchanges
from node.mirror import Mirror, mirror
from node.mixing import Arrived
from protocol.codec import Layout
from protocol.radio import Analog, Radio

FADING = Radio(coherence_packets=2)
ANALOG = Radio(scheme="analog", coherence_packets=2)
DIFFERENCES = ANALOG.model_copy(update={"analog": Analog(payload="differences", refresh_rounds=3)})
ACCEPTING = Radio(coherence_packets=2, bad_packets="accept")
REPEATING = Radio(coherence_packets=2, arq="selective_repeat", max_attempts=3)


def apart(x):
    """Return what a vector on a GPU is read through: memory of its own, which nothing keeps in step."""
    return Mirror(torch.full(x.shape, torch.nan))


class Remote(torch.Tensor):
    """Numbers that no array of the host can be a view of, and neither can their views: as on a GPU."""

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function is torch.Tensor.numpy:
            raise TypeError("can't convert a tensor that is elsewhere to numpy; use Tensor.cpu() first")
        with torch._C.DisableTorchFunctionSubclass():
            result = function(*args, **(kwargs or {}))
            if function is torch.Tensor.cpu:
                return result.as_subclass(torch.Tensor)
        stays = isinstance(args[0], cls) and isinstance(result, torch.Tensor)
        return result.as_subclass(cls) if stays else result


@pytest.fixture
def elsewhere(monkeypatch):
    """Let the parameters of devices be out of the host's reach from now on."""

    def go():
        monkeypatch.setattr(node.exchanges, "mirror", apart)
        monkeypatch.setattr(devices, "fresh", lambda: torch.zeros(NUM_VALUES).as_subclass(Remote))

    return go


def bits(pasts):
    return {device: [x.tobytes() for x in past.x] for device, past in pasts.items()}


@pytest.mark.parametrize(
    "experiment",
    [
        experiment_of(FADING),
        experiment_of(FADING, codec="float16"),
        experiment_of(FADING, codec="int8", sweeps=2),
        experiment_of(ACCEPTING),
        experiment_of(REPEATING, step=0.5),
        experiment_of(FADING.model_copy(update={"symmetric": False}), staleness_rounds=2),
        experiment_of(ANALOG),
        experiment_of(DIFFERENCES, sweeps=2),
    ],
    ids=["float32", "float16", "int8", "accept", "arq", "stale", "analog", "differences"],
)
def test_gossip_through_a_copy_is_the_same_bit_for_bit(elsewhere, experiment):
    direct = live_together(Ether(4), experiment, ring(4), 4)
    elsewhere()
    assert bits(live_together(Ether(4), experiment, ring(4), 4)) == bits(direct)


@pytest.mark.parametrize("codec", ["float32", "int8"])
@pytest.mark.parametrize("kind", ["tree", "ring"])
def test_averaging_through_a_copy_is_the_same_bit_for_bit(elsewhere, kind, codec):
    experiment = experiment_of(FADING, devices=6, codec=codec, scheme=kind, chunks=3, step=0.5)
    places = tree_places(random_tree(6, seed=1)) if kind == "tree" else ring_places([3, 1, 0, 4, 5, 2])
    direct = average(experiment, places)
    elsewhere()
    assert bits(average(experiment, places)) == bits(direct)


def test_on_a_cpu_nothing_is_copied():
    x = torch.zeros(NUM_VALUES)
    assert mirror(x).read(x) is x
    assert apart(x).read(x).data_ptr() != x.data_ptr()


def test_mixing_never_adds_what_is_on_the_host_to_what_is_on_a_gpu():
    """Fake tensors know on which processor they would be, and refuse such a sum where there is no GPU."""
    layout = Layout("float32", 30, 32, checked=True)
    xj, everything = np.ones(30, dtype=np.float32), np.ones(layout.num_packets, dtype=np.bool_)
    with FakeTensorMode(allow_non_fake_inputs=True):
        x, host = torch.zeros(30, device="cuda:0"), torch.zeros(30)
        with pytest.raises(RuntimeError, match="same device"):
            x.add_(host)
        for weight, xhat in ((0.5, None), (0.5, host)):
            for intact in (everything, np.arange(layout.num_packets) % 2 == 0):
                for step in (1.0, 0.5):
                    arrived = Arrived(layout)
                    arrived.add_(xj, weight, intact)
                    arrived.mix_(x, xhat, step)
                    assert x.device == torch.device("cuda", 0)


THROUGH_A_COPY = """\
import sys, torch, node.exchanges
from node.__main__ import main
from node.mirror import Mirror
node.exchanges.mirror = lambda x: Mirror(torch.full_like(x, torch.nan))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.processes
def test_a_whole_run_through_a_copy_is_the_same_bit_for_bit(hearsay, small, whole_run):
    settings = ("codec.kind=int8", "training.pilot_rounds=1")
    run = hearsay(small, *settings, "transport.kind=memory", options=LISTEN)
    url = where(run)
    device = subprocess.run([sys.executable, "-c", THROUGH_A_COPY, "--coordinator", url], timeout=90)
    code, _, stderr = run.finish()
    assert (device.returncode, code) == (0, 0), stderr
    direct = whole_run(*settings)
    mine, theirs = parameters(run.out), direct.parameters()
    assert len(mine) == 4
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
    told = [
        [e["loss"] for e in sorted(of, key=lambda e: (e["device"], e["round"]))]
        for of in (events(run.out, "report"), direct.events("report"))
    ]
    assert told[0] == told[1]


def on_a_gpu(number=1):
    """Skip where torch can use fewer GPUs."""
    return pytest.mark.skipif(
        torch.cuda.device_count() < number, reason=f"torch can use fewer than {number} GPUs here"
    )


SOFTMAX = ("data.dataset=digits", "model.kind=mlp", "model.hidden=[]", "rounds=6", "training.local_rounds=5")
TOLERANCE = 1e-4
"""Softmax regression is convex, and its Hessian at most half the largest |x|^2 + 1, 24.1 for digits: steps of
0.1 are below 2 / 12.05, so no step drives two runs apart, nor does mixing, which averages. What 30 steps
round away then only adds up. In a gradient, a mean of 32 products below 1, that is at most 32 half-ulps of 1,
2e-6; its probabilities come of logits, sums of 65 products whose magnitudes add up to 5 or so, off by
65 x 5 x 6e-8 = 2e-5, and move by at most half of that. In all 30 x 0.1 x 1.2e-5 = 4e-5 in the worst case."""


@pytest.mark.gpu
@pytest.mark.processes
@on_a_gpu()
@pytest.mark.parametrize("settings", [(), ("codec.kind=float16",)], ids=["float32", "float16"])
def test_four_devices_on_one_gpu_learn_what_they_learn_on_a_cpu(whole_run, settings):
    there = whole_run(*SOFTMAX, *settings, "resources.gpus=[0]")
    here = whole_run(*SOFTMAX, *settings, "resources.gpus=none")
    assert "GPU 0, " in there.table
    assert ": devices 0, 1, 2, 3, " in there.table
    mine, theirs = there.parameters(), here.parameters()
    assert mine.keys() == theirs.keys()
    # A number that lies at the edge of two of float16 may be rounded to either: 2^-11 of it, in each round.
    tolerance = TOLERANCE + (6 * 2**-11 if settings else 0)
    for name, x in theirs.items():
        np.testing.assert_allclose(mine[name], x, rtol=0, atol=tolerance)
        assert np.abs(x).max() > 100 * TOLERANCE  # it has learned something
    # What the air does to a frame does not depend on the numbers in it.
    for key in ("packets_lost", "bit_errors", "bytes_sent", "joules", "air_s"):
        assert there.summary[key] == here.summary[key]


@pytest.mark.gpu
@pytest.mark.processes
@on_a_gpu()
@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("data.dataset=digits", "model.kind=cnn", "training.optimiser=adamw", "training.learning_rate=0.001"),
        ("aggregation.scheme=tree", "codec.kind=int8"),
        ("radio.scheme=analog", "radio.analog.payload=differences", "training.pilot_rounds=1"),
        ("transport.kind=memory",),
        ("transport.kind=gloo",),
    ],
    ids=["mlp", "cnn", "tree", "analog", "memory", "gloo"],
)
def test_a_run_on_a_gpu_repeats_bit_for_bit(whole_run, settings):
    first = whole_run(*settings, "resources.gpus=[0]")
    again = whole_run(*settings, "resources.gpus=[0]", "name=again")
    assert first.summary["rounds"] == again.summary["rounds"] == 6
    mine, theirs = first.parameters(), again.parameters()
    assert len(mine) == 4
    assert all(np.array_equal(mine[name], theirs[name]) for name in theirs)
    assert first.summary["frames_missing_wall"] == 0


@pytest.mark.gpu
@on_a_gpu()
def test_a_copy_of_a_gpus_vector_is_page_locked_and_follows_it():
    x = torch.arange(NUM_VALUES, dtype=torch.float32, device="cuda:0")
    read = mirror(x)
    first = read.read(x)
    assert first.is_pinned()
    assert first.device == torch.device("cpu")
    x += 1
    assert torch.equal(read.read(x), torch.arange(1.0, NUM_VALUES + 1))


@pytest.mark.gpu
@pytest.mark.processes
@on_a_gpu(2)
def test_devices_are_spread_over_two_gpus(whole_run):
    run = whole_run("devices=4", "resources.gpus=[0, 1]", "resources.devices_per_gpu=2")
    assert len(run.parameters()) == 4
    for gpu in (0, 1):
        assert f"GPU {gpu}, " in run.table
