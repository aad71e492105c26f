"""
A run exported in every format, loaded by the programs that it is for, beside our own model.

    python validation/formats.py RUN [--questions 20] [--only NAME...] [--json]

Held-out questions of the run are asked in the chat format. At every place of question and answer the
log-probabilities of all tokens are compared, and the greedy answers are. vLLM is asked where it is installed.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from llamas import greedy, llama_server, log_probabilities
from torch import Tensor

from colossi.ledger.run import open_run
from colossi.model import Grok
from colossi.serve.evaluate import read_questions
from colossi.serve.export.export import export
from colossi.serve.generate import Sampling, stream
from colossi.serve.load import load

MOST = 24  # tokens of an answer


@dataclass(frozen=True, slots=True)
class Asked:
    """A prompt, and our greedy answer to it."""

    prompt: list[int]
    answer: list[int]


@dataclass(frozen=True, slots=True)
class Told:
    """What a program says: log-probabilities by place, rows of NaN where it tells nothing; its answer."""

    rows: Tensor
    answer: list[int]


Ask = Callable[[Path, list[Asked], set[int], int], list[Told]]


def in_transformers(folder: Path, asked: list[Asked], stop: set[int], vocabulary: int) -> list[Told]:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, dtype=torch.float32)
    told = []
    for each in asked:
        prompt = torch.tensor([each.prompt])
        answer = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=MOST)[0]
        said = [token for token in answer[len(each.prompt) :].tolist() if token not in stop]
        with torch.no_grad():
            rows = model(torch.tensor([each.prompt + each.answer])).logits[0].log_softmax(-1)
        told.append(Told(rows, said))
    return told


def in_llama(file: Path, asked: list[Asked], stop: set[int], vocabulary: int) -> list[Told]:
    told = []
    with llama_server(file) as client:
        for each in asked:
            tokens = each.prompt + each.answer
            places = range(len(tokens))
            found = {n: log_probabilities(client, tokens[: n + 1], vocabulary) for n in places}
            nothing = [float("nan")] * vocabulary
            rows = torch.tensor([found[n] or nothing for n in places])
            said = greedy(client, each.prompt, MOST, stops=True)
            end = next((n for n, token in enumerate(said) if token in stop), len(said))
            told.append(Told(rows, said[:end]))
    return told


def in_vllm(folder: Path, asked: list[Asked], stop: set[int], vocabulary: int) -> list[Told]:
    os.environ.update(VLLM_CPU_KVCACHE_SPACE="1", VLLM_NO_USAGE_STATS="1")
    import vllm  # type: ignore[import-not-found]

    llm = vllm.LLM(
        model=str(folder),
        trust_remote_code=True,
        model_impl="transformers",
        dtype="float32",
        enforce_eager=True,
        max_model_len=512,
        max_logprobs=vocabulary,
    )
    told = []
    for each in asked:
        tokens = each.prompt + each.answer
        scores = vllm.SamplingParams(temperature=0, max_tokens=1, prompt_logprobs=vocabulary)
        scored = llm.generate([{"prompt_token_ids": tokens}], scores, use_tqdm=False)[0].prompt_logprobs
        rows = [[row[n].logprob for n in range(vocabulary)] for row in scored[1:]]
        nothing = [float("nan")] * vocabulary  # of what follows the last token
        answers = vllm.SamplingParams(temperature=0, max_tokens=MOST, stop_token_ids=list(stop))
        out = llm.generate([{"prompt_token_ids": each.prompt}], answers, use_tqdm=False)[0].outputs[0]
        said = [token for token in out.token_ids if token not in stop]
        told.append(Told(torch.tensor([*rows, nothing]), said))
    return told


CASES: dict[str, tuple[str, str, Ask]] = {  # name: format, type, who
    "transformers f32": ("hf", "f32", in_transformers),
    "transformers f16 weights": ("hf", "f16", in_transformers),
    "llama.cpp f32": ("gguf", "f32", in_llama),
    "llama.cpp f16": ("gguf", "f16", in_llama),
    "llama.cpp q8_0": ("gguf", "q8_0", in_llama),
    "vLLM f32": ("hf", "f32", in_vllm),
}


def compare(grok: Grok, asked: list[Asked], told: list[Told]) -> dict[str, float]:
    """The largest and the mean difference of log-probabilities [nats], and shares [1] that are the same."""
    differences, same = [], []
    for each, theirs in zip(asked, told, strict=True):
        with torch.no_grad():
            ours = grok(torch.tensor([each.prompt + each.answer]))[0].log_softmax(-1)
        known = ~theirs.rows[:, 1].isnan()
        differences.append((ours - theirs.rows)[known][:, 1:].abs().flatten())  # 0 is padding
        same.append(ours[known][:, 1:].argmax(-1) == theirs.rows[known][:, 1:].argmax(-1))
    found = torch.cat(differences)
    answers = [each.answer == theirs.answer for each, theirs in zip(asked, told, strict=True)]
    return {
        "max": float(found.max()),
        "mean": float(found.mean()),
        "argmax": float(torch.cat(same).float().mean()),
        "answers": sum(answers) / len(answers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--questions", type=int, default=20)
    parser.add_argument("--only", nargs="*", default=list(CASES), choices=CASES)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    loaded = load(options.run)
    stop = {loaded.tokenizer.separator, loaded.tokenizer.eos}
    asked = []
    for question in read_questions(open_run(options.run))[: options.questions]:
        prompt = loaded.tokenizer.encode_prompt(question.messages)
        asked.append(Asked(prompt, list(stream(loaded.grok, prompt, MOST, stop, Sampling()))))
    results: dict[str, Any] = {}
    for name in options.only:
        format_, type_, ask = CASES[name]
        with tempfile.TemporaryDirectory() as folder:
            out = Path(folder) / ("model.gguf" if format_ == "gguf" else "model")
            try:
                path = export(options.run, format_, type_, out, lambda label, done, total: None).path
                told = ask(path, asked, stop, loaded.grok.model.vocabulary)
            except ImportError as error:
                results[name] = f"not installed: {error.name}"
                continue
            results[name] = compare(loaded.grok, asked, told)
    if options.json:
        sys.stdout.write(json.dumps(results) + "\n")
        return
    sys.stdout.write(f"{'':26}{'largest':>10}{'mean':>10}{'likeliest':>11}{'answers':>9}\n")
    for name, found in results.items():
        if isinstance(found, str):
            sys.stdout.write(f"{name:26}{found}\n")
        else:
            shares = f"{found['argmax']:11.1%}{found['answers']:9.0%}"
            sys.stdout.write(f"{name:26}{found['max']:10.1e}{found['mean']:10.1e}{shares}\n")


if __name__ == "__main__":
    main()
