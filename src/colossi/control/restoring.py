"""From where each rank gets its state when an incarnation begins."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from colossi.control.actions import DISK
from colossi.control.events import Ring
from colossi.control.memory import Memory
from colossi.control.world import World


@dataclass(frozen=True, slots=True)
class Restore:
    """The fields of the same names in `Start`."""

    restore: int
    fetch: Mapping[int, str]
    sources: Mapping[int, str] | None


def choose(memory: Memory, world: World, per_node: int, trusted: int | None, saved: int) -> Restore:
    """The newest step that is whole in memory, if none newer is on the disk; none above the trusted one.

    A rank's own node comes first, then any other that holds its snapshot.
    """
    ranks = len(world) * per_node
    alike = memory.newest_ring(trusted, world)
    whole = memory.newest(trusted, ranks) if memory.held or not alike else None
    if alike and (whole is None or whole.step <= alike[0].step):
        return Restore(DISK, {}, None) if saved > alike[0].step else _of_ring(*alike, world, per_node)
    if whole is None or saved > whole.step:
        return Restore(DISK, {}, None)
    if whole.world != ranks:
        return Restore(whole.step, {}, {rank: nodes[0] for rank, nodes in sorted(whole.by_rank().items())})
    at_home = whole.holders.get
    strangers = [
        place
        for place, node in enumerate(world.nodes)
        if node not in at_home((place * per_node, per_node), ())
    ]
    holders = whole.by_rank() if strangers else {}
    fetch = {
        rank: holders[rank][0]
        for place in strangers
        for rank in range(place * per_node, (place + 1) * per_node)
        if world.nodes[place] not in holders[rank]
    }
    return Restore(whole.step, fetch, None)


def _of_ring(ring: Ring, holders: Mapping[int, Sequence[str]], world: World, per_node: int) -> Restore:
    """Of what nodes hold alike, with who has it for the places that have changed."""
    if ring.world != len(world) * per_node:
        sources = {
            rank: nodes[0]
            for place, nodes in sorted(holders.items())
            for rank in range(place * per_node, (place + 1) * per_node)
        }
        return Restore(ring.step, {}, sources)
    fetch = {
        rank: nodes[0]
        for place, nodes in sorted(holders.items())
        if world.nodes[place] not in nodes
        for rank in range(place * per_node, (place + 1) * per_node)
    }
    return Restore(ring.step, fetch, None)
