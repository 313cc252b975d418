"""Digital or analog: what either makes of the time that this run has, by their bounds."""

from math import inf, isfinite
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from coordinator.network import lay_out
from coordinator.planning.bounds import noise_per_norm_sq
from coordinator.planning.setting import Setting
from coordinator.schedule.epochs import Epochs
from coordinator.schedule.prices import Prices
from protocol.air import frame_layout
from protocol.config import Experiment
from protocol.errors import BadInput
from protocol.hardware import fleet
from protocol.packet_errors import PacketErrorTable
from protocol.theory.bounds import noise_gain
from protocol.theory.constants import Constants
from protocol.theory.contraction import consensus_rate
from protocol.theory.scheme import Candidate, Forecast, forecast

Scheme = Literal["digital", "analog"]


class DigitalOrAnalog(BaseModel):
    """Both forecasts for the same seconds, and the noise of receivers up to which analog is better."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    air_s: float
    """What there is, or what this run would take."""
    digital_rounds: int
    digital_bound: float
    """B2 after these rounds; inf where it says nothing."""
    analog_rounds: int
    analog_bound: float
    """B3 without noise."""
    noise_power_at_most: float
    """nu^2 of a round up to which B3 is the lower one; 0: digital is better in any case."""
    norm_sq_at_most: float
    """The same as a squared norm of what is sent, at mean SNRs."""


def plan_scheme(
    setting: Setting, constants: Constants, tables: tuple[PacketErrorTable, ...]
) -> DigitalOrAnalog | None:
    """Compare the two ways to gossip; None where one of them cannot be had, or neither bound holds."""
    training, sweeps = setting.training, setting.experiment.aggregation.sweeps
    budget_s = min(own.budget_air_s for own in fleet(setting.experiment))
    budget_s = budget_s if isfinite(budget_s) else setting.run.air_s
    busy_s = training.num_local_rounds * max(own.local_round_air_s for own in fleet(setting.experiment))
    forecasts: dict[Scheme, Forecast] = {}
    per_norm_sq = 0.0
    for scheme in ("digital", "analog"):
        other = _variant(setting.experiment, scheme, local_rounds=training.num_local_rounds)
        if other is None:
            return None
        try:
            network = lay_out(other, tables if scheme == "digital" else ())
        except BadInput:
            return None
        layout = frame_layout(other, setting.num_values)
        epochs = Epochs(other, network, Prices(other, layout, network, tables))
        if scheme == "analog":
            per_norm_sq = noise_per_norm_sq(other, network)
        forecasts[scheme] = forecast(
            constants,
            training,
            Candidate(
                scheme=scheme,
                consensus_rate=consensus_rate(epochs.contraction(), num_sweeps=sweeps),
                round_cost=busy_s + epochs.first().event.air_s,
            ),
            budget=budget_s,
        )
    digital, analog = forecasts["digital"], forecasts["analog"]
    if digital.bound == analog.bound == inf:
        return None
    noise_power = 0.0
    if analog.bound < digital.bound:
        gain = noise_gain(constants, training, consensus_rate=analog.candidate.consensus_rate)
        noise_power = (digital.bound - analog.bound) / gain
    return DigitalOrAnalog(
        air_s=budget_s,
        digital_rounds=digital.num_rounds,
        digital_bound=digital.bound,
        analog_rounds=analog.num_rounds,
        analog_bound=analog.bound,
        noise_power_at_most=noise_power,
        norm_sq_at_most=noise_power / per_norm_sq,
    )


def _variant(experiment: Experiment, scheme: Scheme, *, local_rounds: int) -> Experiment | None:
    """Return the experiment with gossip over this radio; None if there is no such one."""
    table = experiment.model_dump()
    table["radio"]["scheme"] = scheme
    table["aggregation"]["scheme"] = "gossip"
    table["training"]["local_rounds"] = local_rounds
    if scheme == "analog":
        table["codec"]["kind"] = "float32"
    try:
        return Experiment.model_validate(table)
    except ValidationError:
        return None
