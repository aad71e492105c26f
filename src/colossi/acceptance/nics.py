"""
Network ports as the kernel shows them: state, speed, duplex, errors, and how often the link went down.

/sys/class/net has all of them, /sys/class/infiniband those that speak InfiniBand or RoCE. Virtual ones say no
speed; a port that was never brought up is no fault: it may have no cable.
"""

import re
from pathlib import Path

from colossi.acceptance.result import Result

BITS = 1e6 / 8  # sysfs has Mb/s
HARD = ("rx_crc_errors",)  # a cable or a transceiver


def nics(
    net: Path = Path("/sys/class/net"), infiniband: Path = Path("/sys/class/infiniband")
) -> list[Result]:
    """All ports of this machine."""
    found: list[Result] = []
    for port in sorted(net.iterdir()) if net.is_dir() else []:
        if port.name != "lo" and (port / "operstate").exists():
            found += ethernet(port)
    if not found:
        found.append(Result("nic.link", "skipped", why="no network port here"))
    ports = sorted(infiniband.glob("*/ports/*")) if infiniband.is_dir() else []
    for port in ports:
        found += rdma(port)
    if not ports:
        found.append(Result("infiniband.link", "skipped", why="not here"))
    return found


def ethernet(port: Path) -> list[Result]:
    """Of a folder in /sys/class/net."""
    name, real = port.name, (port / "device").exists()
    enabled = int(_text(port / "flags") or "0", 16) & 1  # IFF_UP: somebody brought it up
    if not enabled or not real:
        why = "virtual" if not real else "not brought up"
        return [Result("nic.link", "skipped", what=name, why=why)]
    state = _text(port / "operstate")
    up = state in ("up", "unknown")  # unknown: the driver does not say, as of many virtual machines
    results = [Result("nic.link", "pass" if up else "fail", what=name, why="" if up else f"is {state}")]
    speed = _number(port / "speed")
    if speed is not None and speed > 0:
        results.append(Result("nic.speed", value=speed * BITS, unit="B/s", what=name))
    if _text(port / "duplex") == "half":
        results.append(Result("nic.duplex", "fail", what=name, why="half duplex: the other end disagrees"))
    changes = _number(port / "carrier_down_count")
    if changes is not None:
        results.append(Result("nic.downs", value=changes, what=name))
    crc = sum(_number(port / "statistics" / key) or 0.0 for key in HARD)
    results.append(Result("nic.errors", value=crc, what=name))
    return results


def rdma(port: Path) -> list[Result]:
    """Of a folder in /sys/class/infiniband/DEVICE/ports."""
    name = f"{port.parts[-3]}:{port.name}"
    state, physical = _text(port / "state"), _text(port / "phys_state")  # "4: ACTIVE", "5: LinkUp"
    up = state.endswith("ACTIVE") and physical.endswith("LinkUp")
    results = [
        Result(
            "infiniband.link",
            "pass" if up else "fail",
            what=name,
            why="" if up else f"is {state or 'unknown'}, {physical or 'unknown'}",
        )
    ]
    rate = re.match(r"([\d.]+) Gb/sec", _text(port / "rate"))  # "400 Gb/sec (4X NDR)"
    if rate:
        results.append(Result("infiniband.speed", value=float(rate[1]) * 1e9 / 8, unit="B/s", what=name))
    downs = _number(port / "counters" / "link_downed")
    if downs is not None:
        results.append(Result("infiniband.downs", value=downs, what=name))
    errors = [_number(port / "counters" / key) for key in ("symbol_error", "port_rcv_errors")]
    if any(value is not None for value in errors):
        results.append(Result("infiniband.errors", value=sum(filter(None, errors)), what=name))
    return results


def _text(file: Path) -> str:
    """What stands in a file of sysfs; "" where it cannot be read, as `speed` of a port that is down."""
    try:
        return file.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def _number(file: Path) -> float | None:
    text = _text(file)
    return float(text) if re.fullmatch(r"-?\d+", text) else None
