"""Random waypoint mobility: where a device is in each round, as everybody can compute from the seed.

A device walks from its place to a point drawn uniformly from the square, at a speed drawn uniformly,
rests there, and goes on to the next. Source: Johnson and Maltz, "Dynamic source routing in ad hoc
wireless networks", in Mobile Computing, 1996.
"""

from math import hypot

from protocol.radio import Mobility
from protocol.streams import Purpose, stream

Place = tuple[float, float]


class Walk:
    """One device's way, from its place in round 0; it walks forward, and starts anew for an earlier round."""

    def __init__(self, mobility: Mobility, area_m: float, start_m: Place, *, seed: int, device: int) -> None:
        self._mobility = mobility
        self._area_m = area_m
        self._start_m = start_m
        self._seed = seed
        self._device = device
        self._set_out()

    def place_m(self, round_: int) -> Place:
        """Position in a round [m]."""
        if self._mobility.kind == "none":
            return self._start_m
        if round_ < self._round:
            self._set_out()
        while self._round < round_:
            self._round += 1
            self._go(self._mobility.round_s)
        return self._place_m

    def _set_out(self) -> None:
        self._rng = stream(self._seed, Purpose.MOBILITY, a=self._device)
        self._round = 0
        self._place_m = self._start_m
        self._rest_s = 0.0
        self._choose_next()

    def _choose_next(self) -> None:
        x, y = self._rng.uniform(0, self._area_m, 2).tolist()
        self._target_m = (x, y)
        self._speed_m_s = float(self._rng.uniform(self._mobility.speed_min_m_s, self._mobility.speed_max_m_s))

    def _go(self, seconds: float) -> None:
        while seconds > 0:
            rest_s = min(self._rest_s, seconds)
            self._rest_s -= rest_s
            seconds -= rest_s
            (x, y), (to_x, to_y) = self._place_m, self._target_m
            way_m = hypot(to_x - x, to_y - y)
            walk_s = min(way_m / self._speed_m_s, seconds)
            seconds -= walk_s
            if walk_s * self._speed_m_s < way_m and seconds <= 0:
                share = walk_s * self._speed_m_s / way_m
                self._place_m = (x + share * (to_x - x), y + share * (to_y - y))
            else:
                self._place_m, self._rest_s = self._target_m, self._mobility.pause_s
                self._choose_next()
