"""
Forecast beside measured for small runs of the trainer on this machine's cores.

    colossi calibrate --name here
    python validation/cpu.py [--only NAME...]

Each case is trained by `colossi train` for some steps, and `colossi report` says both. `cpu` is what rank 0
had of the cores in a step, times the workers that share a core: on a machine that others use too, a worker of
one thread that waits for nobody takes that long when they are gone, and the measured step is longer.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

SMALL = {"layers": 4, "hidden": 128, "heads": 4, "kv_heads": 2, "ffn_hidden": 384, "vocabulary": 320}
WIDE = {"layers": 3, "hidden": 256, "heads": 4, "kv_heads": 4, "ffn_hidden": 768, "vocabulary": 320}
LAPTOP = {
    "layers": 4,
    "hidden": 192,
    "heads": 3,
    "kv_heads": 1,
    "ffn_hidden": 256,
    "vocabulary": 512,
    "experts": 4,
    "experts_per_token": 2,
}
MANY = LAPTOP | {"hidden": 128, "heads": 4, "kv_heads": 2, "ffn_hidden": 128, "experts": 8}
STEP = {"sequence_length": 128, "global_batch": 8, "steps": 15, "optimizer": "adamw"}
DEMO = STEP | {"sequence_length": 96, "global_batch": 24, "optimizer": "muon"}

Case = tuple[int, dict[str, Any], dict[str, Any], dict[str, Any]]  # workers, model, training, layout
CASES: dict[str, Case] = {
    "dense, 1 worker": (1, SMALL, STEP, {}),
    "wide, 1 worker": (1, WIDE, STEP | {"sequence_length": 256}, {}),
    "experts, 1 worker": (1, LAPTOP, STEP, {}),
    "demo: experts, Muon, replicate 2": (2, LAPTOP, DEMO, {}),
    "dense, replicate 2": (2, SMALL, STEP, {}),
    "wide, tensor 2": (2, WIDE, STEP, {"tensor": 2}),
    "wide, shard 2": (2, WIDE, STEP, {"shard": 2}),
    "experts, expert 2": (2, MANY, STEP | {"global_batch": 16}, {"expert": 2}),
    "wide, pipeline 2": (2, WIDE | {"layers": 4}, STEP, {"pipeline": 2, "micro_batch": 2}),
    "dense, replicate 4": (4, SMALL, STEP | {"global_batch": 16}, {}),
    "wide, tensor 2, replicate 2": (4, WIDE, STEP, {"tensor": 2}),
    "experts, shard 4": (4, LAPTOP, STEP | {"global_batch": 16}, {"shard": 4}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--profile", default="here", help="as `colossi calibrate --name` had it")
    parser.add_argument("--only", nargs="*", help="cases whose names have one of these words")
    chosen = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    sys.stdout.write(f"{'case':34}{'forecast':>10}{'measured':>10}{'off':>7}{'cpu':>10}{'off':>7}\n")
    with tempfile.TemporaryDirectory() as folder:
        text = Path(folder) / "text.txt"
        words = "the quick brown fox jumps over the lazy dog and runs away from {} hounds\n"
        text.write_text("".join(words.format(number) for number in range(20000)))
        for name, case in CASES.items():
            if not chosen.only or any(word in name for word in chosen.only):
                found = run(case, chosen.profile, text, Path(folder) / "".join(filter(str.isalnum, name)))
                said, wall = found["forecast_step_seconds"], found["step_seconds"]
                cpu = found["cpu_seconds"] * max(1.0, case[0] / cores) if case[0] > 1 else None
                shown = f"{cpu * 1e3:8.1f}ms{said / cpu - 1:+7.0%}" if cpu else ""
                sys.stdout.write(
                    f"{name:34}{said * 1e3:8.1f}ms{wall * 1e3:8.1f}ms{said / wall - 1:+7.0%}{shown}\n"
                )
                sys.stdout.flush()


def run(case: Case, profile: str, text: Path, folder: Path) -> dict[str, Any]:
    """Train it, and what its report says."""
    workers, model, training, layout = case
    tables = {
        "model": model,
        "data": {"tokenizer": "bytes"},
        "training": training,
        "layout": layout,
        "checkpoint": {"every": 0},
        "cluster": {"workers_per_node": workers, "device": "cpu", "profile": profile},
    }
    lines = ['name = "case"']
    for table, keys in tables.items():
        lines += [f"[{table}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
        if table == "data":
            lines += ["[[data.sources]]", 'kind = "files"', f"path = {json.dumps(str(text))}"]
    spec = folder.with_suffix(".toml")
    spec.write_text("\n".join(lines) + "\n")
    for command in (["train", str(spec), "--run", str(folder)], ["report", str(folder)]):
        done = subprocess.run(
            [sys.executable, "-m", "colossi.cli", *command, "--json"], capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(done.stderr)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    main()
