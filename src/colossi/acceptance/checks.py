"""
All checks of a node, each in a process of its own: `python -m colossi.acceptance.checks NAME FOLDER`.

A check that hangs, as on a sick GPU or a dead file system, is killed after its own time and named; one that
kills its process, as a sick driver may, takes nothing else along.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from colossi.acceptance import clock, cores, disk, gpus, memory, nics, wire, xids
from colossi.acceptance.result import Result, group_of

CORE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Check:
    """A group of results; `patience` [s] is how long it may take on a busy machine."""

    name: str
    patience: float
    run: Callable[[Path], list[Result]] | None  # None: another program, see COMMANDS


def processor(folder: Path) -> list[Result]:
    """Known bits on every core, and the seconds of a product on the slowest one; memory has its own check."""
    core = sorted(os.sched_getaffinity(0))
    found = [cores.check_core(each, CORE_SECONDS / len(core)) for each in core]
    wrong = "; ".join(each.why for each in found if each.why)
    seconds = max(each.seconds for each in found)
    return [
        Result("processor.bits", "fail" if wrong else "pass", why=wrong),
        Result("processor.cores", value=float(len(core))),
        Result("processor.product", value=seconds, unit="s"),
    ]


CHECKS = (
    Check("processor", 60.0, processor),
    Check("memory", 60.0, lambda _: memory.memory()),
    Check("disk", 60.0, disk.disk),
    Check("clock", 10.0, lambda _: clock.clock()),
    Check("nic", 10.0, lambda _: nics.nics()),
    Check("loopback", 20.0, lambda _: wire.loopback()),
    Check("gpu", 30.0, lambda _: gpus.gpus()),
    Check("gpu-log", 15.0, lambda _: xids.xids()),
    Check("gpu-rates", 300.0, None),
)
GROUPS = (*dict.fromkeys(group_of(check.name) for check in CHECKS), "pairs")  # what may be asked for
# torch is started only where there is a GPU: it is imported for seconds, and not everywhere installed.
COMMANDS = {"gpu-rates": (sys.executable, "-m", "colossi.train.products")}
NO_GPU = Result("gpu.product", "skipped", why="not here")


def check_node(folder: Path, groups: Sequence[str] = GROUPS) -> Iterator[tuple[str, list[Result]]]:
    """Each check of these groups, in order, with what it found in `folder`, where a run would write."""
    for check in CHECKS:
        if group_of(check.name) in groups:
            yield check.name, isolated(check, folder)


def isolated(check: Check, folder: Path) -> list[Result]:
    """In a process of its own, whatever becomes of that."""
    if check.run is None and not list(Path("/dev").glob("nvidia[0-9]*")):
        return [NO_GPU]
    own = (sys.executable, "-m", "colossi.acceptance.checks", check.name, str(folder))
    begun = time.monotonic()
    results = started(check.name, COMMANDS.get(check.name, own), check.patience)
    seconds = time.monotonic() - begun
    return [replace(result, seconds=seconds) for result in results]


def started(name: str, command: Sequence[str], patience: float) -> list[Result]:
    """What a program says in one line of JSON; that it does not is a failure of the node."""
    process = subprocess.Popen(
        command,
        env=os.environ | cores.ONE_THREAD,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        said, error = process.communicate(timeout=patience)
    except subprocess.TimeoutExpired:
        _end(process)
        return [Result(f"{name}.ends", "fail", patience, "s", why=f"did not end in {patience:g} s")]
    try:
        return [Result.of(each) for each in json.loads(said)]
    except ValueError:
        last = error.decode(errors="replace").strip().splitlines()[-1:] or ["it said nothing"]
        why = f"ended with exit code {process.returncode}: {last[0]}"
        return [Result(f"{name}.ends", "fail", why=why)]


def _end(process: subprocess.Popen[bytes]) -> None:
    """All that it started goes with it; who is stuck in the kernel is left to it."""
    try:
        os.killpg(process.pid, 9)
        process.communicate(timeout=1.0)
    except (ProcessLookupError, subprocess.TimeoutExpired):
        pass


def main() -> int:
    """One line of JSON: a list of results."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    check = next(check for check in CHECKS if check.name == name)
    assert check.run is not None
    sys.stdout.write(json.dumps([result.as_json() for result in check.run(folder)]) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
