"""What outlives processes: the ledger and the checkpoints of a run, in memory instead of in files."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from colossi.ledger.events import KINDS, Event
from colossi.ledger.run import Run, checkpoint_name
from colossi.ledger.store import Ledger


class ListLedger(Ledger):
    """A ledger that is a list; what is read from it has been through JSON, as from the real one."""

    def __init__(self) -> None:
        self.list: list[Event] = []
        self._read: list[tuple[int, Event]] = []

    def append(self, *events: Event) -> None:
        """At the end."""
        for event in events:
            if event.kind not in KINDS:
                raise ValueError(f"no such kind of event: {event.kind}")
        self.list += events

    def events(self, kind: str | None = None, after: int = 0) -> Iterator[tuple[int, Event]]:
        """(id, event) in the order of appending."""
        for event in self.list[len(self._read) :]:
            data = json.loads(json.dumps(event.data))
            self._read.append((len(self._read) + 1, replace(event, data=data)))
        return iter([each for each in self._read[after:] if kind in (None, each[1].kind)])

    def newest(self) -> int:
        """The highest id so far."""
        return len(self.list)

    def next_incarnation(self) -> int:
        """One more than the highest so far."""
        return max((event.incarnation for event in self.list), default=0) + 1


@dataclass(frozen=True, slots=True)
class Disk(Run):
    """The checkpoints of a run; its folder is nowhere."""

    folder: Path = Path("virtual")
    keep: int = 2  # as checkpoint.keep
    whole: dict[int, int] = field(default_factory=dict)  # step -> its content

    def save(self, step: int, content: int) -> None:
        """A checkpoint is complete; the oldest go."""
        self.whole[step] = content
        for old in sorted(self.whole)[: -self.keep]:
            del self.whole[old]

    def newest(self) -> tuple[int, int]:
        """The newest one's step and content; the beginning where there is none."""
        return max(self.whole.items(), default=(0, 0))

    def set_aside(self, step: int) -> list[str]:
        """As the real one does."""
        doubted = sorted(found for found in self.whole if found > step)
        for found in doubted:
            del self.whole[found]
        return [checkpoint_name(found) for found in doubted]
