"""
A worker under NVIDIA's resiliency extension 0.4.1, in either of its two ways.

`nvrx_run.py in-process RUN [SECONDS]`: survivors stay; a process in reserve takes the place of the dead one.
The engine of it watches every SECONDS; its defaults when left out.

`ft_launcher --nproc-per-node 2 --max-restarts 100 nvrx_run.py launcher RUN`: as torchrun, with heartbeats.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist
from nvidia_resiliency_ext import fault_tolerance, inprocess
from trainee import RANKS, Log, Trainee, join, train


def in_process(folder: Path, seconds: float | None) -> None:
    """As in NVIDIA's "optimal" example: what needs no group is made once, the rest at each restart."""
    port = int(os.environ["MASTER_PORT"])
    trainee, log = Trainee.make(folder), Log(folder)
    store = dist.TCPStore(  # type: ignore[attr-defined]
        os.environ["MASTER_ADDR"],
        port + 1,
        int(os.environ["WORLD_SIZE"]),
        is_master=os.environ["RANK"] == "0",
        multi_tenant=True,
    )

    def part(call: inprocess.CallWrapper | None = None) -> None:
        assert call is not None
        rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        meeting = dist.PrefixStore(str(call.iteration), store)
        dist.init_process_group(
            "gloo", store=meeting, rank=rank, world_size=ranks, timeout=timedelta(seconds=10)
        )
        train(trainee, log)

    wrapper = inprocess.Wrapper(
        store_kwargs={"port": port + 2},
        rank_assignment=inprocess.Compose(
            inprocess.rank_assignment.MaxActiveWorldSize(RANKS), inprocess.rank_assignment.ShiftRanks()
        ),
        **_watching_every(seconds),
    )
    wrapper(part)()


def _watching_every(seconds: float | None) -> dict[str, Any]:
    if seconds is None:
        return {}
    names = (
        "monitor_thread_interval",
        "monitor_process_interval",
        "progress_watchdog_interval",  # so often does the process in reserve look up
        "last_call_wait",
    )
    return dict.fromkeys(names, timedelta(seconds=seconds))


def launched(folder: Path) -> None:
    """As under torchrun; the launcher's monitor also hears a heartbeat after each step."""
    monitor = fault_tolerance.RankMonitorClient()
    monitor.init_workload_monitoring()
    join()
    train(Trainee.make(folder), Log(folder), monitor.send_heartbeat)


if __name__ == "__main__":
    way, folder, *seconds = sys.argv[1:]
    if way == "in-process":
        in_process(Path(folder), float(seconds[0]) if seconds else None)
    else:
        launched(Path(folder))
