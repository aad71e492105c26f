"""
A run in numbers: everything that its step time and memory depend on.

Each field is a number, or an array of numbers that broadcasts with the others: the formulas of this package
evaluate one layout, a million of them, or all published runs, by the same code. Base units throughout.
"""

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

GIB = 2**30  # [bytes]

Number = Any  # float, or an array of float64 that broadcasts: NumPy's own types do not say this


@dataclass(frozen=True, slots=True)
class Model:
    """A decoder by its sizes; of `layers`, the last `moe_layers` (in number, not in place) have experts."""

    layers: Number
    hidden: Number
    heads: Number
    kv_heads: Number
    head_dim: Number
    ffn_hidden: Number  # width of a dense layer's FFN
    gated: Number  # 1: three matrices in an FFN; 0: two
    vocabulary: Number
    tied: Number  # 1: the output uses the embedding table
    moe_layers: Number = 0
    moe_every: Number = 1
    experts: Number = 1
    experts_per_token: Number = 1
    expert_ffn: Number = 0  # width of one expert
    shared_ffn: Number = 0  # width of the dense FFN beside the experts
    q_rank: Number = 0  # multi-head latent attention: width that queries are projected down to; 0: none
    kv_rank: Number = 0  # the same of keys and values; 0: plain attention
    rope_dim: Number = 0  # further dimensions of a head, which carry the position
    value_dim: Number = 0  # of a head's values; 0: as head_dim
    window: Number = np.inf  # keys that a token sees at most, averaged over layers


@dataclass(frozen=True, slots=True)
class Machine:
    """One accelerator with its share of the node and of the network."""

    gpus: Number
    peak: Number  # [FLOP/s] dense, in the number format of the matrix products
    peak_16: Number  # [FLOP/s] dense, of 16-bit formats: attention and the output keep to them
    memory: Number  # [bytes]
    memory_rate: Number  # [bytes/s]
    domain: Number  # GPUs that NVLink joins
    link: Number  # [bytes/s] NVLink, each direction
    nic: Number  # [bytes/s] of the network, each direction, a GPU's share
    product_share: Number  # of peak that large matrix products reach
    attention_share: Number  # of peak_16 that fused attention reaches
    tiles: Number  # [products' tiles at a time] streaming multiprocessors
    tile: Number = (
        128  # rows and columns of a tile of a product; kernels of many shapes exist, this is the usual one
    )
    own_host: Number = 0  # 1: it is its own host, and launches no kernel while it computes


@dataclass(frozen=True, slots=True)
class Layout:
    """How model and batch are divided. Data parallel is gpus / (tensor * pipeline * context)."""

    tensor: Number = 1
    pipeline: Number = 1
    interleave: Number = 1  # stages on each pipeline rank
    split_backward: Number = 0  # gradients of weights fill gaps: 1 zero-bubble, 2 zero-bubble-v
    context: Number = 1
    expert: Number = 1
    expert_tensor: Number = 1  # how many ranks share an expert's matrices
    shard: Number = 1  # ranks over which weights are sharded (ZeRO-3, FSDP); 1: weights stay whole
    keep_gathered: Number = 0  # 1: gathered weights are kept from the forward to the backward pass (ZeRO-2)
    gather_once: Number = 0  # 1: they are kept, and gradients whole, for all micro-batches of a step
    gathers: Number = 1  # collectives that a layer's weights take: one, or one for each tensor
    optimizer_shard: Number = 1  # ranks over which the optimizer's state is sharded
    micro_batch: Number = 1
    recompute: Number = 0  # share of the forward pass that is done again: 0 none, 1 full
    recompute_attention: Number = 0  # 1: attention's scores are done again (selective)
    sequence_parallel: Number = 0
    overlap_tensor: Number = 0
    overlap_data: Number = 1
    overlap_pipeline: Number = 0
    overlap_expert: Number = 0


@dataclass(frozen=True, slots=True)
class Training:
    """What a step is."""

    sequence: Number  # [tokens]
    global_batch: Number  # [sequences]
    eight_bit: Number = 0  # 1: products in an 8-bit format (or 4-bit), with casts before them
    four_bit: Number = 0  # 1: these products are in a 4-bit format
    cast_bytes: Number = 4.0  # read and written to cast a number of an operand, both ways round
    number_bytes: Number = 2  # of an activation's number, and of a weight's as it is used and sent
    muon: Number = 0  # 1: matrices are updated by Muon, each by one of the ranks that have its block
    gradient_bytes: Number = 4  # of a gradient's number as it is summed
    fused_attention: Number = 1  # 0: scores are written to memory, as before FlashAttention
    fused_elementwise: Number = 1  # 0: each element-wise operation is a kernel of its own
    causal_skip: Number = 1  # 1: fused attention skips the masked half
    imbalance: Number = 1.0  # tokens of the busiest expert rank, over the mean


@dataclass(frozen=True, slots=True)
class Case:
    """A run: model, machine, layout, training."""

    model: Model
    machine: Machine
    layout: Layout
    training: Training

    @property
    def data(self) -> Number:
        """Ranks that have different sequences."""
        return self.machine.gpus / (self.layout.tensor * self.layout.pipeline * self.layout.context)

    @property
    def micro_batches(self) -> Number:
        """Forward passes of a rank in a step."""
        return self.training.global_batch / (self.data * self.layout.micro_batch)

    def take(self, rows: Any) -> "Case":
        """The same of some entries, where fields are arrays."""
        return Case(*(_take(part, rows) for part in (self.model, self.machine, self.layout, self.training)))


def stack(cases: list[Case]) -> Case:
    """Many runs as one, whose fields are arrays."""
    parts = []
    for name in ("model", "machine", "layout", "training"):
        each = [getattr(case, name) for case in cases]
        columns = {f.name: np.array([getattr(x, f.name) for x in each], float) for f in fields(each[0])}
        parts.append(type(each[0])(**columns))
    return Case(*parts)


def _take(part: Any, rows: Any) -> Any:
    arrays = {f.name: getattr(part, f.name) for f in fields(part)}
    chosen: dict[str, NDArray[Any]] = {k: v[rows] for k, v in arrays.items() if np.ndim(v)}
    return replace(part, **chosen)


def as_floats(value: Any) -> Any:
    """A dataclass of zero-dimensional arrays as one of floats."""
    return type(value)(*(float(np.asarray(getattr(value, name))) for name in value.__dataclass_fields__))
