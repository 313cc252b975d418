"""Mixing in place: x += s - m * xhat.

s is the weighted sum of what arrived and m the mass (weight) it carries; xhat is the device's own
payload as its neighbours decoded it. Whatever did not arrive is simply less mass, so every row of
the effective mixing matrix sums to 1. With float32 xhat is x itself.
"""

import numpy as np
import torch

from protocol.channel import Mask
from protocol.codec import Float32s, Layout


class Arrived:
    """(s, m): the weighted sum that arrived, shape (num_values,), and its mass, shape (num_packets,).

    One is kept for a whole run and emptied every round: fresh memory of this size costs page faults.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.s = torch.zeros(layout.num_values)
        self.m = np.zeros(layout.num_packets, dtype=np.float32)
        self._empty = True

    def clear_(self) -> None:
        """Start a round in which nothing has arrived yet."""
        self.m.fill(0)
        self._empty = True

    def add_(self, xj: Float32s, weight: float, intact: Mask) -> None:
        """Add a neighbour's intact packets with its weight: s += w x_j, m += w, packet by packet."""
        values = torch.from_numpy(xj)
        if intact.all():
            if self._empty:  # the first neighbour overwrites, which saves a pass over s
                torch.mul(values, weight, out=self.s)
            else:
                self.s.add_(values, alpha=weight)
            self.m += weight
        else:
            if self._empty:
                self.s.zero_()
            for start, stop in _runs(intact):
                span = slice(self._layout.values(start).start, self._layout.values(stop - 1).stop)
                self.s[span].add_(values[span], alpha=weight)
                self.m[start:stop] += weight
        self._empty = False

    def mix_(self, x: torch.Tensor, xhat: torch.Tensor | None) -> None:
        """Mix what arrived into x, shape (num_values,), in place; xhat is None where it is x itself."""
        if self._empty:
            return
        if self.m.min() == self.m.max():
            mass = float(self.m[0])
            if xhat is None:
                torch.add(self.s, x, alpha=1 - mass, out=x)
            else:
                x.add_(self.s).add_(xhat, alpha=-mass)
        else:
            mass_per_value = torch.from_numpy(np.repeat(self.m, self._layout.values_of_each()))
            reference = x if xhat is None else xhat
            self.s.addcmul_(reference, mass_per_value, value=-1)
            x.add_(self.s)


def _runs(intact: Mask) -> list[tuple[int, int]]:
    """Return the [start, stop) runs of True: losses come in bursts, so there are few."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], intact, [False])).view(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
