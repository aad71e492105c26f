"""
A small cluster for the controller to run: nodes with memories, messages under way, and things that go wrong.

It knows the truth (who runs what, what is in whose memory), carries the controller's actions out as agents
do, and checks every action against it. What one node says arrives in order; all else arrives whenever `hear`
is called. What a step computes differs from one incarnation to the next, as on hardware that does not repeat
itself, so parts of two tries of the same step do not fit together.
"""

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import replace

from colossi.control.actions import (
    DISK,
    Action,
    Check,
    Checkpoint,
    Distrust,
    Finish,
    GiveUp,
    Note,
    Quarantine,
    SaveAndStop,
    Start,
    Stop,
)
from colossi.control.controller import Controller
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
    Ring,
    StepDone,
    TimePassed,
    WorkerExited,
    WorkerHung,
    WorldStopped,
)
from colossi.control.plan import Plan

from .node import Node


def _but_sources(action: Action) -> str:
    """Of two nodes that have a snapshot either may be asked."""
    if isinstance(action, Start):
        ranks = {rank: "somebody" for rank in action.sources or action.fetch}
        return repr(replace(action, fetch={}, sources=None)) + repr(ranks)
    return repr(action)


class Cluster:
    """Everything outside the controller, and the checks."""

    def __init__(self, plan: Plan, racks: int) -> None:
        self.plan, self.racks = plan, racks
        self.controller = Controller(plan)
        self.now = 1.0
        self.nodes: dict[str, Node] = {}
        self.lost: deque[NodeLost] = deque()  # what the detector has yet to tell
        self.said: list[Event] = []  # of workers, that may be heard again
        self.starts: list[Start] = []
        self.step = 0
        self.heard = 0  # the newest step that the controller was told of in this incarnation
        self.suspicion: CorruptionSuspected | None = None
        self.disk = 0
        self.saving = False  # the workers were asked to save and end
        self.last: Finish | GiveUp | None = None
        # What the controller has been told
        self.known: set[str] = set()
        self.busy: dict[str, int] = {}  # node -> the incarnation that it has to answer for
        self.quarantined: dict[str, bool] = {}  # node -> for corruption
        self.fenced: set[str] = set()  # quarantined as they did not answer
        self.doubted: dict[int, int] = {}  # incarnation -> the last of its steps that is trusted

    # --- the channel --------------------------------------------------------------------------------------

    def hear(self, event: Event) -> list[Action]:
        """Tell the controller, check what it wants, and send it on its way."""
        self._note(event)
        twin = Controller.from_state(self.plan, json.loads(json.dumps(self.controller.state())))
        ended = self.last is not None
        actions = self.controller.on(event, self.now)
        assert twin.on(event, self.now) == actions
        assert json.dumps(twin.state()) == json.dumps(self.controller.state())
        assert not (ended and actions)
        for action in actions:
            self._carry_out(action, event)
        return actions

    def _note(self, event: Event) -> None:
        match event:
            case NodeJoined():
                self.known.add(event.node)
                self.nodes[event.node].anew = False
                self.busy.pop(event.node, None)  # who comes again has lost what it had to answer
                if event.incarnation:
                    self.busy[event.node] = event.incarnation
            case NodeLost():
                self.known.discard(event.node)
                self.nodes[event.node].anew = False
                self.busy.pop(event.node, None)
            case NodeStopped():
                if event.node in self.known and event.incarnation >= self.busy.get(event.node, 0):
                    self.busy.pop(event.node, None)
            case WorldStopped():
                self.busy = {
                    node: n for node, n in self.busy.items() if n != event.incarnation or node in event.but
                }
            case CorruptionSuspected():
                if self.starts and event.incarnation == self.starts[-1].incarnation:
                    self.suspicion = event
                    before = self.doubted.get(event.incarnation, event.step)
                    self.doubted[event.incarnation] = min(before, event.step - 1)
            case StepDone():
                if self.starts and event.incarnation == self.starts[-1].incarnation:
                    self.heard = max(self.heard, event.step)
            case TimePassed() if self._deadline_is_over():
                # Who did not come or answer counts as lost; those that are there are fenced off.
                if self.controller.run.phase == "adopting":
                    self.busy = {node: n for node, n in self.busy.items() if node in self.known}
                if self.controller.run.phase == "stopping":
                    self.fenced |= set(self.busy) & self.known
                    self.busy.clear()

    def _deadline_is_over(self) -> bool:
        deadline = self.controller.deadline
        return deadline is not None and 0 < deadline <= self.now

    # --- the controller's actions, checked and carried out ------------------------------------------------

    def _carry_out(self, action: Action, event: Event) -> None:
        match action:
            case Start():
                self._check_start(action)
                self._begin(action)
            case Stop():
                assert action.nodes
                assert set(action.nodes) <= self.known
                for name in action.nodes:
                    self._send(name, action)
            case SaveAndStop():
                self.saving = True
            case Checkpoint():
                self.disk = max(self.disk, self.step)
                done = CheckpointDone(incarnation=action.incarnation, step=self.step)
                self.say(self.starts[-1].nodes[0], done)
            case Check():
                assert self.nodes[action.node].runs == 0
                self.say(action.node, NodeChecked(node=action.node, passed=len(action.node) % 2 == 0))
            case Quarantine():
                assert action.node not in self.quarantined
                self.quarantined[action.node] = isinstance(event, FingerprintsTaken | TimePassed)
            case Distrust():
                self.disk = self.disk if self.disk <= action.step else 0
            case Note():
                pass
            case Finish() | GiveUp():
                self.last = action

    def _check_start(self, start: Start) -> None:
        plan = self.plan
        assert start.incarnation > max((earlier.incarnation for earlier in self.starts), default=0)
        assert not self.busy, f"begins while {self.busy} have not answered"
        running = [node.name for node in self.nodes.values() if node.runs and node.name in self.known]
        assert set(running) <= self.fenced
        assert len(set(start.nodes)) == len(start.nodes)
        assert set(start.nodes) <= self.known
        assert not set(start.nodes) & set(self.quarantined)
        assert len(start.nodes) * plan.per_node == start.replicate * plan.copy <= plan.places * plan.per_node
        assert plan.global_batch % (start.replicate * plan.shares) == 0
        assert all(
            buddy in start.nodes and buddy != node if len(start.nodes) > 1 else buddy == ""
            for node, buddy in zip(start.nodes, start.buddies, strict=True)
        )
        assert len(set(start.buddies)) == len(start.buddies)
        if start.restore != DISK:
            self._check_sources(start)

    def _check_sources(self, start: Start) -> None:
        """Every rank of the old world has its part of one and the same state, on a node that may be asked."""
        if start.sources is None:
            world = len(start.nodes) * self.plan.per_node
            own = {rank: start.nodes[rank // self.plan.per_node] for rank in range(world)}
            sources = own | dict(start.fetch)
            assert all(own[rank] != node for rank, node in start.fetch.items())
        else:
            assert not start.fetch
            sources, world = dict(start.sources), len(start.sources)
        assert set(sources) == set(range(world))
        assert set(sources.values()) <= self.known - self.fenced
        assert not any(self.quarantined.get(node, False) for node in sources.values())
        there = {
            rank: self.nodes[node]
            for rank, node in sources.items()
            if self.nodes[node].up and not self.nodes[node].anew
        }
        origins = {node.memory[world, rank, start.restore] for rank, node in there.items()}
        assert len(origins) <= 1, "parts of two different states"
        assert all(start.restore <= self.doubted.get(origin, start.restore) for origin in origins)

    def _begin(self, start: Start) -> None:
        self.starts.append(start)
        self.busy = dict.fromkeys(start.nodes, start.incarnation)
        self.step = self.disk if start.restore == DISK else start.restore
        self.saving, self.heard = False, 0
        for name in start.nodes:
            self._send(name, start)

    def _send(self, name: str, order: Start | Stop) -> None:
        node = self.nodes[name]
        if node.up and node.linked and not node.anew:
            node.inbox.append(order)

    # --- nodes --------------------------------------------------------------------------------------------

    def say(self, name: str, event: Event) -> None:
        """A node says something."""
        node = self.nodes[name]
        if node.up:
            node.outbox.append(event)

    def obey(self, node: Node) -> None:
        """An agent does the next thing that it was told."""
        order = node.inbox.popleft()
        if isinstance(order, Start):
            assert not node.runs or node.mute, "two incarnations on one node"
            self._start_on(node, order)
        elif not node.mute:
            node.runs, node.well = 0, False
            node.outbox.append(NodeStopped(node=node.name, incarnation=order.incarnation, held=node.held()))

    def gather(self) -> None:
        """Nodes of the incarnation have answered; somebody has heard them, and tells it at once."""
        start = self.starts[-1]
        if any(n == start.incarnation and node not in self.known for node, n in self.busy.items()):
            return
        members = [self.nodes[name] for name in start.nodes if name in self.known]
        answered = {node.name: list(node.outbox) for node in members if node.name in self.busy}
        answered = {
            name: said
            for name, said in answered.items()
            if len(said) == 1
            and isinstance(said[0], NodeStopped)
            and said[0].incarnation == start.incarnation
            and self.nodes[name].linked
            and not self.nodes[name].runs
        }
        silent = tuple(node.name for node in members if node.name in self.busy and node.name not in answered)
        members = [self.nodes[name] for name in answered]
        answers = list(answered.values())
        if not answers:
            return
        twin = Controller.from_state(self.plan, json.loads(json.dumps(self.controller.state())))
        one_by_one = [action for (said,) in answers for action in twin.on(said, self.now)]
        for node in members:
            node.outbox.clear()
        rings = tuple(self._rings(start, members))
        together = self.hear(WorldStopped(incarnation=start.incarnation, rings=rings, but=silent))
        sizes = {world for node in members for world, _, _ in node.memory}
        if sizes <= {len(start.nodes) * self.plan.per_node}:  # else rings do not say it all
            assert [_but_sources(action) for action in together] == [_but_sources(a) for a in one_by_one]

    def _rings(self, start: Start, members: list[Node]) -> Iterable[Ring]:
        """What they hold alike, and where they do not."""
        world, there = len(start.nodes) * self.plan.per_node, {node.name: node.memory for node in members}
        for origin, step in sorted({(n, key[2]) for memory in there.values() for key, n in memory.items()}):
            otherwise = {}
            for place, both in enumerate(zip(start.nodes, start.buddies, strict=True)):
                wanted = [(world, rank, step) for rank in self.ranks(place)]
                have = [name for name in both if all(there.get(name, {}).get(k) == origin for k in wanted)]
                if tuple(have) != both:
                    otherwise[place] = tuple(have)
            yield Ring(
                incarnation=origin,
                world=world,
                step=step,
                nodes=start.nodes,
                buddies=start.buddies,
                otherwise=otherwise,
            )

    def _start_on(self, node: Node, start: Start) -> None:
        place, world = start.nodes.index(node.name), len(start.nodes) * self.plan.per_node
        node.runs, node.well = start.incarnation, True
        if start.restore == DISK or start.sources is not None:
            return
        for rank in self.ranks(place):
            key = (world, rank, start.restore)
            if rank in start.fetch:
                source = self.nodes[start.fetch[rank]]
                if not source.up or not source.linked or key not in source.memory:
                    node.well = False
                    why = "cannot fetch"
                    failure = WorkerExited(node=node.name, rank=rank, incarnation=node.runs, why=why)
                    node.outbox.append(failure)
                    return
                node.memory[key] = source.memory[key]

    def ranks(self, place: int) -> range:
        return range(place * self.plan.per_node, (place + 1) * self.plan.per_node)

    @property
    def world(self) -> list[Node]:
        """The nodes of the last Start."""
        return [self.nodes[name] for name in self.starts[-1].nodes] if self.starts else []

    @property
    def steps(self) -> bool:
        """Whether the workers get on."""
        world = self.world
        return bool(world) and all(
            node.up and node.linked and node.well and node.runs == self.starts[-1].incarnation
            for node in world
        )

    def take_step(self, lagging: Iterable[str] = ()) -> None:
        """A step by all; what some send to their buddies comes too late."""
        start = self.starts[-1]
        self.step += 1
        self.take_snapshots(self.world, self.step, lagging)
        first = start.nodes[0]
        self.say(first, StepDone(incarnation=start.incarnation, step=self.step))
        if self.step == start.verify:
            found = {rank: 0 for rank in range(len(start.nodes) * self.plan.per_node)}
            self.say(
                first, FingerprintsTaken(incarnation=start.incarnation, step=self.step, fingerprints=found)
            )
        if self.step >= self.plan.steps or self.saving:
            for node in self.world:
                node.runs, node.well = 0, False
            stopped = self.step < self.plan.steps
            self.say(first, AllDone(incarnation=start.incarnation, step=self.step, stopped=stopped))

    def take_snapshots(self, nodes: Iterable[Node], step: int, lagging: Iterable[str] = ()) -> None:
        start = self.starts[-1]
        world = len(start.nodes) * self.plan.per_node
        for node in nodes:
            place = start.nodes.index(node.name)
            buddy = self.nodes.get(start.buddies[place])
            for rank in self.ranks(place):
                node.keep(world, rank, step, start.incarnation)
                if buddy and node.name not in lagging and buddy.runs == start.incarnation and buddy.up:
                    buddy.keep(world, rank, step, start.incarnation)

    # --- what goes wrong, and comes -----------------------------------------------------------------------

    def join(self) -> None:
        number = len(self.nodes)
        node = Node(name=f"n{number}", rack=f"r{number % self.racks}" if self.racks > 1 else "")
        self.nodes[node.name] = node
        self._greet(node)

    def _greet(self, node: Node) -> None:
        node.inbox.clear()
        node.anew = node.name in self.known
        event = NodeJoined(node=node.name, rack=node.rack, held=node.held(), incarnation=node.runs)
        node.outbox.appendleft(event)

    def kill(self, node: Node) -> None:
        """A node is lost, and what it had."""
        node.up, node.runs, node.well, node.mute = False, 0, False, False
        node.memory.clear()
        node.inbox.clear()
        node.outbox.clear()
        if node.linked:
            self.lost.append(NodeLost(node=node.name, why="killed"))

    def restart(self, node: Node, *, unnoticed: bool) -> None:
        """It is there again, perhaps before anybody noticed that it was gone."""
        node.up = node.linked = True
        if not unnoticed:
            self._tell_losses(node.name)
        self.lost = deque(event for event in self.lost if event.node != node.name)
        self._greet(node)

    def cut_off(self, node: Node) -> None:
        """A partition: it goes on by itself, as well as it can."""
        node.linked = False
        node.inbox.clear()
        node.outbox = deque(event for event in node.outbox if not isinstance(event, NodeJoined))
        self.lost.append(NodeLost(node=node.name, why="silent"))

    def heal(self, node: Node) -> None:
        node.linked = True
        self._tell_losses(node.name)
        self._greet(node)

    def _tell_losses(self, name: str) -> None:
        """A line is known to be broken before a new one is there."""
        for event in [event for event in self.lost if event.node == name]:
            self.lost.remove(event)
            self.hear(event)

    def replace_controller(self) -> None:
        """The controller is killed; another takes over from the ledger, and the agents come back."""
        start = self.starts[-1]
        run = self.controller.run
        self.controller = Controller.take_over(
            self.plan,
            incarnation=start.incarnation,
            nodes=start.nodes,
            replicate=start.replicate,
            quarantined=self.quarantined,
            strikes=run.fleet.strikes,
            corruptions=run.fleet.corruptions,
            step=self.heard,
            first_done=run.first_done,
            suspicion=self.suspicion,
            restored=start.restore,
            before=[(earlier.incarnation, earlier.restore) for earlier in self.starts[:-1]],
        )
        self.known.clear()
        self.lost.clear()
        self.busy = dict.fromkeys(start.nodes, start.incarnation)
        self.quarantined = dict.fromkeys(self.quarantined, True)
        for node in self.nodes.values():
            if node.up and node.linked:
                node.outbox = deque(event for event in node.outbox if not isinstance(event, NodeJoined))
                self._greet(node)

    # --- to the end ---------------------------------------------------------------------------------------

    def senders(self) -> list[Node]:
        return [node for node in self.nodes.values() if node.up and node.linked and node.outbox]

    def hear_from(self, node: Node) -> list[Action]:
        event = node.outbox.popleft()
        if not isinstance(event, NodeJoined | NodeChecked):
            self.said.append(event)
        return self.hear(event)

    def drain(self, most: int = 400) -> None:
        """Nothing goes wrong any more: it must come to an end."""
        for _ in range(most):
            if self.last is not None:
                return
            self.settle()
            if self.last is not None:
                return
            deadline = self.controller.deadline
            if self.steps:
                self.now += 1.0
                self.take_step()
            elif self.controller.run.phase == "running":  # the detector would notice
                hung = WorkerHung(node="", rank=None, incarnation=self.starts[-1].incarnation, seconds=60.0)
                self.hear(hung)
            else:
                assert deadline is not None, "it waits for nothing"
                self.now = max(self.now, deadline)
                self.hear(TimePassed())
        raise AssertionError("it does not end")

    def settle(self) -> None:
        """Everything that is under way arrives."""
        while True:
            while self.lost:
                self.hear(self.lost.popleft())
            for node in self.senders():
                self.hear_from(node)
            for node in self.nodes.values():
                while node.inbox:
                    self.obey(node)
            if not self.senders() and not self.lost and not any(node.inbox for node in self.nodes.values()):
                return


def fingerprints(cluster: Cluster, wrong: Callable[[int], bool]) -> CorruptionSuspected:
    """The last step, computed otherwise by some."""
    start = cluster.starts[-1]
    first = {rank: int(wrong(rank)) for rank in range(len(start.nodes) * cluster.plan.per_node)}
    return CorruptionSuspected(incarnation=start.incarnation, step=cluster.step, fingerprints=first)
