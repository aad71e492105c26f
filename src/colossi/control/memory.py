"""
Which snapshot is in whose memory, and which step can be restored from there.

Only snapshots on the present course count: a step that was done again, from an earlier one, makes the first
try of it void, whoever still has it. Knows what nodes report, not whether they still live: who is lost is
forgotten.
"""

from bisect import bisect_right
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from colossi.control.events import Held, Snapshot

Key = tuple[int, int, int]  # world, step, and the incarnation where its course is not known, else 0
_COURSE = 64  # incarnations that are told apart


@dataclass(slots=True)
class Whole:
    """A step that every rank of a world can be given from memory."""

    world: int
    step: int
    holders: Mapping[int, Sequence[str]]  # rank -> nodes


@dataclass(slots=True)
class Memory:
    """Snapshots by node, and by step and rank.

    The course is a staircase: an incarnation that began from a step voids what those before it did after it.
    """

    current: int = 0  # the incarnation that runs, or ran last; 0 while nothing has been begun
    course: list[tuple[int, int]] = field(default_factory=list)  # incarnation, where it began; rising
    oldest: int = 0  # of the incarnations whose course is known
    held: dict[str, Held] = field(default_factory=dict)
    _holders: dict[Key, dict[int, tuple[str, ...]]] = field(default_factory=dict)

    def put(self, node: str, held: Held) -> None:
        """Take a node's word for what is in its memory now."""
        self.forget(node)
        alike: dict[Key, dict[int, tuple[str, ...]]] = {}  # a node holds many ranks of the same few steps,
        together: dict[tuple[str, ...], tuple[str, ...]] = {}  # which the same few nodes hold
        for incarnation, world, rank, step in held:
            of_rank = alike.get((incarnation, world, step))
            if of_rank is None:
                key = self._key(incarnation, world, step)
                of_rank = alike[incarnation, world, step] = self._holders.setdefault(key, {}) if key else {}
            if 0 <= rank < world:
                others = of_rank.get(rank, ())
                all_of_them = together.get(others)
                if all_of_them is None:
                    all_of_them = together[others] = (*others, node)
                of_rank[rank] = all_of_them
        if held:
            self.held[node] = held

    def forget(self, node: str) -> None:
        """The node is lost, or its memory is not to be trusted."""
        for incarnation, world, rank, step in self.held.pop(node, ()):
            key = self._key(incarnation, world, step)
            of_rank = self._holders.get(key, {}) if key else {}
            left = tuple(other for other in of_rank.get(rank, ()) if other != node)
            if left:
                of_rank[rank] = left
            else:
                of_rank.pop(rank, None)

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
            for key, of_rank in self._holders.items()
            if len(of_rank) == key[0] and (trusted is None or key[1] <= trusted)
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
