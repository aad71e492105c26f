"""
The matrix-multiply peak that MFU is measured against.

GPUs have a published dense peak, by name; a CPU has none worth trusting, so it is measured: square products
in the precision of the run, on all workers at once, as they would compute in training.
"""

import time

import torch
import torch.distributed as dist

SIDE = 768  # float32: 2.4 MB a matrix, inside the caches where tiles of a training step live
SECONDS = 0.15

# Dense peak without sparsity [FLOP/s], from NVIDIA's data sheets; by a part of the device's name.
PUBLISHED = {
    ("H100", "bfloat16"): 989e12,
    ("H200", "bfloat16"): 989e12,
    ("A100", "bfloat16"): 312e12,
    ("B200", "bfloat16"): 2250e12,
}


def world_peak(device: torch.device, dtype: torch.dtype, ranks: int) -> float:
    """FLOP/s of all ranks together at matrix products. Every rank calls this at the same time."""
    if device.type == "cuda":
        name, precision = torch.cuda.get_device_name(device), str(dtype).removeprefix("torch.")
        for (part, format_), peak in PUBLISHED.items():
            if part in name and format_ == precision:
                return peak * ranks
    if ranks > 1:
        dist.barrier()
    total = torch.tensor(_measure(device, dtype), dtype=torch.float64, device=device)
    if ranks > 1:
        dist.all_reduce(total)
    return float(total)


def _measure(device: torch.device, dtype: torch.dtype) -> float:
    """Best of many products, so that a busy machine is not taken for a slow one. [FLOP/s]"""
    a, b = (torch.randn(SIDE, SIDE, device=device, dtype=dtype) for _ in range(2))
    best, stop = float("inf"), time.perf_counter() + SECONDS
    while time.perf_counter() < stop:
        start = time.perf_counter()
        a @ b
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * SIDE**3 / best
