"""
The command line: one command for each verb. It parses, calls one function and prints.

Every heavy import stands inside the command that needs it, so that `colossi --help` answers at once.
"""

import sys

from colossi.cli import (
    building,
    checking,
    designing,
    exporting,
    planning,
    running,
    serving,
    simulating,
    watching,
)
from colossi.cli.app import app
from colossi.errors import ColossiError

__all__ = [
    "app",
    "building",
    "checking",
    "designing",
    "exporting",
    "main",
    "planning",
    "running",
    "serving",
    "simulating",
    "watching",
]


def main() -> None:
    """Run a command; our errors become a line and a hint, anything else is a bug with its traceback."""
    try:
        app()
    except ColossiError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
