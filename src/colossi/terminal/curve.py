"""
The loss curve, as characters for a terminal and, with the timeline, as one HTML file that needs no network.

Both draw (step, loss) pairs; which of two incarnations counts for a step done twice was decided in the
report. Marks are steps: where an incarnation began, where a checkpoint was complete.
"""

import math
from collections.abc import Sequence
from pathlib import Path

import plotext  # type: ignore[import-untyped]
import plotly.graph_objects as go  # type: ignore[import-untyped]
from plotly.subplots import make_subplots  # type: ignore[import-untyped]
from rich.text import Text

from colossi.ledger.report import Report
from colossi.terminal import timeline

HIGHEST = 1e12  # a loss above it would only flatten the rest

Points = Sequence[tuple[int, float]]


def thin(losses: Points, most: int) -> list[tuple[int, float]]:
    """At most `most` points: neighbours become one, at their last step and mean loss. No NaN."""
    finite = [(step, loss) for step, loss in losses if abs(loss) < HIGHEST]
    group = max(1, math.ceil(len(finite) / most))
    groups = [finite[i : i + group] for i in range(0, len(finite), group)]
    return [(g[-1][0], math.fsum(loss for _, loss in g) / len(g)) for g in groups]


def draw(losses: Points, *, width: int, height: int, until: int | None = None, log: bool = False) -> Text:
    """The curve in `width` x `height` characters; the step axis goes on to `until` if that is more."""
    points = thin([p for p in losses if p[1] > 0] if log else losses, 2 * width)
    if not points:
        return Text("\n" * (height - 1))
    steps = [step for step, _ in points]
    values = [math.log10(loss) if log else loss for _, loss in points]
    figure = plotext.figure  # plotext draws on one sheet of its own; it is wiped first
    figure.clear()
    figure.theme("colorless")
    figure.plot_size(width, height)
    figure.axes(False)
    figure.axes(True, axis="y", side="left")
    figure.axes(True, axis="x", side="lower")
    _scale("y", *_span(values), "{:.3g}", log=log)
    _scale("x", min(steps[0], 1), max(steps[-1], until or 0, 2), "{:,.0f}")
    marker = plotext.marker("braille", plotext.pixel("cyan", "default"))
    figure.draw(figure.signal(steps, values, marker=marker).lines())
    return Text.from_ansi(figure.build().string().rstrip("\n"), style="bright_black")


def html(report: Report, name: str) -> str:
    """The curve, and the timeline below: zoom, hover, a logarithmic scale; plotly is inside the page."""
    figure = make_subplots(rows=2, cols=1, row_heights=[0.75, 0.25], vertical_spacing=0.12)
    figure.add_trace(_curve(report), row=1, col=1)
    figure.add_trace(_checkpoint_marks(report), row=1, col=1)
    for life in report.incarnations[1:]:
        if life.first_step is not None:
            _mark_incarnation(figure, life.first_step, life.number)
    timeline.add_to(figure, report, row=2)
    figure.update_layout(
        title=f"{name}: loss",
        template="plotly_white",
        barmode="overlay",
        xaxis={"title": "step", "rangemode": "tozero"},
        yaxis={"title": "loss (nat per token)"},
        legend={"orientation": "h", "y": 1.08, "x": 1, "xanchor": "right"},
        updatemenus=[_axis_switch()],
    )
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False})
    return page


def save_html(report: Report, path: Path, name: str) -> None:
    """Write the page, 5 MB as plotly is in it."""
    path.write_text(html(report, name), encoding="utf-8")


def _curve(report: Report) -> go.Scatter:
    return go.Scatter(
        x=[step for step, _ in report.losses],
        y=[loss for _, loss in report.losses],
        mode="lines",
        name="loss",
        line={"color": "#0e7490", "width": 2},
        hovertemplate="step %{x:,}<br>loss %{y:.5f}<extra></extra>",
    )


def _checkpoint_marks(report: Report) -> go.Scatter:
    loss = dict(report.losses)
    saved = [point.step for point in report.checkpoints if point.step in loss]
    return go.Scatter(
        x=saved,
        y=[loss[step] for step in saved],
        mode="markers",
        name="checkpoint",
        marker={"color": "#b45309", "size": 7, "symbol": "diamond"},
        hovertemplate="checkpoint of step %{x:,}<extra></extra>",
    )


def _mark_incarnation(figure: go.Figure, step: int, number: int) -> None:
    figure.add_vline(
        x=step,
        line={"color": "#9ca3af", "dash": "dot", "width": 1},
        annotation={"text": f"incarnation {number}", "font": {"size": 11, "color": "#6b7280"}},
        row=1,
        col=1,
    )


def _axis_switch() -> dict[str, object]:
    buttons = [
        {"label": label, "method": "relayout", "args": [{"yaxis.type": kind}]}
        for label, kind in (("linear", "linear"), ("logarithmic", "log"))
    ]
    return {"type": "buttons", "direction": "right", "x": 0, "xanchor": "left", "y": 1.12, "buttons": buttons}


def _scale(axis: str, low: float, high: float, form: str, *, log: bool = False) -> None:
    """Both ends of the axis and its middle get a label; there is no room for more."""
    ticks = [low, (low + high) / 2, high]
    ruler = plotext.figure.ruler(axis)
    ruler.lim(low, high)
    ruler.ticks(ticks, [form.format(10**tick if log else tick) for tick in ticks])


def _span(values: Sequence[float]) -> tuple[float, float]:
    """Of the vertical axis; never so narrow that plotext could not tell its ends apart."""
    low, high = min(values), max(values)
    room = max(0.25 * abs(high), 0.25) if high - low <= 1e-6 * max(abs(low), abs(high), 1.0) else 0.0
    return low - room, high + room
