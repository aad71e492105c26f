"""
A training run as it goes, in 80 columns and 24 rows.

`render(state, now)` is a pure picture of a RunState. `Display` is the thin driver: on a terminal it redraws
in place, elsewhere it prints a plain line now and then (`plain.py`). Everything goes to stderr.
"""

import functools
import math
import threading
import time
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from colossi.ledger.events import Event
from colossi.terminal import curve, experts, plain
from colossi.terminal.numerals import count, decimal, duration
from colossi.terminal.state import RunState, advance

REDRAWS = 2  # per second; a picture takes 7 ms of a core that training could use
SHORTEST_BAR = 8  # columns
NARROW = 74  # columns; below, the experts go under the numbers
END_STYLES = {"finished": "bold green", "stopped": "bold yellow", "gave_up": "bold red"}


class Display:
    """
    Feed it events; it shows the run until the `with` block ends, and leaves the last picture.

    `history` is what happened before, so that a resumed run shows its whole curve; it is not told again.
    """

    def __init__(
        self,
        name: str,
        console: Console | None = None,
        clock: Callable[[], float] = time.time,
        history: Iterable[Event] = (),
    ) -> None:
        self.state = functools.reduce(advance, history, RunState(name=name))
        self._console = console or Console(stderr=True)
        self._clock = clock
        self._printer = plain.Printer(self._console.file)
        self._drawing = threading.Lock()  # plotext has one sheet, and rich redraws from a thread of its own
        self._live = Live(
            get_renderable=self._picture, console=self._console, refresh_per_second=REDRAWS, transient=False
        )

    def update(self, event: Event) -> None:
        """Take in one event; drawing waits for the next redraw, so this costs microseconds."""
        self.state = advance(self.state, event)
        if not self._console.is_terminal:
            self._printer.update(self.state, event)

    def _picture(self) -> RenderableType:
        with self._drawing:
            return render(self.state, self._clock(), self._console.width, self._console.height)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()


def render(state: RunState, now: float, width: int = 80, height: int = 24) -> RenderableType:
    """What runs, how far it is, how the loss goes, how fast, and what happened last; one row stays free."""
    inner = max(30, min(width, 120) - 4)
    facts, rows = _facts(state, inner)
    curve_rows = max(3, min(16, height - 1 - 10 - rows))
    parts = [
        _header(state),
        Text(),
        _progress(state, now, inner),
        Text(),
        _loss(state),
        curve.draw(state.losses.shown, width=inner, height=curve_rows, until=state.goal),
        Text(),
        facts,
        Text(),
        _note(state),
    ]
    return Panel(
        Group(*parts), title=_title(state), title_align="left", border_style="bright_black", width=inner + 4
    )


def _title(state: RunState) -> Text:
    where = f" on {state.start['hostname']}" if state.start.get("hostname") else ""
    again = f" · incarnation {state.incarnation}" if state.incarnation > 1 else ""
    return Text.assemble((state.name, "bold default"), (where + again, "dim default"))


def _header(state: RunState) -> Text:
    """What runs: its size, and how it is laid out over how many workers."""
    start = state.start
    words = []
    if start.get("parameters"):
        active = start.get("active_parameters") or start["parameters"]
        also = f" ({count(active)} active)" if active != start["parameters"] else ""
        words.append(f"{count(start['parameters'])} parameters{also}")
    axes = [f"{axis} {size}" for axis, size in (start.get("layout") or {}).items() if size not in (1, None)]
    if axes:
        words.append(" x ".join(axes))
    if start.get("workers"):
        words.append(f"{start['workers']} worker{'s' if start['workers'] != 1 else ''}{_beside(state)}")
    return Text("  ·  ".join(words) or "starting", style="dim", no_wrap=True, overflow="ellipsis")


def _beside(state: RunState) -> str:
    """Workers that are missing, and those that wait for their turn."""
    missing, spares = state.world.get("missing"), state.world.get("spares")
    return (f", {missing} missing" if missing else "") + (f", {spares} spare" if spares else "")


def _progress(state: RunState, now: float, width: int) -> RenderableType:
    left = state.seconds_left(now)
    goal = "" if state.goal is None else f"/{state.goal:,}"
    after = Text.assemble(
        (f"{math.floor(100 * state.done)}%  " if state.goal else "", "bold"),
        f"{state.step:,}{goal}",
        ("" if left is None or state.end else f"  {duration(left)} left", "dim"),
        (f"  {state.end.replace('_', ' ')}" if state.end else "", END_STYLES.get(state.end, "")),
        no_wrap=True,
        overflow="ellipsis",
    )
    if width - after.cell_len - 2 < SHORTEST_BAR:
        return after
    bar = ProgressBar(
        total=state.goal or 1,
        completed=min(state.step, state.goal) if state.goal else 0,
        width=width - after.cell_len - 2,
        style="bright_black",
        complete_style="cyan",
        finished_style="green",
    )
    row = Table.grid(padding=(0, 2))
    row.add_row(bar, after)
    return row


def _loss(state: RunState) -> Text:
    loss = None if state.last is None else state.last.number("loss")
    if loss is None:
        return Text("waiting for the first step", style="dim")
    text = Text.assemble(("loss ", "dim"), (decimal(loss, 4), "bold" if math.isfinite(loss) else "bold red"))
    if state.best is not None:
        text.append(f"   best {decimal(state.best, 4)}", "dim")
    return text


def _facts(state: RunState, width: int) -> tuple[RenderableType, int]:
    """Numbers and the experts' bars, side by side where there is room, and how many rows that takes."""
    numbers = _numbers(state)
    rows = numbers.row_count
    load = state.last.numbers("expert_load") if state.last else ()
    if not load:
        return numbers, rows
    if width < NARROW - 4:
        return Group(numbers, Text(), experts.draw(load, width=width, rows=1)), rows + 3
    both = Table.grid(padding=(0, 3))
    both.add_row(numbers, experts.draw(load, width=width - 49, rows=rows - 1))
    return both, rows


def _numbers(state: RunState) -> Table:
    last, pace = state.last, state.step_seconds
    gradient = last.number("gradient_norm") if last else None
    rate = last.number("learning_rate") if last else None
    largest = last.number("router_max") if last else None
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", no_wrap=True)
    table.add_column(no_wrap=True, min_width=13)
    table.add_column(no_wrap=True, min_width=16)
    table.add_row(
        "speed", _known(state.tokens_per_second, "{:,.0f} tok/s"), _known(state.mfu, "MFU {:.1%}", "")
    )
    table.add_row("step", "-" if pace is None else duration(pace), _tokens_seen(state))
    table.add_row(
        "gradient", "-" if gradient is None else decimal(gradient, 3), _known(rate, "rate {:.2e}", "")
    )
    if largest is not None:
        table.add_row("router", experts.router(largest), "largest logit")
    saving = "" if state.saving is None else f"saving {state.saving:,}"
    table.add_row("saved", _saved(state), Text(saving, style="dim"))
    return table


def _tokens_seen(state: RunState) -> str:
    per_step = state.start.get("tokens_per_step")
    return f"{count(per_step * state.step)} tokens" if per_step else ""


def _saved(state: RunState) -> str:
    return "nothing yet" if state.checkpoint is None else f"step {state.checkpoint:,}"


def _known(value: float | None, form: str, unknown: str = "-") -> str:
    return unknown if value is None else form.format(value)


def _note(state: RunState) -> Text:
    """What happened last beside steps, with the time of day."""
    if not state.note:
        return Text()
    at = time.strftime("%H:%M:%S", time.localtime(state.noted))
    return Text.assemble((f"{at}  ", "dim"), state.note, no_wrap=True, overflow="ellipsis")
