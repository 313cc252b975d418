"""Gossip between real devices in one process: what is mixed, and what becomes of what is not.

Two wires carry it. Over ZeroMQ every device has a thread of its own. Over the `Ether` below one device
runs at a time, a seed decides whose frame arrives next, and waiting costs seconds that nobody waits.
"""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from queue import SimpleQueue

import numpy as np
import pytest
import torch
import zmq

from node.control import SLICE_WALL_S, Leave
from node.gossip import Gossip
from node.stopwatch import Stopwatch
from node.transport.zmq import Delivery, ZmqTransport
from protocol.air import Hop, airtime_s, cross, frame_layout
from protocol.codec import decode, encode
from protocol.config import Aggregation, Codec, Experiment, Radio, Runtime
from protocol.frame import HEADER_BYTES, Header, Kind, run_number, shape_of
from protocol.messages import Neighbour, NeighbourDied, Welcome

PATIENCE_S = 30.0
"""Deadline of every wait on the host's clock; nothing here comes near it."""
LIVENESS_WALL_S = 16.0
NUM_VALUES = 300
RUN_ID, EPOCH = "a-run", 2

IDEAL = Radio(scheme="ideal")
SYMMETRIC = Radio(coherence_packets=2)
ONE_SIDED = Radio(coherence_packets=2, symmetric=False)
RADIOS = pytest.mark.parametrize(
    "radio", [IDEAL, SYMMETRIC, ONE_SIDED], ids=["ideal", "symmetric", "one-sided"]
)


def incarnation_of(device):
    return device + 3


def mean_snr_db(a, b):
    """Set the links apart: some lose most of their packets, some few."""
    return 8.0 + 5 * ((a + b) % 3)


def experiment_of(radio, *, devices=4, codec="float32", deadline_air_s=float("inf")):
    return Experiment(
        seed=11,
        devices=devices,
        codec=Codec(kind=codec, packet_bytes=64),
        radio=radio,
        aggregation=Aggregation(round_deadline_air_s=deadline_air_s),
        runtime=Runtime(liveness_wall_s=LIVENESS_WALL_S),
    )


def complete(num_devices):
    return np.full((num_devices, num_devices), 1 / num_devices)


def ring(num_devices):
    weights = np.eye(num_devices)
    return (weights + np.roll(weights, 1, axis=0) + np.roll(weights, -1, axis=0)) / 3


def row_of(weights, device):
    """Return what a device is told about its neighbours, the farthest first: their order must not matter."""
    return tuple(
        Neighbour(
            device=other,
            incarnation=incarnation_of(other),
            address="",
            weight=weights[device, other],
            mean_snr_db=mean_snr_db(device, other),
        )
        for other in reversed(range(len(weights)))
        if other != device and weights[device, other]
    )


def gossip_of(experiment, weights, device, transport):
    welcome = Welcome(
        run_id=RUN_ID,
        epoch=EPOCH,
        device=device,
        incarnation=incarnation_of(device),
        experiment=experiment,
        run_dir="",
    )
    return Gossip(welcome, row_of(weights, device), transport, frame_layout(experiment, NUM_VALUES))


def learned(device, round_):
    """Return what local training adds: other numbers on every device and in every round."""
    return np.random.default_rng([device, round_]).standard_normal(NUM_VALUES, dtype=np.float32)


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
    """What a device has been through: x after every round, what it heard, its clock and its bytes."""

    x: list
    heard: list
    air_s: list
    bytes_sent: list


def live(gossip, device, rounds, *, before_round=lambda round_: None, control=None):
    """Go through the rounds as the agent does."""
    x, past = torch.zeros(NUM_VALUES), Past([], [], [], [])
    for round_ in rounds:
        before_round(round_)
        x += torch.from_numpy(learned(device, round_))
        sent = gossip.encode(x, round_)
        gossip.exchange(sent, round_, control or Told(), Stopwatch()).mix_(x, sent.xhat)
        past.x.append(x.numpy().copy())
        past.heard.append(gossip.heard)
        past.air_s.append(gossip.air_s)
        past.bytes_sent.append(gossip.bytes_sent())
    return past


class Ether:
    """Carries frames without sockets. Each sender's frames stay in order; all else is up to the seed.

    When nobody has a frame to take, its clock jumps to the next deadline.
    """

    def __init__(self, num_devices, seed):
        self.wall_s = 0.0
        self.arrivals = []
        self._rng = np.random.default_rng(seed)
        self._wires = {}
        self._asked = SimpleQueue()
        self._answers = [SimpleQueue() for _ in range(num_devices)]

    def send(self, receiver, delivery):
        self._wires.setdefault((receiver, int(delivery.peer)), deque()).append(delivery)

    def ask(self, device, timeout_s, *, deaf):
        """Let others run until there is a frame (for those who listen) or time is up."""
        self._asked.put((device, self.wall_s + timeout_s, deaf))
        return self._answers[device].get(timeout=PATIENCE_S)

    def run(self, programs):
        """Run a program per device, device -> function of no arguments; return what each returned."""
        order, futures, waiting = self._rng.permutation(sorted(programs)).tolist(), {}, {}
        with ThreadPoolExecutor(len(programs)) as pool:
            for device in order:
                futures[device] = pool.submit(self._to_the_end, device, programs[device])
                self._let_run(waiting)
            while waiting:
                self._answer_one(waiting)
                self._let_run(waiting)
            return {device: futures[device].result(PATIENCE_S) for device in sorted(programs)}

    def _to_the_end(self, device, program):
        try:
            return program()
        finally:
            self._asked.put((device, None, False))

    def _let_run(self, waiting):
        device, due_s, deaf = self._asked.get(timeout=PATIENCE_S)
        if due_s is not None:
            waiting[device] = (due_s, deaf)

    def _answer_one(self, waiting):
        ready = sorted(
            (receiver, sender)
            for (receiver, sender), wire in self._wires.items()
            if wire and receiver in waiting and not waiting[receiver][1]
        )
        if ready:
            receiver, sender = ready[self._rng.integers(len(ready))]
            self.arrivals.append((receiver, sender))
            answer = self._wires[receiver, sender].popleft()
        else:
            receiver = min(waiting, key=lambda device: waiting[device][0])
            self.wall_s = max(self.wall_s, waiting[receiver][0])
            answer = None
        del waiting[receiver]
        self._answers[receiver].put(answer)


class Port:
    """One device's end of the ether, as a transport."""

    def __init__(self, ether, device):
        self.bytes_sent = 0
        self._ether = ether
        self._device = device
        self._forgotten = set()

    def send(self, device, header, outgoing):
        if device in self._forgotten:
            return False
        self._ether.send(device, Delivery(str(self._device), header, outgoing.payload.copy()))
        self.bytes_sent += len(header) + len(outgoing.payload)
        return True

    def receive(self, timeout_s):
        return self._ether.ask(self._device, timeout_s, deaf=False)

    def forget(self, device):
        self._forgotten.add(device)

    def stall(self, wall_s):
        self._ether.ask(self._device, wall_s, deaf=True)


@pytest.fixture
def ether(monkeypatch):
    """Return a function that makes an ether, and lets gossip read the time from its clock."""

    def make(num_devices, seed=0):
        made = Ether(num_devices, seed)
        monkeypatch.setattr("node.gossip.monotonic", lambda: made.wall_s)
        return made

    return make


def live_together(ether, experiment, weights, num_rounds):
    """Let all devices of an experiment live over an ether."""

    def program(device):
        gossip = gossip_of(experiment, weights, device, Port(ether, device))
        return lambda: live(gossip, device, range(num_rounds))

    return ether.run({device: program(device) for device in range(len(weights))})


@contextmanager
def sockets(scheme, experiment, weights):
    """Connect a transport per device over ZeroMQ."""
    frame_bytes = frame_layout(experiment, NUM_VALUES).payload_bytes + HEADER_BYTES
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        transports = [
            stack.enter_context(
                ZmqTransport.open(
                    context,
                    "tcp://127.0.0.1:*" if scheme == "tcp" else f"inproc://{device}",
                    name=str(device),
                    frame_bytes=frame_bytes,
                    queue_bytes=2**20,
                )
            )
            for device in range(len(weights))
        ]
        for device, transport in enumerate(transports):
            for neighbour in row_of(weights, device):
                transport.connect(neighbour.device, transports[neighbour.device].address)
        yield transports


def live_over_sockets(scheme, experiment, weights, num_rounds):
    """Let all devices of an experiment live over ZeroMQ, a thread each."""
    with sockets(scheme, experiment, weights) as transports, ThreadPoolExecutor(len(weights)) as pool:
        lives = [
            pool.submit(live, gossip_of(experiment, weights, device, transport), device, range(num_rounds))
            for device, transport in enumerate(transports)
        ]
        return {device: life.result(PATIENCE_S) for device, life in enumerate(lives)}


def reception(experiment, round_, sender, receiver):
    """Pass some frame over one hop: what the air does to it does not depend on what it says."""
    layout = frame_layout(experiment, NUM_VALUES)
    payload = np.zeros(layout.payload_bytes, dtype=np.uint8)
    encode(np.ones(NUM_VALUES, dtype=np.float32), layout, payload, np.random.default_rng(0))
    return cross(
        payload,
        layout,
        experiment.radio,
        Hop(experiment.seed, round_, sender, receiver, mean_snr_db(sender, receiver)),
    )


def mask(experiment, round_, sender, receiver):
    """Say which packets of sender count at receiver."""
    intact = reception(experiment, round_, sender, receiver).intact
    if experiment.radio.symmetric:
        intact = intact & reception(experiment, round_, receiver, sender).intact
    return intact


def central(experiment, weights, num_rounds):
    """Compute what all devices do in one place: x_i += sum_j w_ij mask_ij (x_j - x_i), in float64."""
    layout = frame_layout(experiment, NUM_VALUES)
    num_devices = len(weights)
    xs, rounds = np.zeros((num_devices, NUM_VALUES)), []
    for round_ in range(num_rounds):
        xs = xs + [learned(device, round_) for device in range(num_devices)]
        mixed = xs.copy()
        for i in range(num_devices):
            for j in range(num_devices):
                if j != i and weights[i, j]:
                    counts = np.repeat(mask(experiment, round_, j, i), layout.values_of_each())
                    mixed[i] += weights[i, j] * counts * (xs[j] - xs[i])
        xs = mixed
        rounds.append(xs)
    return rounds


@pytest.mark.parametrize("scheme", ["tcp", "inproc"])
def test_an_ideal_channel_on_a_complete_graph_is_the_central_average(scheme):
    pasts = live_over_sockets(scheme, experiment_of(IDEAL), complete(4), num_rounds=1)
    average = np.mean([learned(device, 0) for device in range(4)], axis=0, dtype=np.float64)
    for past in pasts.values():
        np.testing.assert_allclose(past.x[0], average, rtol=0, atol=1e-6)


@RADIOS
@pytest.mark.parametrize("weights", [complete(3), ring(5)], ids=["complete", "ring"])
def test_equals_computing_all_devices_in_one_place(ether, radio, weights):
    """Each device knows its row; whoever knows all rows and the radio's seed must find the same."""
    num_devices = len(weights)
    experiment = experiment_of(radio, devices=num_devices)
    pasts = live_together(ether(num_devices), experiment, weights, num_rounds=4)
    for round_, xs in enumerate(central(experiment, weights, 4)):
        for device, past in pasts.items():
            np.testing.assert_allclose(past.x[round_], xs[device], rtol=0, atol=1e-5)


@RADIOS
def test_the_order_of_arrival_changes_not_one_bit(ether, radio):
    """Four neighbours each: the sum of so many floats would depend on its order."""
    experiment, weights = experiment_of(radio, devices=5), complete(5)
    first = live_over_sockets("inproc", experiment, weights, num_rounds=4)
    lives = [live_over_sockets("tcp", experiment, weights, num_rounds=4)]
    orders = set()
    for seed in range(6):
        shuffled = ether(5, seed)
        lives.append(live_together(shuffled, experiment, weights, num_rounds=4))
        orders.add(tuple(shuffled.arrivals))
        assert shuffled.wall_s == 0  # nothing was cut by the wall clock
    assert len(orders) == 6
    for pasts in lives:
        for device, past in pasts.items():
            assert np.array_equal(past.x, first[device].x)
            assert past.heard == first[device].heard
            assert past.air_s == first[device].air_s


def drift(pasts, num_rounds):
    """Return how far mixing moved the mean over devices from the mean of all that was learned."""
    means = [sum(learned(device, round_) for round_ in range(num_rounds)) for device in pasts]
    mixed = [past.x[-1] for past in pasts.values()]
    return np.abs(np.mean(mixed, axis=0, dtype=np.float64) - np.mean(means, axis=0, dtype=np.float64)).max()


@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
def test_symmetric_losses_keep_the_mean_and_one_sided_ones_do_not(ether, codec):
    experiment = experiment_of(SYMMETRIC, codec=codec)
    pasts = live_together(ether(4), experiment, complete(4), num_rounds=5)
    num_packets = frame_layout(experiment, NUM_VALUES).num_packets
    lost = [
        heard.packets_lost for past in pasts.values() for round_ in past.heard for heard in round_.values()
    ]
    assert 0.2 < np.mean(lost) / num_packets < 0.8  # or it would prove nothing
    assert drift(pasts, 5) < 2e-6
    experiment = experiment_of(ONE_SIDED, codec=codec)
    assert drift(live_together(ether(4), experiment, complete(4), num_rounds=5), 5) > 0.01


@RADIOS
def test_what_was_heard_is_what_the_air_let_through(ether, radio):
    experiment, weights = experiment_of(radio), ring(4)
    layout = frame_layout(experiment, NUM_VALUES)
    pasts = live_together(ether(4), experiment, weights, num_rounds=3)
    corrupted = 0
    for device, past in pasts.items():
        for round_, heard in enumerate(past.heard):
            assert list(heard) == sorted(n.device for n in row_of(weights, device))
            for other, of_it in heard.items():
                received = reception(experiment, round_, other, device)
                assert of_it.missing == ""
                assert of_it.packets_sent == layout.num_packets
                assert of_it.packets_corrupted == np.count_nonzero(~received.intact)
                assert of_it.packets_lost == np.count_nonzero(~mask(experiment, round_, other, device))
                assert of_it.bit_errors == received.bit_errors
                corrupted += of_it.packets_corrupted
    assert (corrupted > 0) == (radio is not IDEAL)


@RADIOS
def test_counts_its_bytes_and_its_modelled_seconds(ether, radio):
    experiment = experiment_of(radio)
    layout = frame_layout(experiment, NUM_VALUES)
    pasts = live_together(ether(4), experiment, ring(4), num_rounds=3)
    frame = HEADER_BYTES + layout.payload_bytes
    if radio is SYMMETRIC:
        frame += HEADER_BYTES + -(-layout.num_packets // 8)
    airtime = airtime_s(layout, radio)
    assert (airtime > 0) == (radio is not IDEAL)
    for past in pasts.values():
        assert past.bytes_sent == [2 * frame] * 3
        assert past.air_s == pytest.approx([airtime, 2 * airtime, 3 * airtime])


@pytest.mark.parametrize("diverged", [np.nan, np.inf])
@RADIOS
def test_numbers_that_are_none_are_never_mixed(ether, radio, diverged):
    """They pass every checksum: a diverged neighbour says what it means."""
    experiment, weights = experiment_of(radio, devices=3), complete(3)
    layout = frame_layout(experiment, NUM_VALUES)
    ours = ether(3)

    def program(device):
        gossip, x = gossip_of(experiment, weights, device, Port(ours, device)), learned(device, 0)
        if device == 1:
            x[layout.values(2)] = diverged

        def run():
            mixed = torch.from_numpy(x.copy())
            sent = gossip.encode(mixed, 0)
            gossip.exchange(sent, 0, Told(), Stopwatch()).mix_(mixed, sent.xhat)
            return mixed.numpy(), gossip.heard

        return run

    results = ours.run({device: program(device) for device in range(3)})
    for device in (0, 2):
        mixed, heard = results[device]
        assert np.isfinite(mixed).all()
        lost = ~mask(experiment, 0, 1, device)
        lost[2] = True
        assert heard[1].packets_lost == np.count_nonzero(lost)
        assert heard[1].packets_corrupted == reception(
            experiment, 0, 1, device
        ).intact.size - np.count_nonzero(reception(experiment, 0, 1, device).intact)


def test_without_neighbours_nothing_arrives_and_nobody_waits(ether):
    experiment = experiment_of(SYMMETRIC, devices=1)
    alone = ether(1)
    (past,) = live_together(alone, experiment, np.eye(1), num_rounds=2).values()
    assert np.array_equal(past.x[1], learned(0, 0) + learned(0, 1))
    assert past.heard == [{}, {}]
    assert past.bytes_sent == [0, 0]
    assert alone.wall_s == 0


@RADIOS
def test_a_neighbour_that_never_sends_costs_one_deadline_once(ether, radio):
    experiment, weights = experiment_of(radio, devices=3), complete(3)
    ours, clock = ether(3), []
    layout = frame_layout(experiment, NUM_VALUES)

    def program(device):
        gossip = gossip_of(experiment, weights, device, Port(ours, device))
        return lambda: live(gossip, device, range(4), before_round=lambda _: clock.append(ours.wall_s))

    pasts = ours.run({0: program(0), 2: program(2)})
    assert sorted(clock) == [0.0] * 2 + [LIVENESS_WALL_S] * 6
    assert ours.wall_s == LIVENESS_WALL_S
    for device, past in pasts.items():
        for heard in past.heard:
            assert heard[1].missing == "wall"
            assert (heard[1].packets_lost, heard[1].packets_corrupted) == (0, 0)  # counted as a frame
            assert heard[1].packets_sent == layout.num_packets  # it may yet return
            assert heard[2 - device].missing == ""
    # Its mass is simply missing: rows still sum to 1, and the two others mix with their own weights.
    without = weights.copy()
    without[1] = without[:, 1] = 0
    for round_, xs in enumerate(central(experiment, without, 4)):
        for device, past in pasts.items():
            np.testing.assert_allclose(past.x[round_], xs[device], rtol=0, atol=1e-5)


def test_a_neighbour_that_never_sends_costs_one_deadline_on_the_hosts_clock_too():
    experiment = experiment_of(SYMMETRIC, devices=2).model_copy(
        update={"runtime": Runtime(liveness_wall_s=0.3)}
    )
    with sockets("tcp", experiment, complete(2)) as transports:
        gossip, watch, x = gossip_of(experiment, complete(2), 0, transports[0]), Stopwatch(), learned(0, 0)
        for round_ in range(20):
            arrived = gossip.exchange(gossip.encode(torch.from_numpy(x), round_), round_, Told(), watch)
            assert gossip.heard[1].missing == "wall"
            assert not arrived.m.any()
            assert watch.wall_s > 0.29
    assert watch.stages().wait < 0.6  # in 20 rounds


@RADIOS
def test_a_death_ends_the_wait_at_once(ether, radio):
    experiment, weights, ours = experiment_of(radio, devices=3), complete(3), ether(3)
    death = NeighbourDied(device=1, incarnation=incarnation_of(1))

    def program(device):
        gossip = gossip_of(experiment, weights, device, Port(ours, device))
        return lambda: live(gossip, device, range(3), control=Told(death))

    pasts = ours.run({0: program(0), 2: program(2)})
    assert ours.wall_s <= SLICE_WALL_S
    layout = frame_layout(experiment, NUM_VALUES)
    for device, past in pasts.items():
        assert [heard[1].missing for heard in past.heard] == ["dead"] * 3
        assert [heard[1].packets_lost for heard in past.heard] == [0] * 3
        assert [heard[1].packets_sent for heard in past.heard] == [layout.num_packets, 0, 0]
        assert [heard[2 - device].missing for heard in past.heard] == [""] * 3


def test_the_death_of_another_life_ends_no_wait(ether):
    experiment, weights, ours = experiment_of(SYMMETRIC, devices=2), complete(2), ether(2)
    gossip = gossip_of(experiment, weights, 0, Port(ours, 0))
    told = Told(NeighbourDied(device=1, incarnation=incarnation_of(1) - 1))
    past = ours.run({0: lambda: live(gossip, 0, range(1), control=told)})[0]
    assert past.heard[0][1].missing == "wall"
    assert ours.wall_s == LIVENESS_WALL_S


def test_news_on_the_control_plane_wake_a_waiting_device():
    experiment = experiment_of(SYMMETRIC, devices=2)
    experiment = experiment.model_copy(update={"runtime": Runtime(liveness_wall_s=10 * PATIENCE_S)})
    death = NeighbourDied(device=1, incarnation=incarnation_of(1))

    class OnSocket:
        """Told when its socket says so."""

        def news(self):
            return [death] if ours.poll(0) and ours.recv() else []

    with (
        sockets("tcp", experiment, complete(2)) as transports,
        zmq.Context() as context,
        context.socket(zmq.PAIR) as ours,
        context.socket(zmq.PAIR) as theirs,
        ThreadPoolExecutor(1) as pool,
    ):
        ours.bind("inproc://control")
        theirs.connect("inproc://control")
        transports[0].wake_on(ours)
        gossip = gossip_of(experiment, complete(2), 0, transports[0])
        life = pool.submit(live, gossip, 0, range(2), control=OnSocket())
        theirs.send(b"a death")
        assert [heard[1].missing for heard in life.result(PATIENCE_S).heard] == ["dead", "dead"]


def test_told_to_leave_it_leaves(ether):
    experiment, weights, ours = experiment_of(SYMMETRIC, devices=2), complete(2), ether(2)
    gossip = gossip_of(experiment, weights, 0, Port(ours, 0))
    with pytest.raises(Leave, match="told to stop"):
        ours.run({0: lambda: live(gossip, 0, range(1), control=Told(Leave("told to stop")))})
    assert ours.wall_s <= SLICE_WALL_S


def test_a_refused_frame_is_not_counted_as_sent(ether):
    """A neighbour whose queue is full will miss this frame; the round goes on without its packets."""
    experiment, weights, ours = experiment_of(SYMMETRIC, devices=2), complete(2), ether(2)
    ports = [Port(ours, device) for device in range(2)]
    ports[0].forget(1)

    def program(device):
        gossip = gossip_of(experiment, weights, device, ports[device])
        return lambda: live(gossip, device, range(1))

    pasts = ours.run({device: program(device) for device in range(2)})
    num_packets = frame_layout(experiment, NUM_VALUES).num_packets
    assert pasts[0].heard[0][1].packets_sent == 0
    assert pasts[1].heard[0][0].packets_sent == num_packets
    for device, past in pasts.items():  # neither counts the other: the mean is kept
        assert past.heard[0][1 - device].packets_lost == 0
        assert past.heard[0][1 - device].missing == "wall"
        assert np.array_equal(past.x[0], learned(device, 0))


class Script:
    """A transport on which these frames arrive, in this order, and nothing else ever does."""

    def __init__(self, *deliveries):
        self.bytes_sent = 0
        self.said = []
        self._deliveries = deque(deliveries)

    def send(self, device, header, outgoing):
        self.said.append((device, header, outgoing.payload.copy()))
        return True

    def receive(self, timeout_s):
        assert self._deliveries or timeout_s <= 0, "it still waits"
        return self._deliveries.popleft() if self._deliveries else None

    def forget(self, device):
        pytest.fail("nobody died")


def delivery_from(experiment, sender, *, round_=0, air_s=0.0, kind=Kind.PARAMETERS):
    """Return a header, and the delivery that it makes, of a frame as device `sender` would send it."""
    layout = frame_layout(experiment, NUM_VALUES)
    payload = np.zeros(layout.payload_bytes, dtype=np.uint8)
    encode(learned(sender, round_), layout, payload, np.random.default_rng(0))
    if kind is Kind.ACK:
        payload = np.packbits(np.ones(layout.num_packets, dtype=bool))
    codec, flags, num_values, packet_bytes = shape_of(layout)
    header = Header(
        kind=kind,
        run=run_number(RUN_ID),
        epoch=EPOCH,
        sender=sender,
        incarnation=incarnation_of(sender),
        round=round_,
        attempt=0,
        codec=codec,
        flags=flags,
        num_values=num_values,
        packet_bytes=packet_bytes,
        payload_bytes=len(payload),
        air_s=air_s,
    )
    return header, Delivery(str(sender), header.pack(), payload)


HEADER, GOOD = delivery_from(experiment_of(IDEAL), 1, round_=5)
CUT = len(GOOD.payload) - 1
BAD = {
    "device 1: another run": replace(GOOD, header=replace(HEADER, run=run_number("b-run")).pack()),
    "device 1: another epoch": replace(GOOD, header=replace(HEADER, epoch=EPOCH + 1).pack()),
    "device 1: another incarnation": replace(GOOD, header=replace(HEADER, incarnation=9).pack()),
    "device 1: stale round": replace(GOOD, header=replace(HEADER, round=4).pack()),
    "device 1: another model or codec": replace(GOOD, payload=GOOD.payload[:CUT]),
    "device 1: signed as device 2": replace(GOOD, header=replace(HEADER, sender=2).pack()),
    "device 2: signed as device 1": replace(GOOD, peer="2"),
    "device 7: not a neighbour": replace(GOOD, peer="7", header=replace(HEADER, sender=7).pack()),
    "device 7: signed as device 1": replace(GOOD, peer="7"),
    f"device 1: header of 59 bytes, expected {HEADER_BYTES}": replace(GOOD, header=GOOD.header[:-1]),
    f"device 1: header of 0 bytes, expected {HEADER_BYTES}": Delivery("1", b"", GOOD.payload[:0]),
    "device 1: header checksum is wrong": replace(GOOD, header=GOOD.header[:-1] + b"x"),
    "device 1: not a Hearsay frame": replace(GOOD, header=b"GET " + GOOD.header[4:]),
    "device 1: wire version 9, expected 1": replace(GOOD, header=GOOD.header[:4] + b"\t" + GOOD.header[5:]),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_foreign_frame_is_dropped_and_its_sender_named(reason):
    _, last = delivery_from(experiment_of(IDEAL), 2, round_=5)
    script = Script(BAD[reason], BAD[reason], GOOD, last)
    gossip = gossip_of(experiment_of(IDEAL, devices=3), complete(3), 0, script)
    x = torch.from_numpy(learned(0, 5))
    sent = gossip.encode(x, 5)
    gossip.exchange(sent, 5, Told(), Stopwatch()).mix_(x, sent.xhat)
    assert gossip.dropped() == {reason: 2}
    assert gossip.dropped() == {}  # each is told once
    assert [heard.missing for heard in gossip.heard.values()] == ["", ""]
    average = np.mean([learned(device, 5) for device in range(3)], axis=0)
    np.testing.assert_allclose(x.numpy(), average, atol=1e-6)


def test_different_reasons_are_counted_apart():
    _, last = delivery_from(experiment_of(IDEAL), 2, round_=5)
    script = Script(*BAD.values(), GOOD, GOOD, last)
    gossip = gossip_of(experiment_of(IDEAL, devices=3), complete(3), 0, script)
    gossip.exchange(gossip.encode(torch.zeros(NUM_VALUES), 5), 5, Told(), Stopwatch())
    assert gossip.dropped() == dict.fromkeys(BAD, 1) | {"device 1: duplicate": 1}


def test_a_message_that_is_no_frame_is_dropped_over_sockets_too():
    experiment, weights = experiment_of(IDEAL, devices=2), complete(2)
    with (
        sockets("tcp", experiment, weights) as transports,
        zmq.Context() as context,
        context.socket(zmq.DEALER) as stranger,
        ThreadPoolExecutor(2) as pool,
    ):
        stranger.set(zmq.LINGER, 0)
        stranger.set(zmq.ROUTING_ID, b"9")
        stranger.connect(transports[0].address)
        stranger.send(b"hello")
        gossips = [gossip_of(experiment, weights, device, transports[device]) for device in range(2)]
        dropped, first = {}, 0
        while not dropped:  # until it was in before the frame that ended a round
            assert first < 1000
            lives = [pool.submit(live, gossips[d], d, range(first, first + 10)) for d in range(2)]
            heard = [life.result(PATIENCE_S).heard for life in lives]
            assert all(of_round[1 - d].missing == "" for d in range(2) for of_round in heard[d])
            dropped, first = gossips[0].dropped(), first + 10
    assert dropped == {f"device 9: header of 0 bytes, expected {HEADER_BYTES}": 1}


AIRTIME_S = airtime_s(frame_layout(experiment_of(ONE_SIDED), NUM_VALUES), ONE_SIDED)


@pytest.mark.parametrize("radio", [SYMMETRIC, ONE_SIDED], ids=["symmetric", "one-sided"])
def test_a_deadline_below_the_airtime_leaves_nothing(ether, radio):
    """It is the model's clock that says so: the same in every run, and nobody waits on the host's."""
    experiment = experiment_of(radio, deadline_air_s=0.99 * AIRTIME_S)
    num_packets = frame_layout(experiment, NUM_VALUES).num_packets
    lives = []
    for seed in range(3):
        ours = ether(4, seed)
        lives.append(live_together(ours, experiment, complete(4), num_rounds=3))
        assert ours.wall_s == 0
    for pasts in lives:
        for device, past in pasts.items():
            assert np.array_equal(past.x[2], learned(device, 0) + learned(device, 1) + learned(device, 2))
            assert all(
                (of_it.missing, of_it.packets_lost) == ("air", num_packets)
                for heard in past.heard
                for of_it in heard.values()
            )
            assert past.heard == lives[0][device].heard
            assert past.air_s == pytest.approx([AIRTIME_S, 2 * AIRTIME_S, 3 * AIRTIME_S])


def test_a_deadline_of_one_airtime_leaves_everything(ether):
    experiment = experiment_of(SYMMETRIC, deadline_air_s=1.01 * AIRTIME_S)
    unlimited = live_together(ether(4), experiment_of(SYMMETRIC), complete(4), num_rounds=3)
    for device, past in live_together(ether(4), experiment, complete(4), num_rounds=3).items():
        assert np.array_equal(past.x, unlimited[device].x)
        assert past.heard == unlimited[device].heard


@pytest.mark.parametrize(
    ("began_s", "deadline_air_s", "missing", "clock_s"),
    [
        (0.0, np.inf, "", 1.0),
        (0.5, np.inf, "", 1.5),
        (0.5, 1.6, "", 1.5),
        (0.5, 1.4, "air", 1.4),
        (9.0, 1.4, "air", 1.4),
        (9.0, 0.1, "air", 1.0),
    ],
)
def test_the_clock_waits_for_the_last_frame_or_the_deadline(began_s, deadline_air_s, missing, clock_s):
    """All in airtimes: a neighbour began so late, and its frame took one."""
    experiment = experiment_of(ONE_SIDED, deadline_air_s=deadline_air_s * AIRTIME_S)
    _, delivery = delivery_from(experiment, 1, air_s=began_s * AIRTIME_S)
    gossip = gossip_of(experiment, complete(2), 0, Script(delivery))
    gossip.exchange(gossip.encode(torch.zeros(NUM_VALUES), 0), 0, Told(), Stopwatch())
    assert gossip.heard[1].missing == missing
    assert gossip.air_s == pytest.approx(clock_s * AIRTIME_S)


def test_a_late_frame_is_acknowledged_as_lost():
    """Or its sender would count a packet that this device does not."""
    experiment = experiment_of(SYMMETRIC, deadline_air_s=1.4 * AIRTIME_S)
    _, late = delivery_from(experiment, 1, air_s=0.5 * AIRTIME_S)
    _, ack = delivery_from(experiment, 1, kind=Kind.ACK)
    script = Script(late, ack)
    gossip = gossip_of(experiment, complete(2), 0, script)
    arrived = gossip.exchange(gossip.encode(torch.zeros(NUM_VALUES), 0), 0, Told(), Stopwatch())
    (_, _, parameters), (_, _, bitmap) = script.said
    assert len(parameters) == frame_layout(experiment, NUM_VALUES).payload_bytes
    assert not bitmap.any()
    assert not arrived.m.any()


def test_an_acknowledgement_says_which_packets_arrived_first_packet_first():
    experiment = experiment_of(SYMMETRIC)
    _, parameters = delivery_from(experiment, 1)
    _, ack = delivery_from(experiment, 1, kind=Kind.ACK)
    script = Script(parameters, ack)
    gossip = gossip_of(experiment, complete(2), 0, script)
    gossip.exchange(gossip.encode(torch.zeros(NUM_VALUES), 0), 0, Told(), Stopwatch())
    intact = reception(experiment, 0, 1, 0).intact
    assert 0 < np.count_nonzero(intact) < len(intact)
    bits = "".join(f"{byte:08b}" for byte in script.said[1][2])
    assert bits == "".join("1" if ok else "0" for ok in intact).ljust(len(bits), "0")


def test_rounding_is_drawn_anew_by_every_device_in_every_round():
    """Or rounding errors would not average out over neighbours and rounds."""
    experiment, x = experiment_of(IDEAL, codec="int8"), torch.from_numpy(learned(0, 0))

    def encoded(device, round_):
        gossip = gossip_of(experiment, complete(4), device, Script())
        return gossip.encode(x, round_).outgoing.payload.tobytes()

    assert encoded(0, 0) == encoded(0, 0)
    assert len({encoded(0, 0), encoded(0, 1), encoded(1, 0)}) == 3


class Tracker:
    """ZeroMQ's word on whether it is still reading a buffer."""

    done = False


def test_a_buffer_that_is_still_read_is_not_written_again():
    gossip = gossip_of(experiment_of(IDEAL), complete(2), 0, Script())
    trackers, sent = [Tracker() for _ in range(3)], []
    for round_, tracker in enumerate(trackers):
        sent.append(gossip.encode(torch.from_numpy(learned(0, round_)), round_))
        sent[-1].outgoing.sent(tracker)
    for round_, of_round in enumerate(sent):
        values = decode(of_round.outgoing.payload, frame_layout(experiment_of(IDEAL), NUM_VALUES))
        assert np.array_equal(values, learned(0, round_))
    trackers[1].done = True
    assert gossip.encode(torch.zeros(NUM_VALUES), 3).outgoing is sent[1].outgoing


def test_an_exchange_charges_its_seconds_to_its_own_stages():
    _, delivery = delivery_from(experiment_of(ONE_SIDED), 1)
    gossip, watch = gossip_of(experiment_of(ONE_SIDED), complete(2), 0, Script(delivery)), Stopwatch()
    gossip.exchange(gossip.encode(torch.zeros(NUM_VALUES), 0), 0, Told(), watch)
    stages = watch.stages().model_dump()
    assert stages["air"] > 0
    assert stages["decode"] > 0
    assert (stages["train"], stages["encode"], stages["mix"]) == (0, 0, 0)  # the agent's, not the exchange's
    assert watch.wall_s == pytest.approx(sum(stages.values()))


@RADIOS
def test_a_neighbour_that_was_silent_is_waited_for_when_it_is_back(ether, radio):
    """It stalls for three deadlines, then catches up: it trains in no time, the other takes a second."""
    experiment, weights, ours = experiment_of(radio, devices=2), complete(2), ether(2)
    ports, num_rounds = [Port(ours, device) for device in range(2)], 100

    def program(device):
        gossip = gossip_of(experiment, weights, device, ports[device])

        def train(round_):
            if device == 0:
                ports[0].stall(1.0)
            elif round_ == 0:
                ports[1].stall(3 * LIVENESS_WALL_S)

        return lambda: live(gossip, device, range(num_rounds), before_round=train)

    pasts = ours.run({device: program(device) for device in range(2)})
    missing = {device: [heard[1 - device].missing for heard in past.heard] for device, past in pasts.items()}
    assert missing[0][0] == "wall"
    for said in missing.values():
        assert set(said) <= {"", "wall"}
        assert set(said[-num_rounds // 2 :]) == {""}
    assert ours.wall_s == LIVENESS_WALL_S + num_rounds  # one deadline once, then only training
