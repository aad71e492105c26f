# ruff: noqa: T201 (a script talks by printing)
"""
The cost of snapshots in memory: `PYTHONPATH=src python benchmarks/snapshot.py [--rounds N]`.

`colossi train` of the laptop's model on two nodes, with a batch that makes a step of a second or more: with a
snapshot after every step, and with none, in turns. The ratio is of the median step seconds in the ledgers, so
it holds all that a snapshot takes from the training: the copy, the sums, and what goes to the buddy.
Aim: under 3%.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from colossi.ledger.run import Run

SPEC = Path(__file__).parents[1] / "examples" / "laptop.toml"
STEPS, WARM = 24, 4
AIM = 0.03


def step_seconds(folder: Path, every: int, batch: int) -> tuple[list[float], list[float]]:
    """Of one run: seconds between the ends of steps, and what of them training waited for a snapshot."""
    changes = {
        "training.steps": STEPS,
        "training.global_batch": batch,
        "checkpoint.every": 0,
        "checkpoint.snapshot_every": every,
        "cluster.spares": 0,
    }
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    run = folder / f"every-{every}"
    subprocess.run(["rm", "-rf", str(run)], check=True)
    done = subprocess.run(
        [sys.executable, "-m", "colossi.cli", "train", str(SPEC), "--run", str(run), *words],
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    steps = [event for event in Run(run).events() if event.kind == "step_done"]
    times = [event.time for event in steps]
    gaps = [after - before for before, after in itertools.pairwise(times)][WARM:]
    return gaps, [event.number("snapshot_seconds") or 0.0 for event in steps][WARM:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    ratios, seconds, waits = [], [], []
    with tempfile.TemporaryDirectory() as name:
        for number in range(given.rounds):
            order = (1, 0) if number % 2 else (0, 1)  # whoever comes second must not always be the same
            medians = {}
            for every in order:
                gaps, waited = step_seconds(Path(name), every, given.batch)
                medians[every] = statistics.median(gaps)
                waits += waited if every else []
            ratios.append(medians[1] / medians[0] - 1)
            seconds.append(medians[0])
    found = {
        "step_seconds": statistics.median(seconds),
        "cost": statistics.median(ratios),
        "costs": ratios,
        "waited_seconds": statistics.median(waits),
    }
    if given.json:
        print(json.dumps(found))
        return
    each = ", ".join(f"{ratio:+.1%}" for ratio in ratios)
    print(f"a step takes {found['step_seconds']:.2f} s without snapshots")
    print(f"with one after every step it takes {found['cost']:+.1%} longer (aim < {AIM:.0%}); rounds: {each}")
    print(f"training waits {1000 * found['waited_seconds']:.1f} ms a step for it (median)")


if __name__ == "__main__":
    main()
