"""Links of unequal transmit powers: SNRs are directed, fades and shadowing are not."""

import math

import numpy as np
import pytest
from devices import NUM_VALUES, complete, experiment_of, learned, live_together, path, ring
from ether import Ether, Port
from oracle import Oracle

from coordinator.network import lay_out, row
from protocol.access import plan_access
from protocol.air import AirLink, Transmission, frame_layout
from protocol.config import Experiment, Graph
from protocol.errors import BadInput
from protocol.frame import MODULATION_OF, Kind
from protocol.hardware import fleet
from protocol.link import mean_packet_loss
from protocol.quantities import Uniform
from protocol.radio import Analog, Mobility, Radio

POWERS_DBM = (0.0, 12.5, -7.0, 20.0)


def geometric(**radio):
    return Experiment(devices=4, graph=Graph(kind="complete"), radio=Radio(shadowing_std_db=6, **radio))


@pytest.mark.parametrize("power", [POWERS_DBM, Uniform(low=-10, high=20)], ids=["listed", "drawn"])
def test_the_snr_of_a_link_is_that_of_its_sender(power):
    """As with 10 dBm, but for what the sender has more: path loss and shadowing are the same both ways."""
    alike, unlike = lay_out(geometric()), geometric(tx_power_dbm=power)
    powers_dbm = [own.tx_power_dbm for own in fleet(unlike)]
    network = lay_out(unlike)
    for a, b, link in network.graph.edges(data=True):
        at_ten_dbm = alike.graph.edges[a, b]["mean_snr_db"][a]
        for receiver, sender in ((a, b), (b, a)):
            snr_db = link["mean_snr_db"][receiver]
            assert snr_db == pytest.approx(at_ten_dbm - 10 + powers_dbm[sender], abs=1e-9)
            loss = mean_packet_loss(unlike.radio, snr_db, 4096)
            assert link["packet_loss"][receiver] == pytest.approx(loss, abs=5e-5)
    told = {(device, link.neighbour): link for device in range(4) for link in row(network, device)}
    for (device, other), link in told.items():
        assert link.mean_snr_db == network.graph.edges[device, other]["mean_snr_db"][device]
        assert link.mean_snr_there_db == told[other, device].mean_snr_db
        assert link.mean_snr_there_db - link.mean_snr_db == pytest.approx(
            powers_dbm[device] - powers_dbm[other], abs=1e-9
        )


def air(experiment, pair=(1, 3), snrs_db=(20.0, 9.0)):
    layout = frame_layout(experiment, 300)
    access = plan_access(experiment, layout, num_colours=4, max_degree=3)
    places_m = ((10.0, 20.0), (40.0, 60.0)) if pair[0] < pair[1] else ((40.0, 60.0), (10.0, 20.0))
    return AirLink(experiment, access, pair=pair, mean_snrs_db=snrs_db, places_m=places_m), layout


def test_the_air_of_a_link_has_one_fade_and_two_snrs():
    link, layout = air(geometric(tx_power_dbm=POWERS_DBM))
    other_end, _ = air(geometric(tx_power_dbm=POWERS_DBM), pair=(3, 1), snrs_db=(9.0, 20.0))
    for round_ in range(3):
        one, three = (Transmission(round_, sender, 0, 0) for sender in (1, 3))
        gains = link.gains(one, layout)
        assert np.array_equal(link.gains(three, layout), gains)
        assert link.snr(one, layout) == pytest.approx(10**2.0 * gains)
        assert link.snr(three, layout) == pytest.approx(10**0.9 * gains)
        for sent in (one, three):
            assert np.array_equal(other_end.snr(sent, layout), link.snr(sent, layout))


def test_devices_that_walk_keep_the_powers_that_they_have():
    walking = geometric(tx_power_dbm=POWERS_DBM).model_copy(
        update={"mobility": Mobility(kind="random_waypoint", round_s=5)}
    )
    link, _ = air(walking)
    for round_ in (0, 3):
        ahead_db = link.mean_snr_db(round_, 3) - link.mean_snr_db(round_, 1)
        assert ahead_db == pytest.approx(20 - 12.5, abs=1e-9)
    assert link.mean_snr_db(3, 1) != link.mean_snr_db(0, 1)


def directed_db(receiver, sender):
    """Every direction has an SNR of its own, from lossy to nearly clean."""
    return 8.0 + 3 * ((2 * receiver + 3 * sender) % 5)


RADIOS = {
    "symmetric": Radio(coherence_packets=2),
    "one-sided": Radio(symmetric=False),
    "repeats": Radio(arq="selective_repeat", cast="unicast", coherence_packets=2),
}


@pytest.mark.parametrize("name", RADIOS)
@pytest.mark.parametrize("weights", [complete(3), ring(5)], ids=["complete", "ring"])
def test_devices_lose_what_the_direction_loses(name, weights):
    num_devices = len(weights)
    experiment = experiment_of(RADIOS[name], devices=num_devices)
    pasts = live_together(Ether(num_devices), experiment, weights, 3, snr_db=directed_db)
    oracle = Oracle(experiment, weights, snr_db=directed_db)
    for round_, xs in enumerate(oracle.lives(3)):
        for device, past in pasts.items():
            np.testing.assert_allclose(past.x[round_], xs[device], rtol=0, atol=1e-5)
    turned = Oracle(experiment, weights, snr_db=lambda a, b: directed_db(b, a))
    assert np.abs(turned.lives(3)[-1] - oracle.lives(3)[-1]).max() > 0.01


def test_a_sender_chooses_its_modulation_by_the_snr_at_the_receiver():
    """Without fading 40 dB carry 256-QAM, and 4 dB nothing but BPSK: one number for each direction."""
    radio = Radio(rate="adaptive", fading="none", symmetric=False)
    ether, experiment = Ether(2), experiment_of(radio, devices=2)
    ports = [Port(ether, number) for number in range(2)]
    heard_db = {(1, 0): 40.0, (0, 1): 4.0}
    live_together(
        ether, experiment, complete(2), 1, ports=ports, snr_db=lambda here, there: heard_db[here, there]
    )
    used = [
        {MODULATION_OF[header.modulation] for _, header, _ in port.said if header.kind is Kind.PARAMETERS}
        for port in ports
    ]
    assert used == [{"qam256"}, {"bpsk"}]


def test_an_analog_sender_is_scaled_by_its_snr_at_the_receiver():
    """On a path of three the one in the middle scales by W^2 ||s||^2 / snr of what it hears (docs, (21)).

    What the middle sends is heard better by 0 than by 2, which must not matter; powers are 1 mW to 1 W.
    """
    radio = Radio(scheme="analog", fading="none", tx_power_dbm=(30, 0, 10), analog=Analog(gain_threshold=0))
    experiment, weights = experiment_of(radio, devices=3), path(3)
    heard_db = {(1, 0): 5.0, (1, 2): 12.0, (0, 1): 60.0, (2, 1): 30.0}
    pasts = live_together(Ether(3), experiment, weights, 1, snr_db=lambda here, there: heard_db[here, there])
    needs = {j: np.sum(learned(j, 0).astype(float) ** 2) / 10 ** (heard_db[1, j] / 10) for j in (0, 2)}
    symbols_s, norms_s = NUM_VALUES / 2 / 1e6, (480 + 32) / 1e6
    for j, power_w in ((0, 1.0), (2, 0.01)):
        share = needs[j] / max(needs.values())
        wanted_j = power_w * (share * symbols_s + 2 * norms_s)
        assert pasts[j].heard[0][1].tx_j == pytest.approx(wanted_j, rel=1e-6)
        # A lone sender has full power; one answer is for both.
        assert pasts[1].heard[0][j].tx_j == pytest.approx(1e-3 * (symbols_s + 1.5 * norms_s), rel=1e-6)


def test_links_heard_in_one_direction_carry_something_only_if_that_counts():
    """From the loud device to the other three; nothing comes back."""
    loud = {"tx_power_dbm": (10, -60, -60, -60), "snr": "geometry", "fading": "none"}
    star = {"devices": 4, "graph": Graph(kind="star")}
    with pytest.raises(
        BadInput, match=r"^no link can carry anything: .* SNR of -\d.*raise radio.tx_power_dbm"
    ):
        lay_out(Experiment(radio=Radio(**loud), **star))
    network = lay_out(Experiment(radio=Radio(symmetric=False, **loud), **star))
    for _, other, link in network.graph.edges(data=True):
        assert link["packet_loss"][0] == pytest.approx(1)
        assert link["packet_loss"][other] < 0.01


SAME = {"digital": (), "analog": ("radio.scheme=analog",)}


@pytest.mark.processes
@pytest.mark.parametrize("name", SAME)
def test_equal_powers_are_one_power_bit_for_bit(whole_run, name):
    one = whole_run(*SAME[name])
    many = whole_run(*SAME[name], "radio.tx_power_dbm=[0, 0, 0, 0]", "device.cpu_hz={low=1e9, high=1e9}")
    assert [what_passed(report) for report in in_order(many)] == [
        what_passed(report) for report in in_order(one)
    ]
    assert many.events("started")[0]["edges"] == one.events("started")[0]["edges"]
    for file, x in one.parameters().items():
        assert np.array_equal(many.parameters()[file], x)


def in_order(run):
    return sorted(run.events("report"), key=lambda report: (report["device"], report["round"]))


def what_passed(report):
    return {name: report[name] for name in ("loss", "accuracy", "heard", "spent")}


BEFORE = (
    (12.176948682265675, 0.4286991679805616),
    (17.386425272089625, 0.15693343799214532),
    (34.03372155272436, 0.0037067413996470116),
    (6.833135126445995, 0.8424574920409658),
)
"""Mean SNR and packet loss of 0 - 1, 0 - 3, 1 - 2 and 2 - 3."""


@pytest.mark.processes
def test_equal_powers_are_what_they_were_before_links_had_directions(whole_run):
    """Counted with the last version that knew one SNR for each link."""
    s = whole_run().summary
    assert (s["bit_errors"], s["packets_corrupted"], s["packets_lost"]) == (27_831, 520, 546)
    assert math.isclose(s["joules"], 0.20326912, rel_tol=1e-12)
    assert math.isclose(s["air_s"], 0.6912, rel_tol=1e-12)
    [started] = whole_run().events("started")
    for edge, (snr_db, loss) in zip(started["edges"], BEFORE, strict=True):
        assert edge["mean_snr_db"] == pytest.approx([snr_db, snr_db], rel=1e-12)
        assert edge["packet_loss"] == pytest.approx([loss, loss], rel=1e-9)
    analog = whole_run("radio.scheme=analog").summary
    assert analog["packets_lost"] == 120
    assert math.isclose(analog["air_s"], 0.436158, rel_tol=1e-12)
