"""A plan for people: the best layouts, what limits them, the front of time against memory, what would help."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.plan.case import GIB
from colossi.plan.plan import Candidate, Plan
from colossi.terminal.numerals import duration

SHOWN = ("tensor", "pipeline", "interleave", "context", "expert", "shard", "zero", "micro_batch")


def render(plan: Plan) -> RenderableType:
    """Tables, and the best layout as it goes into a spec."""
    head = Text.assemble(
        (plan.name, "bold"),
        f"  {plan.gpus:,} GPUs: {plan.searched:,} layouts, {plan.feasible:,} of them fit",
    )
    return Group(
        head,
        _table(plan.best, "the fastest"),
        _table(plan.front, "step time against memory: each is the fastest of those that need no more"),
        _gains(plan),
        Text("\nthe fastest, for the spec", style="dim"),
        Text(toml_of(plan.best[0]), no_wrap=True),
    )


def toml_of(candidate: Candidate) -> str:
    """The table [layout]."""
    import tomli_w

    return tomli_w.dumps({"layout": candidate.layout}, multiline_strings=False)


def _table(candidates: list[Candidate], title: str) -> Table:
    table = Table(box=None, pad_edge=False, title=f"\n{title}", title_justify="left", title_style="dim")
    for head in ("step", "MFU", "GiB", "tensor", "pipe", "stages", "context", "expert", "data", "ZeRO", "micro"):
        table.add_column(head, justify="right")
    table.add_column("recompute")
    table.add_column("limited by")
    for each in candidates:
        keys = each.layout
        table.add_row(
            duration(float(each.step.seconds)),
            f"{each.mfu:.1%}",
            f"{each.memory.total / GIB:.0f}",
            *(str(keys.get(key, 1)) for key in SHOWN),
            str(keys.get("recompute", "none")),
            each.limit,
        )
    return table


def _gains(plan: Plan) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False, title="\nwhat would help", title_justify="left")
    table.title_style = "dim"
    table.add_column()
    table.add_column(justify="right")
    for gain in plan.gains:
        table.add_row(gain.change, f"{gain.speedup:.2f} times the tokens a second")
    return table
