"""Chains, floats and curves of small projects, worked out by hand."""

from hypothesis import assume, given, settings

from colossi.errors import BadInput
from colossi.site.contradictions import check_project
from colossi.site.critical import critical, curves
from colossi.site.project import Project, Resource, Schedule, Task
from colossi.site.search import first_plan
from colossi.site.timetable import makespan, timetable
from tests.site.projects import complaints, small_projects


def plan(project: Project) -> Schedule:
    """By priority rules alone."""
    table = timetable(project)
    starts = first_plan(table, lambda starts: None)
    assume(starts is not None)
    assert starts is not None
    length = makespan(table, starts)
    return Schedule(dict(zip([task.name for task in project.tasks], starts, strict=True)), length, length)


# a 0-3, then crew: b 0-4, c 4-6 (freed by b); d after a and c: 6-7; e waits for its delivery at 5, 5-6
CREWED = Project(
    "crewed",
    1.0,
    (
        Task("a", 3),
        Task("b", 4, uses={"crew": 2}),
        Task("c", 2, uses={"crew": 1}),
        Task("d", 1, (("a", 0), ("c", 0))),
        Task("e", 1, earliest=5),
    ),
    (Resource("crew", ((0, 2),)),),
)
SCHEDULE = Schedule({"a": 0, "b": 0, "c": 4, "d": 6, "e": 5}, 7, 7)


def test_the_chain_names_what_was_waited_for() -> None:
    chain = critical(CREWED, SCHEDULE).chain
    assert [(link.task, link.why, link.by, link.resource) for link in chain] == [
        ("b", "start", "", ""),
        ("c", "resource", "b", "crew"),
        ("d", "task", "c", ""),
    ]


def test_floats_by_paths_and_with_crews() -> None:
    found = critical(CREWED, SCHEDULE)
    # by paths: a ends at 6 at the latest; b alone could run to 7; c may end at 6, where it does
    assert found.path_float == {"a": 3, "b": 3, "c": 0, "d": 0, "e": 1}
    # with the crew b must be done when c starts
    assert found.resource_float == {"a": 3, "b": 0, "c": 0, "d": 0, "e": 1}


def test_a_feed_is_a_link_and_slips_until_somebody_needs_it() -> None:
    project = Project(
        "feed",
        1.0,
        (
            Task("feed", 4, gives={"MW": 1}),
            Task("late feed", 1, gives={"MW": 1}),
            Task("one", 2, holds={"MW": 1}, uses={"crew": 1}),
            Task("two", 2, holds={"MW": 1}, uses={"crew": 1}),
        ),
        (Resource("MW", ((0, 0),)), Resource("crew", ((0, 1),))),
    )
    # the quick feed lets one start at 1, the other feed is there at 4
    found = critical(project, Schedule({"feed": 0, "late feed": 0, "one": 1, "two": 4}, 6, 6))
    assert [(link.task, link.by, link.resource) for link in found.chain] == [
        ("feed", "", ""),
        ("two", "feed", "MW"),
    ]
    # "one" can start at 2 and end when "two" takes the crew; the quick feed slips with it
    assert found.resource_float == {"feed": 0, "late feed": 1, "one": 1, "two": 0}


def test_dates_and_supplies_are_links() -> None:
    tasks = (Task("a", 2, earliest=3), Task("b", 2, (("a", 0),), {"crew": 1}))
    project = Project("dates", 1.0, tasks, (Resource("crew", ((8, 1),)),))
    chain = critical(project, Schedule({"a": 3, "b": 8}, 10, 10)).chain
    assert [(link.task, link.why, link.resource) for link in chain] == [("b", "supply", "crew")]
    chain = critical(project, Schedule({"a": 6, "b": 8}, 10, 10)).chain
    assert [(link.task, link.why) for link in chain] == [("a", "choice"), ("b", "task")]


def test_curves_count_what_is_taken_and_there() -> None:
    curve = curves(CREWED, SCHEDULE)["crew"]
    assert list(zip(curve.times, curve.taken, curve.there, strict=True)) == [(0, 2, 2), (4, 1, 2), (6, 0, 2)]


@settings(deadline=None, max_examples=200)
@given(small_projects(most=10))
def test_slipping_by_its_float_alone_breaks_no_path(project: Project) -> None:
    """All as late as the floats with crews say is a plan; the floats by paths are never smaller."""
    try:
        check_project(project)
    except BadInput:
        assume(False)
    schedule = plan(project)
    found = critical(project, schedule)
    late = {name: start + found.resource_float[name] for name, start in schedule.starts.items()}
    assert complaints(project, late) == []
    assert max(late[task.name] + task.duration for task in project.tasks) <= schedule.makespan
    assert all(0 <= found.resource_float[name] <= found.path_float[name] for name in late)
    assert found.chain[-1].end == schedule.makespan
    assert all(link.why != "choice" for link in found.chain)
