"""
A project as a value: tasks, what they need and what they wait for. How it is solved is beside, in solve.py.

Time counts in whole units (the project says what one is), so that the integer solver and the instances of the
literature (PSPLIB) mean the same as a building site. Knows nothing of racks.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Resource:
    """So much of it there is, from `steps[i][0]` on until the next step; (0, n): a crew of n throughout."""

    name: str
    steps: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Task:
    """`uses` is taken while it runs; `holds` from its start for ever, as energised megawatts are.

    `gives` is added for ever at its end, as a feed that is energised does. `after` are names of tasks that
    must have ended, with a lag [units] after their end that may be negative.
    """

    name: str
    duration: int  # [units]
    after: tuple[tuple[str, int], ...] = ()
    uses: dict[str, int] = field(default_factory=dict)
    holds: dict[str, int] = field(default_factory=dict)
    gives: dict[str, int] = field(default_factory=dict)
    earliest: int = 0  # a delivery
    group: str = ""  # such as the pod, for charts
    kind: str = ""  # such as "cabling"


@dataclass(frozen=True, slots=True)
class Project:
    """Tasks in any order; resources that no task names do no harm."""

    name: str
    unit_hours: float
    tasks: tuple[Task, ...]
    resources: tuple[Resource, ...]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When each task starts, and how good that is proven to be."""

    starts: dict[str, int]
    makespan: int
    bound: int  # no schedule is shorter
