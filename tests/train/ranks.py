"""Several ranks on this machine for a test: each runs the same function in a process of its own."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from colossi.spec.spec import Spec

SIZES = {
    "layers": 2,
    "hidden": 32,
    "heads": 4,
    "kv_heads": 2,
    "ffn_hidden": 48,
    "vocabulary": 64,
    "experts": 4,
    "experts_per_token": 2,
}


def spec_of(
    layout: dict[str, Any] | None = None,
    ranks: int = 1,
    training: dict[str, Any] | None = None,
    model: dict[str, Any] | None = None,
) -> Spec:
    """A tiny spec under a layout."""
    run = {"sequence_length": 16, "global_batch": 8, "steps": 20, "learning_rate": 0.002}
    return Spec.model_validate(
        {
            "name": "tiny",
            "model": SIZES | {"layers": 4} | (model or {}),
            "training": run | (training or {}),
            "layout": layout or {},
            "cluster": {"workers_per_node": ranks},
        }
    )


def run_ranks(ranks: int, work: Callable[..., Any], *arguments: Any, folder: Path) -> Any:
    """What rank 0's `work(rank, ranks, *arguments)` returned; any rank's failure is the test's."""
    out = folder / "result.pt"
    if ranks == 1:
        return work(0, 1, *arguments)
    context = mp.start_processes(  # type: ignore[no-untyped-call]
        _one, (ranks, work, arguments, folder, out), nprocs=ranks, start_method="fork", join=False
    )
    while not context.join(timeout=60):
        pass
    return torch.load(out, weights_only=False)


def _one(
    rank: int, ranks: int, work: Callable[..., Any], arguments: tuple[Any, ...], folder: Path, out: Path
) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    store = folder / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=ranks)
    result = work(rank, ranks, *arguments)
    if rank == 0:
        torch.save(result, out)
    dist.barrier()
    dist.destroy_process_group()
