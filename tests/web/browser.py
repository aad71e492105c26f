"""A real Chromium, and a dashboard for it to look at, in a process of its own."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CHROMIUM = Path("/usr/bin/chromium")
SWITCHES = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 60_000  # [ms] for what should take one second


def need_chromium() -> None:
    """Skip where there is none, unless whoever runs the tests says that there must be one."""
    if not CHROMIUM.is_file() and not os.environ.get("COLOSSI_NEEDS_BROWSER"):
        pytest.skip("no Chromium")


@contextmanager
def dashboard_of(*runs: Path) -> Iterator[str]:
    """Its address; it is stopped as a person would."""
    command = [sys.executable, "-m", "colossi.cli", "dashboard", *map(str, runs), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        said = process.stderr.readline()
        try:
            assert said.startswith("http://"), said + process.stderr.read()
            yield said.split()[0]
        finally:
            process.terminate()
            process.wait(30)
