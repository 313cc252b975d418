"""Parameters where codecs and sockets can read them, wherever the model lives."""

import torch

from node.processor import CPU


class Mirror:
    """The host's view of a vector: the vector itself where it is there, else one copy, for all of a run."""

    def __init__(self, copy: torch.Tensor | None) -> None:
        self._copy = copy

    def read(self, x: torch.Tensor) -> torch.Tensor:
        """Return x, shape (num_values,), as it is now; a copy holds that until the next call."""
        return x if self._copy is None else self._copy.copy_(x)


def mirror(x: torch.Tensor) -> Mirror:
    """Return what x is to be read through; the copy is page-locked, so that a GPU writes it at full speed."""
    return Mirror(None if x.device == CPU else torch.empty(x.shape, dtype=x.dtype, pin_memory=True))
