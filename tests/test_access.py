"""Medium access: the grid of three colours worked out by hand, in microseconds.

A header of 60 bytes is 480 bits, and 300 numbers in packets of 15 with a CRC are 20 packets of 512 bits.
At 1 MHz a bit of BPSK takes a microsecond, so the packets take 5120 with QPSK, and header and bitmap 500.
"""

from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol.access import link_bandwidth_hz, num_blocks, plan_access
from protocol.air import frame_layout
from protocol.codec import Layout
from protocol.config import Codec, Experiment
from protocol.radio import Analog, Radio

fixed = settings(derandomize=True, deadline=None)

US = 1e-6
ARQ = {"arq": "selective_repeat"}
TDMA = Radio(**ARQ)


def plan(radio, *, num_colours=3, max_degree=2):
    experiment = Experiment(radio=radio, codec=Codec(packet_bytes=64))
    return plan_access(
        experiment, frame_layout(experiment, 300), num_colours=num_colours, max_degree=max_degree
    )


def us(seconds):
    """Round to a picosecond, so that sums of floats compare to whole microseconds."""
    return round(seconds / US, 6)


def test_three_colours_with_acknowledgements():
    """Three data slots of 5120 + 500, then three times two acknowledgements of 500 for two neighbours."""
    access = plan(TDMA)
    assert (access.num_slots, access.data_turns, access.ack_turns) == (3, 1, 2)
    assert us(access.data_turn_s) == 5620
    assert us(access.ack_turn_s) == 500
    assert us(access.packet_s) == 256
    assert us(access.data_s) == 16_860
    assert us(access.superframe_s) == us(access.attempt_s) == 19_860
    assert [us(access.data_offset_s(slot, 0)) for slot in range(3)] == [0, 5620, 11_240]


def test_acknowledgements_come_after_all_data():
    access = plan(TDMA)
    starts = [us(access.ack_start_s(0.0, slot, turn)) for slot in range(3) for turn in range(2)]
    assert starts == [16_860, 17_360, 17_860, 18_360, 18_860, 19_360]
    assert us(access.ack_start_s(17_360 * US, 0, 1)) == 17_360
    assert us(access.ack_start_s(17_361 * US, 0, 1)) == 17_360 + 19_860


@pytest.mark.parametrize(
    ("ready", "start"),
    [
        (0, 5620),
        (5619.999, 5620),
        (5620, 5620),
        (5620.001, 25_480),
        (19_860, 25_480),
        (25_479.999, 25_480),
        (25_480, 25_480),
        (25_480.001, 45_340),
        (5620 + 1_000_000 * 19_860, 5620 + 1_000_000 * 19_860),
        (5621 + 1_000_000 * 19_860, 5620 + 1_000_001 * 19_860),
    ],
)
def test_the_next_start_of_a_slot(ready, start):
    """The second of three slots begins at 5620, and again every 19,860."""
    assert plan(TDMA).data_start_s(ready * US, 1, 0) / US == pytest.approx(start, rel=1e-13)


@fixed
@given(st.floats(0, 1e5), st.integers(0, 2))
def test_a_start_is_on_the_grid_and_the_first_that_is_not_before(ready_s, slot):
    access = plan(TDMA)
    start_s = access.data_start_s(ready_s, slot, 0)
    frames = (start_s - access.data_offset_s(slot, 0)) / access.superframe_s
    assert frames == pytest.approx(round(frames), abs=1e-6)
    slack_s = 1e-8 * access.superframe_s + 1e-15 * ready_s  # the moment that counts as that start, and floats
    assert start_s >= ready_s - slack_s
    assert start_s < max(ready_s, access.data_offset_s(slot, 0)) + access.superframe_s + slack_s
    assert access.data_start_s(start_s, slot, 0) == start_s


@pytest.mark.parametrize("cast", ["broadcast", "unicast"])
def test_an_attempt_takes_one_superframe(cast):
    """Who sends in superframe k is answered in it, and sends again in the same slot of superframe k + 1."""
    access = plan(Radio(cast=cast, **ARQ))
    for slot in range(3):
        for turn in range(access.data_turns):
            sent_s = access.data_start_s(7 * access.superframe_s, slot, turn)
            heard_s = sent_s + access.data_turn_s
            for other in range(3):
                for place in range(access.ack_turns):
                    answered_s = access.ack_start_s(heard_s, other, place) + access.ack_turn_s
                    assert us(answered_s) <= us(8 * access.superframe_s)
                    again_s = access.data_start_s(answered_s, slot, turn)
                    assert us(again_s - sent_s) == us(access.attempt_s)


def test_unicast_has_a_turn_for_every_neighbour():
    access = plan(Radio(cast="unicast", **ARQ))
    assert (access.data_turns, access.ack_turns) == (2, 2)
    assert us(access.data_turn_s) == 5620
    assert us(access.superframe_s) == 6 * 5620 + 6 * 500
    starts = [us(access.data_offset_s(slot, turn)) for slot in range(3) for turn in range(2)]
    assert starts == [0, 5620, 11_240, 16_860, 22_480, 28_100]
    assert us(access.data_start_s(16_861 * US, 1, 1)) == 16_860 + 36_720


def test_frames_that_are_never_repeated_need_no_bitmap():
    access = plan(Radio())
    assert us(access.data_turn_s) == 5120 + 480
    assert us(access.ack_turn_s) == 500
    assert access.ack_turns == 2


def test_who_is_not_answered_waits_for_no_answers():
    access = plan(Radio(symmetric=False))
    assert (access.ack_turns, access.ack_turn_s) == (0, 0)
    assert us(access.superframe_s) == 3 * 5600
    assert plan(Radio(symmetric=False, **ARQ)).ack_turns == 2


def test_slots_are_as_long_as_the_slowest_permitted_rate_needs():
    """BPSK takes twice as long as QPSK, and a code of rate 1/2 too, but neither touches side information."""
    assert us(plan(Radio(modulation="qam256", **ARQ)).data_turn_s) == 1280 + 500
    adaptive = plan(Radio(modulation="qam256", rate="adaptive", **ARQ))
    assert us(adaptive.data_turn_s) == 10_240 + 500
    assert us(adaptive.packet_s) == 512
    coded = plan(Radio(code_rate=0.5, **ARQ))
    assert us(coded.data_turn_s) == 10_240 + 500
    assert us(coded.ack_turn_s) == 500


def test_airtimes_by_hand():
    access = plan(Radio(code_rate=0.5))
    assert us(access.side_airtime_s(20)) == 500
    assert us(access.packets_airtime_s(1024.0, "bpsk")) == 2048
    assert us(access.packets_airtime_s(1024.0, "qam64")) == pytest.approx(2048 / 6, abs=1e-6)
    assert us(access.symbols_airtime_s(300)) == 150


def test_parallel_links_send_at_once():
    access = plan(Radio(access="parallel", **ARQ))
    assert access.num_slots == 0
    assert access.superframe_s == 0
    assert us(access.attempt_s) == 5620 + 500
    for ready_s in (0.0, 1.2345, 1e6):
        assert access.data_start_s(ready_s, 2, 1) == access.ack_start_s(ready_s, 2, 1) == ready_s
    assert access.data_offset_s(2, 1) == 0


def test_links_that_share_the_bandwidth_have_a_colour_s_part_of_it():
    shared = Radio(access="parallel", shared_bandwidth=True, **ARQ)
    assert link_bandwidth_hz(shared, 3) == pytest.approx(1e6 / 3)
    assert link_bandwidth_hz(shared, 0) == 1e6
    assert link_bandwidth_hz(TDMA, 3) == 1e6
    assert link_bandwidth_hz(Radio(access="parallel"), 3) == 1e6
    assert us(plan(shared).data_turn_s) == 3 * 5620
    assert us(plan(shared).ack_turn_s) == 3 * 500


def test_who_has_no_neighbours_has_a_grid_all_the_same():
    access = plan(Radio(cast="unicast"), num_colours=1, max_degree=0)
    assert (access.num_slots, access.data_turns, access.ack_turns) == (1, 1, 1)


def test_an_ideal_channel_takes_no_time():
    access = plan(Radio(scheme="ideal"))
    assert access.bandwidth_hz == inf
    assert (access.num_slots, access.superframe_s, access.attempt_s, access.data_turn_s) == (0, 0, 0, 0)
    assert access.data_start_s(1.5, 2, 0) == 1.5
    assert access.packets_airtime_s(1e9, "bpsk") == access.side_airtime_s(100) == 0


def test_analog_sums_of_all_neighbours_at_once():
    """150 for two numbers a symbol; every neighbour's energy (480 + 32), and how all are scaled (again)."""
    access = plan(Radio(scheme="analog"))
    assert (access.num_slots, access.data_turns, access.ack_turns) == (3, 1, 0)
    assert us(access.data_turn_s) == 150 + 3 * 512
    assert us(access.superframe_s) == 3 * 1686
    assert us(access.packet_s) == 8


def test_analog_neighbours_one_after_the_other():
    """A turn for each of two neighbours: its symbols, its energy, and how it is scaled."""
    access = plan(Radio(scheme="analog", analog=Analog(superposition="orthogonal")))
    assert access.data_turns == 2
    assert us(access.data_turn_s) == 150 + 2 * 512
    assert us(access.superframe_s) == 3 * 2 * 1174


def test_analog_blocks_tell_an_energy_each():
    """Without a CRC 16 numbers fill a packet: 19 packets are 4 blocks of at most 5, 128 bits of energies."""
    access = plan(Radio(scheme="analog", coherence_packets=5))
    assert us(access.data_turn_s) == 150 + 3 * (480 + 128)


@pytest.mark.parametrize(
    ("coherence_packets", "blocks"), [(0, 1), (1, 19), (5, 4), (18, 2), (19, 1), (40, 1)]
)
def test_number_of_fading_blocks_of_a_frame(coherence_packets, blocks):
    layout = Layout("float32", 300, 64, checked=False)
    assert num_blocks(Radio(scheme="analog", coherence_packets=coherence_packets), layout) == blocks
