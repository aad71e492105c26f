"""
Which snapshot is in whose memory, and which step can be restored from there.

Only snapshots on the present course count: a step that was done again, from an earlier one, makes the first
try of it void, whoever still has it. Knows what nodes report, not whether they still live: who is lost is
forgotten.
"""

from bisect import bisect_right
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colossi.control.events import Held, Snapshot

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
    """Snapshots by node, and by step and block of ranks.

    The course is a staircase: an incarnation that began from a step voids what those before it did after it.
    """

    current: int = 0  # the incarnation that runs, or ran last; 0 while nothing has been begun
    course: list[tuple[int, int]] = field(default_factory=list)  # incarnation, where it began; rising
    oldest: int = 0  # of the incarnations whose course is known
    held: dict[str, Held] = field(default_factory=dict)
    _holders: dict[Key, dict[Block, tuple[str, ...]]] = field(default_factory=dict)

    def put(self, node: str, held: Held) -> None:
        """Take a node's word for what is in its memory now."""
        self.forget(node)
        for incarnation, world, rank, step, ranks in held:
            key = self._key(incarnation, world, step)
            if key and 0 <= rank < rank + ranks <= world:
                of_block = self._holders.setdefault(key, {})
                of_block[rank, ranks] = (*of_block.get((rank, ranks), ()), node)
        if held:
            self.held[node] = held

    def forget(self, node: str) -> None:
        """The node is lost, or its memory is not to be trusted."""
        for incarnation, world, rank, step, ranks in self.held.pop(node, ()):
            key = self._key(incarnation, world, step)
            of_block = self._holders.get(key, {}) if key else {}
            left = tuple(other for other in of_block.get((rank, ranks), ()) if other != node)
            if left:
                of_block[rank, ranks] = left
            else:
                of_block.pop((rank, ranks), None)

    def begin(self, incarnation: int, restored: int, writers: Container[str]) -> None:
        """An incarnation begins from a step (DISK makes all void), on nodes that will write anew."""
        if not self.current:
            self.oldest = self.oldest or self._last_era
        while self.course and self.course[-1][1] >= restored:
            self.course.pop()
        self.course.append((incarnation, restored))
        if len(self.course) > _COURSE:
            # What is so old is in nobody's memory: let the second count as the first, which is stricter.
            self.course[:2] = [(self.course[1][0], self.course[0][1])]
        self.current = incarnation
        kept = {node: held for node, held in self.held.items() if node not in writers}
        self.held, self._holders = {}, {}
        for node, held in kept.items():
            self.put(node, held)

    def newest(self, trusted: int | None, world: int) -> Whole | None:
        """The newest step that is whole, none above the trusted one; of this world rather than of another."""
        whole = [
            key
            for key, of_block in self._holders.items()
            if (trusted is None or key[1] <= trusted) and _cover(of_block, key[0])
        ]
        if not self.current:  # nothing is known of what came after what, but that the last one is right
            whole = [key for key in whole if key[2] == self._last_era]
        best = max(whole, key=lambda key: (key[1], key[0] == world, key[0]), default=None)
        if best is None:
            return None
        return Whole(world=best[0], step=best[1], holders=self._holders[best])

    @property
    def _last_era(self) -> int:
        return max((key[2] for key in self._holders), default=0)

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
            "held": {node: [list(snapshot) for snapshot in held] for node, held in self.held.items()},
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Memory":
        """What `state` told."""
        course = [(begun, step) for begun, step in state["course"]]
        memory = cls(current=state["current"], course=course, oldest=state["oldest"])
        for node, held in state["held"].items():
            memory.put(node, tuple(Snapshot(*snapshot) for snapshot in held))
        return memory


def _cover(blocks: Iterable[Block], world: int) -> bool:
    """Whether they have every rank of it."""
    end = 0
    for first, ranks in sorted(blocks):
        if first > end:
            return False
        if first + ranks > end:
            end = first + ranks
    return end >= world
