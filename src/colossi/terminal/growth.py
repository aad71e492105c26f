"""Training while the cluster is being built: when it begins, when all stands, when all tokens are trained."""

import datetime
import math
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.simulation.building import Growth
from colossi.simulation.seeds import Spread


def render(found: Sequence[tuple[Growth, float, float]]) -> RenderableType:
    """One way to build, or several beside each other: (growth, days gained on the first, margin)."""
    one = found[0][0]
    tokens, seeds = one.scenario.plan.steps * one.scenario.tokens_per_step, len(one.lives)
    copies = one.spec.layout.replicate or 1
    head = Text.assemble(
        (one.spec.name, "bold"),
        f"  {tokens / 1e12:,.3g} trillion tokens on {one.spec.cluster.workers:,} GPUs while they are built; "
        f"{seeds} li{'fe' if seeds == 1 else 'ves'}\n",
        f"up to {copies} copies of the model, each on {one.scenario.plan.nodes(1):,} nodes\n",
        f"all GPUs together would take {one.alone:.3g} days",
    )
    table = Table(box=None, pad_edge=False)
    table.add_column("days after the start of construction" if len(found) == 1 else "")
    for name in ("training", "all GPUs", "trained", "date"):
        table.add_column(name, justify="right", no_wrap=True)
    if len(found) > 1:
        table.add_column("sooner by", justify="right")
    for number, (growth, gain, margin) in enumerate(found):
        trained = Spread.of(growth.trained)
        label = "\n".join(map(_short, growth.settings)) or "mean (5th to 95th percentile)"
        row = [_days(Spread.of(growth.first_training.tolist())), _days(Spread.of(growth.complete.tolist()))]
        row += [_days(trained), _date(growth, trained.mean)]
        if len(found) > 1:
            row.append("" if number == 0 else f"{gain:+.1f} ± {margin:.1f}")
        table.add_row(label, *row)
    return Group(head, Text(), table, *_remarks(one))


def _remarks(one: Growth) -> list[RenderableType]:
    said = []
    unfinished = [life for life in one.lives if not life.finished]
    if unfinished:
        why = next(
            (life.gave_up for life in unfinished if life.gave_up), "the days that were watched are over"
        )
        said.append(Text(f"{len(unfinished)} of {len(one.lives)} did not finish; the first: {why}", "red"))
    sooner = one.sooner
    if math.isfinite(sooner.mean):
        spread = f"{sooner.mean:.0f} days ({sooner.low:.0f}-{sooner.high:.0f})"
        said.append(Text(f"\n{spread} sooner than by waiting for the last pod"))
    return list(said)


def _short(setting: str) -> str:
    """Of "construction.crews.cablers=6" the last part of the key."""
    key, _, value = setting.partition("=")
    return f"{key.rpartition('.')[2]}={value}"


def _days(spread: Spread) -> str:
    if not math.isfinite(spread.mean):
        return "never"
    return f"{spread.mean:.0f} ({spread.low:.0f}-{spread.high:.0f})"


def _date(growth: Growth, day: float) -> str:
    """Of the mean."""
    if not math.isfinite(day):
        return ""
    start = growth.chances.plan.construction.start
    return (start + datetime.timedelta(days=max(0, math.ceil(day) - 1))).isoformat()
