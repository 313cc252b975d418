"""What came of a run, in numbers: read from its event log and its parameter files."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from coordinator.consensus import exact_distance
from coordinator.events import Consensus, Died, Ended, Event, Started
from protocol.config import Experiment
from protocol.errors import RunError
from protocol.messages import Heard, Report


class Summary(BaseModel):
    """The object that `hearsay run --json` prints and `summary.json` holds; units are in the names."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, ser_json_inf_nan="strings"
    )

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
    rounds: int
    """Rounds that every surviving device completed."""
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
    air_s: float
    """Modelled seconds of the run: the slowest surviving device's clock."""
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
    survivors: list[int] = field(default_factory=list)

    @property
    def num_devices(self) -> int:
        """Devices that began."""
        return len(self.started.pids)

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
    lost = {e.device for e in died}
    survivors = [device for device in range(len(started.pids)) if device not in lost]
    ended = next((e for e in events if isinstance(e, Ended)), None)
    reports = [e for e in events if isinstance(e, Report)]
    if ended is None:  # the coordinator was killed: what it had written is all there is
        rounds = [sum(r.device == device for r in reports) for device in range(len(started.pids))]
        ended = Ended(
            how="stopped", rounds=tuple(rounds), wall_s=sum(r.wall_s for r in reports if r.device == 0)
        )
    return History(started, ended, reports, [e for e in events if isinstance(e, Consensus)], died, survivors)


def summarise(run: History, experiment: Experiment, parameters: list[Path], run_dir: Path) -> Summary:
    """Condense a run; its exact consensus distance comes from the parameter files of the survivors."""
    alive = set(run.survivors)
    accuracy = _last_complete(run.series("accuracy", run.survivors), len(alive))
    loss = _last_complete(run.series("loss", run.survivors), len(alive))
    round_wall_s = [report.wall_s for report in run.reports]
    heard = run.heard()
    missing = [h.missing for h in heard]
    final = [path for path in parameters if int(path.stem.rpartition("-")[2]) in alive]
    return Summary(
        run_id=run.started.run_id,
        run_dir=str(run_dir),
        how=run.ended.how,
        transport=experiment.transport.kind,
        devices=experiment.devices,
        devices_lost=tuple(sorted(e.device for e in run.died)),
        rounds=min((run.ended.rounds[device] for device in run.survivors), default=0),
        num_parameters=run.started.num_parameters,
        accuracy_mean=float(np.mean(accuracy)) if accuracy else None,
        accuracy_min=min(accuracy) if accuracy else None,
        loss_mean=float(np.mean(loss)) if loss else None,
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
        air_s=max((report.air_s for report in run.reports if report.device in alive), default=0.0),
        pids=run.started.pids,
    )


def _last_complete(series: dict[int, list[float]], num_devices: int) -> list[float]:
    """Return the values of the last round that every device reported, or of the last one at all."""
    complete = [values for values in series.values() if len(values) == num_devices]
    return (complete or list(series.values()) or [[]])[-1]
