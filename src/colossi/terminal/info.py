"""What `colossi info` says of a spec: sizes, FLOPs and memory of its model."""

from typing import Any

from rich.console import RenderableType
from rich.table import Table

from colossi.spec import Spec
from colossi.spec.size import count_parameters, flops_per_token, state_bytes_per_parameter
from colossi.terminal.numerals import count, size


def describe(spec: Spec) -> dict[str, Any]:
    """The facts by name, in base units; the sequence length is the training's, or the model's longest."""
    counts = count_parameters(spec.model)
    length = spec.training.sequence_length if spec.training else spec.model.max_positions
    optimizer = spec.training.optimizer if spec.training else "adamw"
    memory = {k: b * counts.total for k, b in state_bytes_per_parameter(optimizer).items()}
    return {
        "name": spec.name,
        "parameters": counts.total,
        "active_parameters": counts.active,
        "parameters_by_part": {
            part: getattr(counts, part) for part in ("embedding", "attention", "experts", "router", "norms")
        },
        "sequence_length": length,
        "flops_per_token": flops_per_token(spec.model, length),
        "optimizer": optimizer,
        "memory_bytes": memory | {"total": sum(memory.values())},
    }


def render(facts: dict[str, Any]) -> RenderableType:
    """The same as a table for people."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(justify="right")
    table.add_column(style="dim")
    total = facts["parameters"]
    table.add_row("parameters", count(total), f"{total:,}")
    active = facts["active_parameters"]
    table.add_row("active per token", count(active), f"{active / total:.0%} of them")
    for part, number in facts["parameters_by_part"].items():
        table.add_row(f"  {part}", count(number), f"{number / total:.1%}")
    flops, length = facts["flops_per_token"], facts["sequence_length"]
    table.add_row("FLOPs per token", count(flops), f"forward and backward, sequences of {length:,}")
    for part, nbytes in facts["memory_bytes"].items():
        note = f"{facts['optimizer']}, float32" if part == "optimizer" else ""
        table.add_row(f"memory: {part}" if part != "total" else "memory, all", size(nbytes), note)
    return table
