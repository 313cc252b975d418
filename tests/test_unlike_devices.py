"""Three real devices that differ in everything: seconds and joules of each, worked out by hand."""

import json

import pytest
from conftest import ACK_AIR_S, FRAME_AIR_S
from rich.console import Console

from coordinator.plan import make_plan
from coordinator.tables import plan_tables
from protocol.experiment_file import load
from protocol.messages import Description

UNLIKE = (
    "devices=3",
    "rounds=3",
    "device.cpu_hz=[1e9, 2e9, 5e8]",
    "device.cycles_per_sample=[1e6, 3e6, 2.5e6]",
    "device.switched_capacitance=[1e-28, 5e-29, 4e-28]",
    "radio.tx_power_dbm=[30, 10, 0]",
)
ROUNDS = 3

# A local round is 32 samples: 32, 96 and 80 million cycles at 1, 2 and 0.5 GHz ...
COMPUTE_AIR_S = [0.032, 0.048, 0.16]
# ... of 1e-10, 2e-10 and 1e-10 J each.
COMPUTE_J = [3.2e-3, 19.2e-3, 8e-3]
TX_W = [1, 0.01, 0.001]

# A frame takes 8.576 ms and an acknowledgement 0.512 ms. Three devices that all hear each other have three
# slots: a superframe is 3 frames and 6 acknowledgements, 28.8 ms. In round 0 device 0 sends in the third
# superframe, from 2 * 28.8 = 57.6 ms on; device 1 in the second slot of the same one, from 66.176 on; device
# 2 in the third slot of the sixth, from 161.152 to 169.728. That is answered by device 0 in its second turn,
# from 5 * 28.8 + 3 * 8.576 + 0.512 = 170.24 to 170.752, and by device 1 two turns later, to 171.776.
STARTS_AIR_S = [0.0576, 0.066176, 0.161152]
ENDS_AIR_S = [0.170752, 0.171776, 0.171776]


@pytest.mark.processes
def test_seconds_and_joules_of_unlike_devices_by_hand(whole_run):
    run = whole_run(*UNLIKE)
    assert pytest.approx([0.008576, 0.000512]) == [FRAME_AIR_S, ACK_AIR_S]
    reports = sorted(run.events("report"), key=lambda report: (report["round"], report["device"]))
    assert len(reports) == 3 * ROUNDS
    for report in reports:
        device, spent, links = report["device"], report["spent"], report["heard"].values()
        assert spent["compute_air_s"] == pytest.approx(COMPUTE_AIR_S[device], rel=1e-12)
        assert spent["compute_j"] == pytest.approx(COMPUTE_J[device], rel=1e-12)
        sent_s, heard_s = FRAME_AIR_S + 2 * ACK_AIR_S, 2 * (FRAME_AIR_S + ACK_AIR_S)
        assert sum(link["tx_j"] for link in links) == pytest.approx(TX_W[device] * sent_s, rel=1e-12)
        assert sum(link["rx_j"] for link in links) == pytest.approx(0.05 * heard_s, rel=1e-12)
    first = reports[:3]
    assert [report["spent"]["air_s"] for report in first] == pytest.approx(ENDS_AIR_S, rel=1e-12)
    waits_s = [start_s - ready_s for start_s, ready_s in zip(STARTS_AIR_S, COMPUTE_AIR_S, strict=True)]
    assert [report["spent"]["slot_wait_air_s"] for report in first] == pytest.approx(waits_s, rel=1e-9)
    assert [report["spent"]["idle_j"] for report in first] == pytest.approx(
        [0.01 * end_s for end_s in ENDS_AIR_S], rel=1e-12
    )


@pytest.mark.processes
def test_the_joules_of_unlike_devices_are_those_of_each(whole_run):
    run = whole_run(*UNLIKE)
    clocks_s = {report["device"]: report["spent"]["air_s"] for report in run.events("report")}
    for device, joules in enumerate(run.summary["joules_per_device"]):
        per_round_j = (
            COMPUTE_J[device]
            + TX_W[device] * (FRAME_AIR_S + 2 * ACK_AIR_S)
            + 0.05 * 2 * (FRAME_AIR_S + ACK_AIR_S)
        )
        assert joules == pytest.approx(ROUNDS * per_round_j + 0.01 * clocks_s[device], rel=1e-12)
    assert run.summary["compute_air_s"] == pytest.approx(ROUNDS * sum(COMPUTE_AIR_S) / 3, rel=1e-12)


@pytest.mark.processes
def test_links_of_unlike_devices_are_logged_in_both_directions(whole_run):
    """Device 0 is heard 20 dB better than device 1, and that 10 dB better than device 2."""
    [started] = whole_run(*UNLIKE).events("started")
    ahead_db = {(0, 1): 20, (0, 2): 30, (1, 2): 10}
    assert {tuple(edge["devices"]) for edge in started["edges"]} == ahead_db.keys()
    for edge in started["edges"]:
        here_db, there_db = edge["mean_snr_db"]
        assert there_db - here_db == pytest.approx(ahead_db[tuple(edge["devices"])], abs=1e-9)
        assert edge["packet_loss"][0] > edge["packet_loss"][1]


@pytest.fixture
def planned(small, monkeypatch):
    """Plan the small experiment under some settings; its size is known, so that no device need be asked."""
    described = Description(num_parameters=474, num_train=320, num_test=80, samples_per_class=((32,) * 10,))
    monkeypatch.setattr("coordinator.plan.describe", lambda experiment: described)
    return lambda *settings: make_plan(load(small, settings))


def printed(plan):
    console = Console(width=200)
    with console.capture() as captured:
        console.print(*plan_tables(plan), sep="\n")
    return captured.get()


def test_a_plan_shows_the_hardware_where_devices_differ(planned):
    plan = planned(*UNLIKE, "budget.joules=[1, 2, inf]", "budget.run_joules=4.5", "budget.run_seconds=60")
    assert [own.local_round_air_s for own in plan.hardware] == pytest.approx(COMPUTE_AIR_S)
    assert [own.local_round_j for own in plan.hardware] == pytest.approx(COMPUTE_J)
    assert [own.tx_power_dbm for own in plan.hardware] == [30, 10, 0]
    assert [(own.budget_j, own.budget_air_s) for own in plan.hardware] == [(1, 60), (1.5, 60), (1.5, 60)]
    assert plan.round_air_s == pytest.approx(0.16 + 3 * FRAME_AIR_S + 6 * ACK_AIR_S)
    rows = [line.strip("│ ").split("│") for line in printed(plan).splitlines() if line.startswith("│")]
    rows = [[cell.strip() for cell in row] for row in rows]
    assert ["1", "2e+09", "0.048", "0.0192", "10.0", "1.5", "60"] in rows
    assert ["2", "5e+08", "0.16", "0.008", "0.0", "1.5", "60"] in rows


def test_a_plan_of_like_devices_shows_it_in_json_only(planned):
    plan = planned()
    said = json.loads(plan.model_dump_json())
    assert said["hardware"] == 4 * [
        {
            "cpu_hz": 1e9,
            "local_round_air_s": 0.064,
            "local_round_j": pytest.approx(6.4e-3),
            "tx_power_dbm": 0.0,
            "budget_j": "Infinity",
            "budget_air_s": "Infinity",
        }
    ]
    assert "hardware" not in printed(plan)
    assert "either end" not in printed(plan)
    link = plan.links[0]
    assert f"│ {link.mean_snr_db[0]:.1f} │" in " ".join(printed(plan).split())


def test_a_plan_shows_both_directions_of_a_link_where_they_differ(planned):
    plan = planned(*UNLIKE)
    text = " ".join(printed(plan).split())
    assert "mean SNR (dB), at either end" in text
    for link in plan.links:
        here_db, there_db = link.mean_snr_db
        assert there_db > here_db + 9  # the smaller number is the louder one
        assert link.packet_loss[0] > link.packet_loss[1]
        assert f"{here_db:.1f} / {there_db:.1f}" in text
        assert f"{link.packet_loss[0]:.2%} / {link.packet_loss[1]:.2%}" in text
    assert plan.packet_loss_mean == pytest.approx(sum(sum(link.packet_loss) for link in plan.links) / 6)
    alike = planned("radio.tx_power_dbm=[0, 0, 0, 0]", "device.cpu_hz=[1e9, 1e9, 1e9, 1e9]")
    assert alike == planned()
