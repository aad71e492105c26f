"""
`python -m colossi.train RUN`: one rank of a run, or with `--standby FD` the warm standby of an agent.

A rank alone reads its place in the world from the variables that torchrun sets (RANK, WORLD_SIZE, LOCAL_RANK,
LOCAL_WORLD_SIZE, MASTER_ADDR, MASTER_PORT); nothing else in colossi reads them. It goes on from the newest
checkpoint, and nobody restarts it but torchrun.
"""

import os
import sys
import time
import traceback
from pathlib import Path

import torch.distributed as dist

from colossi.errors import ColossiError
from colossi.ledger.events import JSON, Event
from colossi.ledger.run import Run, open_run
from colossi.train.link import Order
from colossi.train.loop import train
from colossi.train.standby import stand_by
from colossi.train.worker import choose_device, in_words, join


def main(arguments: list[str]) -> int:
    """The exit code says how it ended."""
    folder = Path(arguments[0])
    if arguments[1:2] == ["--standby"]:
        return stand_by(int(arguments[2]), folder)
    rank, ranks = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    local_rank = int(os.environ.get("LOCAL_RANK", rank))
    threads = max(1, (os.cpu_count() or 1) // int(os.environ.get("LOCAL_WORLD_SIZE", ranks)))
    run = open_run(folder)
    with run.ledger() as ledger:
        incarnation = ledger.next_incarnation()
    try:
        spec = run.spec()
        device = choose_device(spec.cluster.device, local_rank, threads)
        if ranks > 1:
            join(None, rank, ranks, device)
        assert spec.layout.replicate is not None
        copies = spec.layout.replicate
        order = Order(incarnation, rank, ranks, local_rank, threads, "", copies, -1, [], False, False)
        train(run, order, device, None)
    except Exception as error:  # the edge of the process
        return _fail(run, rank, incarnation, error)
    if ranks > 1:
        dist.destroy_process_group()
    return 0


def _fail(run: Run, rank: int, incarnation: int, error: Exception) -> int:
    """Write why into the ledger and the log; the other ranks die of this one's absence."""
    traceback.print_exc()
    data: dict[str, JSON] = {"why": in_words(error), "rank": rank, "ours": isinstance(error, ColossiError)}
    with run.ledger() as ledger:
        ledger.append(Event(time=time.time(), kind="failed", incarnation=incarnation, data=data))
    return 1


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # threads of a broken process group must not keep a dead rank alive
