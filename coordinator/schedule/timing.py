"""When an aggregation is over: frames wait for their turn in the grid of superframes, and for each other.

A frame starts with the first turn of its sender that is not before all that it waits for, and has arrived
when it was on the air. Every repeat comes a superframe later, and there are as many as are to be expected: so
this is exact where nothing is lost. Derived for this project.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from coordinator.schedule.costs import Bools, Ends, Floats, Ints, LinkCosts
from coordinator.schedule.tree import Tree
from protocol.access import Access

_AGGREGATIONS_TO_SETTLE = 2
_ROUNDING = 1e-9
"""Of a superframe, as in protocol/access.py."""


@dataclass(frozen=True, eq=False)
class Grid:
    """Turns for frames of one size: how long they are, and whose they are."""

    access: Access
    """With the turns that gossip needs; trees and rings need others."""
    colours: Ints
    """The slot of each device, shape (n,)."""
    turns: Ints
    """Of gossip: which of the row's neighbours, in order, the column is; shape (n, n)."""

    def access_of(self, *, data_turns: int, ack_turns: int) -> Access:
        """Return the grid of a schedule in which a slot needs so many turns."""
        answered = self.access.ack_turn_s > 0
        return replace(self.access, data_turns=data_turns, ack_turns=ack_turns if answered else 0)


def settled_ready_s(ends: Ends, busy_s: Floats) -> Floats:
    """Return when devices are ready for an aggregation, if busy_s lies before each; shape (n,).

    What they wait for their turns depends on where in a superframe they are ready: the first time as their
    computing has it, but soon always where the aggregation before has left them.
    """
    ready_s = busy_s
    for _ in range(_AGGREGATIONS_TO_SETTLE):
        ready_s = ends(ready_s) + busy_s
    return ready_s


def gossip_ends_s(
    grid: Grid, costs: LinkCosts, sent: Bools, *, cast: Literal["unicast", "broadcast"], sweeps: int
) -> Ends:
    """Return when sweeps are over in which all send to their neighbours: sent, shape (n, n), symmetric."""
    if grid.access.radio.scheme == "analog":
        return _repeated(_analog_ends_s(grid, sent), sweeps)
    most = 1 + int(grid.turns.max(initial=0))
    broadcast = cast == "broadcast"
    access = grid.access_of(data_turns=1 if broadcast else most, ack_turns=most)
    frame_s = np.where(sent, _on_air_s(access, costs), 0.0)
    if broadcast:
        frame_s = np.where(sent, frame_s.max(axis=1, initial=0.0)[:, None], 0.0)
    data_offsets_s = access.data_turn_s * _places(grid, access.data_turns, alone=broadcast)
    ack_offsets_s = access.data_s + access.ack_turn_s * _places(grid, access.ack_turns)

    def ends(ready_s: Floats) -> Floats:
        arrival_s = _starts_s(access, ready_s[:, None], data_offsets_s) + frame_s
        over_s = arrival_s
        if access.ack_turn_s:  # the column answers
            over_s = _starts_s(access, arrival_s, ack_offsets_s.T) + access.ack_turn_s
        return _over_s(ready_s, over_s, sent)

    return _repeated(ends, sweeps)


def _analog_ends_s(grid: Grid, sent: Bools) -> Ends:
    """Return when a sweep is over in which all sum up in their own slots what their neighbours send."""
    access = grid.access
    at_once = access.data_turns == 1
    offsets_s = access.data_turn_s * _places(grid, access.data_turns, alone=at_once)

    def ends(ready_s: Floats) -> Floats:
        starts_s = _starts_s(access, np.broadcast_to(ready_s, sent.shape), offsets_s)
        if at_once:
            starts_s = np.broadcast_to(np.where(sent, starts_s, 0.0).max(axis=1, initial=0.0), sent.shape).T
        return _over_s(ready_s, starts_s + access.data_turn_s, sent)

    return ends


def _places(grid: Grid, num_turns: int, *, alone: bool = False) -> Floats:
    """Return which turn of a superframe each row has for its neighbours, or for all; shape (n, n)."""
    turns = np.zeros_like(grid.turns) if alone else grid.turns
    return (grid.colours[:, None] * num_turns + turns).astype(np.float64)


def _over_s(ready_s: Floats, over_s: Floats, sent: Bools) -> Floats:
    """Return when each device is through with what it sent and what it awaited; over_s: shape (n, n)."""
    both_ways = np.where(sent, np.maximum(over_s, over_s.T), 0.0)
    through_s: Floats = np.maximum(both_ways.max(axis=1, initial=0.0), ready_s)
    return through_s


def _repeated(ends: Ends, times: int) -> Ends:
    def all_ends(ready_s: Floats) -> Floats:
        for _ in range(times):
            ready_s = ends(ready_s)
        return ready_s

    return all_ends


def ring_ends_s(grid: Grid, costs: LinkCosts, order: Sequence[int]) -> Ends:
    """Return when a ring all-reduce is over: in 2 (N - 1) steps, each waits for the one before."""
    members = np.array(order)
    access = grid.access_of(data_turns=1, ack_turns=1)
    hops = members, np.roll(members, -1)
    offsets_s: Floats = grid.colours[members] * access.data_turn_s
    ack_offsets_s: Floats = access.data_s + np.roll(grid.colours[members], -1) * access.ack_turn_s
    frame_s = _on_air_s(access, costs, 1 / len(order))[hops]

    def ends(ready_s: Floats) -> Floats:
        arrival_s, own_s = ready_s[members], ready_s[members]
        for _ in range(2 * (len(order) - 1)):
            arrival_s = _starts_s(access, np.maximum(own_s, arrival_s), offsets_s) + frame_s
            own_s, arrival_s = arrival_s, np.roll(arrival_s, 1)
        if access.ack_turn_s:
            own_s = _starts_s(access, own_s, ack_offsets_s) + access.ack_turn_s
            arrival_s = np.roll(own_s, 1)
        over_s = ready_s.copy()
        over_s[members] = np.maximum(own_s, arrival_s)
        return over_s

    return ends


def tree_ends_s(grid: Grid, costs: LinkCosts, tree: Tree, *, multicast: bool, chunks: int) -> Ends:
    """Return when an all-reduce over a tree is over.

    Of chunks that follow each other it is enough to know when the first one and the last one start: in
    between, a frame starts when it is ready, which is convex in its number, or when its turn is free again,
    which is linear in it, so the later of both is convex.
    """
    return _TreeClock(grid, costs, tree, multicast=multicast, chunks=chunks).ends


_Pair: TypeAlias = tuple[float, float]
"""Of the first chunk and of the last one [s]."""


class _TreeClock:
    def __init__(self, grid: Grid, costs: LinkCosts, tree: Tree, *, multicast: bool, chunks: int) -> None:
        most = max(map(len, tree.children))
        self._access = grid.access_of(data_turns=1 + (1 if multicast else most), ack_turns=1 + most)
        self._slots = grid.colours.tolist()
        self._tree, self._behind = tree, chunks - 1
        edges = [(i, p) for i, p in enumerate(tree.parents) if p >= 0]
        frame_s = _on_air_s(self._access, costs, 1 / chunks)
        self._up_s = {i: float(frame_s[i, p]) for i, p in edges}
        self._down_s = {i: float(frame_s[p, i]) for i, p in edges}
        if multicast:
            slowest = {p: max(self._down_s[i] for i in c) for p, c in enumerate(tree.children) if c}
            self._down_s = {i: slowest[p] for i, p in edges}
        self._multicast = multicast

    def ends(self, ready_s: Floats) -> Floats:
        tree, ready = self._tree, ready_s.tolist()
        over: list[float] = list(ready)
        complete: list[_Pair] = [(at, at) for at in ready]
        for device in tree.leaves_first:
            parent = tree.parents[device]
            if parent >= 0:
                arrival = self._hop(complete[device], device, 0, self._up_s[device])
                complete[parent] = _later(complete[parent], arrival)
                self._note(over, device, parent, arrival)
        known = {tree.root: complete[tree.root]}
        for parent in reversed(tree.leaves_first):
            for number, child in enumerate(tree.children[parent]):
                turn = 1 if self._multicast else 1 + number
                known[child] = self._hop(known[parent], parent, turn, self._down_s[child])
                self._note(over, parent, child, known[child])
        return np.array(over)

    def _hop(self, ready: _Pair, sender: int, turn: int, frame_s: float) -> _Pair:
        """Return when the first and the last chunk have arrived over one hop."""
        access, slot = self._access, self._slots[sender]
        first_s = access.data_start_s(ready[0], slot, turn)
        if not self._behind:
            return first_s + frame_s, first_s + frame_s
        again_s = max(frame_s, access.superframe_s)  # from one turn to the next
        last_s = max(access.data_start_s(ready[1], slot, turn), first_s + self._behind * again_s)
        return first_s + frame_s, last_s + frame_s

    def _note(self, over: list[float], sender: int, receiver: int, arrival: _Pair) -> None:
        """Take down for both ends of a hop when it is over, its answer included."""
        end_s = arrival[1]
        if self._access.ack_turn_s:
            links = (*self._tree.children[receiver], self._tree.parents[receiver])
            turn = sum(0 <= link < sender for link in links)
            end_s = self._access.ack_start_s(end_s, self._slots[receiver], turn) + self._access.ack_turn_s
        over[sender], over[receiver] = max(over[sender], end_s), max(over[receiver], end_s)


def _later(a: _Pair, b: _Pair) -> _Pair:
    return max(a[0], b[0]), max(a[1], b[1])


def _on_air_s(access: Access, costs: LinkCosts, share: float = 1.0) -> Floats:
    """Return how long it takes from the start of a frame to its arrival, with the repeats to expect."""
    repeats, air_s = costs.times_on_air - 1, share * costs.air_s
    if access.num_slots:
        return repeats * access.superframe_s + air_s / costs.times_on_air
    return repeats * access.ack_turn_s + air_s


def _starts_s(access: Access, ready_s: Floats, offsets_s: Floats) -> Floats:
    """First start of turns, at offsets within a superframe, that is not before ready_s."""
    if not access.num_slots:
        return ready_s
    waits = np.ceil((ready_s - offsets_s) / access.superframe_s - _ROUNDING)
    starts_s: Floats = offsets_s + np.maximum(waits, 0.0) * access.superframe_s
    return starts_s
