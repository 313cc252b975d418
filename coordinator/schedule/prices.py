"""What sending one model is expected to cost on each link, from how well it is heard."""

from dataclasses import dataclass
from math import inf

import numpy as np

from coordinator.network import Network
from coordinator.schedule.costs import Answers, Floats, Ints, LinkCosts
from coordinator.schedule.cut import Cut, symbols_at
from coordinator.schedule.tariff import Grids, Tariff
from coordinator.schedule.timing import Grid
from protocol.access import (
    COUNT_BITS,
    NORM_BITS,
    Access,
    link_bandwidth_hz,
    num_blocks,
    plan_access,
    plan_scheduled_access,
)
from protocol.codec import Layout
from protocol.config import Experiment
from protocol.hardware import fleet
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Radio
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

    def among(self, members: int) -> "PriceList":
        """Cut the model for so many devices: whole, in chunks, and in as many parts as they are on a ring."""
        experiment, most = self.experiment, self.layout.num_values
        chunks, parts = min(experiment.aggregation.chunks, most), min(max(members, 1), most)
        chunked, parted = (tuple(c.layout for c in self.layout.cut(number)) for number in (chunks, parts))
        local_rounds = experiment.training.nominal_local_rounds
        return PriceList(
            self,
            whole=Cut.of((self.layout,), experiment, scheduled=False),
            chunked=Cut.of(chunked, experiment, scheduled=True),
            parted=Cut.of(parted, experiment, scheduled=True),
            grids=Grids(
                whole=Grid(self._gossip_access(), self._colours, self._turns),
                chunked=Grid(self._scheduled_access(chunked), self._colours, self._turns),
                parted=Grid(self._scheduled_access(parted), self._colours, self._turns),
                busy_s=np.array([local_rounds * own.local_round_air_s for own in fleet(experiment)]),
            ),
        )

    def _gossip_access(self) -> Access:
        network = self.network
        return plan_access(
            self.experiment, self.layout, num_colours=network.num_slots, max_degree=network.max_degree
        )

    def _scheduled_access(self, layouts: tuple[Layout, ...]) -> Access:
        """Lay out turns for the largest of some frames; how many of them depends on the tree or ring."""
        largest = max(layouts, key=lambda layout: layout.payload_bytes)
        scalar_bits = NUM_BITS if self.experiment.training.is_adaptive else 0
        return plan_scheduled_access(
            self.experiment,
            largest,
            num_colours=self.network.num_slots,
            data_turns=1,
            ack_turns=1,
            side_bits=scalar_bits + COUNT_BITS * largest.num_packets,
        )

    @property
    def _colours(self) -> Ints:
        return np.array(self.network.colours, dtype=np.intp)

    @property
    def _turns(self) -> Ints:
        turns = np.zeros((len(self.network.colours),) * 2, dtype=np.intp)
        for device, others in self.network.turns.items():
            turns[device, list(others)] = list(others.values())
        return turns


@dataclass(frozen=True, eq=False)
class PriceList:
    """Prices of a model, for each way of cutting it among a number of devices."""

    prices: Prices
    whole: Cut
    chunked: Cut
    parted: Cut
    grids: Grids

    def of(self, snrs_db: Floats, *, faded: bool) -> Tariff:
        """Price a whole model on every link.

        snrs_db: Es/N0 of each row's signal at each column, shape (n, n), -inf where there is no link; its
        mean over fading (faded), or as it is now. In chunks and parts costs are infinite where next to
        nothing would arrive.
        """
        if self._radio.scheme == "analog":
            whole, chunked, parted = self._analog(snrs_db), *(2 * [self._no_links(snrs_db)])
        else:
            whole, chunked, parted = (
                self._digital(snrs_db, cut, faded=faded) for cut in (self.whole, self.chunked, self.parted)
            )
        return Tariff(whole, chunked, parted, chunks=self.chunked.num_frames, grids=self.grids)

    def _digital(self, snrs_db: Floats, cut: Cut, *, faded: bool) -> LinkCosts:
        radio = self._radio
        tx_w, rx_w = self._powers_w()
        linked = np.isfinite(snrs_db)
        if radio.scheme == "ideal":
            free = np.where(linked, 0.0, inf)
            return LinkCosts(free, free, free, "parallel")
        takes = symbols_at(np.where(linked, snrs_db, 0.0), radio, cut, self.prices.tables, faded=faded)
        if cut.scheduled:  # gossip goes on over links that carry nothing, and pays for it
            linked &= takes.lost < DEAF
        bandwidth_hz = link_bandwidth_hz(radio, self.prices.network.num_slots)
        data_s, answers_s = takes.data / bandwidth_hz, takes.answers / bandwidth_hz
        answers = Answers(tx_j=tx_w[None, :] * answers_s, rx_j=rx_w[:, None] * answers_s)
        return LinkCosts(
            tx_j=np.where(linked, tx_w[:, None] * data_s, inf),
            rx_j=np.where(linked, rx_w[None, :] * data_s, inf),
            air_s=np.where(linked, data_s, inf),
            access=radio.access,
            answers=answers if cut.answered else None,
            times_on_air=takes.times_on_air,
        )

    def _analog(self, snrs_db: Floats) -> LinkCosts:
        """Price the signal that the column sums up: in its slot, at the power that all senders can invert.

        The sender with the weakest link sends at full power, each other one at what is left of
        W_j^2 / SNR_j, as if all models were of one size and no fade silenced anybody.
        """
        radio, layout, weights = self._radio, self.prices.layout, self.prices.network.weights
        tx_w, rx_w = self._powers_w()
        linked = np.isfinite(snrs_db)
        access = self.grids.whole.access
        senders = np.maximum(linked.sum(axis=0), 1)
        signal_s = access.symbols_airtime_s(layout.num_values)
        norms_s = access.side_airtime_s(NORM_BITS * num_blocks(radio, layout))
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
        return LinkCosts(nothing, nothing, nothing, self._radio.access)

    def _powers_w(self) -> tuple[Floats, Floats]:
        devices = fleet(self.prices.experiment)
        return np.array([d.tx_power_w for d in devices]), np.array([d.rx_power_w for d in devices])

    @property
    def _radio(self) -> Radio:
        return self.prices.experiment.radio
