"""
Disks: how fast a file is written down and read back, the room that is left, and what became read-only.

A file system that the kernel remounts read-only after an error is the usual sign of a dying disk.
"""

import mmap
import os
import shutil
import time
from pathlib import Path

from colossi.acceptance.result import Result

SIZE = 64 << 20  # [B] written and read
BLOCK = 4 << 20
ON_DISK = {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs"}  # that are mounted to be written to


def disk(folder: Path) -> list[Result]:
    """Of the folder that a run would write into."""
    free = shutil.disk_usage(folder).free
    room = Result("disk.free", value=float(free), unit="B")
    fixed = read_only(Path("/proc/mounts").read_text(encoding="utf-8"))
    mounts = Result(
        "disk.writable",
        "fail" if fixed else "pass",
        why=f"mounted read-only: {', '.join(fixed)}" if fixed else "",
    )
    if free < 2 * SIZE:
        why = f"only {free >> 20} MiB are free in {folder}"
        return [
            room,
            mounts,
            Result("disk.write", "skipped", why=why),
            Result("disk.read", "skipped", why=why),
        ]
    return [room, mounts, *rates(folder, SIZE)]


def rates(folder: Path, size: int) -> list[Result]:
    """Write, fsync, read back past the page cache where the file system can; compare [B/s]."""
    path = folder / f"tmp-check-{os.getpid()}"
    block = mmap.mmap(-1, BLOCK)  # O_DIRECT wants memory that is aligned
    block.write(os.urandom(4096) * (BLOCK // 4096))
    expected = bytes(block)
    try:
        begun = time.perf_counter()
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        try:
            for _ in range(size // BLOCK):
                os.write(descriptor, expected)
            os.fsync(descriptor)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
        written = time.perf_counter() - begun
        begun = time.perf_counter()
        same = _read(path, block, expected)
        read = time.perf_counter() - begun
    finally:
        path.unlink(missing_ok=True)
        block.close()
    return [
        Result("disk.write", value=size / written, unit="B/s"),
        Result(
            "disk.read",
            "pass" if same else "fail",
            size / read,
            "B/s",
            why="" if same else "what was read is not what was written",
        ),
    ]


def _read(path: Path, block: mmap.mmap, expected: bytes) -> bool:
    """Whether each block is as expected."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECT)
    except OSError:  # tmpfs and some network file systems have no such thing
        descriptor = os.open(path, os.O_RDONLY)
    try:
        same = True
        while got := os.readv(descriptor, [block]):
            same = same and block[:got] == expected[:got]
        return same
    finally:
        os.close(descriptor)


def read_only(mounts: str) -> list[str]:
    """The mount points of disks that are read-only, from the text of /proc/mounts."""
    found = []
    for line in mounts.splitlines():
        device, point, kind, options = line.split()[:4]
        if kind in ON_DISK and device.startswith("/dev/") and "ro" in options.split(","):
            found.append(point)
    return found
