"""
A whole site under a virtual clock: machines, the very Command and Controller, a disk, a ledger, and faults.

A function of its shape and its seed alone: whoever has these sees the same storm again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from colossi.channel import Message
from colossi.control.actions import Action, Finish, GiveUp, Start, Stop
from colossi.control.events import Event as Heard
from colossi.control.events import TimePassed
from colossi.control.plan import Plan
from colossi.engines.command import SILENT_NODE_SECONDS, Command
from colossi.engines.takeover import commanding
from colossi.ledger.events import Event
from colossi.torture.checks import Checks, Witness
from colossi.torture.clock import BEGIN, VirtualClock
from colossi.torture.gang import Gang
from colossi.torture.keeping import Disk, ListLedger
from colossi.torture.machine import Machine

BEAT_SECONDS = 1.0  # as agent.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What a storm comes over."""

    plan: Plan
    racks: int
    spares: int
    copy_ranks: int
    step_seconds: float
    snapshot_every: int  # steps
    save_every: int  # steps
    keep: int  # checkpoints
    late: float  # the share of messages that take up to 3 s
    twice: float  # the share of news that comes twice
    repair_seconds: float  # until a lost machine is back
    kills_lost: bool  # the engine makes sure that of a lost node nothing is left, and starts it anew


class Site:
    """All but the faults that come over it, which are in storm.py."""

    def __init__(self, shape: Shape, draw: Random, tell: Callable[[str], object] | None) -> None:
        self.shape, self.plan, self.draw = shape, shape.plan, draw
        self.copy_ranks, self.step_seconds = shape.copy_ranks, shape.step_seconds
        self.snapshot_every, self.save_every = shape.snapshot_every, shape.save_every
        self._tell = tell
        self.clock = VirtualClock()
        self.ledger, self.disk = ListLedger(), Disk(keep=shape.keep)
        self.checks = Checks(self)
        self.machines: dict[str, Machine] = {}
        self.command: Command | None = None
        self.process = self.clock.of_a_process()  # of the command
        self.ended: Finish | GiveUp | None = None
        self.frozen = 0.0  # [s] until when the controller is
        self.full_until = 0.0  # [s] the disk
        self.stormy = True
        self.made: dict[int, tuple[int, int]] = {}  # content -> the incarnation and the step that made it
        self.wrong: dict[int, int] = {}  # content -> the one that it should have been
        self.on_happening: Callable[[str], None] = lambda what: None
        self._gangs: dict[int, Gang] = {}
        self._contents = self._wires = 0
        self._deadline = 0.0
        for number in range(self.plan.places + shape.spares):
            self.add(number)

    def add(self, number: int) -> None:
        """One more machine."""
        name = f"n{number}"
        rack = f"r{number % self.shape.racks}" if self.shape.racks > 1 else ""
        self.machines[name] = Machine(self, name, rack)
        self.machines[name].boot()

    # --- the controller -----------------------------------------------------------------------------------

    def command_anew(self, agents_live: bool = True) -> None:
        """A controller begins, or takes over from one that was killed, as the ledger has it."""
        self.process = self.clock.of_a_process()
        self.command = commanding(
            self.disk,
            self.ledger,
            self.plan,
            self.copy_ranks,
            snapshot_every=self.snapshot_every,
            agents_live=agents_live,
            clock=self.process,
        )
        self.command.controller = Witness(self.command.controller, self.plan, self)
        self.command.restart = self._lost
        self.command.record("controller_started", pid=0, took_over=self.command.took_over)
        self.tell("a controller takes over" if self.command.took_over else "a controller begins")
        self.happens("controller")

    def kill_controller(self) -> None:
        """Its connections end."""
        self.command, self.process.killed = None, True
        self.tell("the controller is killed")
        for machine in self.machines.values():
            if machine.line is not None:
                machine.line.reset(self.draw.uniform(0.0, 0.5), 0.0)

    def pulse(self) -> None:
        """Once a second: beats, and a look at the time. (The real one looks ten times a second.)"""
        if self.command is not None and self.command.ended is None and self.frozen <= self.clock.now():
            for machine in self.machines.values():
                if machine.line is not None and machine.awake:
                    machine.line.beat()
            self.tick()
        self.clock.later(BEAT_SECONDS, self.pulse)

    def tick(self) -> None:
        """The controller looks at the time, and is to do so again at its deadline."""
        command = self.command
        if command is None or command.ended is not None or self.frozen > self.clock.now():
            return
        command.tick()
        deadline = command.controller.deadline
        if deadline is not None and deadline > max(self.clock.now(), self._deadline):
            self._deadline = deadline
            self.clock.later(deadline - self.clock.now(), self.tick)

    def tick_when_silent(self) -> None:
        """The controller looks at the time just when somebody has been silent for too long."""
        self.clock.later(SILENT_NODE_SECONDS + self.draw.uniform(0.0, 0.1), self.tick)

    def _lost(self, node: str) -> None:
        """The controller has lost a node: an engine may see to it."""
        machine = self.machines[node]
        if self.shape.kills_lost:
            machine.die("is killed by the engine, as it is lost")
        if not machine.up:
            self.clock.later(self.shape.repair_seconds, self._repaired, machine)

    def _repaired(self, machine: Machine) -> None:
        if machine.name not in self.gone:
            machine.boot()

    gone: frozenset[str] = frozenset()  # machines that never come back

    # --- what machines ask of it --------------------------------------------------------------------------

    def latency(self) -> float:
        """Of a message [s]."""
        draw = self.draw
        return draw.uniform(0.0, 3.0) if draw.random() < self.shape.late else draw.uniform(0.0005, 0.005)

    def wires(self) -> int:
        """The number of one more connection."""
        self._wires += 1
        return self._wires

    def new_content(self, incarnation: int, step: int) -> int:
        """What no state was before."""
        self._contents += 1
        self.made[self._contents] = (incarnation, step)
        return self._contents

    def spoilt(self, content: int) -> int:
        """Another one in the place of this."""
        self._contents += 1
        self.wrong[self._contents] = content
        return self._contents

    def right(self, content: int) -> int:
        """What it should have been."""
        return self.wrong.get(content, content)

    def fingerprint(self, step: int, content: int) -> tuple[int, int]:
        """Of the gradient of a step and of the weights after it."""
        return (7 * step, 10 * step + (content in self.wrong))

    def gang(self, order: Message) -> Gang:
        """The workers of an incarnation, whose nodes and buddies the ledger has."""
        number = order["incarnation"]
        if number not in self._gangs:
            start = next(
                event
                for event in reversed(self.ledger.list)
                if event.kind == "incarnation_started" and event.incarnation == number
            )
            nodes, buddies = start.data["nodes"], start.data["buddies"]
            assert isinstance(nodes, Sequence) and isinstance(buddies, Sequence)
            self._gangs[number] = Gang(self, order, tuple(map(str, nodes)), tuple(map(str, buddies)))
        return self._gangs[number]

    @property
    def newest(self) -> Gang | None:
        """The workers of the newest incarnation that any agent has heard of."""
        return self._gangs[max(self._gangs)] if self._gangs else None

    def record(self, kind: str, incarnation: int, step: int | None, **data: Any) -> None:
        """Rank 0 writes into the ledger."""
        self.ledger.append(
            Event(time=self.clock.date(), kind=kind, incarnation=incarnation, step=step, data=data)
        )

    # --- the story ----------------------------------------------------------------------------------------

    def happens(self, what: str) -> None:
        """Something that a fault may have waited for."""
        self.on_happening(what)

    def tell(self, words: str) -> None:
        """Into the story."""
        if self._tell is not None:
            self._tell(f"{self.clock.now() - BEGIN:9.3f}  {words}")

    def tell_decision(self, event: Heard, actions: list[Action]) -> None:
        """Into the story: what a controller heard, and what it wants."""
        for action in actions:
            if isinstance(action, Start):
                self.happens("start")
            elif isinstance(action, Stop):
                self.happens("stop")
            elif isinstance(action, Finish | GiveUp):
                self.ended = action
        if self._tell is None or (isinstance(event, TimePassed) and not actions):
            return
        self.tell(f"  hears {_short(event)}")
        for action in actions:
            self.tell(f"    wants {_short(action)}")


def _short(what: object) -> str:
    text = repr(what)
    return text if len(text) <= 300 else f"{text[:297]}..."
