"""What the bounds of a run are worked out from."""

from dataclasses import dataclass

import numpy as np

from coordinator.network import Network
from coordinator.planning.work import PlannedRun
from coordinator.schedule.costs import Cost
from coordinator.schedule.epochs import EpochPlan, Epochs
from protocol.air import frame_layout
from protocol.config import Experiment
from protocol.theory.constants import Training
from protocol.theory.contraction import consensus_rate


@dataclass(frozen=True, eq=False)
class Setting:
    """What the bounds are worked out from."""

    experiment: Experiment
    network: Network
    epochs: Epochs
    plan: EpochPlan
    run: PlannedRun
    num_values: int
    """Parameters of the model."""

    @property
    def payload_bits(self) -> int:
        """Of one model as it is sent, without headers."""
        return 8 * frame_layout(self.experiment, self.num_values).payload_bytes

    @property
    def training(self) -> Training:
        """How devices train, as the bounds of gossip see it: all of them alike."""
        experiment = self.experiment
        training = experiment.training
        return Training(
            learning_rate=training.learning_rate / (1 - training.momentum),
            num_devices=experiment.devices,
            num_local_rounds=max(1, round(float(np.mean(self.first_local_rounds)))),
            num_rounds=experiment.rounds,
        )

    @property
    def first_local_rounds(self) -> list[int]:
        """Of those devices that train."""
        return [one.local_rounds_first for one in self.run.devices if one.local_rounds_first] or [1]

    @property
    def one_sweep(self) -> Cost:
        """What one sweep of gossip costs."""
        edges = list(self.network.graph.edges)
        return self.plan.choice.tariff.gossip(edges, sweeps=1, cast=self.epochs.cast)

    @property
    def rate(self) -> float:
        """Consensus rate of gossip in one round."""
        return consensus_rate(self.epochs.contraction(), num_sweeps=self.experiment.aggregation.sweeps)
