"""Joules add up: over devices, over what they were spent on, and over links."""

from math import fsum, isclose

import pytest
from builders import make_heard, make_report, make_spent
from conftest import ACK_AIR_S, COMPUTE_AIR_S, FRAME_AIR_S

from coordinator.expenses import Joules, by_device, by_link

# Three devices in a row, 0 - 1 - 2, in two rounds; powers of two, so that every sum is exact.
REPORTS = [
    make_report(
        0, 0, spent=make_spent(compute_j=1.0, idle_j=0.5), heard={1: make_heard(tx_j=0.25, rx_j=0.125)}
    ),
    make_report(
        1,
        0,
        spent=make_spent(compute_j=2.0, idle_j=0.25),
        heard={0: make_heard(tx_j=4.0, rx_j=8.0), 2: make_heard(tx_j=16.0, rx_j=32.0)},
    ),
    make_report(2, 0, spent=make_spent(idle_j=64.0), heard={1: make_heard(tx_j=128.0)}),
    make_report(0, 1, spent=make_spent(compute_j=0.5), heard={1: make_heard(rx_j=256.0)}),
]


def test_a_device_pays_for_its_own_rounds():
    assert by_device(REPORTS, 3) == [
        Joules(compute=1.5, tx=0.25, rx=256.125, idle=0.5),
        Joules(compute=2.0, tx=20.0, rx=40.0, idle=0.25),
        Joules(compute=0.0, tx=128.0, rx=0.0, idle=64.0),
    ]
    assert [joules.total for joules in by_device(REPORTS, 3)] == [258.375, 62.25, 192.0]


def test_a_device_that_reported_nothing_spent_nothing():
    assert by_device([], 2) == [Joules(0, 0, 0, 0)] * 2
    assert by_device(REPORTS, 4)[3].total == 0


def test_a_link_has_what_both_its_ends_spent_on_it():
    assert by_link(REPORTS) == {(0, 1): 0.25 + 0.125 + 4.0 + 8.0 + 256.0, (1, 2): 16.0 + 32.0 + 128.0}
    assert by_link([]) == {}


def test_links_are_in_order_whoever_reports_first():
    others_first = REPORTS[2:] + REPORTS[:2]
    assert list(by_link(others_first)) == [(0, 1), (1, 2)]
    assert by_link(others_first) == by_link(REPORTS)


def test_the_sum_over_links_and_the_sum_over_devices_are_the_same_joules():
    devices = by_device(REPORTS, 3)
    spent_on_links = sum(by_link(REPORTS).values())
    assert spent_on_links == sum(joules.tx + joules.rx for joules in devices)
    assert sum(joules.total for joules in devices) == spent_on_links + sum(
        joules.compute + joules.idle for joules in devices
    )


def test_small_joules_are_not_lost_beside_large_ones():
    reports = [
        make_report(0, round_, spent=make_spent(compute_j=joules), heard={1: make_heard(tx_j=joules)})
        for round_, joules in enumerate([1e16, *[1.0] * 1000])
    ]
    assert by_device(reports, 2)[0].compute == 1e16 + 1000
    assert by_link(reports)[0, 1] == 1e16 + 1000


RUNS = {
    "digital": (),
    "arq": ("radio.arq=selective_repeat",),
    "unicast": ("radio.cast=unicast", "radio.access=parallel"),
    "analog": ("radio.scheme=analog",),
    "isolated": ("aggregation.scheme=isolated",),
    "ideal": ("radio.scheme=ideal",),
}


@pytest.mark.processes
@pytest.mark.parametrize("name", RUNS)
def test_the_joules_of_a_run_add_up_over_devices_and_over_links(whole_run, name):
    run = whole_run(*RUNS[name])
    s = run.summary
    links = fsum(s["joules_per_link"].values())
    assert len(s["joules_per_device"]) == 4
    assert isclose(sum(s["joules_per_device"]), s["joules"], rel_tol=1e-12)
    assert isclose(links + s["joules_compute"] + s["joules_idle"], s["joules"], rel_tol=1e-12)
    assert isclose(links, s["joules_tx"] + s["joules_rx"], rel_tol=1e-12)
    assert set(s["joules_per_link"]) == (set() if name == "isolated" else {"0-1", "0-3", "1-2", "2-3"})
    assert s["joules_compute"] == pytest.approx(24 * 64e6 * 1e-28 * 1e9**2, rel=1e-12)  # kappa f^2 a cycle
    assert s["compute_air_s"] == pytest.approx(6 * COMPUTE_AIR_S, rel=1e-12)
    # Each device draws 10 mW until its own clock ends.
    clocks = {report["device"]: report["spent"]["air_s"] for report in run.events("report")}
    assert s["joules_idle"] == pytest.approx(0.01 * sum(clocks.values()), rel=1e-12)
    assert s["air_s"] == max(clocks.values()) > 0


@pytest.mark.processes
def test_the_joules_of_a_run_are_those_of_its_airtime(whole_run):
    s = whole_run().summary
    # In 6 rounds each of 4 devices sends at 1 mW, and hears at 50 mW, a frame and two answers; a frame for
    # both neighbours is sent once and heard twice.
    assert s["joules_tx"] == pytest.approx(24 * 1e-3 * (FRAME_AIR_S + 2 * ACK_AIR_S), rel=1e-12)
    assert s["joules_rx"] == pytest.approx(24 * 0.05 * 2 * (FRAME_AIR_S + ACK_AIR_S), rel=1e-12)
    per_link = 6 * (1e-3 * (FRAME_AIR_S + 2 * ACK_AIR_S) + 0.05 * 2 * (FRAME_AIR_S + ACK_AIR_S))
    assert list(s["joules_per_link"].values()) == pytest.approx([per_link] * 4, rel=1e-12)


@pytest.mark.processes
def test_measured_computing_is_charged_as_cycles_of_the_modelled_processor(whole_run):
    s = whole_run("device.compute=measured", "device.cpu_hz=2e9").summary
    assert 0 < s["compute_air_s"] <= s["wall_s"]  # processor time of one thread
    cycles = 4 * 2e9 * s["compute_air_s"]
    assert s["joules_compute"] == pytest.approx(1e-28 * 2e9**2 * cycles, rel=1e-12)
    assert s["air_s"] > s["compute_air_s"]


@pytest.mark.processes
def test_who_never_talks_spends_nothing_on_talking(whole_run):
    s = whole_run("aggregation.scheme=isolated").summary
    assert s["joules_tx"] == s["joules_rx"] == s["tx_air_s"] == s["slot_wait_air_s"] == 0
    assert s["air_s"] == pytest.approx(6 * COMPUTE_AIR_S, rel=1e-12)
    ideal = whole_run("radio.scheme=ideal").summary
    assert ideal["joules_tx"] == ideal["joules_rx"] == 0  # what takes no time costs nothing
    assert ideal["air_s"] == pytest.approx(6 * COMPUTE_AIR_S, rel=1e-12)
