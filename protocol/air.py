"""One hop through the air: what a frame's packets meet between one antenna and the next.

Everything is a pure function of the hop, so both ends, any placement and any order of arrival see
the same fades and the same flipped bits.
"""

from dataclasses import dataclass

import numpy as np

from protocol.channel import Reception, receive
from protocol.codec import Bytes, Layout
from protocol.config import Experiment, Radio
from protocol.link import bit_error_probability, bit_rate_bps, fading_gains
from protocol.streams import Purpose, stream


def frame_layout(experiment: Experiment, num_values: int) -> Layout:
    """Lay out a frame of num_values parameters; packets carry a CRC unless the channel is ideal."""
    codec = experiment.codec
    return Layout(codec.kind, num_values, codec.packet_bytes, checked=experiment.radio.scheme != "ideal")


@dataclass(frozen=True)
class Hop:
    """Who sends to whom in which round and attempt, over a link of which mean Es/N0."""

    seed: int
    round: int
    sender: int
    receiver: int
    mean_snr_db: float
    attempt: int = 0


def cross(payload: Bytes, layout: Layout, radio: Radio, hop: Hop) -> Reception:
    """Pass a payload over one hop and say which packets survive; the payload itself is never written."""
    if radio.scheme == "ideal":
        return Reception(np.ones(layout.num_packets, dtype=np.bool_), 0)
    gains = fading_gains(
        radio,
        seed=hop.seed,
        round_=hop.round,
        pair=(hop.sender, hop.receiver),
        num_packets=layout.num_packets,
    )
    ber = bit_error_probability(radio.modulation, 10 ** (hop.mean_snr_db / 10) * gains)
    flips = stream(
        hop.seed, Purpose.BIT_ERRORS, round_=hop.round, attempt=hop.attempt, a=hop.sender, b=hop.receiver
    )
    return receive(payload, layout, ber, flips)


def airtime_s(layout: Layout, radio: Radio) -> float:
    """Seconds on the air of one frame: bits of all packets over the bit rate; an ideal channel takes none."""
    return 0.0 if radio.scheme == "ideal" else float(layout.packet_bits.sum()) / bit_rate_bps(radio)
