"""
`make demo`: train the laptop's Grok on two workers, kill one half way, score it on held-out questions.

Then it answers three. The same commands that a person would type, with a line before each that says what it
does. The killed worker changes nothing: the losses are those of a run that nothing happens to. A second call
finds the finished run and does not train again.
"""

import shlex
import subprocess
import sys
import time
from pathlib import Path

from colossi.data.question import Question
from colossi.ledger.run import Run, open_run
from colossi.serve.chat import answer
from colossi.serve.evaluate import read_questions
from colossi.serve.generate import Sampling
from colossi.serve.load import Loaded, load

SPEC = Path("examples/laptop.toml")
RUN = Path("runs/laptop")
HALF_WAY = 340
SHOWN = 7  # which held-out question of a task


def main() -> int:
    """Run the demo from the root of the repository; the exit code of the first command that fails."""
    start = time.monotonic()
    for what, command in (
        (
            "Train a small Grok on two workers of this machine; half way, one of them is killed",
            ["train", SPEC, "--chaos", f"kill worker 1 at step {HALF_WAY}"],
        ),
        ("Score it on questions that it has never seen", ["evaluate", RUN]),
    ):
        if code := show(what, command):
            return code
    say("Ask it three of them")
    ask_three(load(RUN), open_run(RUN))
    say(f"Done in {time.monotonic() - start:.0f} s. Go on with it:")
    write(
        f"  .venv/bin/colossi chat {RUN}             talk to it\n"
        f"  .venv/bin/colossi report {RUN}           what happened, and where the time went\n"
        f"  .venv/bin/colossi info {SPEC}    how large it is\n"
        "  make demo-clean demo                      train it again\n"
    )
    return 0


def show(what: str, command: list[object]) -> int:
    """Say what comes, show the command, run it."""
    say(what)
    write(f"$ colossi {shlex.join(map(str, command))}\n")
    return subprocess.run([sys.executable, "-m", "colossi.cli", *map(str, command)]).returncode


def ask_three(loaded: Loaded, run: Run) -> None:
    """The same question of each of three tasks, with the right answer where the model's is another."""
    by_task: dict[str, list[Question]] = {}
    for question in read_questions(run):
        by_task.setdefault(question.task, []).append(question)
    for questions in list(by_task.values())[:3]:
        question = questions[SHOWN % len(questions)]
        asked = question.question.strip().replace("\n", "\n          ")
        write(f"\n  you     {asked}\n  colossi ")
        said = answer(loaded, question.messages, Sampling(), 64, write)
        write("" if said == question.answer else f"   (right: {question.answer})")
        write("\n")


def say(text: str) -> None:
    write(f"\n== {text}\n")


def write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
