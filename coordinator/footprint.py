"""What a run takes of the machine that holds it: memory, descriptors, threads, disk.

Counted where it can be (vectors of parameters, frames, samples, activations), and measured where it
cannot: a process that has done nothing yet. `tests/test_footprint.py` holds it against real runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from coordinator.topology import build
from protocol.air import frame_layout
from protocol.config import Experiment
from protocol.messages import Survey

MIB = 2**20
# Measured as the sum of proportional set sizes of all processes, in eight runs on x86-64 with Python 3.11 and
# torch 2.13 for CPUs; the model is within a third of each.
COORDINATOR_BYTES = 85 * MIB
"""Of `hearsay run`, and what multiprocessing starts beside it: 82 to 85 MiB."""
FORK_SERVER_BYTES = 320 * MIB
"""Of torch, torch._dynamo and what else devices share, wherever it counts: 290 MiB, 385 with scikit-learn."""
FORKED_BYTES = 25 * MIB
"""What a forked device has to itself before it holds anything: 18 MiB, 27 with convolutions."""
LONE_BYTES = 330 * MIB
"""The same of a device that was not forked, in a container or under torchrun: 280 MiB, and files of torch."""
CUDA_BYTES = 500 * MIB
"""GPU memory of a process before it holds anything: assumed, since no device computes on a GPU yet."""
ACTIVATIONS = 2
"""What layers keep for the backward pass counts twice: for gradients by it, and work space."""

# Counted in the same runs; ZeroMQ has two contexts in a process that sends frames without a copy.
COORDINATOR_DESCRIPTORS, DESCRIPTORS_PER_DEVICE = 24, 3
"""Of the coordinator: to start with, and for each device's process and connection."""
DEVICE_DESCRIPTORS, DESCRIPTORS_PER_NEIGHBOUR = 32, 3
"""Of a device: to start with, and for each neighbour's two connections."""
HOSTED_DESCRIPTORS, HOSTED_PER_DEVICE, HOSTED_PER_NEIGHBOUR = 24, 6, 1
"""Of a process that hosts all devices: to start with, for each of them, and for each of its neighbours."""
DEVICE_THREADS = 6
"""Of a process with one thread of torch: its own, and ZeroMQ's."""
REPORT_BYTES, HEARD_BYTES = 700, 300
"""A device's line in `events.jsonl`: to start with, and for each neighbour."""
FOLDER_BYTES = MIB
"""Everything else in a run's folder: pictures, summary, experiment."""
FLOAT32_BYTES = 4


@dataclass(frozen=True)
class Footprint:
    """What one run takes; memory and disk are None where no device could be asked."""

    devices: int
    num_processes: int
    """In which the devices live."""
    threads_per_process: int
    descriptors: int
    """Open files to start with of the process that has more with every device, and ..."""
    descriptors_per_device: float
    neighbour_descriptors: int
    """Open files of the device that has most neighbours."""
    shared_bytes: int
    """Memory that does not grow with the number of devices."""
    forked_bytes: int
    """Memory of each of those processes before it holds anything."""
    device_bytes: tuple[int, ...] | None
    """What each device holds: vectors, frames, samples, activations."""
    disk_bytes: int | None

    @property
    def mean_device_bytes(self) -> float:
        """Return what one more device takes, its process included; 0 where nothing is known."""
        own = sum(self.device_bytes or ()) + self.num_processes * self.forked_bytes
        return own / self.devices if self.device_bytes else 0.0

    @property
    def memory_bytes(self) -> int:
        """Return what the whole run takes at its height."""
        return self.shared_bytes + round(self.devices * self.mean_device_bytes)

    @property
    def gpu_bytes(self) -> int:
        """Return what the device that holds most takes of a GPU's memory."""
        return CUDA_BYTES + max(self.device_bytes or (0,))

    @property
    def container_bytes(self) -> tuple[int, ...]:
        """What each device takes in a container of its own."""
        return tuple(LONE_BYTES + own for own in self.device_bytes or ())


def footprint(experiment: Experiment, survey: Survey | None) -> Footprint:
    """Work out what a run takes; survey: what a device found, or None if none could be asked.

    Raises BadInput where there is no such graph.
    """
    degrees, hosted = _degrees(experiment), experiment.transport.kind == "memory"
    links = sum(degrees)
    hosted_per_device = HOSTED_PER_DEVICE + HOSTED_PER_NEIGHBOUR * links / experiment.devices
    threads = DEVICE_THREADS + experiment.runtime.torch_threads - 1
    return Footprint(
        devices=experiment.devices,
        num_processes=1 if hosted else experiment.devices,
        threads_per_process=threads + (experiment.devices if hosted else 0),
        descriptors=HOSTED_DESCRIPTORS if hosted else COORDINATOR_DESCRIPTORS,
        descriptors_per_device=hosted_per_device if hosted else DESCRIPTORS_PER_DEVICE,
        neighbour_descriptors=0 if hosted else DEVICE_DESCRIPTORS + DESCRIPTORS_PER_NEIGHBOUR * max(degrees),
        shared_bytes=COORDINATOR_BYTES + FORK_SERVER_BYTES + _mapped_bytes(experiment, survey),
        forked_bytes=FORKED_BYTES,
        device_bytes=_device_bytes(experiment, survey, degrees) if survey else None,
        disk_bytes=_disk_bytes(experiment, survey, links) if survey else None,
    )


def _degrees(experiment: Experiment) -> list[int]:
    graph = build(experiment.graph, experiment.devices, seed=experiment.seed)
    if experiment.aggregation.scheme == "isolated":
        graph.clear_edges()
    return [graph.degree[device] for device in range(experiment.devices)]


def _device_bytes(experiment: Experiment, survey: Survey, degrees: Sequence[int]) -> tuple[int, ...]:
    """Count what each device holds beside its process."""
    frame = frame_layout(experiment, survey.num_parameters).payload_bytes
    batch = experiment.training.batch_size
    return tuple(
        FLOAT32_BYTES * survey.num_parameters * _num_vectors(experiment, degree)
        + frame * _num_frames(experiment, degree)
        + survey.sample_bytes * (num_samples + _num_common_samples(experiment, survey))
        + ACTIVATIONS * survey.activation_bytes * min(batch, num_samples)
        for degree, num_samples in zip(degrees, survey.num_samples, strict=True)
    )


def _num_vectors(experiment: Experiment, degree: int) -> int:
    """Count vectors of parameters: model, gradient, state of the optimiser, sum of what arrives."""
    training, radio = experiment.training, experiment.radio
    state = 2 if training.optimiser == "adamw" else 1 if training.momentum else 0
    differs = radio.scheme == "analog" and radio.analog.payload == "differences"
    return 3 + state + (1 + degree if differs else 0)  # a copy for each neighbour, and the sum of theirs


def _num_frames(experiment: Experiment, degree: int) -> int:
    """Count frames at most: two that are sent, and of each neighbour those that may be early.

    In one process what is received is what was sent.
    """
    radio, staleness_rounds = experiment.radio, experiment.aggregation.staleness_rounds
    differs = radio.scheme == "analog" and radio.analog.payload == "differences"
    received = 0 if experiment.transport.kind == "memory" else degree * (2 + 2 * staleness_rounds)
    return (2 * degree if differs else 2) + received


def _num_common_samples(experiment: Experiment, survey: Survey) -> int:
    """Count samples beside its own that each process holds: those of files are mapped, not held."""
    whole = sum(survey.num_samples) + survey.num_test
    return 0 if experiment.data.is_files or experiment.transport.kind == "memory" else whole


def _mapped_bytes(experiment: Experiment, survey: Survey | None) -> int:
    """Count what all devices share: of files the pixels, a byte each, and the test set."""
    if survey is None:
        return 0
    num_train, num_test = sum(survey.num_samples), survey.num_test
    if experiment.data.is_files:
        return survey.sample_bytes * num_test + survey.sample_bytes * num_train // FLOAT32_BYTES
    whole = survey.sample_bytes * (num_train + num_test)
    return whole if experiment.transport.kind == "memory" else 0


def _disk_bytes(experiment: Experiment, survey: Survey, links: int) -> int:
    parameters = experiment.devices * FLOAT32_BYTES * survey.num_parameters
    reports = experiment.rounds * (experiment.devices * REPORT_BYTES + links * HEARD_BYTES)
    return FOLDER_BYTES + parameters + reports
