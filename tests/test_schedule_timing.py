"""What an aggregation is planned to take, in seconds and in joules, beside what devices really take."""

import networkx as nx
import numpy as np
import pytest
from devices import NUM_VALUES, Device, colours_of, complete, experiment_of, path, ring
from ether import Ether, Port

from coordinator.network import Network
from coordinator.planning.rehearsal import exchange_at_most_j
from coordinator.prospects import exchange_costs
from coordinator.schedule.epochs import Epochs
from coordinator.schedule.prices import Prices
from node.train import Trained
from protocol.air import frame_layout
from protocol.budget import Budget
from protocol.learning import Training
from protocol.messages import Schedule
from protocol.radio import Analog, Radio
from protocol.radio import Device as DeviceKnobs

ROUNDS = 3
N = 7


def loud_snr_db(receiver, sender):
    """Set links apart, all of them good enough that next to nothing is lost at the rate that they carry."""
    return 22.0 + 1.7 * ((receiver + sender) % 7) + 0.4 * abs(receiver - sender)


def network_of(weights):
    graph = nx.from_numpy_array((weights != 0) & ~np.eye(len(weights), dtype=bool))
    for a, b, link in graph.edges(data=True):
        link.update(mean_snr_db={a: loud_snr_db(a, b), b: loud_snr_db(b, a)})
    return Network(graph, weights, tuple(colours_of(weights)))


def planned(experiment, weights):
    network = network_of(weights)
    prices = Prices(experiment, frame_layout(experiment, NUM_VALUES), network)
    return Epochs(experiment, network, prices).first()


def lived(experiment, weights, plan):
    """Let all devices train for a while and then average as planned, a few times; return their pasts."""
    ether = Ether(len(weights))
    samples = experiment.training.nominal_local_rounds * experiment.training.batch_size
    trained = Trained(loss=1.0, samples=samples, processor_s=0.0)

    def program(number):
        device = Device(experiment, weights, number, Port(ether, number), snr_db=loud_snr_db)
        if plan.places:
            device.exchanges.follow(Schedule(round=0, place=plan.places[number]))
        return lambda: device.live(range(ROUNDS), trained=trained)

    return ether.run({number: program(number) for number in range(len(weights))}).values()


def taken(pasts):
    """Return what the last exchange took: seconds of each device from the end of its training, and joules."""
    ends_s = np.array([past.air_s for past in pasts])
    compute_s = np.array([past.spent[-1].compute_air_s for past in pasts])
    ready_s = ends_s[:, -2] + compute_s
    heard = [heard for past in pasts for heard in past.heard[-1].values()]
    tx_j, rx_j = sum(h.tx_j for h in heard), sum(h.rx_j for h in heard)
    return ends_s[:, -1] - ready_s, ends_s[:, -1].max() - ready_s.max(), tx_j, tx_j + rx_j


RADIOS = {
    "tdma": Radio(),
    "tdma, unicast": Radio(cast="unicast"),
    "tdma, without answers": Radio(symmetric=False),
    "tdma, adaptive rate": Radio(rate="adaptive"),
    "tdma, repeats": Radio(arq="selective_repeat", rate="adaptive", target_packet_loss=1e-9),
    "parallel": Radio(access="parallel"),
    "parallel, adaptive rate": Radio(access="parallel", rate="adaptive", shared_bandwidth=True),
    "parallel, unicast, repeats": Radio(access="parallel", cast="unicast", arq="selective_repeat"),
    "ideal": Radio(scheme="ideal"),
}


def without_fading(radio):
    return radio.model_copy(
        update={"fading": "none", "target_packet_loss": min(radio.target_packet_loss, 1e-4)}
    )


@pytest.mark.parametrize("scheme", ["gossip", "tree", "ring"])
@pytest.mark.parametrize(("radio", "codec"), [*((radio, "float32") for radio in RADIOS), ("tdma", "int8")])
def test_an_aggregation_takes_the_seconds_and_joules_that_were_planned(scheme, radio, codec):
    experiment = experiment_of(
        without_fading(RADIOS[radio]), devices=N, codec=codec, scheme=scheme, sweeps=2, chunks=3
    )
    plan = planned(experiment, complete(N))
    assert plan.event.scheme == scheme
    _, air_s, tx_j, total_j = taken(lived(experiment, complete(N), plan))
    # One packet in ten thousand is lost; and of the ring's chunks of 42 or 43 numbers the larger ones decide.
    assert plan.event.air_s == pytest.approx(air_s, rel=0.025 if scheme == "ring" else 1e-3)
    assert plan.event.tx_joules == pytest.approx(tx_j, rel=1e-3)
    assert plan.event.joules == pytest.approx(total_j, rel=1e-3)


@pytest.mark.parametrize("scheme", ["gossip", "tree"])
@pytest.mark.parametrize("weights", [ring(9), path(6)], ids=["ring", "path"])
def test_slots_that_are_used_again_are_planned_as_they_are(weights, scheme):
    radio = without_fading(Radio(rate="adaptive", arq="selective_repeat"))
    experiment = experiment_of(radio, devices=len(weights), scheme=scheme, chunks=4)
    plan = planned(experiment, weights)
    _, air_s, _, total_j = taken(lived(experiment, weights, plan))
    assert plan.event.air_s == pytest.approx(air_s, rel=1e-3)
    assert plan.event.joules == pytest.approx(total_j, rel=1e-3)


@pytest.mark.parametrize("scheme", ["gossip", "tree", "ring"])
@pytest.mark.parametrize("access", ["tdma", "parallel"])
def test_each_device_waits_for_the_slower_ones_as_was_planned(access, scheme):
    experiment = experiment_of(without_fading(Radio(access=access)), devices=N, scheme=scheme, chunks=3)
    speeds_hz = tuple(1e9 / (1 + device % 3) for device in range(N))
    experiment = experiment.model_copy(update={"device": DeviceKnobs(cpu_hz=speeds_hz)})
    plan = planned(experiment, complete(N))
    each_s, air_s, _, _ = taken(lived(experiment, complete(N), plan))
    costs = exchange_costs(experiment, plan, [experiment.training.nominal_local_rounds] * N)
    assert np.ptp(each_s) > 0.5
    assert [cost.air_s + cost.waiting_air_s for cost in costs] == pytest.approx(list(each_s), rel=5e-3)
    assert np.ptp([cost.waiting_air_s for cost in costs]) > 0.5
    assert plan.event.air_s == pytest.approx(air_s, rel=5e-3)
    assert sum(cost.joules for cost in costs) == pytest.approx(plan.event.joules)


@pytest.mark.parametrize("scheme", ["gossip", "tree", "ring"])
def test_what_rides_on_the_exchange_is_paid_for(scheme):
    experiment = experiment_of(without_fading(Radio()), devices=N, scheme=scheme, chunks=3)
    training, budget = Training(local_rounds="adaptive"), Budget(seconds=60.0)
    experiment = experiment.model_copy(update={"training": training, "budget": budget})
    plan = planned(experiment, complete(N))
    _, air_s, tx_j, _ = taken(lived(experiment, complete(N), plan))
    assert plan.event.tx_joules == pytest.approx(tx_j, rel=1e-3)
    assert plan.event.air_s == pytest.approx(air_s, rel=1e-3)


@pytest.mark.parametrize("access", ["tdma", "parallel"])
@pytest.mark.parametrize("superposition", ["over_the_air", "orthogonal"])
def test_analog_sums_take_the_seconds_and_joules_that_were_planned(superposition, access):
    knobs = Analog(superposition=superposition, gain_threshold=0.0)
    radio = Radio(scheme="analog", fading="none", access=access, analog=knobs)
    experiment = experiment_of(radio, devices=N)
    plan = planned(experiment, complete(N))
    _, air_s, tx_j, total_j = taken(lived(experiment, complete(N), plan))
    # Where devices send one by one and nobody answers, turns come round differently each time.
    assert plan.event.air_s == pytest.approx(air_s, rel=0.05 if superposition == "orthogonal" else 1e-6)
    # All models are taken to be of the same size; here they differ by a few per cent.
    assert plan.event.tx_joules == pytest.approx(tx_j, rel=0.05)
    assert plan.event.joules == pytest.approx(total_j, rel=0.05)
    assert set(plan.event.alternatives_j) == {"gossip"}


@pytest.mark.parametrize("scheme", ["gossip", "tree", "ring"])
@pytest.mark.parametrize("cast", ["broadcast", "unicast"])
def test_the_dearest_exchange_is_that_of_the_devices(cast, scheme):
    radio = without_fading(Radio(arq="selective_repeat", cast=cast))
    experiment = experiment_of(radio, devices=N, scheme=scheme, sweeps=2, chunks=3)
    plan, network = planned(experiment, complete(N)), network_of(complete(N))
    ether = Ether(N)
    for number in range(N):
        device = Device(experiment, complete(N), number, Port(ether, number), snr_db=loud_snr_db)
        if plan.places:
            device.exchanges.follow(Schedule(round=0, place=plan.places[number]))
        expected_j = device.exchanges.at_most_j
        assert exchange_at_most_j(experiment, network, plan, number) == pytest.approx(expected_j, rel=1e-12)
        assert expected_j >= plan.cost.joules[number]


@pytest.mark.parametrize("sweeps", [1, 12])
def test_gossip_is_weighed_with_all_sweeps_of_a_round(sweeps):
    """On a complete graph one would be enough, but a round takes all of them."""
    knobs = {"devices": N, "sweeps": sweeps}
    gossip = planned(experiment_of(Radio(), scheme="gossip", **knobs), complete(N)).event
    auto = planned(experiment_of(Radio(), scheme="auto", **knobs), complete(N)).event
    assert auto.alternatives_j["gossip"] == gossip.joules
