"""
The shortest schedule that can be found in the time there is, and a proof of how much shorter it could be.

First trying (search.py), then Google's CP-SAT from the best plan on; it also proves the bound. Bounds that
need no search come first (bounds.py), and where the two meet there is nothing left to do.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from colossi.errors import BadInput
from colossi.site.bounds import heads, lower_bound, tails
from colossi.site.contradictions import check_project
from colossi.site.project import Project, Schedule
from colossi.site.search import first_plan, genetic
from colossi.site.timetable import Timetable, by_start, earliest_starts, makespan, timetable

if TYPE_CHECKING:
    from ortools.sat.python.cp_model import CpModel, IntVar

Tell = Callable[[int | None, int, float], None]  # incumbent, bound, seconds since the start

TRYING = 0.7  # share of the time for search.py, the rest is CP-SAT's


def _silent(incumbent: int | None, bound: int, seconds: float) -> None:
    pass


@dataclass
class _Best:
    """What is known so far; the only thing here that changes."""

    table: Timetable
    tell: Tell
    begin: float
    bound: int
    clock: Callable[[], float]
    starts: list[int] | None = None

    @property
    def length(self) -> int | None:
        return None if self.starts is None else makespan(self.table, self.starts)

    @property
    def proven(self) -> bool:
        return self.length == self.bound

    def seconds(self) -> float:
        return self.clock() - self.begin

    def better(self, starts: Sequence[int]) -> None:
        if self.length is None or makespan(self.table, starts) < self.length:
            self.starts = list(starts)
            self.tell(self.length, self.bound, self.seconds())

    def raise_bound(self, bound: int) -> None:
        if bound > self.bound:
            self.bound = bound
            self.tell(self.length, self.bound, self.seconds())


def solve(
    project: Project,
    seconds: float,
    tell: Tell = _silent,
    workers: int = 1,
    seed: int = 0,
    clock: Callable[[], float] = time.perf_counter,
) -> Schedule:
    """A schedule and a bound in about so many seconds of `clock`; `tell` hears of each improvement of either.

    Raises BadInput where no schedule is possible or none was found.
    """
    check_project(project)
    table = timetable(project)
    best = _Best(table, tell, clock(), lower_bound(project, table), clock)
    first_plan(table, best.better)
    if best.starts is not None:
        until = TRYING * seconds
        genetic(
            table,
            best.starts,
            best.better,
            lambda: best.proven or best.seconds() > until,
            random.Random(seed),
        )
    if not best.proven:
        _prove(project, best, seconds - best.seconds(), workers, seed)
    if best.starts is None:
        raise BadInput(
            f"{project.name}: no schedule found in {seconds:g} s",
            hint="give it more time, or more of a resource",
        )
    starts = earliest_starts(table, by_start(table, best.starts))  # nothing waits without a cause
    if starts is None or makespan(table, starts) > makespan(table, best.starts):
        starts = best.starts
    best.better(starts)
    names = [task.name for task in project.tasks]
    return Schedule(dict(zip(names, starts, strict=True)), makespan(table, starts), best.bound)


def _prove(project: Project, best: _Best, seconds: float, workers: int, seed: int) -> None:
    """CP-SAT, from the best plan on."""
    from ortools.sat.python import cp_model  # heavy, and only this needs it

    if seconds < 0.1:
        return
    horizon = best.length if best.length is not None else _horizon(project)
    model, starts = _model(project, best, horizon)
    if best.starts is not None:
        for variable, start in zip(starts, best.starts, strict=True):
            model.add_hint(variable, start)

    class Watch(cp_model.CpSolverSolutionCallback):
        def on_solution_callback(self) -> None:
            best.better([self.value(variable) for variable in starts])
            best.raise_bound(int(self.best_objective_bound))

    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = workers
    solver.parameters.random_seed = seed
    solver.best_bound_callback = lambda bound: best.raise_bound(round(bound))
    status = solver.solve(model, Watch())
    if status == cp_model.INFEASIBLE:
        raise BadInput(
            f"{project.name}: no schedule can meet all dates, holds and supplies",
            hint="some tasks need together what is never there at a time when they may run",
        )
    if status in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        best.better([solver.value(variable) for variable in starts])
    if status == cp_model.OPTIMAL and best.length is not None:
        best.raise_bound(best.length)
    elif solver.best_objective_bound > 0:
        best.raise_bound(round(solver.best_objective_bound))


def _horizon(project: Project) -> int:
    """Some schedule ends by then, if there is any [units]."""
    dates = [task.earliest for task in project.tasks]
    dates += [step[0] for resource in project.resources for step in resource.steps]
    lags = sum(max([0] + [lag for _, lag in task.after]) for task in project.tasks)
    return max(dates) + sum(task.duration for task in project.tasks) + lags


def _model(project: Project, best: _Best, horizon: int) -> "tuple[CpModel, list[IntVar]]":
    """A cumulative for each resource; a gift occupies itself until it is given, a step until it comes."""
    from ortools.sat.python import cp_model

    table = best.table
    model = cp_model.CpModel()
    first, rest = heads(table), tails(table)
    starts = [
        model.new_int_var(first[index], horizon - rest[index] - task.duration, "")
        for index, task in enumerate(project.tasks)
    ]
    for index, links in enumerate(table.before):
        for other, lag in links:
            model.add(starts[index] >= starts[other] + table.durations[other] + lag)
    runs = [
        model.new_fixed_size_interval_var(variable, task.duration, "")
        for variable, task in zip(starts, project.tasks, strict=True)
    ]
    end = model.new_int_var(best.bound, horizon, "end")
    for index, task in enumerate(project.tasks):
        # a successor with a negative lag may end before it
        if all(lag < 0 for _, lag in table.behind[index]):
            model.add(end >= starts[index] + task.duration)
    for resource in project.resources:
        name = resource.name
        intervals, demands = [], []
        most = max((amount for _, amount in resource.steps), default=0)
        steps = ((0, 0), *resource.steps) if not resource.steps or resource.steps[0][0] else resource.steps
        for (time_, amount), until in zip(steps, [*(t for t, _ in steps[1:]), horizon + 1], strict=True):
            if most - amount and until > time_:
                intervals.append(model.new_fixed_size_interval_var(time_, until - time_, ""))
                demands.append(most - amount)
        needed = False
        for variable, run, task in zip(starts, runs, project.tasks, strict=True):
            hold, use, gift = task.holds.get(name, 0), task.uses.get(name, 0), task.gives.get(name, 0)
            if use and task.duration:
                intervals.append(run)
                demands.append(use)
            if hold:
                size = model.new_int_var(1, horizon + 1, "")
                intervals.append(model.new_interval_var(variable, size, horizon + 1, ""))
                demands.append(hold)
            if gift:
                size = model.new_int_var(0, horizon + 1, "")
                intervals.append(model.new_interval_var(0, size, variable + task.duration, ""))
                demands.append(gift)
                most += gift
            needed = needed or bool(hold or (use and task.duration))
        if needed:
            model.add_cumulative(intervals, demands, most)
    model.minimize(end)
    return model, starts
