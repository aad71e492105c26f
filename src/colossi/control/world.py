"""
Who sits where: the nodes of an incarnation by place, and how the places are filled anew.

Those that stay keep their places, so that what they have in memory is what they need. Knows nothing of
why a place has become vacant.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from colossi.control.fleet import Fleet
from colossi.control.policy import buddy_places


@dataclass(slots=True)
class World:
    """The last incarnation's nodes, while it runs and until the next one begins; empty before the first."""

    nodes: tuple[str, ...] = ()  # by place
    racks: tuple[str, ...] = ()  # by place
    replicate: int = 0  # copies of the model
    vacant: set[int] = field(default_factory=set)  # places whose node must not be used any more
    _places: dict[str, int] = field(default_factory=dict)  # of those that are not vacant
    _buddies: tuple[int | None, ...] = ()  # by place

    @classmethod
    def of(cls, nodes: tuple[str, ...], racks: tuple[str, ...], replicate: int) -> "World":
        """A world without vacant places."""
        places = {node: place for place, node in enumerate(nodes)}
        return cls(nodes=nodes, racks=racks, replicate=replicate, _places=places)

    def __contains__(self, node: object) -> bool:
        return node in self._places

    def __len__(self) -> int:
        """Places, vacant ones too."""
        return len(self.nodes)

    @property
    def survivors(self) -> int:
        """How many places are not vacant."""
        return len(self.nodes) - len(self.vacant)

    def vacate(self, node: str) -> None:
        """The node must not be used any more."""
        place = self._places.pop(node, None)
        if place is not None:
            self.vacant.add(place)

    def connected(self, fleet: Fleet) -> tuple[str, ...]:
        """Its nodes that are not lost; the same tuple where none is."""
        nodes = self.nodes
        for place in sorted(self.vacant, reverse=True):
            if nodes[place] not in fleet.racks:
                nodes = nodes[:place] + nodes[place + 1 :]
        return nodes

    def fill(self, fleet: Fleet) -> list[tuple[str, str]]:
        """Give each vacant place a spare; the pairs of a new node and the one whose place it takes."""
        nodes, promoted = list(self.nodes), []
        racks = [fleet.racks.get(node, rack) for node, rack in zip(nodes, self.racks, strict=True)]
        for place in sorted(self.vacant, key=lambda place: (not fleet.is_spare(nodes[place]), place)):
            lost = nodes[place]
            nodes[place] = fleet.take_spare(lost, racks[place])
            racks[place] = fleet.racks[nodes[place]]
            self._places[nodes[place]] = place
            if nodes[place] != lost:
                promoted.append((nodes[place], lost))
        if self.vacant:
            self.nodes = tuple(nodes)
        self._rack(tuple(racks))
        self.vacant.clear()
        return promoted

    def resize(self, fleet: Fleet, places: int, replicate: int) -> None:
        """Seat so many nodes anew: first those that stay, in their order, then spares."""
        survivors = [node for place, node in enumerate(self.nodes) if place not in self.vacant]
        for node in survivors[places:]:
            fleet.add_spare(node)
        new = [fleet.take_spare("", "") for _ in range(places - len(survivors))]
        new.sort(key=lambda node: (fleet.racks[node], len(node), node))
        self.nodes = (*survivors[:places], *new)
        self.replicate = replicate
        self.vacant.clear()
        self._places = {node: place for place, node in enumerate(self.nodes)}
        self._rack(tuple(fleet.racks[node] for node in self.nodes))

    def buddies(self) -> tuple[str, ...]:
        """By place, the node that keeps copies of its snapshots; "" for none."""
        if len(self._buddies) != len(self.nodes):
            self._buddies = buddy_places(self.racks)
        return tuple("" if place is None else self.nodes[place] for place in self._buddies)

    def _rack(self, racks: tuple[str, ...]) -> None:
        if racks != self.racks:
            self._buddies = ()
        self.racks = racks

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "nodes": list(self.nodes),
            "racks": list(self.racks),
            "replicate": self.replicate,
            "vacant": sorted(self.vacant),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "World":
        """What `state` told."""
        world = cls.of(tuple(state["nodes"]), tuple(state["racks"]), state["replicate"])
        for place in state["vacant"]:
            world.vacate(world.nodes[place])
        return world
