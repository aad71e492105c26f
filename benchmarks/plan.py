"""
Layouts evaluated per second on one core: colossi's search beside Calculon's, in turns, by CPU time.

    python benchmarks/plan.py                        # ours alone
    python benchmarks/plan.py --calculon DIR         # and Calculon's, from a checkout of it

The space is GPT-3 175B on 4,096 A100s with 3,072 sequences a step. Calculon's programs evaluate one
configuration after another; a sample of its space is drawn, the same number from each part. Ours are columns:
the whole space at once, many times over.
"""

import argparse
import json
import logging
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colossi.plan.efficiency import published
from colossi.plan.search import search
from colossi.plan.translate import open_case_of
from colossi.spec import build_spec

GPT3 = {
    "name": "gpt3",
    "model": {
        "layers": 96,
        "hidden": 12288,
        "heads": 96,
        "kv_heads": 96,
        "ffn_hidden": 49152,
        "vocabulary": 51200,
        "gated_ffn": False,
        "max_positions": 2048,
    },
    "training": {"sequence_length": 2048, "global_batch": 3072, "steps": 1, "precision": "bf16"},
    "cluster": {"gpu": "A100-SXM-80GB", "gpus": 4096},
}


def ours() -> Callable[[], int]:
    """One turn: the whole space; how many layouts that were."""
    fitted = published()
    case = open_case_of(build_spec(GPT3, "GPT-3"), fitted)
    return lambda: len(search(case, fitted.efficiency).seconds)


def calculons(folder: Path, each: int) -> Callable[[], int]:
    """One turn: so many configurations of a sample of its own space."""
    sys.path.insert(0, str(folder))
    import calculon  # type: ignore[import-not-found]
    from calculon.llm import Llm  # type: ignore[import-not-found]
    from calculon.system import System  # type: ignore[import-not-found]

    read = calculon.io.read_json_file
    application = Llm.Application(read(str(folder / "models/gpt3-175B.json")))
    machine = System(read(str(folder / "systems/a100_80g.json")))
    executions = _executions(Llm, application, machine)
    logger = logging.Logger("quiet")

    def turn() -> int:
        for _ in range(each):
            try:
                model = Llm(application, logger)
                model.compile(machine, Llm.Execution.from_json(next(executions)))
                model.run(machine)
                model.get_stats_json(False)
            except Llm.Error:
                pass  # it does not fit: that is an answer too
        return each

    return turn


def _executions(llm: Any, application: Any, machine: Any) -> Iterator[dict[str, Any]]:
    """At random, from the space that its own search goes through."""
    draw = random.Random(0)
    gpus, batch = 4096, 3072
    while True:
        tensor = draw.choice(
            list(llm.get_all_tensor_parallelisms(gpus, application.hidden, application.attn_heads))
        )
        pipelines = list(llm.get_all_pipeline_parallelisms(gpus, tensor, application.num_blocks))
        pipeline = draw.choice(pipelines)
        data = llm.get_data_parallelism(gpus, tensor, pipeline)
        if data > batch:
            continue
        rounded = batch // data * data
        sizes = list(llm.get_valid_microbatch_sizes(application.seq_size, tensor, data, rounded, pipeline))
        stages = list(llm.get_valid_pipeline_interleavings(application.num_blocks, pipeline))
        networks = range(machine.num_networks)
        yield {
            "num_procs": gpus,
            "tensor_par": tensor,
            "pipeline_par": pipeline,
            "data_par": data,
            "tensor_par_net": draw.choice(networks) if tensor > 1 else 0,
            "pipeline_par_net": draw.choice(networks) if pipeline > 1 else 0,
            "data_par_net": draw.choice(networks) if data > 1 else 0,
            "batch_size": rounded,
            "microbatch_size": draw.choice(sizes),
            "datatype": "float16",
            "fused_activation": True,
            "attention_type": "multihead",
            "activation_recompute": draw.choice(("full", "attn_only", "none")),
            "pipeline_interleaving": draw.choice(stages),
            "optimizer_sharding": data > 1 and draw.random() < 0.5,
            "tensor_par_comm_type": draw.choice(("ar", "rs_ag")),
            "tensor_par_overlap": draw.choice(("none", "ring")) if tensor > 1 else "none",
            "seq_par_ag_redo": False,
            "data_par_overlap": data > 1 and draw.random() < 0.5,
            "weight_offload": False,
            "activations_offload": False,
            "optimizer_offload": False,
            "training": True,
        }


def rate(turn: Callable[[], int]) -> float:
    """Layouts in a CPU second, over about one."""
    start, done = time.process_time(), 0
    while (spent := time.process_time() - start) < 1.0:
        done += turn()
    return done / spent


def main() -> None:
    parser = argparse.ArgumentParser(description="Layouts per second, beside Calculon's.")
    parser.add_argument("--calculon", type=Path, metavar="DIR", help="a checkout of Calculon")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    contestants = {"colossi": ours()}
    if chosen.calculon is not None:
        contestants["calculon"] = calculons(chosen.calculon, 10)
    else:
        sys.stderr.write("without --calculon DIR there is nothing to compare with\n")
    rates: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(chosen.rounds):
        for name, turn in contestants.items():
            rates[name].append(rate(turn))
    result = {name: statistics.median(found) for name, found in rates.items()}
    if "calculon" in rates:
        pairs = zip(rates["colossi"], rates["calculon"], strict=True)
        result["ratio"] = statistics.median(mine / theirs for mine, theirs in pairs)
    if chosen.json:
        sys.stdout.write(json.dumps(result) + "\n")
        return
    for name, value in result.items():
        unit = "times as many" if name == "ratio" else "layouts per CPU second"
        sys.stdout.write(f"{name:10}{value:12,.0f} {unit}\n")


if __name__ == "__main__":
    main()
