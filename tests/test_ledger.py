"""The ledger: three devices on a path, worked out to the last digit, and joules by device and by link.

Powers and bandwidth are powers of two, so that floats are exact: a unit of time is 2^-20 s, in which a bit
of BPSK passes, and the senders' power is 1 W. A frame of 32 packets of 512 bits takes 8192 units with QPSK
and 480 for its header; a bitmap of 32 bits with a header, 512.
"""

from itertools import combinations
from math import fsum

import pytest
from builders import make_heard, make_report, make_spent

from coordinator.expenses import by_device, by_link
from protocol.access import plan_access
from protocol.air import frame_layout
from protocol.config import Codec, Experiment
from protocol.hardware import hardware
from protocol.ledger import Ledger, LinkAccount
from protocol.radio import Device, Radio

U = 2.0**-20
RADIO = Radio(tx_power_dbm=30, bandwidth_hz=2.0**20, arq="selective_repeat")
DEVICE = Device(cpu_hz=2.0**30, switched_capacitance=2.0**-90, rx_power_w=2.0**-4, idle_power_w=2.0**-5)
FRAME, REPEAT, ACK = 8672, 2560, 512
"""Units of a whole frame, of 8 packets again with a bitmap of which, and of an answer."""


def ledger(radio=RADIO):
    return Ledger(hardware(Experiment(radio=radio, device=DEVICE), 0))


def path():
    """Return the ledgers of one round on the path 0 - 1 - 2.

    All send their frame. Device 0 misses 8 packets of device 1's, which repeats them, and answers twice;
    everything else arrives. Devices compute for 1/4, 1/8 and 0 s, and the round takes 1/2 s.
    """
    devices = [ledger() for _ in range(3)]
    zero, one, two = devices
    zero.transmit((1,), FRAME * U)
    one.transmit((0, 2), FRAME * U)
    two.transmit((1,), FRAME * U)
    for hearer, sender in ((0, 1), (1, 0), (1, 2), (2, 1)):
        devices[hearer].receive(sender, FRAME * U)
        devices[hearer].transmit((sender,), ACK * U)
        devices[sender].receive(hearer, ACK * U)
    one.transmit((0,), REPEAT * U)
    zero.receive(1, REPEAT * U)
    zero.transmit((1,), ACK * U)
    one.receive(0, ACK * U)
    zero.compute(2.0**28)
    one.compute(2.0**27)
    two.wait_for_slot(2.0, 2.0 + 1234 * U)
    for device in devices:
        device.pass_time(0.375)
        device.pass_time(0.125)
    return devices


def reports(devices, round_=0):
    """Return what devices say of their ledgers."""
    return [
        make_report(
            device,
            round_,
            heard={
                neighbour: make_heard(
                    tx_air_s=account.tx_air_s,
                    rx_air_s=account.rx_air_s,
                    tx_j=account.tx_j,
                    rx_j=account.rx_j,
                )
                for neighbour, account in book.links.items()
            },
            spent=make_spent(compute_j=book.compute_j, idle_j=book.idle_j),
        )
        for device, book in enumerate(devices)
    ]


def test_airtimes_of_the_example_are_those_of_the_grid():
    experiment = Experiment(radio=RADIO, codec=Codec(packet_bytes=64))
    layout = frame_layout(experiment, 480)
    access = plan_access(experiment, layout, num_colours=3, max_degree=2)
    assert access.packets_airtime_s(32 * 512.0, "qpsk") + access.side_airtime_s(0) == FRAME * U
    assert access.packets_airtime_s(8 * 512.0, "qpsk") + access.side_airtime_s(32) == REPEAT * U
    assert access.ack_turn_s == ACK * U
    assert hardware(experiment, 0).tx_power_w == 1


def test_links_of_the_path_by_hand():
    """A broadcast's receivers share it, a repeat is the link's that asked, listening the listener's."""
    zero, one, two = (device.links for device in path())
    half = FRAME / 2
    assert zero == {1: account(FRAME + 2 * ACK, FRAME + REPEAT + ACK)}
    assert one == {
        0: account(half + REPEAT + ACK, FRAME + 2 * ACK),
        2: account(half + ACK, FRAME + ACK),
    }
    assert two == {1: account(FRAME + ACK, FRAME + ACK)}
    assert one[0].tx_j == 7408 * U
    assert zero[1].rx_j == 734 * U


def account(tx_units, rx_units):
    """Return a link's account: 1 W while sending, 1/16 W while listening."""
    return LinkAccount(tx_units * U, rx_units * U, tx_units * U, rx_units * U / 16)


def test_computing_waiting_and_idling_by_hand():
    """A cycle costs kappa f^2 = 2^-30 J; 1/32 W are drawn over the whole round."""
    zero, one, two = path()
    assert (zero.compute_air_s, zero.compute_j) == (0.25, 0.25)
    assert (one.compute_air_s, one.compute_j) == (0.125, 0.125)
    assert (two.compute_air_s, two.compute_j) == (0, 0)
    assert [device.idle_j for device in (zero, one, two)] == [2.0**-6] * 3
    assert (one.slot_wait_air_s, two.slot_wait_air_s) == (0, 1234 * U)


def test_the_path_s_joules_by_device_and_by_link():
    """9696 + 12,256 + 9184 units at 1 W, 11,744 + 18,880 + 9184 at 1/16 W, half a second at 3/32 W, 3/8 J."""
    written = reports(path())
    zero, one, two = by_device(written, 3)
    assert (zero.tx, one.tx, two.tx) == (9696 * U, 12_256 * U, 9184 * U)
    assert (zero.rx, one.rx, two.rx) == (734 * U, 1180 * U, 574 * U)
    assert (zero.compute, one.compute, two.compute) == (0.25, 0.125, 0)
    assert zero.idle == one.idle == two.idle == 1 / 64
    assert by_link(written) == {
        (0, 1): (9696 + 734 + 7408 + 606) * U,
        (1, 2): (4848 + 574 + 9184 + 574) * U,
    }
    devices_j = fsum(device.total for device in (zero, one, two))
    links_j = fsum(by_link(written).values())
    assert devices_j == (31_136 + 2488) * U + 0.375 + 3 / 64
    assert devices_j == links_j + 0.375 + 3 / 64


def test_rounds_add_up_by_device_and_by_link():
    one, both = reports(path()), reports(path()) + reports(path(), round_=1)
    assert [device.total for device in by_device(both, 3)] == [2 * d.total for d in by_device(one, 3)]
    assert by_link(both) == {link: 2 * joules for link, joules in by_link(one).items()}


@pytest.mark.parametrize("num_receivers", [1, 2, 3, 7])
def test_a_broadcast_costs_once_and_unicast_each_time(num_receivers):
    receivers, airtime_s = tuple(range(1, num_receivers + 1)), FRAME * U
    together, apart = ledger(), ledger()
    together.transmit(receivers, airtime_s)
    for receiver in receivers:
        apart.transmit((receiver,), airtime_s)
    for name in ("tx_air_s", "tx_j"):
        shares = [getattr(together.links[receiver], name) for receiver in receivers]
        assert fsum(shares) == pytest.approx(airtime_s, rel=1e-15)
        assert len(set(shares)) == 1
        assert [getattr(apart.links[receiver], name) for receiver in receivers] == [airtime_s] * num_receivers
    assert all(link.rx_air_s == link.rx_j == 0 for link in together.links.values())


def test_a_complete_graph_adds_up_whoever_sends_what_to_whom():
    """Transmissions one by one = link view + computing + idling = device view, to the precision of floats."""
    num_devices, tx_w, rx_w = 6, 10 ** (13.7 / 10) / 1000, 0.07
    experiment = Experiment(radio=Radio(tx_power_dbm=13.7), device=Device(rx_power_w=rx_w))
    devices = [Ledger(hardware(experiment, device)) for device in range(num_devices)]
    on_air_j = []
    for sender, book in enumerate(devices):
        others = [device for device in range(num_devices) if device != sender]
        for size in range(1, num_devices):
            for group in combinations(others, size):
                airtime_s = 1e-3 * (sender + 1) / (1 + sum(group))
                on_air_j.append(airtime_s * (tx_w + size * rx_w))
                book.transmit(group, airtime_s)
                for receiver in group:
                    devices[receiver].receive(sender, airtime_s)
        book.compute(1e6 * sender)
        book.pass_time(0.1 * sender)
    written = reports(devices)
    spent = by_device(written, num_devices)
    links = by_link(written)
    assert len(links) == 15
    assert fsum(links.values()) == pytest.approx(fsum(on_air_j), rel=1e-13)
    apart_j = fsum(device.compute + device.idle for device in spent)
    assert fsum(device.total for device in spent) == pytest.approx(fsum(on_air_j) + apart_j, rel=1e-13)


def test_joules_of_less_than_full_power_are_shared_too():
    """An analog sender radiates what inverting the channel takes, over its whole airtime."""
    book = ledger()
    book.transmit((3, 5), 1024 * U, joules=100 * U)
    assert book.links == {
        3: LinkAccount(tx_air_s=512 * U, tx_j=50 * U),
        5: LinkAccount(tx_air_s=512 * U, tx_j=50 * U),
    }
    book.transmit((3,), 1024 * U, joules=0.0)
    assert book.links[3].tx_j == 50 * U


@pytest.mark.parametrize(("dbm", "watts"), [(30, 1.0), (0, 1e-3), (10, 1e-2), (23, 0.1995262315)])
def test_transmit_power_by_hand(dbm, watts):
    book = ledger(Radio(tx_power_dbm=dbm))
    assert book.hardware.tx_power_w == pytest.approx(watts, rel=1e-9)
    book.transmit((1,), 2.0)
    assert book.links[1].tx_j == pytest.approx(2 * watts, rel=1e-9)


def test_the_defaults_compute_a_sample_in_two_milliseconds_and_a_fifth_of_a_millijoule():
    """2e6 cycles at 1 GHz; 1e-28 (1e9)^2 = 1e-10 J each."""
    book = Ledger(hardware(Experiment(), 0))
    book.compute(book.hardware.cycles_per_sample)
    assert book.compute_air_s == pytest.approx(2e-3)
    assert book.compute_j == pytest.approx(2e-4)


def test_a_cleared_ledger_is_a_new_one():
    book = path()[1]
    book.wait_for_slot(1.0, 2.0)
    book.clear()
    assert book == ledger()
