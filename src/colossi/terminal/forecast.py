"""A forecast for people: where a step's time goes, what a GPU holds, what the run takes."""

import math

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.plan.case import GIB
from colossi.plan.forecast import Forecast
from colossi.plan.goodput import Goodput
from colossi.terminal.numerals import count, duration

BAR = 24  # characters of a whole


def render(found: Forecast) -> RenderableType:
    """Three tables under one another."""
    facts = found.as_json()
    head = Text.assemble(
        (f"{found.name}", "bold"),
        f"  {found.gpus:,} GPUs, step {duration(found.step_seconds)}, MFU {found.mfu:.1%}, ",
        f"{facts['tflops_per_gpu']:.0f} model TFLOP/s a GPU",
    )
    return Group(head, _parts(found), _memory(found), _run(found))


def _table() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim", min_width=18)
    table.add_column(justify="right", min_width=10)
    table.add_column(style="dim")
    return table


def _parts(found: Forecast) -> Table:
    table = _table()
    for part, seconds in found.step.parts.items():
        share = seconds / found.step_seconds
        if share >= 0.0005:
            table.add_row(f"step: {part}", duration(seconds), f"{share:6.1%} {'█' * round(share * BAR)}")
    return table


def _memory(found: Forecast) -> Table:
    table = _table()
    for part in ("weights", "gradients", "optimizer", "activations", "buffers"):
        table.add_row(f"memory: {part}", f"{getattr(found.memory, part) / GIB:.1f} GiB")
    verdict = "fits" if found.fits else "does not fit"
    table.add_row(
        "memory, all", f"{found.memory.total / GIB:.1f} GiB", f"of {found.memory_limit / GIB:.0f}: {verdict}"
    )
    return table


def _run(found: Forecast) -> Table:
    facts, table = found.as_json(), _table()
    tokens = found.tokens_per_step * found.steps
    table.add_row("tokens per second", f"{facts['tokens_per_second']:,.0f}")
    table.add_row("goodput", f"{found.goodput.goodput:.1%}", _interruptions(found.goodput))
    table.add_row("the run", f"{facts['days']:.1f} days", f"{count(tokens)} tokens in {found.steps:,} steps")
    table.add_row("", f"{count(facts['gpu_hours'])} GPU-hours")
    table.add_row("", f"${count(found.dollars)}", f"{facts['energy_mwh']:,.0f} MWh")
    return table


def _interruptions(good: Goodput) -> str:
    saved = f", a checkpoint every {duration(good.interval)}" if math.isfinite(good.interval) else ""
    return f"ETTR {good.ettr:.1%}; interrupted every {duration(good.time_to_interruption)}{saved}"
