"""The simulated engine: what befalls a fleet and what the ledger says of it, worked out by hand."""

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.control import actions, events
from colossi.control.actions import Action
from colossi.control.controller import Controller
from colossi.ledger.clock import account
from colossi.ledger.report import report
from colossi.simulation import striking
from colossi.simulation.copies import Copies
from colossi.simulation.engine import BEGINNING, CHECK_SECONDS, Simulated
from colossi.simulation.scenario import PLANNED, Scenario
from colossi.simulation.striking import FLAP_SECONDS
from colossi.world.failures import Fault

from .small import SCENARIO, at, fault, kinds, of_kind, plan, play, scenario


def test_in_peace() -> None:
    """20 s to the first step; 1,000 steps of 1 s, 19 checkpoints between them and one at the end, of 5 s."""
    history = play()
    (end,) = of_kind(history, "finished")
    assert at(end) == 20 + 1000 + 19 * 5 + 5
    told = report(history)
    assert (told.steps, told.tokens) == (1000, 100_000)
    assert told.interruptions == ()
    assert told.time["productive"] == pytest.approx(1000 * 8)
    assert told.time["startup"] == pytest.approx(20 * 8)
    assert told.ettr == pytest.approx(1000 / 1120)


def test_a_node_that_is_lost_is_replaced_and_costs_its_detection_restart_and_two_steps() -> None:
    """At 60.5 s 40 steps are done; the snapshot of the 40th is not whole yet."""
    history = play(fault(60.5, "loss", 1))
    (lost,) = of_kind(history, "fault")
    assert (at(lost), lost.step, lost.text("cause")) == (70.5, 40, "part: a node is lost")
    _, second = of_kind(history, "incarnation_started")
    assert at(second) == 70.5
    assert second.data["changed"] == {"1": "node-00004"}
    assert second.data["restore"] == 39
    restored = of_kind(history, "restored")[1]
    assert (at(restored), restored.data["source"]) == (90.5, "memory")
    assert [event.data["node"] for event in of_kind(history, "node_joined")] == ["node-00001"]
    told = report(history)
    assert told.interruptions[0].steps_again == 1
    assert told.time["detection"] == pytest.approx(10 * 8)
    assert told.time["restart"] == pytest.approx(20 * 8)
    assert told.time["recomputation"] == pytest.approx(1.5 * 8)
    assert at(of_kind(history, "finished")[0]) == pytest.approx(1120 + 10 + 20 + 1.5)


def test_without_snapshots_it_goes_back_to_the_disk() -> None:
    """At 100.5 s, 55 + 20 s after the checkpoint of step 50, 75 steps are done."""
    history = play(fault(100.5, "crash", 1), snapshot_every=0)
    again = of_kind(history, "restored")[1]
    assert (again.data["from_step"], again.data["source"], again.data["seconds"]) == (50, "disk", 50.0)
    told = report(history)
    assert told.interruptions[0].steps_again == 25
    assert told.interruptions[0].step == 75


def test_both_buddies_lost_at_once_goes_back_to_the_disk() -> None:
    """Nodes 0 and 1: whoever keeps copies for 0 is lost with it, as buddies are the next place here."""
    start = Simulated(SCENARIO).controller
    for node in range(6):
        orders = start.on(events.NodeJoined(node=f"node-{node:05}", rack=f"rack-{node:04}"), 0.0)
        if orders:
            break
    (begun,) = [order for order in orders if isinstance(order, actions.Start)]
    buddy = int(begun.buddies[0].removeprefix("node-"))
    history = play(fault(100.5, "loss", 0, buddy))
    assert of_kind(history, "restored")[1].data["source"] == "disk"
    other = next(
        place for place in range(1, 4) if place not in (0, buddy, begun.nodes.index(begun.buddies[buddy]))
    )
    if begun.buddies[other] != "node-00000":
        history = play(fault(100.5, "loss", 0, other))
        assert of_kind(history, "restored")[1].data["source"] == "memory"


def test_a_second_loss_before_the_new_node_has_copies() -> None:
    """The new node keeps copies for its ward only from its first snapshot on."""
    start = begin()
    ward = next(place for place in range(4) if start.buddies[place] == start.nodes[0])
    history = play(fault(60.5, "loss", 0), fault(75.0, "loss", ward))
    assert [event.data["source"] for event in of_kind(history, "restored")] == ["start", "start"]
    assert of_kind(history, "incarnation_started")[2].data["restore"] == -1
    history = play(fault(60.5, "loss", 0), fault(95.0, "loss", ward))  # two steps after it was there
    assert of_kind(history, "restored")[2].data["source"] == "memory"


def begin() -> actions.Start:
    simulated = Simulated(SCENARIO)
    simulated.play()
    start = simulated.start
    assert start is not None
    return start


@pytest.mark.parametrize(("snapshots", "seconds"), [(0, 50.0), (1, 50.0)])
def test_a_planned_stop_saves_first(snapshots: int, seconds: float) -> None:
    """At 60.5 s the 41st step is under way; it is done at 61 s and on disk at 66 s. Nobody has to notice.

    The ledger gives the write, after which no step was done, to the stop.
    """
    history = play(Fault(60.5, PLANNED, "job", (), 0.0), snapshot_every=snapshots)
    (stop,) = of_kind(history, "fault")
    assert (at(stop), stop.step) == (66.0, 41)
    assert stop.text("cause") == "planned: all workers were asked to end"
    again = of_kind(history, "restored")[1]
    assert (at(again), again.data["from_step"], again.data["seconds"]) == (66.0 + seconds, 41, seconds)
    told = report(history)
    assert told.time["detection"] == 0
    assert told.time["recomputation"] == pytest.approx(5 * 8)
    assert told.interruptions[0].steps_again == 0


def test_a_planned_stop_that_a_failure_forestalls() -> None:
    history = play(Fault(60.5, PLANNED, "job", (), 0.0), fault(63.0, "crash", 1))
    (stop,) = of_kind(history, "fault")
    assert stop.text("cause").startswith("part: ")


def test_what_stops_nothing() -> None:
    quiet = at(of_kind(play(), "finished")[0])
    for harmless in (fault(10.0, "crash", 1), fault(60.5, "crash", 5), fault(60.5, "slow", 5, factor=3.0)):
        history = play(harmless)
        if harmless.nodes == (5,):  # a spare
            assert at(of_kind(history, "finished")[0]) == quiet
    flap = play(fault(60.5, "flap", 1, repair=4.0))
    assert at(of_kind(flap, "finished")[0]) == pytest.approx(quiet + 4)
    assert not of_kind(flap, "fault")
    assert report(flap).time["idle"] == pytest.approx(report(play()).time["idle"] + 4 * 8)
    long = play(fault(60.5, "flap", 1, repair=FLAP_SECONDS + 1))
    assert len(of_kind(long, "fault")) == 1


def test_a_slow_node_is_replaced_checked_and_set_aside() -> None:
    """Its ten steps take 15 s; then it is told, and a minute later its check finds it slow."""
    history = play(fault(60.0, "slow", 2, factor=1.5, repair=500.0))
    (straggler,) = of_kind(history, "straggler")
    assert (at(straggler), straggler.data["node"]) == (75.0, "node-00002")
    second = of_kind(history, "incarnation_started")[1]
    assert second.data["changed"] == {"2": "node-00004"}
    (checked,) = of_kind(history, "checked")
    assert (at(checked), checked.data["passed"]) == (75.0 + CHECK_SECONDS, False)
    assert [event.data["node"] for event in of_kind(history, "quarantined")] == ["node-00002"]


def test_a_slightly_slow_node_slows_everybody_until_it_is_well() -> None:
    history = play(fault(60.0, "slow", 2, factor=1.25, repair=100.0))
    assert not of_kind(history, "straggler")
    # 100 s at 1.25 s a step instead of 1 s, but for the steps that were under way
    late = at(of_kind(history, "finished")[0]) - 1120
    assert 18 <= late <= 21


def test_storage_that_is_away_saves_nothing() -> None:
    history = play(fault(30.0, "storage", repair=100.0), fault(100.5, "crash", 1), snapshot_every=0)
    assert of_kind(history, "restored")[1].data["source"] == "start"


def test_a_flipped_bit_is_found_by_copies_that_differ_and_blamed() -> None:
    two = plan(copy=4, shares=4, wait_seconds=1e6)
    history = play(fault(60.5, "corrupt", 1), plan=two)
    (found,) = of_kind(history, "fault")
    assert "differ after step 41" in found.text("cause")
    assert [event.data["node"] for event in of_kind(history, "corrupted")] == ["node-00001"]
    assert [event.data["node"] for event in of_kind(history, "quarantined")] == ["node-00001"]
    assert of_kind(history, "incarnation_started")[1].data["restore"] <= 40
    assert of_kind(history, "finished")


def test_too_few_nodes_wait_for_a_repair() -> None:
    history = play(fault(60.5, "loss", 0, 1, 2, repair=300.0))
    assert of_kind(history, "waiting")
    second = of_kind(history, "incarnation_started")[1]
    assert at(second) == pytest.approx(360.5)
    assert report(history).time["waiting"] > 0


def test_it_gives_up_when_nobody_comes() -> None:
    history = play(fault(60.5, "loss", 0, 1, 2, repair=1e5), plan=plan(wait_seconds=600.0))
    assert history[-1].kind == "gave_up"


def test_the_days_end() -> None:
    history = play(seconds=500.0)
    assert history[-1].kind == "stopped"
    assert 500 <= at(history[-1]) <= 510
    early = play(seconds=10.0)  # while it still starts: it does a step and saves it
    assert (early[-1].kind, early[-1].step, at(early[-1])) == ("stopped", 1, 26.0)


class Deaf(Controller):
    """It begins, and then never wants anything again."""

    def on(self, event: events.Event, now: float) -> list[Action]:
        return [] if self.run.phase == "running" else super().on(event, now)


def test_nothing_is_decided_here() -> None:
    """Under a controller that has ceased to decide, what has broken stays so: no restart, no replacement."""
    simulated = striking.struck(Simulated(SCENARIO), [fault(60.5, "loss", 1)])
    simulated.controller = Deaf(SCENARIO.plan)
    history = simulated.play()
    assert len(of_kind(history, "incarnation_started")) == 1
    assert max(event.step or 0 for event in of_kind(history, "step_done")) == 40
    assert not {"promoted", "quarantined", "finished", "stopped", "gave_up"} & set(kinds(history))


# --- against what it stands for ---------------------------------------------------------------------------


class Checked(Copies):
    """The same, beside a memory that knows of each node what it holds."""

    def __init__(self, per_node: int) -> None:
        super().__init__(per_node)
        self.truth: dict[str, set[int]] = {}  # node -> the places whose snapshots of the newest step it has

    def begin(self, start: actions.Start) -> None:
        before = self.nodes
        super().begin(start)
        if self.step is None or len(before) != len(start.nodes):
            self.truth = {}
        for rank, holder in start.fetch.items():
            assert rank // self.per_node in self.truth[holder], "fetched from one who does not have it"
            self.truth.setdefault(start.nodes[rank // self.per_node], set()).add(rank // self.per_node)
        self.check()
        assert {node: place for place, node in enumerate(self.nodes)} == self.places
        assert {node: place for place, node in enumerate(self.buddies) if node} == self.wards

    def take(self, step: int, incarnation: int) -> None:
        super().take(step, incarnation)
        self.truth = {}
        for place, both in enumerate(zip(self.nodes, self.buddies, strict=True)):
            for node in both:
                if node:
                    self.truth.setdefault(node, set()).add(place)
        self.check()

    def lose(self, node: str) -> None:
        super().lose(node)
        self.truth.pop(node, None)
        self.check()

    def check(self) -> None:
        if self.step is None:
            return
        for place in range(len(self.nodes)):
            have = {node for node, places in self.truth.items() if place in places}
            assert set(self.holders(place)) <= have, "told of a copy that is not there"
            assert self.nodes[place] not in have or self.nodes[place] in self.holders(place)


class OneByOne(Simulated):
    """Every node answers for itself."""

    def _answer(self, incarnation: int) -> None:
        self.stage = "still"
        copies, step = self.copies, self.copies.step
        held: dict[str, list[events.Snapshot]] = {}
        if step is not None:
            world = len(copies.nodes) * copies.per_node
            for place in range(len(copies.nodes)):
                for node in copies.holders(place):
                    first = place * copies.per_node
                    block = events.Snapshot(copies.origin, world, first, step, copies.per_node)
                    held.setdefault(node, []).append(block)
        for node in list(copies.nodes):
            if node not in self.untold and node not in self.dead:
                told = tuple(held.get(node, ()))
                self.hear(events.NodeStopped(node=node, incarnation=incarnation, held=told))


many_faults = st.lists(
    st.builds(
        lambda time, effect, node, more, repair, factor: fault(
            time,
            effect,
            *(sorted({node, *more}) if effect == "loss" else () if effect in ("job", "storage") else (node,)),
            repair=repair,
            factor=factor,
        ),
        time=st.integers(0, 2000).map(float) | st.floats(0, 2000).map(lambda time: round(time, 3)),
        effect=st.sampled_from(
            ["loss", "loss", "crash", "hang", "slow", "corrupt", "flap", "job", "storage"]
        ),
        node=st.integers(0, 5),
        more=st.sets(st.integers(0, 5), max_size=2),
        repair=st.sampled_from([1.0, 40.0, 300.0, 2000.0]),
        factor=st.sampled_from([1.1, 1.5, 2.5]),
    ),
    max_size=25,
)
shapes = st.sampled_from([(8, 8), (4, 4), (2, 2)])  # ranks of a copy, shares
small = st.builds(
    lambda shape, strikes, every, snapshots, detection: scenario(
        plan=plan(copy=shape[0], shares=shape[1], strikes=strikes, wait_seconds=5000.0),
        checkpoint_every=every,
        snapshot_every=snapshots,
        detection=detection,
        seconds=4000.0,
    ),
    shape=shapes,
    strikes=st.sampled_from([None, 3]),
    every=st.sampled_from([0, 7, 50]),
    snapshots=st.sampled_from([0, 1, 3]),
    detection=st.sampled_from([0.0, 10.0, 200.0]),
)


@given(small, many_faults)
@settings(max_examples=150, deadline=None)
def test_whatever_happens(machine: Scenario, faults: list[Fault]) -> None:
    """It ends; the ledger adds up; steps follow on what was restored; copies are where they are told."""
    simulated = striking.struck(Simulated(machine), sorted(faults, key=lambda one: one.time))
    simulated.copies = Checked(machine.plan.per_node)
    history = simulated.play()
    assert history[-1].kind in ("finished", "stopped", "gave_up")
    assert [event.time for event in history] == sorted(event.time for event in history)
    spent = account(history)
    assert spent.wall == pytest.approx(history[-1].time - BEGINNING, abs=1e-2)
    step, excluded = 0, set()
    for event in history:
        if event.kind == "quarantined":
            excluded.add(event.text("node"))
        if event.kind == "incarnation_started":
            seats = event.data.get("nodes") or list(dict(event.data.get("changed", {})).values())
            assert not excluded & set(seats)
        if event.kind == "restored":
            assert (event.step or int(event.data["from_step"])) <= step  # type: ignore[arg-type]
            step = int(event.data["from_step"])  # type: ignore[arg-type]
        if event.kind == "step_done":
            assert event.step == step + int(event.data["steps"])  # type: ignore[arg-type]
            step = event.step
    reached = max((event.step or 0 for event in of_kind(history, "step_done")), default=0)
    assert spent.tokens == 100 * reached


@given(small, many_faults)
@settings(max_examples=100, deadline=None)
def test_told_together_or_one_by_one_it_is_the_same(machine: Scenario, faults: list[Fault]) -> None:
    """But for worlds of another size, whose snapshots are not told here."""
    ordered = sorted(faults, key=lambda one: one.time)
    single = striking.struck(OneByOne(machine), ordered).play()
    together = striking.play(machine, ordered)
    if not {"shrunk", "grown"} & set(kinds(together)):
        assert single == together


@given(
    step=st.sampled_from([1.0, 0.75]),
    every=st.integers(0, 9),
    write=st.sampled_from([0.0, 2.0, 10.0]),
    moments=st.lists(st.floats(0.0, 300.0), min_size=1, max_size=8),
)
@settings(max_examples=200, deadline=None)
def test_steps_counted_at_once_are_those_played(
    step: float, every: int, write: float, moments: list[float]
) -> None:
    """Whenever one looks, as many steps are done and saved as if each had been played."""
    looked = [fault(round(20 + moment, 3), "slow", 2, factor=1.0, repair=0.0) for moment in sorted(moments)]
    history = play(*looked, step_seconds=step, checkpoint_every=every, checkpoint=write, seconds=400.0)
    ends, now = {}, 20.0
    for number in range(1, 600):
        now += step
        ends[number] = now
        if every and number % every == 0:
            now += write
    for event in of_kind(history, "step_done"):
        if event.time - BEGINNING < 399:  # then it saves and ends
            assert at(event) == pytest.approx(ends[event.step or 0], abs=2e-3)


def test_the_same_faults_give_the_same_ledger_in_another_process() -> None:
    program = (
        "import sys; sys.path.insert(0, '.')\n"
        "from tests.simulation.test_engine import digest\n"
        "print(digest())"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert told == {digest() + "\n"}


def digest() -> str:
    """Of a ledger with everything in it."""
    import hashlib

    faults = [
        fault(60.5, "loss", 1, 2),
        fault(90.0, "slow", 3, factor=1.5, repair=300.0),
        fault(300.0, "corrupt", 0),
        fault(500.0, "job"),
        fault(700.0, "hang", 4),
    ]
    history = play(*faults, plan=plan(copy=4, shares=4))
    rows = [[event.time, event.kind, event.incarnation, event.step, event.data] for event in history]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def test_with_half_the_nodes_a_step_takes_twice_as_long() -> None:
    """One copy on each node; two of four are lost at 60.5 s, and nobody stands by."""
    alone = plan(copy=2, shares=1, steps=100)
    machinery = replace(SCENARIO.machinery, nodes=4)
    history = play(fault(60.5, "loss", 1, 3, repair=1e5), plan=alone, machinery=machinery, seconds=300.0)
    begun = of_kind(history, "incarnation_started")[1]
    assert (at(begun), begun.data["replicate"]) == (70.5, 2)
    # From 90.5 s on, after step 39, in steps of 2 s, with a checkpoint after 50: 61 steps and 5 s.
    assert at(of_kind(history, "finished")[0]) == pytest.approx(90.5 + 61 * 2 + 5 + 5)
