"""
What a simulated run is: from a spec, how long its steps, stops and saves take, and what is to fail when.

Step times are the planner's. A spec without a [layout] gets the best one; one that does not say how often to
save does so as often as the closed form thinks best.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from colossi.control import policy
from colossi.control.plan import Plan
from colossi.errors import SpecError
from colossi.plan.forecast import Forecast, forecast
from colossi.plan.plan import plan as best_layouts
from colossi.spec.failures import FailureRates, FailuresSpec
from colossi.spec.read import build_spec
from colossi.spec.size import count_parameters, flops_per_token
from colossi.spec.spec import Spec, data_parallel
from colossi.world.failures import Fault, faults, rates_of
from colossi.world.machinery import Machinery, machinery_of

PLANNED = "planned"  # the component of what stops the job on purpose


@dataclass(frozen=True)
class Arrivals:
    """When the nodes of a machine that is being built join the run."""

    pod: NDArray[np.int32]  # of each node
    seconds: NDArray[np.float64]  # [seeds, pods], after the beginning

    def of(self, seed: int) -> tuple[float, ...]:
        """Of each node in the life of this seed, which counts from 1 [s]."""
        return tuple(self.seconds[seed - 1][self.pod].tolist())


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Times in [s]."""

    plan: Plan
    machinery: Machinery
    rates: FailureRates
    seconds: float  # that are simulated, if the run does not end before
    step_seconds: float
    tokens_per_step: int
    checkpoint_every: int  # steps; 0 for never
    checkpoint: float  # by which a write to disk holds up the run
    snapshot_every: int  # steps; 0 for never
    snapshot: float  # by which a snapshot in memory holds up the run
    detection: float  # from a failure until it is known
    restart: float  # from then to the first step, the state being in memory
    reload: float  # more than that, if it comes from disk
    facts: dict[str, Any]  # what the ledger says of the run when it begins
    built: Arrivals | None = None  # of a machine that is being built; None: all nodes are there

    @property
    def snapshot_share(self) -> float:
        """Of a snapshot's cost, what each step bears [s]."""
        return self.snapshot / self.snapshot_every if self.snapshot_every else 0.0

    def name_of(self, node: int) -> str:
        return f"node-{node:05}"

    def rack_of(self, node: int) -> str:
        return f"rack-{node // self.machinery.nodes_per_rack:04}"


def complete_spec(spec: Spec) -> tuple[Spec, Forecast]:
    """With the best layout, and as often saved as is best, where it does not say so; and its forecast."""
    document = spec.model_dump(exclude_unset=True)
    if not spec.has_layout:
        document |= {"layout": best_layouts(spec, 1).best[0].layout}
        spec = build_spec(document, spec.name)
    found = forecast(spec)
    if "every" in spec.checkpoint.model_fields_set:
        return spec, found
    interval = found.goodput.interval / found.step_seconds
    every = max(1, round(interval)) if math.isfinite(interval) else 0
    saved = spec.checkpoint.model_copy(update={"every": every})
    return spec.model_copy(update={"checkpoint": saved}), found


def scenario_of(spec: Spec, seconds: float, forecasted: Forecast) -> Scenario:
    """Of a complete spec; SpecError where the nodes do not hold whole copies of the model."""
    assert spec.training is not None
    failures = spec.failures or FailuresSpec()
    machinery = machinery_of(spec)
    per_node, ranks = machinery.gpus_per_node, spec.cluster.workers
    copies, layout = spec.layout.replicate or 1, spec.layout
    if ranks % per_node:
        raise SpecError(
            f"cluster.gpus = {ranks} does not fill nodes of {per_node}",
            f"use {ranks // per_node * per_node} or {-(-ranks // per_node) * per_node}",
        )
    plan = Plan(
        places=ranks // per_node,
        per_node=per_node,
        copy=ranks // copies,
        shares=data_parallel(layout) // copies,
        global_batch=spec.training.global_batch,
        steps=spec.training.total_steps,
        strikes=policy.STRIKES,
        wait_seconds=spec.cluster.wait_seconds,
    )
    size = count_parameters(spec.model)
    return Scenario(
        plan=plan,
        machinery=machinery,
        rates=rates_of(failures),
        seconds=seconds,
        step_seconds=round(forecasted.step_seconds, 6),
        tokens_per_step=spec.training.tokens_per_step,
        checkpoint_every=spec.checkpoint.every,
        checkpoint=failures.checkpoint_seconds,
        snapshot_every=spec.checkpoint.snapshot_every if failures.snapshots else 0,
        snapshot=failures.snapshot_seconds,
        detection=failures.detection_seconds,
        restart=failures.restart_seconds,
        reload=failures.reload_seconds,
        facts={
            "world": ranks,
            "workers": ranks,
            "hostname": "simulated",
            "parameters": size.total,
            "active_parameters": size.active,
            "flops_per_token": flops_per_token(spec.model, spec.training.sequence_length),
            "peak_flops": forecasted.peak * ranks,
            "steps": plan.steps,
            "tokens_per_step": spec.training.tokens_per_step,
            "layout": {"replicate": copies, "copy": ranks // copies},
        },
    )


def faults_of(scenario: Scenario, seed: int) -> list[Fault]:
    """What fails, and when it is stopped on purpose, in order of time."""
    found = faults(scenario.machinery, scenario.rates, seed, scenario.seconds)
    return sorted([*found, *planned(scenario, seed)], key=lambda fault: fault.time)


def planned(scenario: Scenario, seed: int) -> Sequence[Fault]:
    """Stops for maintenance, changes of data and code, at random: those of the fleet whose rates are used."""
    rng = np.random.default_rng(np.random.SeedSequence(entropy=seed, spawn_key=(1 << 20,)))
    expected = scenario.rates.planned_per_second * scenario.seconds
    times = np.sort(rng.random(rng.poisson(expected)) * scenario.seconds).round(3)
    return [Fault(time, PLANNED, "job", (), 0.0) for time in times.tolist()]
