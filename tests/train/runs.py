"""A tiny run for tests: real worker processes on a real corpus, small enough for a second of training."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from colossi.ledger.events import Event
from colossi.ledger.report import Report, report
from colossi.ledger.run import Run

from .ranks import SIZES

TEXT = "the quick brown fox jumps over the lazy dog and runs away from the {} hounds\n"


def spec_file(
    folder: Path,
    steps: int = 30,
    workers: int = 2,
    every: int = 5,
    nodes: int = 1,
    spares: int = 0,
    **layout: int | str,
) -> Path:
    """A spec beside a small text to train on; `workers` on each node."""
    text = folder / "corpus.txt"
    text.write_text("".join(TEXT.format(number) for number in range(400)))
    lines = [
        'name = "tiny"',
        "[model]",
        *(f"{key} = {value}" for key, value in (SIZES | {"vocabulary": 300}).items()),
        "[data]",
        'tokenizer = "bytes"',
        "[[data.sources]]",
        'kind = "files"',
        f"path = {json.dumps(str(text))}",
        "[training]",
        f"sequence_length = 32\nglobal_batch = 8\nsteps = {steps}",
        'learning_rate = 0.003\noptimizer = "muon"\nseed = 7',
        "[checkpoint]",
        f"every = {every}\nkeep = 3",
        "[cluster]",
        f'nodes = {nodes}\nspares = {spares}\nworkers_per_node = {workers}\ndevice = "cpu"',
        "[layout]",
        *(f"{axis} = {json.dumps(size)}" for axis, size in layout.items()),
    ]
    path = folder / "tiny.toml"
    path.write_text("\n".join(lines) + "\n")
    return path


def colossi(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does."""
    return subprocess.run(
        [sys.executable, "-m", "colossi.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=os.environ | more.pop("env", {}),
        timeout=more.pop("timeout", 120),
        **more,
    )


def start(*arguments: object) -> subprocess.Popen[bytes]:
    """The same, left running in a process group of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "colossi.cli", *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def report_of(folder: Path) -> Report:
    with Run(folder).ledger() as ledger:
        return report(event for _, event in ledger.events())


def kinds_of(folder: Path) -> list[str]:
    with Run(folder).ledger() as ledger:
        return [event.kind for _, event in ledger.events()]


def processes_of(folder: Path) -> list[int]:
    """Process numbers of a run's agents, standbys and workers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            ours = b"colossi.train" in words or b"colossi.engines.agent" in words
            if ours and str(folder).encode() in words:
                found.append(int(entry.name))
    return found


def worker_of(folder: Path, node: str) -> int:
    """Process number of a node's only worker: forked by the standby, which its agent started."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError):
            number = next(n for n in processes_of(folder) if node.encode() in _words(n))
            for _ in ("standby", "worker"):
                number = int(Path(f"/proc/{number}/task/{number}/children").read_text().split()[0])
            return number
        time.sleep(0.02)
    raise AssertionError(f"{node} has no worker")


def _words(process: int) -> list[bytes]:
    return Path(f"/proc/{process}/cmdline").read_bytes().split(b"\0")


def events_of(folder: Path, kind: str) -> list[Event]:
    with Run(folder).ledger() as ledger:
        return [event for _, event in ledger.events(kind)]


def kill_all(process: subprocess.Popen[bytes], run: Path) -> None:
    """SIGKILL to the controller, the agents and every worker, as a power cut would."""
    process.kill()
    process.wait()
    while left := processes_of(run):
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        time.sleep(0.01)


def wait_for_step(run: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    """Until this many steps are done, or the run has ended."""
    deadline = time.monotonic() + 60
    while steps_done(run) < step and process.poll() is None:
        assert time.monotonic() < deadline, f"step {step} not done within a minute"
        time.sleep(0.02)


def steps_done(run: Path) -> int:
    return kinds_of(run).count("step_done") if (run / "ledger.sqlite").exists() else 0
