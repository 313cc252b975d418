"""`python -m node --coordinator URL` is a device; its other options print what a run of FILE would have."""

import argparse
import signal
import sys
import threading
from pathlib import Path

from pydantic import TypeAdapter

from node.control import Leave
from protocol.config import Experiment
from protocol.errors import EXIT_BAD_INPUT, EXIT_FAILED, BadInput, HearsayError, RunError
from protocol.experiment_file import load
from protocol.packet_errors import PacketErrorTable

EXIT_LEFT = 3
"""Left before the start: terminated, told to stop, or without a coordinator for too long."""
EXIT_SIGNAL = 128


def main(arguments: list[str] | None = None) -> int:
    """Run one device, or print what an experiment's model, data or radio come to; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m node", description="One device of a Hearsay run.")
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--coordinator", metavar="URL", help="be a device; everything else is told at the door")
    what.add_argument("--describe", metavar="FILE", type=Path, help="print model and data of FILE as JSON")
    what.add_argument(
        "--packet-errors", metavar="FILE", type=Path, help="print packet-error tables of FILE as a JSON array"
    )
    what.add_argument(
        "--fetch", metavar="FILE", type=Path, help="download and unpack the data of FILE, if it is not there"
    )
    what.add_argument(
        "--survey", metavar="FILE", type=Path, help="print what a device of FILE would find here, as JSON"
    )
    parser.add_argument(
        "--connect-wall-s",
        type=float,
        default=30.0,
        metavar="S",
        help="how long to wait for the coordinator (default: %(default)g)",
    )
    parser.add_argument(
        "--device",
        type=int,
        metavar="N",
        help="be device N of the run, from 0 on (default: any that is free)",
    )
    args = parser.parse_args(arguments)
    try:
        if args.fetch is not None:
            return _fetch(load(args.fetch))
        if args.describe is not None:
            from node.describe import describe  # torch, which a download does without

            sys.stdout.write(describe(load(args.describe)).model_dump_json() + "\n")
            return 0
        if args.survey is not None:
            return _survey(load(args.survey))
        if args.packet_errors is not None:
            from node.phy import packet_error_tables  # no device of a run needs it

            tables = TypeAdapter(tuple[PacketErrorTable, ...]).dump_json(
                packet_error_tables(load(args.packet_errors))
            )
            sys.stdout.write(tables.decode() + "\n")
            return 0
        from node.host import serve

        if args.device is not None and args.device < 0:
            raise BadInput(f"--device {args.device}: devices are numbered from 0 on")
        return serve(args.coordinator, args.connect_wall_s, _until_terminated(), device=args.device)
    except HearsayError as error:
        sys.stderr.write(f"node: {error}\n")
        if isinstance(error, BadInput):
            return EXIT_BAD_INPUT
        return EXIT_LEFT if isinstance(error, Leave) else EXIT_FAILED


def _fetch(experiment: Experiment) -> int:
    """Have the files of a data set that consists of files, and say what was found; leave no half of one."""
    if not experiment.data.is_files:
        return 0
    from node.images.catalogue import IMAGE_SETS
    from node.images.fetch import fetch

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.stderr.write(f"node: {fetch(IMAGE_SETS[experiment.data.dataset])}\n")
    except KeyboardInterrupt:
        sys.stderr.write("node: interrupted; no half file was kept\n")
        return EXIT_SIGNAL + signal.SIGINT
    return 0


def _survey(experiment: Experiment) -> int:
    """Print what a device would find here; a torch that cannot be loaded is a finding, too."""
    try:
        from node.survey import survey
    except (ImportError, OSError) as error:  # OSError: a library that torch needs
        raise RunError(f"torch or what it needs cannot be loaded ({error})") from error
    sys.stdout.write(survey(experiment).model_dump_json() + "\n")
    return 0


def _until_terminated() -> threading.Event:
    """Return an event that SIGTERM and SIGINT set: the device then writes its parameters and leaves."""
    terminated = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) is not signal.SIG_IGN:  # the local launcher keeps Ctrl-C for itself
            signal.signal(number, lambda *_: terminated.set())
    return terminated


if __name__ == "__main__":
    sys.exit(main())
