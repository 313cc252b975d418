"""The control plane: what a device and the coordinator say to each other, one tagged union.

A message is one JSON object, at most followed by one binary part (the consensus sample of a report).
Each class says who sends it. The radio never touches these, and no parameters ride here.
"""

from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, TypeAdapter, ValidationError

from protocol.config import Experiment
from protocol.errors import FrameError
from protocol.packet_errors import PacketErrorTable

PROTOCOL_VERSION = 6
SKETCH_SIZE = 256
"""Numbers in the sketch of a gradient."""
CONSENSUS_SAMPLE = 4096
"""Coordinates per device and round from which the consensus distance is estimated."""


Seat: TypeAlias = NonNegativeInt | Literal["seen"] | None
"""Where a device's model lives: on the GPU of this number, on one of those that it sees, or on none."""


class Message(BaseModel):
    """A frozen message that refuses unknown keys."""

    # JSON has no number for what a diverged model reports: such numbers travel as "NaN" and "Infinity".
    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")


class Hello(Message):
    """Device: I am here, tell me who I am."""

    kind: Literal["hello"] = "hello"
    protocol: int = PROTOCOL_VERSION
    pid: int
    host: str
    rank: NonNegativeInt | None = None
    """Its number among all processes, where torchrun started it: it wants to be this device."""
    world_size: NonNegativeInt | None = None
    """How many processes torchrun started."""


class Welcome(Message):
    """Coordinator: you are this device of this run, and this is the experiment."""

    kind: Literal["welcome"] = "welcome"
    run_id: str
    epoch: NonNegativeInt
    device: NonNegativeInt
    incarnation: NonNegativeInt
    experiment: Experiment
    run_dir: str
    gpu: Seat = None


class Refuse(Message):
    """Coordinator: I will not take you, and this is why."""

    kind: Literal["refuse"] = "refuse"
    reason: str


class Ready(Message):
    """Device: my data, model and sockets stand; neighbours reach me at this address."""

    kind: Literal["ready"] = "ready"
    address: str
    schema_hash: str
    num_parameters: int
    payload_bytes: int
    num_samples: int


class Neighbour(Message):
    """One neighbour as a device needs to know it: where it is, how much it counts, how well both hear."""

    device: NonNegativeInt
    incarnation: NonNegativeInt
    address: str
    weight: float
    mean_snr_db: float
    """Mean Es/N0 of its signal here."""
    mean_snr_there_db: float
    """Mean Es/N0 of this device's signal there."""
    slot: NonNegativeInt
    """Its colour."""
    turn: NonNegativeInt
    """Which of its neighbours, in order, this device is."""
    position_m: tuple[float, float]


class TreePlace(Message):
    """A device's place in a tree: whom it sums up, and whom it tells so."""

    kind: Literal["tree"] = "tree"
    members: NonNegativeInt
    """Devices in the tree."""
    parent: NonNegativeInt | None
    """None: this device is the root."""
    turn: NonNegativeInt
    """Which of its parent's children, in order, it is."""
    children: tuple[NonNegativeInt, ...]
    max_children: NonNegativeInt
    """Children of the device that has most."""
    height: NonNegativeInt
    """Links on the longest way down to a leaf: each waits for the one below it."""


class RingPlace(Message):
    """A device's place in a ring."""

    kind: Literal["ring"] = "ring"
    members: NonNegativeInt
    """Devices in the ring."""
    position: NonNegativeInt
    previous: NonNegativeInt
    next: NonNegativeInt


class Schedule(Message):
    """Coordinator: how to average in the rounds from this one on, until the next schedule is due.

    Everybody gets the one of an epoch or nobody does: it is sent when all who live have told their gains.
    """

    kind: Literal["schedule"] = "schedule"
    round: NonNegativeInt
    place: TreePlace | RingPlace | None
    """None: gossip."""


class Prospect(Message):
    """What a device has to reckon with before it has seen a round."""

    local_rounds: NonNegativeInt
    """Of its first round."""
    mean_local_rounds: float
    """Of the first round: harmonic mean over all devices that train in it."""
    exchange_j: float
    """What averaging is expected to cost this device in a round, waiting included."""
    exchange_air_s: float
    """How long that is expected to take it, once all are ready."""
    waiting_air_s: float
    """How long it is expected to wait for slower devices before that."""


class Start(Message):
    """Coordinator: everybody is ready; this is your row of the graph. Begin."""

    kind: Literal["start"] = "start"
    neighbours: tuple[Neighbour, ...]
    slot: NonNegativeInt
    """Colour of this device; devices of one colour are at least three hops apart."""
    num_slots: NonNegativeInt
    """Colours of the graph."""
    max_degree: NonNegativeInt
    """Neighbours of the device that has most."""
    position_m: tuple[float, float]
    packet_errors: tuple[PacketErrorTable, ...] = ()
    schedule: Schedule | None = None
    """Of the first rounds; none where all gossip."""
    prospect: Prospect
    rendezvous: str = ""
    """With gloo and nccl: where all devices meet, at device 0; empty where torchrun has a place for it."""


class Averaged(Message):
    """What came of averaging along a tree or a ring in one round."""

    kind: Literal["tree", "ring"]
    broken: bool
    """Somebody it needed was gone, so the device went on with gossip."""
    blocks: NonNegativeInt
    """Packets that the parameters fill."""
    blocks_kept: NonNegativeInt
    """Those of which no mean came, so that the device kept its own numbers."""
    contributors_min: NonNegativeInt
    """Devices in the mean of the block that has fewest; 0 where no mean came."""
    contributors_mean: float
    """Devices in the mean of a block, on average over those that came."""


class Heard(Message):
    """What passed between a device and one neighbour in one round.

    `packets_lost` of the neighbour's packets were not mixed although it was heard: they stayed corrupted
    here or there (when losses are symmetric), its sender was silent in a deep fade (analog), or they came
    late by the model's clock or not finite, which only a diverged model sends.
    A frame that is missing as `wall` or `dead` is counted as that and not in packets.
    """

    packets_sent: int
    """This device's own packets to it, each counted once however often it was sent."""
    packets_resent: int
    """Packets of further attempts to it."""
    attempts: int
    """Transmissions of parameters heard from it."""
    packets_corrupted: int
    """Its packets that failed their CRC, in all attempts."""
    packets_lost: int
    bit_errors: int
    tx_air_s: float
    """Airtime of what this device sent it, acknowledgements included; a broadcast's is divided."""
    rx_air_s: float
    """Airtime of what this device heard from it."""
    tx_j: float
    rx_j: float
    missing: Literal["", "air", "wall", "dead"] = ""
    """Why nothing was mixed: late by the model's clock; silent on the host's, or gone on without us; dead."""
    stale_rounds: NonNegativeInt = 0
    """How many rounds older than this one the frame was that was mixed (`aggregation.staleness_rounds`)."""


class Spent(Message):
    """A device's modelled clock, and what a round cost it beside its links (`Heard` has those)."""

    air_s: float
    """Modelled seconds since the start, at the end of this round."""
    compute_air_s: float
    """Modelled seconds of computing."""
    slot_wait_air_s: float
    """Modelled seconds in which it was ready to send and waited for its slot."""
    compute_j: float
    idle_j: float
    """What it draws all the time; computing, sending and receiving come on top."""


class Stages(Message):
    """Host seconds of each stage of one round, in the order in which they happen."""

    train: float
    encode: float
    send: float
    wait: float
    air: float
    decode: float
    mix: float
    pace: float


class Pilot(Message):
    """What a device has measured at its model at the start of a round, before it trained."""

    loss: float
    """Mean over both minibatches."""
    difference_norm_sq: float
    """||g - g'||^2, of two minibatches drawn independently of each other."""
    sketch: Annotated[tuple[float, ...], Field(min_length=SKETCH_SIZE, max_length=SKETCH_SIZE)]
    """Of their mean (g + g') / 2: linear, the same for all devices, and in the mean of its own norm."""
    secant: float | None
    """||gradient change|| / ||movement|| on one minibatch along its own step; none where it vanishes."""


class Report(Message):
    """Device: one round is done. Followed by the binary consensus sample, float32 little-endian."""

    kind: Literal["report"] = "report"
    run_id: str
    device: NonNegativeInt
    round: NonNegativeInt
    loss: float | None
    """Mean training loss of the local rounds; absent without one, as while catching up with neighbours."""
    accuracy: float | None
    """Share of the test set classified correctly; absent where this round was not evaluated."""
    test_loss: float | None
    bytes_sent: int
    heard: dict[int, Heard]
    dropped: dict[str, int]
    """Frames dropped at the door this round, as `sender: reason` -> count."""
    spent: Spent
    averaged: Averaged | None = None
    """Absent in rounds in which this device did nothing but gossip."""
    pilot: Pilot | None = None
    """Of pilot rounds (`training.pilot_rounds`)."""
    deadlines_missed: int = 0
    """With a paced clock: deadlines of this round that the host did not keep."""
    wall_s: float
    """Host seconds that this round took, evaluation left out."""
    stages_wall_s: Stages


class Gains(Message):
    """Device: this is how well I hear my neighbours; tell me how to average from this round on."""

    kind: Literal["gains"] = "gains"
    round: NonNegativeInt
    snr_db: dict[int, float]
    """Es/N0 of each neighbour, fades included, as it was in the round before."""


class Done(Message):
    """Device: I have finished (or was told to stop); my parameters are on disk."""

    kind: Literal["done"] = "done"
    run_id: str
    device: NonNegativeInt
    rounds: int
    parameters: str
    why_early: str = ""
    """Why it leaves before the last round: its budgets do not pay for another exchange."""


class Failed(Message):
    """Device: I cannot go on, and this is why."""

    kind: Literal["failed"] = "failed"
    reason: str
    bad_input: bool = False
    """What the user gave is at fault, not the run."""


class NeighbourDied(Message):
    """Coordinator: this life of your neighbour has ended; do not wait for it."""

    kind: Literal["neighbour_died"] = "neighbour_died"
    device: NonNegativeInt
    incarnation: NonNegativeInt


class Stop(Message):
    """Coordinator: break off the round you are in, write your parameters, leave."""

    kind: Literal["stop"] = "stop"
    failure: str = ""
    """Why the run has failed, so that nothing need be written; empty where somebody ended it."""


class Bye(Message):
    """Coordinator: everybody is done; you may close your sockets."""

    kind: Literal["bye"] = "bye"


class Description(Message):
    """`python -m node --describe`: the model and data of an experiment, in one JSON object on stdout."""

    num_parameters: int
    num_train: int
    num_test: int
    samples_per_class: tuple[tuple[int, ...], ...]
    """One row per device, one column per class."""
    data_found: str = ""
    """Which parts of a data set that consists of files were there; empty for one that is made."""
    data_bytes: int = 0
    """Of the largest share and the test set, as a model takes them."""
    activation_bytes: int = 0
    """What a batch leaves behind for the backward pass, as often as it is saved."""
    num_gpus: int = 0
    """Which torch can use."""


class Survey(Message):
    """`python -m node --survey FILE`: what a device of FILE would find on this machine, and would hold.

    Nothing is downloaded, unpacked or written.
    """

    num_parameters: int
    sample_bytes: int
    """Bytes of a training sample as a model takes it."""
    activation_bytes: int
    """Bytes that are kept of one sample from the forward to the backward pass."""
    num_samples: tuple[int, ...]
    """Training samples of each device; of files that are yet to be downloaded or unpacked an even split."""
    num_test: int
    data_folder: str = ""
    """Where files are looked for; empty for a data set that is made."""
    data_found: str = ""
    """Which files of it are there and sound."""
    data_missing: tuple[str, ...] = ()
    """What would be downloaded before the start."""
    data_bytes: int = 0
    """Size of the unpacked files."""
    data_fault: str = ""
    """Which file cannot be used, and why."""
    torch: str
    torch_cuda: str = ""
    """CUDA version that torch was built with; empty: none."""
    num_gpus: int = 0
    """GPUs that torch can use."""


FromDevice: TypeAlias = Annotated[Hello | Ready | Report | Gains | Done | Failed, Field(discriminator="kind")]
FromCoordinator: TypeAlias = Annotated[
    Welcome | Refuse | Start | Schedule | NeighbourDied | Stop | Bye, Field(discriminator="kind")
]
_FROM_DEVICE: TypeAdapter[FromDevice] = TypeAdapter(FromDevice)
_FROM_COORDINATOR: TypeAdapter[FromCoordinator] = TypeAdapter(FromCoordinator)


def pack(message: Message) -> bytes:
    """Write a message as JSON."""
    return message.model_dump_json().encode()


def from_device(data: bytes) -> FromDevice:
    """Read what a device said; raises FrameError if it is no message of this protocol."""
    try:
        return _FROM_DEVICE.validate_json(data)
    except ValidationError as error:
        raise FrameError(_reason(error)) from error


def from_coordinator(data: bytes) -> FromCoordinator:
    """Read what the coordinator said; raises FrameError if it is no message of this protocol."""
    try:
        return _FROM_COORDINATOR.validate_json(data)
    except ValidationError as error:
        raise FrameError(_reason(error)) from error


def _reason(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    return f"control message: {where + ': ' if where else ''}{first['msg']}"
