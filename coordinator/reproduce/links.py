"""Links of a wanted quality: the SNR at which packets arrive in both directions with a given probability."""

import numpy as np
from scipy.optimize import brentq

from protocol.air import frame_layout
from protocol.config import Experiment
from protocol.fading import equally_likely_gains
from protocol.link import packet_loss_probability

CLEAN_DB = 60.0
"""Mean SNR of links that lose next to nothing."""
_LOWEST_DB = -30.0
_MANY_VALUES = 100_000  # of a frame whose first packet is a full one


def joint_success(experiment: Experiment, snr_db: float) -> float:
    """Return the probability that a packet arrives there and back: E[(1 - loss(g))^2] over the fade g.

    Both directions have the same fade, and noise of their own. It is what a link with symmetric losses
    mixes with.
    """
    radio = experiment.radio
    bits = int(frame_layout(experiment, _MANY_VALUES).packet_bits[0])
    snr = 10 ** (snr_db / 10) * equally_likely_gains(radio.fade)
    return float(np.mean((1 - packet_loss_probability(radio, radio.modulation, snr, bits)) ** 2))


def snr_db_for(experiment: Experiment, success: float) -> float:
    """Return the mean SNR [dB] with a joint success probability in (0, 1]; for 1, one of a clean link."""
    assert 0 < success <= 1
    if success == 1:
        return CLEAN_DB
    found: float = brentq(
        lambda snr_db: joint_success(experiment, snr_db) - success, _LOWEST_DB, CLEAN_DB, xtol=1e-6
    )
    return found
