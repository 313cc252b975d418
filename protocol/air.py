"""The air between two devices: what a frame's packets meet between one antenna and the other.

Everything is a pure function of seed, round, attempt and pair, so both ends, any placement and any order
of arrival see the same fades and the same flipped bits.
"""

from dataclasses import dataclass
from math import ceil, hypot, log10

import numpy as np

from protocol.access import Access
from protocol.bursts import burst_mask
from protocol.channel import Reception, apply_errors, receive
from protocol.codec import Bytes, Layout
from protocol.config import Experiment
from protocol.fading import FadingProcess, Floats, block_correlation
from protocol.hardware import fleet, hardware
from protocol.link import mean_snr_db, packet_loss_probability, shadowing_db
from protocol.mobility import Place, Walk
from protocol.modulation import ROBUST, bit_error_probability, coded_snr
from protocol.packet_errors import PacketErrorTable, packet_loss, residual_ber
from protocol.radio import MAX_ATTEMPTS, Modulation, Radio
from protocol.streams import Purpose, stream

_ROUNDING = 1e-9
"""Of a coherence block; a packet that starts this close before a block belongs to it."""


def frame_layout(experiment: Experiment, num_values: int) -> Layout:
    """Lay out a frame of num_values parameters; packets of a digital radio carry a CRC."""
    codec = experiment.codec
    return Layout(codec.kind, num_values, codec.packet_bytes, checked=experiment.radio.scheme == "digital")


@dataclass(frozen=True)
class Transmission:
    """One time on the air: which device sends, in which round, part, turn and attempt, how modulated."""

    round: int
    sender: int
    slot: int
    turn: int
    attempt: int = 0
    modulation: Modulation = ROBUST
    part: int = 0


class AirLink:
    """The air between two neighbours, as both ends know it without a message.

    Fades and shadowing are the same in both directions; transmit powers need not be. What is given for
    each of the pair comes in its order; `mean_snrs_db`: of each one's signal, at the other.
    """

    def __init__(
        self,
        experiment: Experiment,
        access: Access,
        *,
        pair: tuple[int, int],
        mean_snrs_db: tuple[float, float],
        places_m: tuple[Place, Place],
    ) -> None:
        self._experiment = experiment
        self._access = access
        self._mean_snrs_db = dict(zip(pair, mean_snrs_db, strict=True))
        radio = experiment.radio
        self._shadowing_db = shadowing_db(radio, seed=experiment.seed, pair=pair)
        self._tx_powers_dbm = {device: hardware(experiment, device).tx_power_dbm for device in pair}
        self._block_s = radio.coherence_packets * access.packet_s
        blocks, block_s = 1, radio.coherence_rounds * planned_round_s(experiment, access)
        if self._block_s:  # an ideal channel takes no time, and has no fades
            block_s = self._block_s
            blocks = ceil(exchanges_s(experiment, access) / block_s) + 1
        self._fading = FadingProcess(
            radio.fade,
            seed=experiment.seed,
            pair=pair,
            blocks_per_round=blocks,
            correlation=block_correlation(radio.doppler_hz, block_s),
        )
        area_m = experiment.graph.area_m
        self._walks = [
            Walk(experiment.mobility, area_m, place_m, seed=experiment.seed, device=device)
            for device, place_m in zip(pair, places_m, strict=True)
        ]

    def mean_snr_db(self, round_: int, sender: int) -> float:
        """Mean Es/N0 of one end's signal over the fading [dB], where the two stand in this round."""
        if self._experiment.mobility.kind == "none":
            return self._mean_snrs_db[sender]
        (x, y), (to_x, to_y) = (walk.place_m(round_) for walk in self._walks)
        return mean_snr_db(
            hypot(to_x - x, to_y - y),
            self._experiment.radio,
            self._access.bandwidth_hz,
            tx_power_dbm=self._tx_powers_dbm[sender],
            shadowing_db=self._shadowing_db,
        )

    def round_snr_db(self, round_: int, sender: int) -> float:
        """Es/N0 [dB] of one end's signal in a whole round: the mean over all fades of it."""
        gains = self._fading.gains(round_ // self._experiment.radio.coherence_rounds)
        return self.mean_snr_db(round_, sender) + 10 * log10(float(gains.mean()))

    def snr(self, transmission: Transmission, layout: Layout, access: Access | None = None) -> Floats:
        """Instantaneous Es/N0 (linear) of each packet of a transmission, shape (num_packets,)."""
        mean_snr_db = self.mean_snr_db(transmission.round, transmission.sender)
        return 10 ** (mean_snr_db / 10) * self.gains(transmission, layout, access)

    def gains(self, transmission: Transmission, layout: Layout, access: Access | None = None) -> Floats:
        """Power gain that each packet meets: that of the coherence block in which its airtime falls.

        access: the grid that the transmission lies in, where that is not this link's. A round has as many
        fades as its gossip needs; where a tree or a ring takes longer they come again.
        """
        radio = self._experiment.radio
        if not radio.coherence_packets:
            gain = self._fading.gains(transmission.round // radio.coherence_rounds)[0]
            return np.full(layout.num_packets, gain)
        access = access or self._access
        packets_s = access.packets_airtime_s(1.0, transmission.modulation) * layout.packet_bits
        starts_s = _offset_s(transmission, access) + np.cumsum(packets_s) - packets_s
        blocks = (starts_s / self._block_s + _ROUNDING).astype(np.int64)
        gains = self._fading.gains(transmission.round)
        return gains[blocks % len(gains)]

    def block_gains(self, transmission: Transmission, num_blocks: int) -> Floats:
        """Power gain of each of the blocks that an analog frame is divided into, shape (num_blocks,)."""
        radio = self._experiment.radio
        if not radio.coherence_packets:
            return self._fading.gains(transmission.round // radio.coherence_rounds)
        first = int(_offset_s(transmission, self._access) / self._block_s + _ROUNDING)
        return self._fading.gains(transmission.round)[first : first + num_blocks]


def _offset_s(transmission: Transmission, access: Access) -> float:
    return access.offset_s(
        transmission.slot, transmission.turn, attempt=transmission.attempt, part=transmission.part
    )


def planned_round_s(experiment: Experiment, access: Access) -> float:
    """Return the modelled seconds of a round that needs every attempt: computing, then superframes."""
    return planned_compute_s(experiment) + exchanges_s(experiment, access)


def exchanges_s(experiment: Experiment, access: Access) -> float:
    """Return the modelled seconds of all exchanges of a round, if each needs every attempt."""
    return experiment.aggregation.sweeps * experiment.radio.attempts * access.attempt_s


def planned_compute_s(experiment: Experiment) -> float:
    """Return the modelled seconds of one round's local training with full batches on the slowest device."""
    local_rounds = experiment.training.nominal_local_rounds
    return max(own.compute_air_s(own.local_round_cycles * local_rounds) for own in fleet(experiment))


def cross(
    payload: Bytes,
    layout: Layout,
    radio: Radio,
    snr: Floats,
    transmission: Transmission,
    *,
    seed: int,
    receiver: int,
    table: PacketErrorTable | None = None,
) -> Reception:
    """Pass packets through the air at Es/N0 snr, shape (num_packets,), and say which survive.

    The payload itself is never written.
    """
    rng, keep = _hop_stream(Purpose.BIT_ERRORS, transmission, seed, receiver), radio.bad_packets == "accept"
    if table is None:
        ber = bit_error_probability(transmission.modulation, coded_snr(radio, snr))
    else:
        snr_db = 10 * np.log10(snr)
        bad = rng.random(layout.num_packets) < packet_loss(table, snr_db)
        ber = np.where(bad, residual_ber(table, snr_db), 0.0)
    if radio.burst_packets:
        bursts = _hop_stream(Purpose.BURSTS, transmission, seed, receiver)
        in_burst = burst_mask(radio, layout.num_packets, bursts)
        ber = np.where(in_burst, np.maximum(ber, radio.burst_ber), ber)
    if table is None:
        return receive(payload, layout, ber, rng, keep=keep)
    # Where decoding failed, at least one bit is wrong.
    counts = np.maximum(rng.binomial(layout.packet_bits, ber), bad)
    return apply_errors(payload, layout, counts, rng, keep=keep)


def _hop_stream(
    purpose: Purpose, transmission: Transmission, seed: int, receiver: int
) -> np.random.Generator:
    """Return the generator of what befalls one transmission on its way to one receiver."""
    return stream(
        seed,
        purpose,
        round_=transmission.round,
        attempt=transmission.part * MAX_ATTEMPTS + transmission.attempt,
        a=transmission.sender,
        b=receiver,
    )


def meets_target(
    radio: Radio, modulation: Modulation, snr: Floats, packet_bits: int, table: PacketErrorTable | None = None
) -> bool:
    """Say whether packets at Es/N0 snr (linear) can be expected to be lost no more often than the target."""
    loss = packet_loss_probability(radio, modulation, snr, packet_bits, table)
    return float(np.mean(loss)) <= radio.target_packet_loss
