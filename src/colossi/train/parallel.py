"""
A Grok cut over the ranks of a world.

Built on the meta device, so no rank ever holds the whole: first tensor and expert parallel (each weight
becomes a DTensor of its slice), then FSDP2 over what is left, then memory, then values. Values come from a
generator seeded by the weight's name, so every layout starts from the same numbers.
"""

import hashlib

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard

from colossi.model.experts import Experts
from colossi.model.grok import Block, Grok
from colossi.model.matrix import local
from colossi.spec.spec import Spec
from colossi.train.mesh import DENSE, World, cut_of, fixed_placements

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def build_model(spec: Spec, world: World, with_values: bool = True) -> Grok:
    """The model of a spec with its initial weights, ready to train on this rank; or without any values."""
    assert spec.training is not None
    dtype = DTYPES[spec.training.precision]
    with torch.device("meta"):
        grok = Grok(spec.model, world.groups(), dtype)
    grok.recompute = spec.layout.recompute == "full"
    _place(grok, world)
    _shard(grok, world, dtype)
    grok.to_empty(device=world.device)
    if with_values:
        initialise(grok, spec.training.seed)
    if spec.training.compile:
        for block in grok.blocks:
            block.compile()
    return grok


def _place(grok: Grok, world: World) -> None:
    """Replace each weight by this rank's slice of it along the tensor and expert axes."""
    for name, parameter in list(grok.named_parameters()):
        placed = fixed_placements(cut_of(name), world)
        if placed is None:
            continue
        mesh, placements = placed
        shape = list(parameter.shape)
        for axis, placement in enumerate(placements):
            assert isinstance(placement, Shard)
            shape[placement.dim] //= mesh.size(axis)
        part = torch.empty(shape, device="meta")
        whole = DTensor.from_local(
            part, mesh, placements, run_check=False, shape=parameter.shape, stride=parameter.stride()
        )
        owner, _, leaf = name.rpartition(".")
        setattr(grok.get_submodule(owner), leaf, nn.Parameter(whole))


def _shard(grok: Grok, world: World, dtype: torch.dtype) -> None:
    """FSDP2: experts over the shard axis, everything else over shard x expert; block by block."""
    if world.size(DENSE) == 1 or world.mesh is None:
        return
    names = {parameter: name for name, parameter in grok.named_parameters()}
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)

    def where(parameter: nn.Parameter) -> Shard:
        return Shard(cut_of(names[parameter]).shard)

    def sharded(module: nn.Module, mesh: DeviceMesh | None, ignored: set[nn.Parameter]) -> None:
        wrapped = fully_shard(
            module,
            mesh=mesh,
            mp_policy=policy,
            shard_placement_fn=where,
            ignored_params=ignored or None,
        )
        assert isinstance(wrapped, FSDPModule)
        wrapped.set_gradient_divide_factor(1.0)  # losses are divided by the global batch: gradients add up
        wrapped.set_force_sum_reduction_for_comms(True)  # gloo has no other

    elsewhere: set[nn.Parameter] = set()
    for block in grok.blocks:
        assert isinstance(block, Block)
        experts = [module for module in block.modules() if isinstance(module, Experts)]
        own = {p for module in experts for p in module.parameters()} if world.layout.expert > 1 else set()
        if own and world.layout.shard > 1:
            sharded(experts[0], world.submesh("shard"), set())
        sharded(block, world.dense, own)
        elsewhere |= own
    sharded(grok, world.dense, elsewhere)


@torch.no_grad()
def initialise(grok: nn.Module, seed: int) -> None:
    """Fill in the initial weights, each rank its own part of the same whole.

    Norms are one; matrices normal with standard deviation fan_in^-0.5, so that activations keep their
    scale; the embedding E^-0.5, which the embedding multiplier sqrt(E) brings back to one; the router a
    tenth of a matrix, so that experts start out alike (W. Fedus et al., "Switch Transformers", 2021, 2.4).
    """
    for name, parameter in grok.named_parameters():
        part = local(parameter)
        if parameter.dim() == 1:
            part.fill_(1.0)
        else:
            whole = _normal(name, parameter.shape, seed) * (0.1 if ".router." in name else 1.0)
            part.copy_(slice_like(whole, parameter))


def _normal(name: str, shape: torch.Size, seed: int) -> Tensor:
    digest = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=8).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
    return torch.randn(shape, generator=generator) * shape[-1] ** -0.5


def slice_like(whole: Tensor, like: Tensor) -> Tensor:
    """The part of `whole` that this rank holds of `like`; all of it for a plain tensor. A view."""
    if not isinstance(like, DTensor):
        return whole
    coordinate = like.device_mesh.get_coordinate()
    assert coordinate is not None
    part = whole
    for axis, placement in enumerate(like.placements):
        if isinstance(placement, Shard):
            chunks = part.chunk(like.device_mesh.size(axis), dim=placement.dim)
            empty = part.narrow(placement.dim, 0, 0)
            part = chunks[coordinate[axis]] if coordinate[axis] < len(chunks) else empty
    return part


def sum_gradients(parameters: list[nn.Parameter], world: World) -> int:
    """Add the gradients of all copies of the model, in one flat all-reduce.

    FSDP has already added them within a copy, all but those of the experts when they are dealt out and not
    sharded: each of their ranks has seen every token of its copy that was sent to them.

    Returns the fingerprint of this rank's own gradient, before the sum: computed again from the same state it
    is the same, unless this rank has computed something wrong. 0 without copies.
    """
    mesh = world.submesh("replicate")
    if mesh is None:
        return 0
    grads = [local(p.grad) for p in parameters if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    own = fingerprint(flat)
    dist.all_reduce(flat, group=mesh.get_group())
    for grad, total in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(total.view_as(grad))
    return own


def fingerprint(numbers: Tensor) -> int:
    """The sum of the 64-bit words of float32 numbers, modulo 2^64: one flipped bit changes it."""
    even = numbers[: numbers.numel() // 2 * 2].view(torch.int64)
    total = int(even.numpy().sum()) if even.device.type == "cpu" else int(even.sum())
    return total + (int(numbers[-1:].view(torch.int32)) if numbers.numel() % 2 else 0)


def gradient_norm(parameters: list[nn.Parameter], world: World) -> Tensor:
    """Euclidean norm of the whole gradient [1], counting every number of it once."""
    squares = torch.zeros((), device=world.device)
    for parameter in parameters:
        if parameter.grad is not None:
            squares += torch.linalg.vector_norm(local(parameter.grad).float()).square() / _copies(
                parameter, world
            )
    mesh = world.mesh
    if mesh is not None:
        for axis in ("shard", "expert", "tensor"):
            if world.size(axis) > 1:
                dist.all_reduce(squares, group=mesh[axis].get_group())
    return squares.sqrt()


def _copies(parameter: nn.Parameter, world: World) -> int:
    """How many ranks of one replica hold the same part of a weight."""
    ranks = world.size(DENSE) * world.size("tensor")
    if not isinstance(parameter, DTensor):
        return ranks
    held = 1
    for axis, placement in enumerate(parameter.placements):
        held *= parameter.device_mesh.size(axis) if isinstance(placement, Shard) else 1
    return ranks // held
