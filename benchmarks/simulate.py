# ruff: noqa: T201 (a script talks by printing)
"""
How fast months of a large fleet are lived through: `python benchmarks/simulate.py [--only PART]`.

    one     122 days (Colossus was built in as many) of 204,800 GPUs with all their failures, one seed, one
            core: playing alone, with the account of its ledger, and with the ledger written to SQLite. The
            aims: under 5 s, under 1 GB of memory
    sweep   100 seeds of the same on all cores that there are, as `colossi simulate` does it. The aim: under 3
            minutes on 2 cores
    simpy   a smaller fleet, and a shorter time of the whole one, beside the same written with SimPy in the
            straightforward way (peers/simpy_run.py), in turns. The aim: a ratio above 3. Needs SimPy
            (`pip install simpy`), and is left out without it

Control events are what the controller hears. Played one by one these are every step that is done, and every
node's answer to a stop; that is how SimPy plays them. colossi's own controller hears of many steps, and of a
whole world that has stopped, in one event. So beside the events that each program really handled stands what
they amount to one by one, and the ratio is that of the days that both simulate in a second of CPU time.
"""

import argparse
import importlib.util
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from colossi.control import events
from colossi.control.actions import Action, Start
from colossi.control.controller import Controller
from colossi.ledger.clock import account
from colossi.ledger.store import Ledger
from colossi.simulation.engine import Simulated
from colossi.simulation.scenario import Scenario, complete_spec, faults_of, scenario_of
from colossi.simulation.seeds import DAY, Spread, lives
from colossi.simulation.striking import struck
from colossi.spec.read import build_spec, read_toml
from colossi.world.failures import Fault

ROOT = Path(__file__).parent.parent
GPUS, DAYS = 204_800, 122.0
SEEDS = 100
# A fleet of 2,048 nodes for ten days, and the whole one for six hours.
CASES = ((16_384, 10.0), (GPUS, 0.25))
ROUNDS = 3
ENDLESS = 10**17  # tokens
# What both programs know; the others are left out for both, and so is what becomes of lemons.
EFFECTS = ("loss", "crash", "hang", "job", "flap")
AIM_SECONDS, AIM_MIB, AIM_SWEEP, AIM_RATIO = 5.0, 1e9 / 2**20, 180.0, 3.0


def scenario_with(gpus: int, days: float) -> Scenario:
    """Colossus, of so many GPUs, with snapshots in memory, and more to train than it can."""
    document = read_toml(ROOT / "examples/colossus.toml")
    document["cluster"]["gpus"] = gpus
    document["training"] |= {"global_batch": gpus // 8, "tokens": ENDLESS}
    document["failures"] = {"snapshots": True}
    spec, found = complete_spec(build_spec(document, "colossus"))
    return scenario_of(spec, days * DAY, found)


class Counting(Controller):
    """Counts what it hears, and what that amounts to one by one."""

    heard = 0
    one_by_one = 0
    steps = 0

    def on(self, event: events.Event, now: float) -> list[Action]:
        self.heard += 1
        match event:
            case events.StepDone():
                self.one_by_one += max(1, event.step - self.steps)
                self.steps = event.step
            case events.WorldStopped():
                self.one_by_one += len(self.run.world) - len(event.but)
            case _:
                self.one_by_one += 1
        wanted = super().on(event, now)
        if any(isinstance(action, Start) for action in wanted):
            self.steps = self.run.newest  # that it begins from
        return wanted


@dataclass(frozen=True, slots=True)
class Turn:
    """One program's."""

    seconds: float  # of CPU
    heard: int
    one_by_one: int
    starts: int
    step: int  # the last one done


def ours(scenario: Scenario, faults: Sequence[Fault]) -> Turn:
    begun = time.process_time()
    simulated = struck(Simulated(scenario), faults)
    simulated.controller = counting = Counting(scenario.plan)
    history = simulated.play()
    seconds = time.process_time() - begun
    starts = sum(event.kind == "incarnation_started" for event in history)
    step = max(event.step or 0 for event in history if event.kind == "step_done")
    return Turn(seconds, counting.heard, counting.one_by_one, starts, step)


def simpys(scenario: Scenario, faults: Sequence[Fault]) -> Turn:
    from peers.simpy_run import play

    begun = time.process_time()
    job = play(scenario, faults)
    seconds = time.process_time() - begun
    return Turn(seconds, job.heard, job.heard, job.starts, job.step)


def say(what: str, value: float, unit: str, aim: str, **more: object) -> None:
    if as_json:
        print(json.dumps({"what": what, "value": value, "unit": unit, "aim": aim} | more), flush=True)
        return
    beside = ", ".join(f"{key} {number}" for key, number in more.items())
    told = f"{value:,.2f}" if value < 100 else f"{value:,.0f}"
    print(f"  {what:<34}{told:>12} {unit:<10} {aim and f'(aim {aim})':<14} {beside}", flush=True)


def measure_one() -> None:
    scenario = scenario_with(GPUS, DAYS)
    spares = scenario.machinery.nodes - scenario.plan.places
    print(f"one: {GPUS:,} GPUs and {spares:,} nodes to spare, {DAYS:g} days, load {load()}")
    times: dict[str, list[float]] = {"play": [], "account": [], "ledger": []}
    walls = []
    for seed in range(1, ROUNDS + 1):
        wall, begun = time.perf_counter(), time.process_time()
        faults = faults_of(scenario, seed)
        simulated = struck(Simulated(scenario), faults)
        simulated.controller = counting = Counting(scenario.plan)
        history = simulated.play()
        played = time.process_time()
        walls.append(time.perf_counter() - wall)
        spent = account(history)
        accounted = time.process_time()
        with (
            tempfile.TemporaryDirectory() as folder,
            Ledger.create_or_open(Path(folder) / "ledger") as ledger,
        ):
            ledger.append(*history)
            written = time.process_time()
        times["play"].append(played - begun)
        times["account"].append(accounted - begun)
        times["ledger"].append(written - begun)
    median = {name: statistics.median(taken) for name, taken in times.items()}
    aim = f"< {AIM_SECONDS:g}"
    say(
        "played",
        median["play"],
        "s of CPU",
        aim,
        wall=f"{statistics.median(walls):.2f} s",
        faults=len(faults),
    )
    say("with its account", median["account"], "s of CPU", aim, interruptions=len(spent.interruptions))
    say("and its ledger in SQLite", median["ledger"], "s of CPU", aim, events=len(history))
    say("control events", counting.heard / times["play"][-1], "a second", "", heard=counting.heard)
    say("the same, one by one", counting.one_by_one / times["play"][-1], "a second", "")
    say(
        "memory at most", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "MiB", f"< {AIM_MIB:.0f}"
    )


def measure_sweep(seeds: int) -> None:
    scenario, cores = scenario_with(GPUS, DAYS), len(os.sched_getaffinity(0))
    print(f"sweep: {seeds} seeds of {GPUS:,} GPUs, {DAYS:g} days, {cores} cores, load {load()}")
    begun, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        found = lives(scenario, seeds, Path(folder) / "seeds.jsonl")
    wall, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    aim = f"< {AIM_SWEEP * seeds / SEEDS:.0f}"
    say("all seeds", wall, "s", aim, load=load())
    say("their CPU time, by two", cpu / 2, "s", aim)  # what two cores need that do nothing else
    say("each", cpu / seeds, "s of CPU", "", ettr=f"{Spread.of([life.ettr for life in found]).mean:.1%}")
    say("memory of a worker at most", after.ru_maxrss / 1024, "MiB", f"< {AIM_MIB:.0f}")


def measure_simpy() -> None:
    for gpus, days in CASES:
        scenario = scenario_with(gpus, days)
        scenario = replace(scenario, plan=replace(scenario.plan, strikes=None))
        faults = [fault for fault in faults_of(scenario, 1) if fault.effect in EFFECTS]
        turns = [(ours(scenario, faults), simpys(scenario, faults)) for _ in range(ROUNDS)]
        print(f"simpy: {scenario.plan.places:,} nodes, {days:g} days, {len(faults)} faults, load {load()}")
        for name, own in zip(("colossi", "SimPy"), zip(*turns, strict=True), strict=True):
            seconds, one = statistics.median(turn.seconds for turn in own), own[0]
            say(f"{name}, days", days / seconds, "a second", "", seconds=f"{seconds:.2f}",
                starts=one.starts, step=one.step)  # fmt: skip
            say(f"{name}, events handled", one.heard / seconds, "a second", "", heard=one.heard)
            say(f"{name}, the same one by one", one.one_by_one / seconds, "a second", "", told=one.one_by_one)
        ratio = statistics.median(theirs.seconds / own.seconds for own, theirs in turns)
        say("days a second, ratio", ratio, "", f"> {AIM_RATIO:g}")
        events_ratio = statistics.median(
            (own.one_by_one / own.seconds) / (theirs.one_by_one / theirs.seconds) for own, theirs in turns
        )
        say("events a second one by one, ratio", events_ratio, "", f"> {AIM_RATIO:g}")


def load() -> str:
    """Of the last minute: what others do here takes from what is measured."""
    return f"{os.getloadavg()[0]:.1f}"


def main() -> None:
    global as_json
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["one", "sweep", "simpy"])
    parser.add_argument("--seeds", type=int, default=SEEDS, help="of the sweep")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    as_json = given.json
    if given.only in (None, "one"):
        measure_one()
    if given.only in (None, "sweep"):
        measure_sweep(given.seeds)
    if given.only in (None, "simpy"):
        if importlib.util.find_spec("simpy") is None:
            print("simpy: not installed, so there is nothing beside it: pip install simpy", file=sys.stderr)
            return
        measure_simpy()


as_json = False

if __name__ == "__main__":
    main()
