"""
How far a piece of work is that is no training run: reading, tokenising, evaluating.

`Progress` takes (label, done, total) as often as you like, and a note of how it stands; a bar on a terminal,
a line at each tenth elsewhere. Everything goes to stderr.
"""

from types import TracebackType
from typing import Self

from rich import progress as bars
from rich.console import Console


class Progress:
    """Call it with how far each labelled piece of work is; total None means that nobody knows."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._bars = bars.Progress(
            bars.TextColumn("{task.description}"),
            bars.BarColumn(complete_style="cyan", finished_style="green"),
            bars.TaskProgressColumn(),
            bars.TextColumn("[dim]{task.completed:,.0f}"),
            bars.TimeRemainingColumn(compact=True),
            console=self._console,
        )
        self._tasks: dict[str, bars.TaskID] = {}
        self._told: dict[str, int] = {}  # label -> the tenth that was printed last

    def __call__(self, label: str, done: float, total: float | None = None, note: str = "") -> None:
        if self._console.is_terminal:
            self._draw(label, done, total, note)
        else:
            self._tell(label, done, total, note)

    def _draw(self, label: str, done: float, total: float | None, note: str) -> None:
        if label not in self._tasks:
            self._tasks[label] = self._bars.add_task(label, total=total)
        said = f"{label}: {note}" if note else label
        self._bars.update(self._tasks[label], completed=done, total=total, description=said)

    def _tell(self, label: str, done: float, total: float | None, note: str) -> None:
        tenth = tenths(done, total)
        if total != 1 and tenth > self._told.get(label, -1):
            self._told[label] = tenth
            share = f"{10 * tenth}%  " if total else ""
            of = f"/{total:,.0f}" if total else ""
            self._console.file.write(f"{label}  {share}{done:,.0f}{of}{f'  {note}' if note else ''}\n")
            self._console.file.flush()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._bars.stop()


def tenths(done: float, total: float | None) -> int:
    """Whole tenths that are done; without a total, how often the number of digits grew."""
    if not total:
        return len(str(int(done))) if done >= 1 else 0
    return min(10, int(10 * done / total))
