"""A process and the devices in it: one, or with the memory transport all of a run, a thread each."""

import os
import threading
import traceback
from concurrent.futures import Future, ThreadPoolExecutor

import zmq

from node.agent import take_part
from node.control import Control, Leave
from node.place import NOWHERE, Place, ranked
from node.transport.zmq import Context
from protocol.errors import EXIT_FAILED, BadInput, HearsayError
from protocol.messages import Failed, Welcome


def serve(url: str, connect_wall_s: float, terminated: threading.Event, *, device: int | None = None) -> int:
    """Join the run at url with as many devices as its transport puts into one process; return the exit code.

    device: the number that a process of a single device wants to have; None: any. Raises BadInput if there is
    no coordinator at url, or it does not take this process.
    """
    context = zmq.Context()
    context.set(zmq.MAX_SOCKETS, context.get(zmq.SOCKET_LIMIT))  # all devices of a run may live here
    with context, Control.open(context, url, terminated) as control:
        among = ranked(os.environ)
        welcome = control.join(connect_wall_s, among, device=device)
        if welcome.experiment.transport.kind != "memory":
            return _be_device(control, welcome, context, Place(control.own_address(), among))
        # The interpreter lock is shared, so this is for debugging a run, not for timing it.
        others = welcome.experiment.devices - 1
        with ThreadPoolExecutor(max(1, others), thread_name_prefix="device") as pool:
            joined: list[Future[int]] = [
                pool.submit(_join_and_be_device, context, url, connect_wall_s, terminated)
                for _ in range(others)
            ]
            codes = [_be_device(control, welcome, context, NOWHERE)]
            return max(codes + [future.result() for future in joined])


def _join_and_be_device(
    context: Context, url: str, connect_wall_s: float, terminated: threading.Event
) -> int:
    with Control.open(context, url, terminated) as control:
        welcome = control.join(connect_wall_s)
        return _be_device(control, welcome, context, NOWHERE)


def _be_device(control: Control, welcome: Welcome, context: Context, place: Place) -> int:
    """Take part, and tell the coordinator the reason if that cannot go on."""
    try:
        take_part(control, welcome, context, place)
    except Leave:
        raise
    except HearsayError as error:
        control.send(Failed(reason=str(error), bad_input=isinstance(error, BadInput)))
        raise
    except Exception as error:  # noqa: BLE001  # the last stop: whatever it was, it is told and the process ends
        traceback.print_exc()
        control.send(Failed(reason=f"{type(error).__name__}: {error}"))
        return EXIT_FAILED
    return 0
