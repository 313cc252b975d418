"""The analog radio of one device: parameters as amplitudes, summed in the air at every receiver.

Every sender's frame carries the amplitudes and, as side information, the energy of each fading block.
When all frames are in, the receiver knows how its slot was scaled: it superposes them, adds its noise,
and answers every sender with the share of its power that each block was given.

With `payload = "differences"` a sender sends what changed since the public copy that it and the receiver
hold of it. The receiver needs only the weighted sum of its neighbours' copies, to which it adds every
sum it hears; noise piles up in it until a digital refresh, taken as error-free, replaces it.
"""

from math import ceil, inf, sqrt
from typing import NamedTuple

import numpy as np
import torch

from node.inbox import Inbox
from node.mixing import Arrived
from node.peers import Peers, Stamp
from node.radio import Radio
from node.scheme import Sent
from node.stopwatch import Stopwatch
from node.transport.zmq import Buffers, Outgoing
from protocol.access import NORM_BITS, num_blocks
from protocol.air import Transmission
from protocol.analog import Signal, add_noise_, energies, power_control, superpose_
from protocol.codec import Float32s, Layout, side_bytes
from protocol.fading import Floats
from protocol.frame import Kind
from protocol.hardware import hardware
from protocol.streams import Purpose, stream

SILENT, LATE = np.nan, -1.0
"""Instead of a share of power: the sender was silent in this block, or its frame came too late."""
VALUE_BITS = 32
"""Of a digital refresh."""


class _Arrival(NamedTuple):
    """One neighbour's frame of this round."""

    values: Float32s
    energies: Floats
    air_s: float
    """When its sender was ready, or began to send."""


class Analog:
    """The analog scheme of one device, for as long as the run lasts."""

    def __init__(
        self, peers: Peers[Inbox], radio: Radio, layout: Layout, arrived: Arrived, x: torch.Tensor
    ) -> None:
        self._peers = peers
        self._radio = radio
        self._grid = radio.grid
        self._layout = layout
        self._arrived = arrived
        self._knobs = radio.knobs.analog
        self._num_blocks = num_blocks(radio.knobs, layout)
        packets = min(radio.knobs.coherence_packets or layout.num_packets, layout.num_packets)
        self._block_values = packets * layout.values_per_packet
        self._block_packets = packets
        self._differences = self._knobs.payload == "differences"
        self._over_the_air = self._knobs.superposition == "over_the_air"
        everybody = peers.neighbours.values()
        self._copies: dict[int, Float32s] = {}
        """What each neighbour holds of this device."""
        self._sum_of_copies: Float32s = np.empty(0, dtype=np.float32)
        """What this device holds of its neighbours, weighted and summed, noise and all."""
        self._mass = np.float32(sum(n.weight for n in everybody))
        if self._differences:  # everybody begins with the same parameters, so all know the first copies
            self._copies = {n.device: x.numpy().copy() for n in everybody}
            self._sum_of_copies = x.numpy() * self._mass
        self._off_air_s = {d: hardware(radio.experiment, d).budget_air_s for d in peers.neighbours}
        """When each neighbour has to be silent: everybody knows the budgets of all."""
        self._buffers = Buffers(side_bytes(4 * self._num_blocks) + layout.body_bytes)
        self._held = set(peers.neighbours)
        """Neighbours whose copy is in that sum; what changed since a copy that is not means nothing."""
        self._round = 0
        self._x: Float32s = np.empty(0, dtype=np.float32)
        self._sweep, self._summed = 0, False
        self._open: list[int] = []
        self._start_air_s = self._end_air_s = 0.0

    @property
    def at_most_j(self) -> float:
        """What all sweeps of a round may cost this device at most, without idling [J]."""
        own, degree = self._radio.hardware, len(self._peers.neighbours)
        # Each receiver has a slot of its own, whoever else is sent to.
        one = self._grid.access.at_most_j(own, sends=degree, to=degree, hears=degree)
        refreshes = self._differences and self._knobs.refresh_rounds and degree
        heard_w = own.tx_power_w + degree * own.rx_power_w
        refresh_j = heard_w * self._refresh_airtime_s() if refreshes else 0.0
        return self._radio.experiment.aggregation.sweeps * one + refresh_j

    @staticmethod
    def payload_bytes(layout: Layout, blocks: int) -> dict[Kind, int]:
        """Bytes of the payload of each kind of frame."""
        return {
            Kind.PARAMETERS: side_bytes(4 * blocks) + layout.body_bytes,
            Kind.SCALE: 4 * blocks,
        }

    def encode(self, x: torch.Tensor, round_: int, sweep: int) -> Sent:
        """Write the amplitudes: x, shape (num_values,), for all, or for each what changed since its copy."""
        self._x, self._round, self._sweep = x.numpy(), round_, sweep
        if self._differences and not self._is_refresh:
            outgoing = dict(zip(self._copies, self._buffers.take(len(self._copies)), strict=True))
            for device, copy in self._copies.items():
                self._write(outgoing[device], self._x, copy)
            return Sent(outgoing, None)
        [common] = self._buffers.take(1)
        self._write(common, self._x)
        return Sent(dict.fromkeys(self._peers.neighbours, common), None)

    def begin(self, sent: Sent, round_: int, sweep: int) -> None:
        """Send this device's frame to every neighbour, and await theirs and how they scaled it."""
        self._summed, self._open = False, list(self._peers.neighbours)
        refresh, inbox = self._is_refresh, self._peers.inbox
        inbox.begin(round_, sweep)
        inbox.await_(self._peers.neighbours, Kind.PARAMETERS, part=sweep)
        if not refresh:
            inbox.await_(self._peers.neighbours, Kind.SCALE, part=sweep)
        ready_air_s = self._start_air_s = self._end_air_s = self._radio.air_s
        reached = []
        if refresh and sent.outgoing:
            self._start_air_s = self._grid.access.data_start_s(ready_air_s, self._grid.slot, 0)
            if not self._radio.has_time_until(self._start_air_s + self._refresh_s()):
                self._peers.keep_back(sent.outgoing, Kind.PARAMETERS, Stamp(self._start_air_s, sweep))
                return
            self._radio.ledger.wait_for_slot(ready_air_s, self._start_air_s)
            self._end_air_s = self._start_air_s + self._refresh_s()
        for device, outgoing in sent.outgoing.items():
            tally = self._radio.tally(device)
            if self._peers.send((device,), Kind.PARAMETERS, outgoing, Stamp(self._start_air_s, sweep)):
                tally.packets_sent += self._layout.num_packets
                reached.append(device)
                if refresh:
                    np.copyto(self._copies[device], self._x)
        if refresh and reached:
            self._radio.ledger.transmit(reached, self._refresh_airtime_s())

    def advance(self, watch: Stopwatch) -> bool:
        """Sum the frames once none is missing, then take in how each neighbour scaled this device's."""
        inbox = self._peers.inbox
        if not self._summed and not any(
            inbox.may_come(device, Kind.PARAMETERS) for device in self._peers.neighbours
        ):
            self._summed = True
            arrivals = self._arrivals()
            watch.lap("decode")
            if self._is_refresh:
                self._take_refresh(arrivals)
            else:
                self._take_sum(arrivals)
            watch.lap("air")
        while self._summed and self._open and not inbox.may_come(self._open[0]):
            device = self._open.pop(0)
            scale = inbox.get(device, Kind.SCALE, part=self._sweep)
            if scale is not None:
                self._take_scale(device, scale.payload.view("<f4"), scale.header.air_s)
        return not self._open and self._summed

    def end(self) -> float:
        """Return when the last sum that this device takes part in is over."""
        return self._end_air_s

    @property
    def _is_refresh(self) -> bool:
        """Whether this sweep is the last one of a round that ends with a refresh."""
        every, last = self._knobs.refresh_rounds, self._radio.experiment.aggregation.sweeps - 1
        return self._differences and every > 0 and (self._round + 1) % every == 0 and self._sweep == last

    def _write(self, outgoing: Outgoing, x: Float32s, copy: Float32s | None = None) -> None:
        """Write the amplitudes x, or x - copy, and the energy of their blocks before them."""
        side = side_bytes(4 * self._num_blocks)
        amplitudes = outgoing.payload[side:].view("<f4")
        np.copyto(amplitudes, x)
        if copy is not None:
            amplitudes -= copy
        with np.errstate(over="ignore"):  # of a diverged model: beyond float32, so infinite
            outgoing.payload[: 4 * self._num_blocks].view("<f4")[:] = energies(amplitudes, self._block_values)

    def _arrivals(self) -> dict[int, _Arrival]:
        side, found = side_bytes(4 * self._num_blocks), {}
        for device in self._peers.neighbours:
            frame = self._peers.inbox.get(device, Kind.PARAMETERS, part=self._sweep)
            if frame is None:
                ended = self._peers.inbox.has_ended(device)
                self._radio.tally(device).missing = "dead" if ended else "wall"
                continue
            if frame.is_void:
                self._radio.tally(device).missing = "air"
                continue
            norms = frame.payload[: 4 * self._num_blocks].view("<f4").astype(np.float64)
            found[device] = _Arrival(frame.payload[side:].view("<f4"), norms, frame.header.air_s)
        return found

    def _take_sum(self, arrivals: dict[int, _Arrival]) -> None:
        """Let the neighbours' signals add up at this antenna, and tell each how it was scaled."""
        access = self._grid.access
        deadline_air_s = self._start_air_s + self._radio.experiment.aggregation.round_deadline_air_s
        deadlines = {d: min(deadline_air_s, self._radio.until_air_s, self._off_air_s[d]) for d in arrivals}
        starts = {device: self._slot_start_s(a.air_s, device) for device, a in arrivals.items()}
        on_time = {d: s for d, s in starts.items() if s + access.data_turn_s <= deadlines[d]}
        # Nobody knows that a neighbour is late before its last chance has passed: until then it is awaited.
        chances = {d: self._last_start_s(deadlines[d], d) for d in starts.keys() - on_time.keys()}
        self._end_air_s = max(self._end_air_s, *chances.values(), 0.0)
        if self._over_the_air and on_time:
            together_s = max(*chances.values(), *on_time.values(), 0.0)
            on_time = {d: together_s for d in on_time if together_s + access.data_turn_s <= deadlines[d]}
        s, m = self._arrived.deliver()
        gains = {device: self._gains(device) for device in on_time}
        together = [tuple(on_time)] if on_time else []
        for group in together if self._over_the_air else [(device,) for device in on_time]:
            shares = self._receive_(s, m, group, arrivals, gains)
            self._radio.ledger.transmit(group, self._norms_s())
            for device in group:
                self._tell_scale(device, shares[device], on_time[device])
        for device in arrivals.keys() - on_time.keys():
            tally = self._radio.tally(device)
            tally.missing = "air"
            tally.packets_lost += self._layout.num_packets
            self._tell_scale(device, np.full(self._num_blocks, LATE), self._start_air_s)
        if on_time:
            self._end_air_s = max(self._end_air_s, max(on_time.values()) + access.data_turn_s)
        if self._differences:
            self._sum_of_copies += s
            s[:] = self._sum_of_copies
            m.fill(self._mass)

    def _receive_(
        self,
        s: Float32s,
        m: Float32s,
        group: tuple[int, ...],
        arrivals: dict[int, _Arrival],
        gains: dict[int, Floats],
    ) -> dict[int, Floats]:
        """Add what a group of senders that are on the air together sounds like, block by block, and its mass.

        Returns the share of its power that each block of each sender was given, shape (num_blocks,).
        """
        me, seed = self._peers.device, self._radio.experiment.seed
        sender = 0 if self._over_the_air else 1 + group[0]
        noise = stream(seed, Purpose.ANALOG_NOISE, round_=self._round, attempt=self._sweep, a=me, b=sender)
        errors = {device: self._gain_errors(device) for device in group}
        snr = {d: 10 ** (self._radio.links[d].mean_snr_db(self._round, d) / 10) for d in group}
        shares = {device: np.full(self._num_blocks, SILENT) for device in group}
        for block in range(self._num_blocks):
            values = slice(block * self._block_values, (block + 1) * self._block_values)
            packets = slice(block * self._block_packets, (block + 1) * self._block_packets)
            # A diverged model has no energy that power could be controlled to: it stays silent.
            loud = [
                device
                for device in group
                if gains[device][block] >= self._knobs.gain_threshold
                and 0 <= arrivals[device].energies[block] < inf
                and device in self._held
            ]
            signals = [
                Signal(
                    s=arrivals[device].values[values],
                    weight=self._peers.neighbours[device].weight,
                    energy=float(arrivals[device].energies[block]),
                    snr=snr[device] * float(gains[device][block]),
                    gain_error=complex(errors[device][block]),
                )
                for device in loud
            ]
            power = power_control(signals)
            superpose_(s[values], signals)
            add_noise_(s[values], power.noise_energy, noise)
            for device, signal, share in zip(loud, signals, power.shares, strict=True):
                m[packets] += np.float32(signal.weight)
                shares[device][block] = share
            for device in group:
                if device not in loud:
                    self._radio.tally(device).packets_lost += len(m[packets])
        # The sum once, and the norms of each who sends.
        symbols_s = self._grid.access.symbols_airtime_s(self._layout.num_values)
        listened_s = symbols_s + len(group) * self._norms_s()
        for device in group:
            self._radio.tally(device).attempts += 1
            self._radio.ledger.receive(device, listened_s / len(group))
        return shares

    def _turn(self, device: int) -> int:
        """Which part of this device's slot a neighbour sends in: over the air, all of it."""
        return 0 if self._over_the_air else self._grid.turns[device]

    def _slot_start_s(self, ready_air_s: float, device: int) -> float:
        return self._grid.access.data_start_s(ready_air_s, self._grid.slot, self._turn(device))

    def _last_start_s(self, deadline_air_s: float, device: int) -> float:
        access = self._grid.access
        latest_air_s = deadline_air_s - access.data_turn_s
        return access.last_data_start_s(latest_air_s, self._grid.slot, self._turn(device))

    def _gains(self, device: int) -> Floats:
        mine = Transmission(self._round, device, self._grid.slot, self._turn(device), part=self._sweep)
        return self._radio.links[device].block_gains(mine, self._num_blocks)

    def _gain_errors(self, device: int) -> np.ndarray[tuple[int], np.dtype[np.complex128]]:
        variance = self._knobs.gain_error_variance
        if not variance:
            return np.zeros(self._num_blocks, dtype=np.complex128)
        seed, me = self._radio.experiment.seed, self._peers.device
        rng = stream(seed, Purpose.GAIN_ERROR, round_=self._round, attempt=self._sweep, a=device, b=me)
        normals = rng.standard_normal((self._num_blocks, 2)) * sqrt(variance / 2)
        return normals[:, 0] + 1j * normals[:, 1]

    def _tell_scale(self, device: int, shares: Floats, start_air_s: float) -> None:
        outgoing = Outgoing(shares.astype("<f4").view(np.uint8))
        self._peers.send((device,), Kind.SCALE, outgoing, Stamp(start_air_s, self._sweep))

    def _take_scale(self, device: int, shares: Float32s, start_air_s: float) -> None:
        """Charge what this device's signal really took, and move the copies that the neighbour moved."""
        access = self._grid.access
        heard = np.isfinite(shares) & (shares >= 0)
        if heard.any():
            sizes = np.full(self._num_blocks, self._block_values)
            sizes[-1] = self._layout.num_values - (self._num_blocks - 1) * self._block_values
            used = float(np.sum(np.where(heard, shares, 0) * sizes))
            joules = self._radio.hardware.tx_power_w * access.symbols_airtime_s(used)
            self._radio.ledger.transmit(
                (device,), access.symbols_airtime_s(int(sizes[heard].sum())), joules=joules
            )
        if not (shares == LATE).any():  # also who stays silent tells its norms, and hears the answer
            self._radio.ledger.transmit((device,), self._norms_s())
            self._radio.ledger.receive(device, self._norms_s())
        self._end_air_s = max(self._end_air_s, start_air_s + access.data_turn_s)
        if self._differences:
            copy = self._copies[device]
            for block in np.flatnonzero(heard).tolist():
                values = slice(block * self._block_values, (block + 1) * self._block_values)
                copy[values] = self._x[values]

    def _norms_s(self) -> float:
        return self._grid.access.side_airtime_s(NORM_BITS * self._num_blocks)

    def _refresh_airtime_s(self) -> float:
        return self._grid.access.side_airtime_s(VALUE_BITS * self._layout.num_values)

    def _refresh_s(self) -> float:
        """Time from the start to the end of a refresh, over as many slots of this device as it takes."""
        access, airtime_s = self._grid.access, self._refresh_airtime_s()
        if not access.num_slots:
            return airtime_s
        slot_s = access.data_turns * access.data_turn_s
        whole = ceil(airtime_s / slot_s) - 1
        return whole * access.superframe_s + airtime_s - whole * slot_s

    def _take_refresh(self, arrivals: dict[int, _Arrival]) -> None:
        """Replace the copies by the neighbours' parameters, without noise."""
        self._sum_of_copies.fill(0)
        until_air_s = self._radio.until_air_s
        for device in [d for d, a in arrivals.items() if a.air_s + self._refresh_s() > until_air_s]:
            del arrivals[device]
            self._radio.tally(device).missing = "air"
        weights = {
            device: np.float32(self._peers.neighbours[device].weight)
            for device, arrival in arrivals.items()
            if np.isfinite(arrival.energies).all()
        }
        self._held = set(weights)
        for device, arrival in arrivals.items():
            if device in weights:
                self._sum_of_copies += weights[device] * arrival.values
            else:
                self._radio.tally(device).packets_lost += self._layout.num_packets
            self._radio.ledger.receive(device, self._refresh_airtime_s())
            self._end_air_s = max(self._end_air_s, arrival.air_s + self._refresh_s())
            self._radio.tally(device).attempts += 1
        self._mass = np.float32(sum(weights.values()))
        s, m = self._arrived.deliver()
        s[:] = self._sum_of_copies
        m.fill(self._mass)
