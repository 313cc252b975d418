"""The planned network: links with the SNR and loss of their geometry, and what each device is told."""

from math import dist, exp, log10

import networkx as nx
import numpy as np
import pytest

from coordinator import network as network_module
from coordinator.colouring import distance_two_colouring
from coordinator.network import full_packet_bits, lay_out, row
from coordinator.topology import build
from coordinator.weights import mixing_matrix
from protocol.codec import Layout
from protocol.config import Codec, Experiment, Graph, Radio
from protocol.errors import BadInput
from protocol.link import mean_packet_loss, mean_snr_db, shadowing_db
from protocol.packet_errors import PacketErrorTable


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
        shadow_db = shadowing_db(asked.radio, seed=7, pair=(a, b))
        snr_db = mean_snr_db(
            dist(place[a], place[b]), asked.radio, 1e6, tx_power_dbm=10, shadowing_db=shadow_db
        )
        assert link["mean_snr_db"] == {a: snr_db, b: snr_db}
        loss = mean_packet_loss(asked.radio, snr_db, 800)
        assert link["packet_loss"] == {a: loss, b: loss}
        assert {type(loss) for loss in link["packet_loss"].values()} == {float}


def dict_of(network, attribute):
    """Return what each link has, after checking that both its ends have the same."""
    found = {}
    for link, ends in nx.get_edge_attributes(network.graph, attribute).items():
        assert ends.keys() == set(link)
        [found[link]] = set(ends.values())
    return found


@pytest.mark.parametrize("modulation", ["bpsk", "qam256"])
def test_many_links_share_one_grid_of_losses_within_its_error(monkeypatch, modulation):
    asked_for = []

    def counted(radio, snr_db, packet_bits, **how):
        asked_for.append(snr_db)
        return mean_packet_loss(radio, snr_db, packet_bits, **how)

    monkeypatch.setattr(network_module, "mean_packet_loss", counted)
    asked = experiment(devices=50, graph=Graph(kind="complete"), radio=Radio(modulation=modulation))
    network = lay_out(asked)
    links = list(network.graph.edges(data=True))
    assert len(asked_for) < len(links) / 2
    for _, _, link in links[::20]:
        for end, snr_db in link["mean_snr_db"].items():
            exact = mean_packet_loss(asked.radio, snr_db, 4096)
            assert link["packet_loss"][end] == pytest.approx(exact, abs=5e-5)


def test_without_fading_the_loss_is_exact_however_many_links():
    # Long packets at the edge of reception: the loss climbs from 0 to 1 within a few decibels.
    asked = experiment(
        devices=50,
        graph=Graph(kind="complete"),
        radio=Radio(fading="none", tx_power_dbm=-2.5),
        codec=Codec(packet_bytes=65_536),
    )
    network = lay_out(asked)
    snrs_db, losses = dict_of(network, "mean_snr_db"), dict_of(network, "packet_loss")
    for link, snr_db in snrs_db.items():
        assert losses[link] == pytest.approx(mean_packet_loss(asked.radio, snr_db, 8 * 65_536), abs=1e-12)
    assert sum(0.1 < loss < 0.9 for loss in losses.values()) > 20


def test_an_ideal_radio_keeps_the_snr_of_the_geometry_and_loses_nothing():
    ideal = lay_out(experiment(radio=Radio(scheme="ideal", tx_power_dbm=-10)))
    digital = lay_out(experiment(radio=Radio(scheme="digital", tx_power_dbm=-10)))
    assert dict_of(ideal, "mean_snr_db") == dict_of(digital, "mean_snr_db")
    assert set(dict_of(ideal, "packet_loss").values()) == {0.0}
    assert max(dict_of(digital, "packet_loss").values()) > 0.5


def test_a_row_tells_a_device_its_neighbours_in_order_and_nothing_else():
    network = lay_out(experiment())
    for device in range(10):
        links = row(network, device)
        assert [link.neighbour for link in links] == sorted(network.graph[device])
        for link in links:
            assert link.weight == network.weights[device, link.neighbour]
            assert type(link.weight) is float
            ends = network.graph.edges[device, link.neighbour]["mean_snr_db"]
            assert (link.mean_snr_db, link.mean_snr_there_db) == (ends[device], ends[link.neighbour])
            assert link.slot == network.colours[link.neighbour]
            assert sorted(network.graph[link.neighbour])[link.turn] == device
            assert link.position_m == network.graph.nodes[link.neighbour]["position_m"]
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
    for device, place in network.graph.nodes(data=True):
        shuffled.add_node(device, **place)
    mixed_up = network_module.Network(shuffled, network.weights, network.colours)
    assert row(mixed_up, 0) == row(network, 0)
    assert [(link.neighbour, link.turn) for link in row(mixed_up, 0)] == [(1, 0), (9, 0)]


def test_a_single_device_has_an_empty_row():
    network = lay_out(experiment(devices=1))
    assert row(network, 0) == []
    assert network.weights.tolist() == [[1.0]]
    assert (network.colours, network.num_slots, network.max_degree) == ((0,), 1, 0)


def test_the_same_experiment_gives_the_same_network_bit_for_bit():
    asked = experiment(radio=Radio(shadowing_std_db=8))
    first, second = lay_out(asked), lay_out(asked)
    assert list(first.graph.edges(data=True)) == list(second.graph.edges(data=True))
    assert (first.weights == second.weights).all()
    assert first.colours == second.colours


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
    assert (network.colours, network.num_slots, network.max_degree) == ((0,) * 5, 1, 0)


def test_slots_and_the_largest_degree_are_those_of_the_graph():
    network = lay_out(experiment(devices=9, graph=Graph(kind="ring")))
    assert network.colours == distance_two_colouring(network.graph)
    assert (network.num_slots, network.max_degree) == (3, 2)
    star = lay_out(experiment(devices=6, graph=Graph(kind="star")))
    assert (star.num_slots, star.max_degree) == (6, 5)


def test_a_given_snr_is_that_of_every_link_wherever_devices_stand():
    network = lay_out(experiment(radio=Radio(snr="given", snr_db=13.5, shadowing_std_db=8)))
    assert set(dict_of(network, "mean_snr_db").values()) == {13.5}
    expected = mean_packet_loss(Radio(), 13.5, 4096)
    assert set(dict_of(network, "packet_loss").values()) == {expected}


def test_a_matrix_gives_each_link_its_own_snr(tmp_path):
    matrix = 5 + np.add.outer(np.arange(10.0), np.arange(10.0))
    np.savetxt(tmp_path / "snr.txt", matrix)
    network = lay_out(experiment(radio=Radio(snr="matrix", snr_file=str(tmp_path / "snr.txt"))))
    assert dict_of(network, "mean_snr_db") == {(a, b): 5.0 + a + b for a, b in network.graph.edges}
    assert all(type(snr_db) is float for snr_db in dict_of(network, "mean_snr_db").values())


def test_links_that_share_the_band_hear_as_much_less_noise():
    whole, shared = (
        lay_out(experiment(radio=Radio(access="parallel", shared_bandwidth=share))) for share in (False, True)
    )
    colours = shared.num_slots
    assert colours > 2
    gain_db = 10 * log10(colours)  # noise power is proportional to the bandwidth
    for link, snr_db in dict_of(whole, "mean_snr_db").items():
        assert dict_of(shared, "mean_snr_db")[link] == pytest.approx(snr_db + gain_db, abs=1e-9)


def test_with_an_adaptive_rate_the_loss_is_that_of_the_most_robust_modulation():
    adaptive = lay_out(experiment(radio=Radio(rate="adaptive", modulation="qam256")))
    robust = lay_out(experiment(radio=Radio(modulation="bpsk")))
    assert dict_of(adaptive, "packet_loss") == dict_of(robust, "packet_loss")


def test_an_analog_link_loses_what_stays_silent_whatever_its_snr():
    network = lay_out(experiment(radio=Radio(scheme="analog", analog={"gain_threshold": 0.3})))
    # P(g < 0.3) = 1 - exp(-0.3) for Rayleigh fading; the mean is over 20,000 slices.
    assert list(dict_of(network, "packet_loss").values()) == pytest.approx(
        [1 - exp(-0.3)] * network.graph.number_of_edges(), abs=1 / 20_000
    )


def step_table(modulation, snr_db):
    """Return a code that loses all packets below an SNR and none from it on."""
    return PacketErrorTable(
        modulation=modulation,
        code_rate=0.5,
        packet_bits=4096,
        snr_db=(snr_db - 1e-9, snr_db),
        packet_loss=(1.0, 0.0),
        residual_ber=(0.1, 0.1),
        num_packets=(10**6, 10**6),
    )


def test_with_a_real_code_the_loss_is_that_of_its_table():
    coded = Radio(packet_errors="sionna", code_rate=0.5, snr="given", snr_db=10)
    tables = (step_table("bpsk", 99.0), step_table("qpsk", 7.0))
    network = lay_out(experiment(radio=coded), tables)
    # P(10^(10/10) g < 10^(7/10)), g ~ Exp(1)
    assert list(dict_of(network, "packet_loss").values()) == pytest.approx(
        [1 - exp(-(10**-0.3))] * network.graph.number_of_edges(), abs=1 / 20_000
    )


@pytest.mark.parametrize(
    ("radio", "says"),
    [
        (
            Radio(tx_power_dbm=-60),
            r"^no link can carry anything: the best has a mean SNR of -\d+\.\d dB, and qpsk loses "
            r"512-byte packets there with certainty; raise radio\.tx_power_dbm, or use a more robust "
            r"radio\.modulation or smaller codec\.packet_bytes$",
        ),
        (
            Radio(rate="adaptive", modulation="qam256", tx_power_dbm=-60),
            r"^no link can carry anything: .* bpsk loses",
        ),
        (
            # One fade in a hundred thousand is strong enough: the mean over 20,000 gains finds none.
            Radio(scheme="analog", analog={"gain_threshold": 11.5}),
            r"^no link can carry anything: .* radio\.analog\.gain_threshold = 11\.5 silences them all$",
        ),
        (
            # Packets are accepted by digital receivers only.
            Radio(scheme="analog", analog={"gain_threshold": 11.5}, bad_packets="accept"),
            r"^no link can carry anything: .* silences them all$",
        ),
        (
            Radio(snr="given", snr_db=-40),
            r"^no link can carry anything: the best .* of -40\.0 dB, .*; raise radio\.snr_db, or use",
        ),
    ],
    ids=["digital", "adaptive", "analog", "analog-accept", "given"],
)
def test_a_network_in_which_nobody_can_be_heard_is_refused_in_one_line(radio, says):
    with pytest.raises(BadInput, match=says) as refusal:
        lay_out(experiment(radio=radio))
    assert len(str(refusal.value).splitlines()) == 1


def test_a_matrix_of_links_too_weak_names_its_file(tmp_path):
    np.savetxt(tmp_path / "snr.txt", np.full((10, 10), -60.0))
    deaf = experiment(
        graph=Graph(kind="complete"), radio=Radio(snr="matrix", snr_file=str(tmp_path / "snr.txt"))
    )
    with pytest.raises(BadInput, match=r"raise the numbers in radio\.snr_file, or use"):
        lay_out(deaf)


def test_devices_that_walk_may_hear_each_other_later():
    lay_out(experiment(radio=Radio(tx_power_dbm=-60), mobility={"kind": "random_waypoint"}))


def test_one_link_that_can_carry_something_is_enough(tmp_path):
    matrix = np.full((10, 10), -60.0)
    matrix[0, 1] = matrix[1, 0] = 20.0
    np.savetxt(tmp_path / "snr.txt", matrix)
    deaf_but_one = experiment(
        graph=Graph(kind="complete"), radio=Radio(snr="matrix", snr_file=str(tmp_path / "snr.txt"))
    )
    losses = dict_of(lay_out(deaf_but_one), "packet_loss")
    assert sum(loss < 0.5 for loss in losses.values()) == 1


def test_a_link_on_which_flipped_bits_are_accepted_carries_something():
    # One bit in a hundred flips, so no packet of 4,096 bits comes through whole, and none needs to.
    flipping = Radio(snr="given", snr_db=7.3, fading="none", bad_packets="accept")
    assert min(dict_of(lay_out(experiment(radio=flipping)), "packet_loss").values()) > 1 - 1e-9
    with pytest.raises(BadInput, match="no link can carry anything"):
        lay_out(experiment(radio=flipping.model_copy(update={"bad_packets": "erase"})))


def test_devices_that_never_talk_need_no_link():
    lay_out(experiment(aggregation={"scheme": "isolated"}, radio=Radio(tx_power_dbm=-60)))
