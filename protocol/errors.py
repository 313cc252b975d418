"""The project's own exceptions.

HearsayError
 +-- BadInput      what the user gave cannot be used: one line, exit code 2
 +-- FrameError    bytes from the wire that are no frame of ours: counted and dropped
 +-- RunError      a run could not be started or went wrong: one line, exit code 1
 +-- Interrupted   the user ended a run before it began: nothing is kept
 +-- Leave         (node/control.py) a device breaks off its round and goes
"""

EXIT_FAILED = 1
EXIT_BAD_INPUT = 2


class HearsayError(Exception):
    """Root of everything this project raises on purpose."""


class BadInput(HearsayError):
    """What the user gave cannot be used; the message says what, where, and what would be right."""


class FrameError(HearsayError):
    """Bytes from the wire that are not a frame of this run."""


class RunError(HearsayError):
    """A run could not be started or could not go on."""


class Interrupted(HearsayError):
    """The user ended a run before it began."""
