"""
The world as a grid of ranks, and which part of each weight a rank holds.

One rank is a coordinate on the axes (replicate, shard, expert, tensor), the last one fastest, so that the
ranks which talk most are neighbours. Knows axes and shapes; not what a block computes.
"""

from dataclasses import dataclass

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import Placement, Shard

from colossi.model.collectives import Groups
from colossi.spec.layout import LayoutSpec

AXES = ("replicate", "shard", "expert", "tensor")
DENSE = "dense"  # shard x expert: the ranks that share one copy of the weights that are not experts


@dataclass(frozen=True, slots=True)
class World:
    """The mesh of a run and this rank's place on it; mesh is None for a single process."""

    layout: LayoutSpec
    device: torch.device
    mesh: DeviceMesh | None
    dense: DeviceMesh | None = None  # shard x expert as one axis

    @classmethod
    def make(cls, layout: LayoutSpec, device: torch.device, ranks: int) -> "World":
        """Every rank of the run calls this at the same point: it makes the groups of all axes."""
        if ranks == 1:
            return cls(layout, device, None)
        sizes = tuple(getattr(layout, axis) for axis in AXES)
        mesh = init_device_mesh(device.type, sizes, mesh_dim_names=AXES)
        return cls(layout, device, mesh, mesh["shard", "expert"]._flatten(DENSE))

    def size(self, axis: str) -> int:
        """Ranks along an axis."""
        if axis == DENSE:
            return self.layout.shard * self.layout.expert
        return int(getattr(self.layout, axis))

    def submesh(self, *axes: str) -> DeviceMesh | None:
        """The mesh of the axes that have more than one rank; None if none has."""
        wide = tuple(axis for axis in axes if self.size(axis) > 1)
        return self.mesh[wide] if self.mesh is not None and wide else None

    def groups(self) -> Groups:
        """What the model's own collectives run on."""
        tensor, expert = self.submesh("tensor"), self.submesh("expert")
        return Groups(tensor.get_group() if tensor else None, expert.get_group() if expert else None)

    def coordinate(self, axis: str) -> int:
        """This rank's place along an axis."""
        return 0 if self.mesh is None else self.mesh.get_local_rank(axis)

    def data_rank(self) -> int:
        """Which share of the global batch is this rank's, of replicate * shard * expert shares."""
        place = self.coordinate("replicate")
        for axis in ("shard", "expert"):
            place = place * self.size(axis) + self.coordinate(axis)
        return place


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
