"""Which device lives on which GPU: a pure function of what GPUs have and what a device needs.

Memory is all that is looked at. Devices need the same, so each goes where most is left, which spreads them
evenly over equal GPUs and by free memory over others.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.launch.gpus import Gpu, Seen
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.messages import Description

GIB = 2**30
FLOAT_BYTES = 4
CONTEXT_BYTES = 512 * 2**20
"""Of a process that uses CUDA, before it has stored a number: context, kernels, workspaces of cuBLAS.
Assumed, on the high side of the 300 to 500 MB that are usually seen; it depends on card and driver."""
WORKING_VECTORS = 4
"""Vectors as long as the parameters that come and go: in a step of an optimiser, or what arrived, what it is
mixed with, the mass of each number."""
USABLE = 0.9
"""Of what is free; the rest is for what an allocator rounds up to, and for convolutions to work in."""


@dataclass(frozen=True)
class Need:
    """Memory that one device takes on a GPU."""

    context_bytes: int
    vectors_bytes: int
    """Parameters, gradients, moments of the optimiser, and what comes and goes."""
    data_bytes: int
    activations_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.context_bytes + self.vectors_bytes + self.data_bytes + self.activations_bytes

    def __str__(self) -> str:
        return (
            f"{_gib(self.total_bytes)} (CUDA {_gib(self.context_bytes)}, model {_gib(self.vectors_bytes)}, "
            f"data {_gib(self.data_bytes)}, a batch {_gib(self.activations_bytes)})"
        )


@dataclass(frozen=True)
class Placement:
    """Where each device lives, None on the CPU, and what to say of it."""

    gpus: tuple[int | None, ...]
    lines: tuple[str, ...] = ()


def need_of(experiment: Experiment, description: Description) -> Need:
    """Say what a device of an experiment takes: derived for this project, see docs/operations.md."""
    training = experiment.training
    moments = 2 if training.optimiser == "adamw" else int(training.momentum > 0)
    vectors = 2 + moments + WORKING_VECTORS  # parameters and gradients
    return Need(
        context_bytes=CONTEXT_BYTES,
        vectors_bytes=FLOAT_BYTES * vectors * description.num_parameters,
        data_bytes=description.data_bytes,
        activations_bytes=description.activation_bytes,
    )


def candidates(experiment: Experiment, seen: Seen) -> tuple[Gpu, ...]:
    """Return the GPUs that an experiment may have.

    Raises BadInput if it names one that is not there, or needs more than there are.
    """
    wanted = experiment.resources.gpus
    chosen = seen.gpus if isinstance(wanted, str) else tuple(g for g in seen.gpus if g.index in wanted)
    if isinstance(wanted, tuple) and len(chosen) < len(wanted):
        missing = sorted(set(wanted) - {gpu.index for gpu in chosen})
        there = f"has {[gpu.index for gpu in seen.gpus]}" if seen.gpus else f"has none ({seen.why})"
        raise BadInput(
            f"resources.gpus = {list(wanted)}: this host {there}, and no {missing}; list those that there "
            f"are, or use auto"
        )
    if experiment.transport.kind == "nccl" and len(chosen) < experiment.devices:
        raise BadInput(
            f"transport.kind = nccl: each device needs a GPU of its own, and this host has {len(chosen)} for "
            f"{experiment.devices}; use zmq or gloo"
        )
    return chosen


def without_gpus(experiment: Experiment, seen: Seen) -> Placement:
    """Let all devices live on the CPU; where all GPUs were wanted, say why there is none."""
    wanted = experiment.resources.gpus == "all"
    line = f"no GPU here ({seen.why}): devices compute on the CPU"
    return Placement((None,) * experiment.devices, (line,) if wanted else ())


def place(experiment: Experiment, chosen: Sequence[Gpu], description: Description) -> Placement:
    """Give each device the GPU on which most memory is left, within `resources.devices_per_gpu`.

    With `resources.gpus = "auto"` all devices live on the CPU where not all fit. Raises BadInput if they have
    to fit and do not.
    """
    nccl, auto = experiment.transport.kind == "nccl", experiment.resources.gpus == "auto"
    number, most = (
        experiment.devices,
        1 if nccl else experiment.resources.devices_per_gpu or experiment.devices,
    )
    usable = [gpu for gpu in chosen if gpu.index < description.num_gpus]
    if len(usable) < len(chosen):
        problem = (
            f"torch can use {description.num_gpus} of the GPUs that nvidia-smi sees; is it a build with CUDA?"
        )
        return _else_on_the_cpu(problem, number, may=auto and not nccl)
    need = need_of(experiment, description)
    room = {gpu.index: int(USABLE * gpu.free_bytes) // need.total_bytes for gpu in usable}
    fit = {index: min(rooms, most) for index, rooms in room.items()}
    if sum(fit.values()) < number:
        each = ", ".join(
            f"{fit[gpu.index]} on GPU {gpu.index} ({_gib(gpu.free_bytes)} free)" for gpu in usable
        )
        problem = f"{sum(fit.values())} of {number} devices of {need} fit: {each}"
        return _else_on_the_cpu(problem, number, may=auto and not nccl)
    left = {gpu.index: gpu.free_bytes for gpu in usable}
    seats: list[int | None] = []
    for _ in range(number):
        open_ = [index for index in left if seats.count(index) < fit[index]]
        best = max(open_, key=lambda index: (left[index], -index))
        left[best] -= need.total_bytes
        seats.append(best)
    lines = [f"each device needs {need}, and lives where most memory is left"]
    for gpu in usable:
        here = [str(device) for device, index in enumerate(seats) if index == gpu.index]
        devices = f"devices {', '.join(here)}" if here else "no device"
        lines.append(
            f"GPU {gpu.index}, {gpu.name}, {_gib(gpu.free_bytes)} of {_gib(gpu.total_bytes)} free: "
            f"{devices}, which leaves {_gib(left[gpu.index])}"
        )
    return Placement(tuple(seats), tuple(lines))


def _else_on_the_cpu(problem: str, number: int, *, may: bool) -> Placement:
    """Let devices do without GPUs that nobody has insisted on; raises BadInput otherwise."""
    if not may:
        raise BadInput(f"{problem}; use fewer devices, other resources.gpus, or none")
    return Placement((None,) * number, (f"{problem}: devices compute on the CPU",))


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / GIB:.2f} GiB"
