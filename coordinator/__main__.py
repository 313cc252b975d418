"""The `hearsay` console script.

Every forked device imports this file again (multiprocessing re-imports the main module), so it
imports nothing before it is called.
"""

import sys


def main() -> None:
    """Run the command line."""
    from coordinator.cli import app

    sys.exit(app())


if __name__ == "__main__":
    main()
