"""The exported folder as transformers loads it, with its own modelling code, against our model."""

from pathlib import Path
from typing import Any

import pytest
import torch

from colossi.serve.export.export import export
from colossi.serve.generate import Sampling, stream

from .models import VARIANTS, model_folder, random_grok

TOLERANCE = 5e-5  # logits, float32: what the fixture of tests/model holds our own model to


def quiet(label: str, done: int, total: int) -> None:
    """No bar."""


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path / "modules")


def theirs(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(folder, trust_remote_code=True, local_files_only=True).eval()


@pytest.mark.parametrize("keys", VARIANTS.values(), ids=VARIANTS.keys())
@torch.no_grad()
def test_transformers_has_our_logits_and_our_greedy_answer(keys: dict[str, object], tmp_path: Path) -> None:
    grok = random_grok(**keys)
    out = tmp_path / "out"
    export(model_folder(tmp_path / "in", grok), "hf", "f32", out, quiet)
    model = theirs(out)
    tokens = torch.randint(5, 384, (3, 40))
    tokens[1, 30:] = 0  # padding, which is not attended to
    tokens[2, :3] = 0
    seen = tokens != 0
    assert (model(tokens).logits - grok(tokens))[seen].abs().max() < TOLERANCE
    prompt = tokens[:1, :12]
    said = model.generate(prompt, max_new_tokens=24, eos_token_id=None)[0, 12:].tolist()
    assert said == list(stream(grok, prompt[0].tolist(), 24, set(), Sampling()))
