"""
Whether a node's cores and memory are sound: `python -m colossi.acceptance.cores SECONDS`, and how to ask.

Each core multiplies two matrices of whole numbers. They are so small that every sum is exact in float32, in
whatever order it is taken, so any sound core gives the very bits that are known here. Then some memory is
written and read back. Knows nothing of runs, nor of GPUs.
"""

import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

CHECK_SECONDS = 1.0  # a whole check
GLANCE_SECONDS = 0.1  # to know how fast a node is when it comes
REPEATS = 10  # at least, however slow: the fastest of so few is not spoilt by what else runs on the core
SLOW_FACTOR = 1.5  # beside three busy processes on two cores the fastest of ten took up to 1.07 times as long
SIDE = (
    512  # of the matrices: numbers of 8 bits, so sums of at most 2^7 * 2^7 * 2^9 = 2^23, below float32's 2^24
)
KNOWN = 0x2713B015  # CRC-32 of the product in little-endian float32; a test works it out by itself
MEMORY = 64 << 20  # [B] that are written and read back
PATTERNS = (0x5555555555555555, 0xAAAAAAAAAAAAAAAA, 0xFFFFFFFFFFFFFFFF, 0)
# One thread for each product: each core is to be asked by itself.
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "OMP_NUM_THREADS"), "1")

Matrix = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Finding:
    """Of one check."""

    why: str  # what is wrong; "" for nothing
    seconds: float = 0.0  # of the fastest product on the slowest core


def examine(seconds: float, module: str = "colossi.acceptance.cores", patience: float = 60.0) -> Finding:
    """Have this machine checked for so long, in a process of its own: a sick node may well kill it.

    Beside a whole run's work it takes longer, but not longer than `patience` [s].
    """
    command = [sys.executable, "-m", module, str(seconds)]
    try:
        done = subprocess.run(
            command, env=os.environ | ONE_THREAD, capture_output=True, timeout=patience, check=False
        )
        return Finding(**json.loads(done.stdout))
    except subprocess.TimeoutExpired:
        return Finding(f"its check did not end in {patience:.0f} s")
    except (ValueError, TypeError):
        return Finding(f"its check ended with exit code {done.returncode}")


def slower(now: float, usual: float) -> str:
    """Why a node is not what it was, by the seconds of its products; "" if it is, or if nothing is known."""
    if usual and now > SLOW_FACTOR * usual:
        return f"its slowest core takes {now / usual:.2f} times as long as when the node came"
    return ""


def check(seconds: float) -> Finding:
    """All cores at once, then the memory."""
    cores = sorted(os.sched_getaffinity(0))
    with ThreadPoolExecutor(len(cores)) as threads:
        found = list(threads.map(lambda core: check_core(core, seconds), cores))
    words = np.empty(MEMORY // 8, dtype=np.uint64)
    wrong = [why for why in (*(each.why for each in found), check_memory(words)) if why]
    return Finding("; ".join(wrong), max(each.seconds for each in found))


def check_core(
    core: int, seconds: float, multiply: Callable[[Matrix, Matrix], Matrix] = np.matmul
) -> Finding:
    """The same product again and again on one core; this thread stays there."""
    os.sched_setaffinity(0, {core})
    left, right = matrices()
    product, fastest = multiply(left, right), float("inf")
    if checksum(product) != KNOWN:
        return Finding(f"core {core} multiplies wrongly")
    repeats, deadline = 0, time.monotonic() + seconds
    while repeats < REPEATS or time.monotonic() < deadline:
        start = time.perf_counter()
        again = multiply(left, right)
        fastest, repeats = min(fastest, time.perf_counter() - start), repeats + 1
        if not np.array_equal(again, product):
            return Finding(f"core {core} does not repeat itself")
    return Finding("", fastest)


def matrices() -> tuple[Matrix, Matrix]:
    """Two of whole numbers from -128 to 127 that look random: the upper bits of multiples of 2^32 / phi."""
    numbers = (np.arange(2 * SIDE * SIDE, dtype=np.uint32) * np.uint32(2654435761)) >> np.uint32(24)
    left, right = (numbers.astype(np.float32) - 128).reshape(2, SIDE, SIDE)
    return left, right


def checksum(product: Matrix) -> int:
    """Of all its bits; both zeros are the same."""
    return zlib.crc32((product + 0.0).astype("<f4").tobytes())


def check_memory(words: np.ndarray[Any, np.dtype[np.uint64]]) -> str:
    """Write each pattern, and each word's own number, and read them back."""
    for pattern in PATTERNS:
        words.fill(pattern)
        if not (words == pattern).all():
            return f"memory does not hold the pattern {pattern:#x}"
    numbers = np.arange(len(words), dtype=np.uint64)
    words[:] = numbers
    return "" if (words == numbers).all() else "a word of memory has what was written into another"


def main() -> int:
    """One line of JSON."""
    sys.stdout.write(json.dumps(asdict(check(float(sys.argv[1])))) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
