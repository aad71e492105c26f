"""The check of a node: what sound hardware passes, and every way to fail it."""

import os
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colossi.acceptance.cores import (
    KNOWN,
    SIDE,
    Finding,
    Matrix,
    check_core,
    check_memory,
    examine,
    matrices,
    slower,
)


def test_this_machine_is_sound() -> None:
    finding = examine(0.05)
    assert finding.why == "" and 0 < finding.seconds < 1


def test_the_known_answer_is_that_of_whole_numbers() -> None:
    """In float64, in 64-bit integers, and a few rows in Python's own numbers."""
    left, right = matrices()
    exact = left.astype(np.int64) @ right.astype(np.int64)
    assert np.array_equal(left.astype(np.float64) @ right.astype(np.float64), exact)
    assert (np.abs(left.astype(np.int64)) @ np.abs(right.astype(np.int64))).max() < 2**24
    for row, column in ((0, 0), (SIDE - 1, 3)):
        mine = sum(int(a) * int(b) for a, b in zip(left[row], right[:, column], strict=True))
        assert mine == exact[row, column]
    assert zlib.crc32(exact.astype("<f4").tobytes()) == KNOWN
    assert len(np.unique(left)) == 256


@pytest.mark.parametrize(("sound", "why"), [(0, "multiplies wrongly"), (3, "does not repeat itself")])
def test_a_core_that_computes_wrongly_is_named(sound: int, why: str) -> None:
    """The last bit of one number of one product is another, after so many sound ones."""
    products = iter(range(100))

    def multiply(left: Matrix, right: Matrix) -> Matrix:
        product = left @ right
        if next(products) >= sound:
            product.view(np.int32)[3, 5] ^= 1
        return product

    before = os.sched_getaffinity(0)
    core = min(before)
    try:
        assert check_core(core, 0.0).why == ""
        assert check_core(core, 0.0, multiply).why == f"core {core} {why}"
    finally:
        os.sched_setaffinity(0, before)


class Stuck(np.ndarray[Any, Any]):
    """Memory with a bit that is always 1."""

    def fill(self, value: Any) -> None:
        super().fill(value)
        self[7] |= np.uint64(1 << 4)


def test_memory_that_forgets_a_bit_is_found() -> None:
    words = np.zeros(512, dtype=np.uint64)
    assert check_memory(words) == ""
    # 0x55 = 0b01010101 has this bit anyway, 0xaa has not
    assert check_memory(words.view(Stuck)) == "memory does not hold the pattern 0xaaaaaaaaaaaaaaaa"


def test_slower_than_it_was() -> None:
    assert slower(0.014, 0.010) == ""
    assert slower(0.016, 0.010) == "its slowest core takes 1.60 times as long as when the node came"
    assert slower(0.016, 0.0) == ""  # nothing is known


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("import os; os.kill(os.getpid(), 4)", "its check ended with exit code -4"),
        ("import time; time.sleep(9)", "its check did not end in 1 s"),
    ],
    ids=["illegal instruction", "hangs"],
)
def test_a_check_that_does_not_end_well_is_failed(
    script: str, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sick.py").write_text(script)
    monkeypatch.chdir(tmp_path)
    assert examine(0.0, module="sick", patience=1.0) == Finding(why)


def test_it_needs_no_torch() -> None:
    code = "import sys, colossi.engines.agent; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
