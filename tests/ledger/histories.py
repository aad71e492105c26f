"""Events of small histories, in few words."""

from colossi.ledger.clock import LOSSES, PARTS
from colossi.ledger.events import JSON, Event


def at(time: float, kind: str, incarnation: int = 1, step: int | None = None, **data: JSON) -> Event:
    return Event(time=time, kind=kind, incarnation=incarnation, step=step, data=data)


def done(
    time: float, step: int, loss: float = 1.0, incarnation: int = 1, seconds: float = 1.0, stall: float = 0.0
) -> Event:
    return at(
        time, "step_done", incarnation, step, loss=loss, tokens=100, seconds=seconds, stall_seconds=stall
    )


def start(time: float, incarnation: int = 1, **data: JSON) -> Event:
    known: dict[str, JSON] = {"flops_per_token": 1e6, "peak_flops": 1e9, "steps": 5, "workers": 2}
    return at(time, "run_started", incarnation, None, **(known | data))


def world(
    time: float, incarnation: int, workers: int, missing: int = 0, spares: int = 0, reason: str = ""
) -> Event:
    data: dict[str, JSON] = {"workers": workers, "missing": missing, "spares": spares, "reason": reason}
    return at(time, "incarnation_started", incarnation, None, **data)


def parts(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(PARTS, 0.0) | seconds


def lost(**seconds: float) -> dict[str, float]:
    return dict.fromkeys(LOSSES, 0.0) | seconds
