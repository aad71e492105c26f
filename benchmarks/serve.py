# ruff: noqa: T201, E402 (a script talks by printing; what it imports is beside it)
"""
Serving beside others, on the same weights in one run.

    PYTHONPATH=src python benchmarks/serve.py [--tokens N]

A model of the laptop's sizes with random weights, in float32, says tokens at temperature 1, as random answers
do not end. `colossi serve` and llama.cpp's server are asked over HTTP, transformers' generate is called; who
may have two threads is tried with one and two, and the better counts. Printed are tokens a second for one
answer and for 32 at once, the time to the first token, and of one answer the share of what the bandwidth of
one core would allow.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import torch

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "validation")]  # neither is a package that is installed

from llamas import llama_server

from colossi.serve.export.export import export
from colossi.spec.size import count_parameters
from tests.serve.models import LAPTOP, VOCABULARY, model_folder, random_grok

PROMPT = "What is 12 + 30? 42. the quick brown fox"
MANY, FIRSTS, WHOLE = 32, 10, 5
AIMS = {
    ("transformers", 1): 2.0,
    ("transformers", MANY): 5.0,
    ("llama.cpp", 1): 0.5,
    ("llama.cpp", MANY): 0.5,
}


@dataclass(frozen=True, slots=True)
class Speed:
    """Tokens a second, and seconds to the first one (median)."""

    one: float
    many: float
    first: float


def timed(say: Callable[[int], int], answers: int, at_once: int) -> float:
    """Tokens a second of so many answers; `say` returns the tokens of the nth."""
    begin = time.perf_counter()
    with ThreadPoolExecutor(at_once) as pool:
        tokens = sum(pool.map(say, range(answers)))
    return tokens / (time.perf_counter() - begin)


def first(say: Callable[[int], int]) -> float:
    """Median seconds of an answer of one token."""
    taken = []
    for n in range(FIRSTS):
        begin = time.perf_counter()
        say(n)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def ours(folder: Path, tokens: int) -> Speed:
    command = [sys.executable, "-m", "colossi.cli", "serve", str(folder), "--port", "0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            said = json.loads(process.stdout.readline())
            with httpx.Client(base_url=said["url"], timeout=300, trust_env=False) as client:

                def ask(n: int, most: int = tokens) -> int:
                    body = {"model": said["model"], "prompt": PROMPT, "max_tokens": most, "seed": n}
                    answer = client.post("/completions", json=body | {"temperature": 1.0})
                    answer.raise_for_status()
                    return int(answer.json()["usage"]["completion_tokens"])

                ask(0)
                return Speed(timed(ask, WHOLE, 1), timed(ask, 2 * MANY, MANY), first(lambda n: ask(n, 1)))
        finally:
            process.terminate()


def llama(file: Path, tokens: int) -> Speed:
    def speed(parallel: int, threads: int) -> tuple[float, float]:
        with llama_server(file, parallel, threads) as client:

            def ask(n: int, most: int = tokens) -> int:
                body = {
                    "prompt": PROMPT,
                    "n_predict": most,
                    "temperature": 1.0,
                    "seed": n,
                    "ignore_eos": True,
                }
                answer = client.post("/completion", json=body | {"cache_prompt": False})
                answer.raise_for_status()
                return int(answer.json()["tokens_predicted"])

            ask(0)
            if parallel == 1:
                return timed(ask, WHOLE, 1), first(lambda n: ask(n, 1))
            return timed(ask, 2 * MANY, MANY), 0.0

    alone = max(speed(1, threads) for threads in (1, 2))
    return Speed(alone[0], max(speed(MANY, threads)[0] for threads in (1, 2)), alone[1])


def transformers(folder: Path, tokens: int) -> Speed:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model: Any = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
    prompt = AutoTokenizer.from_pretrained(folder)(PROMPT, return_tensors="pt").input_ids

    def say(answers: int, most: int) -> int:
        rows = prompt.expand(answers, -1)
        model.generate(
            rows,
            attention_mask=torch.ones_like(rows),
            do_sample=True,
            min_new_tokens=most,
            max_new_tokens=most,
        )
        return answers * most

    found = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        say(1, tokens)
        one = timed(lambda n: say(1, tokens), WHOLE, 1)
        found.append(Speed(one, timed(lambda n: say(MANY, tokens), 2, 1), first(lambda n: say(1, 1))))
    return Speed(
        max(each.one for each in found), max(each.many for each in found), min(each.first for each in found)
    )


def bandwidth() -> float:
    """Bytes a second that one core reads from memory, at best of ten sums of 256 MB."""
    data = np.ones(64 << 20, np.float32)
    taken = []
    for _ in range(10):
        begin = time.perf_counter()
        data.sum()
        taken.append(time.perf_counter() - begin)
    return data.nbytes / min(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--tokens", type=int, default=128, help="of an answer")
    tokens = parser.parse_args().tokens
    grok = random_grok(**LAPTOP.model_dump() | {"vocabulary": VOCABULARY})
    active = count_parameters(grok.model).active
    with tempfile.TemporaryDirectory() as folder:
        source = model_folder(Path(folder) / "model", grok, "words")
        hf = export(source, "hf", "f32", Path(folder) / "hf", lambda *told: None).path
        gguf = export(source, "gguf", "f32", Path(folder) / "model.gguf", lambda *told: None).path
        speeds = {"colossi": ours(source, tokens)}
        speeds["transformers"] = transformers(hf, tokens)
        speeds["llama.cpp"] = llama(gguf, tokens)
    own = speeds["colossi"]
    print(f"{active:,} active parameters, float32, answers of {tokens} tokens")
    columns = ("one [tokens/s]", f"{MANY} [tokens/s]", "first [ms]", "ours over it: one", f"{MANY}")
    print(f"{'':14}" + "".join(f"{name:>19}" for name in columns))
    for name, each in speeds.items():
        ratios = f"{own.one / each.one:19.2f}{own.many / each.many:19.2f}" if name != "colossi" else ""
        print(f"{name:14}{each.one:19,.0f}{each.many:19,.0f}{each.first * 1e3:19.1f}{ratios}")
    for (name, at_once), aim in AIMS.items():
        reached = own.one / speeds[name].one if at_once == 1 else own.many / speeds[name].many
        print(f"{at_once:2} of {name}: {reached:.2f}, aim {aim}{'' if reached >= aim else ': missed'}")
    limit = bandwidth() / (4 * active)
    print(f"one answer over what one core's bandwidth allows ({limit:,.0f} tokens/s): {own.one / limit:.2f}")


if __name__ == "__main__":
    main()
