"""
Where a run stands: all that the controller remembers, and the moves that its decisions are made of.

Knows no events. A node in the world whose place is not vacant belongs to the next incarnation too.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from colossi.control import policy
from colossi.control.actions import Action, Check, Finish, GiveUp, Quarantine, SaveAndStop, Stop
from colossi.control.events import Held
from colossi.control.fleet import Fleet
from colossi.control.memory import Memory
from colossi.control.plan import Plan
from colossi.control.suspicion import Suspicion
from colossi.control.world import World

Phase = Literal["waiting", "running", "stopping", "adopting", "ended"]
_PLAIN = (
    "phase",
    "deadline",
    "incarnation",
    "highest",
    "newest",
    "saved",
    "first_done",
    "failed",
    "why",
    "fruitless",
    "checkpoint_due",
    "waiting_since",
    "absent",
    "stop_wanted",
)


@dataclass(slots=True)
class Standing:
    """Times are on the controller's clock [s]."""

    plan: Plan
    phase: Phase = "waiting"
    deadline: float | None = 0.0  # when TimePassed is wanted; 0.0 is at once
    incarnation: int = 0  # that runs, or ran last
    highest: int = 0  # the highest number of an incarnation that was heard of
    newest: int = 0  # the newest step that was done, on this course
    saved: int = 0  # the newest step that is known to be on the disk
    first_done: int | None = None  # the first step that this incarnation did
    failed: Literal["", "worker", "node"] = ""  # what ended this incarnation, if that was a failure
    why: str = ""  # it was stopped
    fruitless: dict[str, int] = field(
        default_factory=dict
    )  # what failed -> incarnations in a row without a step
    checkpoint_due: float | None = None
    waiting_since: float | None = None
    absent: int = 0  # nodes of the controller before that have not come back yet
    stop_wanted: str = ""  # why, if somebody asked
    doom: GiveUp | None = None  # as soon as nothing runs
    suspicion: Suspicion | None = None
    fleet: Fleet = field(default_factory=Fleet)
    memory: Memory = field(default_factory=Memory)
    world: World = field(default_factory=World)

    @property
    def live(self) -> bool:
        """Whether the current incarnation is to go on."""
        return self.phase in ("running", "adopting")

    @property
    def available(self) -> int:
        """Nodes that the next incarnation can have."""
        return self.world.survivors + self.fleet.spare_count

    @property
    def ranks(self) -> int:
        """Workers of the current world."""
        return len(self.world) * self.plan.per_node

    def trusts(self, step: int) -> bool:
        """Whether this incarnation's state after a step is beyond doubt."""
        doubt = self.suspicion
        return doubt is None or doubt.incarnation < self.incarnation or step <= doubt.trusted

    def fail(self, why: str, what: Literal["worker", "node"], now: float) -> list[Action]:
        """Something broke: end this incarnation, to begin another."""
        self.failed = what
        return self.stop(why, now)

    def stop(self, why: str, now: float) -> list[Action]:
        """End this incarnation; the next one begins when all of its nodes have answered or are lost."""
        nodes: Sequence[str] = self.world.connected(self.fleet)
        if self.phase == "adopting":  # who has not come back yet is told when it does
            nodes = tuple(node for node in nodes if node in self.fleet.racks)
        self.why = why
        self.await_answers(now)
        return [Stop(incarnation=self.incarnation, nodes=nodes, why=why)] if nodes else []

    def await_answers(self, now: float) -> None:
        """Nothing begins before every node has said that nothing runs on it."""
        self.phase = "stopping"
        self.deadline = now + policy.STOP_SECONDS

    def give_up_on(self, nodes: Iterable[str]) -> None:
        """These did not say in time that nothing runs on them; what still does has nobody to talk to."""
        for node in nodes:
            self.fleet.runs.discard(node)
            self.world.vacate(node)

    def at_rest(self, node: str, held: Held) -> list[Action]:
        """Nothing runs on a node that is connected: take its snapshots, and see what it is good for."""
        if self.fleet.quarantined.get(node, True):
            self.memory.put(node, held)
        return self.use(node)

    def use(self, node: str) -> list[Action]:
        """A node without workers, connected: in its place, or to be checked, or a spare."""
        fleet = self.fleet
        if node in fleet.quarantined or node in self.world:
            return []
        if node in fleet.aside:
            return [Check(node=node)]
        fleet.add_spare(node)
        return []

    def strike(self, node: str, now: float, why: str) -> list[Action]:
        """A node has failed. Too often, and it is out, unless the run could not go on without it."""
        strikes = self.fleet.strike(node, now)
        without = self.available - (node in self.world)
        if not policy.is_lemon(strikes, now, self.plan.strikes) or self.plan.largest(without) is None:
            return []
        return self.exclude(node, f"it failed {len(strikes)} times in a day, now: {why}", readable=True)

    def exclude(self, node: str, why: str, *, readable: bool) -> list[Action]:
        """Never use a node again; `readable` is whether the snapshots in its memory still count."""
        if node in self.fleet.quarantined:
            return []
        self.fleet.quarantine(node, readable=readable)
        self.world.vacate(node)
        if not readable:
            self.memory.forget(node)
        return [Quarantine(node=node, why=why)]

    def set_checkpoint(self, now: float) -> None:
        """While the run goes on, the deadline is the next checkpoint."""
        self.deadline = None
        if self.plan.checkpoint_seconds is not None and not self.stop_wanted:
            if self.checkpoint_due is None:
                self.checkpoint_due = now + self.plan.checkpoint_seconds
            self.deadline = self.checkpoint_due

    def save_and_stop(self) -> list[Action]:
        """End well, as was asked."""
        self.deadline = None
        return [SaveAndStop(incarnation=self.incarnation, why=self.stop_wanted)]

    def end(self, action: Finish | GiveUp) -> list[Action]:
        """Nothing follows."""
        self.phase, self.deadline = "ended", None
        return [action]

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {name: getattr(self, name) for name in _PLAIN} | {
            "fruitless": dict(self.fruitless),
            "doom": asdict(self.doom) if self.doom else None,
            "suspicion": self.suspicion.state() if self.suspicion else None,
            "fleet": self.fleet.state(),
            "memory": self.memory.state(),
            "world": self.world.state(),
        }

    @classmethod
    def from_state(cls, plan: Plan, state: Mapping[str, Any]) -> "Standing":
        """What `state` told."""
        world = World.from_state(state["world"])
        run = cls(
            plan,
            doom=GiveUp(**state["doom"]) if state["doom"] else None,
            suspicion=Suspicion.from_state(state["suspicion"]) if state["suspicion"] else None,
            fleet=Fleet.from_state(state["fleet"], world.places),
            memory=Memory.from_state(state["memory"]),
            world=world,
        )
        for name in _PLAIN:
            setattr(run, name, state[name])
        return run
