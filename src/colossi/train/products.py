"""
How fast GPUs are: products, memory, copies to them and between them, an all-reduce over all.

`python -m colossi.train.products` prints one line of JSON, a list of results as colossi.acceptance has them.
The figures are set against limits that others have published: bus bandwidth is that of nccl-tests. Its tests
run the code on CPUs; on GPUs it has not been run.
"""

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing.spawn import spawn

SIDE = 8192  # of the square bf16 matrices: large enough for the peak
COPY = 4 << 30  # [B] of memory to memory, and between devices
HOST_COPY = 1 << 30  # [B] pinned
REDUCED = 16 << 30  # [B], as the limits are for 16 GB
REPEATS = 5


def best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of the fastest of some repeats, after one that does not count."""
    fastest = float("inf")
    for turn in range(REPEATS + 1):
        begun = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        if turn:
            fastest = min(fastest, time.perf_counter() - begun)
    return fastest


def of_device(device: torch.device, name: str, side: int, size: int, host: int) -> list[dict[str, Any]]:
    """One device: FLOP/s of a product, B/s of a copy in its memory (read and written), B/s from the host."""
    a, b = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    product = 2 * side**3 / best(lambda: a @ b, device)
    left, right = (torch.empty(size, dtype=torch.uint8, device=device) for _ in range(2))
    memory = 2 * size / best(lambda: left.copy_(right), device)
    pinned = torch.empty(host, dtype=torch.uint8, pin_memory=device.type == "cuda")
    copied = host / best(lambda: left[:host].copy_(pinned, non_blocking=True), device)
    return [
        {"check": "gpu.product", "value": product, "unit": "FLOP/s", "what": name},
        {"check": "gpu.memory", "value": memory, "unit": "B/s", "what": name},
        {"check": "gpu.host_to_device", "value": copied, "unit": "B/s", "what": name},
    ]


def between(devices: list[torch.device], size: int) -> list[dict[str, Any]]:
    """From each device to the next one in a ring [B/s]."""
    found = []
    for number, device in enumerate(devices):
        other = devices[(number + 1) % len(devices)]
        here, there = (torch.empty(size, dtype=torch.uint8, device=each) for each in (device, other))
        rate = size / best(lambda there=there, here=here: there.copy_(here), other)  # type: ignore[misc]
        found.append({"check": "gpu.peer", "value": rate, "unit": "B/s", "what": f"GPU {number}"})
    return found


def all_reduce(ranks: int, size: int, backend: str) -> list[dict[str, Any]]:
    """Bus bandwidth over all devices: 2 (n - 1) / n times the bytes, over the seconds (nccl-tests)."""
    with TemporaryDirectory() as folder:
        spawn(_reduce, (ranks, size, backend, folder), nprocs=ranks)
        seconds = max(float(file.read_text()) for file in Path(folder).glob("rank-*"))
    rate = 2 * (ranks - 1) / ranks * size / seconds
    return [{"check": "gpu.all_reduce", "value": rate, "unit": "B/s"}]


def _reduce(rank: int, ranks: int, size: int, backend: str, folder: str) -> None:
    """One rank; the sum is compared, too."""
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend, init_method=f"file://{folder}/store", rank=rank, world_size=ranks)
    numbers = torch.full((size // 4,), float(rank + 1), device=device)
    dist.all_reduce(numbers)
    wanted = ranks * (ranks + 1) / 2
    if not bool((numbers == wanted).all()):
        raise ValueError(f"rank {rank}: the sum of an all-reduce is wrong")
    numbers.zero_()
    Path(folder, f"rank-{rank}").write_text(str(best(lambda: dist.all_reduce(numbers), device)))
    dist.destroy_process_group()


def main() -> int:
    """All devices."""
    devices = [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    found = []
    for number, device in enumerate(devices):
        found += of_device(device, f"GPU {number}", SIDE, COPY, HOST_COPY)
        torch.cuda.empty_cache()
    if len(devices) > 1:
        found += between(devices, COPY)
        torch.cuda.empty_cache()
        found += all_reduce(len(devices), REDUCED, "nccl")
    if not devices:
        found = [{"check": "gpu.product", "status": "fail", "why": "torch sees no GPU, and the driver does"}]
    sys.stdout.write(json.dumps(found) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
