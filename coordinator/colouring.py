"""Slots: a colouring of the devices in which nobody shares a colour within two hops."""

import networkx as nx
import numpy as np
from scipy.sparse import eye_array

from coordinator.topology import DeviceGraph


def distance_two_colouring(graph: DeviceGraph) -> tuple[int, ...]:
    """Colour each device, 0 to n - 1, so that devices at most two hops apart differ; few colours, greedily.

    A device then never hears two senders of one colour, and never sends while a neighbour does
    (half-duplex). Colours of the square of the graph, by networkx, largest degree first.
    """
    num_devices = len(graph)
    devices = range(num_devices)
    if not num_devices:
        return ()
    near = nx.to_scipy_sparse_array(graph, nodelist=devices, weight=None, dtype=np.dtype(np.int32))
    near = near + eye_array(num_devices, dtype=np.int32, format="csr")
    within_two_hops = near @ near
    if within_two_hops.nnz == num_devices**2:  # a dense graph: nobody can share, and its square is large
        return tuple(devices)
    within_two_hops.setdiag(0)
    within_two_hops.eliminate_zeros()
    colours = nx.greedy_color(nx.from_scipy_sparse_array(within_two_hops), strategy="largest_first")
    return tuple(colours[device] for device in devices)
