"""Projects for tests, a checker of schedules and an exhaustive search; they share no line with the solver."""

from collections.abc import Mapping

from hypothesis import strategies

from colossi.site.project import Project, Resource, Task


def complaints(project: Project, starts: Mapping[str, int]) -> list[str]:
    """All that is wrong with a schedule, unit by unit."""
    wrong = []
    tasks = {task.name: task for task in project.tasks}
    for task in project.tasks:
        if starts[task.name] < max(0, task.earliest):
            wrong.append(f"{task.name} starts before its date")
        for name, lag in task.after:
            if starts[task.name] < starts[name] + tasks[name].duration + lag:
                wrong.append(f"{task.name} does not wait for {name}")
    horizon = 2 + max(starts[task.name] + task.duration for task in project.tasks)
    horizon = max([horizon] + [time + 2 for resource in project.resources for time, _ in resource.steps])
    for resource in project.resources:
        for unit in range(horizon):
            there = next((amount for time, amount in reversed(resource.steps) if time <= unit), 0)
            for task in project.tasks:
                start, end = starts[task.name], starts[task.name] + task.duration
                there += task.gives.get(resource.name, 0) * (end <= unit)
                there -= task.uses.get(resource.name, 0) * (start <= unit < end)
                there -= task.holds.get(resource.name, 0) * (start <= unit)
            if there < 0:
                wrong.append(f"{-there} of {resource.name} too many in unit {unit}")
    return wrong


def shortest(project: Project, horizon: int) -> int | None:
    """By trying every combination of starts up to the horizon; None: there is no schedule.

    Tasks stand behind those that they wait for; what breaks their dates is left out at once.
    """
    best: int | None = None
    choices: list[dict[str, int]] = [{}]
    lasts = {task.name: task.duration for task in project.tasks}
    for task in project.tasks:
        choices = [
            starts | {task.name: start}
            for starts in choices
            for start in range(
                max([task.earliest] + [starts[name] + lasts[name] + lag for name, lag in task.after]),
                horizon + 1,
            )
        ]
    for starts in choices:
        end = max(starts[task.name] + task.duration for task in project.tasks)
        if (best is None or end < best) and not complaints(project, starts):
            best = end
    return best


AMOUNTS = strategies.dictionaries(
    strategies.sampled_from(["crew", "power"]), strategies.integers(1, 2), max_size=1
)


@strategies.composite
def small_projects(draw: strategies.DrawFn, most: int = 5) -> Project:
    """Up to `most` tasks of up to 3 units, with lags, dates, steps, holds and gives: not all are possible."""
    count = draw(strategies.integers(1, most))
    tasks = []
    for index in range(count):
        after = draw(strategies.sets(strategies.integers(0, index - 1), max_size=2)) if index else set()
        kind = draw(strategies.sampled_from(["plain", "plain", "holds", "gives"]))
        tasks.append(
            Task(
                name=f"t{index}",
                duration=draw(strategies.integers(0, 3)),
                after=tuple((f"t{other}", draw(strategies.integers(-1, 1))) for other in sorted(after)),
                uses=draw(AMOUNTS),
                holds={"power": 1} if kind == "holds" else {},
                gives={"power": 1} if kind == "gives" else {},
                earliest=draw(strategies.integers(0, 2)),
            )
        )
    crew = draw(strategies.sampled_from([((0, 2),), ((0, 1), (3, 2)), ((1, 2),), ((0, 2), (2, 1), (4, 2))]))
    power = draw(strategies.sampled_from([((0, 2),), ((0, 1),), ((0, 1), (2, 3))]))
    return Project("small", 1.0, tuple(tasks), (Resource("crew", crew), Resource("power", power)))
