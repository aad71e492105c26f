"""
Published runs as specs: each row of data/published_runs.csv in the words of colossi's tables.

What a row says goes in as it stands. What it leaves out is what its publisher's program is known to do
(PROGRAMS), the same for all rows of a publisher: nothing here was chosen by looking at errors of step times.
"""

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data" / "published_runs.csv"

Row = dict[str, str]
Document = dict[str, Any]

MEGATRON_TODAY = {  # Megatron-Core as NeMo's and Megatron-Bridge's recipes use it
    "layout": {"zero": 1, "overlap": ["data", "tensor", "expert", "pipeline"], "sequence_parallel": True},
    "training": {"gradient_precision": "bf16"},
}
MEGATRON_2021 = {  # no fused attention yet; each operation a kernel; nothing overlaps
    "layout": {"overlap": []},
    "training": {"attention": "unfused", "fused_kernels": False},
}
PROGRAMS: dict[str, Document] = {
    "dgxc": MEGATRON_TODAY | {"training": {"gradient_precision": "bf16", "scaling": "delayed"}},
    "megatron-bridge": MEGATRON_TODAY,
    # Megatron-LM README: "DP, TP, PP overlap on; distributed optimizer".
    "megatron-h100": MEGATRON_TODAY,
    # FSDP1 (PyTorch), FlashAttention-2, one gather for each block.
    "llm-foundry": {"training": {"attention": "flash-2"}},
    # FSDP2, no fused attention beyond PyTorch's own (FlashAttention-2).
    "torchtitan": {"training": {"attention": "flash-2"}, "layout": {"sequence_parallel": True}},
    # Megatron-DeepSpeed, full recomputation: data/ground_truth_multi.csv's configurations.
    "vtrain": MEGATRON_2021,
    "sc21": MEGATRON_2021,
    "korthikanti": MEGATRON_2021,
    # Megatron-LM 23e00ed without overlap, as its page says; distributed optimizer.
    "simumax": {"layout": {"zero": 1, "overlap": [], "sequence_parallel": True}},
    # The paper compares with Megatron-LM of 2023 and adds overlap of all kinds; gradients in fp32.
    "megascale": {
        "layout": {"zero": 1, "overlap": ["data", "pipeline"], "sequence_parallel": True},
        "training": {"gradient_precision": "bf16"},
    },
    "llama3": {"layout": {"overlap": ["data", "tensor", "pipeline"], "sequence_parallel": True}},
    "moe-folding": MEGATRON_TODAY,
}
NODES = {
    "A100": "DGX-A100",
    "A100-80GB": "DGX-A100",
    "A100-40GB": "MosaicML-A100-40GB",
    "H100": "DGX-H100",
    "H200": "DGX-H200",
    "B200": "DGX-B200",
    "B300": "DGX-B300",
    "GB200": "GB200-NVL72",
    "GB300": "GB300-NVL72",
}
NODES_OF = {  # where a publisher's machines are others than the usual ones
    ("vtrain", "A100"): "vTrain-A100",  # "inter-node 800 Gbps per node"
    ("llm-foundry", "A100-80GB"): "MosaicML-A100-80GB",
    ("torchtitan", "H100"): "Grand-Teton-H100",  # H100 with 96 GB of HBM2e, limited to 500 W
}
LATENT = {
    "q_lora_rank": 1536,
    "kv_lora_rank": 512,
    "rope_head_dim": 64,
    "value_head_dim": 128,
    "head_dim": 128,
}
MODELS: dict[str, Document] = {  # what a row's columns cannot say
    # arXiv 2412.19437, section 4.2: three dense layers of 18,432, experts of 2,048 and a shared one.
    "DeepSeek-V3-671B": LATENT
    | {"dense_layers": 3, "dense_ffn": 18432, "ffn_hidden": 2048, "shared_expert_ffn": 2048},
    # arXiv 2405.04434, section 3.1.2: one dense layer, experts of 1,536 and two shared ones.
    "DeepSeek-V2-236B": LATENT
    | {"dense_layers": 1, "dense_ffn": 12288, "ffn_hidden": 1536, "shared_expert_ffn": 3072},
    "Kimi-K2-1T": LATENT
    | {"dense_layers": 1, "dense_ffn": 18432, "ffn_hidden": 2048, "shared_expert_ffn": 2048},
    "Llama4-Maverick-400B": {
        "moe_every": 2,
        "dense_ffn": 16384,
        "ffn_hidden": 8192,
        "shared_expert_ffn": 8192,
    },
    "GPT-OSS-120B": {"window": 128, "window_every": 2},
    "Qwen2-57B-A14B": {"shared_expert_ffn": 20480},
}
PLAIN_FFN = (
    "GPT-1",
    "GPT-2",
    "GPT-3",
    "GPT-4",
    "GPT-5",
    "GPT-6",
    "GPT-7",
    "GPT-8",
    "GPT-9",
    "GPT3",
    "MPT",
    "Nemotron4",
)


@dataclass(frozen=True, slots=True)
class Published:
    """One run: its row, its spec as a document, and what was measured."""

    row: Row
    document: Document
    step_seconds: float | None
    memory_gib: float | None

    @property
    def group(self) -> str:
        return self.row["group"]


def published_runs() -> list[Published]:
    """All rows with a step time, of tiers 1 to 3."""
    with DATA.open(newline="", encoding="utf-8") as lines:
        rows = [
            row for row in csv.DictReader(lines) if row["measured_step_time_s"] and row["verify_tier"] != "4"
        ]
    return [
        Published(row, document_of(row), float(row["measured_step_time_s"]), _number(row, "measured_mem_gib"))
        for row in rows
    ]


def document_of(row: Row) -> Document:
    """The spec that says what the row says."""
    program = PROGRAMS[row["group"]]
    tensor, pipeline, context = (_whole(row, key) for key in ("tp", "pp", "cp"))
    gpus = _whole(row, "gpus")
    data = gpus // (tensor * pipeline * context)
    layout = _layout(row, program.get("layout", {}), data)
    return {
        "name": row["id"],
        "model": _model(row, tensor),
        "training": _training(row, program.get("training", {})),
        "layout": layout,
        "cluster": {"node": NODES_OF.get((row["group"], row["gpu"]), NODES[row["gpu"]]), "gpus": gpus},
    }


def _model(row: Row, tensor: int) -> Document:
    name, notes = row["model"], row["notes"]
    experts = _whole(row, "experts")
    layers, heads = _whole(row, "layers"), _whole(row, "heads")
    if name == "DeepSeek-V3-671B" and row["group"] == "megatron-bridge" and "w/o MTP" not in notes:
        layers += 1  # the recipe's multi-token prediction: one more layer
    own = dict(MODELS.get(name, {}))
    if own.get("dense_layers", 0) >= layers - 1:
        del own[
            "dense_layers"
        ]  # a model cut to a few layers has experts in all, as its memory shows (smx-007)
    part = 128 * tensor  # Megatron-LM pads the vocabulary so
    base = {
        "layers": layers,
        "hidden": _whole(row, "hidden"),
        "heads": heads,
        "kv_heads": heads if not (row["kv_heads"] or "").isdigit() else _whole(row, "kv_heads"),
        "head_dim": _whole(row, "head_dim") if row["head_dim"].isdigit() else _whole(row, "hidden") // heads,
        "ffn_hidden": _whole(row, "ffn_hidden"),
        "vocabulary": -(-_whole(row, "vocab") // part) * part if tensor > 1 else _whole(row, "vocab"),
        "gated_ffn": not name.startswith(PLAIN_FFN),
        "experts": experts,
        "experts_per_token": _whole(row, "topk"),
        "max_positions": _whole(row, "seq_len"),
        "tied_embeddings": row["group"] in ("sc21", "vtrain", "korthikanti", "llm-foundry", "megascale"),
        "attention_cap": 0.0,
    }
    if "MegaScale;" in notes:
        base["window"] = _whole(row, "seq_len") // 4  # "sliding-window attention", its width not published
    return base | own


def _training(row: Row, program: Document) -> Document:
    precision = row["precision"].upper()
    format_ = (
        "fp8"
        if "FP8" in precision
        else "fp4"
        if "FP4" in precision
        else "bf16"
        if "BF16" in precision
        else "fp16"
    )
    scaling = "block" if "MX" in precision or "FP4" in precision else "row" if "ROW" in precision else None
    early = {"fused_kernels": False} if row["notes"].startswith("FSDP;") else {}  # torchtitan before compile
    return {
        "sequence_length": _whole(row, "seq_len"),
        "global_batch": _whole(row, "global_batch"),
        "steps": 1,
        "precision": format_,
        **program,
        **({"scaling": scaling} if scaling else {}),
        **early,
    }


def _layout(row: Row, program: Document, data: int) -> Document:
    tensor, experts, notes = _whole(row, "tp"), _whole(row, "ep"), row["notes"]
    layout: Document = {
        "tensor": tensor,
        "pipeline": _whole(row, "pp"),
        "context": _whole(row, "cp"),
        "interleave": _whole(row, "vpp"),
        "replicate": data,
        "micro_batch": micro_batch_of(row, data),
        "recompute": {"full": "full", "none": "none", "": "none"}.get(row["recompute"], "selective"),
        **program,
    }
    if experts > 1:
        each = (
            _whole(row, "etp")
            if row["etp"]
            else (1 if row["group"] in ("megatron-bridge", "simumax") else tensor)
        )
        layout |= {"expert": experts, "expert_tensor": each}
    sharded = data if "ZeRO-3" in notes else _whole(row, "fsdp")
    if sharded > 1:
        layout |= {
            "shard": sharded,
            "replicate": data // sharded,
            "zero": 2 if "SHARD_GRAD_OP" in notes else 3,
        }
    elif layout.get("zero") == 1:
        layout |= {"shard": data, "replicate": 1}
    if "async TP" in notes or "AsyncTP" in notes:
        layout["overlap"] = ["data", "tensor"]
    if "MegaScale;" in notes:
        layout["overlap"] = ["data", "tensor", "pipeline"]
    if "ZeRO-3" in notes:
        layout["gathers"] = "tensor"  # DeepSpeed gathers each tensor by itself
    if tensor == 1:
        layout["sequence_parallel"] = False
    if row["seq_parallel"] in ("no", "yes"):
        layout["sequence_parallel"] = row["seq_parallel"] == "yes" and tensor > 1
    return layout


def micro_batch_of(row: Row, data: int) -> int:
    """As published; 1 where it is not, which is what pipelines of that size are run with."""
    share = _whole(row, "global_batch") // data
    return min(_whole(row, "micro_batch"), share)


def _whole(row: Row, key: str) -> int:
    """1 where a row says nothing."""
    return int(float(row[key])) if row[key] not in ("", "0", "MLA") else 1


def _number(row: Row, key: str) -> float | None:
    return float(row[key]) if row[key] else None
