"""What `hearsay plan` says of work, aggregation and theory, where that can be worked out by hand."""

import json
from io import StringIO
from math import sqrt

import numpy as np
import pytest
from conftest import ACK_AIR_S, COMPUTE_AIR_S, FRAME_AIR_S, HEADER_AIR_S, NUM_PACKETS, NUM_PARAMETERS
from rich.console import Console

from coordinator.plan import Plan
from coordinator.tables import plan_tables
from protocol.errors import BadInput
from protocol.theory.bounds import analog_bound, averaging_bound, coefficients, gossip_bound
from protocol.theory.caps import Budget, RoundCosts
from protocol.theory.constants import Constants, Training
from protocol.theory.contraction import equal_weight_contraction
from protocol.theory.joint import joint_rounds
from protocol.theory.minimum import equal_weight_minimum_success

LOSSLESS = ("radio.fading=none", "radio.snr=given", "radio.snr_db=40")
TX_W, RX_W, IDLE_W = 1e-3, 0.05, 0.01
COMPUTE_J = 1e-28 * 1e9**2 * 2e6 * 32
"""Of one local round."""
# A frame of a tree in one chunk also says how many devices are in each packet, in 16 bits.
TREE_FRAME_AIR_S = FRAME_AIR_S + 16 * NUM_PACKETS / 1e6
GOSSIP_TX_J = 4 * TX_W * (FRAME_AIR_S + 2 * ACK_AIR_S)
GOSSIP_RX_J = 4 * RX_W * (2 * FRAME_AIR_S + 2 * ACK_AIR_S)
MODES = np.array([2 / 3, 2 / 3, 4 / 3])
"""Of I - W on a ring of four with weights of a third."""
CONSTANTS = Constants(smoothness=2.0, gradient_variance=0.5, heterogeneity=0.3, initial_gap=2.0)
THEORY = (
    "theory.smoothness=2",
    "theory.gradient_variance=0.5",
    "theory.heterogeneity=0.3",
    "theory.initial_gap=2",
)


def training(eta, *, tau=1, rounds=6):
    return Training(learning_rate=eta, num_devices=4, num_local_rounds=tau, num_rounds=rounds)


def shown(plan):
    console = Console(width=200, record=True, file=StringIO())
    console.print(*plan_tables(plan), sep="\n")
    return " ".join(console.export_text().split())


def test_tables_of_many_devices_and_links_are_short_and_say_so(planned):
    many = ("devices=44", "graph.kind=complete", "device.cpu_hz={low=5e8, high=2e9}")
    text = shown(planned(*LOSSLESS, *many))
    assert text.count("… 4 more (--json has all)") == 3  # of samples, hardware and work
    assert text.count("… 906 more (--json has all)") == 1


def test_where_nobody_talks_there_is_no_table_of_links(planned):
    assert "distance (m)" in shown(planned())
    assert "distance (m)" not in shown(planned("aggregation.scheme=isolated"))


def test_a_target_that_needs_more_rounds_is_not_said_to_need_another_step_alone(planned):
    hasty = planned(*LOSSLESS, *THEORY, "theory.target=0.5", "training.learning_rate=0.01")
    assert "meets the target with this eta in these rounds" in shown(hasty)


def test_a_plan_survives_json(planned):
    plan = planned(*LOSSLESS, *THEORY, "budget.joules=5", "aggregation.scheme=tree")
    assert Plan.model_validate_json(plan.model_dump_json()) == plan
    assert json.loads(plan.model_dump_json())["run"]["devices"][0]["joules_share"] < 1


def test_gossip_costs_what_follows_by_hand(planned):
    aggregation = planned(*LOSSLESS).aggregation
    assert (aggregation.scheme, aggregation.reason) == ("gossip", "aggregation.scheme = gossip")
    assert aggregation.tx_joules == pytest.approx(GOSSIP_TX_J, rel=1e-6)
    assert aggregation.joules == pytest.approx(GOSSIP_TX_J + GOSSIP_RX_J, rel=1e-6)
    by_name = {one.name: one for one in aggregation.alternatives}
    # rho = 1/9: three sweeps leave less than one per cent.
    assert by_name.keys() == {
        "gossip, 1 sweep",
        "gossip, 3 sweeps (to leave 1%)",
        "spanning tree",
        "spanning tree multicast",
        "tree",
        "ring",
    }
    assert by_name["gossip, 3 sweeps (to leave 1%)"].joules == pytest.approx(
        3 * by_name["gossip, 1 sweep"].joules
    )
    joules = [one.joules for one in aggregation.alternatives]
    assert joules == sorted(joules)
    assert [one.exact for one in aggregation.alternatives] == [
        not one.name.startswith("gossip") for one in aggregation.alternatives
    ]


def test_a_tree_is_told_hop_by_hop(planned):
    aggregation = planned(*LOSSLESS, "aggregation.scheme=tree", "aggregation.chunks=1").aggregation
    assert sorted(aggregation.parents).count(-1) == 1
    hop_j = (TX_W + RX_W) * TREE_FRAME_AIR_S
    up = [hop for hop in aggregation.hops if hop.receivers == (aggregation.parents[hop.sender],)]
    down = [hop for hop in aggregation.hops if hop not in up]
    assert len(up) == 3
    assert [hop.joules for hop in up] == pytest.approx(3 * [hop_j], rel=1e-6)
    for hop in down:  # sent once, heard by each
        each_j = TREE_FRAME_AIR_S * (TX_W + RX_W * len(hop.receivers))
        assert hop.joules == pytest.approx(each_j, rel=1e-6)
    assert sum(len(hop.receivers) for hop in down) == 3
    assert sum(hop.joules for hop in aggregation.hops) == pytest.approx(aggregation.joules)
    by_name = {one.name: one for one in aggregation.alternatives}
    assert by_name["spanning tree"].tx_joules == pytest.approx(6 * TX_W * TREE_FRAME_AIR_S, rel=1e-6)


def test_a_ring_is_told_hop_by_hop(planned):
    aggregation = planned(*LOSSLESS, "aggregation.scheme=ring").aggregation
    assert sorted(aggregation.order) == [0, 1, 2, 3]
    assert [hop.sender for hop in aggregation.hops] == list(aggregation.order)
    # Parts of 118 or 119 numbers fill eight packets each, and every one is sent six times.
    bits = 32 * (NUM_PARAMETERS + NUM_PACKETS)
    part_air_s = bits / 4 / 2e6 + HEADER_AIR_S + 16 * 8 / 1e6
    assert aggregation.tx_joules == pytest.approx(4 * 6 * TX_W * part_air_s, rel=1e-6)
    assert sum(hop.joules for hop in aggregation.hops) == pytest.approx(aggregation.joules)


def test_set_local_rounds_take_what_follows_by_hand(planned):
    plan = planned(*LOSSLESS, "training.local_rounds=3", "rounds=10")
    run, exchange_j = plan.run, (GOSSIP_TX_J + GOSSIP_RX_J) / 4
    round_s = 3 * COMPUTE_AIR_S + plan.aggregation.air_s
    for work in run.devices:
        assert (work.local_rounds_first, work.local_rounds_mean, work.local_rounds_last) == (3, 3.0, 3)
        assert (work.binding, work.stopped_by, work.rounds) == (None, None, 10)
        assert (work.joules_share, work.air_s_share, work.local_rounds_affordable) == (None, None, None)
        assert work.air_s == pytest.approx(10 * round_s)
        assert work.joules == pytest.approx(10 * (3 * COMPUTE_J + exchange_j + IDLE_W * round_s), rel=1e-6)
    assert run.air_s == run.devices[0].air_s
    assert run.joules == pytest.approx(sum(work.joules for work in run.devices))
    assert (run.bottleneck, run.uniform, run.joint) == (None, None, None)


def test_the_device_that_can_pay_for_least_is_the_bottleneck(planned):
    budgets = "budget.joules=[0.4, 0.2, 0.3, 0.4]"
    run = planned(*LOSSLESS, "training.local_rounds=adaptive", "rounds=10", budgets).run
    assert run.bottleneck == 1
    pays = [work.local_rounds_affordable for work in run.devices]
    local_j = COMPUTE_J + IDLE_W * COMPUTE_AIR_S
    assert pays == [
        int((budget / 10 - work.exchange_j) / local_j)
        for budget, work in zip((0.4, 0.2, 0.3, 0.4), run.devices, strict=True)
    ]
    assert run.bottleneck_reason == f"its joules pay for {pays[1]} local rounds in each round"
    assert [work.binding for work in run.devices] == 4 * ["joules"]
    # Nothing is known of drift: the more the better, as far as all can pay.
    assert [work.local_rounds_best for work in run.devices] == pays
    assert (run.uniform.local_rounds, run.uniform.device) == (pays[1], 1)
    assert all(0.9 < work.joules_share <= 1 for work in run.devices)
    assert run.joint is None


def test_time_spent_waiting_for_the_slowest_pays_for_local_rounds(planned):
    unlike = (*LOSSLESS, "training.local_rounds=2", "rounds=10", "device.cpu_hz=[5e8, 2e9, 2e9, 2e9]")
    plan = planned(*unlike, "budget.run_seconds=10")
    left_s = 1 - plan.aggregation.air_s
    slow, fast = int(left_s / (2 * COMPUTE_AIR_S)), int(left_s / (COMPUTE_AIR_S / 2))
    assert [work.local_rounds_affordable for work in plan.run.devices] == [slow, fast, fast, fast]
    assert (plan.run.uniform.local_rounds, plan.run.uniform.device) == (slow, 0)


def test_whoever_must_be_done_first_waits_for_the_slowest_too(planned):
    unlike = (*LOSSLESS, "training.local_rounds=2", "rounds=10", "device.cpu_hz=[5e8, 2e9, 2e9, 2e9]")
    plan = planned(*unlike, *THEORY, "training.learning_rate=0.01", "budget.seconds=[10, 10, 10, 7]")
    of_slowest = int((0.7 - plan.aggregation.air_s) / (2 * COMPUTE_AIR_S))
    assert (plan.run.uniform.local_rounds, plan.run.uniform.device) == (of_slowest, 3)
    joint = plan.run.joint
    assert joint.device == 3
    assert joint.rounds * (joint.local_rounds * 2 * COMPUTE_AIR_S + plan.aggregation.air_s) <= 7


def test_the_slowest_device_is_the_bottleneck_where_nothing_else_limits(planned):
    run = planned(*LOSSLESS, "device.cpu_hz=[1e9, 5e8, 1e9, 2e9]").run
    assert (run.bottleneck, run.bottleneck_reason) == (
        1,
        "all others wait until it has computed, 0.128 s in each round",
    )
    waits_s = [work.exchange_air_s for work in run.devices]
    assert waits_s[3] - waits_s[1] == pytest.approx(COMPUTE_AIR_S * 3 / 2)


def test_devices_that_run_dry_leave_when_they_would(planned):
    plan = planned(*LOSSLESS, "training.local_rounds=3", "rounds=40", "budget.joules=[0.2, 9, 9, 9]")
    poor, *rich = plan.run.devices
    assert (poor.stopped_by, poor.binding, poor.joules_share <= 1) == ("joules", "joules", True)
    # It goes on with fewer local rounds while it can, and in the end only relays.
    assert (poor.local_rounds_first, poor.local_rounds_last) == (3, 0)
    assert 0.2 / (rich[0].joules / 40) < poor.rounds < 40
    assert all(work.rounds == 40 and work.stopped_by is None for work in rich)
    assert "device 0 leaves after" in shown(plan)


def test_what_the_dearest_exchange_takes_is_kept_back_so_that_nobody_is_cut(planned):
    repeats = ("radio.arq=selective_repeat", "radio.max_attempts=8", "budget.joules=0.6", "rounds=20")
    run = planned(*LOSSLESS, *repeats, "training.local_rounds=adaptive").run
    for work in run.devices:
        assert (work.rounds, work.stopped_by) == (20, None)
        # Four local rounds each time would leave 1.2 % of the budget, less than an exchange at its dearest.
        assert 3.5 < work.local_rounds_mean < 4
        assert 0.97 < work.joules_share < 0.98


def test_auto_keeps_to_the_deadline_that_budgets_of_seconds_leave(planned):
    auto = (*LOSSLESS, "aggregation.scheme=auto", "aggregation.chunks=1", "training.local_rounds=1")
    free = planned(*auto).aggregation
    seconds = {one.name: one.air_s for one in free.alternatives}
    assert (free.scheme, seconds["ring"] < seconds["tree"]) == ("tree", True)
    between_s = (seconds["ring"] + seconds["tree"]) / 2
    pressed = planned(*auto, f"budget.seconds={6 * (COMPUTE_AIR_S + between_s)}").aggregation
    assert pressed.scheme == "ring"
    assert "tree would end late" in pressed.reason


def test_drift_binds_where_more_local_rounds_would_hurt(planned):
    known = [text.replace("smoothness=2", "smoothness=50") for text in THEORY]
    run = planned(*LOSSLESS, *known, "training.local_rounds=adaptive", "budget.joules=100").run
    assert {work.binding for work in run.devices} == {"drift"}
    assert {work.local_rounds_best for work in run.devices} == {1}
    shape = coefficients(
        Constants(smoothness=50.0, gradient_variance=0.5, heterogeneity=0.3, initial_gap=2.0),
        learning_rate=0.1,
        num_devices=4,
    )
    work = run.devices[0]
    costs = RoundCosts(
        local_j=COMPUTE_J + IDLE_W * COMPUTE_AIR_S,
        local_air_s=COMPUTE_AIR_S,
        aggregation_j=work.exchange_j,
        aggregation_air_s=work.exchange_air_s,
    )
    best = joint_rounds(shape, 4 * [Budget(energy_j=100.0)], 4 * [costs])
    assert (run.joint.local_rounds, run.joint.rounds) == (best.num_local_rounds, best.num_rounds)
    # Round by round fewer remain, so that drift matters less.
    assert work.local_rounds_last >= work.local_rounds_first


def test_budgets_that_allow_no_round_are_refused_as_a_run_would(planned):
    with pytest.raises(BadInput, match=r"device 2 has 0.001 J, and one local round"):
        planned(*LOSSLESS, "budget.joules=[1, 1, 0.001, 1]")


@pytest.mark.parametrize("rounds", [30_000, 1_000_000])
def test_long_runs_are_rehearsed_in_strides(planned, rounds):
    joules, seconds = f"budget.joules={0.02 * rounds}", f"rounds={rounds}"
    run = planned(*LOSSLESS, "training.local_rounds=adaptive", joules, seconds).run
    assert run.devices[0].rounds == rounds
    assert 0.99 < run.devices[0].joules_share <= 1
    pays = run.devices[0].local_rounds_affordable
    assert pays <= run.devices[0].local_rounds_mean <= pays + 1


def test_agreement_follows_from_links_that_lose_packets_in_both_directions(planned):
    agreement = planned(*LOSSLESS, "aggregation.sweeps=2").theory.agreement
    assert agreement.contraction == pytest.approx(1 / 9)
    assert agreement.consensus_rate == pytest.approx(1 - 1 / 81)
    assert (agreement.success_min, agreement.success_mean) == (1.0, 1.0)
    lossy = planned("radio.fading=none", "radio.snr=given", "radio.snr_db=9.0")
    [loss] = {loss for link in lossy.links for loss in link.packet_loss}
    assert 0.05 < loss < 0.9
    p = lossy.theory.agreement.success_min  # nothing fades, so directions are independent
    assert p == pytest.approx((1 - loss) ** 2, rel=2e-3)  # interpolated
    rho = equal_weight_contraction(MODES, weight=1 / 3, success=p)
    assert lossy.theory.agreement.contraction == pytest.approx(rho)
    four = "radio.arq=selective_repeat"
    repeated = planned("radio.fading=none", "radio.snr=given", "radio.snr_db=9.0", four)
    assert repeated.theory.agreement.success_min == pytest.approx((1 - loss**4) ** 2, rel=2e-3)


@pytest.mark.parametrize("repeats", ["radio.arq=none", "radio.arq=selective_repeat"])
def test_directions_that_fade_together_succeed_together(planned, repeats):
    """Rayleigh: with p of one direction, both together are nearer to p than to p^2."""
    plan = planned("radio.snr=given", "radio.snr_db=15", repeats)
    [loss] = {loss for link in plan.links for loss in link.packet_loss}
    p = plan.theory.agreement.success_min
    assert (1 - loss) ** 2 < p
    if repeats == "radio.arq=none":
        assert p < 1 - loss
        assert p == pytest.approx(1 - loss, rel=0.05)


def test_without_constants_it_says_which_are_missing_and_how_to_get_them(planned):
    plan = planned(*LOSSLESS, "theory.smoothness=2", "theory.target=0.1")
    assert plan.theory.bounds is None
    assert plan.theory.constants.missing == (
        "theory.gradient_variance",
        "theory.heterogeneity",
        "theory.initial_gap",
    )
    needs = (
        "needs theory.gradient_variance, theory.heterogeneity and theory.initial_gap: set them in [theory],"
    )
    assert plan.theory.unknown == f"{needs} or let them be measured: --pilot K, or --from RUN_DIR"
    assert needs in shown(plan)
    assert "they do not predict losses" in shown(plan)


def test_the_bound_of_gossip_and_the_rounds_that_it_takes(planned):
    settings = (*LOSSLESS, *THEORY, "training.learning_rate=0.01", "theory.target=1.5")
    bounds = planned(*settings).theory.bounds
    rate = 8 / 9
    assert bounds.of == "B2"
    assert bounds.value == pytest.approx(gossip_bound(CONSTANTS, training(0.01), consensus_rate=rate))
    rounds = bounds.rounds_to_target
    below = gossip_bound(CONSTANTS, training(0.01, rounds=rounds), consensus_rate=rate)
    above = gossip_bound(CONSTANTS, training(0.01, rounds=rounds - 1), consensus_rate=rate)
    assert below <= 1.5 < above
    assert bounds.complexity.bits == bounds.complexity.rounds * 4 * 8 * (4 * (NUM_PARAMETERS + NUM_PACKETS))


def test_the_bound_of_exact_averaging_and_the_rounds_that_it_takes(planned):
    exact = ("aggregation.scheme=tree", "training.local_rounds=2", "training.learning_rate=0.01")
    bounds = planned(*LOSSLESS, *THEORY, *exact, "theory.target=1.5").theory.bounds
    shape = coefficients(CONSTANTS, learning_rate=0.01, num_devices=4)
    assert bounds.of == "B1"
    assert bounds.value == pytest.approx(averaging_bound(shape, 4 * [2], num_rounds=6))
    rounds = bounds.rounds_to_target
    below, above = (averaging_bound(shape, 4 * [2], num_rounds=k) for k in (rounds, rounds - 1))
    assert below <= 1.5 < above


def test_a_learning_rate_that_is_too_large_is_told_the_largest_that_would_do(planned):
    plan = planned(*LOSSLESS, *THEORY, "training.learning_rate=0.5")
    bounds = plan.theory.bounds
    largest = (8 / 9) / (4 * sqrt(10) * 2)
    assert (bounds.value, bounds.rounds_to_target) == (None, None)
    assert bounds.learning_rate_at_most == pytest.approx(largest)
    assert f"eta = 0.5 > delta / (4 sqrt(10) L tau) = {largest:.3g}" in bounds.violated[0]
    assert f"it would up to {largest:.3g}" in shown(plan)
    exact = planned(
        *LOSSLESS, *THEORY, "training.learning_rate=0.5", "training.local_rounds=3", "aggregation.scheme=ring"
    ).theory.bounds
    assert len(exact.violated) == 3
    inside = planned(
        *LOSSLESS,
        *THEORY,
        f"training.learning_rate={exact.learning_rate_at_most * (1 - 1e-9)}",
        "training.local_rounds=3",
        "aggregation.scheme=ring",
    )
    assert inside.theory.bounds.violated == ()


def test_momentum_counts_as_longer_steps(planned):
    bounds = planned(*LOSSLESS, *THEORY, "training.learning_rate=0.01", "training.momentum=0.5").theory.bounds
    assert bounds.learning_rate == pytest.approx(0.02)


def test_links_below_p_min_are_named_with_the_sweeps_that_would_do(planned):
    # Without a target the condition on eta asks for delta >= 4 sqrt(10) eta L tau.
    eta = 0.02
    settings = ("radio.fading=none", "radio.snr=given", "radio.snr_db=8", *THEORY)
    plan = planned(*settings, f"training.learning_rate={eta}")
    least = plan.theory.bounds.least_success
    needed = 4 * sqrt(10) * eta * 2
    assert least.consensus_rate_needed == pytest.approx(needed)
    p_min = equal_weight_minimum_success(MODES, weight=1 / 3, required=needed)
    assert least.probability == pytest.approx(p_min)
    agreement = plan.theory.agreement
    assert agreement.success_min < p_min
    assert least.links_below == ((0, 1), (0, 3), (1, 2), (2, 3))
    assert not least.is_met
    sweeps = least.num_sweeps
    assert 1 - agreement.contraction**sweeps >= needed > 1 - agreement.contraction ** (sweeps - 1)
    assert "these links do not meet it; below it: 0-1, 0-3, 1-2, 2-3" in shown(plan)
    good = planned(*LOSSLESS, *THEORY, f"training.learning_rate={eta}").theory.bounds.least_success
    assert good.is_met
    assert good.links_below == ()


def test_computing_or_communicating_is_split_by_joules_and_by_seconds(planned):
    plan = planned(*LOSSLESS, *THEORY, "training.learning_rate=0.001", "budget.seconds=500")
    joules, seconds = plan.theory.bounds.splits
    assert (joules.resource, seconds.resource, seconds.budget) == ("joules", "seconds", 500)
    assert joules.budget == pytest.approx(plan.run.joules)
    one_sweep_s = plan.aggregation.air_s
    spent_s = seconds.rounds * (seconds.local_rounds * COMPUTE_AIR_S + seconds.sweeps * one_sweep_s)
    assert spent_s <= 500 < spent_s * (1 + 1 / seconds.rounds)
    assert planned("radio.scheme=ideal", *THEORY).theory.bounds.splits == ()


def test_analog_is_told_how_much_noise_it_bears(planned):
    settings = (*LOSSLESS, *THEORY, "training.learning_rate=0.01", "theory.target=80", "radio.scheme=analog")
    plan = planned(*settings)
    noise, rate = plan.theory.bounds.tolerable_noise, plan.theory.agreement.consensus_rate
    at_most = analog_bound(
        CONSTANTS, training(0.01), consensus_rate=rate, noise_power=noise.noise_power_sum / 6
    )
    assert at_most == pytest.approx(80)
    # Each receiver hears two of equal weight at 40 dB.
    assert noise.noise_per_norm_sq == pytest.approx((1 / 3) ** 2 / 1e4)
    assert noise.norm_sq_at_most * noise.noise_per_norm_sq * 6 == pytest.approx(noise.noise_power_sum)
    assert plan.theory.bounds.complexity is None
    assert "tolerable accumulated noise" in shown(plan)


def test_digital_or_analog_depends_on_the_noise(planned):
    plan = planned(*LOSSLESS, *THEORY, "training.learning_rate=0.01", "budget.seconds=2")
    either = plan.theory.digital_or_analog
    assert either.air_s == 2
    assert either.analog_rounds > either.digital_rounds
    rate = 8 / 9
    after = training(0.01, rounds=either.analog_rounds)
    at_limit = analog_bound(CONSTANTS, after, consensus_rate=rate, noise_power=either.noise_power_at_most)
    assert either.digital_bound == pytest.approx(
        gossip_bound(CONSTANTS, training(0.01, rounds=either.digital_rounds), consensus_rate=rate)
    )
    assert at_limit == pytest.approx(either.digital_bound)
    assert "analog while its noise is below" in shown(plan)
    # With trees there is nothing to choose: partial means travel in packets.
    exact = planned(*LOSSLESS, *THEORY, "aggregation.scheme=tree")
    assert exact.theory.digital_or_analog is None


def test_what_the_bounds_are_not_about(planned):
    adamw = planned(*LOSSLESS, *THEORY, "training.optimiser=adamw", "training.learning_rate=0.001")
    assert adamw.theory.bounds is None
    assert adamw.theory.unknown == "the bounds are about SGD, and training.optimiser = adamw"
    idle = planned(*LOSSLESS, *THEORY, "training.local_rounds=0")
    assert idle.theory.unknown == "training.local_rounds = 0: nobody learns"
    assert planned(*LOSSLESS, *THEORY).theory.unknown.startswith("needs theory.target")


def test_tables_show_every_part(planned):
    text = shown(planned(*LOSSLESS, "aggregation.scheme=tree", "aggregation.chunks=1"))
    hop = f"{(TX_W + RX_W) * TREE_FRAME_AIR_S * 1e6:.3g} uJ"
    assert f"up {hop}" in text
    assert "tree (" in text
    assert "one aggregation: aggregation.scheme = tree" in text
    assert "contraction per sweep, rho" in text
    assert "constants from [theory] of the experiment" in text
    ring = planned(*LOSSLESS, "aggregation.scheme=ring")
    assert "-> " in shown(ring)
    lonely = planned("devices=1", "graph.kind=complete")
    assert (lonely.aggregation, lonely.theory) == (None, None)
    assert "all devices together" in shown(lonely)


@pytest.mark.processes
@pytest.mark.parametrize("scheme", ["gossip", "tree", "ring"])
def test_a_run_does_what_was_planned(planned, whole_run, scheme):
    settings = (
        *LOSSLESS,
        "training.local_rounds=adaptive",
        "rounds=12",
        "budget.joules=[0.3, 0.25, 0.4, 0.3]",
        f"aggregation.scheme={scheme}",
    )
    plan, run = planned(*settings), whole_run(*settings)
    for device, work in enumerate(plan.run.devices):
        reports = [report for report in run.events("report") if report["device"] == device]
        did = [round(report["spent"]["compute_air_s"] / COMPUTE_AIR_S) for report in reports]
        assert len(did) == work.rounds
        assert did[0] == work.local_rounds_first
        assert np.mean(did) == pytest.approx(work.local_rounds_mean, abs=0.25)
        # How long a hop waits for its slot depends on how long devices compute, which varies.
        assert reports[-1]["spent"]["air_s"] == pytest.approx(work.air_s, rel=0.1)
        assert run.summary["joules_per_device"][device] == pytest.approx(work.joules, rel=0.03)
