# ruff: noqa: T201 (a script talks by printing)
"""
Whole lives of simulated runs: beside what was published, and beside the closed form.

    python validation/reliability.py --simulate

Each life is one under `colossi simulate`: the controller of real runs, a list of faults, and the ledger that
is counted as a real one. Standing and misses are as in reliability.py; a row is a miss if the mean is.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from colossi.ledger.events import Event
from colossi.plan.forecast import forecast
from colossi.plan.goodput import goodput
from colossi.plan.reliability import conditions_of
from colossi.simulation.outcome import Outcome, simulate
from colossi.simulation.scenario import PLANNED, complete_spec, scenario_of
from colossi.simulation.seeds import Life, Spread, live
from colossi.simulation.seeds import interval as interval_of
from colossi.spec.failures import DAY, FailureRates
from colossi.spec.read import apply_override, build_spec, read_toml
from colossi.spec.spec import Spec

EXAMPLES = Path(__file__).parents[1] / "examples"
SEEDS = 40
HOUR = 3600.0
ENDLESS = "training.tokens=1_000_000_000_000_000_000"  # no life comes to its end before its days are over

Standing = Literal["fitted", "derived", "held out"]


@dataclass(frozen=True, slots=True)
class Lived:
    """What was published, what came of the simulated lives, and what the closed form says."""

    source: str
    figure: str
    published: float | None  # None: nobody said
    lives: Spread
    closed: float | None
    standing: Standing
    unit: Literal["stops", "h", "share"]
    bound: Literal["", ">"] = ""

    @property
    def miss(self) -> bool:
        if self.published is None:
            return False
        off = self.lives.mean - self.published
        if self.bound:
            return off < 0
        return abs(off) > (0.02 if self.unit == "share" else 0.10 * self.published)


def spec_of(example: str, *settings: str) -> Spec:
    """An example that never comes to its end, otherwise."""
    document = read_toml(EXAMPLES / example)
    for setting in (ENDLESS, *settings):
        apply_override(document, setting)
    return complete_spec(build_spec(document, example))[0]


def of_size(gpus: int, *settings: str) -> Spec:
    """The example for 100,000 GPUs, on so many; as many sequences each."""
    return spec_of("colossus.toml", f"cluster.gpus={gpus}", f"training.global_batch={gpus // 4}", *settings)


def outcome(spec: Spec, days: float, seeds: int = SEEDS) -> Outcome:
    return simulate(spec, days, seeds, None, lambda done, total: None)


def unplanned(life: Life) -> int:
    return sum(count for cause, count in life.interruptions.items() if cause != PLANNED)


# Rows of Llama 3's table 5 by what a ledger calls a component.
TABLE_5 = (
    ("GPU, NVLink, silent corruption", ("gpu", "nvlink"), 196),
    ("HBM", ("hbm",), 72),
    ("software, watchdog, dependency", ("software",), 63),
    ("switch, cable", ("switch", "cable"), 35),
    ("NIC", ("nic",), 7),
    ("host, power supply", ("host", "power supply"), 46),
)


def llama3() -> Iterator[Lived]:
    """arXiv 2407.21783: 54 days on 16,384 H100."""
    spec = spec_of("llama3.toml")
    found = outcome(spec, 54)
    expected = conditions_of(spec, found.scenario.step_seconds)
    rates = found.scenario.rates

    def row(figure: str, published: float | None, counts: list[int], closed: float | None) -> Lived:
        return Lived("Llama 3", figure, published, Spread.of(counts), closed, "fitted", "stops")

    lives = found.lives
    yield row("unplanned stops", 419, [unplanned(life) for life in lives], expected.failure_rate * 54 * DAY)
    planned = [life.interruptions.get(PLANNED, 0) for life in lives]
    yield row("planned stops", 47, planned, rates.planned_per_second * 54 * DAY)
    for figure, names, published in TABLE_5:
        yield row(
            figure, published, [sum(life.interruptions.get(n, 0) for n in names) for life in lives], None
        )
    known = {PLANNED, *(name for _, names, _ in TABLE_5 for name in names)}
    others = [sum(n for cause, n in life.interruptions.items() if cause not in known) for life in lives]
    yield row("rack, feed, slow node, operator", None, others, None)
    closed = found.forecast.goodput.ettr
    yield Lived("Llama 3", "effective time", 0.90, found.ettr, closed, "held out", "share", ">")


def others() -> Iterator[Lived]:
    """Runs of which the effective time was published. Steps and causes are those of our examples."""
    found = outcome(of_size(9_600, "failures.snapshots=true", "failures.snapshot_seconds=0.03"), 90)
    yield _effective("ByteRobust", "9,600 GPUs, 3 months", 0.97, found)  # saves at every step, for 0.9% of it
    # diagnosed in under 10 minutes, caught up in under 15
    times = ("failures.detection_seconds=600", "failures.restart_seconds=900")
    yield _effective(
        "MegaScale", "10,000 GPUs, its longest recovery", 0.90, outcome(of_size(10_000, *times), 30), ">"
    )
    for minutes, published in ((10, 0.44), (3, 0.80)):
        times = ("failures.detection_seconds=0", f"failures.restart_seconds={minutes * 60}")
        for lemons, settings in LEMONS.items():
            found = outcome(of_size(100_000, "failures.rates='rsc-1'", *times, *settings), 10, SEEDS // 2)
            yield _effective("FT-HSDP", f"100,000 GPUs, stalls of {minutes} min, {lemons}", published, found)


def _effective(
    source: str, figure: str, published: float, found: Outcome, bound: Literal["", ">"] = ""
) -> Lived:
    closed = found.forecast.goodput.ettr
    return Lived(source, figure, published, found.ettr, closed, "held out", "share", bound)


LEMONS: dict[str, tuple[str, ...]] = {
    "rsc-1": (),
    "rsc-1, no lemons": ("failures.lemons_share=0", "failures.lemons_fraction=0"),
}
SIZES: tuple[tuple[int, float, float, Standing], ...] = (
    (1_024, 7.9, 54, "held out"),
    (16_384, 1.8, 20, "derived"),
    (131_072, 0.23, 3, "derived"),
)


def by_size() -> Iterator[Lived]:
    """arXiv 2410.21680: time between two unplanned stops of a job, in which it ran or started."""
    for gpus, published, days, standing in SIZES:
        for lemons, settings in LEMONS.items():
            spares = "failures.spares_fraction=0.05"  # nobody waits, nobody gives up
            spec = of_size(gpus, "failures.rates='rsc-1'", spares, *settings)
            found = outcome(spec, days, SEEDS // 2)
            apart = Spread.of([_hours(life, days) / max(1, unplanned(life)) for life in found.lives])
            closed = 1 / conditions_of(spec, 1.0).failure_rate / HOUR
            yield Lived(
                "RSC-1", f"{gpus:,} GPUs, between stops, {lemons}", published, apart, closed, standing, "h"
            )


def _hours(life: Life, days: float) -> float:
    """In which something could be stopped [h]."""
    return days * DAY / HOUR - life.lost_hours["waiting"] - life.lost_hours["detection"]


# --- the closed form beside it ----------------------------------------------------------------------------

GPUS = (16_000, 100_000, 200_000)
RESTARTS = (60, 300, 900)  # [s]
GRID_SEEDS = 12
GRID_FAILURES = 380  # in a life: about 50 days of 16,000 GPUs, 4 of 200,000


@dataclass(frozen=True, slots=True)
class Cell:
    """Effective time where all that the closed form does not know is left out."""

    gpus: int
    restart: float  # [s]
    snapshots: bool
    simulated: float
    margin: float  # half of the 95% confidence interval of its mean
    closed: float
    corrected: float  # the closed form with what the simulation does otherwise
    from_disk: float  # share of restarts that went back to the disk

    @property
    def within(self) -> bool:
        return abs(self.closed - self.simulated) <= self.margin

    @property
    def corrected_within(self) -> bool:
        return abs(self.corrected - self.simulated) <= self.margin


def evenly(rates: FailureRates) -> FailureRates:
    """The causes that stop a job, one node each at most, at constant rates; no stops on purpose."""
    causes = tuple(
        cause.model_copy(update={"shape": 1.0})
        for cause in rates.causes
        if cause.per in ("gpu", "node", "nic")
    )
    return rates.model_copy(update={"causes": causes, "others": (), "planned": 0.0, "lemons_share": 0.0})


def grid() -> Iterator[Cell]:
    for gpus in GPUS:
        for restart in RESTARTS:
            for snapshots in (False, True):
                yield _cell(gpus, restart, snapshots)


def _cell(gpus: int, restart: float, snapshots: bool) -> Cell:
    on = "true" if snapshots else "false"
    spec = of_size(
        gpus,
        f"failures.restart_seconds={restart}",
        f"failures.snapshots={on}",
        "failures.lemons_fraction=0",
    )
    scenario = scenario_of(spec, DAY, forecast(spec))
    rates = evenly(scenario.rates)
    step, per_node = scenario.step_seconds, scenario.plan.per_node
    seconds = GRID_FAILURES / rates.of_job(gpus, per_node)
    told = replace(
        conditions_of(spec, step),
        failure_rate=rates.of_job(gpus, per_node),
        node_loss_rate=rates.of_job(gpus, per_node) * rates.repaired_share,
        planned_rate=0.0,
    )
    interval = max(1, round(goodput(told).interval / step))
    scenario = replace(scenario, rates=rates, checkpoint_every=interval, seconds=seconds)
    lives = [live(scenario, seed) for seed in range(1, GRID_SEEDS + 1)]
    mean, margin = interval_of([life.ettr for life, _ in lives])
    from_disk = _from_disk([history for _, history in lives])
    told = replace(told, interval=interval * step)
    # Until a failure is known, only the loss of a node prolongs the search: until that one is known as well
    # (the busy period of M/D/infinity). A snapshot is whole a step later.
    losses = told.node_loss_rate
    detection = math.expm1(losses * told.detection) / losses
    otherwise = replace(told, detection=0.0, restart=told.restart + (step if snapshots else 0.0))
    if told.snapshots:
        otherwise = replace(otherwise, snapshots=replace(told.snapshots, lost=from_disk))
    corrected = goodput(otherwise).ettr / (1 + told.failure_rate * detection)
    return Cell(gpus, restart, snapshots, mean, margin, goodput(told).ettr, corrected, from_disk)


def _from_disk(histories: list[list[Event]]) -> float:
    sources = [event.text("source") for history in histories for event in history if event.kind == "restored"]
    return sources.count("disk") / max(1, len(sources))


# --- to be read -------------------------------------------------------------------------------------------


def show() -> None:
    """Both tables, line by line as they are found."""
    heads = f"{'published':>9} {'simulated':>9} {'5% to 95%':>15} {'closed':>7}"
    print(f"{'source':11} {'figure':49} {heads}  standing")
    judged: list[Lived] = []
    for row in (row for part in (llama3, others, by_size) for row in part()):
        digits = {"stops": 0, "h": 2, "share": 3}[row.unit]
        published = "" if row.published is None else f"{row.bound}{row.published:g}"
        spread = f"{row.lives.low:.{digits}f} to {row.lives.high:.{digits}f}"
        closed = "" if row.closed is None else f"{row.closed:.{digits}f}"
        figures = f"{published:>9} {row.lives.mean:9.{digits}f} {spread:>15} {closed:>7}"
        verdict = f"{row.standing:8} {'MISS' if row.miss else ''}".rstrip()
        print(f"{row.source:11} {row.figure:49} {figures}  {verdict}", flush=True)
        judged += [row] if row.standing == "held out" else []
    print(f"\nheld out: {len(judged)} rows, {sum(row.miss for row in judged)} missed.\n")
    show_grid()


def show_grid() -> None:
    heads = f"{'simulated':>17} {'closed':>7} {'':7} {'corrected':>9} {'':7} {'from disk':>9}"
    print(f"{'GPUs':>8} {'restart':>8} {'snapshots':>9} {heads}")
    for cell in grid():
        print(
            f"{cell.gpus:8,} {cell.restart:6.0f} s {'on' if cell.snapshots else 'off':>9} "
            f"{cell.simulated:.4f} +- {cell.margin:.4f} {cell.closed:7.4f} {_inside(cell.within):7} "
            f"{cell.corrected:9.4f} {_inside(cell.corrected_within):7} {cell.from_disk:9.2%}",
            flush=True,
        )


def _inside(within: bool) -> str:
    return "within" if within else "outside"
