"""
The planner's efficiencies: what no data sheet says.

Each is a share, a time or a count with one meaning, the same for every run. `validation/runs.py --fit` finds
them from published runs and writes them to the catalogue; none belongs to a run or to a publisher.
"""

import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files


@dataclass(frozen=True, slots=True)
class Efficiency:
    """What kernels and collectives reach, and what a step costs beside them."""

    product_depth: float = 300.0  # inner dimension at which a product reaches half of its share
    product_width: float = 0.0  # the same of the output's columns, and below of its rows
    product_rows: float = 0.0
    product_wave: float = 0.5  # how much a last, partly filled wave of tiles costs: 0 nothing, 1 all of it
    product_8bit: float = 0.85  # share of the 8-bit peak, over that of the 16-bit peak
    product_4bit: float = 1.0  # share of the 4-bit peak, over that of the 8-bit peak
    product_grouped: float = 0.9  # a grouped product's share, over that of a plain one
    grouped_8bit: float = 0.7  # the same in an 8-bit format, over that in a 16-bit format
    grouped_rows: float = 100.0  # rows of a group at which a grouped product reaches half of its share
    attention_backward: float = 0.8  # attention's share going back, over that of its forward pass
    attention_length: float = 400.0  # keys at which fused attention reaches half of its share
    score_seconds: float = 0.0  # [s] of a score beside its products, forward: exponentials and caps
    memory_share: float = 0.8  # of the memory's rate, in kernels that do little else
    unfused_passes: float = 1.5  # passes over memory where kernels are not fused, over those where they are
    score_passes: float = 5.0  # passes over the scores of attention that is not fused, forward
    cast_passes: float = 1.0  # passes over an operand to cast it to 8 bits
    link_share: float = 0.7  # of NVLink's rate
    nic_share: float = 0.8  # of the network's rate
    reduce_rounds: float = 2.0  # an all-reduce, over the all-gather of as many bytes
    link_delay: float = 2.0e-5  # [s] a collective within a domain
    hop_delay: float = 5.0e-6  # [s] more, for each rank that a ring beyond a domain goes through
    tensor_exposed: float = 0.4  # share of tensor parallel's collectives that overlap does not hide
    expert_exposed: float = 0.6  # the same of the experts' all-to-all
    pipeline_exposed: float = 0.2  # the same of messages between stages
    data_exposed: float = 0.1  # the same of gradients and weights, where there is time enough to hide them
    overlap_slowdown: float = 0.15  # seconds of compute lost for each second of communication under it
    host_layer: float = 4.0e-4  # [s] the host needs to launch a layer's kernels, forward and backward
    host_experts: float = 4.0e-4  # [s] more, for a layer with experts
    host_shard: float = 0.0  # [s] more for a layer whose weights are sharded
    shard_passes: float = 0.0  # passes over the weights of such a layer, to lay them out and free them
    host_step: float = 0.01  # [s] of a step that are nobody's
    jitter: float = 0.004  # share of a step lost for each doubling of the GPUs beyond one domain
    router_passes: float = 8.0  # passes over the routed copies of tokens: sorting, weighting, putting back
    loss_passes: float = 1.0  # passes over the logits, over one to write and one to read them, each way
    optimizer_passes: float = 1.0  # of Adam over its numbers, over what its formula has to move
    muon_share: float = 1.0  # of the peak, that Muon's iterations reach
    muon_passes: float = 5.0  # of Muon over the numbers of its matrices, beside its iterations
    host_muon: float = 0.0  # [s] more, for each matrix
    power: float = 0.5  # exponent by which products gain where a GPU has more watts for its peak


@dataclass(frozen=True, slots=True)
class Architecture:
    """What kernels of a generation of GPUs reach, as shares of the dense peak."""

    product: float  # large matrix products, at `watts` for each FLOP/s
    flash: float  # the best fused attention, forward, causal
    flash_2: float  # FlashAttention-2, the same
    watts: float  # [W s / FLOP] of the member that `product` is for


@dataclass(frozen=True, slots=True)
class Fitted:
    """All that was fitted, or taken from public kernel measurements."""

    efficiency: Efficiency
    architectures: dict[str, Architecture]


def read(text: str) -> Fitted:
    """From a TOML document with tables [efficiency] and [architecture.NAME]."""
    document = tomllib.loads(text)
    kinds = {name: Architecture(**keys) for name, keys in document["architecture"].items()}
    return Fitted(Efficiency(**document["efficiency"]), kinds)


@cache
def published() -> Fitted:
    """Those of the catalogue."""
    return read(files("colossi.spec").joinpath("catalogue/efficiency.toml").read_text("utf-8"))
