"""Devices for tests: what each is told at the start, and how it lives, over an ether or over sockets."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
import zmq
from builders import make_prospect
from ether import PATIENCE_S, Port

from node.exchanges import Exchanges
from node.mixing import mixing_step
from node.stopwatch import Stopwatch
from node.transport.zmq import Delivery, ZmqTransport
from protocol.air import frame_layout
from protocol.codec import encode
from protocol.config import Aggregation, Codec, Experiment, Runtime
from protocol.frame import (
    FLAG_FINAL,
    HEADER_BYTES,
    MODULATION_NUMBER,
    Header,
    Kind,
    run_number,
    shape_of,
)
from protocol.messages import Neighbour, Start, Welcome
from protocol.radio import Mobility

LIVENESS_WALL_S = 16.0
NUM_VALUES = 300
RUN_ID, EPOCH = "a-run", 2


def incarnation_of(device):
    return device + 3


def mean_snr_db(receiver, sender):
    """Set the links apart: some lose most of their packets, some few, and the same in both directions."""
    return 8.0 + 5 * ((receiver + sender) % 3)


def position_m(device):
    return (20.0 * device, 10.0 * (device % 3))


def experiment_of(
    radio, *, devices=4, codec="float32", deadline_air_s=float("inf"), mobility=None, **aggregation
):
    return Experiment(
        seed=11,
        devices=devices,
        codec=Codec(kind=codec, packet_bytes=64),
        radio=radio,
        mobility=mobility or Mobility(),
        aggregation=Aggregation(round_deadline_air_s=deadline_air_s, **aggregation),
        runtime=Runtime(liveness_wall_s=LIVENESS_WALL_S),
    )


def complete(num_devices):
    return np.full((num_devices, num_devices), 1 / num_devices)


def ring(num_devices):
    weights = np.eye(num_devices)
    return (weights + np.roll(weights, 1, axis=0) + np.roll(weights, -1, axis=0)) / 3


def path(num_devices):
    """Return Metropolis weights of a line of three devices or more."""
    edges = np.eye(num_devices, k=1) + np.eye(num_devices, k=-1)
    return edges / 3 + np.diag(1 - edges.sum(axis=1) / 3)


def neighbours_of(weights, device):
    return [other for other in np.flatnonzero(weights[device]).tolist() if other != device]


def colours_of(weights):
    """Colour the devices one after the other, so that no two within two hops share a colour."""
    near = (weights != 0).astype(int)
    near = near @ near > 0
    colours = []
    for device in range(len(weights)):
        taken = {colours[other] for other in range(device) if near[device, other]}
        colours.append(next(colour for colour in range(device + 1) if colour not in taken))
    return colours


def start_of(weights, device, snr_db=mean_snr_db):
    """Return what a device is told at the start, the farthest first: their order must not matter."""
    colours = colours_of(weights)
    neighbours = tuple(
        Neighbour(
            device=other,
            incarnation=incarnation_of(other),
            address="",
            weight=weights[device, other],
            mean_snr_db=snr_db(device, other),
            mean_snr_there_db=snr_db(other, device),
            slot=colours[other],
            turn=neighbours_of(weights, other).index(device),
            position_m=position_m(other),
        )
        for other in reversed(neighbours_of(weights, device))
    )
    return Start(
        neighbours=neighbours,
        slot=colours[device],
        num_slots=max(colours) + 1,
        max_degree=max(len(neighbours_of(weights, other)) for other in range(len(weights))),
        position_m=position_m(device),
        prospect=make_prospect(),
    )


def learned(device, round_):
    """Return what local training adds: other numbers on every device and in every round."""
    return np.random.default_rng([device, round_]).standard_normal(NUM_VALUES, dtype=np.float32)


def fresh():
    """Return the parameters that every device begins with."""
    return torch.zeros(NUM_VALUES)


class Told:
    """A control plane that has this to say, once; an exception is raised."""

    def __init__(self, *news):
        self._news = list(news)

    def news(self):
        news, self._news = self._news, []
        for said in news:
            if isinstance(said, Exception):
                raise said
        return news


@dataclass
class Past:
    """What a device has been through: x after every round, what it heard and spent, and its bytes."""

    x: list = field(default_factory=list)
    heard: list = field(default_factory=list)
    spent: list = field(default_factory=list)
    averaged: list = field(default_factory=list)
    bytes_sent: list = field(default_factory=list)

    @property
    def air_s(self):
        return [spent.air_s for spent in self.spent]


def drift(pasts, num_rounds):
    """Return how far mixing moved the mean over devices from the mean of all that was learned."""
    means = [sum(learned(device, round_) for round_ in range(num_rounds)) for device in pasts]
    mixed = [past.x[-1] for past in pasts.values()]
    return np.abs(np.mean(mixed, axis=0, dtype=np.float64) - np.mean(means, axis=0, dtype=np.float64)).max()


class Device:
    """A device of an experiment, at the end of some transport."""

    def __init__(self, experiment, weights, number, transport, *, snr_db=mean_snr_db):
        welcome = Welcome(
            run_id=RUN_ID,
            epoch=EPOCH,
            device=number,
            incarnation=incarnation_of(number),
            experiment=experiment,
            run_dir="",
        )
        self.number = number
        self.experiment = experiment
        self.layout = frame_layout(experiment, NUM_VALUES)
        self.x = fresh()
        start = start_of(weights, number, snr_db)
        self.exchanges = Exchanges(welcome, start, transport, self.layout, self.x)

    def exchange(self, round_, *, x=None, trained=None, control=None, watch=None):
        """Go through the first exchange of a round, with x or what was learned; return what arrived."""
        self.learn(round_, x=x, trained=trained)
        return self.sweep(round_, 0, control=control, watch=watch)

    def learn(self, round_, *, x=None, trained=None):
        """Begin a round, with x or what was learned."""
        self.x += torch.from_numpy(learned(self.number, round_) if x is None else x)
        self.exchanges.radio.begin_round()
        self.exchanges.radio.compute(trained)

    def sweep(self, round_, sweep, *, control=None, watch=None):
        sent = self.exchanges.encode(self.x, round_, sweep)
        control, watch = control or Told(), watch or Stopwatch()
        return sent, self.exchanges.exchange(sent, round_, control, watch, sweep=sweep)

    def live(self, rounds, *, before_round=lambda round_: None, control=None, trained=None):
        """Go through the rounds as the agent does."""
        past = Past()
        for round_ in rounds:
            before_round(round_)
            self.learn(round_, trained=trained)
            control = control or Told()
            averaged = self.exchanges.average(self.x, round_, control, Stopwatch())
            gossips = averaged is None or averaged.broken
            for sweep in range(self.experiment.aggregation.sweeps if gossips else 0):
                sent, arrived = self.sweep(round_, sweep, control=control)
                arrived.mix_(self.x, sent.xhat, mixing_step(self.experiment.aggregation, round_))
            past.averaged.append(averaged)
            past.x.append(self.x.cpu().numpy().copy())
            past.heard.append(self.exchanges.radio.heard())
            past.spent.append(self.exchanges.radio.spent())
            past.bytes_sent.append(self.exchanges.peers.bytes_sent())
        return past


def live_together(ether, experiment, weights, num_rounds, *, snr_db=mean_snr_db, ports=None):
    """Let all devices of an experiment live over an ether."""
    ports = ports or [Port(ether, number) for number in range(len(weights))]

    def program(number):
        device = Device(experiment, weights, number, ports[number], snr_db=snr_db)
        return lambda: device.live(range(num_rounds))

    return ether.run({number: program(number) for number in range(len(weights))})


def header_of(experiment, sender, payload, **changes):
    """Return the header of a frame of round 0 as device `sender` would send it, unless changed."""
    codec, flags, num_values, packet_bytes = shape_of(frame_layout(experiment, NUM_VALUES))
    radio = experiment.radio
    usual = {
        "kind": Kind.PARAMETERS,
        "run": run_number(RUN_ID),
        "epoch": EPOCH,
        "sender": sender,
        "incarnation": incarnation_of(sender),
        "round": 0,
        "part": 0,
        "attempt": 0,
        "modulation": 0 if radio.scheme == "analog" else MODULATION_NUMBER[radio.modulation],
        "codec": codec,
        "flags": flags,
        "num_values": num_values,
        "packet_bytes": packet_bytes,
        "payload_bytes": len(payload),
        "air_s": 0.0,
    }
    return Header(**(usual | changes))


def frame_from(experiment, sender, *, round_=0, **changes):
    """Return the delivery that carries what a device learned in a round; `changes` are the header's."""
    layout = frame_layout(experiment, NUM_VALUES)
    payload = np.zeros(layout.payload_bytes, dtype=np.uint8)
    encode(learned(sender, round_), layout, payload, np.random.default_rng(0))
    header = header_of(experiment, sender, payload, round=round_, **changes)
    return Delivery(str(sender), header.pack(), payload)


def ack_from(experiment, sender, *, got=None, final=True, **changes):
    """Return the delivery that says which packets (all, unless told) are at a device."""
    layout = frame_layout(experiment, NUM_VALUES)
    payload = np.packbits(np.ones(layout.num_packets, dtype=bool) if got is None else got)
    flags = shape_of(layout)[1] | (FLAG_FINAL if final else 0)
    header = header_of(experiment, sender, payload, kind=Kind.ACK, flags=flags, modulation=0, **changes)
    return Delivery(str(sender), header.pack(), payload)


@contextmanager
def sockets(scheme, experiment, weights, *, by_way_of=lambda address: address):
    """Connect a transport per device over ZeroMQ; `by_way_of` may name another address for one."""
    frame_bytes = frame_layout(experiment, NUM_VALUES).payload_bytes + HEADER_BYTES
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        transports = [
            stack.enter_context(
                ZmqTransport.open(
                    context,
                    "tcp://127.0.0.1:*" if scheme == "tcp" else f"inproc://{number}",
                    name=str(number),
                    frame_bytes=frame_bytes,
                    queue_bytes=2**20,
                )
            )
            for number in range(len(weights))
        ]
        for number, transport in enumerate(transports):
            for other in neighbours_of(weights, number):
                transport.connect(other, by_way_of(transports[other].address))
        yield transports


def live_over_sockets(scheme, experiment, weights, num_rounds, *, by_way_of=lambda address: address):
    """Let all devices of an experiment live over ZeroMQ, a thread each."""
    with (
        sockets(scheme, experiment, weights, by_way_of=by_way_of) as transports,
        ThreadPoolExecutor(len(weights)) as pool,
    ):
        lives = [
            pool.submit(Device(experiment, weights, number, transport).live, range(num_rounds))
            for number, transport in enumerate(transports)
        ]
        return {number: life.result(PATIENCE_S) for number, life in enumerate(lives)}
