"""
What `colossi report RUN` prints: a Report in one screen.

Losses by step, speed, goodput, where the time of all workers went as bars, what was interrupted and when, the
load of the experts, and the scores. It only draws; every number is the report's.
"""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from colossi.ledger.clock import PARTS, Interruption
from colossi.ledger.report import Report
from colossi.terminal import curve, experts, timeline
from colossi.terminal.numerals import count, decimal, duration, size

ROWS = 8  # of the table of losses
CURVE_ROWS = 9
STYLES = {"productive": "green"} | {part: style for part, (style, _) in timeline.COLOURS.items()}


def render(
    report: Report, name: str, width: int = 80, forecast_seconds: float | None = None
) -> RenderableType:
    """The whole report; `forecast_seconds` is what a step should take, where that is known."""
    inner = max(30, min(width, 100) - 4)
    parts: list[RenderableType] = [_headline(report, forecast_seconds), Text()]
    if report.losses:
        parts += [
            curve.draw(report.losses, width=inner, height=CURVE_ROWS),
            Text(),
            _losses(report, inner),
            Text(),
        ]
    parts += [Text("where the time went", style="bold"), _time(report.time, inner)]
    if report.interruptions:
        parts += [Text(), Text("interruptions", style="bold"), timeline.draw(report, inner)]
        parts += [Text(), _interruptions(report.interruptions)]
    if report.expert_load:
        parts += [Text(), Text("load of the experts", style="bold")]
        parts += [experts.draw(report.expert_load, width=inner, rows=2), _shares(report.expert_load)]
    if report.evaluations:
        parts += [Text(), Text("evaluations", style="bold"), _evaluations(report)]
    return Panel(
        Group(*parts),
        title=f"[bold]{name}[/]",
        title_align="left",
        border_style="bright_black",
        width=inner + 4,
    )


def _headline(report: Report, forecast_seconds: float | None) -> Table:
    goal = f" of {report.goal:,}" if report.goal and report.goal != report.steps else ""
    lives = len(report.incarnations)
    paused = f", paused {duration(report.paused_seconds)}" if report.paused_seconds >= 1 else ""
    saved = report.checkpoints[-1] if report.checkpoints else None
    rows = [
        ("steps", f"{report.steps:,}{goal}", "tokens", count(report.tokens)),
        ("loss", _loss(report.final_loss), "best", _loss(report.best_loss)),
        ("speed", _known(report.tokens_per_second, "{:,.0f} tok/s"), "MFU", _known(report.mfu, "{:.1%}")),
        ("goodput", _known(report.goodput, "{:.1%}"), "wall", duration(report.wall_seconds) + paused),
        ("ETTR", _known(report.ettr, "{:.1%}"), "of all workers", duration(report.worker_seconds)),
        (
            "saved",
            f"step {saved.step:,}, {size(saved.bytes)}" if saved else "nothing",
            "incarnations",
            str(lives),
        ),
    ]
    if report.step_seconds is not None:
        rows.insert(
            3, ("a step", duration(report.step_seconds), "forecast", _forecast(report, forecast_seconds))
        )
    table = Table.grid(padding=(0, 2))
    for style in ("dim", "", "dim", ""):
        table.add_column(style=style, no_wrap=True)
    for row in rows:
        table.add_row(*row)
    return table


def _forecast(report: Report, seconds: float | None) -> str:
    """Beside the median of the steps."""
    if seconds is None or not report.step_seconds:
        return "-"
    return f"{duration(seconds)} ({seconds / report.step_seconds - 1:+.0%})"


def _losses(report: Report, width: int) -> Table:
    """Some rows of the curve, evenly spaced, with the first and the last; steps above, losses below."""
    chosen = spread(report.losses, min(ROWS, (width - 6) // 9))
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim")
    for _ in chosen:
        table.add_column(justify="right", no_wrap=True)
    table.add_row("step", *(Text(f"{step:,}", style="dim") for step, _ in chosen))
    table.add_row("loss", *(decimal(loss, 4) for _, loss in chosen))
    return table


def spread(points: Sequence[tuple[int, float]], most: int) -> list[tuple[int, float]]:
    """At most `most` of the points, the first and the last among them."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


def _time(parts: Mapping[str, float], width: int) -> Table:
    """A bar for each part that took any time, of the time of all workers."""
    whole = sum(parts.values())
    room = max(10, width - 34)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for part in PARTS:
        share = parts[part] / whole if whole > 0 else 0.0
        if parts[part] > 0:
            table.add_row(
                part, duration(parts[part]), f"{share:.1%}", Text(bar(share, room), STYLES.get(part, "cyan"))
            )
    return table


def bar(share: float, width: int) -> str:
    """A horizontal bar in eighths of a character; what is not nothing shows."""
    eighths = max(1, round(share * width * 8)) if share > 0 else 0
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _interruptions(found: Sequence[Interruption]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column()
    table.add_column(no_wrap=True, justify="right")
    for one in found[:ROWS]:
        at = "before the first step" if one.step is None else f"after step {one.step:,}"
        table.add_row(at, f"{one.cause}{_where(one)}", f"{duration(sum(one.seconds.values()))} lost")
    if len(found) > ROWS:
        table.add_row(f"and {len(found) - ROWS} more", "", "")
    return table


def _where(one: Interruption) -> str:
    """The node, or else the rank, unless the cause names it."""
    where = one.node or ("" if one.rank is None else f"rank {one.rank}")
    return f" ({where})" if where not in one.cause else ""


def _shares(load: Sequence[float]) -> Text:
    """Each expert's share of the tokens, as far as there is room for a line; the JSON has all."""
    more = " ..." if len(load) > ROWS else ""
    return Text(" ".join(f"{share:.1%}" for share in load[:ROWS]) + more, style="dim")


def _evaluations(report: Report) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(justify="right", no_wrap=True)
    table.add_column(no_wrap=True)
    for score in report.evaluations:
        table.add_row(
            score.task, f"{score.accuracy:.1%}", Text(f"of {score.questions:,} questions", style="dim")
        )
    return table


def _known(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)


def _loss(value: float | None) -> str:
    return "-" if value is None else decimal(value, 4)
