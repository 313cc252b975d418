"""One device's radio: its links to the neighbours, its place in the grid, its clock and its ledger."""

from node.train import Trained
from protocol.access import Access, plan_access
from protocol.air import AirLink
from protocol.codec import Layout
from protocol.config import Experiment
from protocol.ledger import Ledger
from protocol.messages import Spent, Start
from protocol.modulation import permitted
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Modulation


class Radio:
    """What both radios, digital and analog, know of the air and keep of what it costs."""

    def __init__(self, experiment: Experiment, start: Start, layout: Layout, device: int) -> None:
        self.experiment = experiment
        self.knobs = experiment.radio
        self.access: Access = plan_access(
            experiment, layout, num_colours=start.num_slots, max_degree=start.max_degree
        )
        self.ledger = Ledger(experiment.radio, experiment.device)
        self.slot = start.slot
        self.turns = {device: turn for turn, device in enumerate(sorted(n.device for n in start.neighbours))}
        """Place of every neighbour in this device's own slots."""
        self.tables: dict[Modulation, PacketErrorTable] = {
            table.modulation: table
            for table in start.packet_errors
            if table.modulation in permitted(self.knobs)
        }
        self.links: dict[int, AirLink] = {
            n.device: AirLink(
                experiment,
                self.access,
                pair=(device, n.device),
                mean_snr_db=n.mean_snr_db,
                places_m=(start.position_m, n.position_m),
            )
            for n in start.neighbours
        }
        self.air_s = 0.0
        """This device's modelled clock."""
        self._began_air_s = 0.0
        self._keeps_time = experiment.runtime.clock != "wall"

    def begin_round(self) -> None:
        """Open the books of a round."""
        self.ledger.clear()
        self._began_air_s = self.air_s

    def compute(self, trained: Trained | None) -> None:
        """Let clock and ledger feel local training."""
        if trained is None or not self._keeps_time:
            return
        device = self.experiment.device
        measured = device.compute == "measured"
        cycles = (
            device.cpu_hz * trained.processor_s if measured else device.cycles_per_sample * trained.samples
        )
        self.ledger.compute(cycles)
        self.air_s += cycles / device.cpu_hz

    def end_round(self, air_s: float) -> None:
        """Set the clock to the end of the round, and close the books."""
        if self._keeps_time:
            self.air_s = air_s
            self.ledger.pass_time(air_s - self._began_air_s)

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
