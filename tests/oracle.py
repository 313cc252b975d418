"""What exchanges must come to, computed in one place by whoever knows all rows and the radio's seed."""

from dataclasses import dataclass, field
from functools import cache

import numpy as np
from devices import NUM_VALUES, colours_of, learned, mean_snr_db, neighbours_of, position_m

from protocol.access import plan_access
from protocol.air import AirLink, Transmission, cross, frame_layout
from protocol.channel import Reception
from protocol.codec import encode


@dataclass
class Delivered:
    """One frame on its way to one receiver: what came of each attempt, and what it has at the end."""

    got: np.ndarray
    sent: list = field(default_factory=list)
    """Packets of each attempt that was addressed to it."""
    receptions: list = field(default_factory=list)

    @property
    def packets_resent(self):
        return sum(len(packets) for packets in self.sent[1:])

    @property
    def packets_corrupted(self):
        return sum(int(np.count_nonzero(~reception.intact)) for reception in self.receptions)

    @property
    def bit_errors(self):
        return sum(reception.bit_errors for reception in self.receptions)


class Oracle:
    """Knows what the air does to any frame of an experiment: it does not depend on what the frame says."""

    def __init__(self, experiment, weights, *, snr_db=mean_snr_db):
        self.experiment = experiment
        self.radio = experiment.radio
        self.weights = weights
        self.layout = frame_layout(experiment, NUM_VALUES)
        self.everything = np.arange(self.layout.num_packets)
        self.colours = colours_of(weights)
        self.access = plan_access(
            experiment,
            self.layout,
            num_colours=max(self.colours) + 1,
            max_degree=max(len(neighbours_of(weights, device)) for device in range(len(weights))),
        )
        self.payload = np.zeros(self.layout.payload_bytes, dtype=np.uint8)
        encode(np.ones(NUM_VALUES, dtype=np.float32), self.layout, self.payload, np.random.default_rng(0))
        self._snr_db = snr_db
        self.link = cache(self._link)
        self.delivered = cache(self._delivered)

    def cross(self, round_, sender, receiver, *, attempt=0, packets=None, payload=None):
        """Pass some packets of a frame, or all, from sender to receiver."""
        packets = self.everything if packets is None else packets
        payload = self.payload if payload is None else payload
        part = self.layout.scatter(self.layout.gather(payload, packets), packets)
        if self.radio.scheme == "ideal":
            return Reception(np.ones(len(packets), dtype=bool), 0)
        turn = neighbours_of(self.weights, sender).index(receiver) if self.radio.cast == "unicast" else 0
        mine = Transmission(round_, sender, self.colours[sender], turn, attempt, self.radio.modulation)
        return cross(
            part.payload,
            part.layout,
            self.radio,
            self.link(receiver, sender).snr(mine, part.layout),
            mine,
            seed=self.experiment.seed,
            receiver=receiver,
        )

    def _link(self, one, other):
        return AirLink(
            self.experiment,
            self.access,
            pair=(one, other),
            mean_snrs_db=(self._snr_db(other, one), self._snr_db(one, other)),
            places_m=(position_m(one), position_m(other)),
        )

    def _delivered(self, round_, sender):
        """Play one frame's attempts; return what became of it at each receiver."""
        receivers = neighbours_of(self.weights, sender)
        all_of_it = {
            receiver: Delivered(np.zeros(self.layout.num_packets, dtype=bool)) for receiver in receivers
        }
        for group in [receivers] if self.radio.cast == "broadcast" else [[one] for one in receivers]:
            packets = self.everything
            for attempt in range(self.radio.attempts):
                for receiver in group:
                    of_it = all_of_it[receiver]
                    reception = self.cross(round_, sender, receiver, attempt=attempt, packets=packets)
                    of_it.got[packets] |= reception.intact
                    of_it.sent.append(packets)
                    of_it.receptions.append(reception)
                group = [receiver for receiver in group if not all_of_it[receiver].got.all()]
                if not group:
                    break
                missing = [set(np.flatnonzero(~all_of_it[receiver].got).tolist()) for receiver in group]
                packets = np.array(sorted(set.union(*missing)))
        return all_of_it

    def mask(self, round_, sender, receiver):
        """Say which packets of sender count at receiver."""
        got = self.delivered(round_, sender)[receiver].got
        return got & self.delivered(round_, receiver)[sender].got if self.radio.symmetric else got

    def lives(self, num_rounds):
        """Compute x_i += sum_j w_ij mask_ij (x_j - x_i) in float64; return all x, round by round."""
        num_devices = len(self.weights)
        xs, rounds = np.zeros((num_devices, NUM_VALUES)), []
        for round_ in range(num_rounds):
            xs = xs + [learned(device, round_) for device in range(num_devices)]
            mixed = xs.copy()
            for i in range(num_devices):
                for j in neighbours_of(self.weights, i):
                    counts = np.repeat(self.mask(round_, j, i), self.layout.values_of_each())
                    mixed[i] += self.weights[i, j] * counts * (xs[j] - xs[i])
            xs = mixed
            rounds.append(xs)
        return rounds
