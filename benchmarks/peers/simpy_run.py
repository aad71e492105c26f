"""
A run's failures and restarts as one would write them with SimPy: a process for each node and for the job.

The job does its steps as time-outs, and is interrupted when something breaks. When that is known it asks each
node to stop, waits for all of their answers, gives the places of those that are lost to spares, and begins
again from the newest snapshot. A node under repair is a time-out as well. It decides less than the controller
of colossi does: it knows no copies that are lost together with their buddy, no stragglers, and no node that
fails too often.
"""

from collections.abc import Generator, Iterable
from typing import Any

import simpy

from colossi.simulation.scenario import Scenario
from colossi.simulation.striking import FLAP_SECONDS
from colossi.world.failures import Fault

Process = Generator[simpy.Event, Any, None]


class Node:
    """Sound until it is interrupted by a fault; then nobody answers, until it is repaired."""

    def __init__(self, job: "Job", number: int) -> None:
        self.job, self.number = job, number
        self.dead = False
        self.inbox = simpy.Store(job.env)
        self.answer: simpy.Event | None = None  # that the job is waiting for
        self.process = job.env.process(self.live())

    def stop(self) -> simpy.Event:
        """Ask it to end its workers; the event is its answer."""
        self.answer = self.job.env.event()
        self.inbox.put("stop")
        return self.answer

    def reply(self) -> None:
        """Its workers have ended, or it has been found to be lost."""
        if self.answer is not None:
            self.answer.succeed()
            self.answer = None

    def live(self) -> Process:
        order = self.inbox.get()
        while True:
            try:
                yield order
                self.job.heard += 1
                self.reply()
                order = self.inbox.get()
            except simpy.Interrupt as interrupt:
                assert isinstance(interrupt.cause, Fault)
                yield from self.be_dead(interrupt.cause)

    def be_dead(self, fault: Fault) -> Process:
        job = self.job
        known = min(job.scenario.detection, fault.repair)
        yield job.env.timeout(known)
        job.lose(self)
        self.reply()
        yield job.env.timeout(fault.repair - known)
        self.dead = False
        job.join(self)


class Job:
    """The steps, and who sits where."""

    def __init__(self, env: simpy.Environment, scenario: Scenario, faults: Iterable[Fault]) -> None:
        self.env, self.scenario = env, scenario
        self.heard = 0  # control events
        self.spares: dict[Node, None] = {}
        self.seats: list[Node] = []
        self.places: dict[Node, int] = {}
        self.vacant: set[int] = set()
        self.step, self.begun, self.saved = 0, 0, 0
        self.starts = 0
        self.stage = "still"  # or running, or stuck: something broke
        self.pause = 0.0  # [s] by which this step takes longer, as a link was away
        self.known = self.came = env.event()
        self.nodes = [Node(self, number) for number in range(scenario.machinery.nodes)]
        for node in self.nodes:
            self.join(node)
        env.process(self.strike(faults))
        self.process = env.process(self.train())

    # --- the world ----------------------------------------------------------------------------------------

    def strike(self, faults: Iterable[Fault]) -> Process:
        for number, fault in enumerate(faults):
            yield self.env.timeout(fault.time - self.env.now)
            if fault.effect == "loss":
                struck = [node for each in fault.nodes if not (node := self.nodes[each]).dead]
                for node in struck:
                    node.dead = True
                    node.process.interrupt(fault)
                if any(node in self.places for node in struck):
                    self.get_stuck()
            elif self.stage == "running":
                node = self.nodes[fault.nodes[0]] if fault.nodes else self.seats[number % len(self.seats)]
                if node not in self.places or node.dead:
                    continue
                if fault.effect == "flap" and fault.repair <= FLAP_SECONDS:
                    self.pause += fault.repair
                else:
                    self.get_stuck()
                    self.env.process(self.notice(self.starts))

    def get_stuck(self) -> None:
        if self.stage == "running":
            self.stage = "stuck"
            self.process.interrupt()

    def notice(self, start: int) -> Process:
        yield self.env.timeout(self.scenario.detection)
        if start == self.starts:
            self.hear_of_trouble()

    # --- what is heard ------------------------------------------------------------------------------------

    def hear_of_trouble(self) -> None:
        self.heard += 1
        if not self.known.triggered:
            self.known.succeed()

    def lose(self, node: Node) -> None:
        self.spares.pop(node, None)
        if node in self.places:
            self.vacant.add(self.places[node])
            self.hear_of_trouble()
        else:
            self.heard += 1

    def join(self, node: Node) -> None:
        self.heard += 1
        self.spares[node] = None
        if not self.came.triggered:
            self.came.succeed()

    # --- the job ------------------------------------------------------------------------------------------

    def train(self) -> Process:
        env, scenario = self.env, self.scenario
        while True:
            yield from self.fill()
            self.known = env.event()
            self.stage, self.begun, self.starts = "running", self.step, self.starts + 1
            try:
                if any(node.dead for node in self.seats):
                    self.stage = "stuck"  # nobody knows yet
                else:
                    yield env.timeout(scenario.restart)
                    yield from self.do_steps()
            except simpy.Interrupt:
                pass
            yield self.known
            self.stage = "still"
            asked = [node for place, node in enumerate(self.seats) if place not in self.vacant]
            yield env.all_of([node.stop() for node in asked])
            newest = (self.step - 1) // scenario.snapshot_every * scenario.snapshot_every
            self.step = max(newest, self.begun)

    def do_steps(self) -> Process:
        env, scenario = self.env, self.scenario
        while True:
            yield env.timeout(scenario.step_seconds)
            while self.pause:
                pause, self.pause = self.pause, 0.0
                yield env.timeout(pause)
            self.step += 1
            self.heard += 1
            if scenario.checkpoint_every and self.step % scenario.checkpoint_every == 0:
                yield env.timeout(scenario.checkpoint)
                self.saved = self.step
                self.heard += 1

    def fill(self) -> Process:
        """A node for each place, when there are enough."""
        wanted = len(self.vacant) if self.seats else self.scenario.plan.places
        while len(self.spares) < wanted:
            self.came = self.env.event()
            yield self.came
            wanted = len(self.vacant) if self.seats else wanted
        if not self.seats:
            self.seats = [self.spares.popitem()[0] for _ in range(wanted)]
            self.places = {node: place for place, node in enumerate(self.seats)}
        for place in sorted(self.vacant):
            old = self.seats[place]
            new = old if old in self.spares else next(iter(self.spares))
            del self.spares[new], self.places[old]
            self.seats[place] = new
            self.places[new] = place
        self.vacant.clear()


def play(scenario: Scenario, faults: Iterable[Fault]) -> Job:
    """All its days."""
    env = simpy.Environment()
    job = Job(env, scenario, faults)
    env.run(until=scenario.seconds)
    return job
