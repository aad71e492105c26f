# ruff: noqa: T201 (a script talks by printing)
"""
Seconds from SIGKILL of one of two workers to the next completed step, ours and others':

    PYTHONPATH=src python benchmarks/recovery.py [--peers PYTHON] [--faults N] [--only NAME] [--json]

All train the same model on the same batches, one thread a worker, and are struck at the same random moments.
The kill falls at a random moment within a step, 5 to 24 new steps after the last recovery, so that those
who go on from a checkpoint every 20 steps are struck anywhere between two. Recovery is over with the first
step of a group that was formed after the kill; a step that survivors could finish without the dead one does
not count.

--peers is the interpreter of an environment with torchft and NVIDIA's extension; docs/benchmarks.md says how
to make one. It knows nothing of GPUs, nor of any other fault.
"""

import argparse
import contextlib
import itertools
import json
import os
import random
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from peers.contestants import GLOBAL_BATCH, NAMES, Contestant, Step, contestants_in

GOOD_STEPS = (5, 24)  # least and most between a recovery and the next kill; 20 apart, as checkpoints are
PATIENCE = 120.0  # [s] for a start or a recovery
POLL_SECONDS = 0.02  # the moment of a kill does not hang on it: steps carry their times


@dataclass(frozen=True)
class Outcome:
    """What one kill has cost."""

    contestant: str
    rank: int  # of the killed worker
    killed: float  # [monotonic s]
    seconds: float  # to the next step of a new group
    regained_seconds: float  # to the first whole step that had not been done before the kill
    steps_repeated: int
    samples_lost: int  # that no step has seen, or only one which is not repeated
    parts: dict[str, float] = field(default_factory=dict)  # of `seconds`, where it is known


def judge(contestant: str, rank: int, killed: float, steps: list[Step]) -> Outcome | None:
    """What a kill has cost, from all steps so far; None if the lost ground has not been regained yet."""
    last = max(step.step for step in steps if step.formed <= killed)
    after = [step for step in steps if step.formed > killed]
    done = [step for step in after if step.step > last and step.samples == GLOBAL_BATCH]
    if not done:
        return None
    regained = min(done, key=lambda step: step.time)
    seen = {step.step: step.samples for step in after}
    return Outcome(
        contestant,
        rank,
        killed,
        min(step.time for step in after) - killed,
        regained.time - killed,
        sum(1 for step in seen if step <= last),
        sum(GLOBAL_BATCH - seen.get(step, 0) for step in range(last + 1, regained.step)),
    )


def strike(contestant: Contestant, rank: int, draw: random.Random) -> Outcome:
    """Wait for good steps, kill a worker within the next one, and wait until the loss is made good."""
    good = draw.randint(*GOOD_STEPS)
    moment = draw.random()
    wait_for(contestant, lambda: len(_good(contestant)) >= good, f"{good} good steps")
    ends = [step.time for step in _good(contestant)]
    length = statistics.median(b - a for a, b in itertools.pairwise(ends))
    pid = contestant.pid_of(rank)
    time.sleep(max(0.0, ends[-1] + moment * length - time.monotonic()))
    killed = time.monotonic()
    os.kill(pid, signal.SIGKILL)

    def outcome() -> Outcome | None:
        return judge(contestant.name, rank, killed, contestant.steps)

    wait_for(contestant, lambda: outcome() is not None, "recovery")
    found = outcome()
    assert found is not None
    contestant.good_since = killed + found.regained_seconds
    return Outcome(**vars(found) | {"parts": contestant.parts(killed)})


def _good(contestant: Contestant) -> list[Step]:
    """The whole steps since it was started or had recovered, one for each."""
    good = [s for s in contestant.steps if s.time > contestant.good_since and s.samples == GLOBAL_BATCH]
    return list({step.step: step for step in good}.values())


def wait_for(contestant: Contestant, good: Callable[[], bool], what: str) -> None:
    """Look at the contestant's log until it is."""
    end = time.monotonic() + PATIENCE
    seen = -1
    while len(contestant.steps) == seen or not good():
        seen = len(contestant.steps)
        if time.monotonic() > end:
            raise TimeoutError(f"{contestant.name}: no {what} within {PATIENCE:.0f} s")
        time.sleep(POLL_SECONDS)
        contestant.look()


def strike_often(contestant: Contestant, numbers: range, seed: int) -> Iterator[Outcome]:
    """One job, or one for each fault; ranks take turns."""
    draw = random.Random(f"{seed}/{numbers}")
    running = False
    try:
        for number in numbers:
            if not running:
                contestant.start()
                running = True
            yield strike(contestant, contestant.victims[number % len(contestant.victims)], draw)
            if contestant.one_fault_each:
                contestant.stop()
                running = False
    finally:
        contestant.stop()


def measure(contestants: list[Contestant], faults: int, seed: int) -> list[Outcome]:
    """All of them in turns, half of the faults at a time, so that a noisy minute does not hit one alone."""
    outcomes: list[Outcome] = []
    half = faults - faults // 2
    for numbers in (range(half), range(half, faults)):
        for contestant in contestants if numbers else []:
            try:
                for outcome in strike_often(contestant, numbers, seed):
                    outcomes.append(outcome)
                    print(_line(outcome), file=sys.stderr, flush=True)
            except TimeoutError as error:
                print(f"failed: {error}; its other faults of this turn are left out", file=sys.stderr)
    return outcomes


def _line(outcome: Outcome) -> str:
    parts = ", ".join(f"{part} {seconds:.2f}" for part, seconds in outcome.parts.items())
    return (
        f"{outcome.contestant}, rank {outcome.rank}: {outcome.seconds:.2f} s to the next step, "
        f"{outcome.regained_seconds:.2f} s to a new one; {outcome.steps_repeated} steps repeated, "
        f"{outcome.samples_lost} samples lost" + (f" ({parts})" if parts else "")
    )


def step_seconds(contestant: Contestant) -> float:
    """Median length of its steps [s]."""
    steps = sorted(contestant.earlier + contestant.steps, key=lambda step: step.time)
    return statistics.median(b.time - a.time for a, b in itertools.pairwise(steps) if b.step == a.step + 1)


def loss_off(contestant: Contestant, reference: Contestant) -> float:
    """Largest relative difference between the losses of the same steps [1]; 0 is bit for bit."""
    theirs = {step.step: step.loss for step in reference.earlier + reference.steps}
    own = [step for step in contestant.earlier + contestant.steps if step.step in theirs]
    if not contestant.whole_losses:
        return float("nan")
    return max((abs(step.loss / theirs[step.step] - 1) for step in own), default=float("nan"))


def print_table(contestants: list[Contestant], outcomes: list[Outcome]) -> None:
    """A line for each contestant, then where the time goes."""
    heads = ("faults", "median", "least", "most", "whole", "repeated", "lost", "loss off", "step [s]")
    print(f"{'':23}" + "".join(f"{head:>10}" for head in heads))
    faults = {each.name: [o for o in outcomes if o.contestant == each.name] for each in contestants}
    contestants = [contestant for contestant in contestants if faults[contestant.name]]
    for contestant in contestants:
        own = faults[contestant.name]
        seconds = [outcome.seconds for outcome in own]
        row = [
            f"{len(own)}",
            *(f"{f(seconds):.2f}" for f in (statistics.median, min, max)),
            f"{statistics.median(outcome.regained_seconds for outcome in own):.2f}",
            f"{statistics.mean(outcome.steps_repeated for outcome in own):.1f}",
            f"{statistics.mean(outcome.samples_lost for outcome in own):.1f}",
            f"{loss_off(contestant, contestants[0]):.0e}",
            f"{step_seconds(contestant):.2f}",
        ]
        print(f"{contestant.name:23}" + "".join(f"{cell:>10}" for cell in row))
    print(
        "\nmedian, least, most: seconds from SIGKILL to the next completed step\n"
        "whole: median seconds to the first step with the whole batch that had not been done before\n"
        "repeated, lost: mean of steps done again and of samples left out after a fault\n"
        "loss off: largest relative difference from the first contestant's losses of the same steps"
    )
    print("\nwhere they go, median seconds of each part")
    for contestant in contestants:
        parts = [outcome.parts for outcome in faults[contestant.name]]
        medians = (
            f"{part} {statistics.median(found.get(part, 0.0) for found in parts):.2f}"
            for part in max(parts, key=len)
        )
        print(f"{contestant.name:23} {', '.join(medians)}")


def main() -> None:
    """Measure those that were asked for, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", default="", metavar="PYTHON", help="of the peers' environment")
    parser.add_argument("--faults", type=int, default=10, help="for each")
    parser.add_argument("--only", action="append", default=[], choices=NAMES, help="may be repeated")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--keep", type=Path, help="leave the run folders and logs here")
    parser.add_argument("--json", action="store_true", help="every fault, as a JSON list on stdout")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that nobody is left behind
    with contextlib.ExitStack() as stack:
        folder = arguments.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="recovery-")))
        folder.mkdir(parents=True, exist_ok=True)
        chosen = list(contestants_in(folder.resolve(), arguments.peers, arguments.only))
        if not chosen:
            sys.exit("nothing to measure")
        outcomes = measure(chosen, arguments.faults, arguments.seed)
        if arguments.json:
            print(json.dumps([vars(outcome) for outcome in outcomes], indent=1))
        else:
            print_table(chosen, outcomes)
            print(f"\nload of the last quarter of an hour: {os.getloadavg()[2]:.1f}, ours included")


if __name__ == "__main__":
    main()
