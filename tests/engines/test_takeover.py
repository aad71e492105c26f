"""A new controller knows from the ledger what the one before it held against nodes and states."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colossi.control.actions import Action, Distrust, Note, Quarantine, Start
from colossi.control.controller import Controller
from colossi.control.events import (
    FingerprintsTaken,
    NodeChecked,
    NodeJoined,
    NodeStopped,
    Snapshot,
    StepDone,
    WorkerExited,
)
from colossi.engines.chaos import Chaos
from colossi.engines.takeover import controller_of, plan_of, readmit
from colossi.errors import BadInput
from colossi.ledger.events import JSON, Event
from colossi.ledger.store import Ledger
from colossi.spec import Spec, read_spec

from ..train.runs import spec_file

NODES = ("a", "b")


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger.create_or_open(tmp_path / "ledger.sqlite") as ledger:
        yield ledger


@pytest.fixture
def spec(tmp_path: Path) -> Spec:
    """Two nodes of one worker, so two copies of the model."""
    return read_spec(spec_file(tmp_path, 100, workers=1, nodes=2, replicate=2))


def note(
    ledger: Ledger, kind: str, incarnation: int, step: int | None = None, ago: float = 0.0, **data: JSON
) -> None:
    ledger.append(Event(time=time.time() - ago, kind=kind, incarnation=incarnation, step=step, data=data))


def begun(ledger: Ledger, incarnation: int, restore: int, ago: float = 0.0, **data: JSON) -> None:
    note(
        ledger, "incarnation_started", incarnation, ago=ago, nodes=NODES, replicate=2, restore=restore, **data
    )


def adopt(ledger: Ledger, spec: Spec, incarnation: int) -> tuple[Controller, list[Action]]:
    """A controller to which both nodes and a spare have come back."""
    controller, took_over = controller_of(ledger, plan_of(spec, Chaos()))
    assert took_over
    actions = controller.on(NodeJoined(node="spare"), time.monotonic())
    for node in NODES:
        actions += controller.on(NodeJoined(node=node, incarnation=incarnation), time.monotonic())
    return controller, actions


def kinds(actions: list[Action]) -> list[str]:
    return [action.kind if isinstance(action, Note) else type(action).__name__ for action in actions]


@pytest.mark.parametrize(
    ("ago", "wanted"),
    [(3600.0, ["Quarantine", "Stop"]), (100_000.0, ["Stop"])],  # a day has 86,400 s
)
def test_failures_of_the_last_day_still_count(
    ledger: Ledger, spec: Spec, ago: float, wanted: list[str]
) -> None:
    begun(ledger, 1, -1, ago=ago)
    note(ledger, "fault", 1, 5, ago=ago, cause="worker 1 killed by SIGKILL", node="b", rank=1)
    begun(ledger, 2, 5, ago=ago)
    note(ledger, "node_lost", 2, 7, ago=ago, node="b", why="its agent is gone")
    note(ledger, "node_lost", 2, 7, ago=ago, node="spare", why="its agent is gone")
    begun(ledger, 3, 7, ago=ago)
    note(ledger, "fault", 3, 8, ago=ago, cause="no step for 10.0 s", node="a", rank=None)  # nobody's
    note(ledger, "fault", 3, 8, ago=ago, cause="a lost: silent for 5 s", node="a", rank=None)
    note(ledger, "node_lost", 3, 8, ago=ago, node="a", why="silent for 5 s")  # the second line of the same
    begun(ledger, 4, 8)
    note(ledger, "step_done", 4, 9)
    controller, actions = adopt(ledger, spec, 4)
    assert actions == []
    strikes = controller.run.fleet.strikes
    assert {node: len(times) for node, times in strikes.items()} == {"a": 1, "b": 2}
    assert strikes["b"] == pytest.approx([time.monotonic() - ago] * 2, abs=60.0)
    died = WorkerExited(node="b", rank=1, incarnation=4, why="killed by SIGKILL")
    assert kinds(controller.on(died, time.monotonic())) == wanted


def test_a_second_wrong_result_is_one_too_many(ledger: Ledger, spec: Spec) -> None:
    begun(ledger, 1, -1)
    note(ledger, "corrupted", 1, 5, node="b", rank=1, why="its result was another one")
    controller, _ = adopt(ledger, spec, 1)
    assert controller.run.fleet.corruptions == {"b": 1} and len(controller.run.fleet.strikes["b"]) == 1


def test_a_run_that_begins_again_knows_what_was_held_against_its_nodes(ledger: Ledger, spec: Spec) -> None:
    begun(ledger, 1, -1)
    note(ledger, "fault", 1, 5, cause="worker 1 killed by SIGKILL", node="b", rank=1)
    note(ledger, "corrupted", 1, 6, node="b", rank=1, why="its result was another one")
    note(ledger, "quarantined", 1, 7, node="c", why="it failed its check")
    note(ledger, "stopped", 1, 8, why="asked to stop")
    controller, took_over = controller_of(ledger, plan_of(spec, Chaos()))
    assert not took_over and controller.run.incarnation == 1
    fleet = controller.run.fleet
    assert list(fleet.quarantined) == ["c"] and fleet.corruptions == {"b": 1}
    assert fleet.strikes["b"] == pytest.approx([time.monotonic()] * 2, abs=60.0)
    assert controller.on(NodeJoined(node="b"), 1.0) == []
    (begin,) = controller.on(NodeJoined(node="a"), 1.0)
    assert isinstance(begin, Start) and set(begin.nodes) == set(NODES)
    assert controller.on(NodeJoined(node="c"), 1.0) == [] and not controller.run.fleet.spare_count


def test_nothing_else_is_waited_for_when_all_nodes_have_come(ledger: Ledger, spec: Spec) -> None:
    """For those that are still to come it waits 10 minutes; a quarantined one has come."""
    begun(ledger, 1, -1)
    note(ledger, "quarantined", 1, 7, node="b", why="it failed its check")
    note(ledger, "stopped", 1, 8, why="asked to stop")
    controller, _ = controller_of(ledger, plan_of(spec, Chaos()))
    assert controller.on(NodeJoined(node="a"), 1.0) == [] and controller.deadline == 601.0
    shrunk, begin = controller.on(NodeJoined(node="b"), 2.0)
    assert kinds([shrunk]) == ["shrunk"] and isinstance(begin, Start) and begin.nodes == ("a",)


def test_a_node_that_is_readmitted_begins_with_a_clean_sheet(ledger: Ledger, spec: Spec) -> None:
    begun(ledger, 1, -1)
    for node in NODES:
        note(ledger, "fault", 1, 5, cause="worker killed by SIGKILL", node=node, rank=1)
        note(ledger, "corrupted", 1, 6, node=node, rank=1, why="its result was another one")
        note(ledger, "quarantined", 1, 7, node=node, why="it failed its check")
    with pytest.raises(BadInput, match="c: it is not quarantined\nhint: these are: a, b"):
        readmit(ledger, ["a", "c"])
    readmit(ledger, ["b"])
    note(ledger, "fault", 1, 8, cause="worker killed by SIGKILL", node="b", rank=1)
    note(ledger, "stopped", 1, 8, why="asked to stop")
    fleet = controller_of(ledger, plan_of(spec, Chaos()))[0].run.fleet
    assert list(fleet.quarantined) == ["a"] and fleet.corruptions == {"a": 1}
    assert {node: len(times) for node, times in fleet.strikes.items()} == {"a": 2, "b": 1}


def test_what_was_done_on_purpose_is_not_held_against_a_node(ledger: Ledger, spec: Spec) -> None:
    for number, chaos in enumerate((True, False), start=1):
        note(ledger, "controller_started", number, pid=1, took_over=False, chaos=chaos)
        begun(ledger, number, -1)
        note(ledger, "fault", number, 5, cause="worker 1 killed by SIGKILL", node="b", rank=1)
        note(ledger, "stopped", number, 8, why="asked to stop")
    fleet = controller_of(ledger, plan_of(spec, Chaos()))[0].run.fleet
    assert {node: len(times) for node, times in fleet.strikes.items()} == {"b": 1}


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [((), ["GiveUp"]), ((5,), ["Start"])],  # the third in a row without a step; not if it did one
)
def test_failures_before_the_first_step_still_count(
    ledger: Ledger, spec: Spec, steps: tuple[int, ...], wanted: list[str]
) -> None:
    begun(ledger, 1, -1)
    begun(ledger, 3, -1, fruitless={"worker": 2})
    for step in steps:
        note(ledger, "step_done", 3, step)
    controller, actions = adopt(ledger, spec, 3)
    now = time.monotonic()
    died = WorkerExited(node="b", rank=1, incarnation=3, why="killed by SIGKILL")
    assert actions == [] and kinds(controller.on(died, now)) == ["Stop"]
    assert controller.on(NodeStopped(node="a", incarnation=3, held=()), now) == []
    assert kinds(controller.on(NodeStopped(node="b", incarnation=3, held=()), now)) == wanted


def test_a_node_that_was_set_aside_is_still_checked_before_it_is_used(ledger: Ledger, spec: Spec) -> None:
    slow = {node: "rank 1 takes 2.00 times as long as its peers" for node in ("c", "d", "e", "f")}
    begun(ledger, 1, -1, aside=slow)
    note(ledger, "checked", 1, 6, node="d", passed=True, why="")
    note(ledger, "checked", 1, 6, node="e", passed=False, why="it is slow")
    note(ledger, "quarantined", 1, 6, node="e", why="it failed its check: it is slow")
    note(ledger, "node_lost", 1, 6, node="f", why="its agent is gone")
    controller, _ = controller_of(ledger, plan_of(spec, Chaos()))
    for node, wanted in (("d", []), ("e", []), ("f", []), ("c", ["Check"])):
        assert kinds(controller.on(NodeJoined(node=node), 1.0)) == wanted, node
    assert controller.run.fleet.spare_count == 2
    controller.on(NodeChecked(node="c", passed=True, why=""), 2.0)
    assert controller.run.fleet.spare_count == 3


def suspected(ledger: Ledger) -> None:
    """Step 10's gradient was wrong on rank 1; the controller died before all had stopped."""
    begun(ledger, 1, -1)
    note(ledger, "step_done", 1, 10)
    by_rank = {"0": [7, 20], "1": [8, 21]}
    note(ledger, "suspected", 1, 10, agreed=9, fingerprints=by_rank)


def test_a_state_in_doubt_is_not_gone_on_from_and_the_culprit_is_found(ledger: Ledger, spec: Spec) -> None:
    suspected(ledger)
    controller, actions = adopt(ledger, spec, 1)
    assert kinds(actions) == ["Stop"]
    now, actions = time.monotonic(), []
    for rank, node in enumerate(NODES):
        held = tuple(Snapshot(1, 2, rank, step) for step in (9, 10))
        actions += controller.on(NodeStopped(node=node, incarnation=1, held=held), now)
    assert actions[0] == Distrust(step=9, why="copies of the same weights differ after step 10")
    assert isinstance(actions[-1], Start)
    assert (actions[-1].restore, actions[-1].verify) == (9, 10)
    n = actions[-1].incarnation
    controller.on(StepDone(incarnation=n, step=10), now)
    again = FingerprintsTaken(incarnation=n, step=10, fingerprints={0: (7, 20), 1: (7, 20)})
    corrupted, quarantine, *_ = controller.on(again, now)
    assert isinstance(corrupted, Note) and (corrupted.node, corrupted.rank) == ("b", 1)
    assert isinstance(quarantine, Quarantine) and quarantine.node == "b"


def test_a_doubt_that_is_settled_is_not_raised_again(ledger: Ledger, spec: Spec) -> None:
    """Not even where the run had to go back before that step, to the disk."""
    suspected(ledger)
    begun(ledger, 2, 9)
    for step in (10, 11):
        note(ledger, "step_done", 2, step)
    begun(ledger, 3, -1)
    note(ledger, "step_done", 3, 6)
    controller, actions = adopt(ledger, spec, 3)
    assert actions == [] and controller.run.suspicion is None and controller.run.phase == "running"
