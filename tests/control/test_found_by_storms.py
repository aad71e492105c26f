"""What `colossi torture` found in the controller, as the shortest story of each."""

import pytest

from colossi.control.actions import DISK, GiveUp, Start, Stop
from colossi.control.controller import Controller
from colossi.control.events import (
    CheckpointDone,
    NodeJoined,
    NodeLost,
    NodeStopped,
    StragglerSuspected,
    WorkerExited,
)
from colossi.control.plan import Plan

from .story import PLAN, Story, held, kinds, one


def test_a_node_that_comes_back_unnoticed_has_to_answer_before_anything_begins() -> None:
    """Its loss alone would have been the last thing to wait for, and it still has its workers."""
    story = Story(PLAN, "a", "b", "spare")
    story.exited("b", 2)
    assert story.stopped(b=()) == []
    actions = story.hear(NodeJoined(node="a", incarnation=1))
    assert kinds(actions) == ["Stop"]
    start = one(story.hear(NodeStopped(node="a", incarnation=1, held=())), Start)
    assert start.incarnation == 2


def test_an_agent_that_began_anew_unnoticed_is_a_loss() -> None:
    story = Story(PLAN, "a", "b")
    story.step(5)
    assert one(story.hear(NodeJoined(node="a", incarnation=0)), Stop).nodes == ("b",)
    start = one(story.stopped(b=held(1, 4, range(4), 5)), Start)
    assert (start.nodes, start.restore, start.fetch) == (("a", "b"), 5, {0: "b", 1: "b"})


def test_an_incarnation_that_did_steps_ends_the_row_of_fruitless_ones() -> None:
    """Also if it ended for another reason than a failure: here to replace a slow node."""
    story = Story(PLAN, "a", "b", "c", "d")
    for _ in range(2):
        story.exited("a", 0)
        story.stopped(a=(), b=())
    story.step(1)
    story.hear(StragglerSuspected(node="b", rank=2, incarnation=3, factor=1.6))
    assert one(story.stopped(a=(), b=()), Start).incarnation == 4
    story.hear(WorkerExited(node="a", rank=0, incarnation=4, why="SIGKILL"))
    assert one(story.stopped(a=(), c=()), Start).incarnation == 5


def adopted(plan: Plan, step: int, saved: int = 0) -> Story:
    """A controller that took over incarnation 1, begun from the disk, with both nodes back."""
    controller = Controller.take_over(
        plan,
        incarnation=1,
        nodes=("a", "b"),
        replicate=2,
        step=step,
        restored=DISK,
        saved=saved,
        first_done=step or None,
    )
    story = Story(plan, controller=controller)
    story.hear(NodeJoined(node="a", incarnation=1), NodeJoined(node="b", incarnation=1))
    return story


@pytest.mark.parametrize(("saved", "restore"), [(0, 9), (9, 9), (10, DISK)])
def test_who_takes_over_knows_what_is_on_the_disk(saved: int, restore: int) -> None:
    story = adopted(PLAN, step=10, saved=saved)
    story.exited("a", 0)
    start = one(story.stopped(a=held(1, 4, (0, 1), 9), b=held(1, 4, (2, 3), 9)), Start)
    assert start.restore == restore


@pytest.mark.parametrize(("saved", "restore"), [(8, 9), (10, DISK)])
def test_a_checkpoint_counts_though_it_is_told_while_nodes_are_waited_for(saved: int, restore: int) -> None:
    story = Story(PLAN, "a", "b")
    story.step(10)
    story.hear(NodeLost(node="a", why="silent"), NodeLost(node="b", why="silent"))
    assert story.controller.run.phase == "waiting"
    story.hear(CheckpointDone(incarnation=1, step=saved))
    start = one(story.hear(NodeJoined(node="a", held=held(1, 4, range(4), 9))), Start)
    assert start.restore == restore


def test_a_new_controller_knows_what_is_on_the_disk() -> None:
    story = Story(PLAN, controller=Controller(PLAN, first_incarnation=2, saved=7))
    story.hear(NodeJoined(node="a", held=held(1, 4, (0, 1), 6)))
    assert one(story.hear(NodeJoined(node="b", held=held(1, 4, (2, 3), 6))), Start).restore == DISK


@pytest.mark.parametrize(("step", "ends"), [(10, False), (0, True)])
def test_who_takes_over_knows_whether_the_incarnation_did_a_step(step: int, ends: bool) -> None:
    story = adopted(PLAN, step=step)
    actions = []
    for _ in range(3):
        story.exited("a", 0)
        actions += story.stopped(a=(), b=())
    assert any(isinstance(action, GiveUp) for action in actions) == ends
