"""What is kept back for exchanges to come, by hand."""

import pytest

from protocol.config import Aggregation
from protocol.reserve import Exchange, num_ahead, num_relied_on, starts_epoch

TREE = Aggregation(scheme="tree", epoch_rounds=4)


@pytest.mark.parametrize(("number", "energy_j"), [(0, 0), (1, 5), (2, 10), (3, 12), (6, 18)])
def test_two_exchanges_at_their_dearest_and_the_others_as_usual(number, energy_j):
    needed = Exchange(at_most_j=5, usual_j=2, usual_air_s=0.5).reserve(number)
    assert (needed.energy_j, needed.air_s) == (energy_j, 0.5 * number)


@pytest.mark.parametrize(("at_most_j", "kept_j"), [(5, 6), (2, 0), (1, 0)])
def test_what_may_come_on_top_is_kept_back_twice(at_most_j, kept_j):
    assert Exchange(at_most_j=at_most_j, usual_j=2, usual_air_s=1).kept_back_j == kept_j


def test_a_schedule_relies_on_a_device_until_its_epoch_or_the_run_ends():
    assert [num_relied_on(TREE, round_, num_rounds=10) for round_ in range(10)] == [
        4,
        3,
        2,
        1,
        4,
        3,
        2,
        1,
        2,
        1,
    ]
    assert [round_ for round_ in range(10) if starts_epoch(TREE, round_)] == [0, 4, 8]


def test_who_takes_part_in_an_epoch_must_be_good_for_all_of_it():
    assert [num_ahead(TREE, round_, num_rounds=10) for round_ in range(10)] == [4, 1, 1, 1, 4, 1, 1, 1, 2, 1]


def test_nobody_relies_on_who_gossips_beyond_the_next_exchange():
    gossip = Aggregation(epoch_rounds=4)
    assert {num_relied_on(gossip, round_, num_rounds=10) for round_ in range(10)} == {1}
    assert {num_ahead(gossip, round_, num_rounds=10) for round_ in range(10)} == {1}
    assert not any(starts_epoch(gossip, round_) for round_ in range(10))
