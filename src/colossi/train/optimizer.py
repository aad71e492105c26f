"""
AdamW and Muon over a model that may be cut over many ranks.

Both are torch's own and see plain tensors only. AdamW updates this rank's part of each weight. Muon needs
whole matrices, so each matrix has an owner among the ranks that have its block: the gradients are
gathered, each owner computes the updates of its own matrices, and all ranks add them to their parts. So no
layout changes the result, and the work of n ranks is divided by n.

[1] K. Jordan et al., "Muon", 2024; J. Liu et al., "Muon is Scalable for LLM Training", 2025.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed import ProcessGroup
from torch.distributed.tensor import DTensor

from colossi.model.matrix import local
from colossi.spec.training import TrainingSpec
from colossi.train.mesh import World
from colossi.train.parallel import Parts, key_of, slice_like


def learning_rate_factor(step: int, training: TrainingSpec) -> float:
    """Share of the peak learning rate at a step counted from 1 [1]: warm-up, then cosine or wsd."""
    total, warmup = training.total_steps, training.warmup_steps
    if step <= warmup:
        return step / warmup
    left = (total - step) / max(1, total - warmup)  # 1 just after the warm-up, 0 at the last step
    floor = training.final_fraction
    if training.schedule == "cosine":
        return floor + (1 - floor) * 0.5 * (1 - math.cos(math.pi * left))
    return floor + (1 - floor) * min(1.0, left / training.decay_fraction)


def clipping(gradient_norm: float, clip: float) -> float:
    """What gradients are multiplied by so that their norm is at most `clip`; 0 is no clipping."""
    return min(1.0, clip / gradient_norm) if clip and gradient_norm > 0 else 1.0


@dataclass(frozen=True, slots=True)
class Owned:
    """One matrix of a parameter that this rank computes Muon's update of."""

    name: str  # of the parameter, and the place in its stack if it is one
    update: nn.Parameter  # Muon works on this: zero before its step, the update after it


class Optimizer:
    """The optimizer of a run. `step` uses and clears the gradients of the model's parameters."""

    def __init__(self, parts: Parts, training: TrainingSpec, world: World) -> None:
        self.training, self._group = training, world.group("stage")
        named = parts.weights()
        self._keys = {name: key_of(name, parts.stages()[0].model) for name in named}
        self._by_muon = {n: p for n, p in named.items() if training.optimizer == "muon" and is_matrix(n, p)}
        self._by_adam = {n: p for n, p in named.items() if n not in self._by_muon}
        self._parts = {n: nn.Parameter(local(p).detach()) for n, p in self._by_adam.items()}
        decayed = [part for n, part in self._parts.items() if self._by_adam[n].dim() > 1]
        plain = [part for n, part in self._parts.items() if self._by_adam[n].dim() == 1]
        self.adamw = torch.optim.AdamW(
            [
                {"params": decayed, "weight_decay": training.weight_decay},
                {"params": plain, "weight_decay": 0.0},
            ],
            lr=training.learning_rate,
            betas=(training.beta1, training.beta2),
            fused=True,
        )
        self._owned = _deal_out(self._by_muon, self._group)
        self.muon: torch.optim.Muon | None = None
        if self._owned:
            self.muon = torch.optim.Muon(
                [owned.update for owned in self._owned],
                lr=training.muon_learning_rate,
                momentum=training.momentum,
                weight_decay=0.0,  # applied to the weights themselves, which Muon does not see here
            )

    @torch.no_grad()
    def step(self, step: int, scale: float | Tensor) -> float:
        """Update all weights with their gradients times `scale` (clipping); returns AdamW's learning rate."""
        factor = learning_rate_factor(step, self.training)
        self._step_adamw(factor, scale)
        if self._by_muon:
            self._step_muon(factor, scale)
        return self.training.learning_rate * factor

    def _step_adamw(self, factor: float, scale: float | Tensor) -> None:
        for name, parameter in self._by_adam.items():
            assert parameter.grad is not None, name
            self._parts[name].grad = local(parameter.grad).mul_(scale)
            parameter.grad = None
        for group in self.adamw.param_groups:
            group["lr"] = self.training.learning_rate * factor
        self.adamw.step()
        self.adamw.zero_grad(set_to_none=True)

    def _step_muon(self, factor: float, scale: float | Tensor) -> None:
        rate = self.training.muon_learning_rate * factor
        owned = {o.name: o for o in self._owned}
        for name, parameter in self._by_muon.items():
            grad = parameter.grad
            assert grad is not None, name
            whole = grad.full_tensor() if isinstance(grad, DTensor) else grad
            for label, matrix in matrices(name, whole):
                if label in owned:
                    owned[label].update.grad = matrix.mul(scale)
                    owned[label].update.zero_()
            parameter.grad = None
        if self.muon is not None:
            for group in self.muon.param_groups:
                group["lr"] = rate
            self.muon.step()
        updates = self._share_updates(owned)
        for parameter, update in zip(self._by_muon.values(), updates, strict=True):
            local(parameter).mul_(1 - rate * self.training.weight_decay).add_(slice_like(update, parameter))

    def _share_updates(self, owned: dict[str, Owned]) -> list[Tensor]:
        """Every rank's updates, put together; a sum, as all but the owner have zeros there."""
        shapes = [p.shape for p in self._by_muon.values()]
        device = next(iter(self._by_muon.values())).device
        flat = torch.zeros(sum(shape.numel() for shape in shapes), device=device)
        wholes = [
            part.view(shape)
            for part, shape in zip(flat.split([s.numel() for s in shapes]), shapes, strict=True)
        ]
        for name, whole in zip(self._by_muon, wholes, strict=True):
            for label, matrix in matrices(name, whole):
                if label in owned:
                    matrix.copy_(owned[label].update)
        if self._group is not None:
            dist.all_reduce(flat, group=self._group)
        return wholes

    def state(self) -> dict[str, Tensor]:
        """What the checkpoint keeps, by name: AdamW's moments cut like the weights, Muon's whole."""
        state: dict[str, Tensor] = {}
        for name, part in self._parts.items():
            for key in ("exp_avg", "exp_avg_sq"):
                value = self.adamw.state[part].get(key) if part in self.adamw.state else None
                value = torch.zeros_like(part) if value is None else value
                state[f"adamw.{key}.{self._keys[name]}"] = _cut_like(value.detach(), self._by_adam[name])
        for owned in self._owned:
            assert self.muon is not None
            buffer = self.muon.state[owned.update].get("momentum_buffer")
            state[f"muon.{owned.name}"] = torch.zeros_like(owned.update.data) if buffer is None else buffer
        return state

    def load(self, state: dict[str, Tensor], step: int) -> None:
        """Take back what `state` gave, after `step` steps."""
        taken: set[str] = set()
        for name, part in self._parts.items():
            key = self._keys[name]
            moments = {k: local(state[f"adamw.{k}.{key}"]) for k in ("exp_avg", "exp_avg_sq")}
            if key in taken:  # both copies of tied embeddings are here
                moments = {k: moment.clone() for k, moment in moments.items()}
            taken.add(key)
            self.adamw.state[part] = {
                "step": torch.tensor(float(step), device=part.device),  # where the fused kernel reads it
                **moments,
            }
        for owned in self._owned:
            assert self.muon is not None
            self.muon.state[owned.update] = {"momentum_buffer": state[f"muon.{owned.name}"]}


def is_matrix(name: str, parameter: Tensor) -> bool:
    """Whether Muon updates it: the matrices of blocks, not the embedding, the output or the router [1]."""
    return parameter.dim() > 1 and not name.startswith(("embedding", "head")) and ".router." not in name


def matrices(name: str, whole: Tensor) -> Iterable[tuple[str, Tensor]]:
    """The matrices that a parameter stands for: itself, or each of a stack of experts."""
    if whole.dim() == 2:
        return [(name, whole)]
    return [(f"{name}.{i}", matrix) for i, matrix in enumerate(whole.unbind(0))]


def _deal_out(parameters: dict[str, nn.Parameter], group: ProcessGroup | None) -> list[Owned]:
    """This rank's matrices of a stage: the costliest first, each to the rank that has least to do."""
    ranks, me = (group.size(), group.rank()) if group is not None else (1, 0)
    all_ = [
        (label, matrix.shape, parameter.device)
        for name, parameter in parameters.items()
        for label, matrix in matrices(name, torch.empty(parameter.shape, device="meta"))
    ]
    load = [0] * ranks
    mine = []
    for label, shape, device in sorted(all_, key=lambda entry: (-_newton_schulz_cost(entry[1]), entry[0])):
        rank = load.index(min(load))
        load[rank] += _newton_schulz_cost(shape)
        if rank == me:
            mine.append(Owned(label, nn.Parameter(torch.zeros(shape, device=device))))
    return mine


def _newton_schulz_cost(shape: torch.Size) -> int:
    """Multiplications of one iteration: two products with the small side squared, one of its cube."""
    small, large = sorted(shape)
    return 2 * small * small * large + small**3


def _cut_like(part: Tensor, like: Tensor) -> Tensor:
    """A rank's part as the whole that it is a part of."""
    if not isinstance(like, DTensor):
        return part
    return DTensor.from_local(
        part, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride()
    )
