"""Trees of a run with budgets: they spare whom little is left, whoever else may spend without end."""

import pytest

from coordinator.network import lay_out
from coordinator.schedule.epochs import Epochs
from coordinator.schedule.prices import Prices
from protocol.air import frame_layout
from protocol.config import Aggregation, Budget, Experiment, Graph
from protocol.radio import Radio


def num_children(joules):
    """Return how many children each device has in the first tree, without fading."""
    experiment = Experiment(
        devices=6,
        seed=3,
        aggregation=Aggregation(scheme="tree"),
        graph=Graph(kind="complete", area_m=300),
        radio=Radio(tx_power_dbm=20, rate="adaptive", fading="none"),
        budget=Budget(joules=joules) if joules else Budget(),
    )
    network = lay_out(experiment)
    plan = Epochs(experiment, network, Prices(experiment, frame_layout(experiment, 10_000), network)).first()
    return [plan.event.parents.count(device) for device in range(6)]


def test_without_budgets_the_cheapest_tree_is_taken():
    assert num_children(None) == num_children((5.0,) * 6)


@pytest.mark.parametrize("device", range(6))
def test_who_may_spend_without_end_carries_more_than_who_has_little(device):
    children = {}
    for budget_j in (1.0, float("inf")):
        joules = [5.0] * 6
        joules[device] = budget_j
        children[budget_j] = num_children(tuple(joules))[device]
    assert children[float("inf")] > children[1.0]


@pytest.mark.parametrize("rich", [5.0, float("inf")])
def test_a_hub_with_little_left_is_spared_whoever_is_rich(rich):
    hub = max(range(6), key=num_children(None).__getitem__)
    joules = [5.0] * 6
    joules[(hub + 1) % 6] = rich
    assert num_children(None)[hub] > 1
    joules[hub] = 0.05
    assert num_children(tuple(joules))[hub] <= 1
