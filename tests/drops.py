"""Random places and links for tests of the planner."""

import numpy as np

from coordinator.schedule.costs import LinkCosts

MODEL_BITS = 32 * 21_840
TX_POWER_W = 0.1
BANDWIDTH_HZ = 1e6
NOISE_W = 10 ** (-20.4) * BANDWIDTH_HZ
"""-174 dBm/Hz over the bandwidth."""


def drop(rng, num_devices, *, area_m=500.0, rayleigh=False, access="parallel", power_controlled=False):
    """Draw devices in a square, and links at the Shannon rate, of 20 dBm over 1 MHz with 3GPP path loss.

    power_controlled: instead of the rate, the transmit power follows the gain, to 10 bit/s/Hz.
    """
    n = num_devices
    places_m = rng.uniform(0, area_m, (n, 2))
    distance_m = np.maximum(np.linalg.norm(places_m[:, None] - places_m, axis=2), 1.0)
    gain = 10 ** (-(128.1 + 37.6 * np.log10(distance_m / 1000)) / 10)
    if rayleigh:
        fade = np.triu(rng.exponential(size=(n, n)), 1)
        gain = gain * (fade + fade.T + np.eye(n))
    if power_controlled:
        air_s = np.full((n, n), MODEL_BITS / (10 * BANDWIDTH_HZ))
        tx_j = air_s * (2**10 - 1) * NOISE_W / gain
    else:
        air_s = MODEL_BITS / (BANDWIDTH_HZ * np.log2(1 + TX_POWER_W * gain / NOISE_W))
        tx_j = TX_POWER_W * air_s
    for matrix in (tx_j, air_s):
        np.fill_diagonal(matrix, np.inf)
    return LinkCosts(tx_j, np.zeros((n, n)), air_s, access)


def uneven_links(rng, num_devices, *, density=1.0, access="parallel"):
    """Draw links whose joules and seconds follow no law, differ by direction, and exist at random."""
    shape = (num_devices, num_devices)
    missing = np.triu(rng.random(shape) > density, 1)
    missing = missing | missing.T | np.eye(num_devices, dtype=bool)
    tx_j, rx_j, air_s = (np.where(missing, np.inf, rng.uniform(0.1, 1.0, shape)) for _ in range(3))
    return LinkCosts(tx_j, rx_j, air_s, access)
