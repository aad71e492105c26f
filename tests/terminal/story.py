"""One short run, told in events: two incarnations, eight experts, a checkpoint, an end."""

from collections.abc import Iterable

from colossi.ledger.events import JSON, Event
from colossi.terminal.state import RunState, advance

NOON = 1_790_000_000.0
START: dict[str, JSON] = {
    "workers": 2,
    "hostname": "node-7",
    "parameters": 4_213_760,
    "active_parameters": 1_640_000,
    "flops_per_token": 1e7,
    "peak_flops": 4e11,
    "steps": 800,
    "tokens_per_step": 8192,
    "layout": {"replicate": 1, "shard": 2, "tensor": 1, "expert": 2},
}
EVEN: list[JSON] = [1 / 8] * 8


def at(second: float, kind: str, incarnation: int = 1, step: int | None = None, **data: JSON) -> Event:
    return Event(time=NOON + second, kind=kind, incarnation=incarnation, step=step, data=data)


def start(second: float, incarnation: int = 1, **more: JSON) -> Event:
    return Event(time=NOON + second, kind="run_started", incarnation=incarnation, data=START | more)


def done(step: int, incarnation: int = 1, **more: JSON) -> Event:
    """Step s ends at second s of the run, took one second, and its loss is 8 / s."""
    data: dict[str, JSON] = {
        "loss": 8.0 / step,
        "tokens": 8000,
        "seconds": 1.0,
        "learning_rate": 3e-3,
        "gradient_norm": 0.767,
        "router_max": 2.1,
        "expert_load": EVEN,
    }
    return Event(time=NOON + step, kind="step_done", incarnation=incarnation, step=step, data=data | more)


STORY = [
    start(0),
    *(done(step) for step in range(1, 41)),
    at(40, "checkpoint_begun", 1, 40),
    at(40.5, "checkpoint_complete", 1, 40, seconds=0.5, stall_seconds=0.0, bytes=51_234_567),
    at(41, "failed", 1, 40, why="killed by signal 9", rank=1),
    start(42, 2),
    at(43, "resumed", 2, from_step=40, source="disk"),
    *(done(step, 2) for step in range(45, 201)),
]


def after(events: Iterable[Event], name: str = "laptop") -> RunState:
    state = RunState(name=name)
    for event in events:
        state = advance(state, event)
    return state


def formed(second: float, incarnation: int, reason: str = "", **counts: JSON) -> Event:
    """An incarnation of two workers, if nothing else is said, begins."""
    data: dict[str, JSON] = {"workers": 2, "missing": 0, "spares": 0, "reason": reason}
    return at(second, "incarnation_started", incarnation, **(data | counts))


KILLED = "worker 1 killed by SIGKILL"
SURVIVED = [  # a kill; then a node is lost and the world shrinks; then it grows again
    at(0, "controller_started", 0, pid=7, took_over=False),
    formed(0, 1, spares=1),
    start(0),
    *(done(step) for step in range(1, 21)),
    at(20.5, "fault", 1, 20, cause=KILLED, node="node-1", rank=1, seconds_to_detect=0.25),
    at(20.5, "workers_stopped", 1, 20),
    formed(20.75, 2, KILLED, spares=1),
    start(20.75, 2),
    at(21, "restored", 2, 20, from_step=20, source="memory", seconds=0.1),
    *(done(step, 2, seconds=0.25) for step in range(22, 31)),
    at(32, "fault", 2, 30, cause="node-0 lost: silent", node="node-0", seconds_to_detect=1.5),
    at(32, "shrunk", 2, 30, node="node-0", why="1 of 2 nodes goes on"),
    formed(33, 3, "node-0 lost: silent", workers=1, missing=1),
    start(33, 3, workers=1),
    at(33, "restored", 3, 28, from_step=28, source="buddy", seconds=0.1),
    at(35, "step_done", 3, 29, loss=0.3, tokens=8000, seconds=1.0),
    at(37, "step_done", 3, 30, loss=0.3, tokens=8000, seconds=1.0),
    at(37.5, "grown", 3, 30, node="node-3", why="node-3 has come"),
    formed(38, 4),
    start(38, 4),
    at(40, "step_done", 4, 31, loss=0.3, tokens=8000, seconds=1.0),
]
