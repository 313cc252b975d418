"""For the server that devices are forked from: some stage takes longer by a known time, as a file says."""

import os
import time
from functools import cache
from pathlib import Path

from node.train import Trainer
from node.transport.zmq import ZmqTransport

DELAY_WALL_S = 0.1
FILE = "HEARSAY_TEST_SLOW_STAGE"

_send, _local_sgd = ZmqTransport.send, Trainer.local_sgd


@cache
def slow_stage():
    """Read which stage is slow, once in each device."""
    return Path(os.environ[FILE]).read_text()


def send(self, device, header, outgoing):
    if slow_stage() == "send":
        time.sleep(DELAY_WALL_S)
    return _send(self, device, header, outgoing)


def local_sgd(self, *args):
    if slow_stage() == "train of device 0" and self._device == 0:
        time.sleep(DELAY_WALL_S)
    return _local_sgd(self, *args)


if FILE in os.environ:  # not where a test only reads of the delay
    ZmqTransport.send, Trainer.local_sgd = send, local_sgd
