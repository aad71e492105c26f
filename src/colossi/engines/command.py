"""
Command of a run: turns what agents say into the controller's events, and its actions into orders.

One event loop, no threads. It listens, proves who calls, keeps the ledger, and asks the detectors whether
somebody has gone silent; every decision is the controller's. An engine only brings the agents here.
"""

import asyncio
import gc
import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colossi.channel import Message, frame, frame_with, opened, token_of
from colossi.control import actions, events
from colossi.control.controller import Controller
from colossi.control.detector import Heartbeats, Progress, Stragglers
from colossi.engines.chaos import Chaos, Fault
from colossi.engines.clock import Clock
from colossi.engines.line import Line, held
from colossi.errors import TrainingFailed
from colossi.files import write_whole
from colossi.ledger.events import Event
from colossi.ledger.run import Run
from colossi.ledger.store import Ledger

BEAT = frame({"do": "beat"})
TICK_SECONDS = 0.1
GARBAGE = 10_000  # new objects before Python looks for garbage; at its 700 that takes a quarter of a restart
GOODBYE_SECONDS = 5.0  # for the last word to reach who still listens
GATHER_SECONDS = 1.0  # for the fingerprints of all ranks, once one has spoken
SILENT_NODE_SECONDS = 5.0  # an agent that says nothing for so long is lost; it stops its workers before that


@dataclass(slots=True)
class Command:
    """The controller of a run, and the lines to its agents."""

    run: Run
    ledger: Ledger
    controller: Controller
    per_node: int
    copy_ranks: int
    snapshot_every: int = 1  # steps
    host: str = "127.0.0.1"
    chaos: Chaos = field(default_factory=Chaos)
    clock: Clock = field(default_factory=Clock)
    restart: Callable[[str], None] = lambda node: None  # the engine may bring a lost node back
    agents: dict[str, Line] = field(default_factory=dict)
    took_over: bool = False  # from a controller that was killed
    quarantined: Mapping[str, str] = field(default_factory=dict)  # node -> why, as the ledger says
    incarnation: int = 0
    places: tuple[str, ...] = ()  # node of each place
    step: int = 0
    ended: actions.Finish | actions.GiveUp | None = None
    _heartbeats: Heartbeats = field(default_factory=lambda: Heartbeats(SILENT_NODE_SECONDS))
    _progress: Progress = field(default_factory=Progress)
    _stragglers: Stragglers = field(default_factory=Stragglers)
    _gathering: dict[tuple[str, int], dict[int, tuple[int, int]]] = field(default_factory=dict)
    _calls: dict[str, float] = field(default_factory=dict)  # node -> when its connection was begun [unix s]
    _saving: bool = False  # the workers were asked to save and end
    _token: bytes = b""
    _reasons: list[str] = field(default_factory=list)
    _lines: set[Line] = field(default_factory=set)  # to agents, and to who has yet to prove to be one

    def __post_init__(self) -> None:
        if self.took_over:
            self._progress.restart(self.clock.now())  # workers that may hang, as any others

    async def serve(self, watch: Callable[[], None] = lambda: None) -> None:
        """Until the run is finished, stopped or given up; `watch` is called ten times a second."""
        gc.set_threshold(GARBAGE)
        self._token = token_of(self.run.folder)
        loop = asyncio.get_running_loop()
        server = await loop.create_server(self._meet, self.host, 0, backlog=1024)
        async with server:
            address = "{}:{}".format(*server.sockets[0].getsockname()[:2])
            write_whole(
                self.run.folder / "controller.json", json.dumps({"address": address, "pid": os.getpid()})
            )
            self.record(
                "controller_started",
                pid=os.getpid(),
                took_over=self.took_over,
                chaos=self.chaos.on,
                quarantined=self.quarantined,
            )
            if self.took_over and self.step < self.controller.run.plan.steps:
                self._progress.restart(self.clock.now())
            while self.ended is None:
                await asyncio.sleep(TICK_SECONDS)
                self.tick()
                watch()
            for agent in self.agents.values():
                agent.send(frame({"do": "quit"}))
            for line in self._lines:
                line.close()
            if self._lines:
                await asyncio.wait([line.ended for line in self._lines], timeout=GOODBYE_SECONDS)
            (self.run.folder / "controller.json").unlink(missing_ok=True)
        watch()
        if isinstance(self.ended, actions.GiveUp):
            why, _, hint = self.ended.why.partition("\nhint: ")
            raise TrainingFailed(why, hint or self.ended.hint)

    def stop_wanted(self, why: str) -> None:
        """Ctrl-C, or a scheduler that needs the nodes."""
        self.hear(events.StopWanted(why=why))

    def abandon(self, why: str) -> None:
        """End at once, whatever is lost."""
        self.record("stopped", self.step, why=why)
        self.ended = actions.GiveUp(why=why, hint="the same command goes on from the newest checkpoint")

    def give_up(self, why: str, hint: str) -> None:
        """The engine has no nodes to give."""
        self._do(actions.GiveUp(why=why, hint=hint))

    def hear(self, event: events.Event) -> None:
        """Tell the controller, and do what it wants."""
        for action in self.controller.on(event, self.clock.now()):
            self._do(action)

    def record(self, kind: str, step: int | None = None, **data: Any) -> None:
        """Into the ledger."""
        self.ledger.append(
            Event(time=self.clock.date(), kind=kind, incarnation=self.incarnation, step=step, data=data)
        )

    # --- time ---------------------------------------------------------------------------------------------

    def tick(self) -> None:
        """Who has gone silent, and what is due; ten times a second."""
        now = self.clock.now()
        for node in self._heartbeats.overdue(now):
            if agent := self.agents.get(node):
                # It may only be slow: then these are the last words that it finds.
                agent.send(frame({"do": "stop", "incarnation": self.incarnation}))
                agent.close()
                self._lost(agent, f"silent for {SILENT_NODE_SECONDS:g} s", SILENT_NODE_SECONDS)
        if stuck := self._progress.overdue(now):
            self._fault(f"no step for {stuck:.1f} s", self.places[0], None, stuck)
            self.hear(
                events.WorkerHung(node=self.places[0], rank=None, incarnation=self.incarnation, seconds=stuck)
            )
        deadline = self.controller.deadline
        if deadline is not None and now >= deadline:
            self.hear(events.TimePassed())

    # --- agents -------------------------------------------------------------------------------------------

    def _meet(self) -> Line:
        """Somebody has connected."""
        line = Line(self._token, self)
        self._lines.add(line)
        line.ended.add_done_callback(lambda _: self._lines.discard(line))
        return line

    def refused(self, peer: str, why: str) -> None:
        """Somebody who is not of this run."""
        self.record("refused", peer=peer, why=why)

    def joined(self, agent: Line, hello: Message) -> None:
        """An agent has come, or has come back."""
        call = float(hello.get("call", 0.0))
        if agent.node in self.agents and call < self._calls.get(agent.node, call):
            agent.close()  # an attempt that it gave up, and that took longer than the next one
            return
        self._calls[agent.node] = call
        if old := self.agents.pop(agent.node, None):  # its line broke, and it was back before we noticed
            old.close()
            self._note_loss(agent.node, "came back over a new connection", 0.0)
        self.agents[agent.node] = agent
        self._heartbeats.beat(agent.node, self.clock.now())
        self.record("node_joined", node=agent.node, rack=agent.rack)
        self.hear(
            events.NodeJoined(
                node=agent.node, rack=agent.rack, held=held(hello), incarnation=hello["incarnation"]
            )
        )

    def gone(self, agent: Line) -> None:
        """Its connection has ended, by either side."""
        if self.agents.get(agent.node) is agent and self.ended is None:
            self._lost(agent, "its agent is gone", 0.0)

    def _lost(self, agent: Line, why: str, seconds: float) -> None:
        del self.agents[agent.node]
        self._heartbeats.forget(agent.node)
        self._note_loss(agent.node, why, seconds)
        self.hear(events.NodeLost(node=agent.node, why=why))
        if self.ended is None:
            self.restart(agent.node)

    def _note_loss(self, node: str, why: str, seconds: float) -> None:
        self.record("node_lost", self.step, node=node, why=why)
        if node in self.places:
            self._fault(f"{node} lost: {why}", node, None, seconds)

    def heard(self, agent: Line, message: Message) -> None:
        """One message of an agent that is admitted."""
        now, kind, node = self.clock.now(), message["say"], agent.node
        self._heartbeats.beat(node, now)
        if kind == "beat":
            agent.send(BEAT)
        elif kind == "stopped":
            agent.store = message["store"]
            self.hear(events.NodeStopped(node=node, incarnation=message["incarnation"], held=held(message)))
        elif kind == "refused":
            self.refused(message["peer"], message["why"])
        elif kind == "stop_wanted":
            self.stop_wanted(message["why"])
        elif kind == "checked":
            why = message["why"]
            self.record("checked", self.step, node=node, passed=not why, why=why)
            self.hear(events.NodeChecked(node=node, passed=not why, why=why))
        elif message["incarnation"] == self.incarnation:
            self._of_this_incarnation(node, message["rank"], kind, message)

    def _of_this_incarnation(self, node: str, rank: int, kind: str, message: Message) -> None:
        incarnation, step = self.incarnation, message.get("step", self.step)
        if kind == "step":
            self.step = step
            self._progress.step(self.clock.now())
            if self._saving or step == self.controller.run.plan.steps:
                self._progress.linger(self.clock.now())
            self.hear(events.StepDone(incarnation=incarnation, step=step))
            self._look_for_stragglers(message["busy"])
            self._make_faults(self.chaos.due(step))
        elif kind == "checkpoint":
            self._progress.other(self.clock.now())
            self.hear(
                events.CheckpointDone(
                    incarnation=incarnation, step=step, seconds=message["seconds"], why=message["why"]
                )
            )
        elif kind in ("exited", "failed"):
            self._fault(f"worker {rank} {message['why']}", node, rank, 0.0)
            fatal = bool(message.get("fatal"))
            self.hear(
                events.WorkerExited(
                    node=node, rank=rank, incarnation=incarnation, why=message["why"], fatal=fatal
                )
            )
        elif kind == "hung":
            seconds = message["seconds"]
            self._fault(f"worker {rank} silent for {seconds:.1f} s", node, rank, seconds)
            self.hear(events.WorkerHung(node=node, rank=rank, incarnation=incarnation, seconds=seconds))
        elif kind in ("corrupted", "fingerprint"):
            self._gather(kind, step, rank, tuple(message["fingerprint"]))
        elif kind == "done":
            self.hear(events.AllDone(incarnation=incarnation, step=step, stopped=message["stopped"]))

    def _gather(self, kind: str, step: int, rank: int, fingerprint: tuple[int, int]) -> None:
        """All ranks' fingerprints are one event; whoever has not spoken after a while is left out."""
        key = (kind, step)
        if key not in self._gathering:
            self._gathering[key] = {}
            incarnation = self.incarnation
            self.clock.later(GATHER_SECONDS, self._gathered, key, incarnation)
        self._gathering[key][rank] = fingerprint
        if len(self._gathering[key]) == len(self.places) * self.per_node:
            self._gathered(key, self.incarnation)

    def _gathered(self, key: tuple[str, int], incarnation: int) -> None:
        fingerprints = self._gathering.pop(key, None)
        if fingerprints is None or incarnation != self.incarnation:
            return
        kind, step = key
        if kind == "corrupted":
            self._fault(f"copies of the weights differ after step {step}", "", None, 0.0)
            agreed = step - self.snapshot_every  # the one before had been compared
            by_rank = {str(rank): list(both) for rank, both in sorted(fingerprints.items())}
            self.record("suspected", step, agreed=agreed, fingerprints=by_rank)
            self.hear(
                events.CorruptionSuspected(
                    incarnation=incarnation, step=step, fingerprints=fingerprints, agreed=agreed
                )
            )
        else:
            self.hear(events.FingerprintsTaken(incarnation=incarnation, step=step, fingerprints=fingerprints))

    def _look_for_stragglers(self, busy: Iterable[float]) -> None:
        if (found := self._stragglers.on(tuple(busy))) is not None:
            rank, factor = found
            node = self.places[rank // self.per_node]
            self.hear(
                events.StragglerSuspected(node=node, rank=rank, incarnation=self.incarnation, factor=factor)
            )

    def _fault(self, cause: str, node: str, rank: int | None, seconds: float) -> None:
        """One line for the ledger when the controller hears of a failure; its echoes are not counted."""
        self._reasons.append(cause)
        if self.controller.run.phase == "running":
            self.record("fault", self.step, cause=cause, node=node, rank=rank, seconds_to_detect=seconds)

    # --- the controller's actions -------------------------------------------------------------------------

    def _do(self, action: actions.Action) -> None:
        """Carry one out."""
        if isinstance(action, actions.Start):
            self._start(action)
        elif isinstance(action, actions.Stop):
            if action.incarnation == self.incarnation:  # not of an older one, to a node that was away
                self._progress.pause()
            self._tell(action.nodes, {"do": "stop", "incarnation": action.incarnation})
        elif isinstance(action, actions.SaveAndStop | actions.Checkpoint):
            if isinstance(action, actions.SaveAndStop):
                self._saving = True
                self._progress.linger(self.clock.now())
            wish = "checkpoint" if isinstance(action, actions.Checkpoint) else "stop"
            self._tell(self.places, {"do": "wish", "wish": wish})
        elif isinstance(action, actions.Distrust):
            self._distrust(action)
        elif isinstance(action, actions.Check):
            self._tell([action.node], {"do": "check"})
        elif isinstance(action, actions.Quarantine):
            self.record("quarantined", self.step, node=action.node, why=action.why)
        elif isinstance(action, actions.Note):
            self.record(action.kind, action.step, node=action.node, rank=action.rank, why=action.why)
        elif isinstance(action, actions.Finish | actions.GiveUp):
            if isinstance(action, actions.GiveUp):
                self.record("gave_up", self.step, why=action.why)
            elif action.stopped and not self._said_stopped():
                self.record("stopped", self.step, why="asked to stop; nothing could be saved")
            self.ended = action

    def _said_stopped(self) -> bool:
        """Whether rank 0 has written that it saved and stopped."""
        return any(e.incarnation == self.incarnation for _, e in self.ledger.events("stopped"))

    def _distrust(self, action: actions.Distrust) -> None:
        """Checkpoints of state in doubt lose their markers, and so are none."""
        for name in self.run.set_aside(action.step):
            self.record("checkpoint_damaged", None, folder=name, why=action.why)

    def _start(self, start: actions.Start) -> None:
        ranks = len(start.nodes) * self.per_node
        self.incarnation, self.places = start.incarnation, start.nodes
        whole = self.controller.run.plan.places * self.per_node
        self.record(
            "incarnation_started",
            None,
            nodes=start.nodes,
            buddies=start.buddies,
            replicate=start.replicate,
            workers=ranks,
            spares=max(0, len(self.agents) - len(start.nodes)) * self.per_node,
            missing=whole - ranks,
            restore=start.restore,
            reason=self._reasons[0] if self._reasons else "",
            fruitless=self.controller.run.fruitless,
            aside=self.controller.run.fleet.aside,
        )
        self._reasons, self._gathering, self._saving = [], {}, False
        self._progress.restart(self.clock.now())
        self._stragglers.restart()
        store = self.agents[start.nodes[0]].store if start.nodes[0] in self.agents else ""
        fetch: dict[int, dict[str, str]] = {}
        for rank, holder in start.fetch.items():
            fetch.setdefault(rank // self.per_node, {})[str(rank)] = self._data_of(holder)
        sources = (
            {str(rank): self._data_of(node) for rank, node in start.sources.items()}
            if start.sources is not None
            else None
        )
        common = opened(
            {
                "do": "start",
                "incarnation": start.incarnation,
                "ranks": ranks,
                "copy_ranks": self.copy_ranks,
                "replicate": start.replicate,
                "restore": start.restore,
                "store": store,
                "sources": sources,
                "verify": start.verify,
            }
        )
        for place, node in enumerate(start.nodes):
            if agent := self.agents.get(node):
                own = {
                    "first": place * self.per_node,
                    "buddy": self._data_of(start.buddies[place]),
                    "fetch": fetch.get(place, {}),
                }
                agent.send(frame_with(common, own))

    def _data_of(self, node: str) -> str:
        agent = self.agents.get(node)
        return agent.data if agent else ""

    def _tell(self, nodes: Iterable[str], message: Message) -> None:
        """All of them the same."""
        framed = frame(message)
        for node in nodes:
            if agent := self.agents.get(node):
                agent.send(framed)

    # --- faults on purpose --------------------------------------------------------------------------------

    def _make_faults(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            if fault.kind == "flip" and len(self.places) * self.per_node == self.copy_ranks:
                continue  # a single copy of the model has nothing to be compared with
            self.record("chaos", self.step, fault=str(fault))
            ranks = len(self.places) * self.per_node
            if fault.what == "worker":
                rank = fault.number % ranks
                order = {"do": "fault", "fault": fault.kind, "rank": rank, "seconds": fault.seconds}
                self._tell([self.places[rank // self.per_node]], order)
            elif agent := self.agents.get(self.places[fault.number % len(self.places)]):
                self.chaos.at_node(fault, agent.pid)
