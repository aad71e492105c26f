"""
Routed experts, computed as one grouped product; no token is dropped and no expert is looped over.

Each token goes to its k likeliest experts. The N*k copies are sorted by expert, so that an expert's tokens
stand together, multiplied group by group, and put back. Under expert parallel the sorted copies first travel
to the rank that holds their expert, and back afterwards: in pieces, so that one piece's experts compute while
the next one's tokens travel.

Shapes: N tokens, k experts per token, X experts, E width, F expert width.

[1] W. Fedus et al., "Switch Transformers", 2021, equations 4 to 6: the load-balancing loss.
[2] B. Zoph et al., "ST-MoE", 2022, equation 5: the router z-loss.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn
from torch.distributed import ProcessGroup

from colossi.model.collectives import Groups, arrive, copy_to, depart, reduce_from
from colossi.model.matrix import Matrix, local
from colossi.spec.model import ModelSpec


@dataclass(frozen=True, slots=True)
class Routing:
    """Where each token goes, and with what weight; the weights are not made to sum to one."""

    weights_Nk: Tensor
    experts_Nk: Tensor
    logits_NX: Tensor
    probabilities_NX: Tensor


class Router(Matrix):
    """Logits by a matrix [X, E] in float32; softmax over all experts, then the k largest."""

    def __init__(self, model: ModelSpec) -> None:
        super().__init__(model.experts, model.hidden)
        self.k, self.cap = model.experts_per_token, model.router_cap

    def route(self, x_NE: Tensor) -> Routing:
        logits = super().forward(x_NE.float())
        if self.cap:
            logits = self.cap * torch.tanh(logits / self.cap)
        probabilities = logits.softmax(-1)
        weights, experts = probabilities.topk(self.k, dim=-1)
        return Routing(weights, experts, logits, probabilities)


class _Permute(torch.autograd.Function):
    """Rows of x, k times each, in the given order; going back each row gathers its k gradients in order."""

    @staticmethod
    def forward(ctx: Any, x_NE: Tensor, order: Tensor, inverse: Tensor, k: int) -> Tensor:
        ctx.save_for_backward(order, inverse)
        ctx.k = k
        return x_NE[order // k if k > 1 else order]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        (grad,) = grads
        _, inverse = ctx.saved_tensors
        back = grad[inverse]
        return (back.view(-1, ctx.k, grad.shape[-1]).sum(1) if ctx.k > 1 else back), None, None, None


def permute(x_NE: Tensor, order: Tensor, inverse: Tensor, k: int = 1) -> Tensor:
    """x[order // k], with a backward that gathers instead of scattering: faster, and always the same sum."""
    return _Permute.apply(x_NE, order, inverse, k)  # type: ignore[no-untyped-call]


def invert(order: Tensor) -> Tensor:
    """The permutation that undoes `order`."""
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(order.numel(), device=order.device)
    return inverse


def in_pieces(tokens: Tensor, pieces: int) -> Sequence[Tensor]:
    """Some tokens after others."""
    return tokens.chunk(pieces) if pieces > 1 else (tokens,)


@dataclass(frozen=True, slots=True)
class Sorted:
    """Tokens, k times each, those of an expert together."""

    rows: Tensor  # [N k, E]
    order: Tensor
    inverse: Tensor
    counts_X: Tensor


def sort_by_expert(x_NE: Tensor, experts_Nk: Tensor, total: int) -> Sorted:
    """A copy of each token for each of its experts, of which there are `total`."""
    order = experts_Nk.flatten().argsort(stable=True)
    inverse = invert(order)
    counts_X = count(experts_Nk.flatten(), total)
    return Sorted(permute(x_NE, order, inverse, experts_Nk.shape[1]), order, inverse, counts_X)


def weighted(out: Tensor, part: Sorted, weights_Nk: Tensor) -> Tensor:
    """What the experts made of the sorted rows, put back and summed for each token. [N, E]"""
    y_NkE = permute(out, part.inverse, part.order).view(*weights_Nk.shape, -1)
    return (y_NkE * weights_Nk.unsqueeze(-1)).sum(1)


def count(numbers: Tensor, total: int) -> Tensor:
    """How often each of 0 ... total - 1 is there; on a GPU bincount would wait for the largest of them."""
    return numbers.new_zeros(total).scatter_add_(0, numbers, torch.ones_like(numbers))


def grouped_product(x: Tensor, w_XIO: Tensor, ends_X: Tensor) -> Tensor:
    """Rows up to ends[0] times the first matrix, and so on. PyTorch's compiler knows it in bfloat16 only."""
    if torch.compiler.is_compiling() and x.dtype != torch.bfloat16:
        return _not_compiled(x, w_XIO, ends_X)
    return F.grouped_mm(x, w_XIO, offs=ends_X)


@torch.compiler.disable  # type: ignore[untyped-decorator]
def _not_compiled(x: Tensor, w_XIO: Tensor, ends_X: Tensor) -> Tensor:
    return F.grouped_mm(x, w_XIO, offs=ends_X)


GELU_A = 2 * (2 / math.pi) ** 0.5
GELU_B = GELU_A * 0.044715


class _GatedGELU(torch.autograd.Function):
    """0.5 x (1 + tanh(z / 2)) v = x sigmoid(z) v, z = A x + B x^3: sigmoid is six times as fast as tanh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, v: Tensor) -> Tensor:
        sigmoid = _polynomial(x, GELU_B).sigmoid_()
        ctx.save_for_backward(x, v, sigmoid)
        return (x * sigmoid).mul_(v)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """d gelu / dx = sigmoid(z) + x z' sigmoid(z) (1 - sigmoid(z))."""
        (dy,) = grads
        x, v, sigmoid = ctx.saved_tensors
        slope = _polynomial(x, 3 * GELU_B)
        slope = torch.ops.aten.sigmoid_backward(slope, sigmoid).add_(sigmoid)
        return slope.mul_(v).mul_(dy), (x * sigmoid).mul_(dy)


def _polynomial(x: Tensor, b: float) -> Tensor:
    return torch.addcmul(x.new_full((), GELU_A), x, x, value=b).mul_(x)


def gated_gelu(x: Tensor, v: Tensor) -> Tensor:
    """gelu(x) * v, with GELU's tanh approximation."""
    if x.device.type != "cpu" or x.dtype != torch.float32:
        return F.gelu(x, approximate="tanh") * v
    if torch.compiler.is_compiling():
        return x * torch.sigmoid(x * (GELU_A + GELU_B * x * x)) * v
    return _GatedGELU.apply(x, v)  # type: ignore[no-untyped-call]


class GatedFFN(nn.Module):
    """A dense FFN: down(gelu(gate x) * (value x)), GELU by its tanh approximation."""

    def __init__(self, width: int, hidden: int, groups: Groups) -> None:
        super().__init__()
        self.groups = groups
        self.gate, self.value, self.down = Matrix(hidden, width), Matrix(hidden, width), Matrix(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        x = copy_to(x, self.groups.tensor)
        inner = gated_gelu(self.gate(x), self.value(x))
        return reduce_from(self.down(inner), self.groups.tensor)


class Experts(nn.Module):
    """All experts' matrices as three stacks [X, F, E], [X, F, E] and [X, E, F]."""

    def __init__(self, model: ModelSpec, groups: Groups) -> None:
        super().__init__()
        stack = (model.experts, model.ffn_hidden, model.hidden)
        self.groups, self.total = groups, model.experts
        self.gate = nn.Parameter(torch.empty(stack))
        self.value = nn.Parameter(torch.empty(stack))
        self.down = nn.Parameter(torch.empty(stack[0], stack[2], stack[1]))

    def forward(self, x_NE: Tensor, weights_Nk: Tensor, experts_Nk: Tensor) -> Tensor:
        """The weighted sum of each token's experts. [N, E]"""
        x = copy_to(x_NE, self.groups.tensor)
        weights = copy_to(weights_Nk, self.groups.tensor).to(x.dtype)
        if self.groups.expert is None:
            part = sort_by_expert(x, experts_Nk, self.total)
            y = weighted(self._grouped(part.rows, part.counts_X), part, weights)
        else:
            xs, chosen, by = (in_pieces(t, self.groups.expert_pieces) for t in (x, experts_Nk, weights))
            parts = [sort_by_expert(*piece, self.total) for piece in zip(xs, chosen, strict=True)]
            ys = [weighted(*each) for each in zip(self._grouped_elsewhere(parts), parts, by, strict=True)]
            y = torch.cat(ys) if len(ys) > 1 else ys[0]
        return reduce_from(y, self.groups.tensor)

    def _grouped(self, x: Tensor, counts_X: Tensor) -> Tensor:
        """Rows sorted by expert -> each through its own expert. [rows, E]"""
        ends = counts_X.cumsum(0).to(torch.int32)
        gate, value, down = (local(w).to(x.dtype).transpose(1, 2) for w in (self.gate, self.value, self.down))
        inner = gated_gelu(grouped_product(x, gate, ends), grouped_product(x, value, ends))
        return grouped_product(inner, down, ends)

    def _grouped_elsewhere(self, parts: list[Sorted]) -> Iterator[Tensor]:
        """The same where the experts are dealt out over the ranks of a group, in order; part after part."""
        group = self.groups.expert
        assert group is not None
        ranks = group.size()
        here = self.total // ranks
        sent_RPX = torch.stack([part.counts_X.view(ranks, here) for part in parts], 1)
        received_RPX = torch.empty_like(sent_RPX)
        dist.all_to_all_single(received_RPX, sent_RPX, group=group)
        sent_PR, received_PR = torch.stack((sent_RPX, received_RPX)).sum(3).transpose(1, 2).tolist()
        ways = list(zip(sent_PR, received_PR, strict=True))
        there = [depart(part.rows, *way, group) for part, way in zip(parts, ways, strict=True)]
        back = []
        for flight, (sent, received), counts_RX in zip(there, ways, received_RPX.unbind(1), strict=True):
            rows = arrive(*flight)
            # Rows stand by sender, then by expert; an expert's rows must stand together.
            owner = torch.arange(here, device=rows.device).repeat(ranks)
            owner = owner.repeat_interleave(counts_RX.flatten(), output_size=len(rows))
            order = owner.argsort(stable=True)
            inverse = invert(order)
            out = self._grouped(permute(rows, order, inverse), counts_RX.sum(0))
            back.append(depart(permute(out, inverse, order), received, sent, group))
        return (arrive(*flight) for flight in back)


# Programs that load Grok models agree only while |router logit| is under 3. The logarithm of a sum of
# exponentials bounds logits from above alone: an expert that is not wanted gets a large negative one.
LOGIT_BOUND = 1.5


@dataclass(frozen=True, slots=True)
class RouterStats:
    """Sums over the tokens of one pass, so that any split of a batch adds up to the same."""

    balance: Tensor  # [1] sum over sequences of X * sum_e f_e P_e [1]; 1 per sequence when even
    z: Tensor  # [1] sum over tokens of logsumexp(router logits)^2 [2], and of squares beyond LOGIT_BOUND
    load_X: Tensor  # tokens sent to each expert
    largest: Tensor  # [1] largest |router logit| of a token that counts


def router_stats(routing: Routing, counted_BT: Tensor, context: ProcessGroup | None = None) -> RouterStats:
    """Balance is taken within each sequence, so it does not depend on how sequences are dealt out.

    Where the ranks of a group share each sequence, its loads and its length are theirs together, and a rank
    gives its own tokens' share of P: over the group the balances add up to that of the whole sequence.
    """
    batch, length = counted_BT.shape
    logits, total = routing.logits_NX, routing.logits_NX.shape[-1]
    chosen_BTX = F.one_hot(routing.experts_Nk, total).sum(1).view(batch, length, total)
    counted = counted_BT.unsqueeze(-1).to(logits.dtype)
    load_BX, tokens_B1 = (chosen_BTX * counted).sum(1), counted.sum(1)
    whole_BX = load_BX
    if context is not None:
        both = torch.cat((load_BX, tokens_B1), dim=1)
        dist.all_reduce(both, group=context)
        whole_BX, tokens_B1 = both[:, :total], both[:, total:]
    tokens_B1 = tokens_B1.clamp(min=1)
    f_BX = whole_BX / (tokens_B1 * routing.experts_Nk.shape[1])
    p_BX = (routing.probabilities_NX.view(batch, length, total) * counted).sum(1) / tokens_B1
    beyond_N = F.relu(logits.abs() - LOGIT_BOUND).square().sum(-1)
    z_N = (logits.logsumexp(-1).square() + beyond_N) * counted.flatten()
    return RouterStats(
        balance=total * (f_BX * p_BX).sum(),
        z=z_N.sum(),
        load_X=load_BX.sum(0).detach(),
        largest=(logits.detach().abs() * counted.view(-1, 1)).amax(),
    )


class MixtureOfExperts(nn.Module):
    """The feed-forward half of a block: routed experts, with a dense FFN beside them in Grok-2."""

    def __init__(self, model: ModelSpec, groups: Groups) -> None:
        super().__init__()
        self.dense, self.context = model.experts == 1, groups.context
        if self.dense:
            self.ffn: nn.Module = GatedFFN(model.hidden, model.ffn_hidden, groups)
        else:
            self.router = Router(model)
            self.experts = Experts(model, groups)
        self.shared = (
            GatedFFN(model.hidden, model.shared_expert_ffn, groups) if model.shared_expert_ffn else None
        )

    def forward(self, x_BTE: Tensor, counted_BT: Tensor) -> tuple[Tensor, RouterStats | None]:
        if self.dense:
            y, stats = self.ffn(x_BTE), None
        else:
            x_NE = x_BTE.flatten(0, 1)
            routing = self.router.route(x_NE)
            y = self.experts(x_NE, routing.weights_Nk, routing.experts_Nk).view_as(x_BTE)
            stats = router_stats(routing, counted_BT, self.context)
        if self.shared is not None:
            y = (y + self.shared(x_BTE)) * 0.5**0.5
        return y, stats
