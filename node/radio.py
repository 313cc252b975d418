"""One device's radio: its links to the neighbours, its place in the grid, its clock and its books."""

from dataclasses import dataclass
from math import inf
from typing import Literal, TypeAlias

from node.train import Trained
from protocol.access import Access, plan_access
from protocol.air import AirLink
from protocol.codec import Layout
from protocol.config import Experiment
from protocol.hardware import hardware
from protocol.ledger import Ledger
from protocol.messages import Heard, Spent, Start
from protocol.modulation import permitted
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Modulation
from protocol.scalars import Scalars

Missing: TypeAlias = Literal["", "air", "wall", "dead"]


@dataclass(frozen=True)
class Grid:
    """When a device may send: its slot in every superframe, and in that the turn to answer each neighbour."""

    access: Access
    slot: int
    turns: dict[int, int]


@dataclass
class Tally:
    """Counts of what passed between this device and one neighbour in one round."""

    packets_sent: int = 0
    packets_resent: int = 0
    attempts: int = 0
    packets_corrupted: int = 0
    packets_lost: int = 0
    bit_errors: int = 0
    missing: Missing = ""
    stale_rounds: int = 0


class Radio:
    """What both radios, digital and analog, know of the air and keep of what it costs."""

    def __init__(self, experiment: Experiment, start: Start, layout: Layout, device: int) -> None:
        self.experiment = experiment
        self.knobs = experiment.radio
        access = plan_access(experiment, layout, num_colours=start.num_slots, max_degree=start.max_degree)
        turns = {device: turn for turn, device in enumerate(sorted(n.device for n in start.neighbours))}
        self.grid = Grid(access, start.slot, turns)
        """Of exchanges with all neighbours."""
        self.num_colours = start.num_slots
        self.hardware = hardware(experiment, device)
        self.ledger = Ledger(self.hardware)
        self.tallies: dict[int, Tally] = {}
        self.tables: dict[Modulation, PacketErrorTable] = {
            table.modulation: table
            for table in start.packet_errors
            if table.modulation in permitted(self.knobs)
        }
        self.links: dict[int, AirLink] = {
            n.device: AirLink(
                experiment,
                access,
                pair=(device, n.device),
                mean_snrs_db=(n.mean_snr_there_db, n.mean_snr_db),
                places_m=(start.position_m, n.position_m),
            )
            for n in start.neighbours
        }
        self.air_s = 0.0
        """This device's modelled clock."""
        self.until_air_s = inf
        """When it has to be silent: the end of its seconds, or of the joules that it can idle on."""
        self.is_cut = False
        """Whether it has kept back something that it should have sent, since there was no time for it."""
        self._spent_before_j = 0.0
        self.said = Scalars()
        """What this device tells all others in this round."""
        self.told = Scalars()
        """The mean of what it and those have told that it averaged with."""
        self._keeps_time = experiment.runtime.clock != "wall"

    def begin_round(self) -> None:
        """Open the books of a round."""
        self._spent_before_j = self.spent_j
        self.ledger.clear()
        self.tallies = {}

    @property
    def spent_j(self) -> float:
        """All joules since the start."""
        return self._spent_before_j + self.ledger.total_j

    def compute(self, trained: Trained | None, cpu_hz: float | None = None) -> None:
        """Let clock and ledger feel local training, at full speed or at the frequency cpu_hz."""
        if trained is None or not self._keeps_time:
            return
        own, measured = self.hardware, self.experiment.device.compute == "measured"
        cycles = own.cpu_hz * trained.processor_s if measured else own.cycles_per_sample * trained.samples
        before_s = self.ledger.compute_air_s
        self.ledger.compute(cycles, cpu_hz)
        self.pass_to(self.air_s + self.ledger.compute_air_s - before_s)

    def pass_to(self, air_s: float) -> None:
        """Set the clock, and charge what the device draws meanwhile."""
        if self._keeps_time:
            self.ledger.pass_time(air_s - self.air_s)
            self.air_s = air_s

    def reserve(self, at_most_j: float) -> None:
        """Settle when this device has to be silent: it idles on what an exchange, at its dearest, leaves."""
        own = self.hardware
        spare_j = max(own.budget_j - self.spent_j - at_most_j, 0.0)
        idle_s = spare_j / own.idle_power_w if own.idle_power_w else inf
        self.until_air_s = min(own.budget_air_s, self.air_s + idle_s)

    def has_time_until(self, air_s: float) -> bool:
        """Say whether something that is through then can be sent; if not, this device is cut off."""
        self.is_cut = self.is_cut or air_s > self.until_air_s
        return air_s <= self.until_air_s

    def snrs_db(self, round_: int) -> dict[int, float]:
        """Return how well each neighbour is heard in a round: Es/N0 [dB], fades included."""
        return {device: link.round_snr_db(round_, device) for device, link in self.links.items()}

    def tally(self, device: int) -> Tally:
        """Return this round's counts of one neighbour."""
        return self.tallies.setdefault(device, Tally())

    def heard(self) -> dict[int, Heard]:
        """Return what passed in this round with each neighbour, and what was spent on it."""
        heard = {}
        for device, tally in sorted(self.tallies.items()):
            account = self.ledger.account(device)
            heard[device] = Heard(
                packets_sent=tally.packets_sent,
                packets_resent=tally.packets_resent,
                attempts=tally.attempts,
                packets_corrupted=tally.packets_corrupted,
                packets_lost=tally.packets_lost,
                bit_errors=tally.bit_errors,
                missing=tally.missing,
                stale_rounds=tally.stale_rounds,
                tx_air_s=account.tx_air_s,
                rx_air_s=account.rx_air_s,
                tx_j=account.tx_j,
                rx_j=account.rx_j,
            )
        return heard

    def spent(self) -> Spent:
        """Return what this round cost beside its links."""
        ledger = self.ledger
        return Spent(
            air_s=self.air_s,
            compute_air_s=ledger.compute_air_s,
            slot_wait_air_s=ledger.slot_wait_air_s,
            compute_j=ledger.compute_j,
            idle_j=ledger.idle_j,
        )
