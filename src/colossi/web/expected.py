"""What was to be expected of a run before it began: the planner's forecast, the nodes, and their power."""

from dataclasses import dataclass
from typing import Any

from colossi.errors import ColossiError
from colossi.ledger.clock import Account
from colossi.ledger.run import Run
from colossi.plan.forecast import Forecast, forecast
from colossi.simulation.outcome import NOTE, power_of_run
from colossi.simulation.scenario import complete_spec
from colossi.site.cluster import design
from colossi.site.design import Design
from colossi.spec import Spec
from colossi.world.machinery import GPUS_PER_RACK, nodes_of_site

STRETCHES = 4000  # of the curve of power that a page is sent


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

    `time` [s] of wall time and `mw` are stretches, those side by side taken together where they are many.
    """
    if not found.simulated or found.forecast is None:
        return None
    power = power_of_run(found.spec, found.forecast, spent)
    if power is None:
        return None
    load = power.load
    watts = load.base + load.train * load.cycle.mean
    every = -(-len(watts) // STRETCHES)
    rows = range(0, len(watts), every)
    seconds = [float(load.seconds[row : row + every].sum()) for row in rows]
    energy = [float((watts * load.seconds)[row : row + every].sum()) for row in rows]
    return {
        "time": [float(load.begins[row]) for row in rows],
        "mw": [joules / time / 1e6 if time else 0.0 for joules, time in zip(energy, seconds, strict=True)],
        "peak_mw": power.peak / 1e6,
        "mean_mw": power.mean / 1e6,
        "energy_mwh": power.energy / 3.6e9,
    }
