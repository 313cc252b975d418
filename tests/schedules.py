"""Trees and rings for tests, and what averaging along them must come to, computed in one place."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

import numpy as np
import torch
from devices import (
    NUM_VALUES,
    Device,
    colours_of,
    complete,
    learned,
    neighbours_of,
    position_m,
    sockets,
)
from ether import PATIENCE_S, Ether, Port

from protocol.access import plan_access, plan_scheduled_access
from protocol.air import AirLink, Transmission, cross, frame_layout, meets_target
from protocol.codec import decode, encode
from protocol.messages import RingPlace, Schedule, TreePlace
from protocol.modulation import permitted
from protocol.streams import Purpose, stream


def tree_places(parents):
    """Return everybody's place in a tree: parents is device -> parent, or a list; None for the root's."""
    parents = parents if isinstance(parents, dict) else dict(enumerate(parents))
    children = {d: tuple(c for c, p in parents.items() if p == d) for d in parents}

    def height(device):
        return max((1 + height(child) for child in children[device]), default=0)

    return {
        device: TreePlace(
            members=len(parents),
            parent=parent,
            turn=0 if parent is None else children[parent].index(device),
            children=children[device],
            max_children=max(len(some) for some in children.values()),
            height=height(device),
        )
        for device, parent in parents.items()
    }


def ring_places(order):
    return {
        device: RingPlace(
            members=len(order),
            position=position,
            previous=order[position - 1],
            next=order[(position + 1) % len(order)],
        )
        for position, device in enumerate(order)
    }


def random_tree(num_devices, seed):
    """Attach each device, in random order, to a random one before it."""
    rng = np.random.default_rng(seed)
    order, parents = rng.permutation(num_devices).tolist(), [None] * num_devices
    for k in range(1, num_devices):
        parents[order[k]] = order[rng.integers(k)]
    return parents


def random_places(kind, num_devices, seed):
    if kind == "tree":
        return tree_places(random_tree(num_devices, seed))
    return ring_places(np.random.default_rng(seed).permutation(num_devices).tolist())


def strong(receiver, sender):
    """Let hardly any packet be lost without fading."""
    return 40.0


def scheduled(experiment, places, number, transport, *, snr_db=strong, weights=None, since=0):
    """Return a device that averages by its place."""
    weights = complete(len(places)) if weights is None else weights
    device = Device(experiment, weights, number, transport, snr_db=snr_db)
    device.exchanges.follow(Schedule(round=since, place=places[number]))
    return device


def average(experiment, places, num_rounds=1, *, ether=None, ports=None, snr_db=strong):
    """Let all devices average by their places; return their pasts."""
    ether = ether or Ether(len(places))
    ports = ports or [Port(ether, number) for number in range(len(places))]

    def program(number):
        device = scheduled(experiment, places, number, ports[number], snr_db=snr_db)
        return lambda: device.live(range(num_rounds))

    return ether.run({number: program(number) for number in range(len(places))})


def average_over_sockets(scheme, experiment, places, num_rounds=1, *, snr_db=strong):
    """Let all devices average by their places over ZeroMQ, a thread each."""
    with sockets(scheme, experiment, complete(len(places))) as ports, ThreadPoolExecutor(len(places)) as pool:
        lives = {}
        for number in places:
            device = scheduled(experiment, places, number, ports[number], snr_db=snr_db)
            lives[number] = pool.submit(device.live, range(num_rounds))
        return {number: lives[number].result(PATIENCE_S) for number in sorted(lives)}


def means(num_devices, num_rounds):
    """Return the exact mean after every round, in double precision."""
    x, rounds = np.zeros(NUM_VALUES), []
    for round_ in range(num_rounds):
        x = x + np.mean([learned(d, round_) for d in range(num_devices)], axis=0, dtype=np.float64)
        rounds.append(x)
    return rounds


@dataclass
class Mean:
    """A mean of some devices of one chunk, and of how many in each packet."""

    x: np.ndarray
    counts: np.ndarray
    payload: np.ndarray | None = None
    """As it is sent, where that is known."""


@dataclass
class Link:
    """What went over one link one way in a round."""

    packets_sent: int = 0
    packets_resent: int = 0
    attempts: int = 0
    packets_corrupted: int = 0
    packets_lost: int = 0
    bit_errors: int = 0


@dataclass
class World:
    """Everybody's parameters after a round, and the devices in the mean of each packet that each got."""

    x: dict
    counts: dict
    links: dict = field(default_factory=dict)
    """(sender, receiver) -> Link."""


class AveragingOracle:
    """Plays averaging along a tree or a ring in one place: no inbox, no clock, no programs.

    Sums are taken with the same operations in the same order as on a device, so that bits can be compared.
    """

    def __init__(self, experiment, places, *, snr_db):
        self.experiment, self.radio, self.places = experiment, experiment.radio, places
        self.num_devices = len(places)
        weights = complete(self.num_devices)
        self.colours = colours_of(weights)
        self.layout = frame_layout(experiment, NUM_VALUES)
        self.is_tree = isinstance(places[0], TreePlace)
        self.sweeps = experiment.aggregation.sweeps
        self.chunks = self.layout.cut(experiment.aggregation.chunks if self.is_tree else self.num_devices)
        unicast = self.radio.cast == "unicast"
        width = places[0].max_children if self.is_tree else 0
        largest = max((chunk.layout for chunk in self.chunks), key=lambda layout: layout.num_values)
        colours = max(self.colours) + 1
        self.access = plan_scheduled_access(
            experiment,
            largest,
            num_colours=colours,
            data_turns=1 + (width if unicast else 1) if self.is_tree else 1,
            ack_turns=1 + width,
            side_bits=16 * largest.num_packets,
        )
        self.links_access = plan_access(
            experiment,
            self.layout,
            num_colours=colours,
            max_degree=max(len(neighbours_of(weights, d)) for d in range(self.num_devices)),
        )
        self._snr_db = snr_db
        self.link = cache(self._link)

    def lives(self, num_rounds):
        """Return the world after every round."""
        xs = {device: np.zeros(NUM_VALUES, dtype=np.float32) for device in self.places}
        worlds = []
        for round_ in range(num_rounds):
            xs = {device: x + learned(device, round_) for device, x in xs.items()}
            self.world = World({}, {})
            means = self._tree(round_, xs) if self.is_tree else self._ring(round_, xs)
            step = self.experiment.aggregation.step
            for device, x in xs.items():
                moved = torch.from_numpy(x.copy())
                for chunk, mean in zip(self.chunks, means[device], strict=True):
                    own = moved[chunk.values]
                    for packet in np.flatnonzero(mean.counts):
                        span = chunk.layout.values(packet)
                        own[span] = torch.lerp(own[span], torch.from_numpy(mean.x[span].copy()), step)
                self.world.x[device] = moved.numpy()
                self.world.counts[device] = np.concatenate([mean.counts for mean in means[device]])
            xs = self.world.x
            worlds.append(self.world)
        return worlds

    def _tree(self, round_, xs):
        """Return every device's mean of every chunk."""
        (root,) = (device for device, place in self.places.items() if place.parent is None)
        got = {device: [] for device in self.places}
        for k in range(len(self.chunks)):
            top = self._up(round_, root, k, xs)
            part = self.sweeps + 2 * k + 1
            top = self._packed(round_, root, k, top, part)
            top.x = decode(top.payload, self.chunks[k].layout)
            self._down(round_, root, k, xs, (top, got))
        return got

    def _up(self, round_, device, k, xs):
        joined = Mean(xs[device][self.chunks[k].values], np.ones(self.chunks[k].layout.num_packets, int))
        arrivals = []
        for child in self.places[device].children:
            part = self.sweeps + 2 * k
            theirs = self._packed(round_, child, k, self._up(round_, child, k, xs), part)
            arrivals.append(self._sent(round_, child, {device: 0}, k, part, theirs, xs)[device])
        return self._joined(k, joined, arrivals)

    def _down(self, round_, device, k, xs, so_far):
        mean, got = so_far
        got[device].append(mean)
        part, children = self.sweeps + 2 * k + 1, self.places[device].children
        if self.places[device].parent is not None and self.radio.bad_packets == "accept" and children:
            mean = self._packed(round_, device, k, mean, part)
        unicast = self.radio.cast == "unicast"
        turns = {child: 1 + (turn if unicast else 0) for turn, child in enumerate(children)}
        for child, theirs in self._sent(round_, device, turns, k, part, mean, xs).items():
            self._down(round_, child, k, xs, (theirs, got))

    def _ring(self, round_, xs):
        n = self.num_devices
        order = sorted(self.places, key=lambda device: self.places[device].position)
        got = {device: [None] * n for device in self.places}
        for k in range(n):  # chunk k starts at position k, and is complete where it has been everywhere
            layout, place = self.chunks[k].layout, self.chunks[k].values
            mean = Mean(xs[order[k]][place], np.ones(layout.num_packets, int))
            mean = self._packed(round_, order[k], k, mean, self.sweeps)
            for step in range(2 * (n - 1)):
                here, there = order[(k + step) % n], order[(k + step + 1) % n]
                part = self.sweeps + step
                theirs = self._sent(round_, here, {there: 0}, k, part, mean, xs)[there]
                if step < n - 1:
                    own = Mean(xs[there][place], np.ones(layout.num_packets, int))
                    mean = self._packed(round_, there, k, self._joined(k, own, [theirs]), part + 1)
                    if step == n - 2:
                        mean.x = decode(mean.payload, layout)
                        got[there][k] = mean
                else:
                    mean = got[there][k] = theirs
                    if self.radio.bad_packets == "accept":
                        mean = self._packed(round_, there, k, mean, part + 1)
        return got

    def _joined(self, k, own, arrivals):
        """Add to one's own, packet by packet, each as many times as there are devices in it; divide."""
        layout, counts = self.chunks[k].layout, own.counts.copy()
        s = torch.from_numpy(own.x.copy())
        for theirs in arrivals:
            for packet in np.flatnonzero(theirs.counts):
                span = layout.values(packet)
                s[span].add_(torch.from_numpy(theirs.x[span].copy()), alpha=float(theirs.counts[packet]))
            counts += theirs.counts
        return Mean(s.numpy() / np.repeat(counts, layout.values_of_each()).astype(np.float32), counts)

    def _packed(self, round_, device, k, mean, part):
        layout = self.chunks[k].layout
        payload = np.zeros(layout.payload_bytes, dtype=np.uint8)
        rng = stream(self.experiment.seed, Purpose.QUANTISATION, round_=round_, attempt=part, a=device)
        encode(mean.x, layout, payload, rng)
        return Mean(mean.x, mean.counts, payload)

    def _sent(self, round_, sender, turns, k, part, mean, xs):
        """Send a mean of chunk k to some, receiver -> turn; return what each has of it at the end."""
        layout, radio = self.chunks[k].layout, self.radio
        arrived = {}
        for receiver in turns:
            arrived[receiver] = Mean(
                decode(mean.payload, layout).copy(), np.zeros(layout.num_packets, int), mean.payload
            )
        got = {receiver: np.zeros(layout.num_packets, dtype=bool) for receiver in turns}
        groups = [list(turns)] if radio.cast == "broadcast" else [[one] for one in turns]
        for group in groups:
            packets = np.arange(layout.num_packets)
            for attempt in range(radio.attempts if group else 0):
                some = layout.scatter(layout.gather(mean.payload, packets), packets)
                mine = Transmission(
                    round_,
                    sender,
                    self.colours[sender],
                    turns[group[0]],
                    attempt,
                    self._modulation(round_, sender, group, turns, (part, attempt, some.layout)),
                    part,
                )
                for receiver in group:
                    reception = self._cross(some, mine, receiver)
                    self._account(sender, receiver, reception, attempt)
                    ok = got[receiver].copy()
                    got[receiver][packets] |= reception.intact
                    if radio.bad_packets == "accept" and attempt == radio.attempts - 1:
                        for bad in reception.bad:
                            self._take_bad(
                                bad,
                                packets[bad.packets],
                                arrived[receiver],
                                ok | got[receiver],
                                (layout, xs[receiver][self.chunks[k].values]),
                            )
                            got[receiver][packets[bad.packets]] = True
                group = [receiver for receiver in group if not got[receiver].all()]
                if not group:
                    break
                packets = np.flatnonzero(~np.logical_and.reduce([got[receiver] for receiver in group]))
        for receiver in turns:
            arrived[receiver].counts = np.where(got[receiver], mean.counts, 0)
            self.on_link(self.world, sender, receiver).packets_lost += int(np.count_nonzero(~got[receiver]))
        return arrived

    def _take_bad(self, bad, packets, arrived, had, where):
        layout, own = where
        x, start = decode(bad.payload, bad.layout), 0
        for packet, size in zip(packets, bad.layout.values_of_each(), strict=True):
            span, values = layout.values(packet), x[start : start + size]
            start += size
            if not had[packet]:
                with np.errstate(invalid="ignore"):
                    possible = np.abs(values) <= self.radio.max_abs_value
                arrived.x[span] = np.where(possible, values, own[span])

    def _cross(self, some, mine, receiver):
        return cross(
            some.payload,
            some.layout,
            self.radio,
            self.link(*sorted((mine.sender, receiver))).snr(mine, some.layout, self.access),
            mine,
            seed=self.experiment.seed,
            receiver=receiver,
        )

    def _modulation(self, round_, sender, group, turns, frame):
        part, attempt, layout = frame
        best, *_ = choices = permitted(self.radio)
        for modulation in choices[1:]:
            mine = Transmission(
                round_, sender, self.colours[sender], turns[group[0]], attempt, modulation, part
            )
            snrs = [
                self.link(*sorted((sender, receiver))).snr(mine, layout, self.access) for receiver in group
            ]
            bits = int(layout.packet_bits[0])
            if all(meets_target(self.radio, modulation, snr, bits) for snr in snrs):
                best = modulation
        return best

    @staticmethod
    def on_link(world, sender, receiver):
        """Return what went from one device to another in a round."""
        return world.links.setdefault((sender, receiver), Link())

    def _account(self, sender, receiver, reception, attempt):
        link = self.on_link(self.world, sender, receiver)
        link.attempts += 1
        link.packets_sent += 0 if attempt else len(reception.intact)
        link.packets_resent += len(reception.intact) if attempt else 0
        link.packets_corrupted += int(np.count_nonzero(~reception.intact))
        link.bit_errors += reception.bit_errors

    def _link(self, one, other):
        return AirLink(
            self.experiment,
            self.links_access,
            pair=(one, other),
            mean_snrs_db=(self._snr_db(other, one), self._snr_db(one, other)),
            places_m=(position_m(one), position_m(other)),
        )
