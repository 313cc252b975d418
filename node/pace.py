"""The paced clock: modelled seconds that really pass on the host, at a scale."""

from time import monotonic

from node.control import SLICE_WALL_S, Control
from node.door import Keeper
from node.peers import Peers
from protocol.config import Runtime


class Pacer:
    """Holds a device back until the host's clock has reached its modelled one; deadlines are absolute.

    A deadline that the host passed by more than the slack is counted: the run's seconds are then no
    longer those of the model.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._start_s = monotonic()
        self._missed = 0

    def hold(self, air_s: float, peers: Peers[Keeper], control: Control) -> None:
        """Wait until modelled time air_s; hears the coordinator meanwhile, so raises Leave as `heed` does."""
        if self._runtime.clock != "paced":
            return
        deadline = self._start_s + self._runtime.pace * air_s
        if monotonic() > deadline + self._runtime.pace_slack_wall_s:
            self._missed += 1
        while (left_s := deadline - monotonic()) > 0:
            control.wait(min(left_s, SLICE_WALL_S))
            peers.heed(control)

    def missed(self) -> int:
        """Return how many deadlines were missed since the last call."""
        missed, self._missed = self._missed, 0
        return missed
