"""Which incarnation's workers may run on which node: on those of a world alike, on others one by one."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Running:
    """Beginning an incarnation costs the same however many nodes it has: they are those of the world."""

    incarnation: int = 0  # that was begun on all of `members`
    members: Mapping[str, int] = field(default_factory=dict)  # node -> place, of the world, which owns it
    left: set[str] = field(default_factory=set)  # members on which it does not run any more
    others: dict[str, int] = field(default_factory=dict)  # node -> incarnation

    def begin(self, incarnation: int, members: Mapping[str, int]) -> None:
        """On all of these, and nowhere else."""
        self.incarnation, self.members = incarnation, members
        self.left, self.others = set(), {}

    def __len__(self) -> int:
        return len(self.members) - len(self.left) + len(self.others)

    def __contains__(self, node: object) -> bool:
        return node in self.others or (node in self.members and node not in self.left)

    def __iter__(self) -> Iterator[str]:
        """The members by place, then the others in the order in which they came."""
        yield from sorted(self.members.keys() - self.left, key=self.members.__getitem__)
        yield from self.others

    def of(self, node: str) -> int:
        """The incarnation; 0 for none."""
        if node in self.others:
            return self.others[node]
        return self.incarnation if node in self.members and node not in self.left else 0

    def put(self, node: str, incarnation: int) -> None:
        """What runs on this node is known to be this."""
        self.discard(node)
        self.others[node] = incarnation

    def discard(self, node: str) -> None:
        """Nothing runs on it any more."""
        self.others.pop(node, None)
        if node in self.members:
            self.left.add(node)

    def end(self, but: Iterable[str]) -> list[str]:
        """It runs on no other nodes any more; which of those had been told of one by one."""
        still = [node for node in but if self.of(node) == self.incarnation]
        alone = [node for node, ran in self.others.items() if ran == self.incarnation and node not in still]
        self.members, self.left = {}, set()
        for node in alone:
            del self.others[node]
        self.others |= dict.fromkeys(still, self.incarnation)
        return alone

    def state(self) -> dict[str, Any]:
        """As JSON, but for the members: who has ended is in nobody's world any more."""
        return {
            "incarnation": self.incarnation,
            "left": sorted(self.left),
            "others": dict(self.others),
            "all": bool(self.members),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any], places: Mapping[str, int]) -> "Running":
        """What `state` told; `places` are the world's."""
        members = places if state["all"] else {}
        return cls(state["incarnation"], members, set(state["left"]), dict(state["others"]))
