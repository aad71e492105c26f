"""What was to be expected of a run before it began: the planner's forecast, the nodes, and their power."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from colossi.errors import ColossiError
from colossi.ledger.clock import Account
from colossi.ledger.run import Run
from colossi.plan.forecast import Forecast, forecast
from colossi.plan.translate import hardware_of
from colossi.simulation.outcome import NOTE
from colossi.simulation.scenario import complete_spec
from colossi.site.cluster import design
from colossi.site.design import Design
from colossi.spec import Spec
from colossi.world.machinery import GPUS_PER_RACK, nodes_of_site
from colossi.world.power import load_of_run

NAMES = {"lost work": "recomputation"}  # the ledger's word for a part of the forecast
STRETCHES = 1500  # of the curve of power that a page is sent


@dataclass(frozen=True, slots=True)
class Expected:
    simulated: bool
    nodes: tuple[str, ...]  # that a simulated site has; of a real one the ledger says who comes
    nodes_per_rack: int
    spec: Spec  # complete, where it is simulated
    forecast: Forecast | None
    why_none: str  # where there is no forecast
    built: Design | None  # where the spec says how the site is to be built

    def as_json(self) -> dict[str, Any]:
        found = self.forecast
        if found is None:
            return {"why_none": self.why_none}
        return {
            "step_seconds": found.step_seconds,
            "mfu": found.mfu,
            "tokens_per_second": found.tokens_per_step / found.step_seconds,
            "ettr": found.goodput.ettr,
            "goodput": found.goodput.goodput,
            "parts": {NAMES.get(part, part): share for part, share in found.goodput.parts.items()}
            | {"productive": found.goodput.goodput},
            "days": found.seconds / 86400,
            "dollars": found.dollars,
        }


def expected(run: Run, spec: Spec) -> Expected:
    """Of a run that may be simulated; where nobody can say what a step takes, the reason."""
    simulated, found, why = (run.folder / NOTE).is_file(), None, "the spec names no profile"
    try:
        if simulated:
            spec, found = complete_spec(spec)
        elif spec.cluster.profile is not None:
            found = forecast(spec)
    except ColossiError as error:  # a run is watched elsewhere too, where nothing was measured
        why = str(error).partition("\n")[0]
    try:
        built = design(spec) if spec.site is not None else None
    except ColossiError:  # a run does not need a site that can be built
        built = None
    nodes = tuple(f"node-{number:05}" for number in range(nodes_of_site(spec))) if simulated else ()
    per_node = max(1, round(spec.cluster.workers / max(1, _nodes(spec))))
    return Expected(simulated, nodes, max(1, GPUS_PER_RACK // per_node), spec, found, why, built)


def _nodes(spec: Spec) -> int:
    return nodes_of_site(spec) if spec.cluster.gpus is not None else spec.cluster.nodes


def power_curve(found: Expected, spent: Account) -> dict[str, Any] | None:
    """What the site of a simulated run drew; of real machines nobody has measured it.

    `mw` are means from each `time` [s of wall time] to the next; energy and peak are those of the report.
    """
    planned, spec = found.forecast, found.spec
    if not found.simulated or planned is None or spec.cluster.profile is not None or not spent.timeline:
        return None
    parts = {part: float(seconds) for part, seconds in planned.step.parts.items()}
    server, every = hardware_of(spec.cluster)[1], spec.checkpoint.every
    interval = every * planned.step_seconds if every else None
    load = load_of_run(spent, parts, server, nodes_of_site(spec), spec.power.floor, spec.prices, interval)
    times = np.linspace(0.0, load.length, STRETCHES + 1)
    watts = np.diff(load.energy_until(times)) / np.diff(times)
    return {
        "time": times[:-1].tolist(),
        "mw": (watts / 1e6).tolist(),
        "peak_mw": float(load.highest.max()) / 1e6,
        "mean_mw": load.energy() / load.length / 1e6,
        "energy_mwh": load.energy() / 3.6e9,
    }
