"""A plan for people: the best layouts, what limits them, the front of time and memory, what would help."""

from typing import Any

import tomli_w
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.plan.case import GIB
from colossi.plan.plan import Candidate, Plan

SHOWN = 8  # of the front; --json has all


def render(plan: Plan) -> RenderableType:
    """Tables, and the best layout as it goes into a spec."""
    head = Text.assemble(
        (plan.name, "bold"),
        f"  {plan.gpus:,} GPUs: {plan.searched:,} layouts, {plan.feasible:,} of them fit",
    )
    return Group(
        head,
        _table(plan.best, "the fastest"),
        _table(_spread(plan.front), "step time against memory: the fastest of those that need no more"),
        _gains(plan),
        Text("\nthe fastest, for the spec", style="dim"),
        Text(toml_of(plan.best[0]), no_wrap=True),
    )


def toml_of(candidate: Candidate) -> str:
    """The table [layout]."""
    keys = {key: value for key, value in candidate.layout.items() if key != "overlap"}
    overlap = ", ".join(f'"{axis}"' for axis in candidate.layout["overlap"])
    return tomli_w.dumps({"layout": keys}) + f"overlap = [{overlap}]\n"


def _table(candidates: list[Candidate], title: str) -> Table:
    table = Table(box=None, pad_edge=False, title=f"\n{title}", title_justify="left", title_style="dim")
    for head in ("step", "MFU", "GiB"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("layout")
    table.add_column("limited by")
    for each in candidates:
        seconds = float(each.step.seconds)
        gib = f"{each.memory.total / GIB:.0f}"
        table.add_row(f"{seconds:.2f} s", f"{each.mfu:.1%}", gib, in_words(each.layout), each.limit)
    return table


def in_words(keys: dict[str, Any]) -> str:
    """Such as: tensor 8, pipeline 4 x 16, expert 8, data 3125, micro-batch 1. What is one is left out."""
    words = [f"tensor {keys['tensor']}"] if "tensor" in keys else []
    if "pipeline" in keys:
        words.append(
            f"pipeline {keys['pipeline']}" + (f" x {keys['interleave']}" if "interleave" in keys else "")
        )
    words += [f"{axis} {keys[axis]}" for axis in ("context", "expert") if axis in keys]
    words.append(f"data {keys['shard']}" + (" (ZeRO-3)" if keys["zero"] == 3 else ""))
    words.append(f"micro-batch {keys['micro_batch']}")
    return ", ".join(words + ([f"recompute {keys['recompute']}"] if "recompute" in keys else []))


def _spread(front: list[Candidate]) -> list[Candidate]:
    """The ends, and a few in between."""
    if len(front) <= SHOWN:
        return front
    return [front[round(i * (len(front) - 1) / (SHOWN - 1))] for i in range(SHOWN)]


def _gains(plan: Plan) -> Table:
    table = Table(
        box=None, pad_edge=False, show_header=False, title="\nwhat would help", title_justify="left"
    )
    table.title_style = "dim"
    table.add_column()
    table.add_column(justify="right")
    for gain in plan.gains:
        table.add_row(gain.change, f"{gain.speedup:.2f} times the tokens a second")
    return table
