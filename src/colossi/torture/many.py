"""Storm after storm, for a time or a number, until one breaks a promise."""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from colossi.torture.storm import Outcome, run


@dataclass(slots=True)
class Summary:
    """What storms have come to."""

    storms: int = 0
    faults: int = 0
    incarnations: int = 0
    steps: int = 0
    controllers: int = 0
    hours: float = 0.0  # [h] of virtual time
    ended: Counter[str] = field(default_factory=Counter)
    broken: Outcome | None = None

    def add(self, outcome: Outcome) -> None:
        """One more."""
        self.storms += 1
        self.faults += outcome.faults
        self.incarnations += outcome.incarnations
        self.steps += outcome.steps
        self.controllers += outcome.controllers
        self.hours += outcome.seconds / 3600
        if outcome.broken:
            self.broken = outcome
        else:
            self.ended[outcome.ended] += 1

    def as_json(self) -> dict[str, Any]:
        """For programs."""
        broken = self.broken
        return {
            "storms": self.storms,
            "faults": self.faults,
            "incarnations": self.incarnations,
            "steps": self.steps,
            "controllers": self.controllers,
            "virtual_hours": round(self.hours, 3),
            "ended": dict(sorted(self.ended.items())),
            "broken": {"seed": broken.seed, "promise": broken.broken} if broken else None,
        }

    def lines(self) -> Iterator[str]:
        """For people."""
        yield f"{self.storms:,} storms, {self.hours:,.1f} hours of virtual time"
        yield (
            f"{self.faults:,} faults, {self.controllers:,} controllers, "
            f"{self.incarnations:,} incarnations, {self.steps:,} steps"
        )
        yield ", ".join(f"{count:,} {how}" for how, count in sorted(self.ended.items())) or "none ended"
        if self.broken is None:
            yield "every promise was kept"
        else:
            yield f"seed {self.broken.seed}: {self.broken.broken}"
            yield f"colossi torture --seed {self.broken.seed} --storms 1"


def torture(
    seed: int,
    most: int | None,
    hours: float | None,
    progress: Callable[[str, float, float | None], None],
    write: Callable[[str], object] | None,
) -> Summary:
    """What the command does: one storm whose story is written, if anybody wants it; or many."""
    if most == 1:
        summary = Summary()
        summary.add(run(seed, None if write is None else lambda line: write(f"{line}\n")))
        return summary
    seconds = None if hours is None else hours * 3600
    return storms(seed, 1000 if most is None and seconds is None else most, seconds, progress)


def storms(
    first: int,
    most: int | None,
    seconds: float | None,
    progress: Callable[[str, float, float | None], None],
) -> Summary:
    """From a seed on, so many or for so long [s], whichever ends first; Ctrl-C ends them too."""
    summary, begin = Summary(), time.monotonic()
    try:
        while summary.broken is None and (most is None or summary.storms < most):
            passed = time.monotonic() - begin
            if seconds is not None and passed >= seconds:
                break
            summary.add(run(first + summary.storms))
            if most is not None:
                progress("storms", summary.storms, most)
            else:
                progress("seconds of storms", passed, seconds)
    except KeyboardInterrupt:
        pass
    return summary
