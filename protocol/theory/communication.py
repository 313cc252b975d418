"""Communication complexity of digital gossip: how many rounds and bits until B2 reaches a target.

Derived for this project from the model of Yan and Li, arXiv 2308.06496. An upper bound, used to rank choices.
"""

from math import ceil, sqrt
from typing import NamedTuple

from protocol.theory.bounds import drift_power, largest_gossip_learning_rate
from protocol.theory.constants import Constants


class Complexity(NamedTuple):
    """A learning rate, and the rounds after which B2 is at most the target."""

    learning_rate: float
    num_rounds: int


def communication_complexity(
    constants: Constants, *, num_devices: int, num_local_rounds: int, consensus_rate: float, target: float
) -> Complexity:
    """Return eta and K_eps: noise and disagreement take a quarter of the target each, the gap one half.

    eta = min(delta / (4 sqrt(10) L tau), N eps / (4 L sigma^2),
              delta sqrt(eps) / (L sqrt(320 tau^2 zeta^2 + 160 tau sigma^2)))
    K_eps = 4 Delta / (eps eta tau)
    """
    L, tau = constants.smoothness, num_local_rounds
    learning_rate = largest_gossip_learning_rate(
        constants, num_local_rounds=tau, consensus_rate=consensus_rate
    )
    if constants.gradient_variance > 0:
        learning_rate = min(learning_rate, num_devices * target / (4 * L * constants.gradient_variance))
    drift = drift_power(constants, tau)
    if drift > 0:
        learning_rate = min(learning_rate, consensus_rate * sqrt(target / (4 * drift)) / L)
    return Complexity(learning_rate, max(1, ceil(4 * constants.initial_gap / (target * learning_rate * tau))))


def unicast_bits(num_rounds: int, *, num_sweeps: int, num_edges: int, payload_bits: int) -> int:
    """K q 2 |E| M: every neighbour is sent its own copy."""
    return num_rounds * num_sweeps * 2 * num_edges * payload_bits


def broadcast_bits(num_rounds: int, *, num_sweeps: int, num_devices: int, payload_bits: int) -> int:
    """K q N M: one transmission serves all neighbours."""
    return num_rounds * num_sweeps * num_devices * payload_bits
