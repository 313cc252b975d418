"""A run's event log as the numbers that figures draw: one per round, per link, per stage.

Rounds count from 1, as in the live view. Seconds are the host's.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from statistics import fmean
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from coordinator.summary import History
from protocol.messages import Stages

Floats: TypeAlias = npt.NDArray[np.float64]

MAX_POINTS = 800
"""Longer curves are drawn as means of equal blocks of rounds: a panel has no more pixels."""


@dataclass(frozen=True)
class Curve:
    """One number per round over the devices; arrays of shape (num_points,), nan where none is finite."""

    rounds: Floats
    mean: Floats
    low: Floats
    high: Floats
    block: int = 1
    """Rounds that each point is the mean of."""
    not_finite: Mapping[int, int] = field(default_factory=dict)
    """Round -> how many numbers were NaN or infinite, which are in no mean; such rounds only."""


@dataclass(frozen=True)
class LinkLoss:
    """What became of one link's packets, both directions together, as shares of what was sent."""

    devices: tuple[int, int]
    snr_db: float
    """Mean of both directions."""
    expected: float
    """Mean of both directions, of which as many packets are sent."""
    packets_sent: int
    transmissions: int
    """Packets sent, and those sent again."""
    corrupted: float
    """Share of all transmissions, repeats among them, that failed its CRC; nan if nothing was sent."""
    lost: float
    """Share that was not mixed, for whatever reason; nan if nothing was sent."""


def over_devices(run: History, value: Literal["accuracy", "loss"]) -> Curve:
    """Condense what the surviving devices reported (all of them, where none survived).

    Rounds that not all of them reached are left out, unless some finished none. Who left early counts until
    then.
    """
    devices = run.survivors or range(run.num_devices)
    last = {report.device: report.round for report in run.reports}
    complete = min(last.get(device, -1) for device in run.stayed or devices)
    series = {
        round_ + 1: np.array(values)
        for round_, values in run.series(value, devices).items()
        if round_ <= complete or complete < 0
    }
    finite = [values[np.isfinite(values)] for values in series.values()]
    num_broken = {round_: int(np.sum(~np.isfinite(values))) for round_, values in series.items()}
    return _thin(
        np.array(list(series), dtype=float),
        [np.array([f(v) if v.size else np.nan for v in finite]) for f in (np.mean, np.min, np.max)],
        {round_: number for round_, number in num_broken.items() if number},
    )


def link_losses(run: History) -> list[LinkLoss]:
    """Count what became of every link's packets; a dead neighbour's silence is no loss of the link."""
    sent, on_air, corrupted, lost = (dict[tuple[int, int], int]() for _ in range(4))
    for report in run.reports:
        for neighbour, heard in report.heard.items():
            if heard.missing != "dead":
                link = (min(report.device, neighbour), max(report.device, neighbour))
                sent[link] = sent.get(link, 0) + heard.packets_sent
                on_air[link] = on_air.get(link, 0) + heard.packets_sent + heard.packets_resent
                corrupted[link] = corrupted.get(link, 0) + heard.packets_corrupted
                lost[link] = lost.get(link, 0) + heard.packets_lost
    found = []
    for edge in run.started.edges:
        link = (min(edge.devices), max(edge.devices))
        num_sent = sent.get(link, 0)
        found.append(
            LinkLoss(
                devices=link,
                snr_db=fmean(edge.mean_snr_db),
                expected=fmean(edge.packet_loss),
                packets_sent=num_sent,
                transmissions=on_air.get(link, 0),
                corrupted=corrupted[link] / on_air[link] if num_sent else float("nan"),
                # What could not even be handed over counts as lost but not as sent.
                lost=min(lost[link] / num_sent, 1.0) if num_sent else float("nan"),
            )
        )
    return found


def mean_stages_wall_s(run: History) -> Floats:
    """Average each stage of each device over its rounds; shape (stages, devices), 0 where none was done."""
    spent = np.zeros((run.num_devices, len(Stages.model_fields)))
    rounds = np.zeros((run.num_devices, 1))
    for report in run.reports:
        spent[report.device] += [seconds for _, seconds in report.stages_wall_s]
        rounds[report.device] += 1
    return (spent / np.maximum(rounds, 1)).T


def consensus(run: History) -> Curve:
    """Return the estimated consensus distance of each round; it has no spread over devices."""
    known = sorted((event.round + 1, event.distance) for event in run.consensus)
    rounds = np.array([round_ for round_, _ in known], dtype=float)
    distances = np.array([d if isfinite(d) else np.nan for _, d in known], dtype=float)
    return _thin(rounds, [distances] * 3, {r: 1 for r, d in known if not isfinite(d)})


def _thin(rounds: Floats, values: Sequence[Floats], not_finite: Mapping[int, int]) -> Curve:
    """Average blocks of rounds so that at most MAX_POINTS are left."""
    block = max(1, -(-len(rounds) // MAX_POINTS))
    if block > 1:
        starts = np.arange(0, len(rounds), block)
        sizes = np.diff([*starts, len(rounds)])
        rounds, *values = (np.add.reduceat(row, starts) / sizes for row in (rounds, *values))
    mean, low, high = values
    return Curve(rounds, mean, low, high, block, not_finite)
