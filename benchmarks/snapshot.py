# ruff: noqa: T201 (a script talks by printing)
"""
The cost of snapshots in memory: `PYTHONPATH=src python benchmarks/snapshot.py [--case NAME] [--runs N]`.

`colossi train` of the laptop's model with a batch that makes a step of a second or more, and a snapshot
after every second step. A snapshot is copied, summed and sent to the buddy during the step that follows it,
so steps with and without one alternate within one run, and whatever else the machine does meets both alike.
Each step with a snapshot is compared with the step before it; of these differences the median counts, with an
interval by the bootstrap [1]. The case "none" takes no snapshots and is treated alike: it says what the
method itself finds where there is nothing. Aim: under 3%.

CPU seconds are those of the workers' threads beside the main one (the copying thread is the one of them that
works), and of the agents.

[1] B. Efron, R. Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13: the percentile interval.
"""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from colossi.ledger.run import Run

SPEC = Path(__file__).parents[1] / "examples" / "laptop.toml"
WARM = 9  # steps: by then each slot, here and with the buddy, has been written once or twice
AIM = 0.03
SAMPLE_SECONDS = 0.5
CASES: dict[str, dict[str, Any]] = {
    "none": {"checkpoint.snapshot_every": 0},
    "muon": {},
    "adamw": {"training.optimizer": "adamw"},
    "muon, 4 workers": {"cluster.workers_per_node": 2},
    "adamw, sharded": {"training.optimizer": "adamw", "layout.shard": 2, "layout.replicate": 1},
}


@dataclass
class Found:
    """Of all runs of a case."""

    without: list[float] = field(default_factory=list)  # [s] of each pair's first step
    with_one: list[float] = field(default_factory=list)  # [s] of its second, which copies a snapshot
    waited: list[float] = field(default_factory=list)  # [s] of that by training, for the copy
    threads: list[float] = field(default_factory=list)  # CPU [s] for each pair, of all workers; one a run
    agents: list[float] = field(default_factory=list)  # the same of all agents

    def row(self, name: str) -> dict[str, Any]:
        """What is reported."""
        without, with_one = np.array(self.without), np.array(self.with_one)
        step = float(np.median(without))
        differences = (with_one - without) / step
        least, most = interval(differences)
        return {
            "case": name,
            "step_seconds": step,
            "pairs": len(differences),
            "cost": float(np.median(differences)),
            "cost_interval": [least, most],
            "waited_seconds": statistics.median(self.waited),
            "threads_cpu_seconds": statistics.mean(self.threads),
            "agents_cpu_seconds": statistics.mean(self.agents),
        }


def interval(values: "np.ndarray[Any, np.dtype[np.float64]]", resamples: int = 10_000) -> tuple[float, float]:
    """In which the median lies with 95%."""
    draws = np.random.default_rng(0).choice(values, (resamples, len(values)))
    least, most = np.quantile(np.median(draws, axis=1), (0.025, 0.975))
    return float(least), float(most)


def measure(found: Found, folder: Path, changes: dict[str, Any], steps: int, batch: int) -> None:
    """One run more."""
    settings = {
        "training.steps": steps,
        "training.global_batch": batch,
        "checkpoint.every": 0,
        "checkpoint.snapshot_every": 2,
        "cluster.spares": 0,
    } | changes
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    run = folder / "run"
    subprocess.run(["rm", "-rf", str(run)], check=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "colossi.cli", "train", str(SPEC), "--run", str(run), *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    samples: list[tuple[float, float, float]] = []  # time, CPU seconds of side threads, of agents
    sampling = threading.Thread(target=_sample, args=(process, run, samples))
    sampling.start()
    _, said = process.communicate()
    sampling.join()
    if process.returncode:
        raise SystemExit(said)
    ended = {event.step: event for event in Run(run).events() if event.kind == "step_done"}
    pairs = [step for step in range(WARM, steps + 1) if step % 2]  # the copy of step k runs during step k + 1
    for step in pairs:
        times = [ended[each].time for each in (step - 2, step - 1, step)]
        for gaps, (a, b) in zip((found.without, found.with_one), itertools.pairwise(times), strict=True):
            gaps.append(b - a)
        found.waited.append(ended[step].number("snapshot_seconds") or 0.0)
    times, threads, agents = np.array(samples).T  # the ended count no more, so the largest so far is meant
    ends = [ended[pairs[0] - 2].time, ended[pairs[-1]].time]
    for total, cpu in ((found.threads, threads), (found.agents, agents)):
        total.append(float(np.diff(np.interp(ends, times, np.maximum.accumulate(cpu)))[0]) / len(pairs))


def _sample(process: "subprocess.Popen[str]", run: Path, samples: list[tuple[float, float, float]]) -> None:
    """The CPU seconds so far, twice a second, while the run lasts."""
    while process.poll() is None:
        agents = list(_agents(run))
        workers = [
            worker for agent in agents for standby in _children(agent) for worker in _children(standby)
        ]
        side = sum(
            _cpu(worker, task)
            for worker in workers
            for task in _tasks(worker)
            if task != worker and _read(f"/proc/{worker}/task/{task}/comm").startswith("python")
        )
        own = sum(_cpu(agent, task) for agent in agents for task in _tasks(agent))
        samples.append((time.time(), side, own))
        time.sleep(SAMPLE_SECONDS)


def _agents(run: Path) -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*"):
        words = _read(f"{path}/cmdline").split("\0")
        if "colossi.engines.agent" in words and str(run) in words:
            yield path.name


def _children(process: str) -> list[str]:
    return [
        child for task in _tasks(process) for child in _read(f"/proc/{process}/task/{task}/children").split()
    ]


def _tasks(process: str) -> Sequence[str]:
    return [path.name for path in Path(f"/proc/{process}/task").glob("[0-9]*")]


def _cpu(process: str, task: str) -> float:
    """Seconds on a CPU so far."""
    return int((_read(f"/proc/{process}/task/{task}/schedstat").split() or ["0"])[0]) / 1e9


def _read(path: str) -> str:
    """Nothing, of a process that is gone."""
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--case", action="append", choices=CASES, help="may be repeated; all of them without it"
    )
    parser.add_argument("--runs", type=int, default=1, help="of each case, in turns")
    parser.add_argument(
        "--steps", type=int, default=110, help="of a run; every second one is followed by a snapshot"
    )
    parser.add_argument("--batch", type=int, default=160)
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    found = {name: Found() for name in given.case or CASES}
    with tempfile.TemporaryDirectory() as name:
        for _ in range(given.runs):
            for case, so_far in found.items():
                measure(so_far, Path(name), CASES[case], given.steps, given.batch)
                print(so_far.row(case), file=sys.stderr, flush=True)
    rows = [so_far.row(case) for case, so_far in found.items()]
    if given.json:
        print(json.dumps(rows, indent=1))
        return
    heads = (("step [s]", 10), ("pairs", 7), ("cost", 8), ("95% within", 18), ("waited", 9), ("threads", 9))
    print(f"{'':18}" + "".join(f"{head:>{width}}" for head, width in (*heads, ("agents", 8))))
    for row in rows:
        least, most = row["cost_interval"]
        waited, threads, agents = (
            1000 * row[key] for key in ("waited_seconds", "threads_cpu_seconds", "agents_cpu_seconds")
        )
        print(
            f"{row['case']:18}{row['step_seconds']:>10.2f}{row['pairs']:>7}{row['cost']:>+8.1%}"
            f"{f'{least:+.1%} to {most:+.1%}':>18}{waited:>9.1f}{threads:>9.1f}{agents:>8.1f}"
        )
    print(
        f"\ncost: of a snapshot, as a share of a step without one (aim < {AIM:.0%})\n"
        "waited: by training for a snapshot, median [ms]\n"
        "threads, agents: CPU for each two steps, of all workers' copying threads and of all agents [ms]"
    )


if __name__ == "__main__":
    main()
