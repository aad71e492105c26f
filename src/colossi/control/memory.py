"""
Which snapshot is in whose memory, and which step can be restored from there.

Only snapshots on the present course count: a step that was done again, from an earlier one, makes the first
try of it void, whoever still has it. Knows what nodes report, not whether they still live: who is lost is
forgotten.
"""

from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from colossi.control.events import Held, Ring, Snapshot
from colossi.control.world import World

Key = tuple[int, int, int]  # world, step, and the incarnation where its course is not known, else 0
Block = tuple[int, int]  # the first rank, how many
_COURSE = 64  # incarnations that are told apart


@dataclass(slots=True)
class Whole:
    """A step that every rank of a world can be given from memory."""

    world: int
    step: int
    holders: Mapping[Block, Sequence[str]]  # nodes; blocks may overlap

    def by_rank(self) -> dict[int, tuple[str, ...]]:
        """The nodes that hold each rank's."""
        found: dict[int, tuple[str, ...]] = {}
        for (first, ranks), nodes in self.holders.items():
            for rank in range(first, first + ranks):
                found[rank] = (*found.get(rank, ()), *nodes)
        return found


@dataclass(slots=True)
class Memory:
    """What each node holds.

    The course is a staircase: an incarnation that began from a step voids what those before it did after it.
    """

    current: int = 0  # the incarnation that runs, or ran last; 0 while nothing has been begun
    course: list[tuple[int, int]] = field(default_factory=list)  # incarnation, where it began; rising
    oldest: int = 0  # of the incarnations whose course is known
    last_era: int = 0  # the highest incarnation that was told of before anything was begun
    held: dict[str, Held] = field(default_factory=dict)
    rings: tuple[Ring, ...] = ()  # what nodes hold alike
    gone: set[str] = field(default_factory=set)  # who has said otherwise since, or is forgotten

    def put(self, node: str, held: Held) -> None:
        """Take a node's word for what is in its memory now."""
        self.forget(node)
        if held:
            self.held[node] = held
        if not self.current:
            self.last_era = max(self.last_era, *(snapshot.incarnation for snapshot in held), 0)

    def forget(self, node: str) -> None:
        """The node is lost, or its memory is not to be trusted."""
        self.held.pop(node, None)
        if self.rings:
            self.gone.add(node)

    def put_rings(self, rings: tuple[Ring, ...], unreadable: Iterable[str]) -> None:
        """Take the word of a whole world for what its nodes hold alike, but for these nodes."""
        self.rings, self.gone = rings, set(unreadable)

    def begin(self, incarnation: int, restored: int, writers: Container[str]) -> None:
        """An incarnation begins from a step (DISK makes all void), on nodes that will write anew."""
        if not self.current:
            self.oldest = self.oldest or self.last_era
        while self.course and self.course[-1][1] >= restored:
            self.course.pop()
        self.course.append((incarnation, restored))
        if len(self.course) > _COURSE:
            # What is so old is in nobody's memory: let the second count as the first, which is stricter.
            self.course[:2] = [(self.course[1][0], self.course[0][1])]
        self.current = incarnation
        self.held = {node: held for node, held in self.held.items() if node not in writers}
        self.rings, self.gone = (), set()

    def newest(self, trusted: int | None, world: int) -> Whole | None:
        """The newest step that is whole, none above the trusted one; of this world rather than of another."""
        holders = self._holders()
        whole = [
            key
            for key, of_block in holders.items()
            if (trusted is None or key[1] <= trusted) and _cover(of_block, key[0])
        ]
        if not self.current:  # nothing is known of what came after what, but that the last one is right
            whole = [key for key in whole if key[2] == self.last_era]
        best = max(whole, key=lambda key: (key[1], key[0] == world, key[0]), default=None)
        if best is None:
            return None
        return Whole(world=best[0], step=best[1], holders=holders[best])

    def newest_ring(self, trusted: int | None, world: World) -> tuple[Ring, dict[int, list[str]]] | None:
        """The newest ring that is whole, and who holds the snapshots of each place that is not as it was.

        All other places have theirs at home. Costs as much as has changed, if the world has kept its size.
        """
        singles: dict[Key, dict[Block, list[str]]] | None = None
        for ring in sorted(self.rings, key=lambda ring: ring.step, reverse=True):
            key = self._key(ring.incarnation, ring.world, ring.step)
            if key is None or (trusted is not None and ring.step > trusted):
                continue
            if singles is None:
                singles = self._holders()
            of_block, each = singles.get(key, {}), ring.world // len(ring.nodes)
            holders = {
                place: [node for node in ring.holders(place) if node not in self.gone]
                + of_block.get((place * each, each), [])
                for place in self._changed(ring, world)
            }
            if all(holders.values()):
                return ring, holders
        return None

    def _changed(self, ring: Ring, world: World) -> Iterable[int]:
        """The places of a ring whose node is another now, or whose snapshots it may no longer have."""
        if len(world) != len(ring.nodes):
            return range(len(ring.nodes))
        forgotten = (world.places[node] for node in self.gone if node in world.places)
        return set(ring.otherwise).union(world.renewed, forgotten)

    def _holders(self) -> dict[Key, dict[Block, list[str]]]:
        """Of what is on the present course. A loop over all nodes, so nothing is called for most of them."""
        holders: dict[Key, dict[Block, list[str]]] = {}
        alike: dict[tuple[int, int, int], dict[Block, list[str]]] = {}  # most nodes hold the same few steps
        for node, held in self.held.items():
            for incarnation, world, rank, step, ranks in held:
                known = incarnation, world, step
                if known not in alike:
                    key = self._key(incarnation, world, step)
                    alike[known] = holders.setdefault(key, {}) if key else {}
                if 0 <= rank < rank + ranks <= world:
                    of_block, block = alike[known], (rank, ranks)
                    if block in of_block:
                        of_block[block] += [node]
                    else:
                        of_block[block] = [node]
        return holders

    def _key(self, incarnation: int, world: int, step: int) -> Key | None:
        """Under what such snapshots are counted; None if they are not on the present course."""
        if not self.current:
            return world, step, incarnation
        if not self.oldest <= incarnation <= self.current:
            return None
        later = bisect_right(self.course, incarnation, key=lambda begun: begun[0])
        if later < len(self.course) and step > self.course[later][1]:
            return None
        return world, step, 0

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "current": self.current,
            "course": [list(begun) for begun in self.course],
            "oldest": self.oldest,
            "last_era": self.last_era,
            "held": {node: [list(snapshot) for snapshot in held] for node, held in self.held.items()},
            "rings": list(map(_state, self.rings)),
            "gone": sorted(self.gone),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Memory":
        """What `state` told."""
        course = [(begun, step) for begun, step in state["course"]]
        memory = cls(state["current"], course, state["oldest"], state["last_era"])
        for node, held in state["held"].items():
            memory.put(node, tuple(Snapshot(*snapshot) for snapshot in held))
        memory.rings = tuple(map(_ring, state["rings"]))
        memory.gone = set(state["gone"])
        return memory


def _state(ring: Ring) -> dict[str, Any]:
    by_place = {"nodes": list(ring.nodes), "buddies": list(ring.buddies)}
    small = replace(ring, nodes=(), buddies=())  # asdict copies
    return {**asdict(small), **by_place, "otherwise": sorted(ring.otherwise.items())}


def _ring(state: Mapping[str, Any]) -> Ring:
    by_place = {name: tuple(state[name]) for name in ("nodes", "buddies")}
    otherwise = {place: tuple(nodes) for place, nodes in state["otherwise"]}
    return Ring(**{**state, **by_place, "otherwise": otherwise})


def _cover(blocks: Iterable[Block], world: int) -> bool:
    """Whether they have every rank of it."""
    end = 0
    for first, ranks in sorted(blocks):
        if first > end:
            return False
        if first + ranks > end:
            end = first + ranks
    return end >= world
