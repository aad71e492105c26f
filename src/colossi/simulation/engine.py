"""
The engine whose nodes do not exist: it gives the controller a fleet in virtual time, and breaks it.

The world does what it is told and what befalls it: faults come from a list, each step takes what the planner
says, and what dies is noticed after the time that [failures] states. What to do about anything is the
controller's; without its orders nothing ever begins, stops, saves or is replaced. Between two events that
matter the steps are counted, not played, so a run costs as much as its failures, however long it is.
"""

import heapq
from collections.abc import Callable, Iterable
from functools import partial

from colossi.control import actions, events, policy
from colossi.control.actions import DISK
from colossi.control.controller import Controller
from colossi.ledger.events import JSON, Event
from colossi.simulation.copies import Copies
from colossi.simulation.scenario import PLANNED, Scenario
from colossi.world.failures import Fault

BEGINNING = 1_767_225_600.0  # [unix s] 2026-01-01 UTC, when every simulated run begins
# How long a link may be down before its collective fails: NCCL's default time-out on InfiniBand and RoCE,
# 4.096 us * 2^20 for each of 7 tries (NCCL's documentation, NCCL_IB_TIMEOUT and NCCL_IB_RETRY_CNT).
FLAP_SECONDS = 4.096e-6 * 2**20 * 7
CHECK_SECONDS = 60.0  # [s] for the check of a node: as long as our own takes with margin; an assumption
PEERS = 16  # ranks whose fingerprints are told when copies of the weights differ
KEPT = 2  # checkpoints on disk
ROUNDING = 1e-6  # [s] a step that ends at a moment has ended at it


class Simulated:
    """One run; `play` it once."""

    def __init__(self, scenario: Scenario, faults: Iterable[Fault]) -> None:
        self.scenario = scenario
        self.controller = Controller(scenario.plan)
        self.ledger: list[Event] = []
        self.now = 0.0  # [s] since the beginning
        self.ended: actions.Finish | actions.GiveUp | None = None
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        for number, fault in enumerate(faults):
            self._at(fault.time, partial(self._strike, fault, number))
        self._dead: set[str] = set()  # until they are repaired
        self._untold: dict[str, float] = {}  # dead, and when that will be noticed [s]
        self._slow: dict[str, tuple[float, float]] = {}  # node -> factor, until [s]
        self._start: actions.Start | None = None
        self._copies = Copies(scenario.plan.per_node)
        self._stage = (
            "still"  # starting, training, stuck (something broke, and nobody knows), stopping, still
        )
        self._course = 0  # counts what makes planned moments void: another speed, another stage
        self._from = 0  # the step that this incarnation began from
        self._step = 0  # the last one done
        self._since = 0.0  # [s] the end of that step, or the beginning of training
        self._stall = 0.0  # [s] after it, for a checkpoint
        self._writing = False  # that stall is a checkpoint of this step
        self._step_seconds = scenario.step_seconds
        self._told_step = False  # the controller has heard of a step of this incarnation
        self._ending = False  # the workers are asked to save and end after the step that they are in
        self._saved: list[int] = []  # steps on disk, the newest last
        self._storage_until = 0.0  # [s] no checkpoint can be written before
        self._reasons: list[str] = []
        self._deadline: float | None = None  # that the controller is waiting for

    def play(self) -> list[Event]:
        """All that happens, until the run ends or its days are over."""
        scenario = self.scenario
        self._record("controller_started", took_over=False)
        for node in range(scenario.machinery.nodes):
            self._connect(scenario.name_of(node), scenario.rack_of(node))
        self._at(scenario.seconds, lambda: self._hear(events.StopWanted(why="the simulated days are over")))
        self._hear(events.TimePassed())
        while self.ended is None and self._due:
            self.now, _, happens = heapq.heappop(self._due)
            happens()
        # Steps are counted when something else happens, and are told for the moment when they were done.
        return sorted(self.ledger, key=lambda event: event.time)

    # --- what befalls it ----------------------------------------------------------------------------------

    def _strike(self, fault: Fault, number: int) -> None:
        scenario = self.scenario
        nodes = [scenario.name_of(node) for node in fault.nodes]
        if fault.effect == "loss":
            self._lose([node for node in nodes if node not in self._dead], fault)
        elif fault.effect == "storage":
            self._settle()
            self._storage_until = max(self._storage_until, self.now + fault.repair)
        elif fault.effect == "slow":
            self._slow_down(nodes[0], fault)
        elif self._stage not in ("starting", "training"):
            return  # nothing is running that could be disturbed
        elif fault.effect == "job":
            assert self._start is not None
            node = self._start.nodes[number * 7919 % len(self._start.nodes)]  # the one that speaks first
            if fault.component == PLANNED:
                self._leave_off(node, fault)
            else:
                self._break(fault.component, "all workers ended", self._exited(node, fault))
        elif nodes[0] not in self._copies.places or nodes[0] in self._dead:
            return
        elif fault.effect == "flap" and fault.repair <= FLAP_SECONDS:
            self._settle()
            self._since += fault.repair
            self._plan_ahead()
        elif fault.effect == "corrupt" and self._compares():
            self._corrupt(nodes[0])
        elif fault.effect == "hang":
            hung = events.WorkerHung(
                node=nodes[0], rank=None, incarnation=self._incarnation, seconds=scenario.detection
            )
            self._break(fault.component, "a collective never returns", hung)
        else:  # a process dies: by itself, as its link is away, or of a flipped bit that nothing compares
            self._break(fault.component, f"a worker ended ({fault.effect})", self._exited(nodes[0], fault))

    def _lose(self, nodes: list[str], fault: Fault) -> None:
        """Nodes are gone until they are repaired."""
        if not nodes:
            return
        self._settle()
        known = self.now + min(self.scenario.detection, fault.repair)
        for node in nodes:
            self._dead.add(node)
            self._untold[node] = known
            self._slow.pop(node, None)
            self._copies.lose(node)
            self._at(known, partial(self._notice_loss, node, fault))
            self._at(self.now + fault.repair, partial(self._repaired, node))
        if any(node in self._copies.places for node in nodes):
            self._get_stuck()

    def _notice_loss(self, node: str, fault: Fault) -> None:
        seated = node in self._copies.places
        del self._untold[node]
        if seated:
            self._fault(fault.component, "a node is lost", node)
        self._record("node_lost", node=node, why=fault.component)
        self._hear(events.NodeLost(node=node, why=fault.component))

    def _repaired(self, node: str) -> None:
        if node in self._untold:
            self._at(self.now, partial(self._repaired, node))  # it is noticed at this very moment
            return
        self._dead.discard(node)
        self._record("node_joined", node=node)
        self._connect(node, self.scenario.rack_of(int(node.removeprefix("node-"))))
        self._tell_next_step()

    def _connect(self, node: str, rack: str) -> None:
        self._hear(events.NodeJoined(node=node, rack=rack))

    def _slow_down(self, node: str, fault: Fault) -> None:
        if node in self._dead:
            return
        self._slow[node] = (fault.factor, self.now + fault.repair)
        self._at(self.now + fault.repair, partial(self._speed_up, node))
        if node in self._copies.places:
            self._settle()
            self._pace()
            self._watch(node, 1)

    def _speed_up(self, node: str) -> None:
        if node in self._slow and self._slow[node][1] <= self.now + ROUNDING:
            self._settle()
            del self._slow[node]
            self._pace()

    def _watch(self, node: str, times: int) -> None:
        """Who is slow by more than jitter is suspected after some steps, and again after twice as many."""
        if self._stage == "training" and self._slow.get(node, (1.0, 0.0))[0] >= policy.STRAGGLER_FACTOR:
            later = self.now + policy.STRAGGLER_STEPS * times * self._step_seconds
            self._at(later, partial(self._suspect, node, times, self._incarnation))

    def _suspect(self, node: str, times: int, incarnation: int) -> None:
        if incarnation != self._incarnation or self._stage != "training" or node not in self._slow:
            return
        self._settle()
        rank = self._copies.places[node] * self.scenario.plan.per_node
        factor = self._slow[node][0]
        self._hear(events.StragglerSuspected(node=node, rank=rank, incarnation=incarnation, factor=factor))
        self._watch(node, 2 * times)

    def _compares(self) -> bool:
        """Whether copies of the weights are compared, so that a flipped bit is found."""
        return bool(
            self.scenario.snapshot_every
            and self._start is not None
            and self._start.replicate > 1
            and self._stage == "training"
        )

    def _corrupt(self, node: str) -> None:
        """A bit flips; at the end of the next step that is compared the copies differ."""
        self._settle()
        every, step = self.scenario.snapshot_every, self._step + 1
        found = -(-step // every) * every
        when = self._since + self._stall + (found - self._step) * self._step_seconds
        self._at(max(when, self.now), partial(self._differ, node, found, self._course))

    def _differ(self, node: str, step: int, course: int) -> None:
        if course != self._course or self._start is None or node not in self._copies.places:
            return
        self._settle()
        self._fault("gpu", f"copies of the weights differ after step {step}", node)
        rank = self._copies.places[node] * self.scenario.plan.per_node
        self._get_stuck()
        self._hear(
            events.CorruptionSuspected(
                incarnation=self._incarnation,
                step=step,
                fingerprints=self._fingerprints(wrong=rank),
                agreed=step - self.scenario.snapshot_every,
            )
        )

    def _fingerprints(self, wrong: int | None) -> dict[int, events.Fingerprint]:
        """Of some ranks that have the same weights; 0 is what is right."""
        assert self._start is not None
        ranks = len(self._start.nodes) * self.scenario.plan.per_node
        own = 0 if wrong is None else wrong
        told = {(own + peer * self.scenario.plan.per_node) % ranks: 0 for peer in range(PEERS)}
        return {rank: int(rank == wrong) for rank in sorted({**told, own: 0})}

    # --- what is noticed ----------------------------------------------------------------------------------

    def _exited(self, node: str, fault: Fault) -> events.WorkerExited:
        rank = self._copies.places[node] * self.scenario.plan.per_node
        return events.WorkerExited(node=node, rank=rank, incarnation=self._incarnation, why=fault.component)

    def _break(self, component: str, what: str, event: events.WorkerExited | events.WorkerHung) -> None:
        """Training stops now; the controller hears of it when it is noticed."""
        self._get_stuck()
        self._at(self.now + self.scenario.detection, partial(self._notice, component, what, event))

    def _notice(
        self,
        component: str,
        what: str,
        event: events.WorkerExited | events.WorkerHung,
        detection: float | None = None,
    ) -> None:
        if event.incarnation == self._incarnation and self._stage == "stuck":
            self._fault(component, what, event.node, detection)
            self._hear(event)

    def _leave_off(self, node: str, fault: Fault) -> None:
        """All are asked to stop: after the step that they are in they save, then end, and nobody wonders why.

        Who is starting ends at once. If something else stops them first, that is the stop.
        """
        asked = self._exited(node, fault)
        if self._stage == "starting":
            self._end_as_asked(asked)
            return
        self._settle()
        when = self._since + self._stall + self._step_seconds
        self._at(max(when, self.now), partial(self._save_as_asked, asked))

    def _save_as_asked(self, asked: events.WorkerExited) -> None:
        if asked.incarnation != self._incarnation or self._stage != "training":
            return
        self._settle()
        if not self._writing:  # else it is time for one anyway
            self._stall, self._writing = self._stall + self.scenario.checkpoint, True
            self._plan_ahead()
        self._at(max(self._since + self._stall, self.now), partial(self._end_as_asked, asked))

    def _end_as_asked(self, asked: events.WorkerExited) -> None:
        if asked.incarnation == self._incarnation and self._stage in ("starting", "training"):
            self._get_stuck()
            self._notice(PLANNED, "all workers were asked to end", asked, detection=0.0)

    def _get_stuck(self) -> None:
        self._settle()
        if self._stage in ("starting", "training"):
            self._stage = "stuck"
            self._course += 1

    def _fault(self, component: str, what: str, node: str, detection: float | None = None) -> None:
        cause = f"{component}: {what}"
        self._reasons.append(cause)
        if self.controller.run.phase == "running":
            known = self.scenario.detection if detection is None else detection
            self._record("fault", self._step, cause=cause, node=node, seconds_to_detect=known)

    # --- steps --------------------------------------------------------------------------------------------

    def _settle(self) -> None:
        """Count the steps that are done by now, and tell of them."""
        if self._stage != "training":
            return
        before, passed = self._step, self._saved[-1:]
        stalls = self._advance()
        steps = self._step - before
        if not steps:
            if self._saved[-1:] != passed:
                self._tell_saved()
            return
        cost = self.scenario.snapshot / self.scenario.snapshot_every if self.scenario.snapshot_every else 0.0
        self._record(
            "step_done",
            self._step,
            time=self._since,
            steps=steps,
            tokens=steps * self.scenario.tokens_per_step,
            seconds=round(steps * self._step_seconds, 6),
            stall_seconds=round(stalls, 6),
            snapshot_seconds=round(steps * cost, 6),
        )
        self._remember()
        if self._saved[-1:] != passed:
            self._tell_saved()
        self._told_step = True
        self._hear(events.StepDone(incarnation=self._incarnation, step=self._step))

    def _advance(self) -> float:
        """Move to the last step that has ended by now; how long the run stood for checkpoints meanwhile [s].

        From one checkpoint to the next are `every` steps and a stall, so whole rounds are counted at once.
        """
        step, write, every = self._step_seconds, self.scenario.checkpoint, self.scenario.checkpoint_every
        spent = self.now - self._since - self._stall + ROUNDING
        if spent < 0:
            return 0.0
        self._write_ends(self._step, self._since + self._stall)
        stood = self._stall
        if not every:
            steps = int(spent / step)
            if steps:
                self._step, self._since, self._stall = (
                    self._step + steps,
                    self._since + stood + steps * step,
                    0.0,
                )
            return stood if steps else 0.0
        into = self._step % every
        spent += into * step
        rounds, rest = divmod(spent, every * step + write)
        last = min(every, int(rest / step))
        if rounds and not last:  # no step since that checkpoint
            rounds, last = rounds - 1, every
        steps = int(rounds) * every + last - into
        if not steps:
            return 0.0
        begun = self._since + stood - into * step + rounds * (every * step + write)
        base = self._step - into + int(rounds) * every
        if rounds:
            self._write_ends(base, begun, written=True)
        self._step, self._since = self._step + steps, begun + last * step
        self._stall, self._writing = (write, True) if last == every else (0.0, False)
        if self._writing and self._since + write <= self.now + ROUNDING:
            self._write_ends(self._step, self._since + write)
        return stood + rounds * write

    def _write_ends(self, step: int, when: float, *, written: bool = False) -> None:
        """A checkpoint is whole, unless the storage was away."""
        if (self._writing or written) and when > self._storage_until and step not in self._saved:
            self._saved = [*self._saved, step][-KEPT:]
        self._writing = False

    def _tell_saved(self) -> None:
        self._record("checkpoint_complete", self._saved[-1], stall_seconds=self.scenario.checkpoint)
        self._hear(events.CheckpointDone(incarnation=self._incarnation, step=self._saved[-1]))

    def _remember(self) -> None:
        """The newest snapshot that is whole: the last step's is being copied while the next one runs."""
        every = self.scenario.snapshot_every
        if every and (newest := (self._step - 1) // every * every) > self._from:
            self._copies.take(newest, self._incarnation)

    def _pace(self) -> None:
        """How long a step takes: as long as on the slowest node."""
        factors = [factor for node, (factor, _) in self._slow.items() if node in self._copies.places]
        cost = self.scenario.snapshot / self.scenario.snapshot_every if self.scenario.snapshot_every else 0.0
        self._step_seconds = self.scenario.step_seconds * max(factors, default=1.0) + cost
        self._plan_ahead()

    def _plan_ahead(self) -> None:
        """When the controller hears of the first step, and when the last one is done."""
        self._course += 1
        if self._stage != "training":
            return
        if self._ending:
            end = max(self._since + self._stall + self._step_seconds, self.now)
            self._at(end, partial(self._complete, self._course, stopped=True))
            return
        if not self._told_step:
            self._tell_next_step()
        left, every = self.scenario.plan.steps - self._step, self.scenario.checkpoint_every
        stalls = (self._step % every + left - 1) // every if every else 0
        end = self._since + self._stall + left * self._step_seconds + stalls * self.scenario.checkpoint
        if end <= self.scenario.seconds:
            self._at(end, partial(self._complete, self._course))

    def _tell_next_step(self) -> None:
        """The controller is to hear of the end of the step that is under way."""
        if self._stage == "training":
            when = self._since + self._stall + self._step_seconds
            self._at(max(when, self.now), self._settle)

    def _complete(self, course: int, stopped: bool = False) -> None:
        """The last step is done; it is saved, and all workers end."""
        if course != self._course or self._stage != "training":
            return
        self._settle()
        self._stage, self._course = "still", self._course + 1
        self._at(self.now + self.scenario.checkpoint, partial(self._all_done, self._step, stopped))

    def _all_done(self, step: int, stopped: bool) -> None:
        self._record("stopped" if stopped else "finished", step)
        self._hear(events.AllDone(incarnation=self._incarnation, step=step, stopped=stopped))

    # --- the controller -----------------------------------------------------------------------------------

    @property
    def _incarnation(self) -> int:
        return self._start.incarnation if self._start else 0

    def _hear(self, event: events.Event) -> None:
        for action in self.controller.on(event, self.now):
            self._do(action)
        deadline = self.controller.deadline
        if deadline and self.ended is None and deadline != self._deadline:
            self._deadline = deadline
            self._at(max(deadline, self.now), self._deadline_comes)

    def _deadline_comes(self) -> None:
        self._deadline = None
        self._hear(events.TimePassed())

    def _do(self, action: actions.Action) -> None:
        match action:
            case actions.Start():
                self._begin(action)
            case actions.Stop():
                self._stop(action)
            case actions.SaveAndStop():
                self._ending = True
                self._settle()
                self._plan_ahead()
            case actions.Checkpoint():
                self._settle()
                self._stall, self._writing = self._stall + self.scenario.checkpoint, True
                self._plan_ahead()
            case actions.Check():
                self._at(self.now + CHECK_SECONDS, partial(self._checked, action.node))
            case actions.Distrust():
                self._saved = [step for step in self._saved if step <= action.step]
            case actions.Quarantine():
                self._copies.leave(action.node)
                self._record("quarantined", self._step, node=action.node, why=action.why)
            case actions.Note():
                if action.kind == "straggler":
                    self._copies.leave(action.node)
                    self._reasons.append(f"straggler: {action.why}")
                self._record(action.kind, action.step, node=action.node, rank=action.rank, why=action.why)
            case actions.Finish() | actions.GiveUp():
                if isinstance(action, actions.GiveUp):
                    self._record("gave_up", self._step, why=action.why)
                elif not any(event.kind in ("stopped", "finished") for event in self.ledger[-3:]):
                    self._record("stopped", self._step, why="the simulated days are over")
                self.ended = action

    def _stop(self, stop: actions.Stop) -> None:
        """All end their workers and say so, but for those that are dead, which nobody knows yet."""
        if stop.incarnation != self._incarnation:
            return
        self._settle()
        self._stage, self._course = "stopping", self._course + 1
        self._at(self.now, partial(self._answer, stop.incarnation))

    def _answer(self, incarnation: int) -> None:
        self._stage = "still"
        silent = tuple(node for node in self._untold if node in self._copies.places)
        self._hear(events.WorldStopped(incarnation=incarnation, rings=self._copies.ring(), but=silent))

    def _begin(self, start: actions.Start) -> None:
        scenario, first = self.scenario, self._start is None
        changed = None if first else self._changes(start)
        self._copies.begin(start)
        self._start, self._stage, self._told_step = start, "starting", False
        self._course += 1
        disk = start.restore == DISK
        self._from = (self._saved[-1] if self._saved else 0) if disk else start.restore
        seconds = scenario.restart + (scenario.reload if disk and self._from else 0.0)
        ranks, whole = (
            len(start.nodes) * scenario.plan.per_node,
            scenario.plan.places * scenario.plan.per_node,
        )
        self._record(
            "incarnation_started",
            nodes=start.nodes if first else None,
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
            self._record("run_started", **scenario.facts)
        if any(node in self._copies.places for node in self._dead):
            self._get_stuck()
        self._at(self.now + seconds, partial(self._train, start, seconds))

    def _changes(self, start: actions.Start) -> dict[str, JSON]:
        """By place, the nodes that were not there before."""
        before = self._copies
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
        if start.incarnation != self._incarnation or self._stage != "starting":
            return
        self._stage, self._step, self._since = "training", self._from, self.now
        self._stall, self._writing = 0.0, False
        source = "memory" if start.restore != DISK else "disk" if self._from else "start"
        self._record("restored", from_step=self._from, source=source, seconds=seconds)
        self._pace()
        for node in list(self._slow):
            if node in self._copies.places:
                self._watch(node, 1)
        if start.verify > self._step:
            when = self.now + (start.verify - self._step) * self._step_seconds
            self._at(when, partial(self._verified, start))

    def _verified(self, start: actions.Start) -> None:
        """The step in doubt is done again."""
        if start.incarnation != self._incarnation or self._stage != "training":
            return
        self._settle()
        doubt = self.controller.run.suspicion
        ranks = list(doubt.first) if doubt else []
        self._hear(
            events.FingerprintsTaken(
                incarnation=start.incarnation, step=start.verify, fingerprints=dict.fromkeys(ranks, 0)
            )
        )

    def _checked(self, node: str) -> None:
        if node in self._dead:
            return
        passed = node not in self._slow
        why = "" if passed else "it is slow"
        self._record("checked", node=node, passed=passed, why=why)
        self._hear(events.NodeChecked(node=node, passed=passed, why=why))

    # --- time and the ledger ------------------------------------------------------------------------------

    def _at(self, time: float, happens: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._due, (time, self._order, happens))

    def _record(
        self,
        kind: str,
        step: int | None = None,
        time: float | None = None,
        incarnation: int | None = None,
        **data: JSON,
    ) -> None:
        when = BEGINNING + round(self.now if time is None else time, 3)
        number = self._incarnation if incarnation is None else incarnation
        said = {key: value for key, value in data.items() if value is not None}
        self.ledger.append(Event(time=when, kind=kind, incarnation=number, step=step, data=said))
