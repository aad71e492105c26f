"""
The nodes of a run, one after the other, and when each of them changed its state.

A fold over the ledger's events. What it keeps are changes, so that whoever has them can tell the state of
every node at any time. Nodes that stand side by side and change together are one change.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby

from colossi.ledger.events import Event

STATES = {
    "absent": "it has not come, or has left in good order",
    "spare": "it stands by",
    "training": "it is in the world of the newest incarnation",
    "failed": "something on it failed, or it is gone",
    "set aside": "it is to be checked before it is used again",
    "quarantined": "it is not used again",
}
NAMES = tuple(STATES)
CODES = {name: code for code, name in enumerate(STATES)}
AFTER = {  # of the node that the event names
    "node_joined": "spare",
    "fault": "failed",
    "node_lost": "failed",
    "straggler": "set aside",
    "corrupted": "set aside",
    "quarantined": "quarantined",
    "readmitted": "absent",
    "promoted": "training",
    "shrunk": "failed",
}


@dataclass(frozen=True, slots=True)
class Change:
    """Of `count` nodes from `first` on, by the event with this id."""

    id: int
    time: float  # [unix s]
    first: int
    count: int
    state: int  # of CODES


def late(events: Iterable[Event]) -> set[str]:
    """Nodes that join before anything else is said of them: they have not been there before."""
    known: set[str] = set()
    found: set[str] = set()
    for event in events:
        if event.kind == "incarnation_started":
            nodes, changed = event.data.get("nodes"), event.data.get("changed")
            known.update(map(str, nodes) if isinstance(nodes, Sequence) else ())
            known.update(map(str, changed.values()) if isinstance(changed, Mapping) else ())
        elif node := event.text("node"):
            if event.kind == "node_joined" and node not in known:
                found.add(node)
            known.add(node)
    return found


@dataclass(slots=True)
class Fleet:
    """Nodes in the order in which they were first heard of; `numbers` is the place of each in it."""

    names: list[str] = field(default_factory=list)
    numbers: dict[str, int] = field(default_factory=dict)
    racks: dict[str, str] = field(default_factory=dict)  # node -> where it stands, if it has said so
    states: list[int] = field(default_factory=list)
    places: dict[int, str] = field(default_factory=dict)  # node of each place in the newest world
    inside: set[str] = field(default_factory=set)  # the same nodes
    touched: set[str] = field(default_factory=set)  # whose state has changed since that world began
    changes: list[Change] = field(default_factory=list)

    @classmethod
    def standing_by(cls, names: Sequence[str], time: float, late: Collection[str] = ()) -> "Fleet":
        """Nodes that are there from the beginning, though the ledger does not say so; late ones are not."""
        fleet = cls()
        fleet._set(0, time, names, "spare")
        if late:
            fleet._set(0, time, late, "absent")
        return fleet

    def on(self, number: int, event: Event) -> None:
        """What the event with this id changes."""
        node = event.text("node")
        if rack := event.text("rack"):
            self.racks[node] = rack
        if event.kind == "incarnation_started":
            self._begin(number, event)
        elif event.kind == "checked" and node:
            self._set(number, event.time, [node], "spare" if event.data.get("passed") else "set aside")
        elif node and (state := AFTER.get(event.kind)) and not self._knows_better(event.kind, node):
            self._set(number, event.time, [node], state)
        elif event.kind in ("finished", "stopped"):
            healthy = [node for node in self.inside if self._state(node) == "training"]
            self._set(number, event.time, healthy, "spare")
            self.places, self.inside = {}, set()

    def count(self) -> dict[str, int]:
        """How many nodes are in each state."""
        return {state: self.states.count(code) for state, code in CODES.items()}

    def _knows_better(self, kind: str, node: str) -> bool:
        """A node comes back to a world that it is in, or is lost from where it was set aside."""
        now = self._state(node) if node in self.numbers else "absent"
        return (kind == "node_joined" and now in ("training", "quarantined")) or (
            kind in ("fault", "node_lost") and now == "quarantined"
        )

    def _begin(self, number: int, event: Event) -> None:
        """The nodes of a new world train; who is not in it any more and has not failed stands by."""
        said, changed = event.data.get("nodes"), event.data.get("changed")
        if isinstance(said, Sequence) and not isinstance(said, str):
            left, inside = self.inside, {str(node) for node in said}
            self.places, self.inside = {place: str(node) for place, node in enumerate(said)}, inside
            left = left - inside
        elif isinstance(changed, Mapping):  # of a large world only what is new
            seats = {int(place): str(node) for place, node in changed.items()}
            left = {self.places.get(place, "") for place in seats}.difference(seats.values())
            self.places.update(seats)
            self.inside.difference_update(left)
            self.inside.update(seats.values())
            inside = set(seats.values()) | (self.touched & self.inside)
        else:
            return
        healthy = [node for node in left if node in self.numbers and self._state(node) == "training"]
        self._set(number, event.time, healthy, "spare")
        self._set(number, event.time, inside, "training")
        self.touched = set()

    def _state(self, node: str) -> str:
        return NAMES[self.states[self.numbers[node]]]

    def _set(self, number: int, time: float, nodes: Iterable[str], state: str) -> None:
        code = CODES[state]
        found = []
        for node in nodes:
            if node not in self.numbers:
                self.numbers[node] = len(self.names)
                self.names.append(node)
                self.states.append(CODES["absent"])
            if self.states[self.numbers[node]] != code:
                self.states[self.numbers[node]] = code
                found.append(self.numbers[node])
                self.touched.add(node)
        for _, group in groupby(enumerate(sorted(found)), lambda pair: pair[1] - pair[0]):
            run = [index for _, index in group]
            self.changes.append(Change(number, time, run[0], len(run), code))
