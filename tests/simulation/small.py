"""Small machines to break, with steps of a second."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from colossi.control.plan import Plan
from colossi.ledger.events import Event
from colossi.simulation import striking
from colossi.simulation.engine import BEGINNING
from colossi.simulation.scenario import Scenario
from colossi.spec.failures import failure_rates
from colossi.world.failures import Fault
from colossi.world.machinery import Machinery

MACHINERY = Machinery(
    nodes=6,
    gpus_per_node=2,
    nics_per_node=2,
    nodes_per_rack=1,
    racks_per_feed=8,
    nodes_per_leaf=32,
    leaves=2,
    spines=0,
    cores=0,
    cables=12,
)
# Four nodes of two, two nodes more; one copy of the model on all, so that it never shrinks
SCENARIO = Scenario(
    plan=Plan(places=4, per_node=2, copy=8, shares=8, global_batch=8, steps=1000, wait_seconds=1e6),
    machinery=MACHINERY,
    rates=failure_rates("llama3"),
    seconds=1e6,
    step_seconds=1.0,
    tokens_per_step=100,
    checkpoint_every=50,
    checkpoint=5.0,
    snapshot_every=1,
    snapshot=0.0,
    detection=10.0,
    restart=20.0,
    reload=30.0,
    facts={"world": 8, "steps": 1000},
)


def scenario(**changes: Any) -> Scenario:
    """The small one, otherwise."""
    return replace(SCENARIO, **changes)


def plan(**changes: Any) -> Plan:
    return replace(SCENARIO.plan, **changes)


def fault(time: float, effect: Any, *nodes: int, repair: float = 1000.0, factor: float = 1.0) -> Fault:
    return Fault(time, "part", effect, nodes, repair, factor)


def kinds(history: Sequence[Event]) -> list[str]:
    return [event.kind for event in history]


def of_kind(history: Sequence[Event], kind: str) -> list[Event]:
    return [event for event in history if event.kind == kind]


def at(event: Event) -> float:
    return event.time - BEGINNING


def play(*faults: Fault, arrivals: Sequence[float] = (), **changes: object) -> list[Event]:
    return striking.play(scenario(**changes), faults, arrivals)
