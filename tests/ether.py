"""A network without sockets, in which the order of arrival is up to a seed and waiting takes no time."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue

import numpy as np
import pytest

from node.transport.zmq import Delivery
from protocol.frame import unpack

PATIENCE_S = 30.0
"""Deadline of every wait on the host's clock; nothing here comes near it."""
MOST_TIMEOUTS = 20_000
"""A device that is still waiting after so many timeouts will wait for ever."""


class Stuck(Exception):
    """Somebody waits for ever."""


class Gone(Exception):
    """This device's process ended; raised within it."""


class Ether:
    """Carries frames without sockets. Each sender's frames stay in order; all else is up to the seed.

    When nobody has a frame to take, its clock jumps to the next deadline. While it runs, `Exchanges` reads
    the time from it.
    """

    def __init__(self, num_devices, seed=0):
        self.wall_s = 0.0
        self.arrivals = []
        self._timeouts = 0
        self._rng = np.random.default_rng(seed)
        self._wires = {}
        self._asked = SimpleQueue()
        self._answers = [SimpleQueue() for _ in range(num_devices)]

    def send(self, receiver, delivery):
        self._wires.setdefault((receiver, int(delivery.peer)), deque()).append(delivery)

    def ask(self, device, timeout_s, *, deaf):
        """Let others run until there is a frame (for those who listen) or time is up."""
        self._asked.put((device, self.wall_s + timeout_s, deaf))
        answer = self._answers[device].get(timeout=PATIENCE_S)
        if isinstance(answer, Stuck):
            raise answer
        return answer

    def run(self, programs):
        """Run a program per device, device -> function of no arguments; return what each returned."""
        order, futures, waiting = self._rng.permutation(sorted(programs)).tolist(), {}, {}
        with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor(len(programs)) as pool:
            patch.setattr("node.exchanges.monotonic", lambda: self.wall_s)
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
        except Gone:
            return None
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
        if self._timeouts > MOST_TIMEOUTS:
            receiver, answer = min(waiting), Stuck(f"devices {sorted(waiting)} wait for ever")
        elif ready:
            receiver, sender = ready[self._rng.integers(len(ready))]
            self.arrivals.append((receiver, sender))
            answer = self._wires[receiver, sender].popleft()
        else:
            receiver = min(waiting, key=lambda device: waiting[device][0])
            self.wall_s = max(self.wall_s, waiting[receiver][0])
            self._timeouts += 1
            answer = None
        del waiting[receiver]
        self._answers[receiver].put(answer)


class Port:
    """One device's end of the ether, as a transport; it remembers what it was given to send."""

    def __init__(self, ether, device):
        self.bytes_sent = 0
        self.said = []
        """Receiver, header and payload of every frame."""
        self._ether = ether
        self._device = device
        self._forgotten = set()

    def send(self, device, header, outgoing):
        if device in self._forgotten:
            return False
        payload = outgoing.payload.copy()
        self.said.append((device, unpack(header), payload))
        if self.lets_through(device, unpack(header)):
            self._ether.send(device, Delivery(str(self._device), header, payload))
        self.bytes_sent += len(header) + len(payload)
        return True

    def lets_through(self, device, header):
        """Say whether a frame gets onto the wire; raises Gone where the process ends before it does."""
        return True

    def receive(self, timeout_s):
        return self._ether.ask(self._device, timeout_s, deaf=False)

    def settle(self):
        pass

    def forget(self, device):
        self._forgotten.add(device)

    def stall(self, wall_s):
        self._ether.ask(self._device, wall_s, deaf=True)


class Faulty(Port):
    """A port whose `lets_through` is another one."""

    def __init__(self, ether, device, lets_through):
        super().__init__(ether, device)
        self.lets_through = lets_through


class Script:
    """A transport on which these frames arrive, in this order, and nothing else ever does."""

    def __init__(self, *deliveries):
        self.bytes_sent = 0
        self.said = []
        self._deliveries = deque(deliveries)

    def send(self, device, header, outgoing):
        self.said.append((device, unpack(header), outgoing.payload.copy()))
        return True

    def receive(self, timeout_s):
        assert self._deliveries or timeout_s <= 0, "it still waits"
        return self._deliveries.popleft() if self._deliveries else None

    def settle(self):
        pass

    def forget(self, device):
        pytest.fail("nobody died")
