"""The exported folder as transformers loads it, with its own modelling code, against our model."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from colossi.model import Grok
from colossi.serve.export.export import export
from colossi.serve.generate import Sampling, stream
from colossi.serve.load import load

from .models import EVERYWHERE, NOT_IN_LLAMA, TEXTS, VOCABULARY, model_folder, quiet, random_grok

TOLERANCE = 5e-5  # logits, float32: what the fixture of tests/model holds our own model to
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": " What is 12 + 30?\n\n"},
    {"role": "assistant", "content": "42."},
    {"role": "user", "content": "naïve café!"},
]


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """transformers copies a folder's code to a cache: one that goes away."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.syspath_prepend(tmp_path / "modules")


def theirs(folder: Path, **more: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(
        folder, trust_remote_code=True, local_files_only=True, **more
    ).eval()


def random_tokens(rows: int, length: int) -> torch.Tensor:
    return torch.randint(5, VOCABULARY, (rows, length))


@pytest.mark.parametrize("keys", (both := EVERYWHERE | NOT_IN_LLAMA).values(), ids=both.keys())
@torch.no_grad()
def test_transformers_has_our_logits_and_our_greedy_answer(keys: dict[str, object], tmp_path: Path) -> None:
    grok = random_grok(**keys)
    export(model_folder(tmp_path / "in", grok), "hf", "f32", tmp_path / "out", quiet)
    model = theirs(tmp_path / "out")
    tokens = random_tokens(3, 40)
    tokens[1, 30:] = tokens[2, :3] = 0  # padding, which is not attended to
    difference = (model(tokens).logits - grok(tokens))[tokens != 0]
    assert difference.abs().max() < TOLERANCE
    prompt = tokens[:1, :12]
    said = model.generate(prompt, max_new_tokens=24, eos_token_id=None)[0, 12:].tolist()
    assert said == list(stream(grok, prompt[0].tolist(), 24, set(), Sampling()))


@torch.no_grad()
def test_generation_with_a_cache_is_that_without_one_and_alone(tmp_path: Path) -> None:
    export(model_folder(tmp_path / "in", random_grok()), "hf", "f32", tmp_path / "out", quiet)
    model = theirs(tmp_path / "out")
    rows = random_tokens(3, 10)
    rows[0, :4] = rows[2, :7] = 0  # prompts of different lengths, padded on the left as generate wants it
    more: dict[str, Any] = dict(max_new_tokens=16, eos_token_id=None)
    with_cache = model.generate(rows, attention_mask=(rows != 0).long(), **more)
    without = model.generate(rows, attention_mask=(rows != 0).long(), use_cache=False, **more)
    static = model.generate(
        rows,
        attention_mask=(rows != 0).long(),
        cache_implementation="static",
        disable_compile=True,
        **more,
    )
    assert torch.equal(with_cache, without) and torch.equal(with_cache, static)
    for row, answer in zip(rows, with_cache, strict=True):
        alone = model.generate(row[row != 0][None], **more)[0]
        assert torch.equal(alone, answer[answer != 0])


def test_it_trains_in_transformers_as_here(tmp_path: Path) -> None:
    grok = random_grok()
    export(model_folder(tmp_path / "in", grok), "hf", "f32", tmp_path / "out", quiet)
    tokens = random_tokens(2, 20)
    model = theirs(tmp_path / "out")
    loss = model(tokens, labels=tokens).loss
    loss.backward()
    counted = torch.ones_like(tokens[:, 1:], dtype=torch.bool)
    grok.requires_grad_(True)
    (grok(tokens[:, :-1], tokens[:, 1:], counted).cross_entropy / counted.sum()).backward()
    ours = grok.blocks["1"].attention.q.weight.grad
    torch.testing.assert_close(model.model.layers[1].self_attn.q_proj.weight.grad, ours, rtol=1e-3, atol=1e-5)


def test_the_tokenizer_and_the_chat_template_are_ours(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    export(model_folder(tmp_path / "in", random_grok()), "hf", "f32", tmp_path / "out", quiet)
    theirs, ours = AutoTokenizer.from_pretrained(tmp_path / "out"), load(tmp_path / "out").tokenizer
    for text in [*TEXTS, "", " ", "1234 a1b2 don't"]:
        assert theirs(text)["input_ids"] == ours.encode(text)
        assert theirs.decode(ours.encode(text)) == text
    for first in (0, 1, 3):
        ids = theirs.apply_chat_template(CHAT[first:], add_generation_prompt=True)["input_ids"]
        assert ids == ours.encode_prompt(CHAT[first:])
        whole = theirs.apply_chat_template(CHAT[first:])["input_ids"]
        assert whole == ours.encode_chat(CHAT[first:])[0]
    assert (theirs.pad_token_id, theirs.bos_token_id, theirs.eos_token_id) == (0, 1, 2)


def test_half_precision_is_the_same_weights_rounded(tmp_path: Path) -> None:
    grok = random_grok()
    folder = model_folder(tmp_path / "in", grok)
    done = export(folder, "hf", "f16", tmp_path / "out", quiet)
    assert json.loads((done.path / "config.json").read_text())["torch_dtype"] == "float16"
    again = load(done.path).grok
    for (name, ours), theirs in zip(grok.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(ours.half().float(), theirs), name


def test_a_folder_in_many_files_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grok = random_grok()
    folder = model_folder(tmp_path / "in", grok)
    monkeypatch.setattr("colossi.model.weights.SHARD_BYTES", 100_000)
    out = export(folder, "hf", "f32", tmp_path / "out", quiet).path
    files = sorted(out.glob("model-*.safetensors"))
    index = json.loads((out / "model.safetensors.index.json").read_text())
    assert len(files) > 3 and {file.name for file in files} == set(index["weight_map"].values())
    assert index["metadata"]["total_size"] == sum(t.nbytes for f in files for t in load_file(f).values())
    tokens = random_tokens(1, 12)
    with torch.no_grad():
        assert (theirs(out)(tokens).logits - grok(tokens)).abs().max() < TOLERANCE
    assert torch.equal(Grok.from_pretrained(out)(tokens), grok(tokens))
