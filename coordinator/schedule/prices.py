"""What sending one model is expected to cost on each link, from how well it is heard.

Legend: p loss of a packet at one attempt, A attempts at most, P packets in a frame. A packet is sent
1 + p + ... + p^(A-1) times, all of its attempts in one fade; a frame goes on the air as often as one of its
packets is, which for attempt k has the probability 1 - (1 - p^k)^P. Derived for this project.
"""

from dataclasses import dataclass
from functools import lru_cache
from math import inf

import numpy as np

from coordinator.schedule.costs import Floats, LinkCosts
from protocol.access import COUNT_BITS, HEADER_BITS, link_bandwidth_hz
from protocol.codec import Layout
from protocol.config import Experiment
from protocol.fading import equally_likely_gains
from protocol.hardware import fleet
from protocol.link import packet_loss_probability
from protocol.modulation import BITS_PER_SYMBOL, ROBUST, bit_rate_bps, permitted
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Radio

_GRID_DB = np.arange(-20.0, 60.0, 0.25)
"""Mean SNRs at which prices are worked out; between them they are interpolated, beyond them held."""
_NUM_FADES = 200
DEAF = 0.99
"""Share of packets that stay lost from which on a link is none."""


@dataclass(frozen=True)
class Prices:
    """What the price of a model depends on beside the SNRs."""

    experiment: Experiment
    layout: Layout
    num_colours: int
    tables: tuple[PacketErrorTable, ...] = ()

    def of(self, snrs_db: Floats, *, frames: int, faded: bool, even_deaf: bool = False) -> LinkCosts:
        """Price a whole model, cut into so many frames, on every link.

        snrs_db: Es/N0 of each row's signal at each column, shape (n, n), -inf where there is no link; its
        mean over fading (faded), or as it is now. Costs are infinite where next to nothing would arrive,
        unless they are asked for even there: gossip sends in any case.
        """
        radio, devices = self.experiment.radio, fleet(self.experiment)
        linked = np.isfinite(snrs_db)
        at = np.where(linked, snrs_db, 0.0)
        data_s = ack_s = np.zeros_like(at)
        if radio.scheme != "ideal":
            bandwidth_hz = link_bandwidth_hz(radio, self.num_colours)
            on_grid = _symbols_on_grid(radio, self.layout, frames, faded, self.tables)
            data_s, ack_s, lost = (np.interp(at, _GRID_DB, of_grid) for of_grid in on_grid)
            data_s, ack_s = data_s / bandwidth_hz, ack_s / bandwidth_hz
            linked &= (lost < DEAF) | even_deaf
        tx_w = np.array([device.tx_power_w for device in devices])
        rx_w = np.array([device.rx_power_w for device in devices])
        return LinkCosts(
            tx_j=np.where(linked, tx_w[:, None] * data_s + rx_w[:, None] * ack_s, inf),
            rx_j=np.where(linked, rx_w[None, :] * data_s + tx_w[None, :] * ack_s, inf),
            air_s=np.where(linked, data_s + ack_s, inf),
            access=radio.access,
        )


@lru_cache(maxsize=16)
def _symbols_on_grid(
    radio: Radio, layout: Layout, frames: int, faded: bool, tables: tuple[PacketErrorTable, ...]
) -> tuple[Floats, Floats, Floats]:
    """Return symbols of data and answers for a whole model, and the share that stays lost, per SNR."""
    fade, attempts = radio.fade, radio.attempts
    gains = equally_likely_gains(fade)
    step = max(1, len(gains) // _NUM_FADES)
    gains = gains[step // 2 :: step] if faded else np.ones(1)
    snr = 10 ** (_GRID_DB[:, None] / 10) * gains
    packet_bits, by_modulation = int(layout.packet_bits[0]), {table.modulation: table for table in tables}
    modulations = permitted(radio)
    losses = np.stack(
        [packet_loss_probability(radio, m, snr, packet_bits, by_modulation.get(m)) for m in modulations]
    )
    # The fastest one that meets the target, else the most robust.
    meets = losses <= radio.target_packet_loss
    fastest = len(modulations) - 1 - np.argmax(meets[::-1], axis=0)
    chosen = np.where(meets.any(axis=0), fastest, 0)
    p = np.take_along_axis(losses, chosen[None], axis=0)[0]
    rates = np.array([bit_rate_bps(radio, m, 1.0) for m in modulations])[chosen]
    packets = max(1, layout.num_packets // frames)
    sent = sum(p**k for k in range(attempts))
    on_air = sum(1 - (1 - p**k) ** packets for k in range(1, attempts)) + np.ones_like(p)
    robust = BITS_PER_SYMBOL[ROBUST]
    side_bits = frames * on_air * HEADER_BITS + frames * (on_air - 1) * packets
    if frames > 1:
        side_bits = side_bits + COUNT_BITS * layout.num_packets
    data = layout.num_bits * sent / rates + side_bits / robust
    answered = radio.acknowledged if frames == 1 else attempts > 1
    ack = frames * on_air * (HEADER_BITS + packets) / robust if answered else np.zeros_like(p)
    return data.mean(axis=1), ack.mean(axis=1), (p**attempts).mean(axis=1)
