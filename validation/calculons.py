"""
Calculon's forecasts of the published runs that it can express, from a checkout (calculon-ai/calculon).

It knows decoders of two-matrix FFNs with as many heads of keys as of queries, in 16-bit formats, under
tensor, pipeline and data parallel, on the A100 and H100 systems that come with it. What else a row says
has no place in it. Memory is made ample: a run that was measured did fit.
"""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from published import Published

SYSTEMS = {"A100": "a100_80g", "H100": "h100_80g_nvl8"}
RECOMPUTE = {"none": "none", "selective": "attn_only", "full": "full"}
DOMAIN = 8  # GPUs of its first network


def expressible(run: Published) -> bool:
    """Whether Calculon has words for all of a row that step times depend on most."""
    model, layout, training = (run.document[table] for table in ("model", "layout", "training"))
    weights_whole = layout.get("shard", 1) == 1 or layout.get("zero", 3) == 1
    plain = model["experts"] == 1 and not model["gated_ffn"] and model["kv_heads"] == model["heads"]
    known = run.row["gpu"].split("-")[0] in SYSTEMS and "window" not in model
    sixteen = training["precision"] in ("bf16", "fp16")
    return plain and known and sixteen and weights_whole and layout["context"] == 1


def calculon(folder: Path) -> Callable[[Published], float | str]:
    """Step seconds of a run, or why Calculon has none."""
    sys.path.insert(0, str(folder))
    from calculon.llm import Llm  # type: ignore[import-not-found]
    from calculon.system import System  # type: ignore[import-not-found]

    systems: dict[str, Any] = {}
    for gpu, name in SYSTEMS.items():
        config = json.loads((folder / "systems" / f"{name}.json").read_text("utf-8"))
        config["mem1"]["GiB"] = 1e6
        systems[gpu] = System(config)

    def seconds(run: Published) -> float | str:
        try:
            model = Llm(Llm.Application(application(run)), logging.Logger("quiet"))
            system = systems[run.row["gpu"].split("-")[0]]
            model.compile(system, Llm.Execution.from_json(execution(run)))
            model.run(system)
        except (Llm.Error, AssertionError) as error:
            return str(error) or "an assertion of its own"
        return float(model.get_total_time())

    return seconds


def application(run: Published) -> dict[str, int]:
    """The model in its words."""
    model = run.document["model"]
    return {
        "hidden": model["hidden"],
        "feedforward": model["ffn_hidden"],
        "seq_size": run.document["training"]["sequence_length"],
        "attn_heads": model["heads"],
        "attn_size": model["head_dim"],
        "num_blocks": model["layers"],
    }


def execution(run: Published) -> dict[str, Any]:
    """The layout in its words: what stays within eight GPUs on the first network, the rest on the second."""
    layout, training = run.document["layout"], run.document["training"]
    tensor, pipeline, gpus = layout["tensor"], layout["pipeline"], run.document["cluster"]["gpus"]
    data, overlap = gpus // (tensor * pipeline), layout.get("overlap", ["data"])
    sliced = tensor > 1 and bool(layout.get("sequence_parallel"))
    return {
        "num_procs": gpus,
        "tensor_par": tensor,
        "pipeline_par": pipeline,
        "data_par": data,
        "tensor_par_net": 0 if tensor <= DOMAIN else 1,
        "pipeline_par_net": 0 if gpus <= DOMAIN else 1,
        "data_par_net": 0 if tensor * data <= DOMAIN else 1,
        "batch_size": training["global_batch"],
        "microbatch_size": layout["micro_batch"],
        "datatype": "float16",
        "fused_activation": training.get("fused_kernels", True),
        "attention_type": "multihead",
        "activation_recompute": RECOMPUTE[layout["recompute"]],
        "pipeline_interleaving": layout["interleave"],
        "optimizer_sharding": data > 1 and layout.get("zero") == 1,
        "tensor_par_comm_type": "rs_ag" if sliced else "ar",
        "tensor_par_overlap": "ring" if tensor > 1 and "tensor" in overlap else "none",
        "seq_par_ag_redo": False,
        "data_par_overlap": data > 1 and "data" in overlap,
        "weight_offload": False,
        "activations_offload": False,
        "optimizer_offload": False,
        "training": True,
    }
