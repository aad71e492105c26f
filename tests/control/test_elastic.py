"""Worlds that shrink and grow: what the controller wants, exactly."""

import pytest

from colossi.control.actions import (
    GiveUp,
    Note,
    Start,
    Stop,
)
from colossi.control.events import (
    NodeJoined,
    NodeLost,
)
from colossi.control.plan import Plan

from .story import FOUR, PLAN, Story, held, kinds, one


def test_without_a_spare_the_world_shrinks_at_once_to_what_divides_the_batch() -> None:
    """Four copies and a batch of 8: three nodes are left, but only two can share the batch evenly."""
    story = Story(FOUR, "a", "b", "c", "d")
    story.step(5)
    story.hear(NodeLost(node="b", why="gone"))
    copies = held(1, 4, (1,), 5)
    actions = story.stopped(
        a=held(1, 4, (0,), 5) + copies, c=held(1, 4, (2,), 5) + copies, d=held(1, 4, (3,), 5)
    )
    assert actions[0] == Note(kind="shrunk", why="from 4 to 2 copies of the model, on 2 nodes")
    start = one(actions, Start)
    assert (start.nodes, start.replicate, start.restore) == (("a", "c"), 2, 5)
    assert start.sources == {0: "a", 1: "a", 2: "c", 3: "d"}  # d has no place, but has what rank 3 had


def test_a_world_that_failed_before_its_first_step_begins_from_the_old_worlds_snapshots_again() -> None:
    story = Story(PLAN, "a", "b")
    story.step(5)
    story.hear(NodeLost(node="b", why="gone"))
    whole = held(1, 4, range(4), 5)
    first = one(story.stopped(a=whole), Start)
    story.exited("a", 0)
    again = one(story.stopped(a=whole + held(2, 2, (0,), 6)), Start)
    assert (
        (first.restore, first.sources) == (again.restore, again.sources) == (5, dict.fromkeys(range(4), "a"))
    )
    story.exited("a", 0)
    assert one(story.stopped(a=whole + held(3, 2, (0, 1), 6)), Start).restore == 6


def test_it_grows_at_the_end_of_a_step() -> None:
    story = Story(FOUR, "a", "b", "c", "d")
    story.hear(NodeLost(node="b", why="gone"))
    story.stopped(a=(), c=(), d=())
    assert story.step(6) == []
    assert story.hear(NodeJoined(node="e")) == []  # d was left over: with it there are four again
    assert one(story.step(7), Stop).nodes == ("a", "c")
    actions = story.stopped(a=held(2, 2, (0, 1), 7), c=())
    assert actions[0] == Note(kind="grown", why="from 2 to 4 copies of the model, on 4 nodes")
    start = one(actions, Start)
    assert (start.nodes, start.sources) == (("a", "c", "d", "e"), {0: "a", 1: "a"})


def test_it_does_not_grow_for_the_last_step() -> None:
    story = Story(FOUR, "a", "b", "c", "d")
    story.hear(NodeLost(node="b", why="gone"))
    story.stopped(a=(), c=(), d=())
    story.hear(NodeJoined(node="e"))
    assert story.step(100) == []


def test_with_patience_it_waits_before_it_shrinks() -> None:
    plan = Plan(places=2, per_node=2, copy=2, shares=2, global_batch=8, steps=100, patience_seconds=30.0)
    for back_in_time in (True, False):
        story = Story(plan, "a", "b")
        story.hear(NodeLost(node="b", why="gone"))
        assert kinds(story.stopped(a=())) == ["waiting"]
        assert story.controller.deadline == story.now + 30.0
        assert story.wait(29.0) == []
        actions = story.hear(NodeJoined(node="c")) if back_in_time else story.wait(1.0)
        assert kinds(actions) == (["promoted", "Start"] if back_in_time else ["shrunk", "Start"])


def test_where_not_one_copy_fits_it_waits_and_gives_up() -> None:
    plan = Plan(places=2, per_node=1, copy=2, shares=2, global_batch=8, steps=100, wait_seconds=60.0)
    story = Story(plan, "a", "b")
    story.hear(NodeLost(node="b", why="gone"))
    assert kinds(story.stopped(a=())) == ["waiting"]
    assert story.wait(59.0) == []
    assert one(story.wait(1.0), GiveUp) == GiveUp(
        why="there are 1 nodes, and 2 are wanted; no other came in 60 s",
        hint="not one copy of the model fits on them",
    )
    assert story.hear(NodeJoined(node="c")) == []


@pytest.mark.parametrize(
    "nodes, replicate",
    [(0, None), (1, 1), (2, 2), (3, 2), (4, 4), (9, 4)],
)
def test_the_sizes_that_divide_the_batch(nodes: int, replicate: int | None) -> None:
    assert FOUR.largest(nodes) == replicate


def test_nodes_are_used_whole() -> None:
    """Copies of 3 ranks on nodes of 2: only pairs of copies fill whole nodes."""
    plan = Plan(places=6, per_node=2, copy=3, shares=3, global_batch=24, steps=1)
    assert [plan.largest(nodes) for nodes in range(7)] == [None, None, None, 2, 2, 2, 4]


def test_a_plan_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="whole copies"):
        Plan(places=3, per_node=1, copy=2, shares=2, global_batch=8, steps=1)
    with pytest.raises(ValueError, match="dealt out"):
        Plan(places=3, per_node=1, copy=1, shares=1, global_batch=8, steps=1)
