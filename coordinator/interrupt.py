"""Ctrl-C and SIGTERM, counted instead of thrown, so that an end is never in the middle of something."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager


class Interrupt:
    """How often the user asked for an end: the first asks for an orderly one, the second for one at once."""

    def __init__(self) -> None:
        self.count = 0
        self.number = signal.SIGINT

    @classmethod
    @contextmanager
    def caught(cls) -> "Iterator[Interrupt]":
        """Catch the signals for as long as a run lasts."""
        interrupt = cls()

        def count(number: int, _frame: object) -> None:
            interrupt.count += 1
            interrupt.number = signal.Signals(number)

        before = {number: signal.signal(number, count) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield interrupt
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
