"""
What a plan of a site comes to: its milestones, what stands at each hour, and the order from front to back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from colossi.site.design import Design
from colossi.site.project import Project, Task

FIRST_RACK, FIRST_TRAINING = "first rack on the floor", "first training step"


@dataclass(frozen=True, slots=True)
class Milestone:
    """`hour` is of work: the begin of the first rack's placing, the end of all else."""

    name: str
    hour: int
    task: str  # that reaches it
    begins: bool = False


def milestones(project: Project, starts: Mapping[str, int], existing: int, gpus: int) -> list[Milestone]:
    """In the order in which a site reaches them as a rule; `existing` GPUs ran before."""
    of: dict[str, list[Task]] = {"placing": [], "launch": [], "hand-over": [], "acceptance": []}
    for task in project.tasks:
        if task.kind in of:
            of[task.kind].append(task)

    def end(task: Task) -> int:
        return starts[task.name] + task.duration

    first = min(of["placing"], key=lambda task: starts[task.name])
    last = max(of["acceptance"], key=end)
    found = [Milestone(FIRST_RACK, starts[first.name], first.name, begins=True)]
    found += [Milestone(FIRST_TRAINING, end(task), task.name) for task in of["launch"]]
    found += [Milestone(f"hall {task.group}", end(task), task.name) for task in of["hand-over"]]
    return [*found, Milestone(last_milestone(existing, gpus), end(last), last.name)]


def last_milestone(existing: int, gpus: int) -> str:
    """All that was asked for."""
    if not existing:
        return f"all {gpus:,} GPUs"
    return (
        f"doubled to {existing + gpus:,} GPUs" if existing == gpus else f"grown to {existing + gpus:,} GPUs"
    )


def front_to_back(project: Project) -> list[float]:
    """A key for each task, smallest first: pod after pod as they come, what they stand on before them."""
    number = {task.name: index for index, task in enumerate(project.tasks)}
    keys = [float("inf")] * len(project.tasks)
    waiters: list[list[int]] = [[] for _ in project.tasks]
    for index, task in enumerate(project.tasks):
        for other, _ in task.after:
            waiters[number[other]].append(index)
    lots = [task.group for task in project.tasks if task.kind == "delivery"]
    place = {group: at for at, group in enumerate(lots)}
    first: dict[int, float] = {}

    def key(index: int) -> float:
        """That of its pod, or of the first pod that waits for it."""
        task = project.tasks[index]
        if task.group in place:
            return place[task.group]
        if task.kind == "power":
            return -1.0
        if index not in first:
            first[index] = min((key(other) for other in waiters[index]), default=float(len(place)))
        return first[index]

    for index in range(len(project.tasks)):
        keys[index] = key(index)
    return keys


def accepted(project: Project, starts: Mapping[str, int], design: Design) -> list[tuple[int, int]]:
    """Hour by which a pod is accepted, and its GPUs; in order of time."""
    nodes = design.devices.rack[design.devices_of("node")]
    pods = design.racks.pod[nodes]
    gpus = np.bincount(pods[pods >= 0], minlength=design.pods) * design.node.gpus
    found: list[tuple[int, int]] = []
    for task in project.tasks:
        if task.kind == "acceptance" and task.group.startswith("pod-"):
            pod = int(task.group.removeprefix("pod-"))
            found.append((starts[task.name] + task.duration, int(gpus[pod])))
    return sorted(found)
