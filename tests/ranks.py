"""What three ranks do in tests of every transport: over ZeroMQ as threads, over gloo as processes."""

import multiprocessing
import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import isclose
from select import select
from time import monotonic

import numpy as np
from devices import NUM_VALUES, Device, complete, experiment_of, sockets, start_of
from ether import PATIENCE_S

from node.place import Place
from node.transport.torchdist import TorchTransport
from node.transport.zmq import Outgoing
from protocol.air import frame_layout
from protocol.config import Transport
from protocol.radio import Radio

NUM_RANKS = 3
USUAL = experiment_of(Radio(), devices=NUM_RANKS)


def in_step(experiment):
    """Return the experiment, to be carried by gloo."""
    return experiment.model_copy(update={"transport": Transport(kind="gloo")})


def alike(mine, theirs):
    """Say whether books agree; the last bits of seconds and joules depend on the order of arrival."""
    if isinstance(mine, dict):
        return mine.keys() == theirs.keys() and all(alike(mine[key], theirs[key]) for key in mine)
    if isinstance(mine, float):
        return isclose(mine, theirs, rel_tol=1e-12)
    return mine == theirs


@dataclass
class Rank:
    """One rank at work."""

    number: int
    transport: object
    awaited: object = tuple
    """Says of whom a frame may still come."""
    missing: dict = field(default_factory=dict)

    @property
    def others(self):
        return [other for other in range(NUM_RANKS) if other != self.number]

    def send(self, device, header, payload):
        """Send a copy of a payload."""
        outgoing = Outgoing(payload.copy())
        assert self.transport.send(device, header, outgoing)

    def hear(self, **numbers):
        """Receive so many frames of each rank, r0=1 of rank 0; return them as they came."""
        self.missing = {int(name[1:]): number for name, number in numbers.items()}
        self.awaited = lambda: [device for device, number in self.missing.items() if number]
        deliveries, deadline = [], monotonic() + PATIENCE_S
        while self.awaited():
            assert monotonic() < deadline, f"{len(deliveries)} frames arrived"
            delivery = self.transport.receive(1.0)  # over gloo a phase may be over without one
            if delivery is not None:
                self.missing[int(delivery.peer)] -= 1
                deliveries.append(delivery)
        self.transport.settle()
        return deliveries


def filled(num_bytes, *seed):
    return np.random.default_rng(seed).integers(0, 256, num_bytes, dtype=np.uint8)


def exchange_all(rank, sizes):
    """Send every other rank a frame of each size; return, of each that came, who, what and where it lay."""
    before = rank.transport.bytes_sent
    for number, size in enumerate(sizes):
        for other in rank.others:
            rank.send(other, b"%d" % number, filled(size, rank.number, other, number))
    heard = rank.hear(**{f"r{other}": len(sizes) for other in rank.others})
    sent_bytes = rank.transport.bytes_sent - before
    return sent_bytes, [(d.peer, d.header, d.payload, d.payload.ctypes.data % 8) for d in heard]


def ask_and_answer(rank):
    """Rank 0 asks rank 1 alone, which answers twice; rank 2 has no part in it."""
    if rank.number == 0:
        rank.send(1, b"question", filled(4_000, 7))
        return [delivery.header for delivery in rank.hear(r1=2)]
    if rank.number == 1:
        [question] = rank.hear(r0=1)
        rank.send(0, b"answer", question.payload)
        rank.send(0, b"and another", question.payload[:3])
        rank.transport.settle()
        return [question.header]
    return []


def look(rank):
    """Look for frames that nobody sends, without waiting; only rank 0 would have somebody to wait for."""
    rank.awaited = lambda: rank.others if rank.number == 0 else []
    return [rank.transport.receive(0), rank.transport.receive(-1.0)]


def live(rank, experiment, weights, num_rounds):
    """Go through rounds of real exchanges; return what came of them."""
    device = Device(experiment, weights, rank.number, rank.transport)
    rank.awaited = device.exchanges.awaited
    device.exchanges.peers.bytes_sent()  # of what the transport was used for before
    return device.live(range(num_rounds))


@contextmanager
def threads(scheme):
    """Yield a function that lets all ranks run a program over ZeroMQ; it returns what each of them did."""
    with sockets(scheme, USUAL, complete(NUM_RANKS)) as transports, ThreadPoolExecutor(NUM_RANKS) as pool:
        ranks = [Rank(number, transport) for number, transport in enumerate(transports)]

        def run(program, *arguments):
            futures = [pool.submit(program, rank, *arguments) for rank in ranks]
            return [future.result(PATIENCE_S) for future in futures]

        yield run


@contextmanager
def processes():
    """Yield the same over gloo; torch is loaded once, by a process that all ranks are forked from."""
    command = [sys.executable, "-c", "import ranks; ranks.lead()"]
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": ":".join(sys.path)},
        start_new_session=True,
    ) as leader:

        def run(program, *arguments):
            pickle.dump((program.__name__, arguments), leader.stdin)
            leader.stdin.flush()
            assert select([leader.stdout], [], [], PATIENCE_S)[0], "no answer within the time allowed"
            results = pickle.load(leader.stdout)  # noqa: S301
            for result in results:
                if isinstance(result, Exception):
                    raise result
            return results

        try:
            yield run
            leader.stdin.close()
            leader.wait(PATIENCE_S)
        finally:
            leader.kill()


def lead():
    """Fork the ranks, and hand them what comes on stdin until that ends."""
    fork = multiprocessing.get_context("fork")
    pipes = [fork.Pipe() for _ in range(NUM_RANKS)]
    children = [
        fork.Process(target=_be, args=(number, pipe[1]), daemon=True) for number, pipe in enumerate(pipes)
    ]
    for child in children:
        child.start()
    address = pipes[0][0].recv()
    for pipe, _ in pipes:
        pipe.send(address)
    while True:
        try:
            task = pickle.load(sys.stdin.buffer)  # noqa: S301
        except EOFError:
            task = None
        for pipe, _ in pipes:
            pipe.send(task)
        if task is None:
            break
        pickle.dump([pipe.recv() for pipe, _ in pipes], sys.stdout.buffer)
        sys.stdout.buffer.flush()
    for child in children:
        child.join()


def _be(number, pipe):
    frame_bytes = frame_layout(USUAL, NUM_VALUES).payload_bytes
    with TorchTransport.open(
        in_step(USUAL), number, Place("127.0.0.1"), frame_bytes=frame_bytes
    ) as transport:
        rank = Rank(number, transport)
        if number == 0:
            pipe.send(transport.address)
        start = start_of(complete(NUM_RANKS), number)
        transport.meet(start.model_copy(update={"rendezvous": pipe.recv()}), lambda: rank.awaited())
        while (task := pipe.recv()) is not None:
            name, arguments = task
            try:
                pipe.send(globals()[name](rank, *arguments))
            except Exception as error:  # noqa: BLE001  # the test is told
                pipe.send(error)
