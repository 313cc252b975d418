"""Exact averaging along trees and rings: everybody ends with the same bits, on every wire, in any order."""

import gc

import numpy as np
import pytest
from devices import NUM_VALUES, experiment_of, learned
from ether import Ether, Port
from schedules import (
    average,
    average_over_sockets,
    means,
    random_places,
    random_tree,
    ring_places,
    scheduled,
    tree_places,
)

from node.digital import Inbound, Outbound
from node.inbox import Frame
from node.transport.zmq import Outgoing
from protocol.air import Transmission, frame_layout
from protocol.radio import Radio

IDEAL = Radio(scheme="ideal")
LOSSY = Radio(coherence_packets=2)
PERSISTENT = Radio(fading="none", arq="selective_repeat", max_attempts=20)
"""Nothing stays lost on a link of FEW_LOST_DB."""
FEW_LOST_DB = 11.0
KINDS = pytest.mark.parametrize("kind", ["tree", "ring"])
CODECS = pytest.mark.parametrize("codec", ["float32", "float16", "int8"])


def few_lost(receiver, sender):
    return FEW_LOST_DB


def of_six(kind):
    return tree_places(random_tree(6, seed=1)) if kind == "tree" else ring_places([3, 1, 0, 4, 5, 2])


def atol_of(codec, num_hops):
    """Numbers are below 4; each hop may round by a quantum: half of 2^-9 between 2 and 4, or max|x| / 127."""
    return {"float32": 1e-6, "float16": num_hops * 2e-3, "int8": num_hops * 4 / 127}[codec]


@pytest.mark.parametrize("num_devices", range(2, 34))
@KINDS
def test_everybody_ends_with_the_exact_mean(kind, num_devices):
    experiment = experiment_of(IDEAL, devices=num_devices, scheme=kind, chunks=3)
    pasts = average(experiment, random_places(kind, num_devices, seed=num_devices))
    (mean,) = means(num_devices, 1)
    for past in pasts.values():
        np.testing.assert_allclose(past.x[0], mean, rtol=0, atol=1e-6)
        assert np.array_equal(past.x[0], pasts[0].x[0])
        (averaged,) = past.averaged
        assert (averaged.kind, averaged.broken, averaged.blocks_kept) == (kind, False, 0)
        assert averaged.contributors_min == averaged.contributors_mean == num_devices


@pytest.mark.parametrize("cast", ["broadcast", "unicast"])
@CODECS
@KINDS
def test_everybody_ends_with_the_same_bits_however_often_packets_are_repeated(kind, codec, cast):
    radio = PERSISTENT.model_copy(update={"cast": cast})
    experiment = experiment_of(radio, devices=6, codec=codec, scheme=kind, chunks=3)
    pasts = average(experiment, of_six(kind), num_rounds=2, snr_db=few_lost)
    for past in pasts.values():
        assert np.array_equal(past.x, pasts[0].x)
        assert [(a.broken, a.blocks_kept, a.contributors_min) for a in past.averaged] == [(False, 0, 6)] * 2
    np.testing.assert_allclose(pasts[0].x[0], means(6, 1)[0], rtol=0, atol=atol_of(codec, 6))
    heard = [heard for past in pasts.values() for round_ in past.heard for heard in round_.values()]
    assert sum(h.packets_resent for h in heard) > 5
    assert sum(h.packets_lost for h in heard) == 0


@CODECS
def test_accepting_bit_errors_changes_nothing_where_there_are_none(codec):
    radio = Radio(fading="none", bad_packets="accept")
    experiment = experiment_of(radio, devices=6, codec=codec, scheme="tree", chunks=3)
    pasts = average(experiment, tree_places([None, 0, 1, 2, 3, 4]))
    assert all(np.array_equal(past.x, pasts[0].x) for past in pasts.values())


@pytest.mark.parametrize("radio", [IDEAL, Radio(fading="none")], ids=["ideal", "digital"])
@KINDS
def test_a_lone_device_keeps_what_it_has(kind, radio):
    experiment = experiment_of(radio, devices=1, scheme=kind, chunks=3)
    (past,) = average(experiment, random_places(kind, 1, seed=0)).values()
    assert np.array_equal(past.x[0], learned(0, 0))
    assert past.averaged[0].contributors_min == 1


@KINDS
def test_a_diverged_device_is_left_out_and_takes_the_mean_of_the_others(kind):
    experiment = experiment_of(IDEAL, devices=4, scheme=kind, chunks=2)
    places = tree_places([None, 0, 1, 0]) if kind == "tree" else ring_places([0, 1, 2, 3])
    ether = Ether(4)
    devices = [scheduled(experiment, places, number, Port(ether, number)) for number in range(4)]
    devices[2].x.fill_(float("nan"))
    pasts = ether.run({device.number: lambda d=device: d.live([0]) for device in devices})
    if kind == "tree":  # it is a leaf; in a ring it is in the middle of most chunks
        mean = np.mean([learned(device, 0) for device in (0, 1, 3)], axis=0, dtype=np.float64)
        for past in pasts.values():
            np.testing.assert_allclose(past.x[0], mean, rtol=0, atol=1e-6)
            assert past.averaged[0].contributors_min == past.averaged[0].contributors_mean == 3
    for device in (0, 1, 3):
        assert np.isfinite(pasts[device].x[0]).all()


def test_there_are_never_more_chunks_than_numbers():
    experiment = experiment_of(IDEAL, devices=3, scheme="tree", chunks=4096)
    pasts = average(experiment, tree_places([None, 0, 0]))
    assert pasts[0].averaged[0].blocks == 300


@pytest.mark.parametrize(
    "radio",
    [
        IDEAL,
        LOSSY,
        Radio(coherence_packets=2, arq="selective_repeat", max_attempts=3, cast="unicast"),
        Radio(coherence_packets=2, arq="selective_repeat", max_attempts=3, access="parallel"),
    ],
    ids=["ideal", "lossy", "repeats one by one", "repeats to all"],
)
@KINDS
def test_the_order_of_arrival_changes_not_one_bit(kind, radio):
    experiment = experiment_of(radio, devices=6, codec="int8", scheme=kind, chunks=3)
    places, orders = of_six(kind), set()
    lives = [average_over_sockets(wire, experiment, places, 2, snr_db=few_lost) for wire in ("inproc", "tcp")]
    for seed in range(3):
        ether = Ether(6, seed)
        lives.append(average(experiment, places, 2, ether=ether, snr_db=few_lost))
        orders.add(tuple(ether.arrivals))
        assert ether.wall_s == 0  # nothing was cut by the wall clock
    assert len(orders) == 3
    first = lives[0]
    if radio is LOSSY:
        assert any(averaged.blocks_kept for past in first.values() for averaged in past.averaged)
    for pasts in lives[1:]:
        for device, past in pasts.items():
            assert np.array_equal(past.x, first[device].x)
            assert past.heard == first[device].heard
            assert past.spent == first[device].spent
            assert past.averaged == first[device].averaged


@CODECS
@pytest.mark.parametrize("wire", ["inproc", "tcp"])
@KINDS
def test_real_sockets_forward_what_they_received(kind, wire, codec):
    experiment = experiment_of(IDEAL, devices=6, codec=codec, scheme=kind, chunks=3)
    pasts = average_over_sockets(wire, experiment, of_six(kind), num_rounds=5)
    for past in pasts.values():
        assert np.array_equal(past.x, pasts[0].x)
    np.testing.assert_allclose(pasts[0].x[-1], means(6, 5)[-1], rtol=0, atol=5 * atol_of(codec, 6))


@KINDS
def test_parts_of_a_schedule_follow_the_sweeps(kind):
    experiment = experiment_of(IDEAL, devices=3, scheme=kind, chunks=2, sweeps=4)
    ether = Ether(3)
    ports = [Port(ether, number) for number in range(3)]
    average(experiment, random_places(kind, 3, seed=0), ether=ether, ports=ports)
    assert {header.part for port in ports for _, header, _ in port.said} == {4, 5, 6, 7}


@KINDS
def test_chunks_meet_different_fades(kind):
    """A schedule takes longer than gossip; what is sent late in it must not all meet one last fade."""
    experiment = experiment_of(LOSSY, devices=6, scheme=kind, chunks=4)
    device = scheduled(experiment, of_six(kind), 0, Port(Ether(6), 0))
    averaging, link = device.exchanges._averaging, device.exchanges.radio.links[1]
    layout = frame_layout(experiment, NUM_VALUES).cut(6)[0].layout
    gains = [
        link.gains(Transmission(0, 1, 1, 0, part=part), layout, averaging._grid.access)[0]
        for part in averaging.parts
    ]
    assert len(set(gains)) == len(gains) > 7


class Careful(Port):
    """A port that remembers every buffer it was given to send or has delivered, and what was in it."""

    def __init__(self, ether, device, *, lets_go):
        super().__init__(ether, device)
        self._lets_go = lets_go
        self.kept = []

    def send(self, device, header, outgoing):
        self.kept.append((outgoing.payload, outgoing.payload.copy()))
        if not self._lets_go:
            outgoing.sent(Reading())
        return super().send(device, header, outgoing)

    def receive(self, timeout_s):
        delivery = super().receive(timeout_s)
        if delivery is not None:
            self.kept.append((delivery.payload, delivery.payload.copy()))
        return delivery

    def check(self):
        assert self.kept
        assert all(np.array_equal(payload, copy) for payload, copy in self.kept)


class Reading:
    """A tracker of a send that is never over."""

    done = False


@pytest.mark.parametrize("lets_go", [True, False], ids=["within a round", "while ZeroMQ reads"])
@pytest.mark.parametrize("codec", ["float32", "int8"])
@KINDS
def test_buffers_are_not_written_while_somebody_may_read_them(kind, codec, lets_go):
    """All that was sent may be asked for again until the round ends, and for longer while ZeroMQ reads it."""
    radio = Radio(coherence_packets=2, arq="selective_repeat", max_attempts=3)
    experiment = experiment_of(radio, devices=6, codec=codec, scheme=kind, chunks=3)
    ether = Ether(6)
    ports = [Careful(ether, number, lets_go=lets_go) for number in range(6)]
    average(experiment, of_six(kind), 1 if lets_go else 4, ether=ether, ports=ports, snr_db=few_lost)
    for port in ports:
        port.check()


def alive():
    gc.collect()
    kinds = (Outgoing, Frame, Inbound, Outbound)
    return sum(type(thing) in kinds for thing in gc.get_objects())


@pytest.mark.parametrize("radio", [IDEAL, PERSISTENT], ids=["ideal", "repeats"])
@KINDS
def test_nothing_piles_up_over_many_rounds(kind, radio):
    experiment = experiment_of(radio, devices=6, scheme=kind, chunks=3)
    ether, places, counts = Ether(6), of_six(kind), []
    devices = [
        scheduled(experiment, places, number, Port(ether, number), snr_db=few_lost) for number in range(6)
    ]
    for rounds in (range(4), range(4, 20)):
        ether.run({d.number: lambda d=d, rounds=rounds: d.live(rounds) for d in devices})
        counts.append(alive())
    # What is repeated differs from round to round; one thing kept by each device in each would be 96 more.
    assert abs(counts[1] - counts[0]) <= (0 if radio is IDEAL else 45)
