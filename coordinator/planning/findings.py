"""What a plan says of the theory: numbers with their meaning."""

from pydantic import BaseModel, ConfigDict


class Agreement(BaseModel):
    """How fast gossip over these links agrees, and how often their packets count."""

    model_config = ConfigDict(frozen=True)

    contraction: float
    """rho: of the squared distance from consensus, by one sweep."""
    num_sweeps: int
    consensus_rate: float
    """delta = 1 - rho^q: what the sweeps of a round take off it."""
    success_min: float
    """Least probability of a link that a packet arrives in both directions, repeats included."""
    success_mean: float


class LeastSuccess(BaseModel):
    """The least probability of correct communication with which B2 holds, and meets the target."""

    model_config = ConfigDict(frozen=True)

    consensus_rate_needed: float | None
    """delta_min; None where not even exact averaging meets the target."""
    probability: float | None
    """p_min of all links; None: no probability is enough."""
    is_met: bool
    """Whether these links agree as fast as is needed."""
    links_below: tuple[tuple[int, int], ...]
    """Links that miss p_min."""
    num_sweeps: int | None
    """The least with which these links agree fast enough; None: no number is enough."""
    learning_rate: float | None
    """Without p_min: one with which perfect links would do; None where none is."""


class Complexity(BaseModel):
    """Rounds and bits after which gossip surely meets the target, at the best learning rate for that."""

    model_config = ConfigDict(frozen=True)

    learning_rate: float
    rounds: int
    bits: int
    """Of parameters, all devices together, without headers and repeats."""


class BestSplit(BaseModel):
    """Local rounds and sweeps that make the most of a budget, by B2."""

    model_config = ConfigDict(frozen=True)

    resource: str
    """`joules` of all devices, or `seconds` of the run."""
    budget: float
    """What there is of it, or what this run would take."""
    local_rounds: int
    sweeps: int
    rounds: int


class TolerableNoise(BaseModel):
    """With analog gossip: how much noise of receivers the target bears."""

    model_config = ConfigDict(frozen=True)

    noise_power_sum: float
    """Of all rounds together, mean over devices."""
    noise_per_norm_sq: float
    """nu^2 of one round over the squared norm of what is sent."""
    norm_sq_at_most: float
    """Squared norm of what is sent, in each round, with which that is kept to."""


class PlannedBounds(BaseModel):
    """All that needs the constants of [theory]."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="strings")

    of: str
    """`B1`, exact averaging, or `B2` and `B3`, gossip."""
    local_rounds: int
    """With which the bounds of gossip are worked out: the mean of the first round."""
    value: float | None
    """Bound on the mean squared gradient norm over the run; None where its conditions do not hold."""
    learning_rate: float
    """eta, what momentum adds included."""
    learning_rate_at_most: float
    """With which its conditions hold."""
    violated: tuple[str, ...]
    """Those that do not."""
    rounds_to_target: int | None
    """With this learning rate; None: never, or the bound says nothing."""
    least_success: LeastSuccess
    complexity: Complexity | None
    splits: tuple[BestSplit, ...]
    tolerable_noise: TolerableNoise | None
