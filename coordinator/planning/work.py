"""Local rounds of every device, what they take of its budgets, and what would be better."""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, isfinite

from pydantic import BaseModel, ConfigDict

from coordinator.network import Network
from coordinator.planning.rehearsal import Player, rehearse
from coordinator.prospects import ExchangeCost, bound_shape
from coordinator.schedule.epochs import EpochPlan
from protocol.config import Experiment
from protocol.theory.caps import Binding, Budget, LocalRounds, RoundCosts, cap
from protocol.theory.constants import MAX_LOCAL_ROUNDS
from protocol.theory.joint import joint_rounds
from protocol.theory.rounds import device_rounds, uniform_rounds


class PlannedWork(BaseModel):
    """What one device would do in the run, and what it would spend."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    local_rounds_first: int
    local_rounds_mean: float
    local_rounds_last: int
    rounds: int
    """Those it takes part in."""
    binding: Binding | None
    """What keeps it from more local rounds at the start, or cuts those that are set; None: nothing does."""
    stopped_by: Binding | None
    """Which budget ends its part before the last round."""
    joules: float
    joules_share: float | None
    """Of its budget; None without one."""
    air_s: float
    air_s_share: float | None
    exchange_j: float
    """Of one exchange, idling included."""
    exchange_air_s: float
    """Of one exchange, waiting for slower devices included."""
    local_rounds_affordable: int | None
    """The most in each round that its budgets pay for, if it waits for nobody; None: no limit."""
    local_rounds_best: int | None
    """By water-filling: the best allocation with the same number in each round; None where it is unknown."""


class Suggestion(BaseModel):
    """Local rounds that all devices can pay for, and how many rounds of them."""

    model_config = ConfigDict(frozen=True)

    local_rounds: int
    rounds: int
    binding: Binding
    device: int | None
    """Whose budget allows no more."""


class PlannedRun(BaseModel):
    """The work of all devices, and the alternatives to it."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    devices: tuple[PlannedWork, ...]
    bottleneck: int | None
    """The device whose budgets allow least, or else that all others wait for; None where all are alike."""
    bottleneck_reason: str
    uniform: Suggestion | None
    """The best number that is the same for all, in as many rounds as are set."""
    joint: Suggestion | None
    """The best number of local rounds and of rounds together, as far as the budgets go."""
    joules: float
    """Of all devices."""
    air_s: float
    """Until the last device is through."""


def plan_work(experiment: Experiment, network: Network, plan: EpochPlan) -> PlannedRun:
    """Rehearse a run by expected costs; raises BadInput if the budgets of a device do not allow one round."""
    players = rehearse(experiment, network, plan)
    in_step = _in_step(players)
    caps = _caps(experiment, players, [player.costs for player in players])
    best = _water_filling(experiment, caps)
    bottleneck, reason = _bottleneck(players, caps)
    return PlannedRun(
        devices=tuple(
            _work(player, most, best[device].num_local_rounds if best else None)
            for device, (player, most) in enumerate(zip(players, caps, strict=True))
        ),
        bottleneck=bottleneck,
        bottleneck_reason=reason,
        uniform=_uniform(experiment, _caps(experiment, players, in_step)),
        joint=_joint(experiment, players, in_step),
        joules=sum(player.joules for player in players),
        air_s=max(player.air_s for player in players),
    )


def _budget(player: Player) -> Budget:
    return Budget(energy_j=player.own.budget_j, air_s=player.own.budget_air_s)


def _caps(
    experiment: Experiment, players: Sequence[Player], costs: Sequence[RoundCosts]
) -> list[LocalRounds]:
    return [
        cap(_budget(player), cost, num_rounds=experiment.rounds)
        for player, cost in zip(players, costs, strict=True)
    ]


def _in_step(players: Sequence[Player]) -> list[RoundCosts]:
    """Return what rounds take where all do the same number of local rounds, each as long as the slowest's."""
    slowest_s = max(player.own.local_round_air_s for player in players)
    return [
        replace(
            ExchangeCost(player.exchange_j, player.exchange_air_s, 0.0).of_round(player.own),
            local_j=player.own.local_round_j + player.own.idle_power_w * slowest_s,
            local_air_s=slowest_s,
        )
        for player in players
    ]


def _work(player: Player, most: LocalRounds, best: int | None) -> PlannedWork:
    return PlannedWork(
        local_rounds_first=player.first,
        local_rounds_mean=player.num_local_rounds / player.rounds if player.rounds else 0.0,
        local_rounds_last=player.last,
        rounds=player.rounds,
        binding=player.binding or _cut_by(player),
        stopped_by=player.stopped_by,
        joules=player.joules,
        joules_share=_share(player.joules, player.own.budget_j),
        air_s=player.air_s,
        air_s_share=_share(player.air_s, player.own.budget_air_s),
        exchange_j=player.costs.aggregation_j,
        exchange_air_s=player.taken_air_s,
        local_rounds_affordable=None if most.num_local_rounds == MAX_LOCAL_ROUNDS else most.num_local_rounds,
        local_rounds_best=best,
    )


def _cut_by(player: Player) -> Binding | None:
    """Say which budget cut local rounds that were set, if one did."""
    if player.last >= player.wanted:
        return None
    shares = (_share(player.joules, player.own.budget_j), _share(player.air_s, player.own.budget_air_s))
    return "joules" if (shares[0] or 0) >= (shares[1] or 0) else "seconds"


def _share(spent: float, budget: float) -> float | None:
    return spent / budget if isfinite(budget) else None


def _bottleneck(players: Sequence[Player], caps: Sequence[LocalRounds]) -> tuple[int | None, str]:
    """Return the device that holds the others up, and how."""
    least = min(range(len(caps)), key=lambda device: caps[device].num_local_rounds)
    limit = caps[least]
    if limit.num_local_rounds < MAX_LOCAL_ROUNDS:
        number = limit.num_local_rounds
        rounds = "less than a local round" if not number else f"{number} local round" + "s" * (number > 1)
        return least, f"its {limit.binding} pay for {rounds} in each round"
    slow = max(range(len(players)), key=lambda device: players[device].busy_s)
    if players[slow].busy_s > min(player.busy_s for player in players):
        return slow, f"all others wait until it has computed, {players[slow].busy_s:.3g} s in each round"
    return None, "all devices are alike, and nothing limits them"


def _is_limited(experiment: Experiment) -> bool:
    return bool(experiment.budget.limited) or experiment.theory.constants is not None


def _water_filling(experiment: Experiment, caps: Sequence[LocalRounds]) -> tuple[LocalRounds, ...] | None:
    if not _is_limited(experiment) or min(caps).num_local_rounds < 1:
        return None
    return device_rounds(bound_shape(experiment), caps, num_rounds=experiment.rounds)


def _uniform(experiment: Experiment, caps: Sequence[LocalRounds]) -> Suggestion | None:
    if not _is_limited(experiment) or min(caps).num_local_rounds < 1:
        return None
    best = uniform_rounds(bound_shape(experiment), caps, num_rounds=experiment.rounds)
    at = [most.num_local_rounds for most in caps].index(best.num_local_rounds) if best in caps else None
    return Suggestion(
        local_rounds=best.num_local_rounds, rounds=experiment.rounds, binding=best.binding, device=at
    )


def _joint(
    experiment: Experiment, players: Sequence[Player], costs: Sequence[RoundCosts]
) -> Suggestion | None:
    """Return the best pair where constants are known and budgets set how many rounds there are."""
    budgets = [_budget(player) for player in players]
    limited = any(min(budget.energy_j, budget.air_s) < inf for budget in budgets)
    if not limited or experiment.theory.constants is None:
        return None
    best = joint_rounds(bound_shape(experiment), budgets, costs)
    if best is None:
        return None
    return Suggestion(
        local_rounds=best.num_local_rounds,
        rounds=best.num_rounds,
        binding=best.binding,
        device=best.device,
    )
