"""
The best layouts of a run, what limits each, and what one change of the machine or the run would gain.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from colossi.errors import SpecError
from colossi.plan.case import GIB, Case, as_floats
from colossi.plan.efficiency import Efficiency, Fitted, published
from colossi.plan.memory import Memory, memory
from colossi.plan.search import Found, search
from colossi.plan.step import Step, step
from colossi.plan.translate import hardware_of, open_case_of
from colossi.spec.size import flops_per_token
from colossi.spec.spec import Spec

WAITS = {  # what a part of a step is, where it limits
    "recompute": "recomputation",
    "tensor": "exposed tensor-parallel collectives",
    "context": "exposed keys and values of other ranks",
    "expert": "exposed expert all-to-all",
    "pipeline": "messages between stages",
    "data": "exposed gradients and weights",
    "bubble": "pipeline bubble",
    "optimizer": "optimizer",
    "jitter": "jitter",
}


@dataclass(frozen=True, slots=True)
class Candidate:
    """One layout of the plan."""

    layout: dict[str, Any]  # keys of [layout]
    step: Step
    memory: Memory
    mfu: float
    limit: str  # what takes most beside computing, with its share

    def as_json(self) -> dict[str, Any]:
        return {
            "layout": self.layout,
            "step_seconds": float(self.step.seconds),
            "mfu": self.mfu,
            "memory_gib": float(self.memory.total) / GIB,
            "limit": self.limit,
            "breakdown": {part: float(seconds) for part, seconds in self.step.parts.items()},
        }


@dataclass(frozen=True, slots=True)
class Gain:
    """What a change would bring: tokens a second over those of the best layout now."""

    change: str
    speedup: float
    layout: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Plan:
    """Of one spec."""

    name: str
    gpus: int
    searched: int
    feasible: int
    best: list[Candidate]
    front: list[Candidate]
    gains: list[Gain]

    def as_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "gpus": self.gpus,
            "layouts_searched": self.searched,
            "layouts_that_fit": self.feasible,
            "best": [each.as_json() for each in self.best],
            "pareto_front": [each.as_json() for each in self.front],
            "gains": [
                {"change": gain.change, "speedup": gain.speedup, "layout": gain.layout} for gain in self.gains
            ],
        }


def plan(spec: Spec, count: int = 10, fitted: Fitted | None = None) -> Plan:
    """Search all layouts; SpecError says what the least memory is if none fits."""
    fitted = fitted or published()
    e, case = fitted.efficiency, open_case_of(spec, fitted)
    found = search(case, e)
    if not found.fits.any():
        raise _nothing_fits(spec, case, found)
    chosen = found.best(count)
    front = [i for i in found.front() if found.fits[i]]
    return Plan(
        name=spec.name,
        gpus=spec.cluster.workers,
        searched=len(found.seconds),
        feasible=int(found.fits.sum()),
        best=[_candidate(spec, case, found, int(i), e) for i in chosen],
        front=[_candidate(spec, case, found, int(i), e) for i in front],
        gains=_gains(spec, case, float(found.seconds[chosen[0]]), e),
    )


def _candidate(spec: Spec, case: Case, found: Found, i: int, e: Efficiency) -> Candidate:
    one = _with_layout(case, found, i)
    taken: Step = as_floats(step(one, e))
    assert spec.training is not None
    flops = flops_per_token(spec.model, spec.training.sequence_length) * spec.training.tokens_per_step
    waits = {part: seconds for part, seconds in taken.parts.items() if part in WAITS}
    most = max(waits, key=lambda part: waits[part])
    return Candidate(
        layout=layout_keys(spec, one),
        step=taken,
        memory=as_floats(memory(one)),
        mfu=flops / (taken.seconds * case.machine.gpus * case.machine.peak),
        limit=f"{WAITS[most]} {waits[most] / taken.seconds:.0%}",
    )


def _with_layout(case: Case, found: Found, i: int) -> Case:
    part = Case(case.model, case.machine, found.layouts, case.training)
    return replace(case, layout=part.take(i).layout)


def layout_keys(spec: Spec, case: Case) -> dict[str, Any]:
    """A layout as keys of the table [layout]; those that say nothing are left out."""
    layout, data = case.layout, int(case.data)
    keys: dict[str, Any] = {
        axis: int(getattr(layout, axis)) for axis in ("tensor", "pipeline", "interleave", "context", "expert")
    }
    if keys["expert"] > 1:
        keys["expert_tensor"] = int(layout.expert_tensor)
    keys = {key: value for key, value in keys.items() if value > 1 or key == "expert_tensor"}
    zero = 3 if layout.shard > 1 else 1
    keys |= {"shard": data, "replicate": 1, "zero": zero, "micro_batch": int(layout.micro_batch)}
    if layout.recompute or layout.recompute_attention:
        keys["recompute"] = "full" if layout.recompute else "selective"
    if layout.sequence_parallel:
        keys["sequence_parallel"] = True
    return keys | {"overlap": list(spec.layout.overlap)}


def _gains(spec: Spec, case: Case, now: float, e: Efficiency) -> list[Gain]:
    """The same search with one thing changed."""
    device, _ = hardware_of(spec.cluster)
    machine, training = case.machine, case.training
    changes = {
        "twice the memory": replace(case, machine=replace(machine, memory=2 * machine.memory)),
        "twice the network": replace(case, machine=replace(machine, nic=2 * machine.nic)),
        "twice the batch": replace(case, training=replace(training, global_batch=2 * training.global_batch)),
    }
    eight = device.peak_of("fp8")
    if not training.eight_bit and eight > machine.peak:
        changes["fp8 products"] = replace(
            case,
            machine=replace(machine, peak=eight),
            training=replace(training, eight_bit=1, cast_bytes=6.0),
        )
    gains = []
    for change, other in changes.items():
        found = search(other, e)
        if not found.fits.any():
            continue
        i = int(found.best(1)[0])
        work = other.training.global_batch / training.global_batch
        gains.append(
            Gain(
                change, work * now / float(found.seconds[i]), layout_keys(spec, _with_layout(other, found, i))
            )
        )
    return sorted(gains, key=lambda gain: -gain.speedup)


def _nothing_fits(spec: Spec, case: Case, found: Found) -> SpecError:
    if not len(found.seconds):
        return SpecError(
            f"{spec.name}: no layout divides {spec.cluster.workers:,} GPUs and a batch of "
            f"{int(case.training.global_batch):,} sequences evenly",
            "give a global_batch with more divisors, or another number of GPUs",
        )
    i = int(np.argmin(found.memory))
    least: Memory = as_floats(memory(_with_layout(case, found, i)))
    parts = {name: getattr(least, name) for name in Memory.__dataclass_fields__}
    where = ", ".join(f"{name} {bytes_ / GIB:.1f}" for name, bytes_ in parts.items())
    return SpecError(
        f"{spec.name}: fits on none of {len(found.seconds):,} layouts: least is {least.total / GIB:.1f} GiB "
        f"of {case.machine.memory / GIB:.1f} a GPU ({where})",
        "more GPUs, a GPU with more memory, or shorter sequences",
    )
