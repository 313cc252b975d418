"""Noise of analog gossip: how much of it is sent, how much B3 tolerates, and how far to damp it.

Derived for this project from the model of Yan and Li, arXiv 2308.06496. The tolerable noise is a safe
level, not a threshold: where noise dominates, B3 is loose by one to two orders of magnitude.
"""

from math import cbrt, sqrt

import numpy as np

from protocol.theory.bounds import Floats, drift_power, gossip_bound, largest_gossip_learning_rate, noise_gain
from protocol.theory.constants import Constants, Training

_NEWTON_STEPS = 6


def noise_power(weights: Floats, sent_norm_sq: Floats, snr: Floats) -> float:
    """nu_i^2 = max_j W_ij^2 ||s_j||^2 / snr_ij: E||n_i||^2 at a receiver over all that is sent.

    weights: W_ij of the senders that are not silent; sent_norm_sq: ||s_j||^2; snr: P |h_ij|^2 over the
    noise power, linear; all of shape (senders,). 0 without senders. Equation (21) of docs/radio.md.
    """
    return float(np.max(weights**2 * sent_norm_sq / snr, initial=0))


def tolerable_noise(
    constants: Constants, training: Training, *, consensus_rate: float, target: float
) -> float:
    """Return the largest sum of nu_k^2 over all rounds with which B3 meets the target; 0 if B2 misses it.

    sum_k nu_k^2 <= K (target - B2) / (L / (eta tau N) + 20 L^2 / (7 delta))
    """
    left = target - gossip_bound(constants, training, consensus_rate=consensus_rate)
    if left <= 0:
        return 0.0
    return training.num_rounds * left / noise_gain(constants, training, consensus_rate=consensus_rate)


def best_damping(
    constants: Constants, training: Training, *, consensus_rate: float, noise_power: float
) -> float:
    """Return the damping g in (0, 1] of x <- x + g (s - m x) with the least B3.

    It scales the noise power by g^2, and leaves a consensus rate of at least g delta (delta_g is concave in
    g, and 0 at 0; delta that of g = 1), so B3 is at most, up to what does not depend on g,

        A / (g delta)^2 + g^2 nu^2 L / (eta tau N) + (20/7) L^2 nu^2 g / delta
        A = L^2 eta^2 (80 tau^2 zeta^2 + 40 tau sigma^2)

    which is convex. Where the second term dominates, g = (A eta tau N / (delta^2 nu^2 L))^(1/4), where the
    third does, g = (0.7 A / (L^2 nu^2 delta))^(1/3). Not below the g at which B3 begins to hold,
    4 sqrt(10) eta L tau / delta.
    """
    if noise_power == 0:
        return 1.0
    L, eta, tau = constants.smoothness, training.learning_rate, training.num_local_rounds
    lowest = eta / largest_gossip_learning_rate(
        constants, num_local_rounds=tau, consensus_rate=consensus_rate
    )
    A = (L * eta) ** 2 * drift_power(constants, tau)
    mean = noise_power * L / (eta * tau * training.num_devices)
    spread = 20 / 7 * L**2 * noise_power / consensus_rate
    pull = 2 * A / consensus_rate**2
    # 2 mean g^4 + spread g^3 = pull. Either term alone gives a g above the root, the lower of the two by
    # at most a quarter. The left side is convex, so Newton's steps fall to the root and never pass it.
    g = min(sqrt(sqrt(pull / (2 * mean))), cbrt(pull / spread))
    for _ in range(_NEWTON_STEPS if pull > 0 else 0):
        g -= (2 * mean * g**4 + spread * g**3 - pull) / (8 * mean * g**3 + 3 * spread * g**2)
    return min(max(g, lowest), 1.0)
