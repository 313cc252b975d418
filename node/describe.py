"""What a run would hold: model and data, for a coordinator that loads neither torch nor datasets."""

import numpy as np

from node.agent import build_model
from node.data import load, parts
from protocol.config import Experiment
from protocol.messages import Description


def describe(experiment: Experiment) -> Description:
    """Build the model and split the data once, and say what came out; raises BadInput where a run would."""
    dataset = load(experiment.data, experiment.seed)
    model = build_model(experiment)
    return Description(
        num_parameters=model.x.numel(),
        num_train=len(dataset.train_y),
        num_test=len(dataset.test_y),
        samples_per_class=tuple(
            tuple(np.bincount(dataset.train_y[part], minlength=dataset.num_classes).tolist())
            for part in parts(experiment.data, experiment.devices, seed=experiment.seed)
        ),
        data_found=dataset.found,
    )
