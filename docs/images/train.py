"""
Draw the terminal display of a run, as it was after some step, from the run's own ledger:

    .venv/bin/python docs/images/train.py runs/laptop 250
"""

import functools
import io
import sys
from pathlib import Path

from rich.console import Console

from colossi.ledger.events import Event
from colossi.ledger.run import open_run
from colossi.terminal.live import render
from colossi.terminal.state import RunState, advance

WIDTH, HEIGHT = 80, 24
PICTURE = Path(__file__).with_suffix(".svg")


def main(folder: Path, step: int) -> None:
    """Write the picture; the name on it is the spec's."""
    run = open_run(folder)
    with run.ledger() as ledger:
        events = upto(step, [event for _, event in ledger.events()])
    state = functools.reduce(advance, events, RunState(name=run.spec().name))
    console = Console(record=True, width=WIDTH, height=HEIGHT, file=io.StringIO(), force_terminal=True)
    console.print(render(state, events[-1].time, WIDTH, HEIGHT))
    console.save_svg(str(PICTURE), title="colossi train", unique_id="train")


def upto(step: int, events: list[Event]) -> list[Event]:
    """The events until a step was done, the last time that it was."""
    done = [n for n, event in enumerate(events) if event.kind == "step_done" and event.step == step]
    return events[: done[-1] + 1]


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
