"""
Clocks: whether somebody keeps this one right, whether it runs evenly, and how far it is from another.

The kernel knows whether a daemon (chrony, ntpd, systemd-timesyncd, PTP) keeps the clock right, whichever it
is: adjtimex(2). A container may not be told; then it is skipped. An offset to another machine is found as NTP
does (RFC 5905, section 8): half of the way there and back.
"""

import ctypes
import ctypes.util
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from colossi.acceptance.result import Result

TIME_ERROR = 5  # adjtimex(2): the clock is not synchronised
WATCHED_SECONDS = 0.5
SOURCE = Path("/sys/devices/system/clocksource/clocksource0/current_clocksource")
SLOW_SOURCES = {"hpet", "acpi_pm", "jiffies", "refined-jiffies"}  # chosen when the kernel distrusts the TSC


def clock() -> list[Result]:
    """Synchronised, even, and read from where it is cheap."""
    return [synchronised(_adjtimex()), even(time.time, time.monotonic, WATCHED_SECONDS), source(SOURCE)]


def synchronised(state: int | None) -> Result:
    """By what adjtimex returned; None where it could not be asked."""
    if state is None:
        return Result("clock.synchronised", "skipped", why="the kernel cannot be asked here")
    if state == TIME_ERROR:
        return Result(
            "clock.synchronised", "warn", 0.0, why="no daemon keeps it right, says the kernel (TIME_ERROR)"
        )
    return Result("clock.synchronised", value=1.0)


def _adjtimex() -> int | None:
    """The state of the kernel's clock; with modes 0 nothing is changed."""
    try:
        libc = ctypes.CDLL(ctypes.util.find_library("c"), use_errno=True)
        buffer = ctypes.create_string_buffer(256)  # struct timex, 208 bytes on 64-bit Linux, all zero
        state = int(libc.adjtimex(buffer))
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state


def even(wall: Callable[[], float], steady: Callable[[], float], seconds: float) -> Result:
    """The wall clock against the monotonic one; the steady one must never go back."""
    begun, before = wall(), steady()
    last = before
    while (now := steady()) - before < seconds:
        if now < last:
            return Result("clock.even", "fail", now - last, "s", why="the monotonic clock went back")
        last = now
    return Result("clock.even", value=abs((wall() - begun) - (now - before)), unit="s")


def source(file: Path) -> Result:
    """Where the kernel reads the time."""
    try:
        name = file.read_text(encoding="ascii").strip()
    except OSError:
        return Result("clock.source", "skipped", why="the kernel does not say")
    slow = name in SLOW_SOURCES
    why = f"{name}: the kernel has given up on the processor's own counter" if slow else ""
    return Result("clock.source", "warn" if slow else "pass", what=name, why=why)


def offset(exchanges: Iterable[tuple[float, float, float]]) -> tuple[float, float]:
    """(how far another clock is ahead, how unsure that is) [s], by (sent, its time, received) of exchanges.

    The shortest exchange says it best; half of its way is the most by which it can be wrong.
    """
    sent, its, received = min(exchanges, key=lambda each: each[2] - each[0])
    return its - (sent + received) / 2, (received - sent) / 2


def boot_time() -> float:
    """When this machine started [unix s]."""
    return time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
