"""Rounds as each device would decide them, if every exchange costs what is expected.

The rule is that of node/planner.py: local rounds one round ahead, out of what is left of the budgets after
all reserves (protocol/reserve.py), and no round without the joules for the dearest exchange there can be.
The loss is taken to stay as it is at the start: what drift allows is that of a run which learns nothing.
"""

from dataclasses import dataclass
from math import ceil

from coordinator.network import Network
from coordinator.prospects import ExchangeCost, bound_shape, first_outlook, look_ahead
from coordinator.schedule.epochs import EpochPlan
from protocol.config import Experiment
from protocol.hardware import Hardware, fleet
from protocol.messages import RingPlace, TreePlace
from protocol.reserve import Exchange, num_ahead, num_relied_on
from protocol.theory.caps import Binding, Budget, RoundCosts, affordable
from protocol.theory.online import Outlook, decide

MOST_DECISIONS = 50_000
"""Where devices times rounds are more, one decision stands for several rounds."""


@dataclass
class Player:
    """One device in the rehearsal: what it would do, and what it has spent so far."""

    own: Hardware
    exchange_j: float
    """Of one exchange, without idling."""
    at_most_j: float
    """What one may cost."""
    wanted: int
    exchange_air_s: float
    """What one takes, once all are ready."""
    waiting_air_s: float
    """For slower devices, before that."""
    binding: Binding | None = None
    """Of the first round; None where local rounds are set."""
    stopped_by: Binding | None = None
    """Which budget ends its part before the last round."""
    joules: float = 0.0
    air_s: float = 0.0
    rounds: int = 0
    num_local_rounds: int = 0
    """Of all rounds together."""
    first: int = 0
    last: int = 0
    number: int = 0
    """Of local rounds in this round."""
    busy_s: float = 0.0
    """Computing in this round."""

    @property
    def left(self) -> Budget:
        """What its budgets have left."""
        return Budget(energy_j=self.own.budget_j - self.joules, air_s=self.own.budget_air_s - self.air_s)

    @property
    def costs(self) -> RoundCosts:
        """What a round takes."""
        return ExchangeCost(self.exchange_j, self.exchange_air_s, self.waiting_air_s).of_round(self.own)

    @property
    def taken_air_s(self) -> float:
        """What an exchange takes, waiting included."""
        return self.exchange_air_s + self.waiting_air_s

    @property
    def exchange(self) -> Exchange:
        """What an exchange takes, idling included."""
        return Exchange(
            at_most_j=self.at_most_j + self.own.idle_power_w * self.taken_air_s,
            usual_j=self.costs.aggregation_j,
            usual_air_s=self.taken_air_s,
        )

    def needs(self, needed: Budget) -> None:
        """Stop it unless so much is left."""
        if self.left.energy_j < needed.energy_j:
            self.stopped_by = "joules"
        elif self.left.air_s < needed.air_s:
            self.stopped_by = "seconds"


def rehearse(experiment: Experiment, network: Network, plan: EpochPlan) -> list[Player]:
    """Let all devices go through all rounds; raises BadInput if the budgets of one do not allow any."""
    players = _players(experiment, network, plan)
    stride = ceil(experiment.rounds * len(players) / MOST_DECISIONS)
    round_ = 0
    while round_ < experiment.rounds:
        for player in players:
            player.needs(player.exchange.reserve(1))
        active = [player for player in players if player.stopped_by is None]
        if not active:
            break
        times = min(stride, experiment.rounds - round_)
        _play(experiment, plan, active, round_=round_, times=times)
        round_ += times
        for player in active if round_ < experiment.rounds else ():
            _look_ahead(experiment, player, round_)
    return players


def _players(experiment: Experiment, network: Network, plan: EpochPlan) -> list[Player]:
    prospects, devices = look_ahead(experiment, plan), fleet(experiment)
    players = [
        Player(
            own,
            exchange_j=float(plan.cost.joules[device]),
            at_most_j=exchange_at_most_j(experiment, network, plan, device),
            wanted=prospects[device].local_rounds,
            exchange_air_s=prospects[device].exchange_air_s,
            waiting_air_s=prospects[device].waiting_air_s,
        )
        for device, own in enumerate(devices)
    ]
    for player in players if experiment.training.is_adaptive else ():
        player.binding = decide(first_outlook(experiment, player.own, player.costs)).binding
    return players


def _play(experiment: Experiment, plan: EpochPlan, active: list[Player], *, round_: int, times: int) -> None:
    """Let so many equal rounds pass: all compute, wait for the slowest, and exchange."""
    number = num_relied_on(experiment.aggregation, round_, num_rounds=experiment.rounds)
    for player in active:
        own, costs, left = player.own, player.costs, player.left
        needed = player.exchange.reserve(number)
        player.number = min(
            player.wanted,
            affordable(left.energy_j, needed.energy_j, each=costs.local_j),
            affordable(left.air_s, needed.air_s - player.waiting_air_s, each=costs.local_air_s),
        )
        hz = own.training_hz(
            experiment.device,
            num_local_rounds=player.number,
            air_s=left.air_s / (experiment.rounds - round_) - player.exchange_air_s,
        )
        cycles = player.number * own.local_round_cycles
        player.busy_s = cycles / hz
        player.joules += times * own.switched_capacitance * hz**2 * cycles
    slowest_s = max(player.busy_s for player in active)
    round_s = slowest_s + plan.event.air_s
    for player in active:
        player.exchange_air_s, player.waiting_air_s = plan.event.air_s, slowest_s - player.busy_s
        spent_j = player.joules + times * (player.exchange_j + player.own.idle_power_w * round_s)
        player.joules = min(spent_j, player.own.budget_j)  # no device talks or waits beyond it
        player.air_s += times * round_s
        player.first = player.number if round_ == 0 else player.first
        player.last = player.number
        player.rounds += times
        player.num_local_rounds += times * player.number


def _look_ahead(experiment: Experiment, player: Player, round_: int) -> None:
    """Decide the local rounds of the round to come, or that there is none for this device.

    As `Planner.can_go_on_after`, which asks before the exchange that is over now.
    """
    aggregation, costs, num_rounds = experiment.aggregation, player.costs, experiment.rounds
    needed = player.exchange.reserve(1 + num_ahead(aggregation, round_, num_rounds=num_rounds))
    player.needs(
        Budget(energy_j=needed.energy_j - costs.aggregation_j, air_s=needed.air_s - player.taken_air_s)
    )
    if experiment.training.is_adaptive and player.stopped_by is None:
        energy_j = player.left.energy_j - player.exchange.kept_back_j
        outlook = Outlook(
            left=Budget(energy_j=energy_j, air_s=player.left.air_s),
            rounds_left=num_rounds - round_,
            costs=costs,
            coefficients=bound_shape(experiment),
        )
        player.wanted = decide(outlook).num_local_rounds


def exchange_at_most_j(experiment: Experiment, network: Network, plan: EpochPlan, device: int) -> float:
    """Return what one exchange may cost a device: everything at the slowest rate, with all repeats.

    As the `at_most_j` of node/gossip.py, node/tree.py and node/ring.py.
    """
    grids, radio, own = plan.choice.tariff.grids, experiment.radio, fleet(experiment)[device]
    assert grids is not None
    match plan.places.get(device):
        case TreePlace() as place:
            links = len(place.children) + (place.parent is not None)
            down = min(len(place.children), 1) if radio.cast == "broadcast" else len(place.children)
            sends = down + (place.parent is not None)
            one = grids.chunked.access.at_most_j(own, sends=sends, to=links, hears=links)
            return plan.choice.tariff.chunks * one
        case RingPlace() as place:
            steps = 2 * (place.members - 1)
            return steps * grids.parted.access.at_most_j(own, sends=1, to=1, hears=1)
        case None:
            degree = network.graph.degree[device]
            each = radio.cast == "unicast" or radio.scheme == "analog"
            sends = degree if each else min(degree, 1)
            one = grids.whole.access.at_most_j(own, sends=sends, to=degree, hears=degree)
            return experiment.aggregation.sweeps * one
