"""How much one device does: local rounds from what is left of its budgets, and when it has to leave.

A number of local rounds is decided one round ahead and rides on the exchange, so that all devices know the
mean over those that train before they scale what they have learned. No budget is ever exceeded: a round
begins only if it pays for the dearest exchange that there can be, and local rounds come out of the rest.
"""

from dataclasses import replace
from math import isfinite, sqrt

from node.radio import Radio
from node.train import Trained
from protocol.config import Experiment
from protocol.messages import Averaged, Prospect
from protocol.reserve import Exchange, num_ahead, num_relied_on
from protocol.scalars import Scalars
from protocol.theory.bounds import Coefficients, coefficients
from protocol.theory.caps import Budget, RoundCosts, affordable
from protocol.theory.online import NO_DRIFT, Outlook, decide

MARGIN = 1.645
"""Standard deviations reserved above the mean cost of an exchange: its 95th percentile, if normal."""


class Running:
    """Mean and deviation of what was seen, beginning with what was expected (Welford's recurrence).

    A link that carries nothing lets expect infinite costs: that says nothing of what will be spent.
    """

    def __init__(self, expected: float) -> None:
        self.mean, self._number = (expected, 1) if isfinite(expected) else (0.0, 0)
        self._squares = 0.0

    def see(self, value: float) -> None:
        """Take in one more."""
        before = self.mean
        self._number += 1
        self.mean += (value - before) / self._number
        self._squares += (value - before) * (value - self.mean)

    def reserve(self, rounds: int) -> float:
        """Mean per round of what that many rounds will take together, MARGIN standard deviations above it."""
        return self.mean + MARGIN * sqrt(self._squares / max(self._number - 1, 1) / max(rounds, 1))


class Planner:
    """One device's plan for its next round, and what it has learned of the costs of an exchange."""

    def __init__(self, experiment: Experiment, radio: Radio, prospect: Prospect) -> None:
        self._experiment = experiment
        self._radio = radio
        self._adaptive = experiment.training.local_rounds == "adaptive"
        self._exchange_j = Running(prospect.exchange_j)
        # Without scalars on the exchange nobody can tell waiting from exchanging, nor has to.
        waiting_air_s = prospect.waiting_air_s if self._adaptive else 0.0
        self._waiting_air_s = Running(waiting_air_s)
        self._exchange_air_s = Running(prospect.exchange_air_s + prospect.waiting_air_s - waiting_air_s)
        self._wanted = prospect.local_rounds
        self._constants = experiment.theory.constants
        self._loss: float | None = None
        self._began = (0.0, 0.0)
        self._num, self._mean = prospect.local_rounds, prospect.mean_local_rounds
        self.why_leaves = ""
        """Why the round that goes on is this device's last one before the end; empty as long as it is not."""

    @property
    def local_rounds(self) -> tuple[int, float]:
        """Of this round: its own, 0 if it only relays, and the harmonic mean of those who train, if known."""
        return self._num, self._mean

    @property
    def relays(self) -> bool:
        """Whether this device trains no more than to pass on what others learned, and is in no mean."""
        return self._num == 0 and self._experiment.training.local_rounds != 0

    def begin_round(self, round_: int, exchange_at_most_j: float) -> bool:
        """Settle the local rounds of this round: as announced, where that leaves enough for its exchange.

        And for all that a schedule has in store, since who leaves on the way breaks it for all others. What
        it would wait now for slower devices takes no more seconds if it trains. False if not even the
        exchange can be paid for.
        """
        self.why_leaves = self._why_short(1, exchange_at_most_j)
        experiment, left, costs = self._experiment, self._left(), self._round_costs(1)
        number = num_relied_on(experiment.aggregation, round_, num_rounds=experiment.rounds)
        needed = self._exchange(exchange_at_most_j, number).reserve(number)
        self._num = min(
            self._wanted,
            affordable(left.energy_j, needed.energy_j, each=costs.local_j),
            affordable(left.air_s, needed.air_s - self._waiting_air_s.mean, each=costs.local_air_s),
        )
        return not self.why_leaves

    def cpu_hz(self, round_: int) -> float:
        """Return the processor frequency of this round's training."""
        share_s = self._left().air_s / (self._experiment.rounds - round_)
        return self._radio.hardware.training_hz(
            self._experiment.device,
            num_local_rounds=self._num,
            air_s=share_s - self._exchange_air_s.reserve(1),
        )

    def announce(self, round_: int, trained: Trained | None, exchange_at_most_j: float) -> Scalars:
        """Decide the next round's local rounds, and return what the others shall know before it."""
        self._began = self._radio.spent_j, self._radio.air_s
        if self._adaptive:
            self._wanted = self._decide(round_ + 1, exchange_at_most_j)
        loss = trained.loss if trained and trained.loss is not None else self._loss
        if not self._wanted or loss is None:  # who does not train next is in no mean
            return Scalars(ready_air_s=self._radio.air_s)
        return Scalars(
            devices=1.0, inverse_local_rounds=1 / self._wanted, loss=loss, ready_air_s=self._radio.air_s
        )

    def learn(self, heard: Scalars) -> None:
        """Take in what the others have announced, and what the exchange has cost."""
        before_j, before_air_s = self._began
        self._exchange_j.see(self._radio.spent_j - before_j)
        ready_air_s = min(max(heard.ready_air_s, before_air_s), self._radio.air_s)
        self._waiting_air_s.see(ready_air_s - before_air_s)
        self._exchange_air_s.see(self._radio.air_s - ready_air_s)
        self._mean = 1 / heard.inverse_local_rounds if heard.inverse_local_rounds else 0.0
        if heard.devices > 0:
            self._loss = heard.loss
        self.why_leaves = self.why_leaves or self._why_cut()

    def can_go_on_after(self, round_: int, exchange_at_most_j: float) -> bool:
        """Say, before the exchange of a round, whether this device can take part in those that follow it.

        Where a schedule is due after it, it must be good for all of its rounds.
        """
        aggregation, num_rounds, following = self._experiment.aggregation, self._experiment.rounds, round_ + 1
        if following < num_rounds:
            ahead = num_ahead(aggregation, following, num_rounds=num_rounds)
            self.why_leaves = self._why_short(1 + ahead, exchange_at_most_j)
        return not self.why_leaves

    def sweeps(self, averaged: Averaged | None, gossip_at_most_j: float) -> int:
        """Return how often to gossip now: not after a schedule has averaged, nor where it cannot be paid."""
        if averaged is not None:
            if not averaged.broken:
                return 0
            short = self._why_cut() if self._radio.is_cut else self._why_short(1, gossip_at_most_j)
            self.why_leaves = self.why_leaves or short
            if short:
                return 0
        return self._experiment.aggregation.sweeps

    def _why_short(self, number: int, exchange_at_most_j: float) -> str:
        """Say why it cannot pay for so many exchanges; empty if it can."""
        left, own = self._left(), self._radio.hardware
        needed = self._exchange(exchange_at_most_j, number).reserve(number)
        exchanges = "an exchange" if number == 1 else f"{number} exchanges"
        if left.energy_j < needed.energy_j:
            return (
                f"of its {own.budget_j:g} J {left.energy_j:.3g} J are left, and {exchanges} may take "
                f"{needed.energy_j:.3g} J"
            )
        if left.air_s < needed.air_s:
            return (
                f"of its {own.budget_air_s:g} s {left.air_s:.3g} s are left, and {exchanges} may take "
                f"{needed.air_s:.3g} s"
            )
        return ""

    def _why_cut(self) -> str:
        """Say why this round has become this device's last one; empty if it has not."""
        radio, own = self._radio, self._radio.hardware
        if not radio.is_cut and radio.air_s < radio.until_air_s:
            return ""
        what = f"{own.budget_air_s:g} s" if radio.until_air_s == own.budget_air_s else f"{own.budget_j:g} J"
        return f"its {what} were at an end at {radio.until_air_s:.6g} s, amid an exchange"

    def _decide(self, round_: int, exchange_at_most_j: float) -> int:
        """Return the local rounds of a round to come, with this round's exchange still to be paid for."""
        rounds_left = self._experiment.rounds - round_
        if not rounds_left:
            return 0
        left, costs = self._left(), self._round_costs(rounds_left)
        kept_back_j = self._exchange(exchange_at_most_j, 1).kept_back_j
        return decide(
            Outlook(
                left=Budget(
                    energy_j=left.energy_j - costs.aggregation_j - kept_back_j,
                    air_s=left.air_s - self._taken_air_s(rounds_left),
                ),
                rounds_left=rounds_left,
                costs=costs,
                coefficients=self._coefficients(),
            )
        ).num_local_rounds

    def _exchange(self, at_most_j: float, number: int) -> Exchange:
        """Return what each of so many exchanges takes, if the dearest costs that much without idling."""
        return Exchange(
            at_most_j=at_most_j + self._radio.hardware.idle_power_w * self._taken_air_s(1),
            usual_j=self._exchange_j.mean,
            usual_air_s=self._taken_air_s(number),
        )

    def _taken_air_s(self, rounds: int) -> float:
        """Return what each of so many exchanges takes, waiting for slower devices included."""
        return self._exchange_air_s.reserve(rounds) + self._waiting_air_s.reserve(rounds)

    def _left(self) -> Budget:
        own = self._radio.hardware
        return Budget(energy_j=own.budget_j - self._radio.spent_j, air_s=own.budget_air_s - self._radio.air_s)

    def _round_costs(self, rounds: int) -> RoundCosts:
        own = self._radio.hardware
        return RoundCosts(
            local_j=own.local_round_j + own.idle_power_w * own.local_round_air_s,
            local_air_s=own.local_round_air_s,
            aggregation_j=self._exchange_j.reserve(rounds),
            aggregation_air_s=self._exchange_air_s.reserve(rounds),
        )

    def _coefficients(self) -> Coefficients:
        """Return the bound's coefficients from here on: the gap to close is what is left of the mean loss."""
        constants, training = self._constants, self._experiment.training
        if constants is None:
            return NO_DRIFT
        if self._loss is not None:
            gap = max(self._loss - self._experiment.theory.loss_floor, 0.0)
            constants = replace(constants, initial_gap=gap)
        return coefficients(
            constants,
            learning_rate=training.learning_rate / (1 - training.momentum),
            num_devices=self._experiment.devices,
        )
