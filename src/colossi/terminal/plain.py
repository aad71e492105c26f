"""
A run as plain lines, for a log file or a pipe: few at a run's pace, each complete in itself.

Steps 1, 2, 5, 10, 20 and 50 get a line, then one every ten seconds, earlier at a round step; whatever else
happens is told at once.
"""

from typing import IO

from colossi.ledger.events import Event
from colossi.terminal.numerals import decimal, duration
from colossi.terminal.state import RunState, sentence

EARLY = {1, 2, 5, 10, 20, 50}
ROUND = 100  # steps
PATIENCE = 10.0  # [s] the longest silence of a run that takes steps


class Printer:
    """Writes a line to `out` when one is due."""

    def __init__(self, out: IO[str]) -> None:
        self._out = out
        self._spoken = float("-inf")  # [unix s] the time of the last step that got a line

    def update(self, state: RunState, event: Event) -> None:
        """`state` is the one after `event`."""
        if event.kind != "step_done":
            self._say(sentence(event))
            return
        if state.note and state.noted == event.time:
            self._say(state.note)  # it is back after an interruption
        if due(state.step, state.goal, event.time - self._spoken):
            self._spoken = event.time
            self._say(line(state))

    def _say(self, words: str) -> None:
        if words:
            self._out.write(words + "\n")
            self._out.flush()


def due(step: int, goal: int | None, silence: float) -> bool:
    """Whether this step gets a line, `silence` seconds after the last one."""
    return step in EARLY or step == goal or silence >= (PATIENCE / 2 if step % ROUND == 0 else PATIENCE)


def line(state: RunState) -> str:
    """`step   120/800  loss 1.2345  12,345 tok/s  MFU 23.1%  left 3m12s`, without what is not known."""
    goal = "" if state.goal is None else f"/{state.goal}"
    width = len(str(state.goal or "")) + 2
    words = [f"step {state.step:>{width}}{goal}"]
    loss = None if state.last is None else state.last.number("loss")
    if loss is not None:
        words.append(f"loss {decimal(loss, 4)}")
    if state.tokens_per_second is not None:
        words.append(f"{state.tokens_per_second:,.0f} tok/s")
    if state.mfu is not None:
        words.append(f"MFU {state.mfu:.1%}")
    left = None if state.last is None else state.seconds_left(state.last.time)
    if left is not None and state.step != state.goal:
        words.append(f"left {duration(left)}")
    return "  ".join(words)
