"""When an aggregation is over: frames wait for their turn in the grid of superframes, and for each other.

A frame starts with the first turn of its sender that is not before all that it waits for, and has arrived
when it was on the air. Every repeat comes a superframe later, and there are as many as are to be expected: so
this is exact where nothing is lost. Derived for this project.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil, inf
from typing import Literal, NamedTuple, TypeAlias

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
    hops, previous = (members, np.roll(members, -1)), np.arange(len(order)) - 1
    offsets_s: Floats = grid.colours[members] * access.data_turn_s
    ack_offsets_s: Floats = access.data_s + np.roll(grid.colours[members], -1) * access.ack_turn_s
    frame_s = _on_air_s(access, costs, 1 / len(order))[hops]

    def ends(ready_s: Floats) -> Floats:
        arrival_s, own_s = ready_s[members], np.full(len(order), -inf)
        for _ in range(2 * (len(order) - 1)):
            free_s = own_s + access.ack_turn_s
            own_s = _starts_s(access, np.maximum(free_s, arrival_s), offsets_s) + frame_s
            arrival_s = own_s[previous]
        if access.ack_turn_s:
            own_s = _starts_s(access, own_s, ack_offsets_s) + access.ack_turn_s
            arrival_s = own_s[previous]
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
    """The hops of one tree, to be gone through whenever devices are ready.

    Of each device: how long its frames are on the air upwards, and to it downwards; where the turns for that
    lie in a superframe; and those of the answers.
    """

    def __init__(self, grid: Grid, costs: LinkCosts, tree: Tree, *, multicast: bool, chunks: int) -> None:
        most = max(map(len, tree.children))
        access = grid.access_of(data_turns=1 + (1 if multicast else most), ack_turns=1 + most)
        self._tree, self._behind = tree, chunks - 1
        self._superframe_s, self._ack_turn_s = access.superframe_s, access.ack_turn_s
        slots, frame_s = grid.colours.tolist(), _on_air_s(access, costs, 1 / chunks)
        self._up: dict[int, _Hop] = {}
        self._down: dict[int, _Hop] = {}
        for parent, children in enumerate(tree.children):
            slowest_s = max((float(frame_s[parent, child]) for child in children), default=0.0)
            for number, child in enumerate(children):
                self._up[child] = _Hop(
                    float(frame_s[child, parent]),
                    access.data_offset_s(slots[child], 0),
                    _ack_offset_s(access, slots[parent], _rank(tree, parent, child)),
                )
                self._down[child] = _Hop(
                    slowest_s if multicast else float(frame_s[parent, child]),
                    access.data_offset_s(slots[parent], 1 if multicast else 1 + number),
                    _ack_offset_s(access, slots[child], _rank(tree, child, parent)),
                )

    def ends(self, ready_s: Floats) -> Floats:
        """Return when each device is through; shapes (n,)."""
        tree, over = self._tree, ready_s.tolist()
        known: list[_Pair] = [(at, at) for at in over]
        for device in tree.leaves_first[:-1]:
            parent = tree.parents[device]
            first_s, last_s = self._pass_on(known[device], self._up[device], over, (device, parent))
            known[parent] = max(known[parent][0], first_s), max(known[parent][1], last_s)
        for parent in reversed(tree.leaves_first):
            for child in tree.children[parent]:
                known[child] = self._pass_on(known[parent], self._down[child], over, (child, parent))
        return np.array(over)

    def _pass_on(self, ready: _Pair, hop: "_Hop", over: list[float], ends: tuple[int, int]) -> _Pair:
        """Return when the first and the last chunk have arrived; both ends also await the answer."""
        first_s = self._turn_s(ready[0], hop.offset_s)
        again_s = max(hop.frame_s + self._ack_turn_s, self._superframe_s)  # a turn is free once answered
        last_s = max(self._turn_s(ready[1], hop.offset_s), first_s + self._behind * again_s) + hop.frame_s
        over_s = last_s
        if self._ack_turn_s:
            over_s = self._turn_s(last_s, hop.ack_offset_s) + self._ack_turn_s
        for end in ends:
            over[end] = max(over[end], over_s)
        return first_s + hop.frame_s, last_s

    def _turn_s(self, ready_s: float, offset_s: float) -> float:
        period_s = self._superframe_s
        if not period_s:
            return ready_s
        return offset_s + max(0, ceil((ready_s - offset_s) / period_s - _ROUNDING)) * period_s


class _Hop(NamedTuple):
    frame_s: float
    offset_s: float
    """Of its turn in a superframe."""
    ack_offset_s: float
    """Of the turn of its answer."""


def _ack_offset_s(access: Access, slot: int, turn: int) -> float:
    return access.data_s + (slot * access.ack_turns + turn) * access.ack_turn_s


def _rank(tree: Tree, device: int, link: int) -> int:
    """Return which of a device's links in the tree, in order, one is."""
    return sum(0 <= other < link for other in (*tree.children[device], tree.parents[device]))


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
