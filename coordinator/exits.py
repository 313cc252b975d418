"""How a command ends that does not go well: one line on stderr, and an exit code that says why."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from protocol.errors import EXIT_BAD_INPUT, EXIT_FAILED, BadInput, HearsayError

EXIT_SIGNAL = 128
"""Added to the number of a signal."""


@contextmanager
def errors_in_one_line() -> Iterator[None]:
    """Turn the project's own exceptions into a line and an exit code."""
    try:
        yield
    except HearsayError as error:
        sys.stderr.write(f"hearsay: {error}\n")
        raise typer.Exit(EXIT_BAD_INPUT if isinstance(error, BadInput) else EXIT_FAILED) from error
