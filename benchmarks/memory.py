# ruff: noqa: T201 (a script talks by printing)
"""
Memory of a worker when the model is divided: `PYTHONPATH=src python benchmarks/memory.py [--ranks N]`.

A few steps of a model whose weights, gradients and moments of AdamW take most of the memory, on 1, 2 and 4
workers; what each process holds at its peak beyond what it held before the model was built (from the system's
own VmHWM and VmRSS). A layout that divides all by n would show 1/n; activations, buffers of collectives and
gathered weights come on top. Freed memory goes back to the system at once here, as in workers with sharded
weights; others keep theirs, which is faster, and `--kept` shows why not all do.
"""

import argparse
import gc
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from rich.console import Console
from rich.table import Table

from colossi.data.corpus import Batch
from colossi.engines.standby import KEEP_MEMORY, RETURN_MEMORY
from colossi.spec.ranks import shares
from colossi.spec.size import count_parameters, state_bytes_per_parameter
from colossi.spec.spec import Spec, data_parallel
from colossi.train.mesh import World
from colossi.train.optimizer import Optimizer
from colossi.train.parallel import build_model
from colossi.train.step import forward_backward

MODEL = {
    "layers": 8,
    "hidden": 512,
    "heads": 8,
    "kv_heads": 4,
    "ffn_hidden": 1024,
    "vocabulary": 4096,
    "experts": 4,
    "experts_per_token": 2,
}
STEPS = 3
LAYOUTS: list[dict[str, Any]] = [
    {},
    {"replicate": 2},
    {"shard": 2},
    {"shard": 4},
    {"pipeline": 2},
    {"pipeline": 4},
    {"tensor": 2},
    {"tensor": 4},
    {"expert": 4},
    {"shard": 2, "expert": 2},
    {"pipeline": 2, "shard": 2},
]


def spec_of(layout: dict[str, Any], ranks: int) -> Spec:
    """Four short sequences for each worker would be activations; here are four in all."""
    return Spec.model_validate(
        {
            "name": "memory",
            "model": MODEL,
            "training": {"sequence_length": 32, "global_batch": 4, "steps": STEPS},
            "layout": {"micro_batch": 1} | layout,
            "cluster": {"workers_per_node": ranks},
        }
    )


def status(key: str) -> int:
    """Of this process, from the system [B]: VmRSS is what it holds, VmHWM the most that it has held."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


def measure(rank: int, ranks: int, spec: Spec, folder: str) -> None:
    """One rank: train, and write down what that took."""
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    if ranks > 1:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    assert spec.training is not None
    gc.collect()
    before = status("VmRSS")
    world = World.make(spec.layout, torch.device("cpu"), ranks)
    parts = build_model(spec, world)
    optimizer = Optimizer(parts, spec.training, world)
    share = spec.training.global_batch // data_parallel(spec.layout)
    tokens = np.random.default_rng(0).integers(1, 4096, (share, spec.training.sequence_length + 1))
    batch = Batch(tokens[:, :-1].copy(), tokens[:, 1:].copy(), np.ones((share, 32), dtype=bool))
    for step in range(1, STEPS + 1):
        forward_backward(parts, batch, spec, world)
        optimizer.step(step, 1.0)
    Path(folder, f"{rank}.txt").write_text(str(status("VmHWM") - before), encoding="ascii")
    if ranks > 1:
        dist.barrier()
        os._exit(0)


def peak(layout: dict[str, Any], ranks: int) -> int:
    """The most that any worker took [B]."""
    with tempfile.TemporaryDirectory() as folder:
        spec = spec_of(layout, ranks)
        mp.start_processes(  # type: ignore[no-untyped-call]
            _start, (ranks, spec, folder), nprocs=ranks, start_method="fork"
        )
        return max(int(file.read_text(encoding="ascii")) for file in Path(folder).glob("*.txt"))


def _start(rank: int, ranks: int, spec: Spec, folder: str) -> None:
    measure(rank, ranks, spec, folder)


def main() -> None:
    """Print a row for each layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, default=4, help="no layouts of more workers than this")
    parser.add_argument(
        "--kept", action="store_true", help="keep what is freed, as workers without sharding do"
    )
    arguments = parser.parse_args()
    settings = KEEP_MEMORY if arguments.kept else RETURN_MEMORY
    if not settings.items() <= os.environ.items():  # it is read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | settings)
    table = Table(title="memory of a worker at its peak", box=None, title_justify="left")
    for column in ("layout", "workers", "state [MB]", "peak [MB]", "of one worker", "1/n"):
        table.add_column(column, justify="left" if column == "layout" else "right")
    alone = 0
    for layout in LAYOUTS:
        ranks = int(np.prod([n for n in layout.values()] or [1]))
        if ranks > arguments.ranks:
            continue
        spec, found = spec_of(layout, ranks), peak(layout, ranks)
        alone = alone or found
        state = max(share.parameters for share in shares(spec)) * sum(
            state_bytes_per_parameter("adamw").values()
        )
        name = " x ".join(f"{axis} {n}" for axis, n in layout.items()) or "one worker"
        row = (
            name,
            ranks,
            f"{state / 1e6:.0f}",
            f"{found / 1e6:.0f}",
            f"{found / alone:.2f}",
            f"{1 / ranks:.2f}",
        )
        table.add_row(*map(str, row))
    Console().print(table)
    weights = count_parameters(spec_of({}, 1).model).total
    print(f"the model: {weights / 1e6:.0f} million weights, {STEPS} steps of AdamW, float32")


if __name__ == "__main__":
    main()
