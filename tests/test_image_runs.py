"""Runs on real images: real processes that share one copy of what was unpacked."""

import json
import signal
from pathlib import Path

import pytest

from node.images.catalogue import CIFAR10, FASHION_MNIST
from node.images.files import find, missing

pytestmark = pytest.mark.processes

SETTINGS = ("devices=3", "data.max_test_samples=60", "model.channels=[4,8]", "training.evaluate_every=0")


@pytest.fixture
def images(real_folder, monkeypatch, tmp_path):
    """Let runs find the real files and unpack them into an empty cache; skip where there are none."""
    monkeypatch.setenv("HEARSAY_DATA", str(real_folder))
    monkeypatch.setenv("HEARSAY_CACHE", str(tmp_path / "cache"))

    def need(image_set):
        if missing(image_set, find(image_set, real_folder)):
            pytest.skip(f"{real_folder} has no {image_set.name}")
        return tmp_path / "cache" / "unpacked"

    return need


def test_devices_map_one_file_that_was_unpacked_before_them(images, hearsay, small):
    unpacked = images(FASHION_MNIST)
    run = hearsay(small, "data.dataset=fashion_mnist", "model.kind=cnn", *SETTINGS, "rounds=1000000")
    pids = run.wait_for_round(0)
    (kept,) = unpacked.iterdir()
    for pid in pids:
        mapped = [line for line in Path(f"/proc/{pid}/maps").read_text().splitlines() if str(kept) in line]
        assert mapped, "a device holds a copy of its own"
    run.process.send_signal(signal.SIGINT)
    code, stdout, stderr = run.finish()
    assert code == 130, stderr
    assert json.loads(stdout)["num_parameters"] == (4 * 9 + 4 + 8) + (8 * 4 * 9 + 8 + 16) + (
        8 * 14**2 * 10 + 10
    )
    assert stderr.startswith("hearsay: fashion_mnist: all of it, from ")
    assert sum(run.events("started")[0]["num_samples"]) == 60_000


def test_a_small_vit_learns_from_some_of_cifar10(images, hearsay, small):
    images(CIFAR10)
    run = hearsay(
        small,
        "data.dataset=cifar10",
        "data.max_samples=300",
        "model.kind=vit",
        "model.width=16",
        "model.depth=1",
        "model.patch_size=8",
        "training.optimiser=adamw",
        "training.learning_rate=0.003",
        "training.local_rounds=10",
        *SETTINGS,
    )
    code, stdout, stderr = run.finish()
    assert code == 0, stderr
    assert json.loads(stdout)["rounds"] == 6
    assert "cifar10: " in stderr
    losses = [[e["loss"] for e in run.events("report") if e["round"] == round_] for round_ in (0, 5)]
    assert sum(losses[1]) < 0.95 * sum(losses[0])
