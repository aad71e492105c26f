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

from colossi.errors import BadInput
from colossi.model.experts import Experts
from colossi.model.grok import Block, Grok
from colossi.model.matrix import local
from colossi.spec.model import ModelSpec
from colossi.spec.spec import Spec
from colossi.spec.stages import parts_of
from colossi.train.mesh import World, cut_of, fixed_placements
from colossi.train.pipeline import Pipeline, Stage, pipeline_of, sum_tied

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def number_format(precision: str) -> torch.dtype:
    """Of activations; one in which training cannot compute is BadInput.

    Not fp8: torchao swaps modules of nn.Linear for its own, and the products here are none.
    """
    if precision not in DTYPES:
        raise BadInput(
            f'training.precision = "{precision}": training computes in {" or ".join(DTYPES)}',
            f'use "{list(DTYPES)[-1]}"',
        )
    return DTYPES[precision]


class Parts(nn.ModuleList):
    """This rank's stages of a model; without a pipeline that is one, the whole."""

    pipeline: Pipeline | None = None

    def weights(self) -> dict[str, nn.Parameter]:
        """By their names in the model. A last stage's own copy of tied embeddings is "head.weight"."""
        return {name: p for stage in self for name, p in stage.named_parameters()}

    def kept(self) -> dict[str, nn.Parameter]:
        """By the names under which their values are kept, each once."""
        model = self.stages()[0].model
        return {key_of(name, model): p for name, p in reversed(self.weights().items())}

    @torch.no_grad()
    def copy_tied(self) -> None:
        """What was read into one copy of tied embeddings, to the other, where both are here."""
        first, last = self.tied() or (None, None)
        if first is not None and last is not None:
            local(last).copy_(local(first))

    def tied(self) -> tuple[nn.Parameter | None, nn.Parameter | None] | None:
        """Tied embeddings in the first and the last stage, as far as here; None if there are no two."""
        if self.pipeline is None or not self.stages()[0].model.tied_embeddings:
            return None
        weights = self.weights()
        return weights.get("embedding.weight"), weights.get("head.weight")

    def stages(self) -> list[Grok]:
        """In the order of the model."""
        return [stage for stage in self if isinstance(stage, Grok)]


def key_of(name: str, model: ModelSpec) -> str:
    """Under which name a weight's values are kept: those of tied embeddings are the same."""
    return "embedding.weight" if name == "head.weight" and model.tied_embeddings else name


def build_model(spec: Spec, world: World, with_values: bool = True) -> Parts:
    """This rank's stages of the model (all of it as one, without a pipeline), ready to train."""
    assert spec.training is not None
    dtype = number_format(spec.training.precision)
    parts, stages = parts_of(spec.model, spec.layout.stages), Parts()
    kind = Grok if spec.layout.pipeline == 1 else Stage
    for stage in spec.layout.stages_of(world.coordinate("pipeline")):
        with torch.device("meta"):
            grok = kind(spec.model, world.groups(), dtype, parts[stage])
        grok.recompute = spec.layout.recompute == "full"
        _place(grok, world)
        _shard(grok, world, dtype)
        grok.to_empty(device=world.device)
        if with_values:
            initialise(grok, spec.training.seed)
        if spec.training.compile:
            for block in grok.blocks.values():
                block.compile()
        stages.append(grok)
    if spec.layout.pipeline > 1:
        stages.pipeline = pipeline_of(stages.stages(), spec, world)
    return stages


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
    """FSDP2: experts over shard x context, everything else over that x expert; block by block."""
    dense = world.submesh("dense")
    if dense is None:
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
            # A pipeline's micro-batches would gather the weights anew each, and its schedules look for the
            # whole ones going back.
            reshard_after_forward=False if world.layout.pipeline > 1 else None,
            shard_placement_fn=where,
            ignored_params=ignored or None,
        )
        assert isinstance(wrapped, FSDPModule)
        wrapped.set_gradient_divide_factor(1.0)  # losses are divided by the global batch: gradients add up
        wrapped.set_force_sum_reduction_for_comms(True)  # gloo has no other

    elsewhere: set[nn.Parameter] = set()
    for block in grok.blocks.values():
        assert isinstance(block, Block)
        experts = [module for module in block.modules() if isinstance(module, Experts)]
        own = {p for module in experts for p in module.parameters()} if world.layout.expert > 1 else set()
        if own and world.size("experts") > 1:
            sharded(experts[0], world.submesh("experts"), set())
        sharded(block, dense, own)
        elsewhere |= own
    sharded(grok, dense, elsewhere)


@torch.no_grad()
def initialise(grok: Grok, seed: int) -> None:
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
            whole = _normal(key_of(name, grok.model), parameter.shape, seed) * (
                0.1 if ".router." in name else 1.0
            )
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


def sum_gradients(parts: Parts, world: World) -> int:
    """Add the gradients of all copies of the model, in one flat all-reduce; before that, of tied embeddings.

    FSDP has already added them within a copy, all but those of the experts when they are dealt out and not
    sharded: each of their ranks has seen every token of its copy that was sent to them.

    Returns the fingerprint of this rank's own gradient, before the sum: computed again from the same state it
    is the same, unless this rank has computed something wrong. 0 without copies.
    """
    if (tied := parts.tied()) is not None:
        sum_tied(*tied, world)
    group = world.group("replicate")
    if group is None:
        return 0
    grads = [local(p.grad) for p in parts.parameters() if p.grad is not None]
    flat = torch.cat([grad.flatten() for grad in grads])
    own = fingerprint(flat)
    dist.all_reduce(flat, group=group)
    for grad, total in zip(grads, flat.split([g.numel() for g in grads]), strict=True):
        grad.copy_(total.view_as(grad))
    return own


def fingerprint(numbers: Tensor) -> int:
    """The sum of the 64-bit words of float32 numbers, modulo 2^64: one flipped bit changes it."""
    even = numbers[: numbers.numel() // 2 * 2].view(torch.int64)
    total = int(even.numpy().sum()) if even.device.type == "cpu" else int(even.sum())
    return total + (int(numbers[-1:].view(torch.int32)) if numbers.numel() % 2 else 0)


def gradient_norm(parts: Parts, world: World) -> Tensor:
    """Euclidean norm of the whole gradient [1], counting every number of it once."""
    squares = torch.zeros((), device=world.device)
    tied = parts.tied() or ()
    for parameter in parts.parameters():
        if parameter.grad is not None:
            copies = _copies(parameter, world) * (2 if any(parameter is each for each in tied) else 1)
            squares += torch.linalg.vector_norm(local(parameter.grad).float()).square() / copies
    for axis in ("pipeline", "shard", "context", "expert", "tensor"):
        if (group := world.group(axis)) is not None:
            dist.all_reduce(squares, group=group)
    return squares.sqrt()


def _copies(parameter: nn.Parameter, world: World) -> int:
    """How many ranks of one stage of a replica hold the same part of a weight."""
    ranks = world.size("dense") * world.size("tensor")
    if not isinstance(parameter, DTensor):
        return ranks
    held = 1
    for axis, placement in enumerate(parameter.placements):
        held *= parameter.device_mesh.size(axis) if isinstance(placement, Shard) else 1
    return ranks // held
