"""
When it will be done, by how much luck: the plan carried out again and again with durations that vary.

Each sample draws durations, late deliveries and failed acceptances, and carries the plan out in its own order
(the tasks by their planned start, each as early as it then fits), as one who keeps to priorities would.
What drives the end is said twice: how often a kind of task is on the chain that sets it (Van Slyke, "Monte
Carlo methods and the PERT problem", Operations Research 11 (1963)), and by Spearman's rank correlation.
"""

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from math import log
from multiprocessing import get_context

import numpy as np
from numpy.typing import NDArray

from colossi.errors import BadInput
from colossi.site.project import Project, Schedule
from colossi.site.timetable import Timetable, by_start, earliest_starts, timetable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Z90 = 1.2815515655446004  # 90% quantile of the standard normal distribution


@dataclass(frozen=True, slots=True)
class Spread:
    """A factor on what was planned.

    "triangular": from low to high, likely is the mode. "lognormal": likely is the median and high the 90%
    quantile; low is not used.
    """

    low: float
    likely: float
    high: float
    source: str
    shape: str = "triangular"

    def __post_init__(self) -> None:
        if self.shape not in ("triangular", "lognormal"):
            raise BadInput(f"spread of shape {self.shape!r}", hint="triangular or lognormal")
        if not 0 < self.low <= self.likely <= self.high:
            raise BadInput(
                f"spread {self.low:g}, {self.likely:g}, {self.high:g}", hint="0 < low <= likely <= high"
            )

    def draw(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
        """Factors."""
        if self.low == self.high:
            return np.full(shape, self.likely)
        if self.shape == "triangular":
            return rng.triangular(self.low, self.likely, self.high, shape)
        return rng.lognormal(log(self.likely), log(self.high / self.likely) / Z90, shape)

    def median(self) -> float:
        """Half of the draws are below."""
        if self.shape == "lognormal" or self.low == self.high:
            return self.likely
        width, rise = self.high - self.low, self.likely - self.low
        if rise >= width / 2:
            return self.low + (width * rise / 2) ** 0.5
        return self.high - (width * (self.high - self.likely) / 2) ** 0.5


@dataclass(frozen=True, slots=True)
class Risks:
    """What may go otherwise than planned, by kind of task; kinds that are not named go as planned."""

    durations: Mapping[str, Spread]  # a factor on each task's duration, drawn for each task
    deliveries: Mapping[
        str, Spread
    ]  # a factor on the `earliest` of a task, one for all tasks of a sample and kind
    fails: Mapping[str, float]  # chance that a task must be done again, each time


@dataclass(frozen=True)
class Milestone:
    """A group's or a kind's end, or the project's: units since the start, one of each sample in `ends`."""

    name: str
    planned: int
    ends: Ints

    def quantile(self, share: float) -> float:
        """By then it is done in that share of the samples [units]."""
        return float(np.quantile(self.ends, share))


@dataclass(frozen=True)
class Odds:
    """Milestones by name ("" is the end of the project), and what drives that end, by kind of task."""

    milestones: dict[str, Milestone]
    criticality: dict[str, float]  # share of the samples in which one of this kind is on the chain of waiting
    correlation: dict[str, float]  # rank correlation of the mean factor of a kind with the end of the project


def odds(
    project: Project,
    schedule: Schedule,
    risks: Risks,
    samples: int = 1000,
    seed: int = 0,
    processes: int = 1,
    tell: Callable[[int], None] = lambda done: None,
) -> Odds:
    """Of the milestones of a plan; the same seed gives the same odds, however many processes there are.

    `tell` hears how many samples are done.
    """
    table = timetable(project)
    order = by_start(table, [schedule.starts[task.name] for task in project.tasks])
    kinds = sorted({task.kind for task in project.tasks})
    blocks = [(start, min(start + 25, samples)) for start in range(0, samples, 25)]
    work = [(project, table, order, risks, kinds, seed, block) for block in blocks]
    parts: list[tuple[Ints, Floats, NDArray[np.bool_]]] = []
    if processes > 1:
        with ProcessPoolExecutor(processes, mp_context=get_context("spawn")) as pool:
            for part in pool.map(_block, *zip(*work, strict=True)):
                parts.append(part)
                tell(sum(len(ends) for ends, _, _ in parts))
    else:
        for each in work:
            parts.append(_block(*each))
            tell(sum(len(ends) for ends, _, _ in parts))
    ends, factors, chained = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    planned = _milestone_ends(
        project, np.array([schedule.starts[task.name] + task.duration for task in project.tasks])
    )
    names = list(planned)
    last = ends[:, names.index("")]
    return Odds(
        {name: Milestone(name, planned[name], ends[:, index]) for index, name in enumerate(names)},
        {kind: float(chained[:, index].mean()) for index, kind in enumerate(kinds)},
        {kind: rank_correlation(factors[:, index], last) for index, kind in enumerate(kinds)},
    )


def _block(
    project: Project,
    table: Timetable,
    order: Sequence[int],
    risks: Risks,
    kinds: list[str],
    seed: int,
    block: tuple[int, int],
) -> tuple[Ints, Floats, NDArray[np.bool_]]:
    """Ends of milestones, mean factors of kinds, kinds on the chain: a row for each sample of the block."""
    ends, factors, chained = [], [], []
    for sample in range(*block):
        rng = np.random.default_rng([seed, sample])
        durations, earliest, factor = _drawn(project, risks, kinds, rng)
        varied = replace(table, earliest=earliest)
        starts = earliest_starts(varied, order, durations)
        if starts is None:
            raise BadInput(
                f"{project.name}: in sample {sample} some task finds no place",
                hint="a resource that ends leaves no room for delays",
            )
        finished = np.array(starts) + np.array(durations)
        ends.append(list(_milestone_ends(project, finished).values()))
        factors.append(factor)
        on_chain = {project.tasks[task].kind for task in _chain(varied, starts, durations)}
        chained.append([kind in on_chain for kind in kinds])
    return np.array(ends, dtype=np.int64), np.array(factors), np.array(chained, dtype=np.bool_)


def _drawn(
    project: Project, risks: Risks, kinds: list[str], rng: np.random.Generator
) -> tuple[list[int], list[int], list[float]]:
    """Durations and dates of the tasks in whole units, and the mean factor of each kind."""
    durations = np.array([task.duration for task in project.tasks], dtype=np.float64)
    earliest = np.array([task.earliest for task in project.tasks], dtype=np.float64)
    means = []
    for kind in kinds:
        rows = np.flatnonzero([task.kind == kind for task in project.tasks])
        factor = np.ones(len(rows))
        if kind in risks.durations:
            factor = risks.durations[kind].draw(rng, (len(rows),))
        if risks.fails.get(kind, 0.0) > 0:
            factor = factor * rng.geometric(1.0 - risks.fails[kind], len(rows))
        slip = 1.0
        if kind in risks.deliveries:
            slip = float(risks.deliveries[kind].draw(rng, (1,))[0])
        durations[rows] *= factor
        earliest[rows] *= slip
        means.append(float(factor.mean()) * slip)
    return np.rint(durations).astype(int).tolist(), np.rint(earliest).astype(int).tolist(), means


def _milestone_ends(project: Project, ends: Ints) -> dict[str, int]:
    """The last end of each group and of each kind, and of all under ""."""
    last: dict[str, int] = {"": int(ends.max())}
    for task, end in zip(project.tasks, ends.tolist(), strict=True):
        for name in {task.group, task.kind} - {""}:
            last[name] = max(last.get(name, 0), end)
    return last


def _chain(table: Timetable, starts: Sequence[int], durations: Sequence[int]) -> list[int]:
    """Tasks that led to the end, from the last: what each waited for, or who freed or gave what it needed."""
    ends = [start + duration for start, duration in zip(starts, durations, strict=True)]
    by_end: dict[int, list[int]] = {}
    for task, end in enumerate(ends):
        by_end.setdefault(end, []).append(task)
    chain: list[int] = []
    waited = [max(range(len(ends)), key=ends.__getitem__)]
    while waited:
        task = max(waited, key=durations.__getitem__)
        if task in chain:
            break
        chain.append(task)
        start = starts[task]
        waited = [other for other, lag in table.before[task] if ends[other] + lag == start]
        if not waited and start > table.earliest[task]:
            ended = (other for other in by_end.get(start, ()) if durations[other])
            waited = [other for other in ended if _shares(table, other, task)]
    return chain


def _shares(table: Timetable, one: int, two: int) -> bool:
    """One frees or gives some of what two needs: a field of both packed amounts is not 0."""
    offered, wanted = (table.needs[one] - table.holds[one]) | table.gives[one], table.needs[two]
    low = 0
    for bit in range(table.guard.bit_length()):
        if table.guard >> bit & 1:
            field = ((1 << (bit - low)) - 1) << low
            if offered & field and wanted & field:
                return True
            low = bit + 1
    return False


def rank_correlation(one: Floats, two: NDArray[np.generic]) -> float:
    """Spearman's: Pearson's of the ranks, ties share theirs; 0 where either does not vary [-1 to 1]."""
    ranks = [_ranks(np.asarray(column, dtype=np.float64)) for column in (one, two)]
    spreads = [float(rank.std()) for rank in ranks]
    if not all(spreads):
        return 0.0
    return float(
        ((ranks[0] - ranks[0].mean()) * (ranks[1] - ranks[1].mean())).mean() / (spreads[0] * spreads[1])
    )


def _ranks(values: Floats) -> Floats:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2.0)[group]
