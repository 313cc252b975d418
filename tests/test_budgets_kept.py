"""No budget is ever exceeded, whatever the air does: whole runs of all sorts, in any order of arrival."""

from itertools import product

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rehearsal import experiment_of, rehearse

from protocol.errors import BadInput
from protocol.frame import FLAG_VOID, Kind
from protocol.hardware import fleet

LIVENESS_WALL_S = 30.0
"""The default; who waited for nobody in vain never comes near it."""

DIGITAL = st.fixed_dictionaries(
    {
        "tx_power_dbm": st.sampled_from([0.0, 15.0, {"low": 0, "high": 20}]),
        "arq": st.sampled_from(["none", "selective_repeat"]),
        "cast": st.sampled_from(["broadcast", "unicast"]),
        "access": st.sampled_from(["tdma", "parallel"]),
        "symmetric": st.booleans(),
        "fading": st.sampled_from(["none", "rayleigh"]),
        "coherence_packets": st.sampled_from([0, 1]),
        "modulation": st.sampled_from(["qpsk", "qam16"]),
    }
)
ANALOG = st.fixed_dictionaries(
    {
        "scheme": st.just("analog"),
        "analog": st.sampled_from(
            [
                {"superposition": "over_the_air"},
                {"superposition": "orthogonal"},
                {"superposition": "orthogonal", "payload": "differences", "refresh_rounds": 2},
            ]
        ),
    }
)
DEVICE = st.fixed_dictionaries(
    {
        "idle_power_w": st.sampled_from([0.0, 0.01, 1.0]),
        "cpu_hz": st.just({"low": 3e8, "high": 3e9}),
        "cycles_per_sample": st.just({"low": 1e5, "high": 5e6}),
    }
)
SHARES = st.lists(st.floats(0.15, 1.2), min_size=4, max_size=4)
"""Of what a device may spend, of the most that one spends without a budget."""


def settings_of(radio, scheme, local_rounds):
    return st.fixed_dictionaries(
        {
            "seed": st.integers(0, 999),
            "radio": radio,
            "device": DEVICE,
            "training": st.fixed_dictionaries({"local_rounds": st.sampled_from(local_rounds)}),
            "aggregation": st.fixed_dictionaries(
                {
                    "scheme": st.sampled_from(scheme),
                    "epoch_rounds": st.integers(1, 4),
                    "chunks": st.just(2),
                    "sweeps": st.integers(1, 3),
                    "round_deadline_air_s": st.sampled_from([float("inf"), 0.1]),
                }
            ),
            "graph": st.fixed_dictionaries({"kind": st.sampled_from(["ring", "complete", "star"])}),
        }
    )


GOSSIP = settings_of(DIGITAL, ["gossip"], [0, 3, "adaptive"]) | settings_of(ANALOG, ["gossip"], [0, 3])
SCHEDULED = settings_of(DIGITAL, ["tree", "ring", "auto"], [3, "adaptive"])


def limited(chosen, joules, seconds, *, just_in_time):
    """Return an experiment whose budgets are shares of what its devices spend without any; None: no limit."""
    free = rehearse(experiment_of(**chosen | {"training": {"local_rounds": 3}}))
    budget = {}
    if joules is not None:
        most_j = max(map(free.joules, range(4)))
        budget["joules"] = [share * most_j for share in joules]
    if seconds is not None:
        most_s = max(map(free.air_s, range(4)))
        budget["seconds"] = [share * most_s for share in seconds]
    hurry = {"frequency": "just_in_time"} if just_in_time and seconds is not None else {}
    return experiment_of(**chosen | {"budget": budget, "device": chosen["device"] | hurry})


def spared(experiment):
    """Let an experiment run in two orders of arrival; return both, or nothing if it is refused."""
    try:
        return [rehearse(experiment, seed=seed) for seed in (0, 1)]
    except BadInput:
        return []


def check(it, experiment):
    for device, own in enumerate(fleet(experiment)):
        assert it.joules(device) <= own.budget_j * (1 + 1e-9)
        assert it.air_s(device) <= own.budget_air_s * (1 + 1e-9)
    assert it.wall_s < LIVENESS_WALL_S
    missing = [
        heard.missing
        for reports in it.reports.values()
        for report in reports
        if experiment.aggregation.scheme == "gossip"  # who broke off a schedule waits for nobody who did not
        for heard in report.heard.values()
    ]
    assert "wall" not in missing


some_budget = st.tuples(st.none() | SHARES, st.none() | SHARES).filter(any)
thorough = settings(
    derandomize=True,
    deadline=None,
    max_examples=20,
    phases=[Phase.generate],  # looking for a smaller one would take minutes
    suppress_health_check=[HealthCheck.filter_too_much],
)


@thorough
@given(chosen=GOSSIP, shares=some_budget, just_in_time=st.booleans())
def test_gossip_keeps_to_all_budgets_and_does_not_depend_on_the_order_of_arrival(
    chosen, shares, just_in_time
):
    experiment = limited(chosen, *shares, just_in_time=just_in_time)
    runs = spared(experiment)
    for it in runs:
        check(it, experiment)
        assert it.ledgers() == runs[0].ledgers()
        assert it.parameters.keys() == runs[0].parameters.keys()
        assert all(np.array_equal(x, runs[0].parameters[name]) for name, x in it.parameters.items())


@thorough
@given(chosen=SCHEDULED, shares=some_budget, just_in_time=st.booleans())
def test_trees_and_rings_keep_to_all_budgets(chosen, shares, just_in_time):
    experiment = limited(chosen, *shares, just_in_time=just_in_time)
    for it in spared(experiment):
        check(it, experiment)


def sent(it, device):
    """Return the headers of all transmissions of a device, those kept back left out, and of those."""
    headers = [header for _, header, _ in it.said[device] if header.kind is not Kind.GONE_ON]
    return [h for h in headers if not h.flags & FLAG_VOID], [h for h in headers if h.flags & FLAG_VOID]


def test_no_transmission_lasts_beyond_the_seconds_of_its_sender():
    """Device 3 computes ten times as long as the others, whose seconds end while they wait for it."""
    kept_back = 0
    for scheme, share in product(["gossip", "tree", "ring"], np.linspace(0.3, 0.9, 7)):
        common = {
            "device": {"cycles_per_sample": [1e6, 1e6, 1e6, 1e7]},
            "radio": {"arq": "selective_repeat", "tx_power_dbm": 0},
            "aggregation": {"scheme": scheme},
        }
        limit_s = share * rehearse(experiment_of(**common)).air_s(0)
        experiment = experiment_of(**common, budget={"seconds": [limit_s] * 3 + [1e9]})
        it = rehearse(experiment)
        check(it, experiment)
        assert it.rounds(3) == experiment.rounds
        for device in range(3):
            on_air, void = sent(it, device)
            # A header alone takes 480 bits of BPSK.
            assert all(h.air_s + 480 / experiment.radio.bandwidth_hz <= limit_s for h in on_air)
            assert it.done[device].why_early or not void
            kept_back += len(void)
    assert kept_back > 0


def test_idling_ends_before_it_takes_what_is_meant_for_sending():
    """Waiting for device 3 would cost more than all else, and sweep 0 must leave enough for sweep 2."""
    common = {
        "device": {"cycles_per_sample": [1e6, 1e6, 1e6, 3e7], "idle_power_w": 1.0},
        "radio": {"tx_power_dbm": 20, "fading": "none"},
        "aggregation": {"sweeps": 3},
    }
    whole = rehearse(experiment_of(**common))
    for share in (0.3, 0.8):
        experiment = experiment_of(**common, budget={"joules": [share * whole.joules(0)] * 3 + [1e9]})
        it = rehearse(experiment)
        check(it, experiment)
        for device in range(3):
            assert it.done[device].why_early
            # Two exchanges at their dearest, with their waiting, are kept in reserve: less than that is left.
            rest_j = experiment.budget.joules[device] - it.joules(device)
            assert rest_j < 2.1 * it.starts[device].prospect.exchange_j


def test_a_budget_that_does_not_bind_changes_nothing():
    free = rehearse(experiment_of())
    rich = rehearse(experiment_of(budget={"joules": 1e6, "seconds": 1e6}))
    assert rich.ledgers() == free.ledgers()
    assert all(np.array_equal(x, rich.parameters[name]) for name, x in free.parameters.items())


LIMITS = (
    "budget.joules=[0.06, 0.09, 0.05, 9]",
    "budget.seconds=[9, 0.5, 9, 0.8]",
    "device.idle_power_w=0.05",
    "rounds=9",
)
REAL = {
    "digital": ("radio.arq=selective_repeat", "aggregation.sweeps=2", "training.local_rounds=adaptive"),
    "analog": ("radio.scheme=analog",),
    "tree": ("aggregation.scheme=tree", "aggregation.epoch_rounds=2", "training.local_rounds=adaptive"),
}


@pytest.mark.processes
@pytest.mark.parametrize("name", REAL)
def test_real_devices_keep_to_their_budgets_and_leave(whole_run, name):
    run = whole_run(*REAL[name], *LIMITS)
    for joules, limit_j in zip(run.summary["joules_per_device"], (0.06, 0.09, 0.05, 9), strict=True):
        assert joules <= limit_j * (1 + 1e-9)
    for device, limit_s in enumerate((9, 0.5, 9, 0.8)):
        clock = [r["spent"]["air_s"] for r in run.events("report") if r["device"] == device]
        assert max(clock, default=0.0) <= limit_s * (1 + 1e-9)
    left = {event["device"]: event for event in run.events("left")}
    assert sorted(left) == run.summary["devices_left"] != []
    assert run.summary["devices_lost"] == []
    assert run.summary["frames_missing_wall"] == 0
    assert f"left early {run.summary['devices_left']}" in run.table
    [ended] = run.events("ended")
    assert ended["how"] == "finished"
    assert all(ended["rounds"][device] == event["rounds"] < 9 for device, event in left.items())
    assert (run.out / "report.png").exists()
