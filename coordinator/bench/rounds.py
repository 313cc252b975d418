"""Quantiles of rounds and stages, from the log of a run."""

from collections.abc import Sequence

import numpy as np

from coordinator.bench.record import Quantiles, Times
from coordinator.summary import History
from protocol.messages import Report, Stages

STAGES = tuple(Stages.model_fields)


def quantiles(wall_s: Sequence[float]) -> Quantiles:
    """Return the quantiles of some seconds, between neighbours by linear interpolation."""
    p50, p95, p99 = np.percentile(wall_s, (50, 95, 99)).tolist()
    return Quantiles(p50=p50, p95=p95, p99=p99, mean=float(np.mean(wall_s)))


def times(reports: Sequence[Report]) -> Times:
    """Condense rounds and their stages."""
    return Times(
        round=quantiles([report.wall_s for report in reports]),
        stages={
            stage: quantiles([getattr(report.stages_wall_s, stage) for report in reports]) for stage in STAGES
        },
    )


def after_warmup(run: History, warmup_rounds: int) -> list[list[Report]]:
    """Return each device's reports without those of its warm-up."""
    return [
        [report for report in run.reports if report.device == device and report.round >= warmup_rounds]
        for device in range(run.num_devices)
    ]
