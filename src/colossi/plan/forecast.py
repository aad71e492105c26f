"""
What a run will do: step time, speed, memory, and over the whole run goodput, time, cost and energy.

Puts together what the other files of this package know. Beyond 16,384 GPUs no step time has been published,
so everything there is extrapolation.
"""

from dataclasses import dataclass
from typing import Any

from colossi.plan.case import GIB, as_floats
from colossi.plan.efficiency import Fitted
from colossi.plan.energy import run_watts
from colossi.plan.goodput import Goodput
from colossi.plan.memory import Memory, memory
from colossi.plan.reliability import goodput_of
from colossi.plan.step import Step, step
from colossi.plan.translate import case_of, fitted_of, hardware_of
from colossi.spec.size import flops_per_token
from colossi.spec.spec import Spec

HOUR, DAY = 3600.0, 86400.0


@dataclass(frozen=True, slots=True)
class Forecast:
    """Of one spec; base units."""

    name: str
    gpus: int
    step: Step  # [s]
    memory: Memory  # [bytes]
    memory_limit: float  # [bytes]
    model_flops: float  # [FLOP] of a step, forward and backward, no recomputation
    hardware_flops: float  # [FLOP] with recomputation
    peak: float  # [FLOP/s] of a GPU, dense, in the format of the products
    tokens_per_step: int
    steps: int
    goodput: Goodput
    dollars: float
    energy: float  # [J]

    @property
    def step_seconds(self) -> float:
        return float(self.step.seconds)

    @property
    def mfu(self) -> float:
        """Model FLOPs over the dense peak of the products' number format."""
        return self.model_flops / (self.step_seconds * self.gpus * self.peak)

    @property
    def fits(self) -> bool:
        return float(self.memory.total) <= self.memory_limit

    @property
    def seconds(self) -> float:
        """Of the whole run, failures included."""
        return self.steps * self.step_seconds / self.goodput.ettr

    def as_json(self) -> dict[str, Any]:
        parts = {part: float(seconds) for part, seconds in self.step.parts.items()}
        places = ("weights", "gradients", "optimizer", "activations", "buffers")
        return {
            "name": self.name,
            "gpus": self.gpus,
            "step_seconds": self.step_seconds,
            "mfu": self.mfu,
            "tflops_per_gpu": self.model_flops / self.step_seconds / self.gpus / 1e12,
            "hardware_tflops_per_gpu": self.hardware_flops / self.step_seconds / self.gpus / 1e12,
            "memory_gib": float(self.memory.total) / GIB,
            "memory_limit_gib": self.memory_limit / GIB,
            "fits": self.fits,
            "tokens_per_second": self.tokens_per_step / self.step_seconds,
            "steps": self.steps,
            "days": self.seconds / DAY,
            "goodput": self.goodput.goodput,
            "ettr": self.goodput.ettr,
            "failures": self.goodput.as_json(),
            "gpu_hours": self.gpus * self.seconds / HOUR,
            "cost_usd": self.dollars,
            "energy_mwh": self.energy / 3.6e9,
            "breakdown": parts,
            "memory": {place: float(getattr(self.memory, place)) / GIB for place in places},
        }


def forecast(spec: Spec, fitted: Fitted | None = None) -> Forecast:
    """Of a spec with [cluster] of the catalogue and [training]."""
    fitted = fitted or fitted_of(spec)
    case = case_of(spec, fitted)
    assert spec.training is not None
    found = as_floats(step(case, fitted.efficiency))
    held: Memory = as_floats(memory(case))
    training, gpus = spec.training, spec.cluster.workers
    model_flops = flops_per_token(spec.model, training.sequence_length) * training.tokens_per_step
    good = goodput_of(spec, found.seconds)
    seconds = training.total_steps * found.seconds / good.ettr
    dollars, energy = cost(spec, seconds, found, good)
    return Forecast(
        name=spec.name,
        gpus=gpus,
        step=found,
        memory=held,
        memory_limit=float(case.machine.memory),
        model_flops=model_flops,
        hardware_flops=model_flops * (1 + float(case.layout.recompute) / 3),
        peak=float(case.machine.peak),
        tokens_per_step=training.tokens_per_step,
        steps=training.total_steps,
        goodput=good,
        dollars=dollars,
        energy=energy,
    )


def cost(spec: Spec, seconds: float, parts: Step, good: Goodput) -> tuple[float, float]:
    """Dollars, and joules that the servers draw by what they do, times the site's overhead.

    Of a measured device neither rent nor power is known: it costs what [prices] says, and 0 J.
    """
    if spec.cluster.profile is not None:
        return spec.cluster.workers * seconds / HOUR * (spec.prices.gpu_hour or 0.0), 0.0
    device, server = hardware_of(spec.cluster)
    gpus, prices = spec.cluster.workers, spec.prices
    watts = run_watts(parts.parts, good, server)
    energy = gpus / server.gpus * watts * prices.pue * seconds
    hourly = prices.gpu_hour if prices.gpu_hour is not None else device.price * HOUR
    paid_apart = 0.0 if prices.energy_included else energy / 3.6e6 * prices.kilowatt_hour
    return gpus * seconds / HOUR * hourly + paid_apart, energy
