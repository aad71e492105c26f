"""
`python -m colossi.train.calibrate RANK RANKS THREADS ADDRESS`: a worker that measures, and who starts them.

The first one writes what it finds on its standard output, a line of JSON for each piece.
"""

import json
import os
import platform
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from datetime import date
from functools import partial
from pathlib import Path

import torch

from colossi.errors import WorkFailed
from colossi.plan.fitting import fit
from colossi.plan.profile import Profile, write_profile
from colossi.train.timings import Timings, count, pieces
from colossi.train.worker import join

WORLDS = ((1, False), (2, False), (2, True), (4, False), (4, True))  # workers, whether memory is returned

Settings = Callable[[bool], dict[str, str]]  # variables that a worker with sharded weights, or without, has


def calibrate(
    name: str,
    settings: Settings,
    progress: Callable[[str, float, float], None],
) -> tuple[Path, Profile]:
    """Measure this device and write its profile. `progress` hears of each world how far it is."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found = []
    for workers, returned in WORLDS:
        label = f"{workers} worker{'s' * (workers > 1)}{', sharded' * returned}"
        timed = measure(workers, settings(returned), partial(progress, label))
        found.append(fit(workers, returned, memory / workers, timed))
    profile = Profile(device_name(), date.today().isoformat(), tuple(found))
    return write_profile(name, profile), profile


def device_name() -> str:
    """The processor, and how many of its cores we may use."""
    cores = len(os.sched_getaffinity(0))
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{models[0] if models else platform.machine()}, {cores} cores"


def measure(workers: int, environment: Mapping[str, str], progress: Callable[[int, int], None]) -> Timings:
    """What so many workers measure on this machine, all at once. `progress` hears how many are done."""
    threads = max(1, len(os.sched_getaffinity(0)) // workers)  # as the agent gives them
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [
        subprocess.Popen(
            [sys.executable, "-m", "colossi.train.calibrate", str(rank), str(workers), str(threads), address],
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE if rank == 0 else subprocess.DEVNULL,
            text=True,
        )
        for rank in range(workers)
    ]
    found: Timings = {}
    try:
        assert started[0].stdout is not None
        for done, line in enumerate(started[0].stdout, 1):
            kind, numbers = json.loads(line)
            found.setdefault(kind, []).append(numbers)
            progress(done, count(workers))
        if any(worker.wait() for worker in started):
            raise WorkFailed("calibrating: a worker ended with an error, which stands above")
    finally:
        for worker in started:
            worker.kill()
            worker.communicate()  # waits, and closes its pipe
    return found


def main(rank: int, ranks: int, threads: int, address: str) -> None:
    """One worker's part."""
    torch.set_num_threads(threads)
    torch.manual_seed(rank)
    if ranks > 1:
        join(address, rank, ranks, torch.device("cpu"))
    for kind, numbers in pieces(ranks):
        if rank == 0:
            sys.stdout.write(json.dumps([kind, numbers]) + "\n")
            sys.stdout.flush()
    if ranks > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
