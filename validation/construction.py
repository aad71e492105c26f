# ruff: noqa: T201 (a script talks by printing)
"""
Colossus as it is planned here, beside what was published.

    python validation/construction.py [--json]

"fitted" rows are where an input comes from: the makers' rate is made to end after 122 days, the GPUs of the
first training to begin it 19 days after the first rack, whose day is the published begin of training less 19.
"derived" ones follow from published inputs and from assumptions of ours: the substation's date, and how much
power of which kind was offered when. "held out" rows use nothing of what they are compared with. A row is a
miss if it is off by more than 10%, or outside the days that were published.
"""

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from colossi.site.milestones import FIRST_RACK, FIRST_TRAINING
from colossi.site.scheduling import Plan, plan
from colossi.spec import read_spec

EXAMPLES = Path(__file__).parents[1] / "examples"


@dataclass(frozen=True, slots=True)
class Row:
    """A published figure, from `low` to `high`, and ours."""

    figure: str
    low: float
    high: float
    ours: float
    standing: str  # "fitted", "derived" or "held out"
    unit: str

    @property
    def miss(self) -> bool:
        room = 0.0 if self.high > self.low else 0.1 * self.low
        return not self.low - room <= self.ours <= self.high + room


def planned(name: str) -> Plan:
    """An example's plan."""
    return plan(read_spec(EXAMPLES / name, needs=("site", "construction")), seconds=0)


def day(found: Plan, name: str) -> float:
    """Of a milestone, after the first day's midnight."""
    return found.calendar.day(found.hour_of(name))


def days_between(begin: date, end: date) -> int:
    return (end - begin).days


def rows() -> Iterator[Row]:
    """The first half, the doubling."""
    first = planned("colossus.toml")
    start = first.construction.start
    begun = day(first, FIRST_TRAINING) - day(first, FIRST_RACK)
    yield Row("100,000 GPUs, from start to finish", 122, 122, day(first, first.last.name), "fitted", "d")
    yield Row("first rack to training", 19, 19, begun, "fitted", "d")
    july = (days_between(start, date(2024, 7, 20)), days_between(start, date(2024, 7, 31)) + 1)
    yield Row("training begins late in July 2024", *july, day(first, FIRST_TRAINING), "fitted", "d")
    kinds = {first.construction.offers[name].kind for name in first.choice.offers}
    both = float(kinds == {"turbines", "batteries"})
    yield Row("turbines and batteries are chosen", 1, 1, both, "derived", "")
    waits = min(choice.days for choice in first.choices if not choice.offers)
    late = waits - day(first, first.last.name)
    yield Row("substation after the GPUs", 8 * 30.4, 8 * 30.4, late, "derived", "d")
    second = planned("colossus-doubled.toml")
    begin = second.construction.start
    february = (days_between(begin, date(2025, 2, 1)), days_between(begin, date(2025, 2, 28)) + 1)
    yield Row("doubled in February 2025", *february, day(second, second.last.name), "held out", "d")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    found = list(rows())
    if parser.parse_args().json:
        print(json.dumps([asdict(row) | {"miss": row.miss} for row in found]))
        return
    print(f"{'':<38}{'published':>14}{'ours':>8}  ")
    for row in found:
        span = f"{row.low:.0f}" if row.low == row.high else f"{row.low:.0f} to {row.high:.0f}"
        miss = " MISS" if row.miss else ""
        print(f"{row.figure:<38}{span:>14}{row.ours:>8.1f} {row.unit:<2} {row.standing}{miss}")


if __name__ == "__main__":
    main()
