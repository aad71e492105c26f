"""
GPUs as their driver shows them (NVML): count, ECC errors, remapped rows, clocks, power, heat, NVLink.

`nvml` is the module pynvml, or anything with its functions. What a GPU does not support is left out. Whether
a figure will do is judged elsewhere; that a GPU is broken by its own word is said here. Not run on a GPU yet.
"""

from types import ModuleType
from typing import Any

from colossi.acceptance.result import Result

ABSENT = [Result("gpu.count", "skipped", why="not here")]
# Reasons for low clocks that mean trouble (nvml.h, nvmlClocksEventReasons): hardware slowdown, and its two
# causes, heat and the power brake; software's thermal one. Idle, a power cap and set clocks are none.
THROTTLING = {
    0x08: "hardware slowdown",
    0x20: "software thermal",
    0x40: "hardware thermal",
    0x80: "power brake",
}


def gpus() -> list[Result]:
    """Of all GPUs of this machine; skipped where there is no NVIDIA driver."""
    try:
        import pynvml
    except ImportError:
        return [Result("gpu.count", "skipped", why="not here: nvidia-ml-py is not installed")]
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ABSENT
    try:
        return read(pynvml)
    finally:
        pynvml.nvmlShutdown()


def read(nvml: ModuleType | Any) -> list[Result]:
    """All that can be read without disturbing anybody."""
    count = nvml.nvmlDeviceGetCount()
    found = [Result("gpu.count", value=float(count))]
    for index in range(count):
        name = f"GPU {index}"
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except nvml.NVMLError as error:  # it has fallen off the bus, or wants a reset
            found.append(Result("gpu.answers", "fail", what=name, why=str(error)))
            continue
        found += [
            *_memory_errors(nvml, handle, name),
            *_body(nvml, handle, name),
            *_links(nvml, handle, name),
        ]
    return found


def device_name() -> str:
    """What the first GPU of this machine calls itself; "" where there is none."""
    try:
        import pynvml

        pynvml.nvmlInit()
    except ImportError:
        return ""
    except pynvml.NVMLError:
        return ""
    try:
        name = pynvml.nvmlDeviceGetName(pynvml.nvmlDeviceGetHandleByIndex(0))
        return name.decode() if isinstance(name, bytes) else str(name)
    except pynvml.NVMLError:  # what is wrong with it the check says, in a process of its own
        return ""
    finally:
        pynvml.nvmlShutdown()


def _ask(nvml: Any, function: str, *arguments: Any) -> Any:
    """None where this GPU or this driver knows no answer; any other error is a GPU that is broken."""
    try:
        return getattr(nvml, function)(*arguments)
    except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound, AttributeError):
        return None


def _memory_errors(nvml: Any, handle: Any, name: str) -> list[Result]:
    """ECC since the driver was loaded; rows (or, before Ampere, pages) that were replaced."""
    found = []
    for check, kind in (
        ("gpu.ecc_uncorrected", nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
        ("gpu.ecc_corrected", nvml.NVML_MEMORY_ERROR_TYPE_CORRECTED),
    ):
        count = _ask(nvml, "nvmlDeviceGetTotalEccErrors", handle, kind, nvml.NVML_VOLATILE_ECC)
        if count is not None:
            found.append(Result(check, value=float(count), what=name))
    rows = _ask(nvml, "nvmlDeviceGetRemappedRows", handle)
    if rows is not None:
        _, uncorrected, pending, failed = rows
        found.append(Result("gpu.remapped_rows", value=float(uncorrected), what=name))
        if failed:
            found.append(Result("gpu.remapping", "fail", what=name, why="a row could not be replaced"))
        elif pending:
            found.append(
                Result("gpu.remapping", "fail", what=name, why="a row waits for a reset to be replaced")
            )
    cause = getattr(nvml, "NVML_PAGE_RETIREMENT_CAUSE_DOUBLE_BIT_ECC_ERROR", None)
    pages = (
        None if cause is None or rows is not None else _ask(nvml, "nvmlDeviceGetRetiredPages", handle, cause)
    )
    if pages is not None:
        found.append(Result("gpu.retired_pages", value=float(len(pages)), what=name))
    return found


def _body(nvml: Any, handle: Any, name: str) -> list[Result]:
    """Heat against the GPU's own limit, power against its own, and why it is slow if it is."""
    found = []
    heat = _ask(nvml, "nvmlDeviceGetTemperature", handle, nvml.NVML_TEMPERATURE_GPU)
    most = _ask(nvml, "nvmlDeviceGetTemperatureThreshold", handle, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN)
    if heat is not None:
        hot = most is not None and heat >= most
        why = f"{heat} °C, and at {most} °C it slows itself down" if hot else ""
        limit = f"below {most} °C" if most is not None else ""
        found.append(
            Result("gpu.temperature", "fail" if hot else "pass", float(heat), "°C", name, limit, why)
        )
    power = _ask(nvml, "nvmlDeviceGetPowerUsage", handle)
    if power is not None:
        found.append(Result("gpu.power", value=power / 1000, unit="W", what=name))
    usual = _ask(nvml, "nvmlDeviceGetPowerManagementDefaultLimit", handle)
    now = _ask(nvml, "nvmlDeviceGetEnforcedPowerLimit", handle)
    if usual is not None and now is not None:
        low = now < usual
        why = f"limited to {now / 1000:.0f} W of {usual / 1000:.0f}" if low else ""
        found.append(Result("gpu.power_limit", "warn" if low else "pass", now / 1000, "W", name, why=why))
    clock = _ask(nvml, "nvmlDeviceGetMaxClockInfo", handle, nvml.NVML_CLOCK_SM)
    if clock is not None:
        found.append(Result("gpu.clock_most", value=clock * 1e6, unit="Hz", what=name))
    bits = _ask(nvml, "nvmlDeviceGetCurrentClocksEventReasons", handle)
    if bits is None:  # the name before driver 535
        bits = _ask(nvml, "nvmlDeviceGetCurrentClocksThrottleReasons", handle)
    if bits is not None:
        held = [words for bit, words in THROTTLING.items() if bits & bit]
        found.append(Result("gpu.throttled", "warn" if held else "pass", what=name, why=", ".join(held)))
    return found


def _links(nvml: Any, handle: Any, name: str) -> list[Result]:
    """NVLinks that are up, of those that there are; the errors that they had to repair by sending again."""
    up, down, replays = 0, [], 0
    for link in range(getattr(nvml, "NVML_NVLINK_MAX_LINKS", 18)):
        try:
            state = _ask(nvml, "nvmlDeviceGetNvLinkState", handle, link)
        except nvml.NVMLError_InvalidArgument:  # no such link
            break
        if state is None:
            break
        if state:
            up += 1
            counter = getattr(nvml, "NVML_NVLINK_ERROR_DL_REPLAY", 0)
            replays += _ask(nvml, "nvmlDeviceGetNvLinkErrorCounter", handle, link, counter) or 0
        else:
            down.append(link)
    if not up and not down:
        return []
    why = f"links {', '.join(map(str, down))} are down" if down else ""
    return [
        Result("gpu.nvlinks", "fail" if down else "pass", float(up), what=name, why=why),
        Result("gpu.nvlink_replays", value=float(replays), what=name),
    ]
