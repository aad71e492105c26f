"""
What the controller hears: changes, never readings. Heartbeats become changes in `detector.py`.

Ranks and nodes are counted as torch counts them; a node is a name. A snapshot is one rank's part of the state
after a step, in the memory of an agent; it is `held` by the node that the rank ran on, and by its buddy. What
a node holds is told by blocks of ranks, as it holds many ranks of the same few steps.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple


class Snapshot(NamedTuple):
    """The state of a block of ranks after a step, whole and with right checksums in a node's memory.

    Step 50 of one incarnation and step 50 of another may differ (a corruption, another size of the world), so
    a snapshot keeps the incarnation and the world that it was taken in, also when it is copied elsewhere.
    """

    incarnation: int
    world: int  # ranks of the world that it was taken in
    rank: int  # the first of the block
    step: int
    ranks: int = 1  # of the block


Held = tuple[Snapshot, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ring:
    """Snapshots of one step that the nodes of a world hold alike: each its own ranks', and its ward's too."""

    incarnation: int
    world: int  # ranks of the world that they were taken in
    step: int
    nodes: Sequence[str]  # by place, who has the snapshots of its ranks
    buddies: Sequence[str]  # by place, who has the copies; "" for nobody
    otherwise: Mapping[
        int, tuple[str, ...]
    ]  # who has those of a place, if it is not so, or another sits there

    def holders(self, place: int) -> tuple[str, ...]:
        """The nodes that have the snapshots of a place."""
        if place in self.otherwise:
            return self.otherwise[place]
        both = self.nodes[place], self.buddies[place]
        return both if both[1] else both[:1]


Fingerprint = int | tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeJoined:
    """An agent has come, or has come back to a new controller."""

    node: str
    rack: str = ""  # "" where nothing is known of racks
    held: Held = ()
    incarnation: int = 0  # whose workers run on it; 0 for none


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLost:
    """Its agent is gone, and with it its workers and its memory."""

    node: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerExited:
    """A worker has ended without being asked to."""

    node: str
    rank: int
    incarnation: int
    why: str  # "killed by SIGKILL", "RuntimeError: ..."
    fatal: bool = False  # the work itself is wrong (a loss that is no number): another try would end alike


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerHung:
    """A worker gives no sign of life; or, with rank None, none of them gets on."""

    node: str
    rank: int | None
    incarnation: int
    seconds: float  # [s] since its last sign of life


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStopped:
    """The answer to Stop: no worker of this incarnation, or of one before, runs on the node any more.

    What is `held` stays as it is until a Start: what other nodes still send to it comes too late.
    """

    node: str
    incarnation: int
    held: Held


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldStopped:
    """The same of all nodes of an incarnation that are connected, said at once by who has heard them all.

    What they hold is in the rings, but for what single nodes have said since.
    """

    incarnation: int
    rings: tuple[Ring, ...]
    but: tuple[str, ...] = ()  # these have not answered


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDone:
    """The whole batch of a step is learned. Told once, by rank 0."""

    incarnation: int
    step: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDone:
    """The checkpoint of a step is whole on the disk (`why` empty), or could not be written."""

    incarnation: int
    step: int
    seconds: float = 0.0  # [s] that it took in the background
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CorruptionSuspected:
    """Copies of the same weights differ after a step; the fingerprint that each rank had, by rank."""

    incarnation: int
    step: int
    fingerprints: Mapping[int, Fingerprint]
    agreed: int | None = None  # the last step after which they were equal; None for the step before


@dataclass(frozen=True, slots=True, kw_only=True)
class FingerprintsTaken:
    """The fingerprints of a step that was done again because of a suspicion, of all ranks together."""

    incarnation: int
    step: int
    fingerprints: Mapping[int, Fingerprint]


@dataclass(frozen=True, slots=True, kw_only=True)
class StragglerSuspected:
    """A rank takes longer over the same work than its peers."""

    node: str
    rank: int
    incarnation: int
    factor: float  # its time over its peers' median


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeChecked:
    """How the check of a node went."""

    node: str
    passed: bool
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AllDone:
    """The last step is learned and on the disk, and all workers have ended; `step` is the last one."""

    incarnation: int
    step: int
    stopped: bool = False  # because somebody asked, before the goal


@dataclass(frozen=True, slots=True, kw_only=True)
class StopWanted:
    """Somebody asks the run to save and end: Ctrl-C, a time limit, a preemption."""

    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class TimePassed:
    """It is later: the controller's `deadline` has come."""


Event = (
    NodeJoined
    | NodeLost
    | WorkerExited
    | WorkerHung
    | NodeStopped
    | WorldStopped
    | StepDone
    | CheckpointDone
    | CorruptionSuspected
    | FingerprintsTaken
    | StragglerSuspected
    | NodeChecked
    | AllDone
    | StopWanted
    | TimePassed
)
