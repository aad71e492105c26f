"""How a run ends, and how a new controller goes on with it."""

import json

from colossi.control import policy
from colossi.control.actions import (
    Checkpoint,
    Distrust,
    Finish,
    GiveUp,
    SaveAndStop,
    Start,
    Stop,
)
from colossi.control.controller import Controller
from colossi.control.events import (
    AllDone,
    CheckpointDone,
    CorruptionSuspected,
    NodeJoined,
    NodeLost,
    NodeStopped,
    StopWanted,
    TimePassed,
)
from colossi.control.plan import Plan

from .story import PLAN, Story, held, kinds, one

# --- ends -----------------------------------------------------------------------------------------------


def test_it_finishes_and_says_nothing_after() -> None:
    story = Story(PLAN, "a", "b")
    assert story.hear(AllDone(incarnation=1, step=100)) == [Finish(step=100)]
    assert story.controller.deadline is None
    assert story.hear(NodeLost(node="a", why="gone"), StopWanted(why="late"), TimePassed()) == []


def test_three_failures_without_a_step_are_enough() -> None:
    story = Story(PLAN, "a", "b")
    story.step(5)
    for node, rank in (("a", 0), ("b", 2), ("a", 0)):
        story.exited(node, rank)
        assert kinds(story.stopped(a=(), b=())) == ["Start"]
    story.exited("b", 2)
    actions = story.stopped(a=(), b=())
    assert "3 times in a row no step was done" in one(actions, GiveUp).why
    assert "rank 2 on b: SIGKILL" in one(actions, GiveUp).why


def test_nodes_that_are_lost_at_the_start_are_more_often_bad_luck() -> None:
    story = Story(PLAN, "a", "b", *(f"s{i}" for i in range(policy.FRUITLESS_WITH_LOSSES)))
    for _ in range(policy.FRUITLESS_WITH_LOSSES - 1):
        first, second = story.controller.run.world.nodes
        story.hear(NodeLost(node=second, why="gone"))
        assert "Start" in kinds(story.stopped(**{first: ()}))


def test_a_fatal_failure_ends_the_run_once_all_is_still() -> None:
    story = Story(PLAN, "a", "b")
    assert kinds(story.exited("b", 3, fatal=True)) == ["Stop"]
    assert story.stopped(a=()) == []
    assert story.stopped(b=()) == [GiveUp(why="rank 3 on b: SIGKILL")]


def test_the_reason_may_come_after_its_echo() -> None:
    """A rank dies of a broken connection before the one that caused it has said why."""
    story = Story(PLAN, "a", "b")
    story.exited("a", 0)
    story.exited("b", 3, fatal=True)
    assert kinds(story.stopped(a=(), b=())) == ["GiveUp"]


def test_who_asks_it_to_stop_gets_a_checkpoint_first() -> None:
    story = Story(PLAN, "a", "b")
    story.step(5)
    assert story.hear(StopWanted(why="Ctrl-C")) == [SaveAndStop(incarnation=1, why="Ctrl-C")]
    assert story.hear(StopWanted(why="Ctrl-C")) == []
    assert story.hear(AllDone(incarnation=1, step=6, stopped=True)) == [Finish(step=6, stopped=True)]


def test_a_failure_after_that_ends_it() -> None:
    story = Story(PLAN, "a", "b")
    story.step(5)
    story.hear(StopWanted(why="Ctrl-C"))
    assert kinds(story.exited("a", 0)) == ["Stop"]
    assert story.stopped(a=(), b=()) == [Finish(step=5, stopped=True)]


def test_asked_to_stop_while_it_waits_or_stops() -> None:
    assert Story(PLAN, "a").hear(StopWanted(why="Ctrl-C")) == [Finish(step=0, stopped=True)]
    story = Story(PLAN, "a", "b")
    story.exited("a", 0)
    assert story.hear(StopWanted(why="Ctrl-C")) == []
    assert kinds(story.stopped(a=(), b=())) == ["Finish"]


# --- checkpoints by time --------------------------------------------------------------------------------


def test_checkpoints_come_at_their_interval_however_often_it_begins_anew() -> None:
    plan = Plan(places=2, per_node=2, copy=2, shares=2, global_batch=8, steps=100, checkpoint_seconds=60.0)
    story = Story(plan, "a", "b")
    assert story.controller.deadline == 1060.0
    story.step(1)
    assert story.wait(59.0) == []
    story.exited("a", 0)
    story.stopped(a=(), b=())
    assert story.controller.deadline == 1060.0
    assert story.wait(1.0) == [Checkpoint(incarnation=2)]
    story.now += 10.0
    story.hear(CheckpointDone(incarnation=2, step=3, seconds=10.0))
    assert story.controller.deadline == 1130.0


# --- a new controller -----------------------------------------------------------------------------------


def taken_over(
    plan: Plan = PLAN, suspicion: CorruptionSuspected | None = None, quarantined: str = "q"
) -> Story:
    """Incarnation 3 ran on a and b when its controller was killed."""
    controller = Controller.take_over(
        plan,
        incarnation=3,
        nodes=("a", "b"),
        replicate=2,
        quarantined=[quarantined],
        step=40,
        restored=30,
        suspicion=suspicion,
    )
    story = Story(plan, controller=controller)
    assert controller.deadline == 0.0
    story.hear(TimePassed())
    assert controller.deadline == 1000.0 + policy.ADOPT_SECONDS
    return story


def test_if_all_nodes_come_back_the_run_goes_on() -> None:
    story = taken_over()
    assert story.hear(NodeJoined(node="a", incarnation=3), NodeJoined(node="spare")) == []
    assert story.hear(NodeJoined(node="b", incarnation=3)) == []
    assert story.controller.deadline is None
    assert story.step(41) == []
    assert one(story.hear(NodeLost(node="b", why="gone")), Stop).nodes == ("a",)
    assert one(story.stopped(a=held(3, 4, range(4), 41)), Start).restore == 41


def test_snapshots_of_the_incarnation_before_still_count() -> None:
    """No step was done since; what was voided by it does not count, nor what is older than is known of."""
    story = taken_over()
    for node in "ab":
        story.hear(NodeJoined(node=node, incarnation=3))
    story.exited("a", 0)
    whole = held(2, 4, range(4), 30, 31) + held(1, 4, range(4), 30)
    assert one(story.stopped(a=whole, b=()), Start).restore == 30


def test_those_that_do_not_come_back_are_lost() -> None:
    story = taken_over()
    story.hear(NodeJoined(node="a", incarnation=3))
    assert one(story.wait(policy.ADOPT_SECONDS), Stop).nodes == ("a",)
    start = one(story.stopped(a=()), Start)
    assert (start.incarnation, start.nodes) == (4, ("a",))


def test_it_does_not_adopt_what_has_already_failed() -> None:
    story = taken_over()
    assert one(story.hear(NodeJoined(node="a", incarnation=0)), Stop).nodes == ("a",)
    assert story.hear(NodeStopped(node="a", incarnation=3, held=())) == []  # b may still run
    assert one(story.hear(NodeJoined(node="b", incarnation=3)), Stop).nodes == ("b",)
    assert one(story.stopped(b=()), Start).nodes == ("a", "b")


def test_it_does_not_adopt_a_node_that_was_to_be_replaced() -> None:
    story = taken_over(quarantined="b")
    actions = story.hear(NodeJoined(node="b", incarnation=3), NodeJoined(node="a", incarnation=3))
    assert [action.nodes for action in actions if isinstance(action, Stop)] == [("b",), ("a", "b")]
    assert one(story.stopped(a=(), b=()), Start).nodes == ("a",)


def test_it_does_not_forget_a_suspicion() -> None:
    story = taken_over(suspicion=CorruptionSuspected(incarnation=3, step=40, fingerprints={0: 1, 2: 2}))
    actions = story.hear(NodeJoined(node="a", incarnation=3), NodeJoined(node="b", incarnation=3))
    assert kinds(actions) == ["Stop"]
    both = held(3, 4, range(4), 39, 40)
    actions = story.stopped(a=both, b=both)
    assert (one(actions, Distrust).step, one(actions, Start).restore) == (39, 39)


def test_asked_to_stop_while_nodes_come_back() -> None:
    story = taken_over()
    assert story.hear(StopWanted(why="Ctrl-C"), NodeJoined(node="a", incarnation=3)) == []
    assert kinds(story.hear(NodeJoined(node="b", incarnation=3))) == ["SaveAndStop"]


# --- state ----------------------------------------------------------------------------------------------


def test_its_state_is_json() -> None:
    """That it behaves alike afterwards is tested at every event in test_any_order.py."""
    story = Story(PLAN, "a", "b", "spare")
    story.hear(CorruptionSuspected(incarnation=1, step=51, fingerprints={0: (1, 2), 2: (1, 3)}))
    story.stopped(a=held(1, 4, range(4), 50))
    state = json.loads(json.dumps(story.controller.state()))
    again = Controller.from_state(PLAN, state)
    assert again.state() == story.controller.state()
    assert again.run.suspicion == story.controller.run.suspicion
