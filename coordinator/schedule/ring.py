"""The order of a ring: a short tour over existing links, by nearest neighbour, 2-opt and or-opt."""

from math import inf

import numpy as np

from coordinator.schedule.costs import Bools, Floats, Ints, LinkCosts

_NUM_CELLS = 2_000
"""Starts times devices squared: few devices can afford to try from several."""
_NUM_ROTATIONS = 1000
_LONGEST_PIECE = 3
_ROUNDING = 1e-9


def ring_order(costs: LinkCosts) -> tuple[int, ...] | None:
    """Return a tour of few joules through all devices that take part; None if none was found.

    None does not prove that there is none: whether a sparse graph has a tour at all is NP-complete. The
    tour is improved until no turned-round stretch (2-opt; Croes, "A method for solving
    traveling-salesman problems", Oper. Res. 6(6), 1958) and no moved piece of up to three devices
    (or-opt; Or, thesis, Northwestern University, 1976) makes it cheaper. Links need not cost the same in
    both directions. The same costs give the same tour.
    """
    joules = costs.among_present(costs.tx_j) + costs.among_present(costs.each_j)
    if len(joules) == 1:
        return (int(costs.devices[0]),)
    exists = np.isfinite(joules)
    # A missing link is dearer than any tour over existing ones, so the search first gets rid of those.
    joules = np.where(exists, joules, len(joules) * joules.max(where=exists, initial=0.0) + 1.0)
    num_starts = min(len(joules), max(1, _NUM_CELLS // len(joules) ** 2))
    tours = (_improved(_nearest_neighbour_tour(start, joules), joules) for start in range(num_starts))
    best = min(tours, key=lambda tour: float(joules[tour, np.roll(tour, -1)].sum()))
    if _gaps(best, exists).size:
        best = _improved(_mended(best, exists), joules)
    if _gaps(best, exists).size:
        return None
    first = int(best.argmin())
    return tuple(costs.devices[np.roll(best, -first)].tolist())


def _gaps(tour: Ints, exists: Bools) -> Ints:
    """Return the positions of those who have no link to the next."""
    return np.flatnonzero(~exists[tour, np.roll(tour, -1)])


def _mended(tour: Ints, exists: Bools) -> Ints:
    """Turn stretches round so that gaps wander, until they meet or close, or patience ends.

    The rotations of Posa, "Hamiltonian circuits in random graphs", Discrete Math. 14(4), 1976: the path
    whose ends the gap parts is turned round behind a device that its last one has a link to. The new last
    one closes the path, or else is the one that has not been last for longest.
    """
    was_last = np.full(len(tour), -inf)
    for rotation in range(_NUM_ROTATIONS):
        gaps = _gaps(tour, exists)
        if not gaps.size:
            break
        path = np.roll(tour, -1 - gaps[0])
        linked = np.flatnonzero(exists[path[-1], path[:-1]])
        if not linked.size:
            break
        ends = path[linked + 1]
        closes = exists[ends, path[0]] | ~exists[path[linked], ends]
        keep = linked[np.where(closes, -inf, was_last[ends]).argmin()]
        tour = np.concatenate((path[: keep + 1], path[:keep:-1]))
        was_last[tour[-1]] = rotation
    return tour


def _nearest_neighbour_tour(start: int, joules: Floats) -> Ints:
    """Go on to the nearest that was not visited, to the first of equals."""
    tour = [start]
    open_j = joules.copy()
    for _ in range(len(joules) - 1):
        open_j[:, tour[-1]] = inf
        tour.append(int(open_j[tour[-1]].argmin()))
    return np.array(tour, dtype=np.intp)


def _improved(tour: Ints, joules: Floats) -> Ints:
    """Turn and move pieces, always the best change, until nothing helps."""
    while True:
        # Distances by position: hop[i, j] from the i-th to the j-th of the tour.
        hop = joules[np.ix_(tour, tour)]
        saves_least = -_ROUNDING * np.trace(hop, offset=1)
        change_j, i, j = _best_turn(hop)
        if change_j < saves_least:
            tour = np.concatenate((tour[: i + 1], tour[j:i:-1], tour[j + 1 :]))
            continue
        change_j, moved = _best_move(hop)
        if change_j >= saves_least:
            return tour
        tour = tour[moved]


def _best_turn(hop: Floats) -> tuple[float, int, int]:
    """Return what it adds to turn round the positions i + 1 to j, and the best such i < j."""
    k = len(hop)
    after = np.roll(hop, -1, axis=(0, 1))  # after[i, j]: from i + 1 to j + 1
    ahead = hop[np.arange(k), np.arange(1, k + 1) % k]
    # What the hops inside cost more the other way round, summed from the start.
    back = np.concatenate(([0.0], np.cumsum(np.diagonal(hop, -1) - np.diagonal(hop, 1))))
    turned = back[None, :] - np.roll(back, -1)[:, None]
    change = hop + after - ahead[:, None] - ahead[None, :] + turned
    change[np.tril_indices(k)] = 0.0
    i, j = divmod(int(change.argmin()), k)
    return float(change[i, j]), i, j


def _best_move(hop: Floats) -> tuple[float, Ints]:
    """Return what it adds to move one piece elsewhere, either way round, and the best order of positions."""
    k = len(hop)
    at = np.arange(k)
    ahead = hop[at, (at + 1) % k]
    best: tuple[float, Ints] = (0.0, at)
    for length in range(1, min(_LONGEST_PIECE, k - 2) + 1):
        last = (at + length - 1) % k  # of the piece that begins at each position
        before, behind = (at - 1) % k, (at + length) % k
        closed = hop[before, behind] - ahead[before] - ahead[last]
        inside = (at[:, None] + np.arange(length)) % k
        more_back = (hop[inside[:, 1:], inside[:, :-1]] - hop[inside[:, :-1], inside[:, 1:]]).sum(axis=1)
        # Row s: the piece that begins at s; column t: between t and t + 1.
        forth = hop[:, at].T + hop[np.ix_(last, (at + 1) % k)] - ahead
        turned = hop[:, last].T + hop[np.ix_(at, (at + 1) % k)] - ahead + more_back[:, None]
        change = closed[:, None] + np.minimum(forth, turned)
        impossible = (at[None, :] - before[:, None]) % k <= length
        change[impossible] = 0.0
        s, t = divmod(int(change.argmin()), k)
        if change[s, t] < best[0]:
            piece = inside[s] if forth[s, t] <= turned[s, t] else inside[s][::-1]
            rest = (s + length + np.arange(k - length)) % k
            cut = int(np.flatnonzero(rest == t)[0]) + 1
            best = float(change[s, t]), np.concatenate((rest[:cut], piece, rest[cut:]))
    return best
