"""Random streams: one counter-based generator per purpose, round, attempt and pair of devices.

Nothing in Hearsay draws from a global generator. Every draw is keyed by what it is for, so that
the same radio, split and batches come out in one process, in 64 containers and in any order of
arrival. Philox4x64-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011) takes
a 128-bit key and a 256-bit counter: the experiment's seed is the key; purpose, round, attempt and
the two devices are the upper words of the counter, so no two streams ever overlap.
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream is drawn for; the numbers are part of the reproducibility contract."""

    PARAMETERS = 1
    PARTITION = 2
    POSITIONS = 3
    SHADOWING = 4
    FADING = 5
    BIT_ERRORS = 6
    QUANTISATION = 7
    BATCHES = 8
    CONSENSUS_SAMPLE = 9
    SYNTHETIC_DATA = 10
    TEST_SPLIT = 11
    GRAPH = 12
    MOBILITY = 13
    BURSTS = 14
    ANALOG_NOISE = 15
    GAIN_ERROR = 16
    LINK_BENCH = 17
    HARDWARE = 18
    PILOTS = 19


def stream(
    seed: int, purpose: Purpose, *, round_: int = 0, attempt: int = 0, a: int = 0, b: int = 0
) -> np.random.Generator:
    """Return the generator of one purpose, round, attempt and ordered pair (a, b).

    For what both ends of a link must agree on, call it with the pair sorted (`link_stream`).
    """
    counter = [0, round_ << 32 | attempt, a << 32 | b, int(purpose)]
    return np.random.Generator(np.random.Philox(key=seed, counter=counter))


def link_stream(seed: int, purpose: Purpose, a: int, b: int, *, round_: int = 0) -> np.random.Generator:
    """Return the generator that both ends of the undirected link {a, b} share: channels are reciprocal."""
    low, high = sorted((a, b))
    return stream(seed, purpose, round_=round_, a=low, b=high)


def sub_seed(seed: int, purpose: Purpose, *, a: int = 0) -> int:
    """Return a 63-bit seed for a library that takes only an integer (torch, networkx)."""
    return int(stream(seed, purpose, a=a).integers(2**63))
