"""The theory part of a plan: agreement always, bounds where the constants of the task are known."""

from pydantic import BaseModel, ConfigDict

from coordinator.planning.bounds import plan_agreement, plan_bounds
from coordinator.planning.findings import Agreement, PlannedBounds
from coordinator.planning.scheme import DigitalOrAnalog, plan_scheme
from coordinator.planning.setting import Setting
from protocol.packet_errors import PacketErrorTable
from protocol.problem import Theory


class KnownConstants(BaseModel):
    """The constants that the bounds were worked out with, and where they are from."""

    model_config = ConfigDict(frozen=True)

    source: str
    smoothness: float | None
    gradient_variance: float | None
    heterogeneity: float | None
    initial_gap: float | None
    target: float | None
    missing: tuple[str, ...]
    """Keys of [theory] that nobody has given."""


class PlannedTheory(BaseModel):
    """What theory says of a run."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    constants: KnownConstants
    agreement: Agreement
    bounds: PlannedBounds | None
    """None where constants are missing, or training is none that the bounds are about."""
    digital_or_analog: DigitalOrAnalog | None
    unknown: str
    """Why something is missing; empty where nothing is."""


KEYS = ("smoothness", "gradient_variance", "heterogeneity", "initial_gap")
HOW = "set them in [theory], or let them be measured: --pilot K, or --from RUN_DIR"


def plan_theory(setting: Setting, tables: tuple[PacketErrorTable, ...], *, source: str) -> PlannedTheory:
    """Work out what the bounds say, as far as constants are known."""
    theory, training = setting.experiment.theory, setting.experiment.training
    constants = theory.constants
    unknown = ""
    if training.optimiser != "sgd":
        constants, unknown = None, f"the bounds are about SGD, and training.optimiser = {training.optimiser}"
    elif training.local_rounds == 0:
        constants, unknown = None, "training.local_rounds = 0: nobody learns"
    elif constants is None:
        unknown = f"needs {_list(_missing(theory))}: {HOW}"
    elif theory.target is None:
        unknown = "needs theory.target, the squared gradient norm to get down to, for rounds and bits"
    both = setting.plan.event.scheme == "gossip" and constants is not None
    return PlannedTheory(
        constants=KnownConstants(
            source=source,
            smoothness=theory.smoothness,
            gradient_variance=theory.gradient_variance,
            heterogeneity=theory.heterogeneity,
            initial_gap=theory.initial_gap,
            target=theory.target,
            missing=_missing(theory),
        ),
        agreement=plan_agreement(setting.experiment, setting.network, setting.epochs),
        bounds=None if constants is None else plan_bounds(setting, constants),
        digital_or_analog=plan_scheme(setting, constants, tables) if both and constants else None,
        unknown=unknown,
    )


def _missing(theory: Theory) -> tuple[str, ...]:
    values = (theory.smoothness, theory.gradient_variance, theory.heterogeneity, theory.initial_gap)
    return tuple(f"theory.{key}" for key, value in zip(KEYS, values, strict=True) if value is None)


def _list(keys: tuple[str, ...]) -> str:
    return keys[0] if len(keys) == 1 else ", ".join(keys[:-1]) + f" and {keys[-1]}"
