"""What came of a run, in numbers: read from its event log and its parameter files."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from coordinator.consensus import exact_distance
from coordinator.events import Consensus, Died, Ended, Event, Left, Started
from coordinator.expenses import by_device, by_link
from protocol.config import Experiment
from protocol.errors import RunError
from protocol.messages import Heard, Report

MAX_MISSED = 0.01
"""Share of deadlines that a valid paced run may miss."""


class Modelled(BaseModel):
    """What a run would have taken real devices; part of its summary."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )

    clock: Literal["virtual", "paced", "wall"]
    """What modelled seconds are: not waited for, waited for, or not kept at all."""
    valid: bool
    """Whether the seconds mean what they say: a paced run that missed its deadlines is not valid."""
    invalid_reason: str
    """Why not; empty for a valid run."""
    deadlines_missed: int
    """With a paced clock: deadlines that the host did not keep."""
    air_s: float | None
    """Modelled seconds of the run: the slowest surviving device's clock; none with the wall clock."""
    compute_air_s: float | None
    """Of those, seconds of computing, mean over devices."""
    tx_air_s: float | None
    """Seconds on the air, summed over devices; a broadcast counts once."""
    slot_wait_air_s: float | None
    """Seconds of being ready to send and waiting for a slot, mean over devices."""
    joules: float | None
    """Modelled joules of all devices, those that died on the way included; none with the wall clock."""
    joules_compute: float | None
    """Of those, for computing."""
    joules_tx: float | None
    """For sending."""
    joules_rx: float | None
    """For receiving."""
    joules_idle: float | None
    """For being on at all."""
    joules_per_device: tuple[float, ...]
    """Joules of each device; empty with the wall clock."""
    joules_per_link: dict[str, float]
    """Joules that both ends spent on each link, sending and receiving, by "a-b"."""


class Summary(Modelled):
    """The object that `hearsay run --json` prints and `summary.json` holds; units are in the names."""

    run_id: str
    """Name of the run, with the time it began."""
    run_dir: str
    """Folder of the run."""
    how: Literal["finished", "stopped"]
    """Whether all rounds were run, or somebody stopped it."""
    transport: str
    """What carried the frames; seconds over `memory` are bound by the interpreter lock."""
    devices: int
    """Devices that began."""
    devices_lost: tuple[int, ...]
    """Devices that died on the way."""
    devices_left: tuple[int, ...] = ()
    """Devices whose budgets did not pay for all rounds."""
    rounds: int
    """Rounds that every surviving device completed, those that left early not counted."""
    num_parameters: int
    """Parameters of the model."""
    accuracy_mean: float | None
    """Test accuracy, mean over the surviving devices, at the last evaluation."""
    accuracy_min: float | None
    """Test accuracy of the worst surviving device."""
    loss_mean: float | None
    """Training loss of the last round, mean over the surviving devices."""
    consensus_distance: float | None
    """Exact L2 distance of the final parameters from their mean, root mean square over devices."""
    wall_s: float
    """Host seconds from the first round's start to the end."""
    startup_wall_s: float
    """Host seconds from the first launch until every device was ready."""
    round_wall_s_p50: float | None
    """Median over devices and rounds of a round's host seconds, evaluation left out."""
    round_wall_s_p95: float | None
    """95th percentile of the same."""
    bytes_sent: int
    """Bytes handed to sockets, headers and acknowledgements included."""
    packets_sent: int
    """Radio packets sent, counted once for each neighbour they were sent to."""
    packets_lost: int
    """Radio packets corrupted in either direction, late by the model's clock, or of a diverged model."""
    packets_corrupted: int
    """Radio packets that failed their CRC."""
    bit_errors: int
    """Bits that flipped on the air."""
    frames_missing_air: int
    """Frames later than the model's round deadline."""
    frames_missing_wall: int
    """Frames that the host did not deliver in time: a fault, 0 in a sound run."""
    frames_missing_dead: int
    """Frames of neighbours that had died."""
    frames_dropped: int
    """Frames refused at the door (truncated, of a wrong size, of another run, version or epoch, ...)."""
    packets_resent: int
    """Radio packets sent again, counted once for each neighbour they were sent to."""
    stale_rounds_mean: float | None = None
    """With `aggregation.staleness_rounds`: by how much frames were older than the round that mixed them."""
    pids: tuple[int, ...]
    """Process of each device."""
    compare: "dict[str, Summary]" = {}
    """The same experiment under other conditions (`--compare`)."""


@dataclass(frozen=True)
class History:
    """A run's events, sorted by kind; what tables and figures are made of."""

    started: Started
    ended: Ended
    reports: list[Report]
    consensus: list[Consensus]
    died: list[Died]
    left: list[Left]
    survivors: list[int] = field(default_factory=list)

    @property
    def num_devices(self) -> int:
        """Devices that began."""
        return len(self.started.pids)

    @property
    def stayed(self) -> list[int]:
        """Survivors whose budgets paid for all rounds; all survivors, where nobody's did."""
        gone = {e.device for e in self.left}
        return [device for device in self.survivors if device not in gone] or self.survivors

    def series(self, value: Literal["accuracy", "loss"], devices: Sequence[int]) -> dict[int, list[float]]:
        """Return round -> the values that devices reported for it, absent ones left out."""
        wanted, found = set(devices), dict[int, list[float]]()
        for report in self.reports:
            number = report.accuracy if value == "accuracy" else report.loss
            if report.device in wanted and number is not None:
                found.setdefault(report.round, []).append(number)
        return dict(sorted(found.items()))

    def heard(self) -> list[Heard]:
        """Return every exchange of every device with every neighbour."""
        return [heard for report in self.reports for heard in report.heard.values()]


def history(events: list[Event]) -> History:
    """Sort a run's events; raises RunError if it never started."""
    started = next((e for e in events if isinstance(e, Started)), None)
    if started is None:
        raise RunError("the run never started")
    died = [e for e in events if isinstance(e, Died)]
    left = [e for e in events if isinstance(e, Left)]
    lost = {e.device for e in died}
    survivors = [device for device in range(len(started.pids)) if device not in lost]
    ended = next((e for e in events if isinstance(e, Ended)), None)
    reports = [e for e in events if isinstance(e, Report)]
    if ended is None:  # the coordinator was killed: what it had written is all there is
        rounds = [sum(r.device == device for r in reports) for device in range(len(started.pids))]
        ended = Ended(
            how="stopped", rounds=tuple(rounds), wall_s=sum(r.wall_s for r in reports if r.device == 0)
        )
    consensus = [e for e in events if isinstance(e, Consensus)]
    return History(started, ended, reports, consensus, died, left, survivors)


def summarise(run: History, experiment: Experiment, parameters: list[Path], run_dir: Path) -> Summary:
    """Condense a run; its exact consensus distance comes from the parameter files of the survivors."""
    alive = set(run.survivors)
    accuracy, loss = _last(run, "accuracy"), _last(run, "loss")
    round_wall_s = [report.wall_s for report in run.reports]
    heard = run.heard()
    missing = [h.missing for h in heard]
    stayed = set(run.stayed)
    final = [path for path in parameters if int(path.stem.rpartition("-")[2]) in stayed]
    return Summary(
        run_id=run.started.run_id,
        run_dir=str(run_dir),
        how=run.ended.how,
        transport=experiment.transport.kind,
        devices=experiment.devices,
        devices_lost=tuple(sorted(e.device for e in run.died)),
        devices_left=tuple(sorted(e.device for e in run.left)),
        rounds=min((run.ended.rounds[device] for device in run.stayed), default=0),
        num_parameters=run.started.num_parameters,
        accuracy_mean=fsum(accuracy) / len(accuracy) if accuracy else None,
        accuracy_min=min(accuracy) if accuracy else None,
        loss_mean=fsum(loss) / len(loss) if loss else None,
        consensus_distance=exact_distance(final),
        wall_s=run.ended.wall_s,
        startup_wall_s=run.started.startup_wall_s,
        round_wall_s_p50=float(np.percentile(round_wall_s, 50)) if round_wall_s else None,
        round_wall_s_p95=float(np.percentile(round_wall_s, 95)) if round_wall_s else None,
        bytes_sent=sum(report.bytes_sent for report in run.reports),
        packets_sent=sum(h.packets_sent for h in heard),
        packets_lost=sum(h.packets_lost for h in heard),
        packets_corrupted=sum(h.packets_corrupted for h in heard),
        bit_errors=sum(h.bit_errors for h in heard),
        frames_missing_air=missing.count("air"),
        frames_missing_wall=missing.count("wall"),
        frames_missing_dead=missing.count("dead"),
        frames_dropped=sum(sum(report.dropped.values()) for report in run.reports),
        packets_resent=sum(h.packets_resent for h in heard),
        stale_rounds_mean=_mean_stale_rounds(heard) if experiment.aggregation.staleness_rounds else None,
        **_modelled(run, experiment, alive).model_dump(),
        pids=run.started.pids,
    )


def _modelled(run: History, experiment: Experiment, alive: set[int]) -> Modelled:
    """Condense modelled seconds and joules, and judge whether a paced clock was kept."""
    clock = experiment.runtime.clock
    missed = sum(report.deadlines_missed for report in run.reports)
    # One before each exchange, and one when the round is over; a schedule's round has no more.
    set_ = (experiment.aggregation.sweeps + 1) * len(run.reports)
    reason = ""
    if clock == "paced" and missed > MAX_MISSED * set_:
        reason = (
            f"{missed} of {set_} deadlines were passed by more than "
            f"{experiment.runtime.pace_slack_wall_s:g} s: this host is too slow for "
            f"runtime.pace = {experiment.runtime.pace:g}"
        )
    kept = clock != "wall"
    devices = by_device(run.reports, run.num_devices) if kept else []
    links = by_link(run.reports) if kept else {}

    def mean(seconds: list[float]) -> float | None:
        return fsum(seconds) / run.num_devices if kept else None

    def total(joules: Iterable[float]) -> float | None:
        return fsum(joules) if kept else None

    return Modelled(
        clock=clock,
        valid=not reason,
        invalid_reason=reason,
        deadlines_missed=missed,
        air_s=max((r.spent.air_s for r in run.reports if r.device in alive), default=0.0) if kept else None,
        compute_air_s=mean([r.spent.compute_air_s for r in run.reports]),
        tx_air_s=total(h.tx_air_s for h in run.heard()),
        slot_wait_air_s=mean([r.spent.slot_wait_air_s for r in run.reports]),
        joules=total(j.total for j in devices),
        joules_compute=total(j.compute for j in devices),
        joules_tx=total(j.tx for j in devices),
        joules_rx=total(j.rx for j in devices),
        joules_idle=total(j.idle for j in devices),
        joules_per_device=tuple(j.total for j in devices),
        joules_per_link={f"{a}-{b}": joules for (a, b), joules in links.items()},
    )


def _mean_stale_rounds(heard: Iterable[Heard]) -> float | None:
    """Return the mean over all frames that were mixed, as often as they were."""
    ages = [h.stale_rounds for h in heard if not h.missing]
    return sum(ages) / len(ages) if ages else None


def _last(run: History, value: Literal["accuracy", "loss"]) -> list[float]:
    """Return the survivors' values of the last round that all reported who were still there, or of the last.

    Who had left by then counts with the last value of its own, even if that is everybody.
    """
    left = {event.device for event in run.left}
    stayed = [device for device in run.survivors if device not in left]
    series = run.series(value, stayed)
    complete = [values for values in series.values() if len(values) == len(stayed)]
    of_stayed = (complete or list(series.values()) or [[]])[-1]
    of_gone = [
        values
        for device in run.survivors
        if device in left
        for values in list(run.series(value, [device]).values())[-1:]
    ]
    return of_stayed + [number for numbers in of_gone for number in numbers]
