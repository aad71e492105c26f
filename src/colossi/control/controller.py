"""
The state machine that keeps a run going: an event in, actions out.

It does no I/O, reads no clock, draws no random numbers; its whole state is JSON. An event costs the same for
4 nodes and for 25,000, but for those with which an incarnation ends or begins. It believes what events say:
on a lost node nothing runs, and nothing of that incarnation on a node that answered its Stop. What one node
tells comes in order; else anything may come late, or twice.

    waiting -> running -> stopping -> (waiting ->) running -> ... -> ended
    adopting -> running or stopping
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from colossi.control import policy
from colossi.control.actions import DISK, Action, Checkpoint, Finish, GiveUp, Note, Stop
from colossi.control.doubting import compare, suspect
from colossi.control.events import (
    AllDone,
    CheckpointDone,
    CorruptionSuspected,
    Event,
    FingerprintsTaken,
    NodeChecked,
    NodeJoined,
    NodeLost,
    NodeStopped,
    StepDone,
    StopWanted,
    StragglerSuspected,
    TimePassed,
    WorkerExited,
    WorkerHung,
    WorldStopped,
)
from colossi.control.forming import go_on
from colossi.control.plan import Plan
from colossi.control.standing import Standing
from colossi.control.suspicion import Suspicion
from colossi.control.world import World


class Controller:
    """Hears events with `on`; at its `deadline` it wants to hear TimePassed (0.0 is at once)."""

    def __init__(
        self,
        plan: Plan,
        first_incarnation: int = 1,
        *,
        saved: int = 0,
        quarantined: Iterable[str] = (),
        strikes: Mapping[str, Sequence[float]] | None = None,
        corruptions: Mapping[str, int] | None = None,
    ) -> None:
        """Of a run that begins, or begins again from disk, where `saved` is the newest step.

        Where it was trained before, `quarantined` are nodes not to be used, `strikes` says when nodes failed
        (on the clock of `on`), and `corruptions` how often their results were wrong.
        """
        before = first_incarnation - 1
        self.run = Standing(plan, incarnation=before, highest=before, saved=saved)
        fleet = self.run.fleet
        for node in quarantined:
            fleet.quarantine(node, readable=False)
        fleet.strikes = {node: list(times) for node, times in (strikes or {}).items()}
        fleet.corruptions = dict(corruptions or {})

    @classmethod
    def take_over(
        cls,
        plan: Plan,
        *,
        incarnation: int,
        nodes: Sequence[str],
        replicate: int,
        quarantined: Iterable[str] = (),
        strikes: Mapping[str, Sequence[float]] | None = None,
        corruptions: Mapping[str, int] | None = None,
        step: int = 0,
        restored: int = DISK,
        saved: int = 0,
        before: Iterable[tuple[int, int]] = (),
        first_done: int | None = None,
        fruitless: Mapping[str, int] | None = None,
        aside: Mapping[str, str] | None = None,
        suspicion: CorruptionSuspected | None = None,
    ) -> "Controller":
        """In the place of one that was killed while this incarnation ran on these nodes, by place.

        `step` is the newest that this incarnation did, `restored` the one that it began from, `saved` the
        newest that is on the disk; `before` says from which ones those before it did (number, step), oldest
        first: snapshots that are older than the incarnation before the first of these do not count.
        `first_done` is the first step that it did itself, `fruitless` says how many before it did none,
        by what failed, and `aside` which nodes are still to be checked, and why. `suspicion` is the last one
        that was heard. It waits for the nodes to come back; if all do, and nothing is wrong, the run simply
        goes on.
        """
        self = cls(plan, incarnation + 1, quarantined=quarantined, strikes=strikes, corruptions=corruptions)
        run = self.run
        run.phase, run.newest, run.saved = "adopting", max(step, restored, 0), saved
        run.first_done = first_done
        run.fruitless, run.fleet.aside = dict(fruitless or {}), dict(aside or {})
        run.world = World.of(tuple(nodes), ("",) * len(nodes), replicate)
        run.fleet.runs.begin(incarnation, run.world.places)
        for node in run.fleet.quarantined:
            run.world.vacate(node)
        run.absent = run.world.survivors
        for number, began in (*before, (incarnation, restored)):
            run.memory.oldest = run.memory.oldest or number - 1
            run.memory.begin(number, began, run.world)
        if suspicion and (suspicion.incarnation == incarnation or suspicion.step >= step):
            run.suspicion = Suspicion.of(suspicion, run.ranks)
            if saved > run.suspicion.trusted:
                run.saved = 0  # there may be an older one
        return self

    @property
    def deadline(self) -> float | None:
        """When TimePassed is wanted, on the clock of `now`; None for never, 0.0 for at once."""
        return self.run.deadline

    def state(self) -> dict[str, Any]:
        """All that it remembers, as JSON."""
        return self.run.state()

    @classmethod
    def from_state(cls, plan: Plan, state: Mapping[str, Any]) -> "Controller":
        """The controller that `state` came from, as it was then."""
        self = cls(plan)
        self.run = Standing.from_state(plan, state)
        return self

    def on(self, event: Event, now: float) -> list[Action]:
        """What to do about it. `now` [s] never runs backwards."""
        run = self.run
        if run.phase == "ended":
            return []
        if run.phase == "adopting" and run.deadline == 0.0:
            run.deadline = now + policy.ADOPT_SECONDS
        actions = self._hear(event, now)
        if run.phase in ("stopping", "waiting") and not run.fleet.runs:
            actions += go_on(run, now)
        return actions

    def _hear(self, event: Event, now: float) -> list[Action]:
        match event:
            case NodeJoined():
                return self._joined(event, now)
            case NodeLost():
                return self._lost(event, now)
            case NodeStopped():
                return self._stopped(event, now)
            case WorldStopped():
                return self._all_stopped(event, now)
            case NodeChecked():
                return self._checked(event, now)
            case StopWanted():
                return self._stop_wanted(event)
            case TimePassed():
                return self._time_passed(now)
        on_disk = isinstance(event, CheckpointDone)  # is true whenever it is heard
        if event.incarnation != self.run.incarnation or (self.run.phase == "waiting" and not on_disk):
            return []  # late
        match event:
            case StepDone():
                return self._step_done(event, now)
            case CheckpointDone():
                return self._checkpoint_done(event, now)
            case AllDone():
                return self._all_done(event)
            case WorkerExited():
                return self._exited(event, now)
            case WorkerHung():
                return self._hung(event, now)
            case StragglerSuspected():
                return self._straggler(event, now)
            case CorruptionSuspected():
                return suspect(self.run, event, now)
            case FingerprintsTaken():
                return compare(self.run, event, now)

    # Nodes that come and go

    def _joined(self, event: NodeJoined, now: float) -> list[Action]:
        run, node = self.run, event.node
        known = node in run.fleet.racks
        if known:  # the connection before this one broke, and with it went what the node had said
            again = self._lost(NodeLost(node=node, why="came back over a new connection"), now)
            return again + self._joined(event, now)
        run.highest = max(run.highest, event.incarnation, *(snapshot.incarnation for snapshot in event.held))
        run.fleet.connect(node, event.rack)
        run.world.stands_in(node, event.rack)
        if run.live and node in run.world:
            if event.incarnation != run.incarnation:
                return run.fail(f"the agent of {node} has begun anew, and its workers are gone", "node", now)
            return self._adopted(now)
        left = max(event.incarnation, run.fleet.runs.of(node))
        if left:  # it has not heard of the Stop, or comes back from a partition
            run.fleet.runs.put(node, left)
            if not run.live:
                run.await_answers(now)
            return [Stop(incarnation=left, nodes=(node,), why="its incarnation has ended")]
        return run.at_rest(node, event.held)

    def _adopted(self, now: float) -> list[Action]:
        """One more node of the controller before has come back; with the last one the run goes on."""
        run = self.run
        run.absent -= 1
        if run.absent:
            return []
        doubted = run.suspicion is not None and run.suspicion.incarnation == run.incarnation
        if run.world.vacant or doubted:
            return run.stop("what its controller had begun is not ended: to replace a node, or a state", now)
        run.phase = "running"
        run.set_checkpoint(now)
        return run.save_and_stop() if run.stop_wanted else []

    def _lost(self, event: NodeLost, now: float) -> list[Action]:
        run, node = self.run, event.node
        seated = node in run.world
        run.fleet.lose(node)
        run.memory.forget(node)
        if not seated:
            return []
        run.world.vacate(node)
        actions = run.strike(node, now, event.why)
        return actions + (run.fail(f"{node} is lost: {event.why}", "node", now) if run.live else [])

    def _stopped(self, event: NodeStopped, now: float) -> list[Action]:
        run, node = self.run, event.node
        ran = run.fleet.runs.of(node)
        if not ran or event.incarnation < ran or node not in run.fleet.racks:
            return []
        run.fleet.runs.discard(node)
        actions = run.at_rest(node, event.held)
        if run.live and node in run.world:
            actions += run.fail(f"the workers of {node} have ended without being asked to", "worker", now)
        return actions

    def _all_stopped(self, event: WorldStopped, now: float) -> list[Action]:
        run, world, fleet = self.run, self.run.world, self.run.fleet
        if event.incarnation != fleet.runs.incarnation or run.absent:
            return []  # late; or somebody has not been heard since another controller began it
        alone = fleet.runs.end(event.but)
        unseated = [world.nodes[place] for place in sorted(world.vacant)]
        unseated += [node for node in alone if node not in world.places]
        unreadable = {node for node, readable in fleet.quarantined.items() if not readable}
        run.memory.put_rings(
            event.rings, unreadable.union(node for node in unseated if node not in fleet.racks)
        )
        actions = [
            action
            for node in unseated
            if node in fleet.racks and node not in fleet.runs
            for action in run.use(node)
        ]
        if run.live:
            actions += run.fail("all workers have ended without being asked to", "worker", now)
        return actions

    def _checked(self, event: NodeChecked, now: float) -> list[Action]:
        run, node = self.run, event.node
        if node not in run.fleet.racks or node in run.fleet.quarantined:
            return []
        if event.passed:
            if run.fleet.aside.pop(node, None) is not None and node not in run.fleet.runs:
                run.fleet.add_spare(node)
            return []
        seated = node in run.world
        actions = run.exclude(node, f"it failed its check: {event.why}", readable=True)
        return actions + (run.stop(f"{node} failed its check", now) if seated and run.live else [])

    # Workers

    def _exited(self, event: WorkerExited, now: float) -> list[Action]:
        run = self.run
        if event.node not in run.world:
            return []
        why = f"rank {event.rank} on {event.node}: {event.why}"
        if event.fatal and run.doom is None:
            run.doom = GiveUp(why=why)
        if not run.live:
            return []
        strike = [] if event.fatal else run.strike(event.node, now, event.why)
        return strike + run.fail(why, "worker", now)

    def _hung(self, event: WorkerHung, now: float) -> list[Action]:
        run = self.run
        if not run.live:
            return []
        if event.rank is None:
            return run.fail(f"no worker got on for {event.seconds:.0f} s", "worker", now)
        if event.node not in run.world:
            return []
        why = f"rank {event.rank} on {event.node} was silent for {event.seconds:.0f} s"
        return run.strike(event.node, now, why) + run.fail(why, "worker", now)

    def _straggler(self, event: StragglerSuspected, now: float) -> list[Action]:
        run, node = self.run, event.node
        if run.phase != "running" or node not in run.world:
            return []
        why = f"rank {event.rank} takes {event.factor:.2f} times as long as its peers"
        note = Note(kind="straggler", why=why, node=node, rank=event.rank, step=run.newest)
        if run.stop_wanted or not run.fleet.spare_count:
            return [note]
        run.world.vacate(node)
        run.fleet.aside[node] = why
        return [note, *run.strike(node, now, why), *run.stop(f"{why}, so {node} is replaced", now)]

    # What gets done

    def _step_done(self, event: StepDone, now: float) -> list[Action]:
        run, step, doubt = self.run, event.step, self.run.suspicion
        if doubt and doubt.incarnation < run.incarnation and step > doubt.step:
            doubt.redone = True
        if run.trusts(step):
            run.newest = max(run.newest, step)
        run.first_done = step if run.first_done is None else min(run.first_done, step)
        if run.phase != "running" or run.stop_wanted or step >= run.plan.steps:
            return []
        if run.world.replicate == run.plan.replicate or (doubt and not doubt.redone):
            return []
        most = run.plan.largest(run.available)
        return run.stop("the world can grow", now) if most and most > run.world.replicate else []

    def _checkpoint_done(self, event: CheckpointDone, now: float) -> list[Action]:
        run = self.run
        if event.why or not run.trusts(event.step):
            return []
        run.saved = max(run.saved, event.step)
        if run.phase == "running":
            run.checkpoint_due = None
            run.set_checkpoint(now)
        return []

    def _all_done(self, event: AllDone) -> list[Action]:
        run = self.run
        if run.doom or not run.trusts(event.step):
            return []
        return run.end(Finish(step=event.step, stopped=event.stopped))

    def _stop_wanted(self, event: StopWanted) -> list[Action]:
        run = self.run
        if run.stop_wanted:
            return []
        run.stop_wanted = event.why or "somebody asked"
        return run.save_and_stop() if run.phase == "running" else []

    def _time_passed(self, now: float) -> list[Action]:
        run = self.run
        if run.deadline is None or now < run.deadline:
            return []
        if run.phase == "adopting":
            absent = [node for node in run.world.nodes if node not in run.fleet.racks]
            run.give_up_on(absent)
            run.absent = 0
            return run.stop(f"{', '.join(absent[:3])} did not come back to the new controller", now)
        if run.phase == "stopping":
            silent = [node for node in run.fleet.runs if node in run.fleet.racks]
            why = f"it did not stop its workers in {policy.STOP_SECONDS:.0f} s"
            actions = [action for node in silent for action in run.exclude(node, why, readable=False)]
            run.give_up_on(list(run.fleet.runs))
            return actions
        if run.phase == "running":
            run.checkpoint_due = None
            run.set_checkpoint(now)
            return [Checkpoint(incarnation=run.incarnation)]
        return []
