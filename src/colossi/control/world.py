"""
Who sits where: the nodes of an incarnation by place, and how the places are filled anew.

Those that stay keep their places, so that what they have in memory is what they need. Filling a few places
costs little however many there are. Knows nothing of why a place has become vacant.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from colossi.control.fleet import Fleet
from colossi.control.policy import buddy_places
from colossi.control.row import Row


@dataclass(slots=True)
class World:
    """The last incarnation's nodes, while it runs and until the next one begins; empty before the first."""

    nodes: Row = field(default_factory=Row)  # by place
    racks: list[str] = field(default_factory=list)  # by place
    replicate: int = 0  # copies of the model
    vacant: set[int] = field(default_factory=set)  # places whose node must not be used any more
    renewed: tuple[int, ...] = ()  # places that were vacant when this incarnation began
    places: dict[str, int] = field(default_factory=dict)  # of all nodes; never another dictionary's copy
    _buddies: list[int | None] = field(default_factory=list)  # by place; empty if to be found anew
    _wards: dict[int, int] = field(default_factory=dict)  # the places whose buddy a place is
    _names: Row = field(default_factory=Row)  # of the buddies, by place

    @classmethod
    def of(cls, nodes: Iterable[str], racks: Iterable[str], replicate: int) -> "World":
        """A world without vacant places."""
        row = Row(nodes)
        places = {node: place for place, node in enumerate(row)}
        return cls(nodes=row, racks=list(racks), replicate=replicate, places=places)

    def __contains__(self, node: object) -> bool:
        return node in self.places and self.places[str(node)] not in self.vacant

    def __len__(self) -> int:
        """Places, vacant ones too."""
        return len(self.nodes)

    @property
    def survivors(self) -> int:
        """How many places are not vacant."""
        return len(self.nodes) - len(self.vacant)

    def vacate(self, node: str) -> None:
        """The node must not be used any more."""
        if node in self.places:
            self.vacant.add(self.places[node])

    def stands_in(self, node: str, rack: str) -> None:
        """Where a node is, if it sits here: who takes over from another controller hears that late."""
        place = self.places.get(node)
        if place is not None and self.racks[place] != rack:
            self.racks[place] = rack
            self._pair(())

    def connected(self, fleet: Fleet) -> Row:
        """Its nodes that are not lost; the same row where none is."""
        return self.nodes.without(place for place in self.vacant if self.nodes[place] not in fleet.racks)

    def fill(self, fleet: Fleet) -> list[tuple[str, str]]:
        """Give each vacant place a spare; the pairs of a new node and the one whose place it takes."""
        self.renewed = tuple(sorted(self.vacant))
        if not self.vacant:
            return []
        promoted, moved = [], []
        seated: dict[int, str] = {}
        named: dict[int, str] = {}  # by ward
        for place in sorted(self.vacant, key=lambda place: (not fleet.is_spare(self.nodes[place]), place)):
            lost, rack = self.nodes[place], self.racks[place]
            new = fleet.take_spare(lost, fleet.racks.get(lost, rack))
            if new != lost:
                seated[place] = new
                del self.places[lost]
                self.places[new] = place
                promoted.append((new, lost))
            if self.racks[place] != fleet.racks[new]:
                self.racks[place] = fleet.racks[new]
                moved.append(place)
            if place in self._wards:
                named[self._wards[place]] = new
        self.nodes, self._names = self.nodes.changed(seated), self._names.changed(named)
        self.vacant.clear()
        for place in moved:
            self._part(place)
        return promoted

    def resize(self, fleet: Fleet, places: int, replicate: int) -> None:
        """Seat so many nodes anew: first those that stay, in their order, then spares."""
        survivors = [node for place, node in enumerate(self.nodes) if place not in self.vacant]
        for node in survivors[places:]:
            fleet.add_spare(node)
        new = [fleet.take_spare("", "") for _ in range(places - len(survivors))]
        new.sort(key=lambda node: (fleet.racks[node], len(node), node))
        self.nodes = Row((*survivors[:places], *new))
        self.replicate = replicate
        self.vacant.clear()
        self.renewed = ()
        self.places.clear()
        self.places |= {node: place for place, node in enumerate(self.nodes)}
        self.racks = [fleet.racks[node] for node in self.nodes]
        self._pair(())

    def buddies(self) -> Row:
        """By place, the node that keeps copies of its snapshots; "" for none."""
        if len(self._buddies) != len(self.nodes):
            self._pair(buddy_places(self.racks))
        return self._names

    # --- buddies: found at once for all, then kept, but where a new node stands in the rack of its own ----

    def _pair(self, buddies: Iterable[int | None]) -> None:
        self._buddies = list(buddies)
        self._wards = {buddy: place for place, buddy in enumerate(self._buddies) if buddy is not None}
        nodes = tuple(self.nodes)
        self._names = Row("" if buddy is None else nodes[buddy] for buddy in self._buddies)

    def _part(self, place: int) -> None:
        """A place and its buddy, or its ward, in one rack: let two pairs change, or find all anew."""
        for one in (place, self._wards.get(place)) if self._buddies else ():
            if one is None or not self._together(one, one):
                continue
            for other in (*range(one + 1, len(self.nodes)), *range(one)):
                if not self._together(one, other) and not self._together(other, one):
                    self._swap(one, other)
                    break
            else:
                self._pair(())
                return

    def _together(self, place: int, other: int) -> bool:
        """Whether a place cannot have the buddy of another one, as that is itself or stands in its rack."""
        buddy = self._buddies[other]
        return buddy is None or buddy == place or self.racks[buddy] == self.racks[place]

    def _swap(self, one: int, other: int) -> None:
        buddies, names = self._buddies, self._names
        buddies[one], buddies[other] = buddies[other], buddies[one]
        self._names = names.changed({one: names[other], other: names[one]})
        for place in (one, other):
            buddy = buddies[place]
            if buddy is not None:
                self._wards[buddy] = place

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "nodes": list(self.nodes),
            "racks": list(self.racks),
            "replicate": self.replicate,
            "vacant": sorted(self.vacant),
            "renewed": list(self.renewed),
            "buddies": list(self._buddies),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "World":
        """What `state` told."""
        world = cls.of(state["nodes"], state["racks"], state["replicate"])
        world.vacant, world.renewed = set(state["vacant"]), tuple(state["renewed"])
        world._pair(state["buddies"])
        return world
