"""The controller's rules one by one: what it hears, and exactly what it wants."""

import json
from collections.abc import Iterable
from typing import TypeVar

import pytest

from colossi.control import policy
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
    Held,
    NodeChecked,
    NodeJoined,
    NodeLost,
    NodeStopped,
    Snapshot,
    StepDone,
    StopWanted,
    StragglerSuspected,
    TimePassed,
    WorkerExited,
    WorkerHung,
)
from colossi.control.plan import Plan

Kind = TypeVar("Kind", bound=Action)

# Two nodes of two workers: two copies of the model, of two ranks each
PLAN = Plan(places=2, per_node=2, copy=2, shares=2, global_batch=8, steps=100)
# Four nodes of one worker: four copies; three do not divide the batch, two and one do
FOUR = Plan(places=4, per_node=1, copy=1, shares=1, global_batch=8, steps=100)


class Story:
    """A controller and its clock."""

    def __init__(self, plan: Plan = PLAN, *joined: str, controller: Controller | None = None) -> None:
        self.controller = controller or Controller(plan)
        self.plan = plan
        self.now = 1000.0
        for node in joined:
            self.hear(NodeJoined(node=node))

    def hear(self, *events: Event) -> list[Action]:
        """What it wants after these, together."""
        return [action for event in events for action in self.controller.on(event, self.now)]

    def wait(self, seconds: float) -> list[Action]:
        self.now += seconds
        return self.hear(TimePassed())

    @property
    def incarnation(self) -> int:
        return self.controller.run.incarnation

    def step(self, step: int) -> list[Action]:
        return self.hear(StepDone(incarnation=self.incarnation, step=step))

    def exited(self, node: str, rank: int, *, fatal: bool = False) -> list[Action]:
        event = WorkerExited(node=node, rank=rank, incarnation=self.incarnation, why="SIGKILL", fatal=fatal)
        return self.hear(event)

    def stopped(self, **held: Held) -> list[Action]:
        """These nodes answer."""
        n = self.incarnation
        return self.hear(*(NodeStopped(node=node, incarnation=n, held=each) for node, each in held.items()))


def held(incarnation: int, world: int, ranks: Iterable[int], *steps: int) -> Held:
    return tuple(Snapshot(incarnation, world, rank, step) for rank in ranks for step in steps)


def one(actions: list[Action], kind: type[Kind]) -> Kind:
    """The only one of its kind."""
    (found,) = [action for action in actions if isinstance(action, kind)]
    return found


def kinds(actions: list[Action]) -> list[str]:
    """Notes by what they say, the others by name."""
    return [action.kind if isinstance(action, Note) else type(action).__name__ for action in actions]


# --- the beginning ----------------------------------------------------------------------------------------


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
    assert story.hear(NodeJoined(node="a", incarnation=1)) == []  # over a new connection


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


# --- failures ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "event",
    [
        WorkerExited(node="a", rank=1, incarnation=1, why="killed by SIGKILL"),
        WorkerHung(node="a", rank=1, incarnation=1, seconds=30.0),
        WorkerHung(node="", rank=None, incarnation=1, seconds=30.0),
        CorruptionSuspected(incarnation=1, step=5, fingerprints={0: 1, 2: 2}),
        NodeJoined(node="a", incarnation=0),  # its agent died and is back, before anybody noticed
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


# --- bad nodes --------------------------------------------------------------------------------------------


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


# --- smaller and larger -----------------------------------------------------------------------------------


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


# --- silent corruption ------------------------------------------------------------------------------------


def corrupted(story: Story, step: int, wrong: int) -> list[Action]:
    """Ranks 0 and 2 hold the same weights, and report that they differ; one of them is wrong."""
    story.step(step)
    by_rank = {0: 7, 2: 7} | {wrong: 8}
    n = story.incarnation
    actions = story.hear(CorruptionSuspected(incarnation=n, step=step, fingerprints={0: by_rank[0]}))
    return actions + story.hear(CorruptionSuspected(incarnation=n, step=step, fingerprints={2: by_rank[2]}))


def test_a_corrupted_step_is_done_again_from_the_one_before() -> None:
    story = Story(PLAN, "a", "b", "spare")
    assert kinds(corrupted(story, 51, wrong=2)) == ["Stop"]  # several ranks' words are one suspicion
    both = held(1, 4, range(4), 50, 51)
    actions = story.stopped(a=both, b=both)
    assert one(actions, Distrust).step == 50
    start = one(actions, Start)
    assert (start.nodes, start.restore, start.verify) == (("a", "b"), 50, 51)
    story.step(51)
    actions = story.hear(FingerprintsTaken(incarnation=2, step=51, fingerprints={0: 7, 2: 7}))
    assert actions[0] == Note(
        kind="corrupted",
        why="its result was another one when the step was done again",
        node="b",
        rank=2,
        step=51,
    )
    assert kinds(actions[1:]) == ["Quarantine", "Stop"]
    new = held(2, 4, range(4), 51)
    start = one(story.stopped(b=new, a=new), Start)
    assert (start.nodes, start.restore, start.fetch) == (("a", "spare"), 51, {2: "a", 3: "a"})


def test_nobody_is_to_blame_where_nothing_repeats_itself() -> None:
    story = Story(PLAN, "a", "b", "spare")
    corrupted(story, 51, wrong=2)
    story.stopped(a=(), b=())
    assert story.hear(FingerprintsTaken(incarnation=2, step=51, fingerprints={0: 1, 2: 2})) == []


def test_without_a_spare_the_second_time_is_too_often() -> None:
    story = Story(PLAN, "a", "b")
    for step, quarantined in ((51, False), (71, True)):
        corrupted(story, step, wrong=2)
        story.stopped(a=(), b=())
        story.step(step)
        n = story.incarnation
        actions = story.hear(FingerprintsTaken(incarnation=n, step=step, fingerprints={0: 7, 2: 7}))
        assert ("Quarantine" in kinds(actions)) is quarantined
    assert one(story.stopped(a=(), b=()), Start).nodes == ("a",)


def test_the_memory_of_who_corrupts_is_not_read() -> None:
    story = Story(PLAN, "a", "b", "spare")
    corrupted(story, 51, wrong=2)
    story.stopped(a=(), b=())
    story.hear(FingerprintsTaken(incarnation=2, step=51, fingerprints={0: 7, 2: 7}))
    start = one(story.stopped(a=held(2, 4, (0, 1), 51), b=held(2, 4, range(4), 51)), Start)
    assert start.restore == DISK


def test_nor_if_it_has_told_already_what_it_holds() -> None:
    story = Story(PLAN, "a", "b", "spare")
    corrupted(story, 51, wrong=2)
    story.stopped(a=(), b=())
    story.exited("a", 0)
    story.stopped(b=held(2, 4, range(4), 51))
    found = FingerprintsTaken(incarnation=2, step=51, fingerprints={0: 7, 2: 7})
    assert kinds(story.hear(found)) == ["corrupted", "Quarantine"]
    assert one(story.stopped(a=held(2, 4, (0, 1), 51)), Start).restore == DISK


def test_nothing_above_the_last_step_that_agreed_is_trusted() -> None:
    """Fingerprints are compared every ten steps, so those between are in doubt too."""
    story = Story(PLAN, "a", "b")
    story.step(60)
    story.hear(CorruptionSuspected(incarnation=1, step=60, fingerprints={0: 1, 2: 2}, agreed=50))
    both = held(1, 4, range(4), 59, 60)
    actions = story.stopped(a=both, b=both)
    assert (one(actions, Distrust).step, one(actions, Start).restore) == (50, DISK)


def test_doubt_outlives_a_failure_of_the_second_try() -> None:
    story = Story(PLAN, "a", "b")
    corrupted(story, 51, wrong=2)
    both = held(1, 4, range(4), 50, 51)
    story.stopped(a=both, b=both)
    story.exited("a", 0)
    start = one(story.stopped(a=both, b=held(1, 4, range(4), 50)), Start)
    assert (start.restore, start.verify) == (50, 51)
    story.step(51)
    story.step(52)  # so 51 was done again without a new suspicion
    story.exited("a", 0)
    newer = held(3, 4, range(4), 51, 52)
    start = one(story.stopped(a=newer, b=newer), Start)
    assert (start.restore, start.verify) == (52, 0)


def test_a_program_that_never_agrees_is_given_up() -> None:
    story = Story(PLAN, "a", "b")
    for _ in range(2):
        corrupted(story, 51, wrong=2)
        assert "Start" in kinds(story.stopped(a=(), b=()))
        story.step(45)  # it began far back, from the disk, so every try did get somewhere
    corrupted(story, 51, wrong=2)
    assert "3 times in a row" in one(story.stopped(a=(), b=()), GiveUp).why


def test_a_corrupted_end_is_not_the_end() -> None:
    story = Story(PLAN, "a", "b")
    corrupted(story, 100, wrong=2)
    assert story.hear(AllDone(incarnation=1, step=100)) == []
    assert one(story.stopped(a=(), b=()), Start).verify == 100


# --- ends -------------------------------------------------------------------------------------------------


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
    story = Story(PLAN, "a", "b", *(f"s{i}" for i in range(20)))
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


# --- checkpoints by time ----------------------------------------------------------------------------------


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


# --- a new controller -------------------------------------------------------------------------------------


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


# --- state ------------------------------------------------------------------------------------------------


def test_its_state_is_json() -> None:
    """That it behaves alike afterwards is tested at every event in test_any_order.py."""
    story = Story(PLAN, "a", "b", "spare")
    story.hear(CorruptionSuspected(incarnation=1, step=51, fingerprints={0: (1, 2), 2: (1, 3)}))
    story.stopped(a=held(1, 4, range(4), 50))
    state = json.loads(json.dumps(story.controller.state()))
    again = Controller.from_state(PLAN, state)
    assert again.state() == story.controller.state()
    assert again.run.suspicion == story.controller.run.suspicion
