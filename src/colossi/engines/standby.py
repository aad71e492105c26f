"""The warm standby of a node: `python -m colossi.train RUN --standby FD`, which forks its workers."""

import os
import subprocess
import sys
from pathlib import Path

from colossi.channel import Channel, pair
from colossi.ledger.run import open_run

# glibc hands large blocks back to the kernel and faults them in anew each step, which cost a tenth of a
# training step's CPU time where it was measured (docs/benchmarks.md); so a worker keeps what it has had once.
# Not one with sharded weights: where blocks are gathered and freed again, what is kept falls to pieces, and
# the worker held more than one without sharding (benchmarks/memory.py).
KEEP_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(8 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
}

RETURN_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(1 << 16)}


def worker_settings(sharded: bool) -> dict[str, str]:
    """Variables that a worker is started with."""
    memory = RETURN_MEMORY if sharded else KEEP_MEMORY
    return memory | {"OMP_WAIT_POLICY": "passive"}  # who waits must not hold a core


def start_standby(folder: Path, log: Path, interface: str) -> Channel:
    """It imports torch now and forks workers later, as it is told over this channel; it ends with us."""
    mine, its = pair()
    layout = open_run(folder).spec().layout
    sharded = layout.shard * layout.context * layout.expert > 1
    environment = os.environ | worker_settings(sharded)
    if interface:
        environment["GLOO_SOCKET_IFNAME"] = environment["NCCL_SOCKET_IFNAME"] = interface
    with log.open("ab") as file:
        subprocess.Popen(
            [sys.executable, "-m", "colossi.train", str(folder), "--standby", str(its.fileno())],
            env=environment,
            pass_fds=[its.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
        )
    its.close()
    return Channel(mine)
