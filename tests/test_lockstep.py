"""Phases of torch.distributed on graphs of any shape: both ends of a link begin the same transfers.

The transfers themselves are queues between threads here: one that only one end begins is waited for in vain.
"""

from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest
import torch.distributed as dist
from devices import Device, experiment_of, live_over_sockets, neighbours_of, start_of
from ether import PATIENCE_S
from ranks import in_step

from node.transport.torchdist import TorchTransport
from protocol.radio import Analog, Radio

ARQ = {"arq": "selective_repeat", "max_attempts": 5}
DIFFERENCES = Analog(superposition="orthogonal", payload="differences", refresh_rounds=2)
RADIOS = {
    "ideal": (Radio(scheme="ideal"), {"sweeps": 2}),
    "broadcast": (Radio(**ARQ), {"sweeps": 2}),
    "late": (Radio(**ARQ), {"deadline_air_s": 0.1}),
    "unicast": (Radio(**ARQ, cast="unicast", access="parallel", symmetric=False), {}),
    "bursts": (Radio(**ARQ, burst_packets=3, coherence_packets=4, bad_packets="accept"), {"codec": "int8"}),
    "analog": (Radio(scheme="analog"), {"deadline_air_s": 0.004}),
    "differences": (Radio(scheme="analog", analog=DIFFERENCES), {"sweeps": 2}),
}


def graph(num_devices, seed):
    """Return Metropolis weights of a connected graph: a random tree, and as many edges more."""
    rng = np.random.default_rng(seed)
    adjacency = np.zeros((num_devices, num_devices), dtype=bool)
    for device in range(1, num_devices):
        for other in (rng.integers(device), rng.integers(device)):
            adjacency[device, other] = adjacency[other, device] = True
    degrees = adjacency.sum(axis=0)
    weights = adjacency / (1 + np.maximum.outer(degrees, degrees))
    return weights + np.diag(1 - weights.sum(axis=1))


def live_in_step(experiment, weights, num_rounds):
    """Let all devices live, a thread each; return what each has been through, and the wires between them."""
    everybody = range(len(weights))
    wires = {(sender, receiver): SimpleQueue() for sender in everybody for receiver in everybody}

    class Wired(TorchTransport):
        def _pass(self, leaving, coming, over):
            for receiver, array in leaving.items():
                wires[self._rank, receiver].put(array.copy())
            came = {sender: wires[sender, self._rank].get(timeout=PATIENCE_S) for sender in coming}
            assert {sender: len(array) for sender, array in came.items()} == dict(coming)
            return came

    def live(number):
        transport = Wired(in_step(experiment), number, None, frame_bytes=10_000)
        device = Device(in_step(experiment), weights, number, transport)
        transport.meet(start_of(weights, number), device.exchanges.awaited)
        return device.live(range(num_rounds))

    with ThreadPoolExecutor(len(weights)) as pool:
        lives = [pool.submit(live, number) for number in everybody]
        pasts = [life.result(2 * PATIENCE_S) for life in lives]
    return pasts, wires


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("name", RADIOS)
def test_everybody_goes_on_in_step_and_comes_to_the_same_bits(monkeypatch, name, seed):
    monkeypatch.setattr(dist, "init_process_group", lambda *_, **__: None)
    radio, more = RADIOS[name]
    weights = graph(7, seed)
    assert len({len(neighbours_of(weights, device)) for device in range(7)}) > 1
    experiment = experiment_of(radio, devices=7, **more)
    pasts, wires = live_in_step(experiment, weights, 3)
    assert all(wire.empty() for wire in wires.values())
    others = live_over_sockets("inproc", experiment, weights, 3)
    for device, past in enumerate(pasts):
        assert all(np.array_equal(*pair) for pair in zip(past.x, others[device].x, strict=True))
        assert past.bytes_sent == others[device].bytes_sent
    missing = {heard.missing for past in pasts for round_ in past.heard for heard in round_.values()}
    assert missing == ({"", "air"} if "deadline_air_s" in more else {""})
