"""Mixing in place: x += g (s - m * xhat), with the step g = 1 unless mixing is damped.

s is the weighted sum of what arrived and m the mass (weight) it carries; xhat is the device's own
payload as its neighbours decoded it. Whatever did not arrive is simply less mass, so every row of
the effective mixing matrix sums to 1. With float32 xhat is x itself.
"""

import numpy as np
import torch

from protocol.channel import Mask
from protocol.codec import Float32s, Layout, Selection
from protocol.config import Aggregation


def mixing_step(aggregation: Aggregation, round_: int) -> float:
    """Damping g_k of round k: step / (1 + k / step_decay_rounds) ^ step_exponent."""
    return float(aggregation.step / (1 + round_ / aggregation.step_decay_rounds) ** aggregation.step_exponent)


class Arrived:
    """(s, m): the weighted sum that arrived, shape (num_values,), and its mass, shape (num_packets,).

    One is kept for a whole run and emptied every round: fresh memory of this size costs page faults. It is on
    the host, where decoded packets are; a model on a GPU takes the sum over once, to be mixed there.
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

    def add_selection_(self, xj: Float32s, weight: float, selection: Selection, counted: Mask) -> None:
        """Add packets that a neighbour sent again: xj holds their numbers, counted says which to add."""
        if self._empty:
            self.s.zero_()
        sizes = selection.layout.values_of_each()
        ends = np.cumsum(sizes)
        for k in np.flatnonzero(counted).tolist():
            packet = int(selection.packets[k])
            values = torch.from_numpy(xj[ends[k] - sizes[k] : ends[k]])
            self.s[self._layout.values(packet)].add_(values, alpha=weight)
            self.m[packet] += weight
        self._empty = False

    def deliver(self) -> tuple[Float32s, Float32s]:
        """Return (s, m), zeroed, for an analog receiver to write what it heard as one signal."""
        self.s.zero_()
        self.m.fill(0)
        self._empty = False
        return self.s.numpy(), self.m

    def mix_(self, x: torch.Tensor, xhat: torch.Tensor | None, step: float = 1.0) -> None:
        """Mix what arrived into x, shape (num_values,), in place; xhat is None where it is x itself."""
        if self._empty:
            return
        if step != 1:
            self.s.mul_(step)
            self.m *= np.float32(step)
        s, reference = self.s.to(x.device), x if xhat is None else xhat.to(x.device)
        if self.m.min() == self.m.max():
            mass = float(self.m[0])
            if xhat is None and mass == 1:
                x.copy_(s)
            elif xhat is None:
                torch.add(s, x, alpha=1 - mass, out=x)
            else:
                x.add_(s).add_(reference, alpha=-mass)
        else:
            mass_per_value = torch.from_numpy(np.repeat(self.m, self._layout.values_of_each()))
            s.addcmul_(reference, mass_per_value.to(x.device), value=-1)
            x.add_(s)


def _runs(intact: Mask) -> list[tuple[int, int]]:
    """Return the [start, stop) runs of True: losses come in bursts, so there are few."""
    edges = np.flatnonzero(np.diff(np.concatenate(([False], intact, [False])).view(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))
