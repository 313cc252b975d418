"""What gloo and memory take for the bytes of a round with nothing around them: limits beside the floor."""

import os
from datetime import timedelta
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import torch
from torch.distributed import FileStore, PrefixStore, ProcessGroupGloo, Work  # type: ignore[attr-defined]

WAIT_WALL_S = 600.0


class Group(Protocol):
    """What a gloo group has, and its stubs lack."""

    def send(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Work:
        """Begin to send."""

    def recv(self, tensors: list[torch.Tensor], rank: int, tag: int) -> Work:
        """Begin to receive."""


class Bare:
    """One device's two links on a ring, each a gloo group of two processes, and two buffers to copy into."""

    def __init__(self, groups: list[tuple[Group, int]], x: torch.Tensor) -> None:
        self._groups = groups
        self._x = x
        self._heard = [torch.empty_like(x) for _ in groups]
        self._copies = [np.empty(x.shape, dtype=np.float32) for _ in groups]

    @classmethod
    def connect(cls, device: int, num_devices: int, store: Path, x: torch.Tensor) -> "Bare":
        """Meet both neighbours over a file that all devices share; returns once all went well for once.

        x, shape (num_values,): what is sent, as it is by then.
        """
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
        keys = FileStore(str(store), num_devices)
        groups = []
        # Link i joins i and i + 1. Each waits for its other end, so all take theirs in the same order.
        for link in sorted({device, (device - 1) % num_devices}):
            rank = 0 if link == device else 1
            own_keys, patience = PrefixStore(str(link), keys), timedelta(seconds=WAIT_WALL_S)
            group = ProcessGroupGloo(own_keys, rank, 2, patience)
            groups.append((cast(Group, group), 1 - rank))
        bare = cls(groups, x)
        bare.gloo()
        bare.copy()
        return bare

    def gloo(self) -> None:
        """Send x to both neighbours and receive theirs."""
        works = [group.send([self._x], peer, 0) for group, peer in self._groups]
        works += [
            group.recv([heard], peer, 0)
            for (group, peer), heard in zip(self._groups, self._heard, strict=True)
        ]
        for work in works:
            work.wait()

    def copy(self) -> None:
        """Copy x as often as it is sent."""
        for copy in self._copies:
            np.copyto(copy, self._x.numpy())
