"""A machine of the tests' cluster: its agent, its workers, and what is in its memory."""

from collections import deque
from dataclasses import dataclass, field

from colossi.control.actions import Start, Stop
from colossi.control.events import Event, Held, Snapshot

SLOTS = 2  # a memory is double-buffered


@dataclass
class Node:
    """A machine, its agent and its workers."""

    name: str
    rack: str
    up: bool = True
    linked: bool = True  # to the controller and to the others
    mute: bool = False  # it cannot stop its workers
    anew: bool = False  # it has come again, and the controller speaks to a connection that is gone
    runs: int = 0  # the incarnation whose workers are on it
    well: bool = False  # they have their state and work
    memory: dict[tuple[int, int, int], int] = field(default_factory=dict)  # world, rank, step -> incarnation
    inbox: deque[Start | Stop] = field(default_factory=deque)
    outbox: deque[Event] = field(default_factory=deque)

    def held(self) -> Held:
        """Every other node tells neighbours together, so that blocks of all kinds meet."""
        blocks: list[Snapshot] = []
        together = int(self.name[1:]) % 2
        for (world, rank, step), origin in sorted(self.memory.items(), key=lambda one: (one[0][2], one[0])):
            new = Snapshot(origin, world, rank, step)
            for last in blocks[-1:] if together else []:
                if last == (origin, world, rank - last.ranks, step, last.ranks):
                    new = last._replace(ranks=last.ranks + 1)
                    blocks.pop()
            blocks.append(new)
        return tuple(blocks)

    def keep(self, world: int, rank: int, step: int, origin: int) -> None:
        """Over the oldest that was written; another world's go when this one's slots are in use."""
        self.memory.pop((world, rank, step), None)
        self.memory[world, rank, step] = origin
        written = [key for key in self.memory if key[:2] == (world, rank)]
        for old in written[:-SLOTS]:
            del self.memory[old]
        if len(written) >= SLOTS:
            self.memory = {key: origin for key, origin in self.memory.items() if key[0] == world}
