"""What a device takes in of a mean that comes down, however wrong its sender is."""

from math import nan

import numpy as np
import pytest

from node.digital import Inbound
from node.partial import Chunk, Partial
from protocol.arq import Receiving
from protocol.codec import Layout
from protocol.scalars import Scalars

LAYOUT = Layout("float32", 10, 512, checked=True)


def received(scalars):
    """Return a whole frame that came in time, with a mean over 2 devices."""
    partial = Partial(Chunk(slice(0, 10), LAYOUT), members=3, adaptive=True)
    partial.scalars, partial.counts = scalars, np.full(LAYOUT.num_packets, 2)
    shape = partial.shape(0)
    whole = np.zeros(shape.side_bytes + LAYOUT.payload_bytes, dtype=np.uint8)
    partial.write_side(whole)
    receiving = Receiving(LAYOUT.num_packets, max_attempts=1)
    intact = receiving.take(0, slice(None), np.ones(LAYOUT.num_packets, dtype=np.bool_), on_time=True)
    inbound = Inbound(shape, 1, 0, 1.0, np.zeros(10, dtype=np.float32), receiving, 0.5, whole)
    inbound.pieces.append((np.ones(10, dtype=np.float32), None, intact))
    return inbound


@pytest.mark.parametrize(
    ("said", "taken"),
    [
        (Scalars(2.0, 0.25, 1.5), Scalars(2.0, 0.25, 1.5)),
        (Scalars(2.0, nan, 1.5), Scalars()),
        (Scalars(nan, 0.25, 1.5), Scalars()),
    ],
)
def test_scalars_that_are_none_are_not_taken_with_the_mean(said, taken):
    partial = Partial(Chunk(slice(0, 10), LAYOUT), members=3, adaptive=True)
    partial.take_(received(said))
    assert partial.scalars == taken
    assert partial.counts.tolist() == [2] * LAYOUT.num_packets
