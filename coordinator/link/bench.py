"""One link on the bench: packets of one device cross the air to another, as in a run, and are counted.

Nothing here models anything: codec, air, ARQ, airtime and joules are those that devices use. The link
is alone, so nobody waits for a slot, a repeat follows its acknowledgement at once, and all modelled
seconds are airtime.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from protocol.access import Access, plan_access
from protocol.air import AirLink, Transmission, cross, frame_layout
from protocol.arq import Receiving, Sending
from protocol.channel import Counts
from protocol.codec import BODY_DTYPE, Bytes, Layout, decode, encode, finite_packets, select, selected
from protocol.config import Experiment
from protocol.hardware import hardware
from protocol.ledger import Ledger
from protocol.packet_errors import PacketErrorTable
from protocol.streams import Purpose, stream

SENDER, RECEIVER = 0, 1
FRAME_PACKETS = 128
"""Packets of a frame, where neither the length of a fade nor their own size asks for another number."""
_USUAL_FRAME_BYTES = 4 << 20
MAX_FRAME_BYTES = 64 << 20
"""What a fade's packets may come to, since a fade lies within one frame."""


@dataclass(frozen=True)
class Bench:
    """What is on the bench: two devices whose radio has `snr = "given"`, and how much one sends the other."""

    experiment: Experiment
    packets: int
    distance_m: float | None = None
    """Where the mean SNR was that of a link budget: between the antennas."""

    @property
    def frame_packets(self) -> int:
        """Packets of every frame but the last: full fades, so that repeats never meet one of them again."""
        packet_bytes = self.experiment.codec.packet_bytes
        usual = max(1, min(FRAME_PACKETS, _USUAL_FRAME_BYTES // packet_bytes))
        in_a_fade = self.experiment.radio.coherence_packets or 1
        return min(self.packets, -(-usual // in_a_fade) * in_a_fade)


@dataclass(frozen=True)
class Batch:
    """Frames of one size."""

    num_frames: int
    layout: Layout
    access: Access


@dataclass
class Counted:
    """What came of all packets; bits are those of packets, after decoding, checksums included."""

    packets: int = 0
    packets_sent: int = 0
    """First attempts and repeats."""
    bits: int = 0
    """Of all packets sent."""
    bit_errors: int = 0
    """Flipped among `bits`."""
    lost_at_first: int = 0
    """Packets that failed their first CRC."""
    lost: int = 0
    """Packets that failed at every attempt."""
    delivered_bits: int = 0
    """Of the numbers in the packets that arrived."""
    airtime_s: float = 0.0
    """Of packets, headers, bitmaps and acknowledgements."""
    joules: float = 0.0
    """For sending and receiving, at both ends."""


def batches(bench: Bench) -> list[Batch]:
    """Divide the packets of a bench into frames: all of one size, and what is left over."""
    num_frames, rest = divmod(bench.packets, bench.frame_packets)
    sizes = {bench.frame_packets: num_frames} | ({rest: 1} if rest else {})
    return [_batch(bench.experiment, number, num_packets) for num_packets, number in sizes.items()]


def _batch(experiment: Experiment, num_frames: int, num_packets: int) -> Batch:
    values_per_packet = frame_layout(experiment, 1).values_per_packet
    layout = frame_layout(experiment, num_packets * values_per_packet)
    return Batch(num_frames, layout, plan_access(experiment, layout, num_colours=2, max_degree=1))


def measure(
    bench: Bench, table: PacketErrorTable | None = None, *, tick: Callable[[int], None] = lambda packets: None
) -> Counted:
    """Send all packets of a bench and count; tick hears how many packets each frame brought to their end."""
    counted, link, round_ = Counted(), _Link(bench.experiment, table), 0
    for batch in batches(bench):
        air = AirLink(
            bench.experiment,
            batch.access,
            pair=(SENDER, RECEIVER),
            mean_snrs_db=(bench.experiment.radio.snr_db, bench.experiment.radio.snr_db),
            places_m=((0.0, 0.0), (0.0, 0.0)),
        )
        payload = np.empty(batch.layout.payload_bytes, dtype=np.uint8)
        for _ in range(batch.num_frames):
            rng = stream(bench.experiment.seed, Purpose.LINK_BENCH, round_=round_)
            x = rng.standard_normal(batch.layout.num_values, dtype=np.float32)
            encode(x, batch.layout, payload, rng)
            link.send(payload, batch, air, round_, counted)
            tick(batch.layout.num_packets)
            round_ += 1
    for account in (link.sender.links[RECEIVER], link.receiver.links[SENDER]):
        counted.airtime_s += account.tx_air_s
        counted.joules += account.tx_j + account.rx_j
    return counted


class _Link:
    """Both ends of the link, with what they have spent so far."""

    def __init__(self, experiment: Experiment, table: PacketErrorTable | None) -> None:
        self._radio = experiment.radio
        self._seed = experiment.seed
        self._table = table
        self.sender = Ledger(hardware(experiment, SENDER))
        self.receiver = Ledger(hardware(experiment, RECEIVER))

    def send(self, payload: Bytes, batch: Batch, air: AirLink, round_: int, counted: Counted) -> None:
        """Send a frame until all of it has arrived, or has been sent often enough."""
        layout, attempts = batch.layout, self._radio.attempts
        sending = Sending([RECEIVER], max_attempts=attempts, together=False)
        receiving = Receiving(layout.num_packets, max_attempts=attempts)
        packets: Counts | slice = slice(None)
        part, data, attempt, air_s = layout, payload, 0, 0.0
        while True:
            mine = Transmission(round_, SENDER, 0, 0, attempt, self._radio.modulation)
            reception = cross(
                data,
                part,
                self._radio,
                air.snr(mine, part),
                mine,
                seed=self._seed,
                receiver=RECEIVER,
                table=self._table,
            )
            intact = reception.intact & finite_packets(decode(data, part), part)
            receiving.take(attempt, packets, intact, on_time=True)
            air_s += self._spend(batch, part, attempt)
            counted.packets_sent += part.num_packets
            counted.bits += part.num_bits
            counted.bit_errors += reception.bit_errors
            if attempt == 0:
                counted.lost_at_first += int(np.count_nonzero(~receiving.intact))
            sending.answer(RECEIVER, receiving.intact, final=receiving.complete, air_s=air_s)
            repeats = sending.repeats()
            if not repeats:
                break
            [repeat] = repeats
            again = selected(select(payload, layout, repeat.packets), layout)
            packets, part, data, attempt = again.packets, again.layout, again.payload, repeat.attempt
        numbers = int(layout.values_of_each()[receiving.intact].sum())
        counted.packets += layout.num_packets
        counted.lost += int(np.count_nonzero(~receiving.intact))
        counted.delivered_bits += 8 * BODY_DTYPE[layout.kind].itemsize * numbers

    def _spend(self, batch: Batch, part: Layout, attempt: int) -> float:
        """Charge both ends for one attempt and its acknowledgement; return their airtime."""
        access, bitmap_bits = batch.access, batch.layout.num_packets if attempt else 0
        data_s = access.frame_airtime_s(part, self._radio.modulation, side_bits=bitmap_bits)
        self.sender.transmit((RECEIVER,), data_s)
        self.receiver.receive(SENDER, data_s)
        # Where nobody acknowledges, that takes no time.
        self.receiver.transmit((SENDER,), access.ack_turn_s)
        self.sender.receive(RECEIVER, access.ack_turn_s)
        return data_s + access.ack_turn_s
