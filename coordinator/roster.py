"""The roster: which devices there are, how far each has come, and what to tell whom. No sockets, no clock.

Events come in, instructions go out. A run gathers until every device is ready, then goes on with
whoever is left, and is over when each device is done or lost.
"""

from bisect import insort
from dataclasses import dataclass, field
from enum import Enum

from coordinator.events import Scheduled
from coordinator.expenses import joules_of
from coordinator.network import Network, row
from coordinator.prospects import look_ahead
from coordinator.schedule.epochs import Epochs, Place, Reports
from coordinator.schedule.prices import Prices
from protocol.air import frame_layout
from protocol.config import Experiment
from protocol.errors import BadInput, RunError
from protocol.hardware import fleet
from protocol.messages import (
    PROTOCOL_VERSION,
    Bye,
    Done,
    Failed,
    FromDevice,
    Gains,
    Hello,
    Message,
    Neighbour,
    NeighbourDied,
    Prospect,
    Ready,
    Refuse,
    Report,
    Schedule,
    Seat,
    Start,
    Stop,
    Welcome,
)
from protocol.packet_errors import PacketErrorTable


class Phase(Enum):
    """Where the run is."""

    GATHERING = "gathering"
    RUNNING = "running"
    OVER = "over"


@dataclass(frozen=True)
class Tell:
    """An instruction: send this message to this peer."""

    peer: bytes
    message: Message


@dataclass
class Member:
    """One device as the coordinator knows it."""

    device: int
    peer: bytes
    pid: int
    host: str
    last_heard_s: float
    incarnation: int = 0
    ready: Ready | None = None
    gains: Gains | None = None
    """How well it hears its neighbours, as it told last; taken away once it was answered."""
    spent_j: float = 0.0
    rounds: int = 0
    """Rounds it reported or, once done, completed."""
    done: bool = False
    lost: str = ""
    """Why it is gone; empty while it is not."""
    left: str = ""
    """Why it was done before the last round; empty if it was not."""

    @property
    def active(self) -> bool:
        """Say whether more is expected of it."""
        return not self.done and not self.lost


@dataclass
class Roster:
    """State machine of one run's membership; `now_s` is always handed in."""

    experiment: Experiment
    run_id: str
    run_dir: str
    network: Network
    packet_errors: tuple[PacketErrorTable, ...] = ()
    gpus: tuple[Seat, ...] = ()
    """Where each device's model lives; without any, on none."""
    scheduled: list[Scheduled] = field(default_factory=list)
    """Epochs laid out that nobody has noted yet."""
    epoch: int = 0
    phase: Phase = Phase.GATHERING
    stopped: bool = False
    failure: str = ""
    """Why the run ended before its time; empty if it did not."""
    members: list[Member] = field(default_factory=list)
    """In order of device."""
    _epochs: Epochs | None = None

    def hear(self, peer: bytes, message: FromDevice, now_s: float) -> list[Tell]:
        """Take in what a device said.

        Raises BadInput or RunError when the run cannot start because of it.
        """
        if isinstance(message, Hello):
            return self._welcome(peer, message, now_s)
        member = self.member(peer)
        if member is None or member.lost:
            return []
        member.last_heard_s = now_s
        match message:
            case Ready():
                member.ready = message
                return self._start_if_all_are_ready(now_s)
            case Report():
                member.rounds = message.round + 1
                member.spent_j += joules_of(message)
                if member.gains is not None and message.round >= member.gains.round:
                    member.gains = None  # it did not wait for those who have not told
                return []
            case Gains():
                if any(m.rounds > message.round for m in self.members if m.active):
                    return [Tell(peer, Schedule(round=message.round, place=None))]  # others have gone on
                member.gains = message
                return self._reschedule_if_all_have_told()
            case Done():
                member.rounds = message.rounds
                if message.why_early:
                    member.left = message.why_early
                elif message.rounds < self.experiment.rounds and not self.stopped:
                    bye = Tell(peer, Bye())
                    return [bye, *self.lose(member.device, f"left after {message.rounds} rounds")]
                member.done = True  # who left has told its neighbours itself, behind all its frames
                return self._reschedule_if_all_have_told() + self._end_if_nobody_is_active()
            case Failed():
                if self.phase is Phase.GATHERING:
                    raise (BadInput if message.bad_input else RunError)(message.reason)
                return self.lose(member.device, message.reason)

    def member(self, peer: bytes) -> Member | None:
        """Return who speaks at this end of the control socket."""
        return next((m for m in self.members if m.peer == peer), None)

    def of(self, device: int) -> Member:
        """Return a device that has come; its place among the members is its number only once all have."""
        return next(m for m in self.members if m.device == device)

    def at(self, pid: int) -> list[Member]:
        """Return the devices that live in a process of this host, those already lost left out."""
        return [m for m in self.members if m.pid == pid and not m.lost]

    def lose(self, device: int, reason: str) -> list[Tell]:
        """Take a device as gone, and tell its neighbours not to wait for it.

        Raises RunError when that happens before the start.
        """
        member = self.of(device)
        if not member.active or self.failure:
            return []
        if self.phase is Phase.GATHERING:
            raise RunError(f"device {device} was lost before the start: {reason}")
        if self.experiment.transport.in_step and not self.stopped:
            return self._end_without(member, reason)
        member.lost = reason
        death = NeighbourDied(device=device, incarnation=member.incarnation)
        neighbours = [self.members[n] for n in self.network.graph.neighbors(device)]
        tells = [Tell(n.peer, death) for n in neighbours if n.active]
        return tells + self._reschedule_if_all_have_told() + self._end_if_nobody_is_active()

    def _end_without(self, member: Member, reason: str) -> list[Tell]:
        """End the run, since a device is gone without which nobody can go on in step."""
        member.lost = reason
        kind = self.experiment.transport.kind
        self.failure = f"device {member.device}: {reason}; over {kind} nobody goes on without it"
        self.phase = Phase.OVER
        return [Tell(m.peer, Stop(failure=self.failure)) for m in self.members if m.active]

    @property
    def patience_s(self) -> float:
        """Silence after which a device is lost, long after its neighbours gave up.

        In one round a device waits once for frames and, where there are schedules, once for its own and once
        along it; who waits in vain for another one must not be taken for that one.
        """
        waits = 3 if self.experiment.aggregation.is_scheduled else 1
        return (waits + 1) * self.experiment.runtime.liveness_wall_s

    def overdue(self, now_s: float) -> list[int]:
        """Return the devices that have been silent for too long."""
        if self.phase is not Phase.RUNNING:
            return []  # gathering has a deadline of its own
        return [m.device for m in self.members if m.active and now_s - m.last_heard_s > self.patience_s]

    def stop(self) -> list[Tell]:
        """Tell every device to break off and leave."""
        self.stopped = True
        return [Tell(m.peer, Stop()) for m in self.members if m.active]

    def _welcome(self, peer: bytes, hello: Hello, now_s: float) -> list[Tell]:
        if hello.protocol != PROTOCOL_VERSION:
            reason = f"it speaks protocol {PROTOCOL_VERSION}, this device {hello.protocol}"
            return [Tell(peer, Refuse(reason=reason))]
        needed = 1 if self.experiment.transport.kind == "memory" else self.experiment.devices
        if self.phase is Phase.GATHERING and hello.world_size not in (None, needed):
            raise BadInput(
                f"torchrun started {hello.world_size} processes, and this run needs {needed}: start so many "
                f"(--nnodes times --nproc-per-node)"
            )
        tells = []
        member = self._former_self(hello)
        if member is not None and self.phase is Phase.GATHERING:
            member.peer, member.last_heard_s, member.ready = peer, now_s, None
            member.incarnation += 1
        elif len(self.members) == self.experiment.devices:
            if member is not None:
                tells = self.lose(member.device, "its process was started anew")
            reason = f"run {self.run_id} has its {self.experiment.devices} devices already"
            return [Tell(peer, Refuse(reason=reason)), *tells]
        else:
            free = set(range(self.experiment.devices)) - {m.device for m in self.members}
            wanted = min(free) if hello.rank is None else hello.rank
            if wanted not in free:
                what = "taken" if wanted < self.experiment.devices else "none of its devices"
                return [Tell(peer, Refuse(reason=f"device {wanted} of run {self.run_id} is {what}"))]
            member = Member(wanted, peer, hello.pid, hello.host, now_s)
            insort(self.members, member, key=lambda m: m.device)
        welcome = Welcome(
            run_id=self.run_id,
            epoch=self.epoch,
            device=member.device,
            incarnation=member.incarnation,
            experiment=self.experiment,
            run_dir=self.run_dir,
            gpu=self.gpus[member.device] if self.gpus else None,
        )
        return [Tell(peer, welcome)]

    def _former_self(self, hello: Hello) -> Member | None:
        """Return the device that a process was before it was started anew, as a container is with its policy.

        It has its host's name and number again, and nobody else has them, unless all devices share a process.
        Before the start, what torchrun started anew has its rank again.
        """
        if self.experiment.transport.kind == "memory":
            return None
        if hello.world_size is not None and self.phase is Phase.GATHERING:
            return next((m for m in self.members if m.device == hello.rank), None)
        return next((m for m in self.members if (m.host, m.pid) == (hello.host, hello.pid)), None)

    def _start_if_all_are_ready(self, now_s: float) -> list[Tell]:
        ready = [m.ready for m in self.members if m.ready is not None]
        if len(ready) < self.experiment.devices:
            return []
        if len({r.schema_hash for r in ready}) > 1:
            raise RunError("the devices built different models; are all of the same version?")
        self.phase = Phase.RUNNING
        for member in self.members:
            member.last_heard_s = now_s
        layout = frame_layout(self.experiment, ready[0].num_parameters)
        prices = Prices(self.experiment, layout, self.network, self.packet_errors)
        self._epochs = Epochs(self.experiment, self.network, prices)
        plan = self._epochs.first()
        if self.experiment.aggregation.is_scheduled:
            self.scheduled.append(plan.event)
        prospects = look_ahead(self.experiment, plan)
        return [
            Tell(m.peer, self._start(m.device, plan.places.get(m.device), prospects[m.device]))
            for m in self.members
        ]

    def _reschedule_if_all_have_told(self) -> list[Tell]:
        """Lay out the next epoch once everybody who lives waits for it: all get it, or nobody does."""
        active = [m for m in self.members if m.active]
        told = {m.device: m.gains for m in active if m.gains is not None}
        rounds = {gains.round for gains in told.values()}
        if self._epochs is None or len(told) < len(active) or len(rounds) != 1:
            return []
        [round_] = rounds
        devices = fleet(self.experiment)
        plan = self._epochs.next(
            round_,
            Reports(
                snrs_db={device: gains.snr_db for device, gains in told.items()},
                joules_left={m.device: devices[m.device].budget_j - m.spent_j for m in active},
            ),
        )
        self.scheduled.append(plan.event)
        for member in active:
            member.gains = None
        return [Tell(m.peer, Schedule(round=round_, place=plan.places.get(m.device))) for m in active]

    def _start(self, device: int, place: Place | None, prospect: Prospect) -> Start:
        network, first = self.network, self.members[0].ready
        return Start(
            neighbours=self._row(device),
            slot=network.colours[device],
            num_slots=network.num_slots,
            max_degree=network.max_degree,
            position_m=network.graph.nodes[device]["position_m"],
            packet_errors=self.packet_errors,
            schedule=Schedule(round=0, place=place) if place is not None else None,
            prospect=prospect,
            rendezvous=first.address if first is not None and self.experiment.transport.in_step else "",
        )

    def _row(self, device: int) -> tuple[Neighbour, ...]:
        """Say of a device's neighbours what it needs to know: its row of the mixing matrix."""
        neighbours = []
        for link in row(self.network, device):
            member = self.members[link.neighbour]
            assert member.ready is not None
            neighbours.append(
                Neighbour(
                    device=member.device,
                    incarnation=member.incarnation,
                    address=member.ready.address,
                    weight=link.weight,
                    mean_snr_db=link.mean_snr_db,
                    mean_snr_there_db=link.mean_snr_there_db,
                    slot=link.slot,
                    turn=link.turn,
                    position_m=link.position_m,
                )
            )
        return tuple(neighbours)

    def _end_if_nobody_is_active(self) -> list[Tell]:
        if self.phase is not Phase.RUNNING or any(m.active for m in self.members):
            return []
        self.phase = Phase.OVER
        return [Tell(m.peer, Bye()) for m in self.members if m.done]
