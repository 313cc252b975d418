"""The model in frames: how many, what they carry, and how many symbols that takes at each SNR.

Legend: p loss of a packet at one attempt, A attempts at most, P packets in a frame. A packet is sent
1 + p + ... + p^(A-1) times, all of its attempts in one fade; a frame goes on the air as often as one of its
packets is, which for attempt k has the probability 1 - (1 - p^k)^P. Derived for this project.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np

from coordinator.schedule.costs import Floats
from protocol.access import COUNT_BITS, HEADER_BITS
from protocol.codec import Layout
from protocol.config import Experiment
from protocol.fading import equally_likely_gains
from protocol.link import packet_loss_probability
from protocol.modulation import BITS_PER_SYMBOL, ROBUST, bit_rate_bps, permitted
from protocol.packet_errors import PacketErrorTable
from protocol.radio import Radio
from protocol.scalars import NUM_BITS

_LOWEST_DB, _HIGHEST_DB = -20.0, 60.0
"""SNRs between which prices are worked out; beyond them they are held."""
_FADED_STEP_DB, _STEP_DB = 0.25, 0.01
"""Between points they are interpolated; without fading they jump from rate to rate."""
_NUM_FADES = 200


@dataclass(frozen=True)
class Cut:
    """The model in so many frames, each with packets of its own."""

    num_frames: int
    num_bits: int
    """Of all packets."""
    num_packets: int
    """Of all frames."""
    most_packets: int
    """Of the largest frame."""
    packet_bits: int
    """Of a full packet."""
    side_bits: int
    """Of all frames together, headers included."""
    scheduled: bool
    """They go along a tree or a ring."""
    answered: bool

    @classmethod
    def of(cls, layouts: tuple[Layout, ...], experiment: Experiment, *, scheduled: bool) -> "Cut":
        """Cut the model into frames of these layouts; scheduled: they go along a tree or a ring."""
        largest = max(layouts, key=lambda layout: layout.payload_bytes)
        num_packets = sum(layout.num_packets for layout in layouts)
        each = HEADER_BITS + (NUM_BITS if experiment.training.is_adaptive else 0)
        radio = experiment.radio
        return cls(
            num_frames=len(layouts),
            num_bits=sum(layout.num_bits for layout in layouts),
            num_packets=num_packets,
            most_packets=largest.num_packets,
            packet_bits=int(largest.packet_bits[0]),
            side_bits=len(layouts) * each + (COUNT_BITS * num_packets if scheduled else 0),
            scheduled=scheduled,
            answered=radio.attempts > 1 if scheduled else radio.acknowledged,
        )


class Symbols(NamedTuple):
    """What a whole model takes on links, as arrays of one shape."""

    data: Floats
    answers: Floats
    times_on_air: Floats
    """Of one frame."""
    lost: Floats
    """Share of packets that stay lost."""


def symbols_at(
    snrs_db: Floats, radio: Radio, cut: Cut, tables: tuple[PacketErrorTable, ...], *, faded: bool
) -> Symbols:
    """Return what a model takes at SNRs: mean ones, over their fades (faded), or those that there are."""
    step_db = _FADED_STEP_DB if faded else _STEP_DB
    on_grid = _symbols_on_grid(radio, cut, tables, faded=faded)
    at = (np.clip(snrs_db, _LOWEST_DB, _HIGHEST_DB) - _LOWEST_DB) / step_db
    below = np.minimum(at.astype(np.intp), len(on_grid.data) - 2)
    share = at - below
    return Symbols(*(of_grid[below] * (1 - share) + of_grid[below + 1] * share for of_grid in on_grid))


@lru_cache(maxsize=32)
def _symbols_on_grid(radio: Radio, cut: Cut, tables: tuple[PacketErrorTable, ...], *, faded: bool) -> Symbols:
    attempts, gains = radio.attempts, np.ones(1)
    if faded:
        gains = equally_likely_gains(radio.fade)
        step = max(1, len(gains) // _NUM_FADES)
        gains = gains[step // 2 :: step]
    step_db = _FADED_STEP_DB if faded else _STEP_DB
    points_db = _LOWEST_DB + step_db * np.arange(round((_HIGHEST_DB - _LOWEST_DB) / step_db) + 1)
    snr = 10 ** (points_db[:, None] / 10) * gains
    by_modulation = {table.modulation: table for table in tables}
    modulations = permitted(radio)
    losses = np.stack(
        [packet_loss_probability(radio, m, snr, cut.packet_bits, by_modulation.get(m)) for m in modulations]
    )
    # The fastest one that meets the target, else the most robust.
    meets = losses <= radio.target_packet_loss
    fastest = len(modulations) - 1 - np.argmax(meets[::-1], axis=0)
    chosen = np.where(meets.any(axis=0), fastest, 0)
    p = np.take_along_axis(losses, chosen[None], axis=0)[0]
    rates = np.array([bit_rate_bps(radio, m, 1.0) for m in modulations])[chosen]
    packets = cut.num_packets / cut.num_frames
    sent = sum(p**k for k in range(attempts))
    on_air = sum(1 - (1 - p**k) ** packets for k in range(1, attempts)) + np.ones_like(p)
    robust = BITS_PER_SYMBOL[ROBUST]
    # A repeat has a header and says which packets are in it.
    repeated_bits = cut.num_frames * (on_air - 1) * (HEADER_BITS + packets)
    answer_bits = cut.num_frames * on_air * (HEADER_BITS + cut.most_packets) if cut.answered else 0 * p
    return Symbols(
        data=(cut.num_bits * sent / rates + (cut.side_bits + repeated_bits) / robust).mean(axis=1),
        answers=(answer_bits / robust).mean(axis=1),
        times_on_air=on_air.mean(axis=1),
        lost=(p**attempts).mean(axis=1),
    )
