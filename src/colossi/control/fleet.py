"""
Which nodes there are and what each is good for: in use, spare, set aside, quarantined, or not yet still.

Knows nothing of ranks, steps or incarnations but their numbers. Every change costs the same however many
nodes there are.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from colossi.control import policy
from colossi.control.running import Running


@dataclass(slots=True)
class Fleet:
    """Nodes by name; dictionaries keep the order in which they came, so that deciding repeats exactly."""

    racks: dict[str, str] = field(default_factory=dict)  # node -> rack, of all that are connected
    runs: Running = field(default_factory=Running)
    spares: dict[str, dict[str, None]] = field(
        default_factory=dict
    )  # rack -> nodes that could be used at once
    spare_count: int = 0
    aside: dict[str, str] = field(
        default_factory=dict
    )  # node -> why it is to be checked before it is used again
    quarantined: dict[str, bool] = field(default_factory=dict)  # node -> whether its memory may still be read
    strikes: dict[str, list[float]] = field(default_factory=dict)  # node -> when it failed
    corruptions: dict[str, int] = field(default_factory=dict)  # node -> how often its results were wrong

    def connect(self, node: str, rack: str) -> None:
        """A node is there; nothing is said yet of what it is good for."""
        self.drop_spare(node)
        self.racks[node] = rack

    def lose(self, node: str) -> None:
        """A node is gone, and whatever ran on it."""
        self.drop_spare(node)
        self.aside.pop(node, None)
        self.runs.discard(node)
        self.racks.pop(node, None)

    def add_spare(self, node: str) -> None:
        """A node is connected, sound as far as one knows, and nothing runs on it."""
        of_rack = self.spares.setdefault(self.racks[node], {})
        self.spare_count += node not in of_rack
        of_rack[node] = None

    def drop_spare(self, node: str) -> None:
        """A node is taken into use, or can no longer be."""
        rack = self.racks.get(node, "")
        of_rack = self.spares.get(rack, {})
        if node in of_rack:
            del of_rack[node]
            self.spare_count -= 1
            if not of_rack:
                del self.spares[rack]

    def is_spare(self, node: str) -> bool:
        """Whether it could be used at once."""
        return node in self.spares.get(self.racks.get(node, ""), {})

    def take_spare(self, wanted: str, rack: str) -> str:
        """The spare for a place: the node that had it, or one of its rack, or whichever came first."""
        if self.is_spare(wanted):
            node = wanted
        else:
            node = next(iter(self.spares.get(rack) or next(iter(self.spares.values()))))
        self.drop_spare(node)
        return node

    def quarantine(self, node: str, *, readable: bool) -> None:
        """Never use it again; `readable` is whether the snapshots in its memory are sound."""
        self.drop_spare(node)
        self.aside.pop(node, None)
        self.quarantined[node] = readable and self.quarantined.get(node, True)

    def strike(self, node: str, now: float) -> list[float]:
        """A node has failed; the times of its failures that still count."""
        strikes = self.strikes[node] = [*policy.recent(self.strikes.get(node, []), now), now]
        return strikes

    def state(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self) | {"runs": self.runs.state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any], places: Mapping[str, int]) -> "Fleet":
        """What `state` told; `places` are the world's."""
        return cls(**{**state, "runs": Running.from_state(state["runs"], places)})
