"""Exact averaging along trees and rings: what everybody ends with, at what cost, and what is lost."""

import numpy as np
import pytest
from devices import (
    NUM_VALUES,
    Device,
    complete,
    experiment_of,
    learned,
)
from ether import Ether, Port

from protocol.messages import RingPlace, Schedule, TreePlace
from protocol.radio import Radio

IDEAL = Radio(scheme="ideal")


def tree_places(parents):
    """Return everybody's place in a tree given by the parent of each device, None for the root."""
    children = {d: tuple(c for c, p in enumerate(parents) if p == d) for d in range(len(parents))}
    return [
        TreePlace(
            members=len(parents),
            parent=parent,
            turn=0 if parent is None else children[parent].index(device),
            children=children[device],
            max_children=max(len(some) for some in children.values()),
        )
        for device, parent in enumerate(parents)
    ]


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


def average(experiment, places, num_rounds=2, *, ether=None, ports=None, snr_db=lambda a, b: 40.0):
    """Let all devices average by their places; return their pasts."""
    num_devices = len(places)
    ether = ether or Ether(num_devices)
    ports = ports or [Port(ether, number) for number in range(num_devices)]

    def program(number):
        device = Device(experiment, complete(num_devices), number, ports[number], snr_db=snr_db)
        device.exchanges.follow(Schedule(round=0, place=places[number]))
        return lambda: device.live(range(num_rounds))

    return ether.run({number: program(number) for number in range(num_devices)})


def means(num_devices, num_rounds):
    """Return the exact mean after every round, in double precision."""
    x, rounds = np.zeros(NUM_VALUES), []
    for round_ in range(num_rounds):
        x = x + np.mean([learned(d, round_) for d in range(num_devices)], axis=0, dtype=np.float64)
        rounds.append(x)
    return rounds


@pytest.mark.parametrize("num_devices", range(2, 34))
@pytest.mark.parametrize("kind", ["tree", "ring"])
def test_everybody_ends_with_the_exact_mean(kind, num_devices):
    experiment = experiment_of(IDEAL, devices=num_devices, scheme=kind, chunks=3)
    if kind == "tree":
        places = tree_places(random_tree(num_devices, seed=num_devices))
    else:
        places = ring_places(np.random.default_rng(num_devices).permutation(num_devices).tolist())
    pasts = average(experiment, places)
    for round_, mean in enumerate(means(num_devices, 2)):
        for past in pasts.values():
            np.testing.assert_allclose(past.x[round_], mean, rtol=0, atol=1e-6)
            assert np.array_equal(past.x[round_], pasts[0].x[round_])
            averaged = past.averaged[round_]
            assert (averaged.kind, averaged.broken, averaged.blocks_kept) == (kind, False, 0)
            assert averaged.contributors_min == averaged.contributors_mean == num_devices


@pytest.mark.parametrize("cast", ["broadcast", "unicast"])
@pytest.mark.parametrize("codec", ["float32", "float16", "int8"])
@pytest.mark.parametrize("kind", ["tree", "ring"])
def test_everybody_ends_with_the_same_bits(kind, codec, cast):
    radio = Radio(arq="selective_repeat", max_attempts=20, cast=cast, fading="none")
    experiment = experiment_of(radio, devices=6, codec=codec, scheme=kind, chunks=3)
    places = tree_places(random_tree(6, seed=1)) if kind == "tree" else ring_places([3, 1, 0, 4, 5, 2])
    pasts = average(experiment, places, snr_db=lambda a, b: 11.0)
    for past in pasts.values():
        assert np.array_equal(past.x, pasts[0].x)
        assert [(a.broken, a.blocks_kept, a.contributors_min) for a in past.averaged] == [(False, 0, 6)] * 2
    mean = np.mean([learned(d, 0) for d in range(6)], axis=0, dtype=np.float64)
    # Numbers are below 4; each of at most six hops may round by a quantum.
    atol = {"float32": 1e-6, "float16": 6 * 2e-3, "int8": 6 * 4 / 127}[codec]
    np.testing.assert_allclose(pasts[0].x[0], mean, rtol=0, atol=atol)
    heard = [heard for past in pasts.values() for round_ in past.heard for heard in round_.values()]
    assert sum(h.packets_resent for h in heard) > 5


@pytest.mark.parametrize("kind", ["tree", "ring"])
def test_lost_packets_leave_devices_out_and_are_counted(kind):
    radio = Radio(fading="none")
    experiment = experiment_of(radio, devices=6, scheme=kind, chunks=3)
    places = tree_places(random_tree(6, seed=1)) if kind == "tree" else ring_places([3, 1, 0, 4, 5, 2])
    pasts = average(experiment, places, num_rounds=1, snr_db=lambda a, b: 11.5)
    averaged = [past.averaged[0] for past in pasts.values()]
    assert not any(a.broken for a in averaged)
    assert any(a.blocks_kept for a in averaged)
    assert any(0 < a.contributors_mean < 6 for a in averaged)
