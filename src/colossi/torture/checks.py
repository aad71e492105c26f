"""
What must hold whatever happens, checked against the truth that only a simulation knows.

A promise that is broken is a `Broken`, which says what was seen and when.
"""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

from colossi.channel import Message
from colossi.control import events
from colossi.control.actions import DISK, Action, Distrust, Finish, GiveUp, Quarantine, Start
from colossi.control.controller import Controller
from colossi.control.plan import Plan
from colossi.torture.state import take

if TYPE_CHECKING:
    from colossi.torture.gang import Gang
    from colossi.torture.machine import Machine
    from colossi.torture.site import Site

THAW_SECONDS = 1.2  # [s] in which a node that was frozen ends its workers, see agent.STOP_SECONDS
TWINS = 0.05  # of the events are heard by a controller that was made from the JSON of the other, too


class Broken(AssertionError):
    """A promise was not kept."""


def hold(kept: bool, words: str) -> None:
    """As an assert, that no switch turns off."""
    if not kept:
        raise Broken(words)


class Witness(Controller):
    """A controller whose events and actions are seen. It decides as the one that it is made from."""

    def __init__(self, inner: Controller, plan: Plan, site: "Site") -> None:
        self.run, self.plan, self.site = inner.run, plan, site

    def on(self, event: events.Event, now: float) -> list[Action]:
        """Now and then it goes on as the one that was made from its JSON."""
        site, ended = self.site, self.run.phase == "ended"
        site.checks.hears(event)
        twin = None
        if site.draw.random() < TWINS:
            twin = Controller.from_state(self.plan, json.loads(json.dumps(self.state())))
        actions = super().on(event, now)
        if twin is not None:
            hold(twin.on(event, now) == actions, "from its JSON it decides otherwise")
            hold(json.dumps(twin.state()) == json.dumps(self.state()), "from its JSON it becomes another")
            self.run = twin.run
        hold(not (ended and actions), f"after its end it wants {actions}")
        site.tell_decision(event, actions)
        for action in actions:
            site.checks.wants(action)
        return actions


class Checks:
    """The truth about a storm, and what the controllers were told of it."""

    def __init__(self, site: "Site") -> None:
        self.site = site
        self.newest = 0  # incarnation that was begun, by any controller
        self.quarantined: dict[str, int] = {}  # node -> the newest incarnation when that was said
        self.saved: dict[int, int] = {}  # checkpoints whose completion a controller was told of
        self.doubted: dict[int, int] = {}  # incarnation -> the last of its steps that is beyond doubt
        self.stepped = 0.0  # [s] when a step was done last
        self.steps = 0
        self.incarnations = 0
        self.fruitless = 0  # incarnations in a row without a step that is beyond doubt, as far as was told
        self.before = 0  # the same, before the newest one
        self.fatal = False

    # --- what a controller hears, and wants ---------------------------------------------------------------

    def hears(self, event: events.Event) -> None:
        """What it cannot say later that it did not know."""
        newest = self.newest
        if isinstance(event, events.CheckpointDone) and not event.why:
            self.saved = {step: c for step, c in self.site.disk.whole.items() if step <= event.step}
        elif isinstance(event, events.CorruptionSuspected) and event.incarnation == newest:
            self.doubted[event.incarnation] = event.step - 1 if event.agreed is None else event.agreed
            self.fruitless = self.before + 1
        elif isinstance(event, events.StepDone) and event.incarnation == newest:
            trusted = event.step <= self.doubted.get(newest, event.step)
            self.fruitless = 0 if trusted else self.fruitless

    def wants(self, action: Action) -> None:
        """Every action, before it is carried out."""
        if isinstance(action, Start):
            self._starts(action)
        elif isinstance(action, Quarantine):
            hold(action.node not in self.quarantined, f"{action.node} is quarantined twice")
            self.quarantined[action.node] = self.newest
        elif isinstance(action, Distrust):
            self.saved = {step: c for step, c in self.saved.items() if step <= action.step}
        elif isinstance(action, Finish):
            self._finishes(action)
        elif isinstance(action, GiveUp):
            self._gives_up(action)

    def _starts(self, start: Start) -> None:
        site, plan = self.site, self.site.plan
        hold(start.incarnation > self.newest, f"incarnation {start.incarnation} is begun a second time")
        self.newest = start.incarnation
        self.incarnations += 1
        self.before = self.fruitless
        self.fruitless += 1
        hold(len(set(start.nodes)) == len(start.nodes), "a node has two places")
        fits = len(start.nodes) * plan.per_node == start.replicate * plan.copy
        hold(
            fits and start.replicate <= plan.replicate,
            f"{len(start.nodes)} nodes are no {start.replicate} copies",
        )
        hold(plan.global_batch % (start.replicate * plan.shares) == 0, "the batch is not dealt out evenly")
        out = [node for node in start.nodes if node in self.quarantined]
        hold(not out, f"incarnation {start.incarnation} is to run on {out}, which are quarantined")
        for machine in site.machines.values():
            # A broken kernel's node is fenced off: nobody can end what is on it. A connection that has ended
            # may be all that is lost, and a node that was frozen may be late: `works` sees if such workers
            # get on.
            line, thawed = machine.line, site.clock.now() - machine.frozen < THAW_SECONDS
            unsure = machine.mute or machine.orphaned or thawed or (line is not None and line.cut)
            if machine.workers and machine.awake and not unsure:
                numbers = {worker.incarnation for worker in machine.workers.values()}
                words = f"workers of incarnation {numbers} still are on {machine.name}"
                hold(False, f"incarnation {start.incarnation} is begun while {words}")
        if start.restore == DISK:
            return
        newest = max(self.saved, default=0)
        words = f"incarnation {start.incarnation} goes back to step {start.restore} in memory"
        hold(start.restore >= newest, f"{words}, and step {newest} is on the disk")
        self._sources(start)

    def _sources(self, start: Start) -> None:
        """Every rank's part of one and the same state is where it is said to be."""
        site = self.site
        per_node = site.plan.per_node
        if start.sources is not None:
            places: Iterable[tuple[int, str]] = start.sources.items()
        else:
            own = {r: start.nodes[r // per_node] for r in range(len(start.nodes) * per_node)}
            places = (own | dict(start.fetch)).items()
        contents = set()
        for rank, node in places:
            command = site.command
            hold(
                command is not None and node in command.agents,
                f"rank {rank} is to get its state from {node}, which is lost",
            )
            machine = site.machines[node]
            if (
                not machine.up
                or machine.line is None
                or command is None
                or command.agents[node] is not machine.line
            ):
                continue  # nobody can know that yet
            whole = machine.memory.get(rank, start.restore)
            hold(whole is not None, f"step {start.restore} of rank {rank} is not in the memory of {node}")
            if whole is not None:
                contents.add(site.right(take(whole)))
        hold(len(contents) <= 1, f"step {start.restore} is of different states: {contents}")

    def _finishes(self, finish: Finish) -> None:
        site = self.site
        if not finish.stopped:
            hold(finish.step == site.plan.steps, f"it is finished at step {finish.step} of {site.plan.steps}")
            hold(finish.step in site.disk.whole, "it is finished, and its last checkpoint is not on the disk")

    def _gives_up(self, action: GiveUp) -> None:
        plan = self.site.plan
        if "no step was done" in action.why:
            words = f"it gives up for want of steps, after {self.fruitless} incarnations without one"
            hold(self.fruitless >= plan.fruitless, words)
        elif "are wanted" in action.why:
            fit = [m for m in self.site.machines.values() if m.line and m.name not in self.quarantined]
            usable = plan.largest(len(fit))
            hold(
                usable is None or self.site.stormy, f"it gives up for want of nodes, and there are {len(fit)}"
            )
        elif "times in a row" not in action.why:
            hold(self.fatal, f"it gives up without need: {action.why}")

    # --- what machines do ---------------------------------------------------------------------------------

    def starts(self, machine: "Machine", order: Message) -> None:
        """An agent begins its part of an incarnation."""
        n = order["incarnation"]
        running = {worker.incarnation for worker in machine.workers.values()}
        hold(not running, f"{machine.name} is to run incarnation {n} beside {running}")
        hold(
            machine.name not in self.quarantined, f"{machine.name} is quarantined, and to run incarnation {n}"
        )

    def works(self, gang: "Gang") -> None:
        """Workers have done a step."""
        words = f"incarnation {gang.incarnation} does a step after incarnation {self.newest} was begun"
        hold(gang.incarnation == self.newest, words)
        out = [node for node in gang.nodes if self.quarantined.get(node, gang.incarnation) < gang.incarnation]
        hold(not out, f"{out} are quarantined and at work")

    def prunes(self) -> None:
        """Older checkpoints have gone for one that is complete."""
        self.saved = {step: content for step, content in self.saved.items() if step in self.site.disk.whole}

    def progress(self) -> None:
        """A step is done."""
        self.stepped = self.site.clock.now()
        self.steps += 1

    def one_of(self, gang: "Gang", contents: set[int]) -> int:
        """What all ranks have restored."""
        hold(len(contents) == 1, f"incarnation {gang.incarnation} restored different states: {contents}")
        return next(iter(contents))

    def restored(self, gang: "Gang") -> None:
        """The state to go on from."""
        incarnation, step = self.site.made.get(gang.content, (0, 0))
        doubted = step > self.doubted.get(incarnation, step)
        hold(not doubted, f"incarnation {gang.incarnation} goes on from step {gang.step}, which is in doubt")
        if gang.restore < 0:
            newest = max(self.saved, default=0)
            hold(
                gang.step >= newest,
                f"the checkpoint of step {newest} is lost: it goes on from step {gang.step}",
            )
