"""
What a step and a run take from the grid: the servers' draw by what they do, times the site's overhead.

A step's parts are its times in sight, so each has one activity. A wait for other ranks (bubble, jitter) is a
kernel that polls, as an exposed collective is.
"""

from colossi.plan.goodput import Goodput
from colossi.spec.hardware import Activity, Node

STEP: dict[str, Activity] = {
    "compute": "compute",
    "recompute": "compute",
    "tensor": "communication",
    "context": "communication",
    "expert": "communication",
    "pipeline": "communication",
    "data": "communication",
    "bubble": "communication",
    "optimizer": "memory",
    "jitter": "communication",
}
# What GPUs do in the parts of a run's time that are no steps, in the planner's words and in the ledger's.
# Until a fault is noticed, ranks wait in a collective for the one that is gone.
OUTSIDE: dict[str, Activity] = {
    "startup": "idle",
    "snapshot": "memory",
    "checkpoint": "idle",
    "detection": "communication",
    "restart": "idle",
    "planned": "idle",
    "waiting": "idle",
    "idle": "idle",
}
STEPS = ("productive", "lost work", "recomputation")  # parts that are steps


def step_joules(parts: dict[str, float], server: Node, floor: float = 0.0) -> float:
    """Energy of one server in one step [J], without the site's overhead; `parts` in seconds."""
    return sum(seconds * server.watts(STEP[part], floor) for part, seconds in parts.items())


def run_watts(parts: dict[str, float], good: Goodput, server: Node) -> float:
    """Mean draw of one server over a whole run [W], failures included, without the site's overhead."""
    stepping = step_joules(parts, server) / sum(parts.values())
    return sum(
        share * (stepping if part in STEPS else server.watts(OUTSIDE[part]))
        for part, share in good.parts.items()
    )
