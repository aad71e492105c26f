"""Any events in any order, late and twice: the promises of the controller hold, and it always ends.

The checks are in cluster.py, beside what they check; here is only what can happen.
"""

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule

from colossi.control.events import (
    NodeChecked,
    StopWanted,
    StragglerSuspected,
    TimePassed,
    WorkerExited,
    WorkerHung,
)
from colossi.control.plan import Plan

from .cluster import Cluster, fingerprints
from .node import Node

MOST_NODES = 7
SHAPES = {  # places, workers on a node, ranks of a copy, shares of a copy, batch
    "2 nodes, 2 copies": (2, 2, 2, 2, 8),
    "4 nodes, 3 of which cannot share the batch": (4, 1, 1, 1, 4),
    "3 nodes of 2 copies": (3, 2, 1, 1, 12),
    "a copy on 2 nodes, twice": (4, 2, 4, 2, 8),
    "a single copy on 2 nodes": (2, 1, 2, 2, 4),
    "one node": (1, 2, 2, 1, 2),
}
which = st.integers(min_value=0, max_value=MOST_NODES - 1)


class AnyOrder(RuleBasedStateMachine):
    """A run, and all that can happen to it."""

    cluster: Cluster

    @initialize(
        shape=st.sampled_from(sorted(SHAPES)),
        racks=st.integers(1, 3),
        spares=st.sampled_from([-1, 0, 1, 1, 2, 3]),
        patience=st.sampled_from([0.0, 20.0]),
        strikes=st.sampled_from([None, 2, 3]),
        checkpoint=st.sampled_from([None, 15.0]),
    )
    def begin(
        self,
        shape: str,
        racks: int,
        spares: int,
        patience: float,
        strikes: int | None,
        checkpoint: float | None,
    ) -> None:
        places, per_node, copy, shares, batch = SHAPES[shape]
        plan = Plan(
            places=places,
            per_node=per_node,
            copy=copy,
            shares=shares,
            global_batch=batch,
            steps=40,
            patience_seconds=patience,
            wait_seconds=60.0,
            checkpoint_seconds=checkpoint,
            strikes=strikes,
        )
        self.cluster = Cluster(plan, racks)
        for _ in range(places + spares):
            self.cluster.join()
        self.cluster.settle()

    def node(self, number: int) -> Node | None:
        nodes = list(self.cluster.nodes.values())
        return nodes[number % len(nodes)] if nodes else None

    def member(self, number: int) -> Node | None:
        """A node on which workers of the last incarnation are."""
        current = self.cluster.starts[-1].incarnation if self.cluster.starts else 0
        nodes = [node for node in self.cluster.world if node.up and node.runs == current]
        return nodes[number % len(nodes)] if nodes else None

    # --- it goes on ---------------------------------------------------------------------------------------

    @rule()
    def settle(self) -> None:
        self.cluster.settle()

    @rule(number=which)
    def hear_one(self, number: int) -> None:
        if senders := self.cluster.senders():
            self.cluster.hear_from(senders[number % len(senders)])

    @rule()
    def notice_a_loss(self) -> None:
        if self.cluster.lost:
            self.cluster.hear(self.cluster.lost.popleft())

    @rule(number=which)
    def obey_one(self, number: int) -> None:
        told = [node for node in self.cluster.nodes.values() if node.inbox]
        if told:
            self.cluster.obey(told[number % len(told)])

    @precondition(lambda self: self.cluster.busy)
    @rule()
    def answer_together(self) -> None:
        """All do what they were told, and the answers come in one."""
        for node in self.cluster.nodes.values():
            while node.up and node.inbox:
                self.cluster.obey(node)
        self.cluster.gather()

    @rule(steps=st.integers(1, 3))
    def go_well(self, steps: int) -> None:
        """The same: most of the time nothing happens."""
        self.get_on(steps=steps)

    @rule(steps=st.integers(1, 3))
    def get_on(self, steps: int) -> None:
        """What is under way arrives, and all goes well for a while."""
        for _ in range(steps):
            self.step(steps=1, lagging=set())
            self.cluster.settle()

    @rule(steps=st.integers(1, 3), lagging=st.sets(which, max_size=2))
    def step(self, steps: int, lagging: set[int]) -> None:
        for _ in range(steps):
            if self.cluster.steps:
                self.cluster.now += 1.0
                self.cluster.take_step({f"n{number}" for number in lagging})

    @rule(seconds=st.floats(0.1, 40.0))
    def time_passes(self, seconds: float) -> None:
        self.cluster.now += seconds
        self.cluster.hear(TimePassed())

    @rule()
    def wait_for_the_deadline(self) -> None:
        deadline = self.cluster.controller.deadline
        if deadline is not None:
            self.cluster.now = max(self.cluster.now, deadline)
            self.cluster.hear(TimePassed())

    # --- nodes --------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.cluster.nodes) < MOST_NODES)
    @rule()
    def join(self) -> None:
        self.cluster.join()

    @rule(number=which)
    def kill_node(self, number: int) -> None:
        if (node := self.node(number)) and node.up:
            self.cluster.kill(node)

    @rule(number=which, unnoticed=st.booleans())
    def restart_node(self, number: int, unnoticed: bool) -> None:
        if (node := self.node(number)) and not node.up:
            self.cluster.restart(node, unnoticed=unnoticed)

    @rule(number=which)
    def replace_node(self, number: int) -> None:
        """Its agent dies, and comes back without its memory."""
        self.kill_node(number=number)
        self.restart_node(number=number, unnoticed=False)

    @rule(number=which)
    def cut_off(self, number: int) -> None:
        if (node := self.node(number)) and node.up and node.linked:
            self.cluster.cut_off(node)

    @rule(number=which)
    def cut_off_for_a_moment(self, number: int) -> None:
        """Long enough to be noticed."""
        if (node := self.member(number)) and node.linked:
            self.cluster.cut_off(node)
            self.cluster.heal(node)

    @rule(number=which)
    def heal(self, number: int) -> None:
        if (node := self.node(number)) and node.up and not node.linked:
            self.cluster.heal(node)

    @rule(number=which, really=st.sampled_from([False, False, True]))
    def cannot_stop(self, number: int, really: bool) -> None:
        if (node := self.member(number)) and really:
            node.mute = True

    @rule(number=which, passed=st.booleans())
    def check(self, number: int, passed: bool) -> None:
        """Somebody checks a node without being asked to."""
        if node := self.node(number):
            self.cluster.hear(NodeChecked(node=node.name, passed=passed, why="" if passed else "slow"))

    # --- workers ------------------------------------------------------------------------------------------

    def _rank(self, node: Node) -> int:
        start = self.cluster.starts[-1]
        return start.nodes.index(node.name) * self.cluster.plan.per_node

    @rule(number=which, fatal=st.sampled_from([False] * 15 + [True]))
    def kill_worker(self, number: int, fatal: bool) -> None:
        if node := self.member(number):
            node.well = False
            why = "killed by SIGKILL"
            rank = self._rank(node)
            event = WorkerExited(node=node.name, rank=rank, incarnation=node.runs, why=why, fatal=fatal)
            self.cluster.say(node.name, event)

    @rule(number=which, alone=st.booleans())
    def hang(self, number: int, alone: bool) -> None:
        if node := self.member(number):
            node.well = False
            rank = self._rank(node) if alone else None
            event = WorkerHung(node=node.name, rank=rank, incarnation=node.runs, seconds=30.0)
            self.cluster.say(node.name, event)

    @precondition(lambda self: self.cluster.steps)
    @rule(done=st.sets(which), lagging=st.sets(which), number=which)
    def die_within_a_step(self, done: set[int], lagging: set[int], number: int) -> None:
        """Some have the snapshot of the next step already, some not, when a worker dies."""
        cluster = self.cluster
        some = [node for place, node in enumerate(cluster.world) if place in done]
        cluster.take_snapshots(some, cluster.step + 1, {f"n{late}" for late in lagging})
        self.kill_worker(number=number, fatal=False)

    @rule(number=which)
    def straggle(self, number: int) -> None:
        if node := self.member(number):
            event = StragglerSuspected(
                node=node.name, rank=self._rank(node), incarnation=node.runs, factor=1.6
            )
            self.cluster.say(node.name, event)

    @precondition(lambda self: self.cluster.steps and self.cluster.step > 0)
    @rule(wrong=which, twice=st.booleans(), right=st.booleans())
    def corrupt(self, wrong: int, twice: bool, right: bool) -> None:
        cluster = self.cluster
        ranks = len(cluster.starts[-1].nodes) * cluster.plan.per_node
        event = fingerprints(cluster, lambda rank: right and rank == wrong % ranks)
        cluster.say(cluster.world[0].name, event)
        if twice:
            cluster.say(cluster.world[-1].name, event)

    @precondition(lambda self: self.cluster.said)
    @rule(number=st.integers(0, 1000))
    def say_it_again(self, number: int) -> None:
        self.cluster.hear(self.cluster.said[number % len(self.cluster.said)])

    # --- the run ------------------------------------------------------------------------------------------

    @rule(really=st.sampled_from([False] * 7 + [True]))
    def want_to_stop(self, really: bool) -> None:
        if really:
            self.cluster.hear(StopWanted(why="Ctrl-C"))

    @precondition(lambda self: self.cluster.starts and self.cluster.last is None)
    @rule()
    def replace_the_controller(self) -> None:
        self.cluster.replace_controller()

    def teardown(self) -> None:
        if hasattr(self, "cluster"):
            self.cluster.drain()


AnyOrder.TestCase.settings = settings(
    max_examples=200,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestAnyOrder = pytest.mark.filterwarnings("ignore::hypothesis.errors.NonInteractiveExampleWarning")(
    AnyOrder.TestCase
)
