"""Schedules against exhaustive search, closed forms and an independent checker."""

import random

import pytest
from hypothesis import assume, example, given, settings

from colossi.errors import BadInput
from colossi.site.bounds import lower_bound
from colossi.site.contradictions import check_project
from colossi.site.project import Project, Resource, Task
from colossi.site.search import first_plan, genetic
from colossi.site.solve import _Best, _prove, solve
from colossi.site.timetable import earliest_starts, justify, latest_starts, makespan, timetable
from tests.site.projects import complaints, shortest, small_projects

HORIZON = 9  # units that the exhaustive search tries


def named(project: Project, starts: list[int]) -> dict[str, int]:
    return {task.name: start for task, start in zip(project.tasks, starts, strict=True)}


@settings(deadline=None, max_examples=60)
@given(small_projects(most=4))
def test_the_solver_finds_what_exhaustive_search_finds(project: Project) -> None:
    best = shortest(project, HORIZON)
    try:
        schedule = solve(project, 3.0)
    except BadInput:
        assert best is None
        return
    assert complaints(project, schedule.starts) == []
    assert schedule.bound == schedule.makespan
    if best is not None:
        assert schedule.makespan == best
    else:
        assert schedule.makespan > HORIZON


@settings(deadline=None, max_examples=300)
@given(small_projects(most=12))
def test_what_is_tried_is_feasible_and_never_below_the_bound(project: Project) -> None:
    try:
        check_project(project)
    except BadInput:
        assume(False)
    table = timetable(project)
    bound = lower_bound(project, table)
    plans: list[list[int]] = []
    best = first_plan(table, plans.append)
    if best is None:
        return
    left = iter(range(20))
    genetic(table, best, plans.append, lambda: next(left, None) is None, random.Random(0))
    for starts in plans:
        assert complaints(project, named(project, starts)) == []
        assert makespan(table, starts) >= bound
        late = latest_starts(table, starts, makespan(table, starts))
        if late is not None:
            assert complaints(project, named(project, late)) == []
            assert makespan(table, late) <= makespan(table, starts)


@settings(deadline=None, max_examples=40)
@given(small_projects(most=4))
@example(Project("ends after its successor", 1.0, (Task("a", 0, earliest=2), Task("b", 0, (("a", -1),))), ()))
@example(Project("lags", 1.0, (Task("a", 0), Task("b", 0, (("a", -1),)), Task("c", 0, (("a", 1),))), ()))
def test_the_integer_program_means_the_same(project: Project) -> None:
    """CP-SAT alone, without a plan or a bound to start from: holds, gives and steps as the checker counts."""
    try:
        check_project(project)
    except BadInput:
        assume(False)
    best = _Best(timetable(project), lambda *news: None, 0.0, 0, lambda: 0.0)
    try:
        _prove(project, best, 5.0, 1, 0)
    except BadInput:
        assert shortest(project, HORIZON) is None
        return
    assert best.starts is not None
    assert complaints(project, named(project, best.starts)) == []
    expected = shortest(project, HORIZON)
    assert best.length == expected if expected is not None else best.length > HORIZON


def test_one_crew_takes_the_sum() -> None:
    tasks = tuple(Task(f"t{index}", index, uses={"crew": 1}) for index in range(1, 8))
    schedule = solve(Project("line", 1.0, tasks, (Resource("crew", ((0, 1),)),)), 5.0)
    assert schedule.makespan == schedule.bound == 28  # 1 + 2 + ... + 7


def test_without_resources_the_longest_path() -> None:
    tasks = (
        Task("a", 3),
        Task("b", 4, (("a", 2),)),
        Task("c", 1, (("a", 0), ("b", -2))),
        Task("d", 5, earliest=3),
    )
    schedule = solve(Project("paths", 1.0, tasks, ()), 5.0)
    assert schedule.makespan == schedule.bound == 9  # a 0-3, lag 2, b 5-9; d 3-8
    assert schedule.starts["c"] == 7  # two before the end of b


def test_a_feed_gives_what_racks_hold() -> None:
    # one rack at once, the second when the feed is there at 10
    tasks = (
        Task("feed", 10, gives={"MW": 1}),
        Task("one", 2, holds={"MW": 1}),
        Task("two", 2, holds={"MW": 1}),
    )
    schedule = solve(Project("feed", 1.0, tasks, (Resource("MW", ((0, 1),)),)), 5.0)
    assert schedule.makespan == schedule.bound == 12
    assert sorted((schedule.starts["one"], schedule.starts["two"])) == [0, 10]


def test_a_giver_that_needs_what_it_gives_goes_first() -> None:
    # whoever takes the 2 first locks the other out, unless it is the giver
    tasks = (Task("taker", 3, holds={"MW": 2}), Task("giver", 4, holds={"MW": 1}, gives={"MW": 3}))
    schedule = solve(Project("lock", 1.0, tasks, (Resource("MW", ((0, 2),)),)), 5.0)
    assert schedule.makespan == 7


# As PSPLIB writes them: durations, demands of two resources with 4 and 3, and successors.
# Both c and d need 3 of 4, so they follow each other: a 0-2, c 2-6, d 6-9, and f 9-11; b and e beside.
def test_an_instance_by_hand() -> None:
    tasks = (
        Task("a", 2, uses={"r1": 2}),
        Task("b", 3, uses={"r1": 1, "r2": 2}),
        Task("c", 4, (("a", 0),), uses={"r1": 3}),
        Task("d", 3, (("a", 0),), uses={"r1": 3, "r2": 1}),
        Task("e", 2, (("b", 0),), uses={"r2": 2}),
        Task("f", 2, (("c", 0), ("d", 0)), uses={"r1": 4}),
    )
    project = Project("hand", 1.0, tasks, (Resource("r1", ((0, 4),)), Resource("r2", ((0, 3),))))
    schedule = solve(project, 5.0)
    assert complaints(project, schedule.starts) == []
    assert schedule.makespan == schedule.bound == 11


def test_justification_shortens() -> None:
    # In this order x blocks the crew of the long chain; to the right and back it gives way.
    tasks = (
        Task("x", 4, uses={"crew": 1}),
        Task("y", 2, uses={"crew": 1}),
        Task("z", 6, (("y", 0),)),
    )
    table = timetable(Project("justified", 1.0, tasks, (Resource("crew", ((0, 1),)),)))
    starts = earliest_starts(table, [0, 1, 2])
    assert starts == [0, 4, 6]
    assert justify(table, starts) == [2, 0, 2]


def test_news_come_in_order() -> None:
    news: list[tuple[int | None, int, float]] = []
    tasks = tuple(
        Task(f"t{i}", 1 + i * 7 % 5, ((f"t{i - 3}", 0),) if i > 2 else (), {"crew": 1 + i % 3})
        for i in range(30)
    )
    schedule = solve(
        Project("news", 1.0, tasks, (Resource("crew", ((0, 4),)),)), 1.0, lambda *new: news.append(new)
    )
    incumbents = [incumbent for incumbent, _, _ in news if incumbent is not None]
    assert incumbents == sorted(incumbents, reverse=True)
    assert [bound for _, bound, _ in news] == sorted(bound for _, bound, _ in news)
    assert news[-1][:2] == (schedule.makespan, schedule.bound)


REFUSED = {
    "circle": (
        (Task("a", 1, (("c", 0),)), Task("b", 1, (("a", 0),)), Task("c", 1, (("b", 0),))),
        "a -> c -> b -> a",
    ),
    "itself": ((Task("a", 1, (("a", 0),)),), "a -> a"),
    "unknown": ((Task("place racks", 1), Task("b", 1, (("place rack", 0),))), "did you mean 'place racks'?"),
    "no resource": ((Task("a", 1, uses={"crow": 1}),), "did you mean 'crew'?"),
    "too much": (
        (Task("a", 1, uses={"crew": 5}),),
        "needs 5 of 'crew', of which there are never more than 3",
    ),
    "held": (
        tuple(Task(f"t{i}", 1, holds={"MW": 4}) for i in range(3)),
        "hold 12 of 'MW' in the end, and there are 10",
    ),
    "own gift": ((Task("a", 1, holds={"MW": 11}, gives={"MW": 5}),), "needs 11 of 'MW'"),
    "dates": ((Task("a", 4, uses={"guests": 1}, earliest=8),), "move one of these dates by 2 units"),
    "twice": ((Task("a", 1), Task("a", 2)), "two tasks are called 'a'"),
    "negative": ((Task("a", -1),), "lasts -1 units"),
    "empty": ((), "no tasks"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str) -> None:
    tasks, words = REFUSED[name]
    resources = (
        Resource("crew", ((0, 3),)),
        Resource("MW", ((0, 10),)),
        Resource("guests", ((0, 2), (10, 0))),
    )
    with pytest.raises(BadInput) as refusal:
        solve(Project("wrong", 1.0, tasks, resources), 1.0)
    assert words in str(refusal.value)


def test_together_impossible_is_said() -> None:
    # each alone would fit, the crew that goes away has time for one of the two
    tasks = (Task("a", 6, uses={"crew": 1}), Task("b", 6, uses={"crew": 1}))
    with pytest.raises(BadInput, match="no schedule can meet"):
        solve(Project("both", 1.0, tasks, (Resource("crew", ((0, 1), (10, 0))),)), 5.0)


@pytest.mark.parametrize("seed", range(8))
def test_what_is_remembered_of_tasks_alike_changes_nothing(seed: int) -> None:
    """Places of tasks alike are remembered with the table's own durations, not with a copy of them."""
    rng = random.Random(seed)
    tasks = [Task("feed", 9, gives={"crew": 2})]
    for index in range(60):
        kind = rng.randrange(3)
        after = ((f"t{rng.randrange(index)}", rng.randrange(3)),) if index and rng.random() < 0.5 else ()
        tasks.append(Task(f"t{index}", 1 + 2 * kind, after, {"crew": 1 + kind}, earliest=rng.randrange(20)))
    table = timetable(
        Project("alike", 1.0, tuple(tasks), (Resource("crew", ((0, 2), (7, 3), (12, 2), (30, 5))),))
    )
    assert max(table.alike) >= 0
    order = list(table.topological)
    with_memory = earliest_starts(table, order)
    assert with_memory is not None
    assert with_memory == earliest_starts(table, order, list(table.durations))
