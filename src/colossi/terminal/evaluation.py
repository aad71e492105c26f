"""How a model did on held-out questions: a row for each task, with one of its answers."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.serve.evaluate import Evaluation, accuracy_by_task
from colossi.terminal.summary import bar


def render(found: Evaluation) -> RenderableType:
    """Accuracy by task, and whether any held-out question was seen in training."""
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("task")
    table.add_column("right", justify="right")
    table.add_column("of", justify="right")
    table.add_column("")
    for task, (count, share) in accuracy_by_task(found.answered).items():
        table.add_row(task, f"{share:.1%}", str(count), Text(bar(share, 30), style="cyan"))
    clean = (
        "none of these questions is in the training data"
        if found.overlap == 0
        else f"{found.overlap} training chats ask one of these questions: the figures flatter the model"
    )
    return Group(
        table, Text(f"step {found.step}; {clean}", style="dim" if found.overlap == 0 else "bold red")
    )
