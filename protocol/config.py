"""The experiment: every knob of a run, in frozen models that refuse what cannot work.

Numbers carry their unit in their name. Cross-checks run when the model is built, so an experiment
that exists is one that can be planned.
"""

from math import inf, isfinite, sqrt
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from protocol.budget import Budget
from protocol.learning import Data, Model, Training
from protocol.problem import Theory
from protocol.quantities import PerDevice
from protocol.radio import Device, Mobility, Radio
from protocol.resources import Resources
from protocol.section import Section

CodecKind = Literal["float32", "float16", "int8"]

MAX_LEGS = 1000
"""Walks across the area that a device may take between two rounds."""


class Codec(Section):
    """How a parameter vector becomes radio packets."""

    kind: CodecKind = "float32"
    """Number format on the air; int8 rounds stochastically (unbiased) with one scale per packet."""
    packet_bytes: Annotated[int, Field(ge=16, le=65_536)] = 512
    """Size of one radio packet, checksum and scale included."""


class Aggregation(Section):
    """How devices combine what they learned."""

    scheme: Literal["gossip", "tree", "ring", "auto", "isolated"] = "gossip"
    """Mix with the neighbours, average exactly along a tree or a ring, choose; or never talk (a baseline)."""
    epoch_rounds: Annotated[int, Field(ge=1, le=1_000_000)] = 10
    """With `tree`, `ring` and `auto`: rounds between two schedules."""
    chunks: Annotated[int, Field(ge=1, le=4096)] = 8
    """With `tree`: chunks of the parameters that follow each other up and down."""
    sweeps: Annotated[int, Field(ge=1, le=1000)] = 1
    """Exchanges with the neighbours in a round, each mixed before the next."""
    staleness_rounds: Annotated[int, Field(ge=0, le=1000)] = 0
    """With `gossip`: rounds by which what a neighbour last sent may be older than this device's own round,
    which then goes on without waiting for anything newer; 0: all wait for each other in every round."""
    round_deadline_air_s: Annotated[float, Field(gt=0)] = inf
    """Modelled seconds after its own transmission begins in which a device accepts this round's frames; with
    `tree` and `ring` a partial mean that waited for n others in a row has 1 + n times as long."""
    step: Annotated[float, Field(gt=0, le=1)] = 1.0
    """Damping g of the first round's mixing: x moves by g times what the neighbours pull."""
    step_decay_rounds: Annotated[float, Field(gt=0)] = inf
    """Rounds in which the step begins to fall: g_k = step / (1 + k / step_decay_rounds) ^ step_exponent."""
    step_exponent: Annotated[float, Field(ge=0, le=1)] = 0.75
    """Exponent of the falling step; above 0.5, noise of constant power dies out, up to 1 gossip does not."""

    @property
    def is_scheduled(self) -> bool:
        """Whether the coordinator issues schedules, which may be of gossip."""
        return self.scheme in ("tree", "ring", "auto")


class Graph(Section):
    """Who can hear whom, and where devices stand."""

    kind: Literal[
        "ring", "torus", "complete", "star", "erdos_renyi", "watts_strogatz", "geometric", "expander", "edges"
    ] = "ring"
    """Family of the graph."""
    area_m: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 100.0
    """Side of the square in which devices are placed at random."""
    radius_m: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 60.0
    """With `geometric`: devices at most this far apart are neighbours."""
    probability: Annotated[float, Field(gt=0, le=1)] = 0.3
    """With `erdos_renyi`: chance of each edge; with `watts_strogatz`: chance of rewiring each edge."""
    degree: Annotated[int, Field(ge=2)] = 4
    """With `watts_strogatz` and `expander`: neighbours per device."""
    rows: Annotated[int, Field(ge=0)] = 0
    """With `torus`: number of rows; 0 chooses the squarest."""
    file: str = ""
    """With `edges`: a text file with one edge (two device numbers) a line."""
    weights: Literal["metropolis", "max_degree", "uniform"] = "metropolis"
    """Rule of the mixing matrix; `uniform` needs a regular graph."""


class Transport(Section):
    """What carries the frames between devices on the real wire."""

    kind: Literal["zmq", "memory", "gloo", "nccl"] = "zmq"
    """ZeroMQ over TCP, one process per device; all devices as threads of one process; or torch.distributed, a
    rank for each device, which all go in step (nccl: on a GPU of its own each)."""
    queue_bytes: Annotated[int, Field(ge=65_536, le=2**40)] = 32 * 2**20
    """Bound on what may wait at each end of a link; never less than four frames, and four for each round of
    `aggregation.staleness_rounds`."""

    @property
    def in_step(self) -> bool:
        """Whether nobody can go on without the others."""
        return self.kind in ("gloo", "nccl")


class Runtime(Section):
    """The host that runs the devices: real seconds and threads."""

    liveness_wall_s: Annotated[float, Field(gt=0, le=86_400)] = 30.0
    """Silence on the host's clock after which a neighbour is not waited for; after twice this it is lost."""
    coordinator_grace_s: Annotated[float, Field(ge=0)] = 5.0
    """How long a device goes on without the coordinator; inf: to the end of the run."""
    join_wall_s: Annotated[float, Field(gt=0, le=86_400)] = 120.0
    """How long the start may take until every device is ready."""
    torch_threads: Annotated[int, Field(ge=1, le=1024)] = 1
    """Threads of torch in each device."""
    clock: Literal["virtual", "paced", "wall"] = "virtual"
    """Modelled seconds without waiting; each waited for on the host's clock; or none at all (a benchmark)."""
    pace: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    """With `clock = "paced"`: host seconds per modelled second."""
    pace_slack_wall_s: Annotated[float, Field(gt=0, le=60)] = 0.02
    """With `clock = "paced"`: host seconds by which a deadline may be passed before it counts as missed."""


class Experiment(Section):
    """One run, complete: what is learned, by whom, over which air."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")] = "experiment"
    """Name of the run; it becomes part of the folder's name."""
    seed: Annotated[int, Field(ge=0, lt=2**63)] = 1
    """Seed of everything random."""
    devices: Annotated[int, Field(ge=1, le=4096)] = 8
    """Number of devices."""
    rounds: Annotated[int, Field(ge=1, le=10_000_000)] = 30
    """Number of rounds."""
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    codec: Codec = Codec()
    aggregation: Aggregation = Aggregation()
    graph: Graph = Graph()
    radio: Radio = Radio()
    mobility: Mobility = Mobility()
    device: Device = Device()
    budget: Budget = Budget()
    theory: Theory = Theory()
    transport: Transport = Transport()
    runtime: Runtime = Runtime()
    resources: Resources = Resources()

    @property
    def may_use_gpus(self) -> bool:
        """Whether models live on GPUs where there are some: not if the processor's time is measured."""
        gpus = self.resources.gpus
        return gpus != "none" and not (gpus == "auto" and self.device.compute == "measured")

    @model_validator(mode="after")
    def _what_cannot_work_together(self) -> Self:
        graph, n = self.graph, self.devices
        if graph.kind == "torus":
            rows = torus_rows(n, graph.rows)
            if rows < 2 or n % rows:
                raise ValueError(f"graph.kind = torus: {n} devices do not fill a grid of two rows or more")
        if graph.kind in ("watts_strogatz", "expander") and graph.degree >= n:
            raise ValueError(f"graph.degree = {graph.degree}: must be below the {n} devices")
        if graph.kind == "watts_strogatz" and graph.degree % 2:
            raise ValueError(
                f"graph.degree = {graph.degree}: watts_strogatz joins a device to as many before it as "
                f"after it; use an even degree ({graph.degree - 1} or {graph.degree + 1})"
            )
        if graph.kind == "expander" and graph.degree * n % 2:
            raise ValueError(
                f"graph.degree = {graph.degree}: no graph has an odd degree at each of {n} devices; "
                f"use an even degree or an even number of devices"
            )
        if graph.kind == "edges" and not graph.file:
            raise ValueError("graph.kind = edges: needs graph.file")
        if graph.kind == "star" and graph.weights == "uniform" and n > 2:
            raise ValueError(
                "graph.weights = uniform: needs a regular graph; a star is none (use metropolis)"
            )
        self._what_the_model_cannot_take()
        if self.data.dataset == "synthetic" and self.data.num_samples < 2 * self.data.num_classes:
            raise ValueError(
                f"data.num_samples = {self.data.num_samples}: needs two for each of "
                f"{self.data.num_classes} classes"
            )
        self._what_does_not_fit_the_devices()
        self._what_the_air_cannot_carry()
        self._what_no_clock_can_tell()
        self._what_cannot_be_kept_to()
        self._what_cannot_adapt()
        self._what_cannot_be_stale()
        self._what_cannot_go_in_step()
        self._what_no_gpu_can_be()
        return self

    def _what_no_gpu_can_be(self) -> None:
        resources, nccl = self.resources, self.transport.kind == "nccl"
        measured = self.device.compute == "measured"
        gpus = resources.gpus if isinstance(resources.gpus, str) else list(resources.gpus)
        if isinstance(resources.gpus, tuple) and len(set(resources.gpus)) < len(resources.gpus):
            raise ValueError(f"resources.gpus = {gpus}: names each GPU once")
        if measured and (nccl or gpus not in ("auto", "none")):
            where = "transport.kind = nccl" if nccl else f"resources.gpus = {gpus}"
            raise ValueError(
                f"device.compute = measured: counts the processor's time, and with {where} a GPU does the "
                f"work; set device.compute = modelled"
            )
        if nccl and (gpus == "none" or resources.devices_per_gpu > 1):
            setting = (
                "resources.gpus = none"
                if gpus == "none"
                else f"resources.devices_per_gpu = {resources.devices_per_gpu}"
            )
            raise ValueError(
                f"transport.kind = nccl: each device needs a GPU of its own, which does not go with "
                f"{setting} (use zmq or gloo)"
            )

    def _what_cannot_go_in_step(self) -> None:
        aggregation = self.aggregation
        if not self.transport.in_step:
            return
        contradictions = {
            f"aggregation.scheme = {aggregation.scheme}": aggregation.is_scheduled,
            f"aggregation.staleness_rounds = {aggregation.staleness_rounds}": aggregation.staleness_rounds
            > 0,
            **{f"budget.{limit}": True for limit in self.budget.limited},
        }
        for setting, is_so in contradictions.items():
            if is_so:
                raise ValueError(
                    f"transport.kind = {self.transport.kind}: devices wait for all their neighbours in every "
                    f"round, which does not go with {setting} (use zmq)"
                )

    def _what_cannot_adapt(self) -> None:
        training, device = self.training, self.device
        if device.frequency == "just_in_time" and not {"seconds", "run_seconds"} & set(self.budget.limited):
            raise ValueError(
                "device.frequency = just_in_time: meets a deadline, and there is none; set budget.seconds"
            )
        if not training.is_adaptive:
            return
        if self.radio.scheme == "analog":
            raise ValueError(
                "training.local_rounds = adaptive: devices tell each other of it in frames of packets, and "
                "radio.scheme = analog has none; set a number"
            )
        if self.runtime.clock == "wall":
            raise ValueError(
                "training.local_rounds = adaptive: follows modelled joules and seconds, and runtime.clock = "
                "wall keeps none; use virtual or paced"
            )
        if not self.budget.limited and self.theory.constants is None:
            raise ValueError(
                "training.local_rounds = adaptive: nothing limits them; set a [budget], or all of "
                "theory.smoothness, gradient_variance, heterogeneity and initial_gap"
            )
        if training.optimiser == "adamw" and training.averaging == "normalised":
            raise ValueError(
                "training.averaging = normalised: divides by the steps of SGD, which mean nothing to "
                "training.optimiser = adamw; use plain"
            )

    def _what_cannot_be_stale(self) -> None:
        aggregation, radio = self.aggregation, self.radio
        if not aggregation.staleness_rounds:
            return
        digital, deadline_s = radio.scheme == "digital", aggregation.round_deadline_air_s
        contradictions = {
            f"aggregation.scheme = {aggregation.scheme} (use gossip)": aggregation.is_scheduled,
            f"aggregation.sweeps = {aggregation.sweeps} (use 1)": aggregation.sweeps > 1,
            f"aggregation.round_deadline_air_s = {deadline_s:g} (leave it out)": isfinite(deadline_s),
            "radio.scheme = analog (use digital)": radio.scheme == "analog",
            "radio.symmetric = true (use false)": digital and radio.symmetric,
            f"radio.arq = {radio.arq} (use none)": digital and radio.arq != "none",
            "radio.bad_packets = accept (use erase)": digital and radio.bad_packets == "accept",
            "training.local_rounds = adaptive (set a number)": self.training.is_adaptive,
        }
        for setting, is_so in contradictions.items():
            if is_so:
                raise ValueError(
                    f"aggregation.staleness_rounds = {aggregation.staleness_rounds}: frames of different "
                    f"rounds are mixed, which does not go with {setting}"
                )

    def _what_does_not_fit_the_devices(self) -> None:
        per_device: dict[str, PerDevice] = {
            "device.cpu_hz": self.device.cpu_hz,
            "device.cycles_per_sample": self.device.cycles_per_sample,
            "device.switched_capacitance": self.device.switched_capacitance,
            "radio.tx_power_dbm": self.radio.tx_power_dbm,
            "budget.joules": self.budget.joules,
            "budget.seconds": self.budget.seconds,
        }
        for key, quantity in per_device.items():
            if isinstance(quantity, tuple) and len(quantity) != self.devices:
                raise ValueError(
                    f"{key}: lists {len(quantity)} numbers for {self.devices} devices; expected one for each"
                )

    def _what_the_model_cannot_take(self) -> None:
        model, side = self.model, self.data.image_side
        if model.kind != "mlp" and side is None:
            raise ValueError(
                f"model.kind = {model.kind}: synthetic samples are no images (use model.kind = mlp)"
            )
        if model.kind == "vit" and side is not None and side % model.patch_size:
            raise ValueError(
                f"model.patch_size = {model.patch_size}: must divide the {side} pixels of an image's side"
            )
        if model.kind == "vit" and model.width % model.heads:
            raise ValueError(f"model.heads = {model.heads}: must divide model.width = {model.width}")
        if model.kind == "vit" and model.norm == "none":
            raise ValueError("model.norm = none: a vit has LayerNorm in any case (leave model.norm out)")
        if self.training.optimiser == "adamw" and self.training.momentum:
            raise ValueError(
                f"training.momentum = {self.training.momentum:g}: is SGD's; with training.optimiser = adamw "
                f"set training.adamw_betas"
            )

    def _what_the_air_cannot_carry(self) -> None:
        if self.radio.scheme == "analog" and self.aggregation.is_scheduled:
            raise ValueError(
                f"aggregation.scheme = {self.aggregation.scheme}: partial means travel in packets, and "
                f"radio.scheme = analog has none (use gossip)"
            )
        if self.radio.scheme == "analog" and self.codec.kind != "float32":
            raise ValueError(
                f"codec.kind = {self.codec.kind}: an analog radio sends the numbers themselves (use float32)"
            )
        if self.mobility.kind != "none" and self.radio.snr != "geometry":
            raise ValueError(
                f"mobility.kind = {self.mobility.kind}: moves links whose SNR comes from the geometry, and "
                f"radio.snr = {self.radio.snr}"
            )

        walked_m = self.mobility.speed_max_m_s * self.mobility.round_s
        if self.mobility.kind != "none" and walked_m > MAX_LEGS * self.graph.area_m:
            raise ValueError(
                f"mobility.round_s = {self.mobility.round_s:g}: devices of up to "
                f"{self.mobility.speed_max_m_s:g} m/s would cross an area of {self.graph.area_m:g} m more "
                f"than {MAX_LEGS:,} times between two rounds"
            )

    def _what_no_clock_can_tell(self) -> None:
        clock = self.runtime.clock
        if clock == "wall" and isfinite(self.aggregation.round_deadline_air_s):
            raise ValueError(
                "runtime.clock = wall: keeps no modelled time, so aggregation.round_deadline_air_s can "
                "neither pass nor be kept; use virtual or paced"
            )
        if clock == "paced" and self.transport.kind == "memory":
            raise ValueError(
                "runtime.clock = paced: devices that share one interpreter (transport.kind = memory) wait "
                "for each other's computing; use zmq"
            )
        if self.device.compute == "measured" and self.runtime.torch_threads > 1:
            raise ValueError(
                "device.compute = measured: counts the processor time of one thread; "
                "set runtime.torch_threads = 1"
            )

    def _what_cannot_be_kept_to(self) -> None:
        if not self.budget.limited:
            return
        key = f"budget.{self.budget.limited[0]}"
        if self.training.pilot_rounds:
            raise ValueError(
                f"training.pilot_rounds = {self.training.pilot_rounds}: what they cost is in no plan, so "
                f"{key} would not be kept to; leave one of them out (hearsay plan --pilot measures apart)"
            )
        if self.runtime.clock == "wall":
            raise ValueError(
                f"{key}: is a limit of modelled seconds and joules, and runtime.clock = wall keeps none; "
                f"use virtual or paced"
            )
        if self.device.compute == "measured":
            raise ValueError(
                f"{key}: can only be kept to where the cost of computing is known beforehand; "
                f"set device.compute = modelled"
            )


def torus_rows(num_devices: int, rows: int) -> int:
    """Return the rows of a torus of num_devices: as asked, or the largest divisor up to its square root."""
    if rows:
        return rows
    return max(d for d in range(1, int(sqrt(num_devices)) + 1) if num_devices % d == 0)
