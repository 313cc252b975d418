"""Medium access: who may send when, and how long that takes. All of it is fixed by the plan.

With `tdma` modelled time is a grid of superframes, the same for everybody, without end: a data slot per
colour of the graph, then an acknowledgement slot per colour. Devices of one colour are at least three
hops apart, so that nobody hears two of them, and nobody sends while a neighbour does. A slot holds as
many turns, one transmission each, as any device may need; slots are long enough for the slowest
permitted rate. Attempt a of a packet falls into superframe a after the first one.

With `parallel` every link has a band of its own and sends as soon as it is ready.

What protects a transmission (header, bitmaps, norms) is sent with BPSK and taken as error-free.
"""

from dataclasses import dataclass
from math import ceil, floor, inf

from protocol.codec import Layout
from protocol.config import Experiment
from protocol.frame import HEADER_BYTES
from protocol.hardware import Hardware
from protocol.modulation import BITS_PER_SYMBOL, ROBUST, bit_rate_bps, permitted
from protocol.radio import Modulation, Radio
from protocol.scalars import NUM_BITS

HEADER_BITS = 8 * HEADER_BYTES
NORM_BITS = 32
"""Side information of analog frames: the energy of each fading block, one float32."""
COUNT_BITS = 16
"""Side information of partial means: how many devices are in a packet."""
_ROUNDING = 1e-9
"""Of a period; a moment this close before the start of a slot is that start."""


@dataclass(frozen=True)
class Access:
    """The grid of one run; every device derives the same one from experiment, colours and largest degree."""

    radio: Radio
    num_slots: int
    """Colours of the graph; 0 where nobody waits for a slot."""
    bandwidth_hz: float
    """Of one link; infinite where the channel is ideal and takes no time."""
    data_turns: int
    data_turn_s: float
    ack_turns: int
    ack_turn_s: float
    packet_s: float
    """A full packet at the slowest permitted rate."""

    @property
    def data_s(self) -> float:
        """Length of all data slots of a superframe."""
        return self.num_slots * self.data_turns * self.data_turn_s

    @property
    def superframe_s(self) -> float:
        """Length of a superframe; 0 where there are no slots."""
        return self.data_s + self.num_slots * self.ack_turns * self.ack_turn_s

    @property
    def attempt_s(self) -> float:
        """Time from one attempt to the next."""
        return self.superframe_s if self.num_slots else self.data_turn_s + self.ack_turn_s

    def data_offset_s(self, slot: int, turn: int) -> float:
        """Start of a turn of a data slot within its superframe."""
        return (slot * self.data_turns + turn) * self.data_turn_s if self.num_slots else 0.0

    def offset_s(self, slot: int, turn: int, *, attempt: int = 0, part: int = 0) -> float:
        """Start of an attempt of a part of a round, from its first superframe, if none has to wait."""
        superframe = part * self.radio.attempts + attempt
        return superframe * self.attempt_s + self.data_offset_s(slot, turn)

    def data_start_s(self, ready_air_s: float, slot: int, turn: int) -> float:
        """First start of a turn of a data slot that is not before ready_air_s."""
        return self._next(ready_air_s, self.data_offset_s(slot, turn))

    def last_data_start_s(self, at_most_air_s: float, slot: int, turn: int) -> float:
        """Last start of a turn of a data slot that is not after at_most_air_s."""
        if not self.num_slots:
            return at_most_air_s
        offset_s, period_s = self.data_offset_s(slot, turn), self.superframe_s
        return offset_s + floor((at_most_air_s - offset_s) / period_s + _ROUNDING) * period_s

    def ack_start_s(self, ready_air_s: float, slot: int, turn: int) -> float:
        """First start of a turn of an acknowledgement slot that is not before ready_air_s."""
        return self._next(ready_air_s, self.data_s + (slot * self.ack_turns + turn) * self.ack_turn_s)

    def answered_s(self, end_air_s: float) -> float:
        """Return when all answers to a transmission that ends then are through."""
        if not self.ack_turns:
            return end_air_s
        period_s = self.superframe_s
        return (floor(end_air_s / period_s) + 1) * period_s if self.num_slots else end_air_s + self.ack_turn_s

    def side_airtime_s(self, bits: int) -> float:
        """Airtime of side information, a header included."""
        return (HEADER_BITS + bits) / (self.bandwidth_hz * BITS_PER_SYMBOL[ROBUST])

    def packets_airtime_s(self, bits: float, modulation: Modulation) -> float:
        """Airtime of packets of so many information bits."""
        return bits / bit_rate_bps(self.radio, modulation, self.bandwidth_hz)

    def frame_airtime_s(self, layout: Layout, modulation: Modulation, *, side_bits: int = 0) -> float:
        """Airtime of one transmission of packets: its header, side information, and the packets."""
        return self.packets_airtime_s(layout.num_bits, modulation) + self.side_airtime_s(side_bits)

    def symbols_airtime_s(self, num_values: float) -> float:
        """Airtime of analog amplitudes: two of them make one complex channel use."""
        return num_values / (2 * self.bandwidth_hz)

    def at_most_j(self, own: Hardware, *, sends: int, to: int, hears: int) -> float:
        """Return what so many frames, `to` receivers in all, and so many heard cost at most [J].

        Every frame at the slowest rate and as often as it may be sent, with all answers; without idling.
        """
        data_s = self.radio.attempts * self.data_turn_s
        ack_s = self.radio.attempts * self.ack_turn_s
        sending_s, hearing_s = sends * data_s + hears * ack_s, hears * data_s + to * ack_s
        return own.tx_power_w * sending_s + own.rx_power_w * hearing_s

    def _next(self, ready_air_s: float, offset_s: float) -> float:
        if not self.num_slots:
            return ready_air_s
        period_s = self.superframe_s
        return offset_s + max(0, ceil((ready_air_s - offset_s) / period_s - _ROUNDING)) * period_s


def plan_access(experiment: Experiment, layout: Layout, *, num_colours: int, max_degree: int) -> Access:
    """Lay out the grid for frames of a layout, on a graph of so many colours and neighbours at most."""
    radio = experiment.radio
    if radio.scheme == "ideal":
        return Access(radio, 0, inf, 1, 0.0, 0, 0.0, 0.0)
    bandwidth_hz = link_bandwidth_hz(radio, num_colours)
    bare = Access(radio, 0, bandwidth_hz, 1, 0.0, 0, 0.0, 0.0)
    num_slots = num_colours if radio.access == "tdma" else 0
    max_degree = max(max_degree, 1)
    if radio.scheme == "analog":
        one_by_one = radio.analog.superposition == "orthogonal"
        # Every sender tells the energy of its blocks, then the receiver tells how all are scaled.
        senders = 1 if one_by_one else max_degree
        norms_s = bare.side_airtime_s(NORM_BITS * num_blocks(radio, layout))
        turn_s = bare.symbols_airtime_s(layout.num_values) + (senders + 1) * norms_s
        packet_s = bare.symbols_airtime_s(layout.values_per_packet)
        return Access(
            radio, num_slots, bandwidth_hz, max_degree if one_by_one else 1, turn_s, 0, 0.0, packet_s
        )
    slowest = permitted(radio)[0]
    bitmap_bits = layout.num_packets
    side_bits = max(
        NUM_BITS if experiment.training.is_adaptive else 0, bitmap_bits if radio.attempts > 1 else 0
    )
    turn_s = bare.frame_airtime_s(layout, slowest, side_bits=side_bits)
    return Access(
        radio,
        num_slots,
        bandwidth_hz,
        max_degree if radio.cast == "unicast" else 1,
        turn_s,
        max_degree if radio.acknowledged else 0,
        bare.side_airtime_s(bitmap_bits) if radio.acknowledged else 0.0,
        bare.packets_airtime_s(float(layout.packet_bits[0]), slowest),
    )


def plan_scheduled_access(
    experiment: Experiment,
    layout: Layout,
    *,
    num_colours: int,
    data_turns: int,
    ack_turns: int,
    side_bits: int,
) -> Access:
    """Lay out the grid for frames that a tree or a ring sends, of this layout at most.

    They carry side information, go to some neighbours only, and are answered only for the sake of repeats.
    """
    radio = experiment.radio
    if radio.scheme == "ideal":
        return Access(radio, 0, inf, 1, 0.0, 0, 0.0, 0.0)
    bare = Access(radio, 0, link_bandwidth_hz(radio, num_colours), 1, 0.0, 0, 0.0, 0.0)
    slowest, repeats = permitted(radio)[0], radio.attempts > 1
    bitmap_bits = layout.num_packets
    return Access(
        radio,
        num_colours if radio.access == "tdma" else 0,
        bare.bandwidth_hz,
        data_turns,
        bare.frame_airtime_s(layout, slowest, side_bits=max(side_bits, bitmap_bits if repeats else 0)),
        ack_turns if repeats else 0,
        bare.side_airtime_s(bitmap_bits) if repeats else 0.0,
        bare.packets_airtime_s(float(layout.packet_bits[0]), slowest),
    )


def link_bandwidth_hz(radio: Radio, num_colours: int) -> float:
    """Bandwidth of one link: all of it, or with `shared_bandwidth` a colour's part of it."""
    shared = radio.access == "parallel" and radio.shared_bandwidth
    return radio.bandwidth_hz / max(num_colours, 1) if shared else radio.bandwidth_hz


def num_blocks(radio: Radio, layout: Layout) -> int:
    """Return the number of fading blocks of an analog frame."""
    return -(-layout.num_packets // radio.coherence_packets) if radio.coherence_packets else 1
