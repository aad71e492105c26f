"""
The timeline of a run: when it trained, with how many workers, and what interrupted it.

In a terminal it is a row of blocks, as high as the share of the workers that are there, with a mark above
each interruption; in the page it is a row of bars. The axis is wall time without pauses.
"""

import bisect
from collections.abc import Sequence

import plotly.graph_objects as go  # type: ignore[import-untyped]
from rich.text import Text

from colossi.ledger.clock import TRAINING, Interruption, Span
from colossi.ledger.report import Report
from colossi.terminal.numerals import duration

EIGHTHS = "▁▂▃▄▅▆▇█"
# part -> its style in a terminal, its colour in the page
COLOURS = {
    TRAINING: ("green", "#15803d"),
    "startup": ("cyan", "#0e7490"),
    "detection": ("red", "#991b1b"),
    "restart": ("red", "#dc2626"),
    "recomputation": ("yellow", "#d97706"),
    "waiting": ("magenta", "#a21caf"),
}


def draw(report: Report, width: int) -> Text:
    """Three rows: marks of interruptions, blocks, and the numbers of incarnations with the whole time."""
    if not report.timeline:
        return Text()
    marks, blocks = [" "] * width, Text(no_wrap=True)
    for one in report.interruptions:
        marks[_column(one.elapsed, report, width)] = "▼"
    begins = [span.begin for span in report.timeline]
    for column in range(width):
        middle = (column + 0.5) / width * report.wall_seconds
        span = report.timeline[max(bisect.bisect_right(begins, middle) - 1, 0)]
        blocks.append(_block(span), COLOURS[span.part][0])
    return Text("\n", no_wrap=True).join(
        [Text("".join(marks), "red"), blocks, Text(_axis(report, width), "dim")]
    )


def add_to(figure: go.Figure, report: Report, row: int) -> None:
    """Bars over the wall time, as high as there were workers, and a cross for each interruption."""
    for part, (_, colour) in COLOURS.items():
        spans = [span for span in report.timeline if span.part == part]
        if spans:
            figure.add_trace(_bars(part, spans, colour), row=row, col=1)
    figure.add_trace(_crosses(report.interruptions, report.timeline), row=row, col=1)
    figure.update_xaxes(title="wall time without pauses (s)", row=row, col=1)
    figure.update_yaxes(title="workers", rangemode="tozero", row=row, col=1)


def _column(elapsed: float, report: Report, width: int) -> int:
    share = elapsed / report.wall_seconds if report.wall_seconds > 0 else 0.0
    return min(int(share * width), width - 1)


def _block(span: Span) -> str:
    """A shrunk world is lower; time without training is only a shade."""
    if span.part != TRAINING:
        return "▒"
    return EIGHTHS[max(round(8 * span.workers / (span.workers + span.missing)), 1) - 1]


def _axis(report: Report, width: int) -> str:
    """The number of each incarnation where it began, as far as there is room, and the whole wall time."""
    end = duration(report.wall_seconds)
    row, incarnation, free = "", 0, width - len(end) - 1
    for span in report.timeline:
        column, label = _column(span.begin, report, width), str(span.incarnation)
        if span.incarnation > incarnation and len(row) <= column <= free - len(label):
            row = f"{row:<{column}}{label} "
        incarnation = max(incarnation, span.incarnation)
    return f"{row.rstrip():<{max(free, 0)}} {end}"


def _bars(part: str, spans: Sequence[Span], colour: str) -> go.Bar:
    return go.Bar(
        x=[span.begin + span.seconds / 2 for span in spans],
        width=[span.seconds for span in spans],
        y=[span.workers for span in spans],
        name=part,
        marker={"color": colour, "line": {"width": 0}},
        customdata=[(span.incarnation, duration(span.seconds)) for span in spans],
        hovertemplate=f"{part}, %{{customdata[1]}}<br>"
        "incarnation %{customdata[0]}, %{y} workers<extra></extra>",
    )


def _crosses(interruptions: Sequence[Interruption], spans: Sequence[Span]) -> go.Scatter:
    return go.Scatter(
        x=[one.elapsed for one in interruptions],
        y=[1.1 * max((span.workers for span in spans), default=1)] * len(interruptions),
        mode="markers",
        name="interruption",
        marker={"color": "#dc2626", "size": 9, "symbol": "x"},
        customdata=[(one.cause, duration(sum(one.seconds.values()))) for one in interruptions],
        hovertemplate="%{customdata[0]}<br>%{customdata[1]} lost<extra></extra>",
    )
