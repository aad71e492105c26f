"""
How evenly the experts are used: a bar for each, and what to make of it in a line.

A bar at half height is an expert with its fair share of the tokens (one in so many); a full one has twice
that or more. Many experts share a bar, which then shows the busiest of them.
"""

from collections.abc import Sequence

from rich.console import Group
from rich.text import Text

EIGHTHS = " ▁▂▃▄▅▆▇█"
# The largest router logit up to which every runtime agrees on our models: SGLang caps it with 30 tanh(r/30),
# which is still r here, and llama.cpp's renormalised gates differ more the more one expert dominates.
ROUTER_LIMIT = 3.0
STARVED, CROWDED = 0.5, 1.5  # of the fair share; beyond, the bar changes colour


def draw(load: Sequence[float], *, width: int, rows: int) -> Group:
    """`rows` rows of bars and a line below them, none wider than `width`."""
    relative = [share * len(load) for share in load]
    shown = _grouped(relative, width)
    bar, gap = _bar_width(len(shown), width)
    lines = [_row(shown, row, rows, bar, gap) for row in reversed(range(rows))]
    return Group(*lines, _caption(relative))


def router(largest: float) -> Text:
    """The largest router logit, with a mark when it is too large; NaN is too large."""
    if largest <= ROUTER_LIMIT:
        return Text(f"{largest:.2f}")
    return Text(f"{largest:.2f} ▲", style="bold red")


def _caption(relative: Sequence[float]) -> Text:
    """How much more than its fair share the busiest expert gets."""
    busiest = max(relative)
    style = "yellow" if busiest > CROWDED else ""
    return Text.assemble(
        (f"{len(relative)} experts, busiest ", "dim"), (f"{busiest:.2f}x", style), no_wrap=True
    )


def _grouped(relative: Sequence[float], most: int) -> list[float]:
    """At most `most` numbers: neighbours become one, the largest."""
    group = -(-len(relative) // most)
    return [max(relative[i : i + group]) for i in range(0, len(relative), group)]


def _bar_width(bars: int, width: int) -> tuple[int, int]:
    """Columns of a bar and of the gap after it: as wide as fits, up to 2 and 1."""
    for bar, gap in ((2, 1), (1, 1)):
        if bars * (bar + gap) - gap <= width:
            return bar, gap
    return 1, 0


def _row(relative: Sequence[float], row: int, rows: int, bar: int, gap: int) -> Text:
    """One row of characters, counted from the bottom."""
    text = Text(no_wrap=True)
    for share in relative:
        eighths = round(min(share / 2, 1.0) * 8 * rows) - 8 * row
        floor = 1 if row == 0 else 0  # an expert that gets nothing still has its place
        text.append(EIGHTHS[min(max(eighths, floor), 8)] * bar + " " * gap, _style(share))
    text.right_crop(gap)
    return text


def _style(share: float) -> str:
    return "yellow" if share > CROWDED else "magenta" if share < STARVED else "cyan"
