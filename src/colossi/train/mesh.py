"""
The world as a grid of ranks, and which part of each weight a rank holds.

One rank is a coordinate on the axes (replicate, pipeline, shard, context, expert, tensor), the last one
fastest, so that the ranks which talk most are neighbours. Knows axes and shapes; not what a block computes.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Placement, Shard

from colossi.model.collectives import Groups
from colossi.model.context import positions
from colossi.spec.layout import AXES, LayoutSpec

JOINED = {  # axes that are also used as one
    "dense": ("shard", "context", "expert"),  # share one copy of the weights that are not experts
    "stage": ("replicate", "shard", "context", "expert", "tensor"),  # have the same blocks
    "experts": ("shard", "context"),  # share one copy of the weights of the same experts
}

# In how many pieces a pass's tokens travel to their experts, by device; elsewhere in one. A network card
# moves one while the GPU computes another; gloo moves them with the very cores that compute.
PIECES = {"cuda": 2}


@dataclass(frozen=True, slots=True)
class World:
    """The mesh of a run and this rank's place on it; mesh is None for a single process."""

    layout: LayoutSpec
    device: torch.device
    mesh: DeviceMesh | None  # of the axes with more than one rank
    joined: dict[str, DeviceMesh] = field(default_factory=dict)  # those of JOINED with more than one rank

    @classmethod
    def make(cls, layout: LayoutSpec, device: torch.device, ranks: int) -> "World":
        """Every rank of the run calls this at the same point: it makes the groups of all axes."""
        if ranks == 1:
            return cls(layout, device, None)
        wide = tuple(axis for axis in AXES if _size(layout, axis) > 1)
        mesh = init_device_mesh(device.type, tuple(_size(layout, a) for a in wide), mesh_dim_names=wide)
        joined = {}
        for name, axes in JOINED.items():
            those = tuple(axis for axis in axes if axis in wide)
            if len(those) > 1:
                joined[name] = mesh[those]._flatten(name)
            elif those:
                joined[name] = mesh[those]
        return cls(layout, device, mesh, joined)

    def size(self, axis: str) -> int:
        """Ranks along an axis, or along several joined ones."""
        return _size(self.layout, axis)

    def submesh(self, *axes: str) -> DeviceMesh | None:
        """The mesh of the axes that have more than one rank; None if none has."""
        if len(axes) == 1 and axes[0] in JOINED:
            return self.joined.get(axes[0])
        wide = tuple(axis for axis in axes if self.size(axis) > 1)
        return self.mesh[wide] if self.mesh is not None and wide else None

    def group(self, axis: str) -> ProcessGroup | None:
        """The ranks along an axis, or along several joined ones; None where this rank is alone."""
        mesh = self.submesh(axis)
        return mesh.get_group() if mesh is not None else None

    def groups(self) -> Groups:
        """What the model's own collectives run on."""
        return Groups(
            self.group("tensor"),
            self.group("expert"),
            self.group("context"),
            self.layout.context_method,
            expert_pieces=PIECES.get(self.device.type, 1),
        )

    def coordinate(self, axis: str) -> int:
        """This rank's place along an axis."""
        return 0 if self.mesh is None or self.size(axis) == 1 else self.mesh.get_local_rank(axis)

    def data_rank(self) -> int:
        """Which share of the global batch is this rank's, of replicate * shard * expert shares."""
        place = self.coordinate("replicate")
        for axis in ("shard", "expert"):
            place = place * self.size(axis) + self.coordinate(axis)
        return place


def mine(rows: NDArray[Any], world: World) -> Tensor:
    """This rank's columns of its rows: all, but for the ranks that share each sequence."""
    ranks = world.size("context")
    columns = positions(world.coordinate("context"), ranks, rows.shape[1]) if ranks > 1 else slice(None)
    return torch.from_numpy(rows)[:, columns].to(world.device)


def _size(layout: LayoutSpec, axis: str) -> int:
    size = 1
    for each in JOINED.get(axis, (axis,)):
        size *= int(getattr(layout, each))
    return size


@dataclass(frozen=True, slots=True)
class Cut:
    """How one weight is divided: the dimension that each axis cuts, where it cuts one.

    No two axes cut the same dimension, so every rank's part is one rectangle of the whole.
    """

    expert: int | None = None
    tensor: int | None = None
    shard: int = 0


def cut_of(name: str) -> Cut:
    """The cut of a parameter, by its name in the model.

    Tensor parallel cuts the heads (rows of q, k, v; columns of o), the FFN width and the vocabulary; expert
    parallel the stack of experts; sharding always the width of the residual stream, so it divides evenly.
    """
    if ".experts." in name:
        return Cut(expert=0, tensor=2, shard=1) if name.endswith("down") else Cut(expert=0, tensor=1, shard=2)
    owner, _, kind = name.rpartition(".")
    if kind == "weight" and owner.endswith((".q", ".k", ".v", ".gate", ".value", "embedding", "head")):
        return Cut(tensor=0, shard=1)
    if owner.endswith((".o", ".down")):
        return Cut(tensor=1, shard=0)
    if owner.endswith(".router"):
        return Cut(shard=1)
    return Cut()


def fixed_placements(cut: Cut, world: World) -> tuple[DeviceMesh, list[Placement]] | None:
    """The part of the cut that FSDP does not make: experts and tensor parallel, outermost first."""
    axes = [(a, d) for a, d in (("expert", cut.expert), ("tensor", cut.tensor)) if d is not None]
    axes = [(axis, dim) for axis, dim in axes if world.size(axis) > 1]
    mesh = world.submesh(*(axis for axis, _ in axes))
    return (mesh, [Shard(dim) for _, dim in axes]) if mesh is not None else None
