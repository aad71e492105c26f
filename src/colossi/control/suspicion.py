"""
A suspicion of silent corruption, from the step where copies of the same weights differed to the culprit.

The step is done again from the state before it. A rank whose first fingerprint is not the one of the second
try had computed something else, so it, or its memory, was wrong: the others would have repeated themselves.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from colossi.control.events import CorruptionSuspected, Fingerprint


@dataclass(slots=True)
class Suspicion:
    """What is known so far."""

    incarnation: int  # that computed it
    world: int  # its ranks
    step: int
    trusted: int  # the last step whose state is beyond doubt
    first: dict[int, Fingerprint]  # rank -> its fingerprint, of those that are not compared yet
    compared: int = 0  # how many had a first fingerprint
    times: int = 1  # how often in a row the copies differed after this step
    told: bool = False  # whether the checkpoints above the trusted step are set aside
    redone: bool = False  # whether the step is done again, so that newer states can be trusted

    @classmethod
    def of(cls, event: CorruptionSuspected, world: int) -> "Suspicion":
        """The first word of it, in a world of so many ranks."""
        trusted = event.step - 1 if event.agreed is None else event.agreed
        first = {rank: value for rank, value in event.fingerprints.items() if 0 <= rank < world}
        return cls(event.incarnation, world, event.step, trusted, first, compared=len(first))

    def add(self, other: "Suspicion") -> None:
        """Another rank's word of the same."""
        self.first.update(other.first)
        self.compared = len(self.first)

    def culprits(self, fingerprints: Mapping[int, Fingerprint]) -> list[int]:
        """The ranks that computed something else the first time; each rank is compared once.

        A wrong gradient goes into everybody's weights: who had one is to blame, not who was given it. Where
        all gradients were right, it is who has other weights.
        If that are most of them, the program does not repeat itself, and says nothing about anybody.
        """
        before = {rank: self.first.pop(rank) for rank in sorted(fingerprints) if rank in self.first}
        again = {rank: fingerprints[rank] for rank in before}
        work = [rank for rank in before if _own_work(before[rank]) != _own_work(again[rank])]
        changed = work or [rank for rank in before if before[rank] != again[rank]]
        return changed if 2 * len(changed) <= self.compared else []

    def state(self) -> dict[str, Any]:
        """As JSON."""
        fields = {name: getattr(self, name) for name in self.__slots__}
        return fields | {"first": sorted(self.first.items())}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Suspicion":
        """What `state` told."""
        first = {rank: tuple(value) if isinstance(value, list) else value for rank, value in state["first"]}
        return cls(**{**state, "first": first})


def _own_work(fingerprint: Fingerprint) -> int:
    """The part that no other rank can spoil: of the rank's own gradient."""
    return fingerprint[0] if isinstance(fingerprint, tuple) else fingerprint
