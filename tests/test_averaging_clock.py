"""The modelled clock and the ledger of trees and rings: seconds and joules by hand.

300 float32 numbers in packets of 64 bytes are 20 full packets of 512 bits. At 1 MHz, QPSK carries 2 Mbit/s
and BPSK, which carries headers of 60 bytes, 16 bits for each packet and bitmaps, 1 Mbit/s.
"""

from itertools import pairwise

import pytest
from devices import experiment_of
from ether import Ether, Port
from schedules import random_places, random_tree, ring_places, scheduled, strong, tree_places

from protocol.frame import MODULATION_OF, Kind
from protocol.modulation import BITS_PER_SYMBOL
from protocol.radio import Radio

PACKET_S = 512 / 2e6
HEADER_S = 480 / 1e6
COUNT_S = 16 / 1e6
BIT_S = 1 / 1e6
TX_W, RX_W = 0.1, 0.05
"""20 dBm, and what a device draws by default."""

TDMA = Radio(fading="none", tx_power_dbm=20)
PARALLEL = Radio(fading="none", tx_power_dbm=20, access="parallel")
ADAPTIVE = Radio(fading="none", tx_power_dbm=20, access="parallel", rate="adaptive")
REPEATS = {"arq": "selective_repeat", "max_attempts": 6}
FEW_LOST_DB = 10.5
"""Mean SNR at which a QPSK packet of 512 bits is lost once in five times."""
PATH = tree_places([None, 0, 1])


def few_lost(receiver, sender):
    return FEW_LOST_DB


def frame_s(num_packets, *, packet_s=PACKET_S):
    """Airtime of a partial mean of so many packets."""
    return HEADER_S + num_packets * (COUNT_S + packet_s)


def one_round(radio, places, *, snr_db=strong, **aggregation):
    """Let all devices go through one round; return each one's past and what it said."""
    num_devices = len(places)
    experiment = experiment_of(radio, devices=num_devices, **aggregation)
    ether = Ether(num_devices)
    ports = [Port(ether, number) for number in range(num_devices)]

    def program(number):
        device = scheduled(experiment, places, number, ports[number], snr_db=snr_db)
        return lambda: device.live([0])

    pasts = ether.run({number: program(number) for number in range(num_devices)})
    assert ether.wall_s == 0
    return pasts, [port.said for port in ports]


def starts(said, kind=Kind.PARAMETERS):
    """Return (receiver, part, attempt, when) of every frame that was said."""
    return [(to, header.part, header.attempt, header.air_s) for to, header, _ in said if header.kind is kind]


def at(*moments):
    """Compare moments to within rounding."""
    return [(*what, pytest.approx(air_s, rel=1e-9, abs=1e-15)) for *what, air_s in moments]


def sent_j(pasts):
    return sum(heard.tx_j for past in pasts.values() for heard in past.heard[0].values())


def received_j(pasts):
    return sum(heard.rx_j for past in pasts.values() for heard in past.heard[0].values())


def test_a_tree_in_slots():
    """A slot has a turn up and a turn down; whoever missed its turn waits for the next superframe."""
    pasts, said = one_round(TDMA, PATH, scheme="tree", chunks=1)
    turn_s = frame_s(20)  # a superframe is six of them
    assert starts(said[2]) == at((1, 1, 0, 4 * turn_s))
    assert starts(said[1]) == at((0, 1, 0, (6 + 2) * turn_s), (2, 2, 0, (12 + 3) * turn_s))
    assert starts(said[0]) == at((1, 2, 0, (12 + 1) * turn_s))
    for device, end in enumerate([14, 16, 16]):
        assert pasts[device].spent[0].air_s == pytest.approx(end * turn_s)
        assert pasts[device].spent[0].slot_wait_air_s == pytest.approx(4 * turn_s)
    middle = pasts[1].heard[0]
    for heard in middle.values():
        assert (heard.tx_air_s, heard.rx_air_s) == pytest.approx((turn_s, turn_s))
        assert (heard.tx_j, heard.rx_j) == pytest.approx((TX_W * turn_s, RX_W * turn_s))


def test_a_ring_in_slots():
    """Chunks of 100 numbers fill six packets and two thirds of one; each superframe takes one step."""
    pasts, said = one_round(TDMA, ring_places([0, 1, 2]), scheme="ring")
    turn_s = HEADER_S + 7 * COUNT_S + (6 * 512 + 32 * 11) / 2e6
    for device in range(3):
        moments = [((device + 1) % 3, 1 + step, 0, (3 * step + device) * turn_s) for step in range(4)]
        assert starts(said[device]) == at(*moments)
    for device, end in enumerate([12, 11, 12]):
        assert pasts[device].spent[0].air_s == pytest.approx(end * turn_s)


@pytest.mark.parametrize("chunks", [1, 2, 4, 5, 20])
@pytest.mark.parametrize("depth", [1, 2, 4])
def test_chunks_follow_each_other_through_a_tree(depth, chunks):
    """Equal links: the deepest device has all after (2 depth + C - 1) / C times a whole vector's airtime."""
    places = tree_places([None, *range(depth)])
    pasts, _ = one_round(PARALLEL, places, scheme="tree", chunks=chunks)
    chunk_s = frame_s(20 / chunks)
    for device, past in pasts.items():
        last = 2 * depth + chunks - 1 if device == depth else depth + chunks + device  # sends on until then
        assert past.spent[0].air_s == pytest.approx(last * chunk_s)
        assert past.spent[0].slot_wait_air_s == 0


def test_a_ring_on_links_of_its_own_takes_all_its_steps_after_each_other():
    pasts, _ = one_round(PARALLEL, ring_places([2, 0, 4, 1, 3]), scheme="ring")
    for past in pasts.values():
        assert past.spent[0].air_s == pytest.approx(2 * 4 * frame_s(4))


def test_a_shared_band_is_divided_among_the_colours():
    radio = PARALLEL.model_copy(update={"shared_bandwidth": True})
    pasts, _ = one_round(radio, PATH, scheme="tree", chunks=1)
    assert pasts[2].spent[0].air_s == pytest.approx(4 * 3 * frame_s(20))


@pytest.mark.parametrize("radio", [TDMA, PARALLEL], ids=["tdma", "parallel"])
def test_all_children_share_one_transmission(radio):
    pasts, said = one_round(radio, tree_places([None, 0, 0, 0]), scheme="tree", chunks=2)
    assert len({header.air_s for _, header, _ in said[0]}) == 2
    for heard in pasts[0].heard[0].values():
        assert heard.tx_air_s == pytest.approx(2 * frame_s(10) / 3)
        assert heard.rx_air_s == pytest.approx(2 * frame_s(10))
    assert sent_j(pasts) == pytest.approx(TX_W * (3 + 1) * 2 * frame_s(10))
    assert received_j(pasts) == pytest.approx(RX_W * (3 + 3) * 2 * frame_s(10))


def test_or_each_child_has_a_transmission_of_its_own():
    radio = TDMA.model_copy(update={"cast": "unicast"})
    pasts, said = one_round(radio, tree_places([None, 0, 0, 0]), scheme="tree", chunks=2)
    assert len({header.air_s for _, header, _ in said[0]}) == 6
    assert sent_j(pasts) == pytest.approx(TX_W * (3 + 3) * 2 * frame_s(10))


def uneven(receiver, sender):
    """Let links permit from QPSK to 256-QAM, the same in both directions."""
    return 13.0 + 5 * ((receiver + sender) % 4)


def modulations(said):
    """Return the bits per symbol of each link that a device sends on, and that they are always the same."""
    bits = {}
    for to, header, _ in said:
        bits.setdefault((to, header.part % 2), BITS_PER_SYMBOL[MODULATION_OF[header.modulation]])
    return bits


@pytest.mark.parametrize("seed", range(4))
def test_a_tree_costs_each_edge_up_and_one_transmission_down_for_each_inner_device(seed):
    parents = random_tree(8, seed)
    pasts, said = one_round(ADAPTIVE, tree_places(parents), snr_db=uneven, scheme="tree", chunks=1)
    ups = {d: modulations(said[d])[parents[d], 1] for d in range(8) if parents[d] is not None}
    assert len(set(ups.values())) > 1
    total_s = sum(frame_s(20, packet_s=512 / 1e6 / bits) for bits in ups.values())
    for device in range(8):
        children = [child for child in range(8) if parents[child] == device]
        if children:
            slowest = min(ups[child] for child in children)  # links are the same in both directions
            assert {modulations(said[device])[child, 0] for child in children} == {slowest}
            total_s += frame_s(20, packet_s=512 / 1e6 / slowest)
    assert sent_j(pasts) == pytest.approx(TX_W * total_s)


def test_a_ring_costs_two_parts_in_n_less_than_twice_each_link():
    order = [0, 3, 1, 4, 2]
    pasts, said = one_round(ADAPTIVE, ring_places(order), snr_db=uneven, scheme="ring")
    links_s = headers_s = 0.0
    for device in order:
        (bits,) = set(modulations(said[device]).values())
        links_s += 20 * 512 / (1e6 * bits)
        headers_s += 8 * (HEADER_S + 4 * COUNT_S)
    assert sent_j(pasts) == pytest.approx(TX_W * (2 * 4 / 5 * links_s + headers_s))


@pytest.mark.parametrize("chunks", [1, 4])
def test_repeats_stop_and_wait(chunks):
    """An attempt follows the answer to the one before it, and a chunk that to the chunk before it."""
    num_packets = 20 // chunks
    ack_s = HEADER_S + num_packets * BIT_S
    radio = PARALLEL.model_copy(update=REPEATS)
    places = tree_places([None, 0])
    pasts, said = one_round(radio, places, snr_db=few_lost, scheme="tree", chunks=chunks)
    came_s, repeats = [0.0] * chunks, 0  # when the last of each chunk had come
    for sender, other in ((1, 0), (0, 1)):
        free_s, frames, answers = 0.0, list(said[sender]), []
        for k in range(chunks):
            part = 1 + 2 * k + (sender == 0)
            attempts = [(h, p) for _, h, p in frames if h.kind is Kind.PARAMETERS and h.part == part]
            assert [header.attempt for header, _ in attempts] == list(range(len(attempts)))
            repeats += len(attempts) - 1
            start_s = max(free_s, came_s[k])
            for header, payload in attempts:
                assert header.air_s == pytest.approx(start_s)
                again_s = HEADER_S + num_packets * BIT_S + (len(payload) - 8) // 64 * PACKET_S
                came_s[k] = start_s + (again_s if header.attempt else frame_s(num_packets))
                answers.append((sender, part, header.attempt, came_s[k]))
                start_s = free_s = came_s[k] + ack_s
        assert starts(said[other], Kind.ACK) == at(*answers)
        if sender == 0:
            assert pasts[0].spent[0].air_s == pytest.approx(free_s)
    assert repeats > 1


def spans(said, num_packets):
    """Return (turn, begin, end) of all that a device sent, a transmission to several once."""
    result = set()
    for to, header, payload in said:
        if header.kind is Kind.ACK:
            turn, airtime_s = ("ack", to), HEADER_S + num_packets * BIT_S
        elif header.attempt:
            turn = header.part % 2
            airtime_s = HEADER_S + num_packets * BIT_S + (len(payload) - 8) // 64 * PACKET_S
        else:
            turn, airtime_s = header.part % 2, frame_s(num_packets)
        result.add((turn, header.air_s, header.air_s + airtime_s))
    return result


def disjoint(some):
    some = sorted((begin, end) for _, begin, end in some)
    return all(end <= begin + 1e-12 for (_, end), (begin, _) in pairwise(some))


@pytest.mark.parametrize(
    "radio",
    [
        TDMA,
        Radio(**{**TDMA.model_dump(), **REPEATS}),
        Radio(**{**TDMA.model_dump(), **REPEATS, "cast": "unicast"}),
    ],
    ids=["once", "repeats", "repeats one by one"],
)
@pytest.mark.parametrize("kind", ["tree", "ring"])
def test_in_slots_nobody_is_on_the_air_while_somebody_else_is(kind, radio):
    """All hear all, so there is one transmission at a time, whoever it is by."""
    places = random_places(kind, 5, seed=2)
    num_packets = 5 if kind == "tree" else 4
    _, said = one_round(radio, places, snr_db=few_lost, scheme=kind, chunks=4)
    everything = [span for one in said for span in spans(one, num_packets)]
    assert len(everything) > 25
    assert disjoint(everything)


@pytest.mark.parametrize("kind", ["tree", "ring"])
def test_on_links_of_their_own_nobody_sends_two_frames_at_once_on_one_of_them(kind):
    _, said = one_round(PARALLEL, random_places(kind, 5, seed=2), snr_db=few_lost, scheme=kind, chunks=4)
    for one in said:
        sent = spans(one, 5 if kind == "tree" else 4)
        for turn in {turn for turn, _, _ in sent} if kind == "tree" else [None]:
            assert disjoint([span for span in sent if turn in (None, span[0])])
