"""An event costs the same at 4 nodes and at 25,000. Counted in calls, so that no busy machine can spoil it.

Loops that call nothing are not counted, so seconds are compared too, with a bound that only a loop over the
nodes would break.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from types import FrameType

import pytest

from colossi.control.controller import Controller
from colossi.control.detector import Heartbeats
from colossi.control.events import (
    CheckpointDone,
    Event,
    NodeJoined,
    NodeLost,
    NodeStopped,
    Snapshot,
    StepDone,
    StragglerSuspected,
    TimePassed,
    WorkerExited,
)
from colossi.control.plan import Plan

FEW, MANY = 4, 25_000
PER_NODE = 8


def controller_of(places: int) -> Controller:
    """It runs, with spares in several racks."""
    plan = Plan(
        places=places,
        per_node=PER_NODE,
        copy=2 * PER_NODE,
        shares=2 * PER_NODE,
        global_batch=places * PER_NODE,
        steps=10**6,
    )
    controller = Controller(plan)
    for number in range(places + 3):
        controller.on(NodeJoined(node=f"n{number}", rack=f"r{number // 8}"), 1.0)
    assert controller.run.phase == "running"
    return controller


@pytest.fixture(scope="module")
def few() -> Controller:
    return controller_of(FEW)


@pytest.fixture(scope="module")
def many() -> Controller:
    return controller_of(MANY)


@contextmanager
def counted(calls: list[int]) -> Iterator[None]:
    """Calls of functions, Python's and C's."""

    def count(frame: FrameType, event: str, argument: object) -> None:
        if event in ("call", "c_call"):
            calls[0] += 1

    sys.setprofile(count)
    try:
        yield
    finally:
        sys.setprofile(None)


def cost(controller: Controller, event: Event) -> tuple[int, float]:
    """Calls, and seconds, of one event."""
    calls, begun = [0], time.perf_counter()
    controller.on(event, 2.0)
    seconds = time.perf_counter() - begun
    with counted(calls):
        controller.on(event, 2.0)
    return calls[0], seconds


def answer(controller: Controller, place: int) -> NodeStopped:
    """With two steps of its own ranks and of its ward's."""
    world, places = controller.run.ranks, len(controller.run.world)
    steps = [
        Snapshot(controller.run.incarnation, world, first * PER_NODE % world, step, PER_NODE)
        for first in (place, place + 1)
        for step in (3, 4)
    ]
    node = controller.run.world.nodes[place % places]
    return NodeStopped(node=node, incarnation=controller.run.incarnation, held=tuple(steps))


RUNNING: list[Event] = [
    StepDone(incarnation=1, step=3),
    CheckpointDone(incarnation=1, step=3),
    StragglerSuspected(node="nobody", rank=0, incarnation=1, factor=2.0),
    WorkerExited(node="n1", rank=8, incarnation=0, why="late"),
    NodeJoined(node="a spare", rack="r0"),
    NodeLost(node="a spare", why="gone"),
    NodeStopped(node="n1", incarnation=0, held=()),
    TimePassed(),
]


@pytest.mark.parametrize("event", RUNNING, ids=lambda event: type(event).__name__)
def test_while_it_runs(event: Event, few: Controller, many: Controller) -> None:
    assert cost(many, event)[0] <= cost(few, event)[0] + 2
    seconds = {one: median(cost(one, event)[1] for _ in range(51)) for one in (few, many)}
    assert seconds[many] <= 10 * seconds[few] + 20e-6


def calls_of(act: Callable[[], object]) -> int:
    calls = [0]
    with counted(calls):
        act()
    return calls[0]


def stopping_costs(controller: Controller) -> dict[str, int]:
    """Of a worker that dies, and of one answer after it; then all begins anew."""
    n = controller.run.incarnation
    node, places = controller.run.world.nodes[1], len(controller.run.world)
    died = WorkerExited(node=node, rank=PER_NODE, incarnation=n, why="killed by SIGKILL")
    costs = {"failure": calls_of(lambda: controller.on(died, 3.0))}
    answers = [answer(controller, place) for place in range(places)]
    for each in answers[:-2]:
        controller.on(each, 3.0)
    costs["answer"] = calls_of(lambda: controller.on(answers[-2], 3.0))
    costs["begin"] = calls_of(lambda: controller.on(answers[-1], 3.0))
    assert controller.run.phase == "running" and controller.run.newest == 4
    return costs


def test_when_it_stops(few: Controller, many: Controller) -> None:
    """Only the beginning costs the size of the world, and little of it for each node."""
    at_few, at_many = stopping_costs(few), stopping_costs(many)
    assert at_many["failure"] <= at_few["failure"] + 2
    assert at_many["answer"] <= at_few["answer"] + 2
    assert at_many["begin"] / MANY <= at_few["begin"] / FEW


def test_heartbeats() -> None:
    """A beat, and a question when nobody is silent."""

    def beats_of(nodes: int) -> int:
        beats = Heartbeats(15.0)
        for number in range(nodes):
            beats.beat(f"n{number}", number / nodes)
        return calls_of(lambda: beats.beat("n0", 2.0)) + calls_of(lambda: beats.overdue(3.0))

    assert beats_of(MANY) == beats_of(FEW)
