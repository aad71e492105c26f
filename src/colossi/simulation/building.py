"""
Training while the cluster is still being built: pods join the run as they are accepted.

Each life draws the construction's luck (site/chances.py) and the machine's failures of its own, so when all
tokens are trained follows from building, failures and step time together. The run begins with the first
training of the plan; spares that the design does not have come with the last pod.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colossi.errors import SpecError
from colossi.plan.forecast import DAY, Forecast
from colossi.simulation.outcome import variants
from colossi.simulation.scenario import Arrivals, Scenario, complete_spec, scenario_of
from colossi.simulation.seeds import Life, Spread, interval, lives
from colossi.site.chances import Chances, chances
from colossi.site.design import Design
from colossi.site.milestones import FIRST_TRAINING
from colossi.site.scheduling import construction_of
from colossi.site.scheduling import plan as plan_of
from colossi.spec.read import build_spec
from colossi.spec.spec import Spec

Tell = Callable[[str, float, float | None], None]
Days = NDArray[np.float64]  # [seeds] after the start of construction
PATIENCE = 3.0  # times the days that the whole machine would take: so long a life is watched


@dataclass(frozen=True, slots=True)
class Growth:
    """Of one spec over all seeds."""

    spec: Spec
    scenario: Scenario
    forecast: Forecast
    chances: Chances
    lives: list[Life]
    settings: tuple[str, ...] = ()  # "table.key=value", where it is one of several

    @property
    def first_training(self) -> Days:
        return self.chances.milestones[FIRST_TRAINING]

    @property
    def complete(self) -> Days:
        """The last pod is accepted."""
        return self.chances.pods.max(axis=1)

    @property
    def trained(self) -> list[float]:
        """Days until all tokens are trained; inf where they were not in the days that were watched."""
        return [
            float(first) + life.days if life.finished else math.inf
            for first, life in zip(self.first_training, self.lives, strict=True)
        ]

    @property
    def alone(self) -> float:
        """Days that all tokens take the complete machine, failures aside."""
        return self.scenario.plan.steps * self.scenario.step_seconds / DAY

    @property
    def sooner(self) -> Spread:
        """Days that are gained on one who waits for the last pod, and then trains without a failure."""
        pairs = zip(self.complete.tolist(), self.trained, strict=True)
        return Spread.of([complete + self.alone - day for complete, day in pairs])

    def as_json(self) -> dict[str, Any]:
        return {
            "settings": list(self.settings),
            "seeds": len(self.lives),
            "tokens": self.scenario.plan.steps * self.scenario.tokens_per_step,
            "first_training_day": Spread.of(self.first_training.tolist()).as_json(),
            "complete_day": Spread.of(self.complete.tolist()).as_json(),
            "trained_day": Spread.of(self.trained).as_json(),
            "unfinished": sum(not life.finished for life in self.lives),
            "days_of_the_whole_machine": self.alone,
            "days_sooner_than_waiting": self.sooner.as_json(),
            "per_seed": [
                {"seed": life.seed, "trained_day": day if math.isfinite(day) else None, **life.as_json()}
                for life, day in zip(self.lives, self.trained, strict=True)
            ],
        }


def elastic(spec: Spec) -> tuple[Spec, Forecast]:
    """A complete spec that can grow: of the best layout, as many copies of the model as fit into memory.

    A layout that is said in the spec is left as it is.
    """
    complete, found = complete_spec(spec)
    layout = complete.layout
    if spec.has_layout or layout.shard == 1:
        return complete, found
    parts = layout.shard * (layout.replicate or 1)
    for shard in (shard for shard in range(1, layout.shard) if parts % shard == 0):
        divided = layout.model_copy(update={"shard": shard, "replicate": parts // shard})
        given = complete.model_dump(exclude_unset=True) | {"layout": divided.model_dump(exclude_none=True)}
        smaller, forecasted = complete_spec(build_spec(given, spec.name))
        if forecasted.fits:
            return smaller, forecasted
    return complete, found


def grow(spec: Spec, seeds: int, tell: Tell, settings: tuple[str, ...] = ()) -> Growth:
    """Build the site of the spec and train on what stands, in as many lives."""
    built = construction_of(spec)
    if built.existing_gpus:
        raise SpecError(
            f"construction.existing_gpus = {built.existing_gpus}: a run that has begun on them"
            " cannot be simulated while more are added",
            "leave it out to build all GPUs of the spec",
        )
    spec, forecasted = elastic(spec)
    planned = plan_of(spec, 0.0, lambda label, done, total, note="": tell(label, done, total))
    luck = chances(planned, seeds, 0, 1, lambda done: tell("lives of the plan", done, seeds))
    first = luck.milestones[FIRST_TRAINING]
    last = float((luck.pods.max(axis=1) - first).max())
    watched = (last + PATIENCE * forecasted.seconds / DAY) * DAY
    scenario = scenario_of(spec, watched, forecasted)
    scenario = replace(scenario, built=arrivals(planned.design, luck, first, scenario.machinery.nodes))
    found = lives(scenario, seeds, None, lambda done, total: tell("lives of the run", done, total))
    return Growth(spec, scenario, forecasted, luck, found, settings)


def arrivals(design: Design, luck: Chances, first: Days, nodes: int) -> Arrivals:
    """When each pod joins [s after the first training], and the pod of each simulated node."""
    racks = design.devices.rack[design.devices_of("node")]
    pods = np.sort(design.racks.pod[racks])[:nodes]
    missing = np.full(max(0, nodes - len(pods)), pods.max())
    after = np.maximum(luck.pods - first[:, None], 0.0) * DAY
    return Arrivals(np.concatenate([pods, missing]).astype(np.int32), after.round(3))


def compare_growth(
    file: Path, overrides: Sequence[str], changes: Sequence[str], seeds: int, tell: Tell
) -> list[tuple[Growth, float, float]]:
    """Each combination of these values ("table.key=a,b"), the days it gains on the first, and the margin.

    All have the same luck, so a difference is the change's as far as that can be said.
    """
    found: list[tuple[Growth, float, float]] = []
    for settings, spec in variants(file, overrides, changes):
        grown = grow(spec, seeds, tell, settings)
        base = found[0][0] if found else grown
        pairs = [
            (before, after)
            for before, after in zip(base.trained, grown.trained, strict=True)
            if math.isfinite(before) and math.isfinite(after)
        ]
        gain, margin = interval([before - after for before, after in pairs]) if pairs else (0.0, math.inf)
        found.append((grown, gain, margin))
    return found
