"""
Gaps to the best known schedules of PSPLIB, in so many seconds an instance on one core; and a big site.

    python benchmarks/schedule.py FOLDER --known FILE [--seconds 30] [--sample 16]   # FOLDER has *.sm
    python benchmarks/schedule.py --tasks 10000 --seconds 110                        # pods with crews

The instances are public data (Kolisch and Sprecher, "PSPLIB", EJOR 96 (1997)); FILE is PSPLIB's list of
makespans (j30opt.sm, j60hrs.sm, j120hrs.sm: parameter, instance, makespan) or a table `name.sm,makespan`.
`--sample 16` takes one in 16, by lot. Seconds of an instance are CPU time, as others may share the machine;
CP-SAT has what is left of them by the clock on the wall, which is never more.
"""

import argparse
import random
import re
import statistics
import sys
import time
from pathlib import Path

from psplib import parse

from colossi.site.project import Project, Resource, Task
from colossi.site.solve import solve


def read_instance(path: Path) -> Project:
    """Of PSPLIB's single-mode files."""
    instance = parse(path, instance_format="psplib")
    after: list[list[tuple[str, int]]] = [[] for _ in instance.activities]
    for index, activity in enumerate(instance.activities):
        for successor in activity.successors:
            after[successor].append((str(index), 0))
    tasks = tuple(
        Task(
            str(index),
            activity.modes[0].duration,
            tuple(after[index]),
            {str(number): need for number, need in enumerate(activity.modes[0].demands) if need},
        )
        for index, activity in enumerate(instance.activities)
    )
    resources = (Resource(str(index), ((0, each.capacity),)) for index, each in enumerate(instance.resources))
    return Project(path.stem, 1.0, tasks, tuple(resources))


def read_known(path: Path, prefix: str) -> dict[str, int]:
    """Makespans by the name of the instance; the upper one where a row gives two."""
    known = {}
    for line in path.read_text(encoding="latin-1").splitlines():
        if row := re.match(r"\s*(\d+)\s+(\d+)\s+(\d+)\b", line):
            known[f"{prefix}{row[1]}_{row[2]}"] = int(row[3])
        elif row := re.match(r"(\w+)\.\w+,.*?(\d+)$", line):
            known[row[1]] = int(row[2])
    return known


def site(tasks: int) -> Project:
    """Pods of racks, eight tasks a rack: crews, docks, power that is held, feeds that give it, deliveries."""
    racks = max(1, tasks // 8)
    made = [
        Task(f"feed {feed}", 120 + 60 * feed, gives={"kW": 30000}, kind="feed")
        for feed in range(racks // 200 + 1)
    ]
    for rack in range(racks):
        chain = (
            ("deliver", 1, {"dock": 1}),
            ("place", 2, {"riggers": 2}),
            ("pipe", 4, {"plumbers": 2}),
            ("cable", 8, {"cablers": 2}),
            ("inspect", 1, {"cablers": 1}),
            ("power on", 1, {"cablers": 1}),
            ("burn in", 24, {}),
            ("accept", 2, {"testers": 1}),
        )
        before = ""
        for kind, hours, uses in chain:
            name = f"{kind} {rack}"
            made.append(
                Task(
                    name,
                    hours,
                    ((before, 0),) if before else (),
                    uses,
                    holds={"kW": 120} if kind == "power on" else {},
                    earliest=4 * (rack // 8) if kind == "deliver" else 0,
                    group=f"pod {rack // 8}",
                    kind=kind,
                )
            )
            before = name
    amounts = {"dock": 2, "riggers": 8, "plumbers": 16, "cablers": 32, "testers": 6}
    crews = tuple(Resource(name, ((0, amount),)) for name, amount in amounts.items())
    return Project("site", 1.0, tuple(made), (*crews, Resource("kW", ((0, 0),))))


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("folder", nargs="?", type=Path)
    options.add_argument("--known", type=Path)
    options.add_argument("--seconds", type=float, default=30.0)
    options.add_argument("--sample", type=int, default=1)
    options.add_argument("--tasks", type=int, default=0)
    chosen = options.parse_args()
    if chosen.tasks:
        project = site(chosen.tasks)
        begin = time.perf_counter()
        schedule = solve(
            project,
            chosen.seconds,
            lambda incumbent, bound, seconds: say(f"  {seconds:6.1f} s  {incumbent} >= {bound}"),
        )
        say(
            f"{len(project.tasks)} tasks: {schedule.makespan} h, no schedule under {schedule.bound} h "
            f"({schedule.makespan / schedule.bound - 1:.2%}), {time.perf_counter() - begin:.0f} s"
        )
    if chosen.folder is None:
        return
    paths = sorted(
        chosen.folder.glob("*.sm"), key=lambda path: [int(word) for word in re.findall(r"\d+", path.stem)]
    )
    if not paths or chosen.known is None:
        sys.exit("error: no instances (*.sm) there, or no --known makespans")
    size = re.match(r"j(?:30|60|90|120)", paths[0].stem)
    known = read_known(chosen.known, size[0] if size else "")
    gaps, proven = [], 0
    for path in random.Random(0).sample(paths, len(paths) // chosen.sample):
        if path.stem not in known:
            continue
        schedule = solve(read_instance(path), chosen.seconds, clock=time.process_time)
        gaps.append(schedule.makespan / known[path.stem] - 1)
        proven += schedule.makespan == schedule.bound
        if gaps[-1]:
            say(
                f"{path.stem}: {schedule.makespan}, best known {known[path.stem]}, bound {schedule.bound}",
            )
    say(
        f"{len(gaps)} of {len(paths)} instances, {chosen.seconds:g} s each: "
        f"mean gap {statistics.fmean(gaps):.2%}, worst {max(gaps):.2%}, "
        f"{sum(gap <= 0 for gap in gaps)} as good as the best known, {proven} proven optimal"
    )


if __name__ == "__main__":
    main()
