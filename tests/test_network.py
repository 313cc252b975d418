"""The planned network: links with the SNR and loss of their geometry, and what each device is told."""

from math import dist

import networkx as nx
import numpy as np
import pytest

from coordinator import network as network_module
from coordinator.network import full_packet_bits, lay_out, row
from coordinator.topology import build
from coordinator.weights import mixing_matrix
from protocol.codec import Layout
from protocol.config import Codec, Experiment, Graph, Radio
from protocol.errors import BadInput
from protocol.link import mean_snr_db, packet_loss_probability


def experiment(**sections):
    return Experiment(
        **({"seed": 7, "devices": 10, "graph": Graph(kind="geometric", radius_m=70)} | sections)
    )


def test_the_network_has_the_graph_and_the_weights_that_were_asked_for():
    asked = experiment(graph=Graph(kind="geometric", radius_m=70, weights="max_degree"))
    network = lay_out(asked)
    plain = build(asked.graph, 10, seed=7)
    assert list(network.graph.nodes(data=True)) == list(plain.nodes(data=True))
    assert list(network.graph.edges(data="distance_m")) == list(plain.edges(data="distance_m"))
    assert (network.weights == mixing_matrix(plain, "max_degree")).all()


def test_every_link_has_the_snr_and_the_loss_of_its_geometry_and_its_shadowing():
    asked = experiment(radio=Radio(shadowing_std_db=8, modulation="qam16"), codec=Codec(packet_bytes=100))
    network = lay_out(asked)
    place = network.graph.nodes(data="position_m")
    for a, b, link in network.graph.edges(data=True):
        snr_db = mean_snr_db(dist(place[a], place[b]), asked.radio, seed=7, pair=(a, b))
        assert link["mean_snr_db"] == snr_db
        assert link["packet_loss"] == packet_loss_probability(asked.radio, snr_db, 800)
        assert type(link["packet_loss"]) is float


def dict_of(network, attribute):
    return nx.get_edge_attributes(network.graph, attribute)


@pytest.mark.parametrize("modulation", ["bpsk", "qam256"])
def test_many_links_share_one_grid_of_losses_within_its_error(monkeypatch, modulation):
    asked_for = []

    def counted(radio, snr_db, packet_bits):
        asked_for.append(snr_db)
        return packet_loss_probability(radio, snr_db, packet_bits)

    monkeypatch.setattr(network_module, "packet_loss_probability", counted)
    asked = experiment(devices=50, graph=Graph(kind="complete"), radio=Radio(modulation=modulation))
    network = lay_out(asked)
    links = list(network.graph.edges(data=True))
    assert len(asked_for) < len(links) / 2
    for _, _, link in links[::20]:
        exact = packet_loss_probability(asked.radio, link["mean_snr_db"], 4096)
        assert link["packet_loss"] == pytest.approx(exact, abs=5e-5)


def test_without_fading_the_loss_is_exact_however_many_links():
    # Long packets at the edge of reception: the loss climbs from 0 to 1 within a few decibels.
    asked = experiment(
        devices=50,
        graph=Graph(kind="complete"),
        radio=Radio(fading="none", tx_power_dbm=-2.5),
        codec=Codec(packet_bytes=65_536),
    )
    links = [link for _, _, link in lay_out(asked).graph.edges(data=True)]
    for link in links:
        exact = packet_loss_probability(asked.radio, link["mean_snr_db"], 8 * 65_536)
        assert link["packet_loss"] == pytest.approx(exact, abs=1e-12)
    assert sum(0.1 < link["packet_loss"] < 0.9 for link in links) > 20


def test_an_ideal_radio_keeps_the_snr_of_the_geometry_and_loses_nothing():
    ideal = lay_out(experiment(radio=Radio(scheme="ideal", tx_power_dbm=-60)))
    digital = lay_out(experiment(radio=Radio(scheme="digital", tx_power_dbm=-60)))
    assert dict_of(ideal, "mean_snr_db") == dict_of(digital, "mean_snr_db")
    assert set(dict_of(ideal, "packet_loss").values()) == {0.0}
    assert min(dict_of(digital, "packet_loss").values()) > 0.5


def test_a_row_tells_a_device_its_neighbours_in_order_and_nothing_else():
    network = lay_out(experiment())
    for device in range(10):
        links = row(network, device)
        assert [link.neighbour for link in links] == sorted(network.graph[device])
        for neighbour, weight, snr_db in links:
            assert weight == network.weights[device, neighbour]
            assert type(weight) is float
            assert snr_db == network.graph.edges[device, neighbour]["mean_snr_db"]
        assert sum(link.weight for link in links) + network.weights[device, device] == pytest.approx(
            1, abs=1e-12
        )


def test_both_ends_of_a_link_are_told_the_same():
    network = lay_out(experiment(radio=Radio(shadowing_std_db=8)))
    told = {
        (device, link.neighbour): (link.weight, link.mean_snr_db)
        for device in range(10)
        for link in row(network, device)
    }
    assert all(told[b, a] == link for (a, b), link in told.items())
    assert len(told) == 2 * network.graph.number_of_edges()


def test_rows_are_sorted_even_where_the_graph_is_not():
    network = lay_out(experiment(graph=Graph(kind="ring")))
    shuffled = nx.Graph()
    shuffled.add_edges_from(reversed(list(network.graph.edges(data=True))))
    assert [link.neighbour for link in row(network_module.Network(shuffled, network.weights), 0)] == [1, 9]


def test_a_single_device_has_an_empty_row():
    network = lay_out(experiment(devices=1))
    assert row(network, 0) == []
    assert network.weights.tolist() == [[1.0]]


def test_the_same_experiment_gives_the_same_network_bit_for_bit():
    asked = experiment(radio=Radio(shadowing_std_db=8))
    first, second = lay_out(asked), lay_out(asked)
    assert list(first.graph.edges(data=True)) == list(second.graph.edges(data=True))
    assert (first.weights == second.weights).all()


def test_another_seed_gives_other_links():
    first, second = (lay_out(experiment(seed=seed, graph=Graph(kind="ring"))) for seed in (1, 2))
    assert dict_of(first, "mean_snr_db") != dict_of(second, "mean_snr_db")


@pytest.mark.parametrize(
    ("codec", "scheme", "bits"),
    [
        (Codec(kind="float32", packet_bytes=512), "digital", 8 * (127 * 4 + 4)),
        (Codec(kind="float32", packet_bytes=515), "digital", 8 * (127 * 4 + 4)),
        (Codec(kind="float16", packet_bytes=17), "digital", 8 * (6 * 2 + 4)),
        (Codec(kind="float16", packet_bytes=17), "ideal", 8 * (8 * 2)),
        (Codec(kind="int8", packet_bytes=16), "digital", 8 * (8 + 8)),
        (Codec(kind="int8", packet_bytes=16), "ideal", 8 * (12 + 4)),
        (Codec(kind="int8", packet_bytes=65_536), "digital", 8 * 65_536),
    ],
)
def test_a_full_packet_is_that_of_any_model_with_more_than_one(codec, scheme, bits):
    asked = experiment(codec=codec, radio=Radio(scheme=scheme))
    assert full_packet_bits(asked) == bits
    layout = Layout(codec.kind, 1_000_000, codec.packet_bytes, checked=scheme == "digital")
    assert np.unique(layout.packet_bits[:-1]).tolist() == [bits]


def test_what_cannot_be_laid_out_is_refused_in_one_line():
    with pytest.raises(BadInput, match=r"^graph\.kind = geometric: [^\n]* raise graph\.radius_m to [^\n]*$"):
        lay_out(experiment(graph=Graph(kind="geometric", radius_m=1)))
    with pytest.raises(BadInput, match=r"^graph\.weights = uniform: needs a regular graph[^\n]*$"):
        lay_out(experiment(graph=Graph(kind="geometric", radius_m=70, weights="uniform")))


def test_isolated_devices_have_no_links_and_keep_their_own():
    network = lay_out(Experiment(devices=5, aggregation={"scheme": "isolated"}))
    assert network.graph.number_of_edges() == 0
    assert (network.weights == np.eye(5)).all()
    assert all(row(network, device) == [] for device in range(5))
