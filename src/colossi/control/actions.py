"""
What the controller wants done. An engine does it; what comes of it is an event.

Actions to many nodes are one action (`Stop`, `Start`): the engine tells each of them, so that deciding costs
the same for 4 nodes and for 25,000.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

DISK = -1  # as a step to restore: the newest whole checkpoint, or the beginning where there is none


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Begin an incarnation: the workers of each place of `nodes` take ranks place * per_node + 0, 1, ...

    Every rank restores the state after `restore`. Its snapshot is in the memory of its own node, but for the
    ranks in `fetch`, whose nodes get it from the memory of another. When the world has shrunk or grown since
    the snapshots were taken, `sources` says where each rank of that old world has its snapshot.
    """

    incarnation: int
    nodes: Sequence[str]  # by place
    buddies: Sequence[str]  # the node that keeps copies of this place's snapshots; "" for none
    replicate: int  # copies of the model in this world
    restore: int  # a step, or DISK
    fetch: Mapping[int, str]  # rank -> the node that holds its snapshot, where that is not its own
    sources: Mapping[int, str] | None  # old rank -> node, if the world has another size than before
    verify: int = 0  # a step whose fingerprints are wanted, as there was a suspicion; 0 for none


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """End all workers of an incarnation, on all of these nodes; each answers with NodeStopped."""

    incarnation: int
    nodes: Sequence[str]
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SaveAndStop:
    """Ask the workers to make a checkpoint and to end well; AllDone follows."""

    incarnation: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """Ask the workers for a checkpoint at the end of the step that they are in."""

    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """Find out whether a node is sound; NodeChecked follows."""

    node: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Never use this node again in this run."""

    node: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Distrust:
    """Set aside the checkpoints of all steps above this one: the state that they hold is in doubt."""

    step: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something that the ledger should say: a decision and its reason."""

    kind: Literal["promoted", "shrunk", "grown", "waiting", "straggler", "corrupted"]
    why: str
    node: str = ""
    rank: int | None = None
    step: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """The run is done, or has been stopped as asked. Nothing follows."""

    step: int
    stopped: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The run cannot go on. Nothing follows."""

    why: str
    hint: str = ""


Action = Start | Stop | SaveAndStop | Checkpoint | Check | Quarantine | Distrust | Note | Finish | GiveUp
