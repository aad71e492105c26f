"""
Xid errors: what NVIDIA's driver writes into the kernel's log, and what each calls for.

The actions are the "immediate action" of NVIDIA's Xid catalogue for Ampere and newer
(docs.nvidia.com/deploy/xid-errors/analyzing-xid-catalog.html, as read 2026-11); which codes fail a node is
Azure's list (azurehpc-health-checks, customTests/azure_gpu_xid.nhc at 0e0a1ac), and each whose action takes
the GPU or the machine down. Of the rest a person is told, or nobody.
"""

import re
import subprocess
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from colossi.acceptance.result import Result

# What to do: nothing; start the job again; reset the GPU; boot the machine; look at plugs and cables; update
# software; follow NVIDIA's own procedure for this code; call NVIDIA.
Action = Literal[
    "ignore", "restart job", "reset GPU", "reboot", "check cables", "update", "procedure", "support"
]
DOWN = {"reset GPU", "reboot", "check cables"}  # nothing else can run there meanwhile
AZURE = {48, 56, 57, 58, 62, 63, 64, 65, 68, 69, 73, 74, 79, 80, 81, 92, 119, 120}
AGE_SECONDS = 2 * 3600.0  # older ones are not acted on: Azure's default (time_threshold=2, in hours)


@dataclass(frozen=True, slots=True)
class Xid:
    """A code and its action."""

    code: int
    action: Action
    meaning: str

    @property
    def fails(self) -> bool:
        """Whether a node that had it is not to be used."""
        return self.code in AZURE or self.action in DOWN


XIDS = {
    xid.code: xid
    for xid in (
        Xid(8, "restart job", "GPU stopped processing"),
        Xid(13, "restart job", "graphics engine exception"),
        Xid(31, "restart job", "GPU memory page fault"),
        Xid(32, "restart job", "invalid or corrupted push buffer stream"),
        Xid(43, "ignore", "GPU stopped processing"),
        Xid(45, "procedure", "cleanup after earlier errors"),
        Xid(46, "reset GPU", "GPU stopped processing"),
        Xid(48, "procedure", "double-bit ECC error"),
        Xid(54, "check cables", "auxiliary power is not connected"),
        Xid(56, "support", "display engine error"),
        Xid(57, "support", "memory link training failed"),
        Xid(58, "support", "memory error"),
        Xid(62, "reset GPU", "internal micro-controller halt"),
        Xid(63, "ignore", "a row of memory is remapped"),
        Xid(64, "reset GPU", "a row of memory could not be remapped"),
        Xid(65, "support", "video encoder error"),
        Xid(68, "restart job", "video decoder exception"),
        Xid(69, "restart job", "graphics engine class error"),
        Xid(73, "support", "video encoder error"),
        Xid(74, "procedure", "NVLink error"),
        Xid(78, "update", "vGPU start error"),
        Xid(79, "reboot", "GPU has fallen off the bus"),
        Xid(80, "restart job", "corrupted data sent to GPU"),
        Xid(81, "support", "VGA subsystem error"),
        Xid(92, "ignore", "high single-bit ECC error rate"),
        Xid(94, "restart job", "contained memory error"),
        Xid(95, "reset GPU", "uncontained memory error"),
        Xid(109, "reset GPU", "context switch timeout"),
        Xid(110, "reset GPU", "security fault"),
        Xid(119, "reset GPU", "GSP does not answer"),
        Xid(120, "reset GPU", "GSP error"),
        Xid(121, "ignore", "chip-to-chip link error"),
    )
}
LINE = re.compile(r"(?:\[\s*(?P<time>\d+\.\d+)\])?.*NVRM: Xid \((?P<device>[^)]+)\): (?P<code>\d+)")


@dataclass(frozen=True, slots=True)
class Seen:
    """One line of the log."""

    code: int
    device: str  # its place on the PCI bus
    time: float | None  # [s] since the machine started, where the log says so


def xids() -> list[Result]:
    """From the kernel's log, where it may be read."""
    try:
        said = subprocess.run(["dmesg"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Result("gpu.xid", "skipped", why=f"dmesg cannot be had: {type(error).__name__}")]
    if said.returncode:
        return [Result("gpu.xid", "skipped", why="the kernel's log may not be read here")]
    return judge(parse(said.stdout.splitlines()), time.clock_gettime(time.CLOCK_BOOTTIME))


def parse(lines: Iterable[str]) -> list[Seen]:
    """All Xids of a log."""
    return [
        Seen(int(found["code"]), found["device"], float(found["time"]) if found["time"] else None)
        for line in lines
        if (found := LINE.search(line))
    ]


def judge(seen: Iterable[Seen], now: float) -> list[Result]:
    """One result for each device and code; `now` in [s] since the machine started."""
    counts: dict[tuple[str, int], int] = {}
    for each in seen:
        if each.time is None or now - each.time <= AGE_SECONDS:
            counts[each.device, each.code] = counts.get((each.device, each.code), 0) + 1
    results = []
    for (device, code), count in sorted(counts.items()):
        xid = XIDS.get(code, Xid(code, "support", "not in this table"))
        ignored = xid.action == "ignore" and not xid.fails
        results.append(
            Result(
                "gpu.xid",
                "fail" if xid.fails else "pass" if ignored else "warn",
                float(count),
                what=f"{device} Xid {code}",
                why="" if ignored else f"{xid.meaning}: {xid.action}",
            )
        )
    return results or [Result("gpu.xid", value=0.0)]
