"""The odds of a construction plan: dates by which milestones are reached, and what drives the end."""

import datetime
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.site.chances import Chances
from colossi.terminal.schedule import day_of

SHARES = (0.1, 0.5, 0.9)
DRIVERS = 6


def render(chances: Chances) -> RenderableType:
    """Dates that are kept in a tenth, half, and nine tenths of the lives."""
    lives = len(chances.pods)
    dates = Table(box=None, pad_edge=False)
    dates.add_column("")
    for name in ("planned", "10%", "50%", "90%", "days late, 90%"):
        dates.add_column(name, justify="right", no_wrap=True)
    planned = _planned(chances)
    for name, days in chances.milestones.items():
        quantiles = [float(np.quantile(days, share)) for share in SHARES]
        shown = [_date(chances, day) for day in (planned[name], *quantiles)]
        dates.add_row(name, *shown, f"{quantiles[-1] - planned[name]:+.0f}")
    drivers = Table(box=None, pad_edge=False)
    drivers.add_column("what drives the end")
    drivers.add_column("on the chain", justify="right")
    drivers.add_column("rank correlation", justify="right")
    for kind, share, correlation in chances.drivers[:DRIVERS]:
        drivers.add_row(kind, f"{share:.0%}", f"{correlation:+.2f}")
    title = Text(f"\nodds, over {lives:,} lives of this plan", "bold")
    return Group(title, dates, Text(""), drivers)


def as_json(chances: Chances) -> dict[str, Any]:
    """Days after the start of construction."""
    planned = _planned(chances)
    return {
        "lives": len(chances.pods),
        "milestones": {
            name: {"planned": planned[name]}
            | {f"p{share * 100:.0f}": float(np.quantile(days, share)) for share in SHARES}
            for name, days in chances.milestones.items()
        },
        "drivers": [
            {"kind": kind, "on_the_chain": share, "rank_correlation": correlation}
            for kind, share, correlation in chances.drivers
        ],
    }


def _planned(chances: Chances) -> dict[str, float]:
    return {each.name: day_of(chances.plan, each) for each in chances.plan.milestones}


def _date(chances: Chances, day: float) -> str:
    """The date in whose course it is reached."""
    start = chances.plan.construction.start
    return (start + datetime.timedelta(days=max(0, int(np.ceil(day)) - 1))).isoformat()
