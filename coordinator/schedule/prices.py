"""What sending one model is expected to cost on each link, from how well it is heard."""

from dataclasses import dataclass
from math import inf

import numpy as np

from coordinator.network import Network
from coordinator.schedule.costs import Answers, Floats, Ints, LinkCosts
from coordinator.schedule.cut import FADED_GRID_DB, GRID_DB, Cut, symbols
from coordinator.schedule.tariff import Grids, Tariff
from coordinator.schedule.timing import Grid
from protocol.access import (
    COUNT_BITS,
    NORM_BITS,
    link_bandwidth_hz,
    num_blocks,
    plan_access,
    plan_scheduled_access,
)
from protocol.codec import Layout
from protocol.config import Experiment
from protocol.hardware import fleet
from protocol.packet_errors import PacketErrorTable
from protocol.scalars import NUM_BITS

DEAF = 0.99
"""Share of packets that stay lost from which on a link is none."""


@dataclass(frozen=True)
class Prices:
    """What the price of a model depends on beside the SNRs."""

    experiment: Experiment
    layout: Layout
    network: Network
    tables: tuple[PacketErrorTable, ...] = ()

    def of(self, snrs_db: Floats, *, faded: bool, members: int) -> Tariff:
        """Price a whole model on every link: whole, in chunks, and in parts for so many devices on a ring.

        snrs_db: Es/N0 of each row's signal at each column, shape (n, n), -inf where there is no link; its
        mean over fading (faded), or as it is now. In chunks and parts costs are infinite where next to
        nothing would arrive.
        """
        analog = self.experiment.radio.scheme == "analog"
        most = self.layout.num_values
        chunks = min(self.experiment.aggregation.chunks, most)
        chunked, parted = (
            tuple(chunk.layout for chunk in self.layout.cut(number))
            for number in (chunks, min(max(members, 1), most))
        )
        none = self._no_links(snrs_db)
        return Tariff(
            whole=self._analog(snrs_db) if analog else self._digital(snrs_db, (self.layout,), faded=faded),
            chunked=none if analog else self._digital(snrs_db, chunked, scheduled=True, faded=faded),
            parted=none if analog else self._digital(snrs_db, parted, scheduled=True, faded=faded),
            chunks=chunks,
            grids=Grids(
                whole=self._grid((self.layout,), scheduled=False),
                chunked=self._grid(chunked, scheduled=True),
                parted=self._grid(parted, scheduled=True),
                busy_s=np.array(
                    [
                        own.local_round_air_s * self.experiment.training.nominal_local_rounds
                        for own in fleet(self.experiment)
                    ]
                ),
            ),
        )

    def _digital(
        self, snrs_db: Floats, layouts: tuple[Layout, ...], *, faded: bool, scheduled: bool = False
    ) -> LinkCosts:
        radio = self.experiment.radio
        tx_w, rx_w = self._powers_w()
        linked = np.isfinite(snrs_db)
        if radio.scheme == "ideal":
            free = np.where(linked, 0.0, inf)
            return LinkCosts(free, free, free, "parallel")
        adaptive = self.experiment.training.is_adaptive
        cut = Cut.of(layouts, scheduled=scheduled, adaptive=adaptive, radio=radio)
        on_grid = symbols(radio, cut, self.tables, faded=faded)
        grid_db = FADED_GRID_DB if faded else GRID_DB
        at_db = np.where(linked, snrs_db, 0.0)
        data, answers, times_on_air, lost = (np.interp(at_db, grid_db, of_grid) for of_grid in on_grid)
        if scheduled:  # gossip goes on over links that carry nothing, and pays for it
            linked &= lost < DEAF
        bandwidth_hz = link_bandwidth_hz(radio, self.network.num_slots)
        data_s, answers_s = data / bandwidth_hz, answers / bandwidth_hz
        return LinkCosts(
            tx_j=np.where(linked, tx_w[:, None] * data_s, inf),
            rx_j=np.where(linked, rx_w[None, :] * data_s, inf),
            air_s=np.where(linked, data_s, inf),
            access=radio.access,
            answers=Answers(tx_j=tx_w[None, :] * answers_s, rx_j=rx_w[:, None] * answers_s)
            if cut.answered
            else None,
            times_on_air=times_on_air,
        )

    def _analog(self, snrs_db: Floats) -> LinkCosts:
        """Price the signal that the column sums up: in its slot, at the power that all senders can invert.

        The sender with the weakest link sends at full power, each other one at what is left of
        W_j^2 / SNR_j, as if all models were of one size and no fade silenced anybody.
        """
        radio, weights = self.experiment.radio, self.network.weights
        tx_w, rx_w = self._powers_w()
        linked = np.isfinite(snrs_db)
        access = self._grid((self.layout,), scheduled=False).access
        senders = np.maximum(linked.sum(axis=0), 1)
        signal_s = access.symbols_airtime_s(self.layout.num_values)
        norms_s = access.side_airtime_s(NORM_BITS * num_blocks(radio, self.layout))
        needs = np.where(linked, weights**2 / 10 ** (np.where(linked, snrs_db, 0.0) / 10), 0.0)
        together = radio.analog.superposition == "over_the_air"
        largest = needs.max(axis=0, initial=0.0) if together else needs
        shares = np.divide(needs, largest, out=np.zeros_like(needs), where=needs > 0)
        at_once = senders if together else np.ones_like(senders)
        free = np.zeros_like(snrs_db)
        return LinkCosts(
            tx_j=np.where(linked, tx_w[:, None] * (signal_s * shares + norms_s), inf),
            rx_j=np.where(linked, rx_w[None, :] * (signal_s / at_once + norms_s), inf),
            air_s=np.where(linked, access.data_turn_s, inf),
            access=radio.access,
            answers=Answers(
                tx_j=free + tx_w[None, :] * norms_s / at_once[None, :], rx_j=free + rx_w[:, None] * norms_s
            ),
        )

    def _no_links(self, snrs_db: Floats) -> LinkCosts:
        nothing = np.full_like(snrs_db, inf)
        return LinkCosts(nothing, nothing, nothing, self.experiment.radio.access)

    def _powers_w(self) -> tuple[Floats, Floats]:
        devices = fleet(self.experiment)
        return np.array([d.tx_power_w for d in devices]), np.array([d.rx_power_w for d in devices])

    def _grid(self, layouts: tuple[Layout, ...], *, scheduled: bool) -> Grid:
        """Lay out turns for the largest of some frames."""
        experiment, network = self.experiment, self.network
        if scheduled:
            largest = max(layouts, key=lambda layout: layout.payload_bytes)
            scalar_bits = NUM_BITS if experiment.training.is_adaptive else 0
            access = plan_scheduled_access(
                experiment,
                largest,
                num_colours=network.num_slots,
                data_turns=1,
                ack_turns=1,
                side_bits=scalar_bits + COUNT_BITS * largest.num_packets,
            )
        else:
            access = plan_access(
                experiment, layouts[0], num_colours=network.num_slots, max_degree=network.max_degree
            )
        return Grid(access, np.array(network.colours, dtype=np.intp), _turns(network))


def _turns(network: Network) -> Ints:
    turns = np.zeros((len(network.colours),) * 2, dtype=np.intp)
    for device, others in network.turns.items():
        turns[device, list(others)] = list(others.values())
    return turns
