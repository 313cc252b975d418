"""Gilbert-Elliott bursts: interference that spoils runs of packets at one receiver.

A two-state Markov chain steps once per packet on the air; in the bad state bits flip with
`radio.burst_ber`. With mean burst length L and share of bad packets q, it leaves the bad state with
probability 1 / L and the good one with q / (L (1 - q)).

Sources: Gilbert, "Capacity of a burst-noise channel", Bell Syst. Tech. J. 39(5), 1960; Elliott,
"Estimates of error rates for codes on burst-noise channels", Bell Syst. Tech. J. 42(5), 1963.
"""

import numpy as np
import numpy.typing as npt

from protocol.radio import Radio


def burst_mask(radio: Radio, num_packets: int, rng: np.random.Generator) -> npt.NDArray[np.bool_]:
    """Say which packets of one transmission lie in a burst, shape (num_packets,); it starts in equilibrium.

    The chain is drawn by its sojourns, which are geometric, so the cost follows the bursts.
    """
    in_burst = np.zeros(num_packets, dtype=np.bool_)
    if not radio.burst_packets:
        return in_burst
    leave_bad = 1 / radio.burst_packets
    # At most 1 by the experiment's check; the largest share may round to a little more.
    leave_good = min(1.0, radio.burst_share / (radio.burst_packets * (1 - radio.burst_share)))
    packet, bad = 0, bool(rng.random() < radio.burst_share)
    while packet < num_packets:
        stay = int(rng.geometric(leave_bad if bad else leave_good))
        if bad:
            in_burst[packet : packet + stay] = True
        packet, bad = packet + stay, not bad
    return in_burst
