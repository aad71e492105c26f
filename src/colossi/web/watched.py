"""
A run as somebody watches it: its ledger, read on from where it was, and what a page needs to draw it.

Each event is read once. `since(after)` is what has come after the event with that id, as plain data; a page
that begins asks for all, thinned. Knows nothing of pages.
"""

import math
import threading
from bisect import bisect_right
from dataclasses import asdict, dataclass
from typing import Any

from colossi.ledger.clock import PARTS, Account, Ongoing
from colossi.ledger.events import Event
from colossi.ledger.run import Run
from colossi.ledger.store import Ledger
from colossi.web.expected import Expected, expected
from colossi.web.fleet import STATES, Fleet, late
from colossi.web.places import by_design, by_rack
from colossi.web.series import Series, point_of

# What a timeline marks; the other events are steps and what goes on inside an incarnation.
MARKS = (
    "fault",
    "node_lost",
    "promoted",
    "shrunk",
    "grown",
    "straggler",
    "corrupted",
    "quarantined",
    "waiting",
    "chaos",
    "checkpoint_failed",
    "checkpoint_damaged",
    "gave_up",
    "stopped",
    "finished",
)


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that happened, in one line."""

    id: int
    time: float  # [unix s]
    kind: str
    node: str
    why: str
    step: int | None


class Watched:
    """One run. Threads may share it."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.name = run.folder.resolve().name
        self.spec = run.spec()
        self._ledger = Ledger.open(run.ledger_file)
        self._lock = threading.Lock()
        self.after = 0  # the id of the last event that was read
        self.began: float | None = None  # [unix s]
        self.heard: float | None = None
        self.facts: dict[str, Any] = {}  # of the newest run_started
        self.expected: Expected = expected(run, self.spec)
        self.fleet = Fleet()
        self.series = Series()
        self.spent = Ongoing()
        self.marks: list[Mark] = []
        self.lives: list[dict[str, Any]] = []  # incarnations, the newest last
        self.saves: list[dict[str, Any]] = []  # checkpoints
        self._spans: list[tuple[int, float]] = []  # of each span: the event that it began with, its date
        self._faults = 0
        self._kept: tuple[int, float] | None = None  # the newest step in the memory of nodes, and its date
        self._of_nodes: dict[str, list[int]] = {}  # places in marks
        self.read()

    def close(self) -> None:
        self._ledger.close()

    def read(self) -> int:
        """What has been written since the last time; the id of the last event."""
        with self._lock:
            for number, event in self._ledger.events(after=self.after):
                self._on(number, event)
                self.after = number
            return self.after

    def since(self, after: int) -> dict[str, Any]:
        """What came after the event with this id; 0 for all there is. Tables are columns.

        The last span, incarnation and checkpoint that were there before may have changed: their tables say
        `from` which row on they are to be replaced.
        """
        newest = self.read()
        with self._lock:
            found: dict[str, Any] = {"name": self.name, "newest": newest}
            if newest == after:
                return found
            spent = self.spent.account()
            found["now"] = self._now(spent)
            found["nodes"] = len(self.fleet.names)
            found["points"] = self._dated(_columns(self.series.after(after), POINT))
            changes = _columns(_later(self.fleet.changes, after), ("time", "first", "count", "state"))
            found["changes"] = self._dated(changes)
            found["marks"] = self._dated(_columns(_later(self.marks, after), ("time", "kind")))
            found["spans"] = self._dated(self._timeline(spent, after))
            found["lives"] = self._dated(_rows_from(self.lives, after, LIFE))
            found["saves"] = self._dated(_rows_from(self.saves, after, SAVE))
        plain: dict[str, Any] = _plain(found)
        return plain

    def _dated(self, columns: dict[str, Any]) -> dict[str, Any]:
        """With times counted from the beginning [s], and words as places in a list: shorter by half."""
        for key, column in columns.items():
            if key == "time":
                columns[key] = [round(time - (self.began or 0.0), 3) for time in column]
            elif key in WORDS:
                words = {word: number for number, word in enumerate(dict.fromkeys(column))}
                columns[key] = {"words": list(words), "of": [words[word] for word in column]}
        return columns

    def now(self) -> dict[str, Any]:
        """Where the run stands, with what only a program asks for."""
        self.read()
        with self._lock:
            life = self.lives[-1] if self.lives else {}
            return self._now(self.spent.account()) | {
                "workers": life.get("workers"),
                "missing": life.get("missing"),
                "restarts": max(len(self.lives) - 1, 0),
                "faults": self._faults,
                "snapshot_time": self._kept[1] if self._kept else None,
                "parts_so_far": [self.spent.so_far.parts[part] for part in PARTS],
            }

    def layout(self) -> dict[str, Any]:
        """The map of the nodes that are known, what states there are, and what was expected of the run."""
        self.read()
        with self._lock:
            names, racks = list(self.fleet.names), dict(self.fleet.racks)
        site, built = self.spec.site, self.expected.built
        if site is not None and built is not None and built.device_name(0) in self.fleet.numbers:
            found = by_design(names, built, site)
        else:
            found = by_rack(names, racks, self.expected.nodes_per_rack)
        return {
            "names": names,
            "x": [round(x, 3) for x in found.x],
            "y": [round(y, 3) for y in found.y],
            "width": found.width,
            "height": found.height,
            "racks": [[name, *(round(at, 3) for at in box)] for name, *box in found.racks],
            "arranged": found.arranged,
            "states": list(STATES),
            "parts": list(PARTS),
            "expected": self.expected.as_json(),
        }

    def history(self, node: str) -> list[dict[str, Any]]:
        """What happened to a node, the newest first."""
        with self._lock:
            return [asdict(self.marks[place]) for place in reversed(self._of_nodes.get(node, []))]

    # --- one event ------------------------------------------------------------------------------------------

    def _on(self, number: int, event: Event) -> None:
        if self.began is None:
            self.began = event.time
            if self.expected.nodes:  # a simulated ledger is whole when it is there
                missing = late(event for _, event in self._ledger.events())
                self.fleet = Fleet.standing_by(self.expected.nodes, event.time, missing)
        self.heard = max(self.heard or event.time, event.time)
        self.spent.add(event)
        self.fleet.on(number, event)
        self._note_spans(number)
        match event.kind:
            case "run_started":
                self.facts = dict(event.data)
            case "step_done":
                self._step(number, event)
            case "incarnation_started":
                self.lives.append(
                    {"id": number, "number": event.incarnation, "time": event.time} | _without_nodes(event)
                )
            case "restored" if self.lives:
                self.lives[-1]["source"] = event.text("source")
            case "checkpoint_complete":
                self.saves.append({"id": number, "time": event.time, "step": event.step} | dict(event.data))
        self._faults += event.kind == "fault"
        if event.kind in MARKS or (event.text("node") and event.kind != "waiting"):
            self._mark(number, event)

    def _step(self, number: int, event: Event) -> None:
        flops, peak = (float(self.facts.get(key) or 0) for key in ("flops_per_token", "peak_flops"))
        self.series.add(point_of(number, event, self.spent.so_far, flops, peak))
        every, step = self.spec.checkpoint.snapshot_every, event.step or 0
        if every and step >= every and (self._kept or (0, 0.0))[0] != step // every * every:
            self._kept = step // every * every, event.time  # by the spec: the ledger does not say
        if self.lives:
            self.lives[-1].setdefault("first_step", event.step)
            self.lives[-1]["step"] = event.step

    def _mark(self, number: int, event: Event) -> None:
        node = event.text("node")
        told = [f"{event.text(key)}" for key in ("cause", "why", "fault") if event.text(key)]
        if event.kind == "checked":
            told.insert(0, "passed" if event.data.get("passed") else "not passed")
        if node:
            self._of_nodes.setdefault(node, []).append(len(self.marks))
        self.marks.append(Mark(number, event.time, event.kind, node, ": ".join(told), event.step))

    def _note_spans(self, number: int) -> None:
        """The account counts wall time without pauses; a page shows dates."""
        spent = self.spent.so_far
        for span in spent.timeline[len(self._spans) :]:
            self._spans.append((number, (self.began or 0.0) + span.begin + spent.paused))

    # --- what a page shows ----------------------------------------------------------------------------------

    def _now(self, spent: Account) -> dict[str, Any]:
        newest = self.series.newest
        workers = math.fsum(spent.parts.values())
        return {
            "began": self.began,
            "heard": self.heard,
            "goal": self.facts.get("steps"),
            "point": {key: getattr(newest, key) for key in POINT} if newest else None,
            "tokens": spent.tokens,
            "tokens_per_second": spent.tokens / spent.productive if spent.productive > 0 else None,
            "mfu": spent.flops / spent.peak_flops if spent.peak_flops > 0 else None,
            "goodput": spent.parts["productive"] / workers if workers > 0 else None,
            "ettr": spent.productive / spent.wall if spent.wall > 0 else None,
            "parts": [spent.parts[part] for part in PARTS],
            "wall_seconds": spent.wall,
            "paused_seconds": spent.paused,
            "interruptions": len(spent.interruptions),
            "incarnation": self.lives[-1]["number"] if self.lives else None,
            "fleet": self.fleet.count(),
            "snapshot_step": self._kept[0] if self._kept else None,
            "snapshot_every": self.spec.checkpoint.snapshot_every,
            "checkpoint": {key: self.saves[-1].get(key) for key in SAVE} if self.saves else None,
            "facts": self.facts,
        }

    def _timeline(self, spent: Account, after: int) -> dict[str, Any]:
        """Of each span when it began, how long it was, and the part that its time goes to."""
        known = bisect_right(self._spans, after, key=lambda pair: pair[0])
        first = max(known - 1, 0) if after else 0
        begins = [date for _, date in self._spans[first:]]
        spans = spent.timeline[first:]
        begins += [self.heard or 0.0] * (len(spans) - len(begins))  # one that is open was not noted
        return {
            "from": first,
            "time": begins,
            "seconds": [span.seconds for span in spans],
            "part": [span.part for span in spans],
        }


POINT = ("time", "step", "loss", "step_seconds", "tokens_per_second", "mfu", "parts")
LIFE = ("number", "time", "workers", "spares", "missing", "reason", "source", "first_step", "step")
WORDS = ("kind", "part", "reason", "source")  # columns in which few words come many times
SAVE = ("time", "step", "seconds", "stall_seconds", "bytes")


def _without_nodes(event: Event) -> dict[str, Any]:
    """Of an incarnation that begins, what is not as long as the fleet."""
    return {key: event.data.get(key) for key in ("workers", "spares", "missing", "reason")}


def _later(kept: list[Any], after: int) -> list[Any]:
    """Those with an id above this one; they are in the order of their ids."""
    return kept[bisect_right(kept, after, key=lambda one: one.id) :] if after else kept


def _rows_from(kept: list[dict[str, Any]], after: int, keys: tuple[str, ...]) -> dict[str, Any]:
    """As columns, beginning with the last row that was known after that event."""
    first = max(bisect_right(kept, after, key=lambda row: row["id"]) - 1, 0)
    return {"from": first} | {key: [row.get(key) for row in kept[first:]] for key in keys}


def _columns(rows: list[Any], keys: tuple[str, ...]) -> dict[str, list[Any]]:
    return {key: [getattr(row, key) for row in rows] for key in keys}


def _plain(value: Any) -> Any:
    """The same, with dates and seconds to the millisecond, and None for a float that JSON has no word for."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return (round(value, 3) if abs(value) >= 100 else value) if math.isfinite(value) else None
    return value
