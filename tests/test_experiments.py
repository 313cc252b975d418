"""Every experiment in the repository loads, and says what its name says."""

from pathlib import Path

import pytest

from coordinator.network import lay_out
from protocol.experiment_file import load

FILES = sorted((Path(__file__).parents[1] / "experiments").rglob("*.toml"))


def test_there_are_experiments():
    assert FILES


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_an_experiment_loads_and_can_be_laid_out(file):
    experiment = load(file)
    assert experiment.name == file.stem
    lay_out(experiment)
