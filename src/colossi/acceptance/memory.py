"""
Memory: how fast it is copied and added up, and whether it holds what is written into it.

The triad is that of STREAM (J. D. McCalpin, 1995): a = b + s c, three arrays that no cache holds; bytes are
counted as there, without the line that a write first reads. NumPy runs it on one core: the figure compares
nodes, it is not the machine's peak.
"""

import time

import numpy as np

from colossi.acceptance.cores import MEMORY, check_memory
from colossi.acceptance.result import Result

WORDS = 4 << 20  # doubles in each of three arrays: 96 MB together, above any core's share of a cache
SECONDS = 0.4  # at least, for each of copy and triad
REPEATS = 5


def memory() -> list[Result]:
    """Pattern, copy, triad."""
    wrong = check_memory(np.empty(MEMORY // 8, dtype=np.uint64))
    pattern = Result("memory.pattern", "fail" if wrong else "pass", float(MEMORY), "B", why=wrong)
    copy, triad = bandwidths(WORDS, SECONDS)
    return [
        pattern,
        Result("memory.copy", value=copy, unit="B/s"),
        Result("memory.triad", value=triad, unit="B/s"),
    ]


def bandwidths(words: int, seconds: float) -> tuple[float, float]:
    """Of copy (2 arrays) and triad (3 arrays) [B/s]: the best, as others may use the core meanwhile."""
    a, b, c = (np.full(words, value) for value in (0.0, 1.0, 2.0))
    best = {"copy": 0.0, "triad": 0.0}
    for name, arrays in (("copy", 2), ("triad", 3)):
        repeats, stop = 0, time.perf_counter() + seconds
        while repeats < REPEATS or time.perf_counter() < stop:
            begun = time.perf_counter()
            if name == "copy":
                np.copyto(a, b)
            else:
                np.multiply(c, 3.0, out=a)  # two passes: NumPy has no fused one, and a is read once more
                np.add(a, b, out=a)
            spent = time.perf_counter() - begun
            best[name] = max(best[name], arrays * a.nbytes / spent)
            repeats += 1
    return best["copy"], best["triad"]
