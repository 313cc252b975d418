"""Random waypoint: in the square, at speeds between the limits, with its rests, a function of the round."""

import math
from itertools import groupby

import numpy as np
import pytest
from scipy.stats import kstest

from protocol.mobility import Walk
from protocol.radio import Mobility

AREA_M = 100.0
START_M = (20.0, 70.0)


def walk(seed=1, device=3, start_m=START_M, area_m=AREA_M, **mobility):
    mobility = Mobility(kind="random_waypoint", **mobility)
    return Walk(mobility, area_m, start_m, seed=seed, device=device)


def way(one, num_rounds):
    """Return the places of rounds 0 to num_rounds, shape (num_rounds + 1, 2)."""
    return np.array([one.place_m(round_) for round_ in range(num_rounds + 1)])


def steps_m(places):
    return np.hypot(*np.diff(places, axis=0).T)


def test_a_walk_sets_out_from_its_place():
    assert walk().place_m(0) == START_M
    assert walk().place_m(1) != START_M


def test_who_stands_still_stays():
    still = Walk(Mobility(), AREA_M, START_M, seed=1, device=3)
    assert still.place_m(0) == still.place_m(7) == still.place_m(1000) == START_M


@pytest.mark.parametrize("round_s", [1.0, 40.0])
@pytest.mark.parametrize("area_m", [5.0, 100.0])
def test_a_walk_stays_in_the_square(area_m, round_s):
    for device in range(20):
        places = way(walk(device=device, area_m=area_m, start_m=(0.0, area_m), round_s=round_s), 200)
        assert places.min() >= 0
        assert places.max() <= area_m


def test_a_step_is_at_most_as_long_as_the_fastest_walk_takes_it():
    for device in range(20):
        places = way(walk(device=device, speed_min_m_s=1.0, speed_max_m_s=3.0, round_s=2.0), 300)
        assert np.all(steps_m(places) <= 6 + 1e-9)


def test_on_a_straight_leg_the_speed_is_one_and_between_the_limits():
    """Rounds are short beside legs, so most steps go straight on; a corner, or a change of speed, is rare."""
    speeds_m_s = []
    for device in range(60):
        places = way(walk(device=device, speed_min_m_s=1.0, speed_max_m_s=3.0, round_s=0.1), 300)
        speeds = steps_m(places) / 0.1
        same = np.isclose(speeds[1:], speeds[:-1], rtol=1e-6)
        assert np.count_nonzero(~same) <= 2 * 10  # two changed steps at each corner
        assert np.all((speeds[1:][same] >= 1) & (speeds[1:][same] <= 3))
        speeds_m_s.append(speeds[0])
    # The first leg's speed is drawn uniformly (a leg that is slow lasts longer, so later rounds see it more).
    assert kstest(speeds_m_s, "uniform", args=(1, 2)).pvalue > 0.01


def test_points_to_walk_to_are_uniform_in_the_square():
    """In a round that outlasts every leg, with a rest that outlasts every round, a device is at its point."""
    points = np.array([walk(device=device, round_s=1e4, pause_s=1e6).place_m(1) for device in range(2000)])
    for coordinate in points.T:
        assert kstest(coordinate, "uniform", args=(0, AREA_M)).pvalue > 0.01 / 2


def test_a_device_rests_at_its_point_for_as_long_as_it_should():
    """A rest of 5 s begins and ends within rounds of 0.1 s: 49 or 50 of them pass without a step."""
    rests = []
    for device in range(20):
        steps = steps_m(way(walk(device=device, round_s=0.1, pause_s=5.0, speed_min_m_s=1.0), 800))
        runs = [(resting, sum(1 for _ in run)) for resting, run in groupby((steps == 0).tolist())]
        rests += [length for resting, length in runs[:-1] if resting]
    assert len(rests) > 15
    assert set(rests) <= {49, 50}


def test_walking_takes_the_time_that_way_and_speed_make():
    """At a constant 2 m/s with rests of 3 s, leg, rest and next leg are worked out from the corners."""
    knobs = {"speed_min_m_s": 2.0, "speed_max_m_s": 2.0, "pause_s": 3.0}
    # With a rest that never ends, each walk shows where its first leg leads.
    (x, y) = walk(speed_min_m_s=2.0, speed_max_m_s=2.0, pause_s=1e6, round_s=1e5).place_m(1)
    leg_s = math.dist(START_M, (x, y)) / 2
    halfway = walk(**knobs, round_s=leg_s / 2).place_m(1)
    assert halfway == pytest.approx(((START_M[0] + x) / 2, (START_M[1] + y) / 2))
    assert walk(**knobs, round_s=leg_s + 2.9).place_m(1) == (x, y)
    assert math.dist(walk(**knobs, round_s=leg_s + 3.5).place_m(1), (x, y)) == pytest.approx(1.0)


def test_rounds_are_as_long_as_they_are_cut():
    """Ten rounds of a tenth are a round, rests included: where a round ends changes nothing of the way."""
    knobs = {"pause_s": 1.7, "area_m": 10.0, "start_m": (2.0, 7.0)}
    long, short = way(walk(**knobs, round_s=2.0), 50), way(walk(**knobs, round_s=0.2), 500)
    assert short[::10] == pytest.approx(long, abs=1e-9)


def test_a_place_is_a_function_of_the_round_and_not_of_the_order_in_which_it_is_asked_for():
    wanted = way(walk(pause_s=2.0), 20).tolist()
    jumping = walk(pause_s=2.0)
    for round_ in (7, 7, 3, 20, 0, 11, 10):
        assert list(jumping.place_m(round_)) == wanted[round_]


def test_seed_and_device_have_ways_of_their_own():
    ends = {walk().place_m(9), walk(seed=2).place_m(9), walk(device=4).place_m(9)}
    assert len(ends) == 3
    assert walk().place_m(9) in ends
