# ruff: noqa: T201 (a script talks by printing)
"""
Power beside published figures, and that of 100,000 H100s for 122 days.

    python validation/power.py [--json]

"fitted" rows are where a draw comes from; "held out" ones use nothing of what they are compared with. A row
is a miss if it is off by more than 10% of a power or an energy, by more than 0.02 of a share, or on the wrong
side of a bound. The run is examples/colossus.toml in the best layout that `colossi plan` finds; stops come at
random at the planner's rate, each with detection, restart and the steps since the last checkpoint.
"""

import argparse
import json
import random
import resource
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from reliability import Row

from colossi.ledger.clock import TRAINING, Account, Span
from colossi.plan.energy import step_joules
from colossi.plan.forecast import forecast
from colossi.plan.goodput import goodput
from colossi.plan.plan import plan
from colossi.plan.reliability import conditions_of
from colossi.plan.step import Step
from colossi.spec import Spec, build_spec, read_spec
from colossi.spec.hardware import Node, node
from colossi.spec.power import PowerSpec
from colossi.spec.prices import PricesSpec
from colossi.world.power import Power, power_of

COLOSSUS = Path(__file__).parents[1] / "examples/colossus.toml"
GPUS, SPARES, DAYS, SEED = 100_000, 100, 122, 1  # spares in servers
MEGAPACKS = 150e6  # [W] at Colossus, May 2025: Greater Memphis Chamber
GROK = {  # on 2,048 H100s, as NVIDIA measured its step (docs/commands/forecast.md)
    "name": "grok-2048",
    "model": {"preset": "grok-1"},
    "training": {"sequence_length": 8192, "global_batch": 4096, "tokens": 10**12, "precision": "bf16"},
    "layout": {"tensor": 4, "pipeline": 8, "interleave": 8, "expert": 8, "expert_tensor": 4, "context": 2}
    | {"shard": 32, "zero": 1, "micro_batch": 1, "sequence_parallel": True},
    "cluster": {"gpu": "H100-SXM", "gpus": 2048},
}
RAMPS = (5.0, 10.0, 25.0, 100.0)  # MW a minute
FLOORS = (0.5, 0.7, 0.9)


def account_of(spec: Spec, step_seconds: float, seconds: float, seed: int) -> Account:
    """A run under the spec's [failures]: stops at random, and what each costs."""
    found, spent, dice = conditions_of(spec, step_seconds), Account(), random.Random(seed)
    workers, work = spec.cluster.workers, goodput(found).interval
    stalled = found.checkpoint / (work + found.checkpoint)  # of training

    def add(part: str, length: float) -> None:
        length = min(length, seconds - spent.wall)
        if length > 0:
            spent.timeline.append(
                Span(part=part, incarnation=0, begin=spent.wall, seconds=length, workers=workers, missing=0)
            )
            spent.parts["productive" if part == TRAINING else part] += length * workers
            spent.wall += length

    add("startup", found.restart)
    while spent.wall < seconds:
        add(TRAINING, dice.expovariate(found.failure_rate))
        add("detection", found.detection)
        add("restart", found.restart)
        add("recomputation", dice.uniform(0, work))
    spent.parts["checkpoint"] = stalled * spent.parts["productive"]
    spent.parts["productive"] -= spent.parts["checkpoint"]
    return spent


def colossus() -> tuple[Spec, Step, Node]:
    """The example, its step in the best layout, and its server."""
    spec = read_spec(COLOSSUS)
    return spec, plan(spec).best[0].step, node("colossus")


def seconds_of(step: Step) -> dict[str, float]:
    return {part: float(seconds) for part, seconds in step.parts.items()}


def run_of(spec: Spec, step: Step, server: Node, power: PowerSpec, prices: PricesSpec) -> Power:
    spent = account_of(spec, float(step.seconds), DAYS * 86400.0, SEED)
    found = conditions_of(spec, float(step.seconds))
    every = goodput(found).interval + found.checkpoint
    nodes = GPUS // server.gpus + SPARES
    return power_of(spent, seconds_of(step), server, nodes, power, prices, checkpoint_interval=every)


def rows(found: Power, step: Step) -> Iterator[Row]:
    """Published figures beside ours."""
    dgx = node("DGX-H100")
    swing = (dgx.watts("compute") - dgx.watts("communication")) / dgx.power
    latif, patel = "Latif et al. 2025", "Patel et al. 2024"
    yield Row(latif, "8 H100 training, at most", 8.4, dgx.watts("compute") / 1e3, "fitted", "kW")
    yield Row(patel, "swing of training over provisioned power, up to", 0.375, swing, "fitted", "share")
    a100 = node("DGX-A100")
    other = (a100.watts("compute") - a100.watts("communication")) / a100.power
    yield Row(patel, "the same with our servers of A100s", 0.375, other, "held out", "share")
    newkirk = "Newkirk et al. 2025"
    for name, one in (("2,048", forecast(build_spec(GROK, "grok-2048")).step), (f"{GPUS:,}", step)):
        mean = step_joules(seconds_of(one), dgx) / float(one.seconds) / dgx.power
        figure = f"intensive training over rated; ours: {name}"
        yield Row(newkirk, figure, 0.76, mean, "held out", "share")
    part = 16384 / GPUS * found.drop / 1e6
    yield Row("Llama 3", "a stop of 16,384 H100, tens of MW: at least", 10.0, part, "held out", "MW", ">")
    year = found.mean * 8760 / 1e9
    yield Row("SemiAnalysis", "100,000 H100 for a year", 1590.0, year, "held out", "GWh")
    yield Row(
        "Memphis", "grid for Colossus' first phase, at most", 150.0, found.peak / 1e6, "held out", "MW", "<"
    )
    needed = found.needed.power
    yield Row(
        "Memphis", "its batteries' power, at most", MEGAPACKS / 1e6, needed / 1e6, "held out", "MW", "<"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one JSON object")
    as_json = parser.parse_args().json
    spec, step, server = colossus()
    begun = time.perf_counter()
    found = run_of(spec, step, server, spec.power, spec.prices)
    took = time.perf_counter() - begun
    table = list(rows(found, step))
    by_ramp = [run_of(spec, step, server, PowerSpec(ramp=ramp), spec.prices) for ramp in RAMPS]
    by_floor = [run_of(spec, step, server, PowerSpec(floor=share), spec.prices).floor for share in FLOORS]
    if as_json:
        facts = {"rows": [asdict(row) | {"error": row.error, "miss": row.miss} for row in table]}
        print(json.dumps(facts | {"run": found.as_json()}, indent=2))
        return
    for row in table:
        off = f"{row.error:+.3f}" if row.unit == "share" else f"{row.error:+.1%}"
        print(
            f"{row.source:<20}{row.figure:<49}{row.bound:>1}{row.published:>8.3g} {row.ours:>8.3g}"
            f" {row.unit:<6}{off:>8}  {row.standing}{' MISS' if row.miss else ''}"
        )
    print(
        f"\n{GPUS:,} H100s and {SPARES} spare servers for {DAYS} days, {len(found.load.seconds):,} stretches"
    )
    print(
        f"step {found.period:.2f} s: " + ", ".join(f"{k} {v:.2f}" for k, v in seconds_of(step).items() if v)
    )
    for name, fact in found.as_json().items():
        if isinstance(fact, dict):
            fact = ", ".join(
                f"{key} {value:,.4g}" for key, value in fact.items() if not isinstance(value, dict)
            )
        print(f"  {name:<26}{fact if isinstance(fact, str) else format(fact, ',.4g')}")
    print("\nramp allowed        smallest battery        lost in it")
    for ramp, one in zip(RAMPS, by_ramp, strict=True):
        size = f"{one.needed.power / 1e6:.1f} MW, {one.needed.energy / 3.6e9:.2f} MWh"
        print(f"{ramp:>5g} MW a minute   {size:<22}  {one.lost / 3.6e9:,.0f} MWh")
    print("\nfloor of GPUs     energy more      dollars   swing in a step   battery still needed")
    for one in by_floor:
        size = f"{one.battery.power / 1e6:.1f} MW, {one.battery.energy / 3.6e9:.2f} MWh"
        print(
            f"{one.share:>5.0%} of TDP {one.energy / 3.6e9:>11,.0f} MWh {one.dollars:>12,.0f}"
            f" {one.swing / 1e6:>14.1f} MW   {size}"
        )
    missed, most = sum(row.miss for row in table), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"\n{missed} misses; one run of {DAYS} days took {took:.1f} s, all of this at most {most:.0f} MiB")


if __name__ == "__main__":
    main()
