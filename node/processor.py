"""The processor that a device's model lives on: the host's own, or one of its GPUs.

Nothing here touches CUDA before a device has been told, or may choose, to live on a GPU; by then its process
has been forked.
"""

import os

import torch

from node.place import Ranked
from protocol.errors import BadInput
from protocol.messages import Welcome

CPU = torch.device("cpu")


def take_processor(welcome: Welcome, among: Ranked | None) -> torch.device:
    """Take the GPU that a device was told, or one of those that it sees, and make it this thread's own.

    Raises BadInput if a GPU that is needed is not there.
    """
    if welcome.gpu is None or not welcome.experiment.may_use_gpus:
        return CPU
    # Both are read when CUDA wakes up.
    if welcome.gpu != "seen":
        os.environ["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # by which the coordinator counts, as nvidia-smi does
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # or cuBLAS may add up in another order in each run
    gpu = choose_gpu(welcome, among, torch.cuda.device_count())
    if gpu is None:
        return CPU
    _compute_as_on_a_cpu()
    torch.cuda.set_device(gpu)
    return torch.device("cuda", gpu)


def choose_gpu(welcome: Welcome, among: Ranked | None, num_seen: int) -> int | None:
    """Return which of the GPUs that it sees a device takes: as told, else the next one by its number.

    That number is the one on its host where torchrun started it, else the device's own; devices take turns
    over the GPUs. None: it sees none, and needs none.
    """
    experiment = welcome.experiment
    nccl, wanted = experiment.transport.kind == "nccl", experiment.resources.gpus
    if isinstance(welcome.gpu, int):
        candidates = [welcome.gpu]
    else:
        candidates = list(wanted) if isinstance(wanted, tuple) else list(range(num_seen))
    for gpu in candidates:
        if gpu >= num_seen:
            raise BadInput(
                f"device {welcome.device} needs GPU {gpu} and sees {num_seen}; list others in "
                f"resources.gpus, or set it to auto"
            )
    turn = among.local_rank if among else welcome.device
    if nccl and (not candidates or (among and turn >= len(candidates) and welcome.gpu == "seen")):
        raise BadInput(
            f"transport.kind = nccl: each device needs a GPU of its own, and device {welcome.device}, number "
            f"{turn} of its host, sees {len(candidates)}; use zmq or gloo"
        )
    return candidates[turn % len(candidates)] if candidates else None


def _compute_as_on_a_cpu() -> None:
    """Let GPUs compute in float32 throughout, and the same in every run.

    The sum of a convolution or a product is taken in one fixed order where there is one; what has none says
    so in the device's log.
    """
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.use_deterministic_algorithms(True, warn_only=True)
