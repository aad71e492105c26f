"""
The yardstick of the training tests: Grok-1 and AdamW in one file of plain PyTorch, written from the formulas.

Naive attention with a cap and a mask, a loop over experts, cross-entropy of whole logits, AdamW by hand. It
uses nothing of the package's arithmetic: it knows the sizes in a spec, and the names of weights.

Shapes: B sequences, T tokens, E width, H query and K key-value heads, D head size, X experts.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from colossi.spec.model import ModelSpec
from colossi.spec.training import TrainingSpec

Weights = dict[str, Tensor]


def norm(x: Tensor, scale: Tensor, eps: float) -> Tensor:
    return scale * x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def turn(x_BTHD: Tensor, base: float) -> Tensor:
    """RoPE on halves: [a; b] -> [a cos - b sin; b cos + a sin], angle = position * base^(-2i/D)."""
    length, size = x_BTHD.shape[1], x_BTHD.shape[3]
    frequency = base ** (-2 * torch.arange(size // 2, dtype=torch.float64) / size)
    angle = (torch.arange(length, dtype=torch.float64)[:, None] * frequency).to(x_BTHD.dtype)[:, None]
    a, b = x_BTHD.chunk(2, dim=-1)
    return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)


def attention(x_BTE: Tensor, tokens_BT: Tensor, w: Weights, model: ModelSpec) -> Tensor:
    """Multiply, cap, mask, softmax, in this order; query head i reads key-value head i // (H / K)."""
    batch, length, _ = x_BTE.shape
    q, k, v = (
        (x_BTE @ w[f"{name}.weight"].T).view(batch, length, -1, model.head_dim) for name in ("q", "k", "v")
    )
    q, k = turn(q, model.rope_base), turn(k, model.rope_base)
    k, v = (x.repeat_interleave(model.heads // model.kv_heads, dim=2) for x in (k, v))
    scores = torch.einsum("bthd,bshd->bhts", q, k) * model.attention_multiplier
    scores = model.attention_cap * torch.tanh(scores / model.attention_cap)
    seen = torch.ones(length, length, dtype=torch.bool).tril() & (tokens_BT > 0)[:, None, None, :]
    shares = scores.masked_fill(~seen, -1e30).softmax(-1)
    return torch.einsum("bhts,bshd->bthd", shares, v).flatten(2) @ w["o.weight"].T


def experts(x_BTE: Tensor, counted_BT: Tensor, w: Weights, model: ModelSpec) -> tuple[Tensor, Tensor, Tensor]:
    """The k likeliest experts by their probabilities as they are; sums of balance and z."""
    logits = x_BTE @ w["router.weight"].T
    shares = logits.softmax(-1)
    chosen = torch.zeros_like(shares).scatter(-1, shares.topk(model.experts_per_token).indices, 1.0)
    y = torch.zeros_like(x_BTE)
    for e in range(model.experts):
        gate, value, down = (w[f"experts.{name}"][e] for name in ("gate", "value", "down"))
        out = (F.gelu(x_BTE @ gate.T, approximate="tanh") * (x_BTE @ value.T)) @ down.T
        y = y + (shares * chosen)[..., e, None] * out
    beyond = (logits.abs() - 1.5).clamp(min=0).square().sum(-1)
    z = ((logits.exp().sum(-1).log().square() + beyond) * counted_BT).sum()
    balance = x_BTE.new_zeros(())
    for p, c, counted in zip(shares, chosen, counted_BT, strict=True):
        tokens = max(1, int(counted.sum()))
        f = c[counted].sum(0) / (tokens * model.experts_per_token)
        balance = balance + model.experts * (f * p[counted].sum(0) / tokens).sum()
    return y, balance, z


def loss(
    weights: Weights, inputs: Tensor, targets: Tensor, is_target: Tensor, model: ModelSpec, run: TrainingSpec
) -> tuple[Tensor, Tensor]:
    """Cross-entropy [nats a target], and that plus the router's losses: what is made small."""
    counted, balance, z = inputs > 0, torch.zeros(()), torch.zeros(())
    h = weights["embedding.weight"][inputs] * model.embedding_multiplier
    for number in range(model.layers):

        def of(part: str, number: int = number) -> Weights:
            prefix = f"blocks.{number}.{part}."
            return {n.removeprefix(prefix): p for n, p in weights.items() if n.startswith(prefix)}

        scale = {
            name: of(name)["weight"] for name in ("pre_attention", "post_attention", "pre_moe", "post_moe")
        }
        seen = attention(norm(h, scale["pre_attention"], model.norm_eps), inputs, of("attention"), model)
        h = h + norm(seen, scale["post_attention"], model.norm_eps)
        y, more, squares = experts(norm(h, scale["pre_moe"], model.norm_eps), counted, of("moe"), model)
        h, balance, z = h + norm(y, scale["post_moe"], model.norm_eps), balance + more, z + squares
    logits = norm(h, weights["norm.weight"], model.norm_eps) @ weights["embedding.weight"].T
    each = F.cross_entropy((logits * model.output_multiplier)[is_target], targets[is_target])
    balance = run.balance_loss * balance / (len(inputs) * model.layers)
    return each, each + balance + run.z_loss * z / (counted.sum() * model.layers)


class AdamW:
    """Decoupled decay of matrices, warm-up and cosine, gradients clipped to a norm."""

    def __init__(self, weights: Weights, run: TrainingSpec) -> None:
        self.weights, self.run, self.done = weights, run, 0
        self.mean = {name: torch.zeros_like(p) for name, p in weights.items()}
        self.square = {name: torch.zeros_like(p) for name, p in weights.items()}

    def rate(self) -> float:
        run, step = self.run, self.done
        if step <= run.warmup_steps:
            return run.learning_rate * step / run.warmup_steps
        gone = (step - run.warmup_steps) / (run.total_steps - run.warmup_steps)
        low = run.final_fraction
        return run.learning_rate * (low + (1 - low) * (1 + math.cos(math.pi * gone)) / 2)

    @torch.no_grad()
    def step(self, gradients: Weights) -> None:
        self.done += 1
        run, rate = self.run, self.rate()
        length = math.sqrt(sum(float(g.double().square().sum()) for g in gradients.values()))
        for name, weight in self.weights.items():
            g, m, v = gradients[name] * min(1.0, run.clip / length), self.mean[name], self.square[name]
            m.mul_(run.beta1).add_(g, alpha=1 - run.beta1)
            v.mul_(run.beta2).add_(g * g, alpha=1 - run.beta2)
            if weight.dim() > 1:
                weight.mul_(1 - rate * run.weight_decay)
            by_size = (v / (1 - run.beta2**self.done)).sqrt() + 1e-8
            weight.sub_(rate * (m / (1 - run.beta1**self.done)) / by_size)
