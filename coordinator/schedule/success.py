"""How probable it is that a packet counts on a link: that it arrives in both directions.

Fades are the same in both directions, so with p the probability of either, this is nearer to p than to p^2.
"""

import numpy as np

from coordinator.network import Network, full_packet_bits
from coordinator.schedule.costs import Floats
from protocol.config import Experiment
from protocol.fading import equally_likely_gains
from protocol.link import packet_loss_probability
from protocol.modulation import permitted
from protocol.packet_errors import PacketErrorTable

_GRID_DB = np.arange(-60.0, 80.0, 0.05)
"""SNRs at which losses are worked out; between them they are interpolated, beyond them held."""
_NUM_FADES = 500


def joint_success(
    experiment: Experiment, network: Network, tables: tuple[PacketErrorTable, ...] = ()
) -> Floats:
    """Return the probability that a packet arrives in both directions within its attempts, shape (n, n).

    0 where there is no link. Fades that last for rounds are the same for both directions and all attempts,
    and fades that last for packets are others each time.
    """
    n, graph, radio = experiment.devices, network.graph, experiment.radio
    success = np.zeros((n, n))
    edges = np.array(list(graph.edges), dtype=np.intp).reshape(-1, 2)
    a, b = edges.T
    if radio.scheme == "ideal":
        success[a, b] = success[b, a] = 1.0
        return success
    gains = equally_likely_gains(radio.fade)
    gains = gains[_middle(len(gains)) :: max(1, len(gains) // _NUM_FADES)]
    fresh = radio.coherence_packets > 0
    if radio.scheme == "analog":
        heard = float(np.mean(equally_likely_gains(radio.fade) >= radio.analog.gain_threshold))
        success[a, b] = success[b, a] = heard**2 if fresh else heard
        return success
    mean_db = np.array(
        [[link["mean_snr_db"][i], link["mean_snr_db"][j]] for i, j, link in graph.edges(data=True)]
    )
    at_db = mean_db.reshape(-1, 2, 1) + 10 * np.log10(gains)
    loss = np.interp(at_db, _GRID_DB, _losses(experiment, tables))
    if fresh:
        both = np.prod(1 - loss.mean(axis=2) ** radio.attempts, axis=1)
    else:
        both = np.prod(1 - loss**radio.attempts, axis=1).mean(axis=1)
    success[a, b] = success[b, a] = both
    return success


def _middle(number: int) -> int:
    return max(1, number // _NUM_FADES) // 2


def _losses(experiment: Experiment, tables: tuple[PacketErrorTable, ...]) -> Floats:
    """Return the loss of full packets at one attempt on the grid, at the rate that is chosen there."""
    radio, snr = experiment.radio, 10 ** (_GRID_DB / 10)
    by_modulation = {table.modulation: table for table in tables}
    loss, *faster = (
        packet_loss_probability(radio, m, snr, full_packet_bits(experiment), by_modulation.get(m))
        for m in permitted(radio)
    )
    for other in faster:
        loss = np.where(other <= radio.target_packet_loss, other, loss)
    return loss
