"""Silent corruption: what the controller trusts, and whom it blames."""

from colossi.control.actions import (
    DISK,
    Action,
    Distrust,
    GiveUp,
    Note,
    Start,
)
from colossi.control.events import (
    AllDone,
    CorruptionSuspected,
    FingerprintsTaken,
)

from .story import PLAN, Story, held, kinds, one


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
