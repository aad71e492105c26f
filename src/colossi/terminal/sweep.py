"""A sweep's forecasts as a table, as CSV and as a plot."""

import csv
import io
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.files import write_whole
from colossi.plan.sweep import Sweep
from colossi.terminal.numerals import duration
from colossi.terminal.saving import writing

COLUMNS = (
    "step_seconds",
    "mfu",
    "memory_gib",
    "fits",
    "tokens_per_second",
    "goodput",
    "ettr",
    "days",
    "cost_usd",
)


def render(sweep: Sweep) -> RenderableType:
    """For people: what changes, and what follows."""
    table = Table(box=None, pad_edge=False)
    for key in sweep.keys:
        table.add_column(key.rpartition(".")[2], justify="right")
    for head in ("step", "MFU", "GiB", "tokens/s", "goodput", "ettr", "days", "M$"):
        table.add_column(head, justify="right")
    for row in sweep.rows:
        if row.forecast is None:
            table.add_row(*row.values, "-")
            continue
        found = row.forecast
        facts = found.as_json()
        table.add_row(
            *row.values,
            duration(found.step_seconds),
            f"{found.mfu:.1%}",
            f"{facts['memory_gib']:.0f}" + ("" if found.fits else " !"),
            f"{facts['tokens_per_second']:,.0f}",
            f"{facts['goodput']:.1%}",
            f"{facts['days']:.1f}",
            f"{found.dollars / 1e6:,.1f}",
        )
    refused = [f"{', '.join(row.values)}: {row.why}" for row in sweep.rows if row.forecast is None]
    return Group(table, *(Text(line, style="dim") for line in refused))


def write_csv(sweep: Sweep, path: Path) -> None:
    """A line for each combination."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*sweep.keys, *COLUMNS, "error"])
    for row in sweep.rows:
        facts: dict[str, Any] = row.forecast.as_json() if row.forecast else {}
        writer.writerow([*row.values, *(facts.get(column, "") for column in COLUMNS), row.why])
    with writing(path):
        write_whole(path, text.getvalue())


def write_plot(sweep: Sweep, path: Path) -> None:
    """Tokens a second over the last key, a line for each value of the first where there are two."""
    import plotly.graph_objects as go  # type: ignore[import-untyped]

    figure = go.Figure()
    names = dict.fromkeys(row.values[:-1] for row in sweep.rows)
    for name in names:
        rows = [row for row in sweep.rows if row.values[:-1] == name and row.forecast]
        figure.add_scatter(
            x=[row.values[-1] for row in rows],
            y=[row.forecast.as_json()["tokens_per_second"] for row in rows if row.forecast],
            name=", ".join(f"{key} {value}" for key, value in zip(sweep.keys, name, strict=False)),
            mode="lines+markers",
        )
    figure.update_layout(
        xaxis_title=sweep.keys[-1], yaxis_title="tokens per second", yaxis_rangemode="tozero"
    )
    with writing(path):
        write_whole(path, figure.to_html(include_plotlyjs=True))
