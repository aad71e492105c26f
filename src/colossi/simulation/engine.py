"""
The engine whose nodes do not exist: it gives the controller a fleet in virtual time, and breaks it.

The world does what it is told and what befalls it: faults come from a list, each step takes what the planner
says, and what dies is noticed after the time that [failures] states. What to do about anything is the
controller's; without its orders nothing ever begins, stops, saves or is replaced. Between two events that
matter the steps are counted, not played, so a run costs as much as its failures, however long it is.
"""

import heapq
from collections.abc import Callable, Sequence
from functools import partial

from colossi.control import actions, events, policy
from colossi.control.actions import DISK
from colossi.control.controller import Controller
from colossi.ledger.events import JSON, Event
from colossi.simulation.copies import Copies
from colossi.simulation.scenario import Scenario
from colossi.simulation.steps import Steps

BEGINNING = 1_767_225_600.0  # [unix s] 2026-01-01 UTC, when every simulated run begins
CHECK_SECONDS = 60.0  # [s] for the check of a node: as long as our own takes with margin; an assumption


class Simulated:
    """One run; `play` it once.

    `arrivals` say when each node comes [s]; left out, all are there from the beginning.
    """

    def __init__(self, scenario: Scenario, arrivals: Sequence[float] = ()) -> None:
        self.scenario, self.arrivals = scenario, arrivals
        self.controller = Controller(scenario.plan)
        self.ledger: list[Event] = []
        self.now = 0.0  # [s] since the beginning
        self.ended: actions.Finish | actions.GiveUp | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self.dead: set[str] = set()  # until they are repaired
        self.untold: dict[str, float] = {}  # dead, and when that will be noticed [s]
        self.slow: dict[str, tuple[float, float]] = {}  # node -> factor, until [s]
        self.start: actions.Start | None = None
        self.copies = Copies(scenario.plan.per_node)
        self.stage = "still"  # starting, training, stuck (something broke, and nobody knows), stopping, still
        self.course = 0  # counts what makes planned moments void: another speed, another stage
        self._from = 0  # the step that this incarnation began from
        self.steps = Steps(scenario.checkpoint_every, scenario.checkpoint, scenario.step_seconds)
        self._told_step = False  # the controller has heard of a step of this incarnation
        self._ending = False  # the workers are asked to save and end after the step that they are in
        self._reasons: list[str] = []
        self._deadline: float | None = None  # that the controller is waiting for

    def play(self) -> list[Event]:
        """All that happens, until the run ends or its days are over."""
        scenario = self.scenario
        self.record("controller_started", took_over=False)
        for node in range(scenario.machinery.nodes):
            name, rack = scenario.name_of(node), scenario.rack_of(node)
            when = self.arrivals[node] if self.arrivals else 0.0
            if when <= 0:
                self.connect(name, rack)
            else:
                self.dead.add(name)
                self.at(when, partial(self.arrive, name, rack))
        self.at(scenario.seconds, lambda: self.hear(events.StopWanted(why="the simulated days are over")))
        self.hear(events.TimePassed())
        while self.ended is None and self._due:
            self.now, _, happens = heapq.heappop(self._due)
            happens()
        # Steps are counted when something else happens, and are told for the moment when they were done.
        return sorted(self.ledger, key=lambda event: event.time)

    # --- nodes ----------------------------------------------------------------------------------------

    def arrive(self, node: str, rack: str) -> None:
        """It is built, or repaired."""
        self.settle()  # of the steps before the controller hears without it
        self.dead.discard(node)
        self.record("node_joined", node=node)
        self.connect(node, rack)
        self.tell_next_step()

    def connect(self, node: str, rack: str) -> None:
        self.hear(events.NodeJoined(node=node, rack=rack))

    def watch(self, node: str, times: int) -> None:
        """Who is slow by more than jitter is suspected after some steps, and again after twice as many."""
        if self.stage == "training" and self.slow.get(node, (1.0, 0.0))[0] >= policy.STRAGGLER_FACTOR:
            later = self.now + policy.STRAGGLER_STEPS * times * self.steps.pace
            self.at(later, partial(self._suspect, node, times, self.incarnation))

    def _suspect(self, node: str, times: int, incarnation: int) -> None:
        if incarnation != self.incarnation or self.stage != "training" or node not in self.slow:
            return
        self.settle()
        rank = self.copies.places[node] * self.scenario.plan.per_node
        factor = self.slow[node][0]
        self.hear(events.StragglerSuspected(node=node, rank=rank, incarnation=incarnation, factor=factor))
        self.watch(node, 2 * times)

    def get_stuck(self) -> None:
        self.settle()
        if self.stage in ("starting", "training"):
            self.stage = "stuck"
            self.course += 1

    def note_fault(self, component: str, what: str, node: str, detection: float | None = None) -> None:
        """One line for the ledger; known after the time that [failures] states, if nothing else is said."""
        cause = f"{component}: {what}"
        self._reasons.append(cause)
        if self.controller.run.phase == "running":
            known = self.scenario.detection if detection is None else detection
            self.record("fault", self.steps.step, cause=cause, node=node, seconds_to_detect=known)

    # --- steps --------------------------------------------------------------------------------------------

    def settle(self) -> None:
        """Tell of the steps that are done by now."""
        if self.stage != "training":
            return
        passed = self.steps.saved[-1:]
        steps, stalls = self.steps.advance(self.now)
        if not steps:
            if self.steps.saved[-1:] != passed:
                self._tell_saved()
            return
        self.record(
            "step_done",
            self.steps.step,
            time=self.steps.since,
            steps=steps,
            tokens=steps * self.scenario.tokens_per_step,
            seconds=round(steps * self.steps.pace, 6),
            stall_seconds=round(stalls, 6),
            snapshot_seconds=round(steps * self.scenario.snapshot_share, 6),
        )
        self._remember()
        if self.steps.saved[-1:] != passed:
            self._tell_saved()
        self._told_step = True
        self.hear(events.StepDone(incarnation=self.incarnation, step=self.steps.step))

    def _tell_saved(self) -> None:
        self.record("checkpoint_complete", self.steps.saved[-1], stall_seconds=self.scenario.checkpoint)
        self.hear(events.CheckpointDone(incarnation=self.incarnation, step=self.steps.saved[-1]))

    def _remember(self) -> None:
        """The newest snapshot that is whole: the last step's is being copied while the next one runs."""
        every = self.scenario.snapshot_every
        if every and (newest := (self.steps.step - 1) // every * every) > self._from:
            self.copies.take(newest, self.incarnation)

    def set_pace(self) -> None:
        """How long a step takes: as long as on the slowest node; fewer copies share the same batch."""
        factors = [factor for node, (factor, _) in self.slow.items() if node in self.copies.places]
        work = max(factors, default=1.0)
        if self.start is not None:
            work *= self.scenario.plan.replicate / self.start.replicate
        self.steps.pace = self.scenario.step_seconds * work + self.scenario.snapshot_share
        self.plan_ahead()

    def plan_ahead(self) -> None:
        """When the controller hears of the first step, and when the last one is done."""
        self.course += 1
        if self.stage != "training":
            return
        if self._ending:
            stop = partial(self._complete, self.course, stopped=True)
            self.at(max(self.steps.next_end, self.now), stop)
            return
        if not self._told_step:
            self.tell_next_step()
        end = self.steps.end_of(self.scenario.plan.steps)
        if end <= self.scenario.seconds:
            self.at(end, partial(self._complete, self.course))

    def tell_next_step(self) -> None:
        """The controller is to hear of the end of the step that is under way."""
        if self.stage == "training":
            self.at(max(self.steps.next_end, self.now), self.settle)

    def _complete(self, course: int, stopped: bool = False) -> None:
        """The last step is done; it is saved, and all workers end."""
        if course != self.course or self.stage != "training":
            return
        self.settle()
        self.stage, self.course = "still", self.course + 1
        self.at(self.now + self.scenario.checkpoint, partial(self._all_done, self.steps.step, stopped))

    def _all_done(self, step: int, stopped: bool) -> None:
        self.record("stopped" if stopped else "finished", step)
        self.hear(events.AllDone(incarnation=self.incarnation, step=step, stopped=stopped))

    # --- the controller -----------------------------------------------------------------------------------

    @property
    def incarnation(self) -> int:
        return self.start.incarnation if self.start else 0

    def hear(self, event: events.Event) -> None:
        for action in self.controller.on(event, self.now):
            self._do(action)
        deadline = self.controller.deadline
        if deadline and self.ended is None and deadline != self._deadline:
            self._deadline = deadline
            self.at(max(deadline, self.now), self._deadline_comes)

    def _deadline_comes(self) -> None:
        self._deadline = None
        self.hear(events.TimePassed())

    def _do(self, action: actions.Action) -> None:
        match action:
            case actions.Start():
                self._begin(action)
            case actions.Stop():
                self._stop(action)
            case actions.SaveAndStop():
                self._ending = True
                self.settle()
                self.plan_ahead()
            case actions.Checkpoint():
                self.settle()
                self.steps.save()
                self.plan_ahead()
            case actions.Check():
                self.at(self.now + CHECK_SECONDS, partial(self._checked, action.node))
            case actions.Distrust():
                self.steps.saved = [step for step in self.steps.saved if step <= action.step]
            case actions.Quarantine():
                self.copies.leave(action.node)
                self.record("quarantined", self.steps.step, node=action.node, why=action.why)
            case actions.Note():
                if action.kind == "straggler":
                    self.copies.leave(action.node)
                    self._reasons.append(f"straggler: {action.why}")
                self.record(action.kind, action.step, node=action.node, rank=action.rank, why=action.why)
            case actions.Finish() | actions.GiveUp():
                if isinstance(action, actions.GiveUp):
                    self.record("gave_up", self.steps.step, why=action.why)
                elif not any(event.kind in ("stopped", "finished") for event in self.ledger[-3:]):
                    self.record("stopped", self.steps.step, why="the simulated days are over")
                self.ended = action

    def _stop(self, stop: actions.Stop) -> None:
        """All end their workers and say so, but for those that are dead, which nobody knows yet."""
        if stop.incarnation != self.incarnation:
            return
        self.settle()
        self.stage, self.course = "stopping", self.course + 1
        self.at(self.now, partial(self._answer, stop.incarnation))

    def _answer(self, incarnation: int) -> None:
        self.stage = "still"
        silent = tuple(node for node in self.untold if node in self.copies.places)
        self.hear(events.WorldStopped(incarnation=incarnation, rings=self.copies.ring(), but=silent))

    def _begin(self, start: actions.Start) -> None:
        scenario, first = self.scenario, self.start is None
        changed = None if first else self._changes(start)
        self.copies.begin(start)
        self.start, self.stage, self._told_step = start, "starting", False
        self.course += 1
        disk = start.restore == DISK
        self._from = (self.steps.saved[-1] if self.steps.saved else 0) if disk else start.restore
        seconds = scenario.restart + (scenario.reload if disk and self._from else 0.0)
        ranks, whole = (
            len(start.nodes) * scenario.plan.per_node,
            scenario.plan.places * scenario.plan.per_node,
        )
        self.record(
            "incarnation_started",
            nodes=tuple(start.nodes) if first else None,
            changed=changed,
            replicate=start.replicate,
            workers=ranks,
            spares=self._spares_beside(start) * scenario.plan.per_node,
            missing=whole - ranks,
            restore=start.restore,
            reason=self._reasons[0] if self._reasons else "",
        )
        self._reasons = []
        if first:
            self.record("run_started", **scenario.facts)
        lost = [node for node in self.dead if node in self.copies.places]  # seated by who does not know it
        for node in lost:
            self.copies.leave(node)
        if lost:
            self.get_stuck()
        self.at(self.now + seconds, partial(self._train, start, seconds))

    def _changes(self, start: actions.Start) -> dict[str, JSON]:
        """By place, the nodes that were not there before."""
        before = self.copies
        if len(before.nodes) != len(start.nodes):
            return {str(place): node for place, node in enumerate(start.nodes)}
        places = sorted(before.places[node] for node in before.gone if node in before.places)
        return {
            str(place): start.nodes[place] for place in places if start.nodes[place] != before.nodes[place]
        }

    def _spares_beside(self, start: actions.Start) -> int:
        fleet = self.controller.run.fleet
        return max(0, len(fleet.racks) - len(start.nodes) - len(fleet.quarantined))

    def _train(self, start: actions.Start, seconds: float) -> None:
        if start.incarnation != self.incarnation or self.stage != "starting":
            return
        self.stage = "training"
        self.steps.begin(self._from, self.now)
        source = "memory" if start.restore != DISK else "disk" if self._from else "start"
        self.record("restored", from_step=self._from, source=source, seconds=seconds)
        self.set_pace()
        for node in list(self.slow):
            if node in self.copies.places:
                self.watch(node, 1)
        if start.verify > self._from:
            self.at(self.steps.end_of(start.verify), partial(self._verified, start))

    def _verified(self, start: actions.Start) -> None:
        """The step in doubt is done again."""
        if start.incarnation != self.incarnation or self.stage != "training":
            return
        self.settle()
        doubt = self.controller.run.suspicion
        ranks = list(doubt.first) if doubt else []
        self.hear(
            events.FingerprintsTaken(
                incarnation=start.incarnation, step=start.verify, fingerprints=dict.fromkeys(ranks, 0)
            )
        )

    def _checked(self, node: str) -> None:
        if node in self.dead:
            return
        passed = node not in self.slow
        why = "" if passed else "it is slow"
        self.record("checked", node=node, passed=passed, why=why)
        self.hear(events.NodeChecked(node=node, passed=passed, why=why))

    # --- time and the ledger ------------------------------------------------------------------------------

    def at(self, time: float, happens: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (time, self._order, happens))

    def record(
        self,
        kind: str,
        step: int | None = None,
        time: float | None = None,
        **data: JSON,
    ) -> None:
        when = BEGINNING + round(self.now if time is None else time, 3)
        said = {key: value for key, value in data.items() if value is not None}
        self.ledger.append(Event(time=when, kind=kind, incarnation=self.incarnation, step=step, data=said))
