"""What a device says it would find and hold: data as they lie there, sizes as counted by hand."""

import sys

import pytest
from image_files import archive, small_cifar, small_fashion

import node.survey
from node import images
from node.__main__ import main
from node.data import load
from node.images.store import open_images
from node.model import build
from node.survey import activation_bytes, survey
from protocol.config import Experiment
from protocol.errors import EXIT_FAILED, BadInput
from protocol.experiment_file import load as load_experiment
from protocol.learning import Model
from protocol.messages import Survey

FASHION, FASHION_CONTENTS = small_fashion()
CIFAR, CIFAR_CONTENTS = small_cifar()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Return an empty data folder; image sets are small ones."""
    monkeypatch.setenv("HEARSAY_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("HEARSAY_CACHE", str(tmp_path / "cache"))
    small = {"fashion_mnist": FASHION, "cifar10": CIFAR}
    monkeypatch.setattr(node.survey, "IMAGE_SETS", small)
    monkeypatch.setattr("node.data.IMAGE_SETS", small)
    (tmp_path / "data").mkdir()
    load.cache_clear()
    yield tmp_path / "data"
    load.cache_clear()


def of(dataset, devices=3, **data):
    model = {"kind": "mlp", "hidden": [4]}
    settings = {"dataset": dataset, "min_samples_per_device": 1} | data
    return survey(Experiment.model_validate({"devices": devices, "data": settings, "model": model}))


def put(folder, contents):
    for name, data in contents.items():
        (folder / name).write_bytes(data)


def files_in(folder):
    return sorted(path for path in folder.rglob("*"))


def test_what_is_not_there_is_named_with_where_it_would_come_from(folder):
    told = of("fashion_mnist")
    assert told.data_folder == str(folder)
    assert told.data_missing == tuple(FASHION.url + name for name in FASHION.downloads)
    assert told.data_bytes == sum(map(len, FASHION_CONTENTS.values()))
    assert (told.data_found, told.data_fault) == ("", "")
    put(folder, {name: data for name, data in FASHION_CONTENTS.items() if "labels" not in name})
    assert [url.rpartition("/")[2] for url in of("fashion_mnist").data_missing] == [
        "train-labels-idx1-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    ]


def test_what_is_there_is_checked_and_nothing_is_written(folder, tmp_path):
    put(folder, FASHION_CONTENTS)
    before = files_in(tmp_path)
    told = of("fashion_mnist")
    assert told.data_found.split(", ") == sorted(FASHION_CONTENTS)
    assert (told.data_missing, told.data_fault) == ((), "")
    assert files_in(tmp_path) == before
    # 30 samples and 10 for testing, of 25 pixels; headers and labels are taken for pixels, too.
    assert (told.num_samples, told.num_test) == ((11, 11, 11), 11)
    assert of("fashion_mnist", max_samples=6, max_test_samples=2).num_samples == (2, 2, 2)


def test_what_was_unpacked_is_told_as_it_is(folder):
    put(folder, {CIFAR.archive: archive(CIFAR_CONTENTS)})
    open_images(CIFAR)
    told = of("cifar10", devices=4)
    assert told.num_samples == (8, 8, 7, 7)
    assert told.num_test == 6
    assert told.data_found == images.store.what_is_unpacked(CIFAR, images.files.find(CIFAR, folder))


def test_only_the_batches_that_are_there_count(folder):
    names = (CIFAR.train[0].name, CIFAR.test[0].name)
    put(folder, {name: CIFAR_CONTENTS[name] for name in names})
    told = of("cifar10")
    assert told.data_missing == ()
    assert sum(told.num_samples) == 6


def test_a_broken_file_is_named(folder):
    put(folder, FASHION_CONTENTS)
    broken = folder / "train-labels-idx1-ubyte"
    broken.write_bytes(broken.read_bytes()[:-1])
    told = of("fashion_mnist")
    assert told.data_fault.startswith(f"{broken}: ")
    assert told.data_found == ""


def test_what_is_made_needs_no_files():
    told = of("synthetic", num_samples=100, num_features=7, num_classes=3)
    assert sum(told.num_samples) == 80
    assert told.num_test == 20
    assert told.sample_bytes == 4 * 7
    assert told.num_parameters == 7 * 4 + 4 + 2 * 4 + 4 * 3 + 3
    assert (told.data_folder, told.data_found, told.data_missing, told.data_bytes) == ("", "", (), 0)


def test_what_would_be_refused_anywhere_is_refused():
    with pytest.raises(BadInput, match="at most"):
        of("synthetic", devices=90, num_samples=100, num_classes=3)


def test_activations_are_counted_as_autograd_keeps_them():
    """Of two linear layers: the sample, what the ReLU let through, log-probabilities and target."""
    model = build(Model(kind="mlp", hidden=(5,), norm="none"), (7,), 3, seed=1)
    floats, whole_numbers = 7 + 5 + 3, 1
    assert activation_bytes(model, (7,)) == pytest.approx(4 * floats + 8 * whole_numbers, abs=8)


def test_a_torch_that_cannot_be_loaded_is_said_in_one_line(small, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "node.survey", None)
    assert main(["--survey", str(small)]) == EXIT_FAILED
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert err.startswith("node: torch or what it needs cannot be loaded (")


def test_the_answer_is_one_json_object(small, capsys):
    assert main(["--survey", str(small)]) == 0
    told = Survey.model_validate_json(capsys.readouterr().out)
    assert told == survey(load_experiment(small))
