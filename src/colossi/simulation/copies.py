"""
In whose memory the simulated snapshots are, told as a world tells it: all alike, but for a few places.

A step that all have taken is with each place's node and with its buddy. Who is lost has nothing any more; who
takes a place fetches what it needs, and has no copies for others before the next snapshot. Costs as much as
changes, not as many nodes as there are.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from colossi.control.actions import DISK, Start
from colossi.control.events import Ring


@dataclass(slots=True)
class Copies:
    """Of the world of the last Start."""

    per_node: int
    nodes: Sequence[str] = ()
    buddies: Sequence[str] = ()
    places: dict[str, int] = field(default_factory=dict)  # node -> its place
    wards: dict[str, int] = field(default_factory=dict)  # node -> the place that it keeps copies for
    step: int | None = None  # the newest that all have taken; None for none
    origin: int = 0  # the incarnation that it was taken in
    otherwise: dict[int, tuple[str, ...]] = field(default_factory=dict)  # place -> who has its snapshots
    gone: set[str] = field(default_factory=set)  # nodes that this world will have to do without

    def begin(self, start: Start) -> None:
        """All sit as it says, and have what it gives them from the memory of others; none has left."""
        if len(start.nodes) != len(self.nodes):
            self._seat(start)
            self.step, self.otherwise = None, {}
            return
        renewed = [place for node in sorted(self.gone) if (place := self.places.get(node)) is not None]
        fetching = {rank // self.per_node for rank in start.fetch}
        had = {place: self.holders(place) for place in self._touched(start, renewed)}
        self._reseat(start, renewed)
        if start.restore == DISK or start.sources is not None:
            self.step, self.otherwise = None, {}
            return
        for place, holders in had.items():
            self.otherwise[place] = holders
        for place in fetching:
            self.otherwise[place] = (*self.holders(place), start.nodes[place])

    def take(self, step: int, incarnation: int) -> None:
        """A snapshot of all, whole everywhere."""
        self.step, self.origin, self.otherwise = step, incarnation, {}

    def lose(self, node: str) -> None:
        """What was in its memory is gone, and it is not of this world any more."""
        self.leave(node)
        for place in (self.places.get(node), self.wards.get(node)):
            if place is not None:
                self.otherwise[place] = tuple(one for one in self.holders(place) if one != node)

    def leave(self, node: str) -> None:
        """It will not sit in its place again, though what it has can still be read."""
        self.gone.add(node)

    def holders(self, place: int) -> tuple[str, ...]:
        """The nodes that have the snapshots of a place."""
        if place in self.otherwise:
            return self.otherwise[place]
        return tuple(node for node in (self.nodes[place], self.buddies[place]) if node)

    def ring(self) -> tuple[Ring, ...]:
        """What the nodes hold; nothing where no step is whole."""
        if self.step is None:
            return ()
        return (
            Ring(
                incarnation=self.origin,
                world=len(self.nodes) * self.per_node,
                step=self.step,
                nodes=self.nodes,
                buddies=self.buddies,
                otherwise=dict(self.otherwise),
            ),
        )

    # --- who sits where -----------------------------------------------------------------------------------

    def _touched(self, start: Start, renewed: Iterable[int]) -> set[int]:
        """The places whose node or whose buddy will be another; all are looked at if pairs have changed."""
        if self._pairs_changed(start, renewed):
            both = zip(self.nodes, start.nodes, self.buddies, start.buddies, strict=True)
            return {place for place, (a, b, c, d) in enumerate(both) if a != b or c != d}
        wards = (self.wards.get(self.nodes[place]) for place in renewed)
        return {*renewed, *(place for place in wards if place is not None)}

    def _pairs_changed(self, start: Start, renewed: Iterable[int]) -> bool:
        """Whether some place's buddy sits elsewhere than it did."""
        for place in renewed:
            ward = self.wards.get(self.nodes[place])
            if ward is not None and start.buddies[ward] != start.nodes[place]:
                return True
            buddy = self.places.get(self.buddies[place])
            if buddy is not None and start.buddies[place] != start.nodes[buddy]:
                return True
        return False

    def _reseat(self, start: Start, renewed: Iterable[int]) -> None:
        if self._pairs_changed(start, renewed):
            self._seat(start)
            return
        moves = [(self.nodes[place], start.nodes[place], place) for place in renewed]
        wards = {new: self.wards.get(old) for old, new, _ in moves}
        for old, _, _ in moves:
            self.places.pop(old, None)
            self.wards.pop(old, None)
        for _, new, place in moves:
            self.places[new] = place
            if (ward := wards[new]) is not None:
                self.wards[new] = ward
        self.nodes, self.buddies, self.gone = start.nodes, start.buddies, set()

    def _seat(self, start: Start) -> None:
        self.nodes, self.buddies, self.gone = start.nodes, start.buddies, set()
        self.places = {node: place for place, node in enumerate(start.nodes)}
        self.wards = {buddy: place for place, buddy in enumerate(start.buddies) if buddy}
