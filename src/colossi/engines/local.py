"""
The local engine: the workers of a run are processes on this machine.

Starts one process for each rank, follows the ledger for whoever watches, and ends all when one dies. What to
do about a death is not decided here: the run stops with the reason, and the same command resumes it.
"""

import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from colossi.errors import RunError, TrainingFailed
from colossi.ledger.events import Event
from colossi.ledger.run import Run
from colossi.ledger.store import Ledger

POLL_SECONDS = 0.1
# glibc hands large blocks back to the kernel and faults them in anew each step, which cost a tenth of a
# training step's CPU time where it was measured (docs/benchmarks.md); so a worker keeps what it has had once.
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": 1 << 30,
    "MALLOC_TRIM_THRESHOLD_": 8 << 30,
    "MALLOC_TOP_PAD_": 256 << 20,
}
GRACE_SECONDS = 60.0  # after Ctrl-C: a step and a checkpoint must fit in


@dataclass(slots=True)
class Interrupt:
    """Ctrl-C, counted: once asks the workers to save and stop, twice ends them."""

    asked: int = 0

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1


def run_workers(run: Run, workers: int, watch: Callable[[Event], None]) -> None:
    """Train until the run is finished or stopped; every event of this incarnation goes to `watch`."""
    with _alone(run.folder), run.ledger() as ledger:
        incarnation = ledger.next_incarnation()
        after = max((number for number, _ in ledger.events("run_started")), default=0)
        rendezvous = run.folder / f"rendezvous-{incarnation}"
        with ExitStack() as stack:
            stack.callback(rendezvous.unlink, missing_ok=True)
            interrupt = stack.enter_context(_listening())
            processes = stack.enter_context(_processes(run, workers, incarnation, rendezvous))
            codes = _follow(ledger, incarnation, after, processes, interrupt, watch)
        _judge(run, ledger, incarnation, codes)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold the run folder; the system frees it when this process ends, however it ends."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{folder}: is being trained by another process", "wait for it, or use --run"
            ) from None
        yield


@contextmanager
def _listening() -> Iterator[Interrupt]:
    interrupt = Interrupt()
    previous = {n: signal.signal(n, interrupt.on_signal) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _processes(
    run: Run, workers: int, incarnation: int, rendezvous: Path
) -> Iterator[list[subprocess.Popen[bytes]]]:
    """The workers, in process groups of their own: Ctrl-C reaches them only through us; none survives."""
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(workers):
            place = KEEP_MEMORY | {
                "RANK": rank,
                "WORLD_SIZE": workers,
                "LOCAL_RANK": rank,
                "LOCAL_WORLD_SIZE": workers,
                "INCARNATION": incarnation,
                "RENDEZVOUS": rendezvous,
                "GLOO_SOCKET_IFNAME": "lo",  # nothing listens beyond this machine
                "OMP_WAIT_POLICY": "passive",  # a thread that waits must not keep a core from a worker
            }
            with (run.logs / f"rank-{rank}.log").open("ab") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "colossi.train", str(run.folder)],
                        env=os.environ | {key: str(value) for key, value in place.items()},
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,
                    )
                )
        yield processes
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.wait()


def _follow(
    ledger: Ledger,
    incarnation: int,
    after: int,
    processes: list[subprocess.Popen[bytes]],
    interrupt: Interrupt,
    watch: Callable[[Event], None],
) -> list[int | None]:
    """Until all workers have ended well, or one has not; returns the exit codes of that moment."""
    passed_on, deadline = 0, float("inf")
    while True:
        codes = [process.poll() for process in processes]
        for number, event in ledger.events(after=after):
            after = number
            if event.incarnation == incarnation:
                watch(event)
        if any(codes) or all(code == 0 for code in codes) or time.monotonic() > deadline:
            return codes
        if interrupt.asked > passed_on:
            passed_on = interrupt.asked
            deadline = time.monotonic() + GRACE_SECONDS
            for process in processes:
                process.send_signal(signal.SIGTERM if passed_on == 1 else signal.SIGKILL)
        time.sleep(POLL_SECONDS)


def _judge(run: Run, ledger: Ledger, incarnation: int, codes: list[int | None]) -> None:
    """Raise if the workers did not end well: by their own reason in the ledger, or by who died of what."""
    if not any(codes):
        return
    failures = [event for _, event in ledger.events("failed") if event.incarnation == incarnation]
    for event in failures:
        if event.data.get("ours"):
            why, _, hint = event.text("why").partition("\nhint: ")
            raise TrainingFailed(why, hint)
    killed = [(rank, -code) for rank, code in enumerate(codes) if code is not None and code < 0]
    if killed:  # a survivor's complaint about the lost connection is not the reason
        rank, number = killed[0]
        why = f"worker {rank} was killed by {signal.Signals(number).name}"
        _record_failure(ledger, incarnation, why, rank)
    else:
        rank = next(rank for rank, code in enumerate(codes) if code)
        first = failures[0].text("why") if failures else f"exit code {codes[rank]}"
        why = f"worker {rank} failed: {first}"
    log = run.logs / f"rank-{rank}.log"
    raise TrainingFailed(why, f"its log is {log}; the same command resumes from the last checkpoint")


def _record_failure(ledger: Ledger, incarnation: int, why: str, rank: int) -> None:
    ledger.append(
        Event(time=time.time(), kind="failed", incarnation=incarnation, data={"why": why, "rank": rank})
    )
