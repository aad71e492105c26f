"""
`python -m colossi.train RUN`: one rank of a run.

Reads its place in the world from the variables that torchrun sets too (RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE; MASTER_ADDR and MASTER_PORT, or RENDEZVOUS, a file that all ranks reach). Nothing else in
colossi reads them.
"""

import os
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path

import torch
import torch.distributed as dist

from colossi.errors import ColossiError
from colossi.ledger.events import JSON, Event
from colossi.ledger.run import Run, open_run
from colossi.train.loop import train


def main(folder: str) -> int:
    """Train as one rank; the exit code tells the engine how it ended."""
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank, local_ranks = (
        int(os.environ.get("LOCAL_RANK", rank)),
        int(os.environ.get("LOCAL_WORLD_SIZE", ranks)),
    )
    run = open_run(Path(folder))
    incarnation = int(os.environ.get("INCARNATION", "1"))
    device = _device(run, local_rank, local_ranks)
    try:
        if ranks > 1:
            _join(rank, ranks, device)
        train(run, rank, ranks, device, incarnation)
    except Exception as error:  # the edge of the process
        return _fail(run, rank, incarnation, error)
    if ranks > 1:
        dist.destroy_process_group()
    return 0


def _device(run: Run, local_rank: int, local_ranks: int) -> torch.device:
    wanted = run.spec().cluster.device
    if wanted == "cuda" or (wanted == "auto" and torch.cuda.is_available()):
        device = torch.device("cuda", local_rank)
        torch.cuda.set_device(device)
        return device
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // local_ranks))
    return torch.device("cpu")


def _join(rank: int, ranks: int, device: torch.device) -> None:
    rendezvous = os.environ.get("RENDEZVOUS")
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{Path(rendezvous).resolve()}" if rendezvous else None,
        rank=rank,
        world_size=ranks,
        timeout=timedelta(minutes=10),
    )


def _fail(run: Run, rank: int, incarnation: int, error: Exception) -> int:
    """Write why into the ledger and the log; the other ranks die of this one's absence."""
    traceback.print_exc()
    ours = isinstance(error, ColossiError)
    why = str(error) if ours else f"{type(error).__name__}: {error}"
    data: dict[str, JSON] = {"why": why, "rank": rank, "ours": ours}
    with run.ledger() as ledger:
        ledger.append(Event(time=time.time(), kind="failed", incarnation=incarnation, data=data))
    return 1


if __name__ == "__main__":
    code = main(sys.argv[1])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a broken process group must not keep a dead rank alive
