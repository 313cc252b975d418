"""The events of a run, one JSON line each in `events.jsonl`: what happened, in the order it was learned.

A device's `Report` is stored as it was sent (protocol/messages.py); the others are the coordinator's own.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, NonNegativeInt, TypeAdapter

from protocol.messages import Message, Report


class Edge(Message):
    """One link of the graph as it was planned; numbers in pairs are those at each of its devices."""

    devices: tuple[NonNegativeInt, NonNegativeInt]
    weight: float
    mean_snr_db: tuple[float, float]
    """How well each hears the other, mean over the fading."""
    packet_loss: tuple[float, float]
    """Expected share of the other's packets that fail there, at one attempt."""


class Started(Message):
    """Everybody was ready and the first round began."""

    kind: Literal["started"] = "started"
    run_id: str
    num_parameters: int
    payload_bytes: int
    """Bytes of one frame of parameters, without its header."""
    pids: tuple[int, ...]
    """Process of each device, on its own host."""
    num_samples: tuple[int, ...]
    """Training samples of each device."""
    scheme: Literal["ideal", "digital", "analog"] = "digital"
    """Of the radio."""
    clock: Literal["virtual", "paced", "wall"] = "virtual"
    """What modelled seconds are: not waited for, waited for, or not kept at all."""
    positions_m: tuple[tuple[float, float], ...]
    edges: tuple[Edge, ...]
    startup_wall_s: float
    """Host seconds from the first launch to this moment."""


class Scheduled(Message):
    """How devices average from a round on, as the coordinator has laid it out."""

    kind: Literal["scheduled"] = "scheduled"
    round: NonNegativeInt
    scheme: Literal["tree", "ring", "gossip"]
    reason: str
    """Why, in one line."""
    parents: tuple[int, ...] = ()
    """Of a tree: the parent of each device, -1 for the root, -2 for those that take no part."""
    order: tuple[NonNegativeInt, ...] = ()
    """Of a ring: its devices in their order."""
    joules: float
    """What one aggregation is expected to cost all devices."""
    tx_joules: float
    """Of that, for sending."""
    air_s: float
    """How long it is expected to take."""
    alternatives_j: dict[str, float]
    """What it would cost in every scheme that the links allow."""


class Consensus(Message):
    """How far apart the devices' parameters are after a round, from the sampled coordinates."""

    kind: Literal["consensus"] = "consensus"
    round: NonNegativeInt
    distance: float
    """sqrt of the mean over devices of the squared distance to the mean parameters, L2."""
    devices: int
    """Devices that were counted."""


class Died(Message):
    """A device is gone before it was done."""

    kind: Literal["died"] = "died"
    device: NonNegativeInt
    rounds: int
    """Rounds it had reported."""
    reason: str
    wall_s: float
    """Host seconds since the start."""


class Left(Message):
    """A device was done before the last round: its budgets paid for no more."""

    kind: Literal["left"] = "left"
    device: NonNegativeInt
    rounds: int
    """Rounds that it completed."""
    reason: str


class Ended(Message):
    """The run is over."""

    kind: Literal["ended"] = "ended"
    how: Literal["finished", "stopped"]
    rounds: tuple[int, ...]
    """Rounds that each device completed."""
    wall_s: float
    """Host seconds since the start."""


Event: TypeAlias = Annotated[
    Started | Scheduled | Report | Consensus | Died | Left | Ended, Field(discriminator="kind")
]
EVENT: TypeAdapter[Event] = TypeAdapter(Event)
