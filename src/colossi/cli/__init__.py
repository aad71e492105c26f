"""
The command line: one command for each verb. It parses, calls one function and prints.

Every heavy import stands inside the command that needs it, so that `colossi --help` answers at once.
"""

import sys

from typer.models import CommandInfo

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

# As `colossi --help` shows them: in the order of a machine's life.
ORDER = (
    *("design", "schedule", "check", "status", "info", "forecast", "plan", "trace", "calibrate"),
    *("simulate", "torture", "train", "launch", "evaluate", "report", "dashboard", "chat", "serve", "export"),
)


def _place(command: CommandInfo) -> int:
    """Of a command that has the name of its function, if it has no other."""
    assert command.callback is not None
    return ORDER.index(command.name or command.callback.__name__)


app.registered_commands.sort(key=_place)


def main() -> None:
    """Run a command; our errors become a line and a hint, anything else is a bug with its traceback."""
    try:
        app()
    except ColossiError as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
