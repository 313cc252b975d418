"""Slots: a colouring of the devices in which nobody shares a colour within two hops."""

import networkx as nx

from coordinator.topology import DeviceGraph


def distance_two_colouring(graph: DeviceGraph) -> tuple[int, ...]:
    """Colour each device, 0 to n - 1, so that devices at most two hops apart differ; few colours, greedily.

    A device then never hears two senders of one colour, and never sends while a neighbour does
    (half-duplex). Colours of the square of the graph, by networkx, largest degree first.
    """
    if not graph:
        return ()
    if (
        max(dict(graph.degree).values()) == len(graph) - 1
    ):  # somebody joins all: every two are within two hops
        return tuple(range(len(graph)))
    square: DeviceGraph = nx.Graph()
    square.add_nodes_from(graph)
    for device in graph:
        around = [device, *graph[device]]
        square.add_edges_from((a, b) for i, a in enumerate(around) for b in around[:i])
    colours = nx.greedy_color(square, strategy="largest_first")
    return tuple(colours[device] for device in range(len(graph)))
