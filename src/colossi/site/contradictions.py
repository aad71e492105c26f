"""What makes a project impossible before anybody plans it: each refused by name, with the numbers."""

from collections.abc import Iterable
from difflib import get_close_matches

from colossi.errors import BadInput
from colossi.site.project import Project, Resource, Task


def check_project(project: Project) -> None:
    """Raises BadInput for the first thing that cannot be: names, dates, circles, needs above any supply."""
    _names(project)
    for resource in project.resources:
        _steps(resource)
    for task in project.tasks:
        _numbers(task)
    circle = cycle(project)
    if circle:
        raise BadInput(
            f"{project.name}: tasks wait for each other in a circle: {' -> '.join(circle)}",
            hint="each waits for the one after it; remove one of these from an `after`",
        )
    _supplies(project)


def cycle(project: Project) -> tuple[str, ...]:
    """Tasks of which each waits for the next and the last is the first again; empty where there is none."""
    after = {task.name: [name for name, _ in task.after] for task in project.tasks}
    done: set[str] = set()
    for root in after:
        path, waits = [root], [iter(after[root])]
        on_path = {root}
        while path:
            name = next((name for name in waits[-1] if name not in done), None)
            if name is None:
                waits.pop()
                on_path.discard(path[-1])
                done.add(path.pop())
            elif name in on_path:
                return (*path[path.index(name) :], name)
            else:
                path.append(name)
                on_path.add(name)
                waits.append(iter(after[name]))
    return ()


def _names(project: Project) -> None:
    tasks = {task.name for task in project.tasks}
    resources = {resource.name for resource in project.resources}
    _twice("task", (task.name for task in project.tasks))
    _twice("resource", (resource.name for resource in project.resources))
    if not tasks:
        raise BadInput(f"{project.name}: no tasks", hint="a project has at least one")
    for task in project.tasks:
        for name, _ in task.after:
            if name not in tasks:
                raise BadInput(
                    f"task {task.name!r} waits for {name!r}, which is no task", hint=_nearest(name, tasks)
                )
        for name in (*task.uses, *task.holds, *task.gives):
            if name not in resources:
                raise BadInput(
                    f"task {task.name!r} needs or gives {name!r}, which is no resource",
                    hint=_nearest(name, resources),
                )


def _twice(noun: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise BadInput(f"two {noun}s are called {name!r}", hint="each needs a name of its own")
        seen.add(name)


def _nearest(name: str, known: set[str]) -> str:
    near = get_close_matches(name, sorted(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known)[:8])}"


def _steps(resource: Resource) -> None:
    times = [time for time, _ in resource.steps]
    if times != sorted(set(times)) or any(time < 0 for time in times):
        raise BadInput(
            f"resource {resource.name!r}: steps at {', '.join(map(str, times))}",
            hint="times rise from one step to the next, from 0 on",
        )
    if any(amount < 0 for _, amount in resource.steps):
        raise BadInput(f"resource {resource.name!r}: less than nothing is available in a step")


def _numbers(task: Task) -> None:
    if task.duration < 0:
        raise BadInput(
            f"task {task.name!r} lasts {task.duration} units", hint="0 is a milestone; less is no time"
        )
    if task.earliest < 0:
        raise BadInput(
            f"task {task.name!r} starts at {task.earliest} at the earliest", hint="the project starts at 0"
        )
    for word, amounts in (("uses", task.uses), ("holds", task.holds), ("gives", task.gives)):
        for name, amount in amounts.items():
            if amount < 0:
                raise BadInput(
                    f"task {task.name!r} {word} {amount} of {name!r}", hint="amounts are 0 or more"
                )


def _supplies(project: Project) -> None:
    """A task alone against the most there ever is, and all that hold against what there is in the end."""
    for resource in project.resources:
        name = resource.name
        given = sum(task.gives.get(name, 0) for task in project.tasks)
        most = max((amount for _, amount in resource.steps), default=0) + given
        last = (resource.steps[-1][1] if resource.steps else 0) + given
        for task in project.tasks:
            # what it gives itself comes when it has ended
            own = task.gives.get(name, 0)
            need = task.holds.get(name, 0) + (task.uses.get(name, 0) if task.duration else 0)
            if need > most - own and need:
                raise BadInput(
                    f"task {task.name!r} needs {need} of {name!r}, of which there are never more than "
                    f"{most - own}",
                    hint=f"add {need - most + own} to {name!r}, or let the task need less",
                )
        held = sum(task.holds.get(name, 0) for task in project.tasks)
        if held > last:
            raise BadInput(
                f"all tasks together hold {held} of {name!r} in the end, and there are {last}",
                hint=f"{held - last} are missing",
            )
        _windows(project, resource, given)


def _windows(project: Project, resource: Resource, given: int) -> None:
    """A date after which too little is left: a crew that leaves before the delivery comes."""
    if given or not resource.steps:
        return
    for task in project.tasks:
        need = task.uses.get(resource.name, 0)
        if not need or not task.duration or resource.steps[-1][1] >= need:
            continue
        leaves = next(
            time
            for (time, _), (_, before) in zip(resource.steps[:0:-1], resource.steps[-2::-1], strict=True)
            if before >= need
        )
        if task.earliest + task.duration > leaves:
            raise BadInput(
                f"task {task.name!r} cannot start before {task.earliest}, lasts {task.duration} and needs "
                f"{need} of {resource.name!r}, of which there are too few from {leaves} on",
                hint=f"move one of these dates by {task.earliest + task.duration - leaves} units",
            )
