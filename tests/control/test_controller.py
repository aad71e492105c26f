"""The controller's rules one by one: what it hears, and exactly what it wants."""

from collections.abc import Iterable

import pytest

from colossi.control import policy
from colossi.control.actions import (
    DISK,
    Action,
    Check,
    GiveUp,
    Note,
    Quarantine,
    Start,
    Stop,
)
from colossi.control.controller import Controller
from colossi.control.events import (
    AllDone,
    CheckpointDone,
    CorruptionSuspected,
    Event,
    NodeChecked,
    NodeJoined,
    NodeLost,
    NodeStopped,
    Snapshot,
    StepDone,
    StragglerSuspected,
    TimePassed,
    WorkerExited,
    WorkerHung,
)
from colossi.control.plan import Plan

from .story import FOUR, PLAN, Story, held, kinds, one

# --- the beginning --------------------------------------------------------------------------------------


def test_it_begins_when_all_places_can_be_filled() -> None:
    story = Story(PLAN)
    assert story.hear(NodeJoined(node="a")) == []
    start = one(story.hear(NodeJoined(node="b")), Start)
    assert start == Start(
        incarnation=1,
        nodes=("a", "b"),
        buddies=("b", "a"),
        replicate=2,
        restore=DISK,
        fetch={},
        sources=None,
    )
    assert story.hear(NodeJoined(node="spare")) == []


def test_incarnations_are_numbered_on() -> None:
    story = Story(PLAN, "a", controller=Controller(PLAN, first_incarnation=7))
    assert one(story.hear(NodeJoined(node="b")), Start).incarnation == 7


def test_nodes_that_hold_snapshots_begin_from_them() -> None:
    """As agents do that outlived workers and controller; from the last incarnation, not from an older."""
    story = Story(PLAN)
    story.hear(NodeJoined(node="a", held=held(3, 4, range(4), 50) + held(2, 4, range(4), 60)))
    start = one(story.hear(NodeJoined(node="b", held=held(3, 4, (2, 3), 50))), Start)
    assert (start.incarnation, start.restore, start.fetch) == (4, 50, {})


def test_it_waits_only_so_long_for_the_first_nodes() -> None:
    story = Story(PLAN)
    assert story.controller.deadline == 0.0  # asks for the time, to know since when it waits
    story.hear(TimePassed())
    assert story.controller.deadline == 1000.0 + policy.WAIT_SECONDS
    assert "there are 0 nodes" in one(story.wait(policy.WAIT_SECONDS), GiveUp).why


def test_with_some_of_the_nodes_it_begins_smaller_in_the_end() -> None:
    story = Story(FOUR, "a", "b", "c")
    actions = story.wait(policy.WAIT_SECONDS)
    assert kinds(actions) == ["shrunk", "Start"]
    assert len(one(actions, Start).nodes) == 2


def test_a_node_with_workers_of_another_incarnation_must_end_them_first() -> None:
    story = Story(PLAN, "a")
    actions = story.hear(NodeJoined(node="b", incarnation=5))
    assert one(actions, Stop).nodes == ("b",)
    start = one(story.hear(NodeStopped(node="b", incarnation=5, held=())), Start)
    assert start.incarnation == 6


# --- failures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        WorkerExited(node="a", rank=1, incarnation=1, why="killed by SIGKILL"),
        WorkerHung(node="a", rank=1, incarnation=1, seconds=30.0),
        WorkerHung(node="", rank=None, incarnation=1, seconds=30.0),
        CorruptionSuspected(incarnation=1, step=5, fingerprints={0: 1, 2: 2}),
        NodeStopped(node="a", incarnation=1, held=()),  # without being asked
    ],
    ids=lambda event: type(event).__name__,
)
def test_a_failure_stops_all_and_begins_anew(event: Event) -> None:
    story = Story(PLAN, "a", "b")
    story.step(5)
    assert one(story.hear(event), Stop).nodes == ("a", "b")
    assert story.hear(event) == [] or isinstance(event, NodeJoined)
    assert story.exited("b", 2) == []  # the others fail too, as they cannot reach it any more
    assert story.stopped(a=()) == []
    assert one(story.stopped(b=()), Start).nodes == ("a", "b")


def test_late_events_change_nothing() -> None:
    story = Story(PLAN, "a", "b")
    story.exited("a", 0)
    story.stopped(a=(), b=())
    assert story.incarnation == 2
    late: list[Event] = [
        WorkerExited(node="a", rank=0, incarnation=1, why="killed by SIGKILL"),
        WorkerHung(node="a", rank=0, incarnation=1, seconds=30.0),
        NodeStopped(node="a", incarnation=1, held=()),
        NodeLost(node="never seen", why="gone"),
        StepDone(incarnation=1, step=7),
        CheckpointDone(incarnation=1, step=7),
        AllDone(incarnation=1, step=100),
        CorruptionSuspected(incarnation=1, step=7, fingerprints={0: 1, 2: 2}),
        StragglerSuspected(node="a", rank=0, incarnation=1, factor=2.0),
    ]
    before = story.controller.state()
    assert story.hear(*late) == []
    assert story.controller.state() == before


def test_a_lost_node_is_replaced_from_its_buddys_memory() -> None:
    """b held ranks 2 and 3, and a the copies; of step 8 b's buddy had only one rank."""
    story = Story(PLAN, "a", "b", "spare")
    story.step(8)
    assert one(story.hear(NodeLost(node="b", why="gone")), Stop).nodes == ("a",)
    mine, copies = held(1, 4, (0, 1), 7, 8), held(1, 4, (2, 3), 7) + held(1, 4, (2,), 8)
    actions = story.stopped(a=mine + copies)
    assert actions[0] == Note(kind="promoted", why="it takes the place of b", node="spare")
    start = one(actions, Start)
    assert (start.nodes, start.restore, start.fetch) == (("a", "spare"), 7, {2: "a", 3: "a"})


def test_a_node_lost_while_all_stop_has_answered() -> None:
    story = Story(PLAN, "a", "b", "spare")
    story.exited("a", 0)
    assert story.stopped(a=()) == []
    assert one(story.hear(NodeLost(node="b", why="gone")), Start).nodes == ("a", "spare")


def test_without_both_buddies_it_goes_back_to_the_disk() -> None:
    story = Story(PLAN, "a", "b", "c", "d")
    story.step(8)
    story.hear(NodeLost(node="a", why="gone"))
    start = one(story.hear(NodeLost(node="b", why="gone")), Start)
    assert (start.nodes, start.restore) == (("c", "d"), DISK)


def test_the_disk_is_preferred_where_it_is_newer() -> None:
    story = Story(PLAN, "a", "b")
    story.step(8)
    story.hear(CheckpointDone(incarnation=1, step=8))
    story.exited("a", 0)
    old = held(1, 4, range(4), 7)
    assert one(story.stopped(a=old, b=old), Start).restore == DISK


def test_blocks_of_ranks_may_overlap_but_leave_no_gap() -> None:
    """Of step 8 nobody has rank 2; of step 7 a has 0 to 2, and b 2 and 3."""
    story = Story(PLAN, "a", "b")
    story.step(8)
    story.exited("a", 0)
    a = (Snapshot(1, 4, 0, 8, ranks=2), Snapshot(1, 4, 0, 7, ranks=3))
    b = (Snapshot(1, 4, 3, 8), Snapshot(1, 4, 2, 7, ranks=2))
    start = one(story.stopped(a=a, b=b), Start)
    assert (start.restore, start.fetch) == (7, {})


def test_a_spare_of_the_same_rack_is_preferred() -> None:
    story = Story(PLAN)
    racks = {"a": "r1", "b": "r2", "spare1": "r1", "spare2": "r2"}
    story.hear(*(NodeJoined(node=node, rack=rack) for node, rack in racks.items()))
    story.hear(NodeLost(node="b", why="gone"))
    assert one(story.stopped(a=()), Start).nodes == ("a", "spare2")
    story.hear(NodeLost(node="spare2", why="gone"))
    assert one(story.stopped(a=()), Start).nodes == ("a", "spare1")  # rather than none


def test_a_node_that_comes_back_in_time_takes_its_own_place_with_its_memory() -> None:
    """From a partition: it must end its workers first."""
    story = Story(FOUR, "a", "b", "c", "d", "spare")
    story.step(5)
    story.hear(NodeLost(node="b", why="silent"))
    assert one(story.hear(NodeJoined(node="b", incarnation=1)), Stop).nodes == ("b",)
    assert story.stopped(a=held(1, 4, (0,), 5), c=held(1, 4, (2,), 5), d=held(1, 4, (3,), 5)) == []
    start = one(story.stopped(b=held(1, 4, (1,), 5)), Start)
    assert (start.nodes, start.restore, start.fetch) == (("a", "b", "c", "d"), 5, {})


def test_a_node_that_cannot_stop_its_workers_is_shut_out() -> None:
    story = Story(PLAN, "a", "b", "spare")
    story.exited("a", 0)
    story.stopped(a=())
    actions = story.wait(policy.STOP_SECONDS)
    assert one(actions, Quarantine).node == "b"
    assert one(actions, Start).nodes == ("a", "spare")
    assert one(story.hear(NodeJoined(node="b", incarnation=1)), Stop).nodes == ("b",)


def test_snapshots_of_a_first_try_do_not_mix_with_those_of_the_second() -> None:
    """Step 6 was done by incarnation 1 and again by 2; who missed the second start still has the first."""
    story = Story(PLAN, "a", "b")
    story.step(6)
    story.exited("a", 0)
    story.stopped(a=held(1, 4, range(4), 5), b=held(1, 4, range(4), 5))
    story.step(6)
    story.exited("a", 0)
    first, second = held(1, 4, (0, 1), 5, 6), held(2, 4, (2, 3), 6) + held(1, 4, (2, 3), 5)
    assert one(story.stopped(a=first, b=second), Start).restore == 5


# --- bad nodes ------------------------------------------------------------------------------------------


def fail_again(story: Story, node: str, rank: int, answer: Iterable[str]) -> list[Action]:
    """A step, a worker that dies, and all the answers."""
    story.now += 60.0
    story.step(10 * story.incarnation)
    return story.exited(node, rank) + story.stopped(**dict.fromkeys(answer, ()))


def test_a_node_that_fails_too_often_is_replaced() -> None:
    story = Story(PLAN, "a", "b", "spare")
    assert kinds(fail_again(story, "b", 2, "ab")) == ["Stop", "Start"]
    assert kinds(fail_again(story, "b", 2, "ab")) == ["Stop", "Start"]
    actions = fail_again(story, "b", 2, "ab")
    assert kinds(actions) == ["Quarantine", "Stop", "promoted", "Start"]
    assert one(actions, Start).nodes == ("a", "spare")


def test_its_memory_still_serves() -> None:
    story = Story(PLAN, "a", "b", "spare")
    for _ in range(2):
        fail_again(story, "b", 2, "ab")
    story.step(50)
    story.exited("b", 2)
    start = one(story.stopped(a=held(3, 4, (0, 1), 50), b=held(3, 4, (2, 3), 50)), Start)
    assert (start.nodes, start.restore, start.fetch) == (("a", "spare"), 50, {2: "b", 3: "b"})


def test_failures_on_different_days_are_bad_luck() -> None:
    story = Story(PLAN, "a", "b", "spare")
    for _ in range(5):
        story.now += policy.STRIKE_SECONDS / 2 + 100.0
        assert kinds(fail_again(story, "b", 2, "ab")) == ["Stop", "Start"]


def test_the_last_node_that_can_train_is_kept_however_bad() -> None:
    story = Story(Plan(places=1, per_node=2, copy=2, shares=2, global_batch=8, steps=100), "a")
    for _ in range(6):
        assert kinds(fail_again(story, "a", 0, "a")) == ["Stop", "Start"]


def test_a_straggler_is_replaced_if_there_is_a_spare_and_checked() -> None:
    story = Story(PLAN, "a", "b")
    slow = StragglerSuspected(node="b", rank=2, incarnation=1, factor=1.6)
    assert kinds(story.hear(slow)) == ["straggler"]
    story.hear(NodeJoined(node="spare"))
    assert kinds(story.hear(slow)) == ["straggler", "Stop"]
    assert one(story.stopped(b=()), Check).node == "b"
    assert one(story.stopped(a=()), Start).nodes == ("a", "spare")
    assert story.hear(NodeChecked(node="b", passed=True)) == []
    story.hear(NodeLost(node="spare", why="gone"))
    assert one(story.stopped(a=()), Start).nodes == ("a", "b")  # it was sound after all


def test_a_node_that_fails_its_check_is_never_used() -> None:
    story = Story(PLAN, "a", "b", "spare")
    assert kinds(story.hear(NodeChecked(node="b", passed=False, why="ECC errors"))) == ["Quarantine", "Stop"]
    assert one(story.stopped(a=(), b=()), Start).nodes == ("a", "spare")
    assert story.hear(NodeLost(node="b", why="gone"), NodeJoined(node="b")) == []
    story.hear(NodeLost(node="spare", why="gone"))
    assert one(story.stopped(a=()), Start).nodes == ("a",)
