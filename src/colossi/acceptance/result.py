"""
What one check found on one node: a value in base units, and whether that will do.

A check that knows by itself that something is wrong says so; otherwise limits and the other nodes decide
(judging.py).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Status = Literal["pass", "warn", "fail", "skipped"]
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"))
WORSE: tuple[Status, ...] = ("skipped", "pass", "warn", "fail")  # each is worse than those before it


@dataclass(frozen=True, slots=True)
class Result:
    """Of one thing that was looked at."""

    check: str  # group and name, as memory.bandwidth
    status: Status = "pass"
    value: float | None = None
    unit: str = ""  # a base unit: B/s, B, s, FLOP/s, or "" for a count
    what: str = ""  # which one of several: eth0, GPU 3
    limit: str = ""  # in words, where there is one: "at least 48 GB/s"
    why: str = ""  # it did not pass
    seconds: float = 0.0  # that the check took

    @property
    def name(self) -> str:
        """As people read it: nic.speed eth0."""
        return f"{self.check} {self.what}" if self.what else self.check

    def as_json(self) -> dict[str, Any]:
        """A JSON object without what is empty."""
        full = asdict(self) | {"seconds": round(self.seconds, 3)}
        return {key: value for key, value in full.items() if value not in ("", None)}

    @classmethod
    def of(cls, document: dict[str, Any]) -> "Result":
        """What `as_json` made; a ValueError if it is none."""
        try:
            return cls(**document)
        except TypeError as error:
            raise ValueError(f"no result of a check: {error}") from None


def group_of(check: str) -> str:
    """What a check belongs to, by its name or that of a result: gpu for gpu-log and gpu.count."""
    group = check.partition(".")[0].partition("-")[0]
    return "nic" if group == "infiniband" else group


def quantity(value: float | None, unit: str) -> str:
    """12.3 GB/s; a count has no unit."""
    if value is None:
        return ""
    if not unit or unit == "°C":
        return f"{value:g} {unit}".strip()
    size, prefix = next(((s, p) for s, p in PREFIXES if abs(value) >= s), PREFIXES[-1])
    return f"{value / size:.3g} {prefix}{unit}" if value else f"0 {unit}"


def verdict(results: Sequence[Result]) -> Status:
    """The worst of all; what was skipped is no fault."""
    worst = max((WORSE.index(result.status) for result in results), default=0)
    return WORSE[max(worst, WORSE.index("pass"))]


def reasons(results: Sequence[Result], status: Status = "fail") -> str:
    """Why, in one line: what has this status, by name."""
    return "; ".join(f"{result.name}: {result.why}" for result in results if result.status == status)
