"""What a device exchanges with others, for as long as the run lasts: who waits for what, and how long.

What is sent and what becomes of what arrives is up to the scheme: digital gossip, or an analog sum.
"""

from time import monotonic

import torch

from node.analog import Analog
from node.control import SLICE_WALL_S, Control
from node.digital import Digital
from node.gossip import Gossip
from node.mixing import Arrived
from node.peers import Peers
from node.radio import Radio
from node.scheme import Scheme, Sent
from node.stopwatch import Stopwatch
from node.transport.zmq import ZmqTransport
from protocol.access import num_blocks
from protocol.codec import Layout
from protocol.messages import Start, Welcome


class Exchanges:
    """One device's way to its neighbours."""

    def __init__(
        self, welcome: Welcome, start: Start, transport: ZmqTransport, layout: Layout, x: torch.Tensor
    ) -> None:
        experiment = welcome.experiment
        self._liveness_wall_s = experiment.runtime.liveness_wall_s
        self._arrived = Arrived(layout)
        self.radio = Radio(experiment, start, layout, welcome.device)
        analog = experiment.radio.scheme == "analog"
        if analog:
            sizes = Analog.payload_bytes(layout, num_blocks(experiment.radio, layout))
        else:
            sizes = Gossip.payload_bytes(layout)
        self.peers = Peers(welcome, start.neighbours, transport, layout, sizes)
        self._scheme: Scheme = (
            Analog(self.peers, self.radio, layout, self._arrived, x)
            if analog
            else Gossip(self.peers, self.radio, Digital(self.peers, self.radio), layout, self._arrived)
        )

    def encode(self, x: torch.Tensor, round_: int, sweep: int = 0) -> Sent:
        """Turn the parameters x, shape (num_values,), into what goes on the air."""
        return self._scheme.encode(x, round_, sweep)

    def exchange(
        self, sent: Sent, round_: int, control: Control, watch: Stopwatch, *, sweep: int = 0
    ) -> Arrived:
        """Send to every neighbour and hear every neighbour; return (s, m) of what arrived in time.

        Waits at most `runtime.liveness_wall_s` for whoever is neither dead nor silent. Raises Leave
        when the coordinator says so, or is away for longer than the grace.
        """
        scheme, peers = self._scheme, self.peers
        scheme.begin(sent, round_, sweep)
        peers.heed(control)
        watch.lap("send")
        next_look = monotonic() + SLICE_WALL_S
        deadline = monotonic() + self._liveness_wall_s
        # Whoever was silent may be back: its frames count though nobody waits for them.
        while monotonic() < deadline and peers.receive(0):
            pass
        while not scheme.advance(watch):
            received = peers.receive(min(deadline - monotonic(), SLICE_WALL_S))
            watch.lap("wait")
            now = monotonic()
            if not received or now >= next_look:  # however much arrives, the coordinator is heard
                peers.heed(control)
                next_look = now + SLICE_WALL_S
            if now >= deadline:
                peers.inbox.silence()
        self.radio.pass_to(scheme.end())
        return self._arrived

    def is_behind(self, round_: int) -> bool:
        """Say whether a living neighbour has gone beyond this round, so that there is no time to train."""
        return self.peers.inbox.is_behind(round_)
