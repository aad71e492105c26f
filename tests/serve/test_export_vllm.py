"""
The exported folder in vLLM's Transformers backend.

Its CPU build is large, and no dependency: it is used where it is installed, by `pytest -m all` on this file.
"""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from colossi.serve.export.export import export
from colossi.serve.generate import Sampling, stream

from .models import EVERYWHERE, VOCABULARY, model_folder, quiet, random_grok

TOLERANCE = 1e-4  # log-probabilities, float32
# vLLM makes the logits itself, from `logit_scale`, and knows no cap of them in this backend.
LOADED = [name for name, keys in EVERYWHERE.items() if not keys.get("final_cap")]


@pytest.mark.all
@pytest.mark.parametrize("name", LOADED)
def test_vllm_has_our_probabilities_and_our_greedy_answer(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for key, value in {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }.items():
        monkeypatch.setitem(os.environ, key, value)
    vllm: Any = pytest.importorskip("vllm")
    grok = random_grok(**({"hidden": 128, "heads": 2, "kv_heads": 1} | EVERYWHERE[name]))  # heads of 64
    folder = export(model_folder(tmp_path / "model", grok), "hf", "f32", tmp_path / "out", quiet).path
    llm = vllm.LLM(
        model=str(folder),
        trust_remote_code=True,
        model_impl="transformers",
        dtype="float32",
        enforce_eager=True,
        max_model_len=128,
        max_num_seqs=4,
        max_logprobs=VOCABULARY,
    )
    tokens = torch.randint(5, VOCABULARY, (20,)).tolist()
    asked = vllm.SamplingParams(
        temperature=0, max_tokens=24, ignore_eos=True, prompt_logprobs=VOCABULARY, logit_bias={0: -100.0}
    )
    said = llm.generate([{"prompt_token_ids": tokens}], asked)[0]
    with torch.no_grad():
        ours = grok(torch.tensor([tokens]))[0].log_softmax(-1)
    for place, told in enumerate(said.prompt_logprobs[1:]):
        row = torch.tensor([told[number].logprob for number in range(VOCABULARY)])
        assert (row - ours[place]).abs().max() < TOLERANCE
    assert list(said.outputs[0].token_ids) == list(stream(grok, tokens, 24, set(), Sampling()))
