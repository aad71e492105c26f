"""What a simulation found: tables for a terminal, and a page with the spread over seeds and one life."""

from collections.abc import Sequence
from pathlib import Path

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.files import write_whole
from colossi.ledger.clock import PARTS
from colossi.plan.forecast import DAY
from colossi.simulation.outcome import Outcome, Variant
from colossi.simulation.seeds import Spread
from colossi.terminal import timeline
from colossi.terminal.numerals import duration
from colossi.terminal.saving import writing
from colossi.world.power import Power

BARS = "▁▂▃▄▅▆▇█"
BINS = 40


def render(outcome: Outcome, width: int = 100) -> Group:
    """Everything, as mean and 5th to 95th percentile over the seeds."""
    scenario, seeds = outcome.scenario, len(outcome.lives)
    every = scenario.checkpoint_every
    saved = f"every {every} steps ({duration(every * scenario.step_seconds)})" if every else "never"
    beside, days = scenario.machinery.nodes - scenario.plan.places, scenario.seconds / DAY
    head = Text.assemble(
        (outcome.spec.name, "bold"),
        f"  {outcome.spec.cluster.workers:,} GPUs, {beside:,} nodes more as spares, {days:g} days, ",
        f"{seeds} seed{'s' if seeds > 1 else ''}; ",
        f"a step takes {duration(scenario.step_seconds)}, saved {saved}",
    )
    ends = [life.gave_up for life in outcome.lives if life.gave_up]
    hint = "\nhint: cluster.wait_seconds says how long a run waits for nodes"
    last = (
        [Text(), Text(f"{len(ends)} of {seeds} gave up, the first: {ends[0]}{hint}", "red")] if ends else []
    )
    first = outcome.first
    drawn: list[RenderableType] = (
        [Text(), Text("seed 1", "bold"), timeline.draw(first, min(width, 100))] if first else []
    )
    power: list[RenderableType] = [Text(), _power(outcome.power)] if outcome.power else []
    return Group(
        head,
        Text(),
        _figures(outcome),
        Text(),
        _causes(outcome),
        Text(),
        _hours(outcome),
        *drawn,
        *power,
        *last,
    )


def _table(title: str) -> Table:
    table = Table(box=None, padding=(0, 2, 0, 0), title=title, title_justify="left", title_style="bold")
    for name in ("", "mean", "5%", "95%"):
        table.add_column(name, justify="right" if name else "left")
    return table


def _row(table: Table, name: str, spread: Spread, form: str, scale: float = 1.0) -> None:
    values = (spread.mean, spread.low, spread.high)
    table.add_row(
        name, *("never" if value == float("inf") else format(value / scale, form) for value in values)
    )


def _figures(outcome: Outcome) -> Table:
    table = _table("the run")
    _row(table, "ETTR", outcome.ettr, ".1%")
    _row(table, "goodput, spares counted", outcome.goodput, ".1%")
    _row(table, "tokens (billion)", outcome.tokens, ",.1f", 1e9)
    _row(table, "days to the last token", outcome.days, ",.1f")
    _row(table, "million dollars to the last token", outcome.dollars, ",.2f", 1e6)
    _row(table, "times a spare took a place", outcome.spares_used, ",.0f")
    closed = outcome.forecast.goodput.ettr
    table.add_row("ETTR in closed form", f"{closed:.1%}", "", "", style="dim")
    table.add_row("ETTR by seed", _histogram([life.ettr for life in outcome.lives]), "", "")
    return table


def _causes(outcome: Outcome) -> Table:
    table = _table("interruptions")
    for name, spread in outcome.interruptions.items():
        _row(table, name, spread, ",.1f")
    return table


def _hours(outcome: Outcome) -> Table:
    table = _table("hours lost, of the whole machine")
    table.add_column("")
    for part, spread in outcome.lost_hours.items():
        if spread.high > 0:
            values = (f"{value:,.1f}" for value in (spread.mean, spread.low, spread.high))
            table.add_row(part, *values, Text(PARTS[part], "dim"))
    return table


def _power(power: Power) -> Table:
    """Of the first seed."""
    table = Table(
        box=None, padding=(0, 2, 0, 0), title="power, seed 1", title_justify="left", show_header=False
    )
    table.title_style = "bold"
    said = power.as_json()
    needed, kept = said["battery_needed"], said["ramp_kept_mw_per_minute"]
    table.add_row("peak, mean", f"{said['peak_mw']:,.1f}, {said['mean_mw']:,.1f} MW")
    table.add_row("energy", f"{said['energy_mwh']:,.0f} MWh, ${said['energy_usd'] / 1e6:,.2f} million")
    table.add_row(
        "swing within each step",
        f"{said['step_swing_mw']:,.1f} MW, every {duration(said['step_period_seconds'])}",
    )
    table.add_row("when the run stops", f"{said['largest_drop_mw']:,.1f} MW less")
    table.add_row(
        f"battery for {said['ramp_limit_mw_per_minute']:g} MW a minute",
        f"{needed['mw']:,.1f} MW, {needed['mwh']:,.2f} MWh",
    )
    if kept is None:
        table.add_row("", Text("the battery of [power] is too small for the swing of a step", "red"))
    return table


def _histogram(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    if low == high:
        return ""
    counts = [0] * min(BINS, max(8, len(values) // 4))
    for value in values:
        counts[min(int((value - low) / (high - low) * len(counts)), len(counts) - 1)] += 1
    most = max(counts)
    return "".join(BARS[round(count / most * (len(BARS) - 1))] for count in counts)


def render_comparison(variants: Sequence[Variant]) -> Group:
    """Each policy, and what it gains over the first on the same failures."""
    table = Table(box=None, padding=(0, 2, 0, 0))
    names = [setting.partition("=")[0] for setting in variants[0].settings]
    for name in (*names, "ETTR", "gain over the first", "days", "million $", "spares used"):
        table.add_column(name, justify="right", overflow="fold")
    for number, variant in enumerate(variants):
        outcome = variant.outcome
        gain = f"{100 * variant.gain:+.2f} ± {100 * variant.margin:.2f}" if number else ""
        days, dollars = outcome.days.mean, outcome.dollars.mean / 1e6
        table.add_row(
            *(setting.partition("=")[2] for setting in variant.settings),
            f"{outcome.ettr.mean:.2%}",
            gain,
            "never" if days == float("inf") else f"{days:,.1f}",
            "" if days == float("inf") else f"{dollars:,.1f}",
            f"{outcome.spares_used.mean:,.0f}",
        )
    seeds = len(variants[0].outcome.lives)
    note = f"mean of {seeds} seeds, the same failures for all; gains in points, with 95% confidence"
    return Group(table, Text(note, "dim"))


def write_page(outcome: Outcome, path: Path) -> None:
    """The spread of ETTR over the seeds, and the timeline of the first."""
    import plotly.graph_objects as go  # type: ignore[import-untyped]
    from plotly.subplots import make_subplots  # type: ignore[import-untyped]

    titles = ("ETTR over the seeds", "hours lost", "seed 1")
    figure = make_subplots(rows=3, cols=1, subplot_titles=titles, vertical_spacing=0.1)
    figure.add_trace(go.Histogram(x=[life.ettr for life in outcome.lives], name="ETTR"), row=1, col=1)
    lost = {part: spread for part, spread in outcome.lost_hours.items() if spread.high > 0}
    bars = go.Bar(
        x=list(lost),
        y=[spread.mean for spread in lost.values()],
        name="hours",
        error_y={
            "type": "data",
            "symmetric": False,
            "array": [spread.high - spread.mean for spread in lost.values()],
            "arrayminus": [spread.mean - spread.low for spread in lost.values()],
        },
    )
    figure.add_trace(bars, row=2, col=1)
    if outcome.first:
        timeline.add_to(figure, outcome.first, row=3)
    figure.update_layout(title=outcome.spec.name, height=1000, showlegend=False)
    with writing(path):
        write_whole(path, figure.to_html(include_plotlyjs=True))


def write_comparison(variants: Sequence[Variant], path: Path) -> None:
    """ETTR of each policy with the 5th to 95th percentile over the seeds."""
    import plotly.graph_objects as go

    spreads = [variant.outcome.ettr for variant in variants]
    names = ["<br>".join(setting.partition(".")[2] for setting in variant.settings) for variant in variants]
    figure = go.Figure(
        go.Bar(
            x=names,
            y=[spread.mean for spread in spreads],
            error_y={
                "type": "data",
                "symmetric": False,
                "array": [spread.high - spread.mean for spread in spreads],
                "arrayminus": [spread.mean - spread.low for spread in spreads],
            },
        )
    )
    figure.update_layout(title=variants[0].outcome.spec.name, yaxis_title="ETTR", yaxis_rangemode="tozero")
    with writing(path):
        write_whole(path, figure.to_html(include_plotlyjs=True))
