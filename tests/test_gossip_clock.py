"""The modelled clock and the ledger of an exchange: seconds and joules by hand, and the air's deadline.

300 float32 numbers in packets of 64 bytes are 20 full packets of 512 bits. At 1 MHz, QPSK carries 2 Mbit/s
and BPSK, which carries headers of 60 bytes and bitmaps of 20 bits, 1 Mbit/s.
"""

from math import fsum

import numpy as np
import pytest
from builders import make_report
from devices import (
    NUM_VALUES,
    Device,
    Told,
    ack_from,
    complete,
    experiment_of,
    frame_from,
    learned,
    live_together,
    neighbours_of,
    path,
)
from ether import Ether, Port, Script
from oracle import Oracle

from coordinator.expenses import by_device, by_link
from node.stopwatch import Stopwatch
from node.train import Trained
from protocol.air import frame_layout
from protocol.frame import Kind
from protocol.radio import Radio

PACKET_S = 512 / 2e6
HEADER_S = 480 / 1e6
BITMAP_S = 20 / 1e6
FRAME_S = 20 * PACKET_S + HEADER_S
ACK_S = HEADER_S + BITMAP_S
TX_W, RX_W, IDLE_W = 0.1, 0.05, 0.01
"""20 dBm, and what a device draws by default."""
NUM_PACKETS = 20

SYMMETRIC = Radio(fading="none", tx_power_dbm=20)
PARALLEL = SYMMETRIC.model_copy(update={"access": "parallel"})
ONE_SIDED = PARALLEL.model_copy(update={"symmetric": False})
REPEATING = SYMMETRIC.model_copy(update={"arq": "selective_repeat"})
FEW_LOST_DB = 11.5
"""Mean SNR at which a QPSK packet of 512 bits is lost once in twelve times."""


def repeat_s(num_packets):
    """Airtime of some packets that are sent again: header, bitmap of which they are, packets."""
    return HEADER_S + BITMAP_S + num_packets * PACKET_S


def few_lost(a, b):
    return FEW_LOST_DB


def round_in_which(condition, experiment, weights):
    """Return the first round in which the air does what a test is about, and its oracle."""
    oracle = Oracle(experiment, weights, snr_db=few_lost)
    for round_ in range(500):
        if condition(lambda a, b, round_=round_: oracle.delivered(round_, a)[b]):
            return round_, oracle
    return pytest.fail("the air never does that")


def one_round(experiment, weights, round_, *, trained=None):
    """Let all devices go through one round; return each one's past and what it said."""
    ether = Ether(len(weights))
    ports = [Port(ether, number) for number in range(len(weights))]

    def program(number):
        device = Device(experiment, weights, number, ports[number], snr_db=few_lost)
        return lambda: device.live([round_], trained=(trained or {}).get(number))

    pasts = ether.run({number: program(number) for number in range(len(weights))})
    assert ether.wall_s == 0
    return pasts, [port.said for port in ports]


def starts(said, kind=Kind.PARAMETERS):
    """Return (receiver, attempt, when) of every frame that was said."""
    return [(to, header.attempt, header.air_s) for to, header, _ in said if header.kind is kind]


def at(*moments):
    """Compare moments to within rounding."""
    return [(to, attempt, pytest.approx(air_s, rel=1e-9, abs=1e-15)) for to, attempt, air_s in moments]


def spent_on(heard):
    return (heard.tx_air_s, heard.rx_air_s, heard.tx_j, heard.rx_j)


def by_hand(tx_air_s, rx_air_s):
    return pytest.approx((tx_air_s, rx_air_s, TX_W * tx_air_s, RX_W * rx_air_s), rel=1e-9)


def one_repeat_to_the_second(frame):
    """0 needs two attempts to reach 1, which reaches 0 at once."""
    return len(frame(0, 1).sent) == 2 and len(frame(1, 0).sent) == 1


def test_one_repeat_between_two_devices_in_slots():
    """A superframe is two data slots of a frame and a bitmap, then two slots for an acknowledgement."""
    experiment, weights = experiment_of(REPEATING, devices=2), complete(2)
    round_, oracle = round_in_which(one_repeat_to_the_second, experiment, weights)
    again_s = repeat_s(oracle.delivered(round_, 0)[1].packets_resent)
    pasts, said = one_round(experiment, weights, round_)
    slot_s = FRAME_S + BITMAP_S
    superframe_s = 2 * slot_s + 2 * ACK_S
    assert starts(said[0]) == at((1, 0, 0), (1, 1, superframe_s))
    assert starts(said[1]) == at((0, 0, slot_s))
    assert starts(said[0], Kind.ACK) == at((1, 0, 2 * slot_s))
    last_ack_s = superframe_s + 2 * slot_s + ACK_S
    assert starts(said[1], Kind.ACK) == at((0, 0, 2 * slot_s + ACK_S), (0, 1, last_ack_s))
    assert spent_on(pasts[0].heard[0][1]) == by_hand(FRAME_S + again_s + ACK_S, FRAME_S + 2 * ACK_S)
    assert spent_on(pasts[1].heard[0][0]) == by_hand(FRAME_S + 2 * ACK_S, FRAME_S + again_s + ACK_S)
    for past, waited_s in ((pasts[0], 0), (pasts[1], slot_s)):
        (spent,) = past.spent
        assert spent.air_s == pytest.approx(last_ack_s + ACK_S)
        assert spent.slot_wait_air_s == pytest.approx(waited_s, abs=1e-12)
        assert spent.idle_j == pytest.approx(IDLE_W * spent.air_s)
        assert (spent.compute_air_s, spent.compute_j) == (0, 0)


def test_one_repeat_between_two_devices_on_links_of_their_own():
    """Whoever is ready sends: both frames at once, then both bitmaps, the repeat, its bitmap."""
    radio = REPEATING.model_copy(update={"access": "parallel"})
    experiment, weights = experiment_of(radio, devices=2), complete(2)
    round_, oracle = round_in_which(one_repeat_to_the_second, experiment, weights)
    again_s = repeat_s(oracle.delivered(round_, 0)[1].packets_resent)
    pasts, said = one_round(experiment, weights, round_)
    assert starts(said[0]) == at((1, 0, 0), (1, 1, FRAME_S + ACK_S))
    assert starts(said[1]) == at((0, 0, 0))
    assert starts(said[0], Kind.ACK) == at((1, 0, FRAME_S))
    repeated_s = FRAME_S + ACK_S + again_s
    assert starts(said[1], Kind.ACK) == at((0, 0, FRAME_S), (0, 1, repeated_s))
    assert spent_on(pasts[0].heard[0][1]) == by_hand(FRAME_S + again_s + ACK_S, FRAME_S + 2 * ACK_S)
    for past in pasts.values():
        assert past.air_s == [pytest.approx(repeated_s + ACK_S)]
        assert past.spent[0].slot_wait_air_s == 0


MIDDLE_REPEATS = {
    "for one": lambda frame: (
        (len(frame(1, 0).sent), len(frame(1, 2).sent)) == (1, 2)
        and len(frame(0, 1).sent) == len(frame(2, 1).sent) == 1
    ),
    "for both": lambda frame: (
        (len(frame(1, 0).sent), len(frame(1, 2).sent)) == (2, 2)
        and len(frame(0, 1).sent) == len(frame(2, 1).sent) == 1
    ),
}


@pytest.mark.parametrize("who", MIDDLE_REPEATS)
def test_one_repeat_of_the_middle_of_three(who):
    """Three slots; two turns for acknowledgements each. What is sent once is shared by its receivers."""
    experiment, weights = experiment_of(REPEATING, devices=3), path(3)
    round_, oracle = round_in_which(MIDDLE_REPEATS[who], experiment, weights)
    again_s = repeat_s(oracle.delivered(round_, 1)[2].packets_resent)
    pasts, said = one_round(experiment, weights, round_)
    slot_s = FRAME_S + BITMAP_S
    data_s = 3 * slot_s
    superframe_s = data_s + 3 * 2 * ACK_S
    both = who == "for both"
    receivers = (0, 2) if both else (2,)
    assert starts(said[0]) == at((1, 0, 0))
    again = [(to, 1, superframe_s + slot_s) for to in receivers]
    assert starts(said[1]) == at((0, 0, slot_s), (2, 0, slot_s), *again)
    assert starts(said[2]) == at((1, 0, 2 * slot_s))
    ack_s = {0: data_s, 1: data_s + 2 * ACK_S, 2: data_s + 4 * ACK_S}
    assert sorted(starts(said[1], Kind.ACK)) == at((0, 0, ack_s[1]), (2, 0, ack_s[1] + ACK_S))
    assert starts(said[2], Kind.ACK) == at((1, 0, ack_s[2]), (1, 1, superframe_s + ack_s[2]))
    shared_s = again_s / len(receivers)
    for end in (0, 2):
        extra = int(end in receivers)
        assert spent_on(pasts[1].heard[0][end]) == by_hand(
            FRAME_S / 2 + ACK_S + extra * shared_s, FRAME_S + (1 + extra) * ACK_S
        )
        assert spent_on(pasts[end].heard[0][1]) == by_hand(
            FRAME_S + (1 + extra) * ACK_S, FRAME_S + extra * again_s + ACK_S
        )
    # 0 is done when it has its acknowledgement, or has sent its second one.
    done_s = {0: superframe_s + ack_s[0] + ACK_S if both else ack_s[1] + ACK_S}
    done_s |= dict.fromkeys((1, 2), superframe_s + ack_s[2] + ACK_S)
    for device, past in pasts.items():
        assert past.air_s == [pytest.approx(done_s[device])]
    # The middle waits for its slot, and with its repeat, ready when the last answer is in, for the next.
    ready_s = ack_s[2] + ACK_S
    waits_s = {0: 0, 1: slot_s + superframe_s + slot_s - ready_s, 2: 2 * slot_s}
    for device, past in pasts.items():
        assert past.spent[0].slot_wait_air_s == pytest.approx(waits_s[device], abs=1e-12)


@pytest.mark.parametrize("cast", ["broadcast", "unicast"])
@pytest.mark.parametrize("access", ["tdma", "parallel"])
def test_what_devices_spend_is_what_was_on_the_air(access, cast):
    """Every transmission once from its sender and once from each receiver, whatever it was sent for."""
    radio = REPEATING.model_copy(update={"access": access, "cast": cast})
    experiment, weights, num_rounds = experiment_of(radio, devices=4), path(4), 5
    oracle = Oracle(experiment, weights, snr_db=few_lost)
    pasts = live_together(Ether(4), experiment, weights, num_rounds, snr_db=few_lost)
    tx_s, rx_s, num_repeats = [], [], 0
    for sender in range(4):
        receivers = neighbours_of(weights, sender)
        for round_ in range(num_rounds):
            delivered = oracle.delivered(round_, sender)
            heard_s = {
                receiver: [FRAME_S, *(repeat_s(len(packets)) for packets in of_it.sent[1:])]
                for receiver, of_it in delivered.items()
            }
            num_repeats += sum(len(of_it.sent) - 1 for of_it in delivered.values())
            for receiver in receivers:
                acks_s = [ACK_S] * len(heard_s[receiver])
                tx_s += acks_s
                rx_s += heard_s[receiver] + acks_s
            # A broadcast is repeated for as long as whoever needs most attempts says.
            sent_s = heard_s.values() if cast == "unicast" else [max(heard_s.values(), key=len)]
            tx_s += [airtime_s for of_it in sent_s for airtime_s in of_it]
    assert num_repeats > 10
    reports = [
        make_report(device, round_, heard=past.heard[round_], spent=past.spent[round_])
        for device, past in pasts.items()
        for round_ in range(num_rounds)
    ]
    devices, links = by_device(reports, 4), by_link(reports)
    assert fsum(joules.tx for joules in devices) == pytest.approx(TX_W * fsum(tx_s), rel=1e-9)
    assert fsum(joules.rx for joules in devices) == pytest.approx(RX_W * fsum(rx_s), rel=1e-9)
    assert fsum(links.values()) == pytest.approx(TX_W * fsum(tx_s) + RX_W * fsum(rx_s), rel=1e-9)
    assert list(links) == [(0, 1), (1, 2), (2, 3)]
    idle_j = IDLE_W * fsum(past.air_s[-1] for past in pasts.values())
    assert fsum(joules.idle for joules in devices) == pytest.approx(idle_j, rel=1e-9)


@pytest.mark.parametrize("cast", ["broadcast", "unicast"])
def test_in_slots_a_device_does_one_thing_at_a_time(cast):
    """Computing, sending and waiting for its slot are parts of its clock that do not overlap."""
    radio = REPEATING.model_copy(update={"cast": cast})
    experiment, weights = experiment_of(radio, devices=5), complete(5)
    for past in live_together(Ether(5), experiment, weights, 3, snr_db=few_lost).values():
        for round_, spent in enumerate(past.spent):
            sent_s = fsum(heard.tx_air_s for heard in past.heard[round_].values())
            began_s = past.air_s[round_ - 1] if round_ else 0.0
            assert spent.compute_air_s + spent.slot_wait_air_s + sent_s <= spent.air_s - began_s + 1e-12


def test_unicast_frames_leave_one_by_one_in_slots_and_all_at_once_without():
    """A slot has a turn for every neighbour that any device has; the middle of three sends in both."""
    for access in ("tdma", "parallel"):
        radio = SYMMETRIC.model_copy(update={"access": access, "cast": "unicast"})
        experiment, weights = experiment_of(radio, devices=3), path(3)
        _, said = one_round(experiment, weights, 0)
        slots = [at((1, 0, 0)), at((0, 0, 2 * FRAME_S), (2, 0, 3 * FRAME_S)), at((1, 0, 4 * FRAME_S))]
        at_once = [at((1, 0, 0)), at((0, 0, 0), (2, 0, 0)), at((1, 0, 0))]
        assert [starts(of_it) for of_it in said] == (slots if access == "tdma" else at_once)


def test_computing_comes_first_and_is_charged():
    """32 samples of 2 million cycles at 1 GHz take 64 ms; 1e-28 f^2 joules a cycle are 6.4 mJ."""
    experiment, weights = experiment_of(ONE_SIDED, devices=2), complete(2)
    pasts, said = one_round(experiment, weights, 0, trained={0: Trained(1.0, 32, 0.5)})
    assert starts(said[0]) == at((1, 0, 0.064))
    assert starts(said[1]) == at((0, 0, 0))
    assert pasts[0].air_s == pasts[1].air_s == [pytest.approx(0.064 + FRAME_S)]
    assert pasts[0].spent[0].compute_air_s == pytest.approx(0.064)
    assert pasts[0].spent[0].compute_j == pytest.approx(6.4e-3)
    assert (pasts[1].spent[0].compute_air_s, pasts[1].spent[0].compute_j) == (0, 0)


@pytest.mark.parametrize(
    "radio", [Radio(scheme="ideal"), SYMMETRIC, ONE_SIDED], ids=["ideal", "slots", "own"]
)
def test_the_clock_goes_on_from_round_to_round(radio):
    experiment, weights = experiment_of(radio, devices=2), complete(2)
    pasts = live_together(Ether(2), experiment, weights, 3, snr_db=lambda a, b: 30.0)
    round_s = {"ideal": 0.0, "digital": 2 * (FRAME_S + ACK_S) if radio.symmetric else FRAME_S}[radio.scheme]
    for past in pasts.values():
        assert past.air_s == pytest.approx([round_s, 2 * round_s, 3 * round_s], abs=1e-15)


# The deadline on the model's clock

DEADLINES = pytest.mark.parametrize("radio", [PARALLEL, ONE_SIDED], ids=["symmetric", "one-sided"])


@DEADLINES
def test_a_deadline_below_the_airtime_leaves_nothing(radio):
    """It is the model's clock that says so: the same in every run, and nobody waits on the host's.

    A round then ends with the own frame, and its answers where it is answered.
    """
    experiment = experiment_of(radio, deadline_air_s=0.99 * FRAME_S)
    round_s = FRAME_S + (ACK_S if radio.symmetric else 0.0)
    lives = []
    for seed in range(3):
        ether = Ether(4, seed)
        lives.append(live_together(ether, experiment, complete(4), num_rounds=3))
        assert ether.wall_s == 0
    for pasts in lives:
        for device, past in pasts.items():
            assert np.array_equal(past.x[2], learned(device, 0) + learned(device, 1) + learned(device, 2))
            assert all(
                (of_it.missing, of_it.packets_lost) == ("air", NUM_PACKETS)
                for heard in past.heard
                for of_it in heard.values()
            )
            assert past.heard == lives[0][device].heard
            assert past.air_s == pytest.approx([round_s, 2 * round_s, 3 * round_s])


@DEADLINES
def test_a_deadline_of_one_airtime_leaves_everything(radio):
    experiment = experiment_of(radio, deadline_air_s=1.01 * FRAME_S)
    unlimited = live_together(Ether(4), experiment_of(radio), complete(4), num_rounds=3)
    for device, past in live_together(Ether(4), experiment, complete(4), num_rounds=3).items():
        assert np.array_equal(past.x, unlimited[device].x)
        assert past.heard == unlimited[device].heard


@DEADLINES
@pytest.mark.parametrize(
    ("began_s", "deadline_air_s", "missing", "clock_s"),
    [
        (0.0, np.inf, "", 1.0),
        (0.5, np.inf, "", 1.5),
        (0.5, 1.6, "", 1.5),
        (0.5, 1.4, "air", 1.4),
        (9.0, 1.4, "air", 1.4),
        (9.0, 0.1, "air", 1.0),
    ],
)
def test_the_clock_waits_for_the_last_frame_or_the_deadline(radio, began_s, deadline_air_s, missing, clock_s):
    """All in airtimes: a neighbour began so late, and its frame took one.

    Whoever acknowledges what came in time takes its time for that; what came late is refused afterwards.
    """
    experiment = experiment_of(radio, deadline_air_s=deadline_air_s * FRAME_S)
    frame = frame_from(experiment, 1, air_s=began_s * FRAME_S)
    answer = [ack_from(experiment, 1, air_s=0.0)] if radio.symmetric else []
    device = Device(experiment, complete(2), 0, Script(frame, *answer))
    device.exchange(0)
    assert device.exchanges.radio.heard()[1].missing == missing
    acknowledged_s = ACK_S if radio.symmetric and not missing else 0.0
    assert device.exchanges.radio.air_s == pytest.approx(clock_s * FRAME_S + acknowledged_s)


def test_a_late_frame_is_acknowledged_as_lost():
    """Or its sender would count a packet that this device does not."""
    experiment = experiment_of(PARALLEL, deadline_air_s=1.4 * FRAME_S)
    late = frame_from(experiment, 1, air_s=0.5 * FRAME_S)
    script = Script(late, ack_from(experiment, 1))
    _, arrived = Device(experiment, complete(2), 0, script).exchange(0)
    (_, _, parameters), (_, _, bitmap) = script.said
    assert len(parameters) == frame_layout(experiment, NUM_VALUES).payload_bytes
    assert not bitmap.any()
    assert not arrived.m.any()


def test_a_repeat_that_comes_late_is_lost_and_what_came_before_it_is_not():
    """The deadline falls while the repeat is on the air: its packets stay missing, at both ends."""
    radio = REPEATING.model_copy(update={"access": "parallel"})
    unlimited = experiment_of(radio, devices=2)
    round_, oracle = round_in_which(one_repeat_to_the_second, unlimited, complete(2))
    missing = oracle.delivered(round_, 0)[1].sent[1]
    deadline_s = FRAME_S + ACK_S + 0.5 * repeat_s(len(missing))
    experiment = experiment_of(radio, devices=2, deadline_air_s=deadline_s)
    pasts, said = one_round(experiment, complete(2), round_)
    for device in range(2):
        heard = pasts[device].heard[0][1 - device]
        assert (heard.missing, heard.packets_lost) == ("", len(missing))
    assert pasts[1].heard[0][0].attempts == 2
    assert [bool(header.flags & 2) for _, header, _ in said[1] if header.kind is Kind.ACK] == [False, True]
    xs = [learned(device, round_) for device in range(2)]
    mixed = np.mean(xs, axis=0)
    counts = np.repeat(~np.isin(np.arange(NUM_PACKETS), missing), 15)
    for device in range(2):
        np.testing.assert_allclose(pasts[device].x[0], np.where(counts, mixed, xs[device]), atol=1e-6)
    assert pasts[1].air_s == [pytest.approx(deadline_s)]
    # Its sender's round lasts until it is told that it was late.
    assert pasts[0].air_s == [pytest.approx(FRAME_S + ACK_S + repeat_s(len(missing)) + ACK_S)]


def test_a_straggler_holds_nobody_up_beyond_the_deadline():
    """It computes for 64 s; the deadline is 1 s. It may be late itself, but not for the others."""
    experiment, weights = experiment_of(PARALLEL, devices=3, deadline_air_s=1.0), complete(3)
    pasts, _ = one_round(experiment, weights, 0, trained={2: Trained(1.0, 32_000, 0.5)})
    assert [pasts[device].heard[0][2].missing for device in range(2)] == ["air", "air"]
    assert [pasts[device].air_s[0] for device in range(2)] == pytest.approx([1.0, 1.0])
    assert pasts[2].air_s[0] == pytest.approx(64 + FRAME_S + ACK_S)  # it is told that it was late


def test_a_benchmark_on_the_hosts_clock_keeps_no_modelled_time():
    experiment = experiment_of(ONE_SIDED, devices=2)
    experiment = experiment.model_copy(
        update={"runtime": experiment.runtime.model_copy(update={"clock": "wall"})}
    )
    device = Device(experiment, complete(2), 0, Script(frame_from(experiment, 1, air_s=5.0)))
    device.exchange(0, trained=Trained(1.0, 32, 0.5), control=Told(), watch=Stopwatch())
    assert device.exchanges.radio.air_s == 0
    assert device.exchanges.radio.spent().compute_air_s == device.exchanges.radio.spent().idle_j == 0
