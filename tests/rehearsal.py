"""Whole runs without processes or sockets: all devices' agents and the coordinator's roster, over an ether.

The order in which frames arrive is up to a seed; what devices tell the coordinator reaches it at once.
"""

import tempfile
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import fsum
from pathlib import Path

import pytest
from conftest import parameters
from ether import Ether, Port

from coordinator.expenses import joules_of
from coordinator.network import lay_out
from coordinator.roster import Phase, Roster
from node.agent import take_part
from node.control import Control
from node.place import NOWHERE
from protocol.config import Experiment
from protocol.errors import RunError
from protocol.messages import Bye, Done, Hello, NeighbourDied, Report, Schedule, Start, Welcome, pack

SLICE_WALL_S = 1.0


@dataclass
class Rehearsal:
    """What came of a run."""

    reports: dict = field(default_factory=lambda: defaultdict(list))
    """Of each device, in order."""
    done: dict = field(default_factory=dict)
    said: dict = field(default_factory=lambda: defaultdict(list))
    """Receiver, header and payload of every frame of each device."""
    parameters: dict = field(default_factory=dict)
    starts: dict = field(default_factory=dict)
    scheduled: list = field(default_factory=list)
    wall_s: float = 0.0
    """Host seconds that somebody waited in vain."""

    def joules(self, device):
        return fsum(joules_of(report) for report in self.reports[device])

    def air_s(self, device):
        return self.reports[device][-1].spent.air_s if self.reports[device] else 0.0

    def rounds(self, device):
        return self.done[device].rounds

    def ledgers(self):
        """Return all that was counted, without the host's seconds."""
        return {
            device: [report.model_copy(update={"wall_s": 0, "stages_wall_s": None}) for report in reports]
            for device, reports in sorted(self.reports.items())
            if reports
        }


class _Desk:
    """The coordinator: its roster, and what it has to say to whom."""

    def __init__(self, experiment, run_dir):
        network = lay_out(experiment)
        self.roster = Roster(experiment, "a-run", run_dir, network)
        self.letters = defaultdict(deque)
        self.rehearsal = Rehearsal()
        self.error = None
        """Why the run cannot start."""

    def hear(self, device, message):
        try:
            tells = self.roster.hear(b"%d" % device, message, 0.0)
        except Exception as error:  # whatever it is, nobody shall wait for the start
            self.error = error
            raise
        for tell in tells:
            self.letters[int(tell.peer)].append(tell.message)
        self.rehearsal.scheduled += self.roster.scheduled
        self.roster.scheduled.clear()


class _Line(Control):
    """A device's way to the coordinator; what it waits for there it waits for in the ether."""

    socket = None
    absent = False

    def __init__(self, desk, ether, device):
        self._desk, self._ether, self._device = desk, ether, device
        self._deaths = []

    def send(self, message):
        if isinstance(message, Done):
            self._desk.rehearsal.done[self._device] = message
        self._desk.hear(self._device, type(message).model_validate_json(pack(message)))

    def report(self, report, sample):
        self._desk.rehearsal.reports[self._device].append(report)
        self.send(Report.model_validate_json(pack(report)))

    def check(self):
        pass

    def wait_for_start(self, wait_wall_s):
        start = self._await(Start, wait_wall_s)
        self._desk.rehearsal.starts[self._device] = start
        return start

    def wait_for_bye(self):
        self._await(Bye, 1e9)

    def ask_for_schedule(self, gains, wait_wall_s):
        self.send(gains)
        return self._await(Schedule, wait_wall_s, round_=gains.round)

    def news(self):
        letters = self._desk.letters[self._device]
        while letters and isinstance(letters[0], NeighbourDied | Schedule):
            self._heed(letters.popleft())
        deaths, self._deaths = self._deaths, []
        return deaths

    def _await(self, kind, wait_wall_s, *, round_=None):
        deadline_s = self._ether.wall_s + wait_wall_s
        letters = self._desk.letters[self._device]
        while True:
            while letters:
                message = letters.popleft()
                if isinstance(message, kind) and round_ in (None, getattr(message, "round", None)):
                    return message
                self._heed(message)
            if self._desk.error:
                raise self._desk.error
            if self._ether.wall_s >= deadline_s:
                return None
            self._ether.ask(self._device, SLICE_WALL_S, deaf=True)


class _Wire(Port):
    """The end of the ether as an agent opens it."""

    address = ""

    def wake_on(self, socket):
        pass

    def meet(self, start, awaited):
        pass

    def break_off(self):
        pass

    def flush(self, wall_s):
        pass


SMALL = {
    "devices": 4,
    "rounds": 6,
    "data": {"dataset": "synthetic", "num_samples": 200, "num_features": 8, "num_classes": 3},
    "model": {"kind": "mlp", "hidden": [4]},
    "codec": {"packet_bytes": 64},
    "training": {"local_rounds": 2, "evaluate_every": 0},
}


def experiment_of(**changes):
    """Return a small experiment; what is given for a section is laid over it."""
    sections = {
        key: SMALL.get(key, {}) | change if isinstance(change, dict) else change
        for key, change in changes.items()
    }
    return Experiment.model_validate(SMALL | sections)


def rehearse(experiment, *, seed=0, lets_through=None):
    """Let all devices of an experiment live from Hello to Bye; raises what the roster raises at the start."""
    ether = Ether(experiment.devices, seed)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        desk = _Desk(experiment, folder)
        for device in range(experiment.devices):
            desk.hear(device, Hello(pid=device, host="h"))
        ports = [_Wire(ether, device) for device in range(experiment.devices)]
        if lets_through:
            for port in ports:
                port.lets_through = lambda to, header, port=port: lets_through(port._device, to, header)

        @contextmanager
        def opened(context, bind, *, name, **_):
            yield ports[int(name)]

        patch.setattr("node.agent.ZmqTransport.open", opened)

        def program(device):
            welcome = desk.letters[device].popleft()
            assert isinstance(welcome, Welcome)
            return lambda: take_part(_Line(desk, ether, device), welcome, None, NOWHERE)

        ether.run({device: program(device) for device in range(experiment.devices)})
        if desk.roster.phase is not Phase.OVER:
            raise RunError(f"{desk.roster.phase}")
        it = desk.rehearsal
        it.said = {port._device: port.said for port in ports}
        it.parameters = {name: x.copy() for name, x in parameters(Path(folder)).items()}
        it.wall_s = ether.wall_s
    return it
