"""A controller, told what happens line by line: for tests of its rules."""

from collections.abc import Iterable
from typing import TypeVar

from colossi.control.actions import (
    Action,
    Note,
)
from colossi.control.controller import Controller
from colossi.control.events import (
    Event,
    Held,
    NodeJoined,
    NodeStopped,
    Snapshot,
    StepDone,
    TimePassed,
    WorkerExited,
)
from colossi.control.plan import Plan

Kind = TypeVar("Kind", bound=Action)

# Two nodes of two workers: two copies of the model, of two ranks each
PLAN = Plan(places=2, per_node=2, copy=2, shares=2, global_batch=8, steps=100)
# Four nodes of one worker: four copies; three do not divide the batch, two and one do
FOUR = Plan(places=4, per_node=1, copy=1, shares=1, global_batch=8, steps=100)


class Story:
    """A controller and its clock."""

    def __init__(self, plan: Plan = PLAN, *joined: str, controller: Controller | None = None) -> None:
        self.controller = controller or Controller(plan)
        self.plan = plan
        self.now = 1000.0
        for node in joined:
            self.hear(NodeJoined(node=node))

    def hear(self, *events: Event) -> list[Action]:
        """What it wants after these, together."""
        return [action for event in events for action in self.controller.on(event, self.now)]

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.hear(TimePassed())

    @property
    def incarnation(self) -> int:
        return self.controller.run.incarnation

    def step(self, step: int) -> list[Action]:
        return self.hear(StepDone(incarnation=self.incarnation, step=step))

    def exited(self, node: str, rank: int, *, fatal: bool = False) -> list[Action]:
        event = WorkerExited(node=node, rank=rank, incarnation=self.incarnation, why="SIGKILL", fatal=fatal)
        return self.hear(event)

    def stopped(self, **held: Held) -> list[Action]:
        """These nodes answer."""
        n = self.incarnation
        return self.hear(*(NodeStopped(node=node, incarnation=n, held=each) for node, each in held.items()))


def held(incarnation: int, world: int, ranks: Iterable[int], *steps: int) -> Held:
    return tuple(Snapshot(incarnation, world, rank, step) for rank in ranks for step in steps)


def one(actions: list[Action], kind: type[Kind]) -> Kind:
    """The only one of its kind."""
    (found,) = [action for action in actions if isinstance(action, kind)]
    return found


def kinds(actions: list[Action]) -> list[str]:
    """Notes by what they say, the others by name."""
    return [action.kind if isinstance(action, Note) else type(action).__name__ for action in actions]
