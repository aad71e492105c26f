"""The exported GGUF file as llama.cpp's server loads it, against our model; and what is refused."""

import json
import sys
from pathlib import Path
from typing import Any

import gguf
import httpx
import numpy as np
import pytest
import torch

from colossi.data.chat import TEMPLATE
from colossi.errors import BadInput, WorkFailed
from colossi.model import Grok
from colossi.serve.chat import answer
from colossi.serve.export.export import export
from colossi.serve.export.llama import MODEL_KEY
from colossi.serve.generate import Sampling, stream
from colossi.serve.load import load

from .models import EVERYWHERE, NOT_IN_LLAMA, ROOT, TEXTS, VOCABULARY, model_folder, quiet, random_grok

sys.path.insert(0, str(ROOT / "validation"))  # scripts, no package
from llamas import greedy, llama_server, log_probabilities

# Log-probabilities, largest and mean difference. llama.cpp's GELU is a table of 16-bit numbers, and with q8_0
# it rounds activations to 8 bits too: a token may go to another expert, and only the mean says something.
TOLERANCES = {"f32": (5e-3, 1e-3), "f16": (5e-2, 5e-3), "q8_0": (np.inf, 0.15)}


def differences(client: httpx.Client, grok: Grok, tokens: list[int]) -> torch.Tensor:
    """Of the log-probabilities after the first, second ... token; padding's left out."""
    with torch.no_grad():
        ours = grok(torch.tensor([tokens]))[0].log_softmax(-1)
    rows = {n: log_probabilities(client, tokens[: n + 1], VOCABULARY) for n in range(0, len(tokens), 3)}
    told = [torch.tensor(row) - ours[n] for n, row in rows.items() if row is not None]
    assert len(told) > len(rows) / 2
    found = torch.stack(told)[:, 1:].abs()
    assert not found.isnan().any()
    return found


CASES = [(name, "f32") for name in EVERYWHERE] + [
    (name, type_) for name in ("Grok-1's block", "the laptop's sizes") for type_ in ("f16", "q8_0")
]


@pytest.mark.parametrize(("name", "type_"), CASES)
def test_llama_has_our_probabilities_and_our_greedy_answer(name: str, type_: str, tmp_path: Path) -> None:
    grok = random_grok(**(keys := EVERYWHERE[name]))
    source = model_folder(tmp_path / "model", grok, "subwords" if keys else "words")
    file = export(source, "gguf", type_, None, quiet).path
    tokens = torch.randint(5, VOCABULARY, (16,)).tolist()
    largest, mean = TOLERANCES[type_]
    with llama_server(file) as client:
        found = differences(client, grok, tokens)
        assert found.max() < largest and found.mean() < mean
        if type_ == "f32":
            expected = list(stream(grok, tokens[:5], 24, set(), Sampling()))
            assert greedy(client, tokens[:5], 24) == expected


def test_llama_splits_text_and_writes_chats_as_we_do(tmp_path: Path) -> None:
    for units in ("words", "subwords"):
        source = model_folder(tmp_path / units, random_grok(), units)
        loaded = load(export(source, "gguf", "f32", None, quiet).path)
        ours = loaded.tokenizer
        chat = [{"role": "user", "content": "What is 12 + 30?"}]
        with llama_server(tmp_path / f"{units}-f32.gguf") as client:
            for text in [*TEXTS, "1234 a1b2 don't", "Ünïcode\r\n\r\n  Δ≠"]:
                said = client.post("/tokenize", json={"content": text}).json()["tokens"]
                assert said == ours.encode(text), text
            prompt = client.post("/apply-template", json={"messages": chat}).json()["prompt"]
            body = {"content": prompt, "parse_special": True}
            assert client.post("/tokenize", json=body).json()["tokens"] == ours.encode_prompt(chat)
            request = {"messages": chat, "temperature": 0, "max_tokens": 12, "logit_bias": [[0, False]]}
            said = client.post("/v1/chat/completions", json=request).json()["choices"][0]["message"]
        pieces: list[str] = []
        answer(loaded, chat, Sampling(), 12, pieces.append)
        assert said["content"].strip() == "".join(pieces).strip()


@pytest.mark.parametrize("why", NOT_IN_LLAMA)
def test_a_model_that_llama_computes_otherwise_is_refused(why: str, tmp_path: Path) -> None:
    source = model_folder(tmp_path / "model", random_grok(**NOT_IN_LLAMA[why]))
    with pytest.raises(BadInput, match=why.replace("*", r"\*")):
        export(source, "gguf", "f32", None, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_rows_that_q8_cannot_take_are_refused(tmp_path: Path) -> None:
    source = model_folder(tmp_path / "model", random_grok(ffn_hidden=80))
    with pytest.raises(BadInput, match="multiple of 32, and ffn_hidden is 80"):
        export(source, "gguf", "q8_0", None, quiet)
    assert load(export(source, "gguf", "f16", None, quiet).path).grok.model.ffn_hidden == 80


def test_numbers_that_f16_cannot_hold_are_an_error(tmp_path: Path) -> None:
    grok = random_grok()
    grok.blocks["0"].attention.q.weight[0, 0] = 1e5
    with pytest.raises(WorkFailed, match=r"attn_q\.weight: holds a number that f16 cannot"):
        export(model_folder(tmp_path / "model", grok), "gguf", "f16", None, quiet)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def rewrite(source: Path, target: Path, without: str = "", architecture: str = "grok") -> None:
    """The file as another program would have written it: without one of its keys, or of another kind."""
    reader, writer = gguf.GGUFReader(source), gguf.GGUFWriter(target, architecture)
    for key, field in reader.fields.items():
        if not key.startswith("GGUF.") and key not in (without, "general.architecture"):
            kind = field.types[0]
            inner = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
            writer.add_key_value(key, field.contents(), kind, inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, np.array(tensor.data))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize("keys", EVERYWHERE.values(), ids=EVERYWHERE.keys())
def test_a_file_without_our_key_is_read_by_llamas(keys: dict[str, Any], tmp_path: Path) -> None:
    grok = random_grok(**keys)
    file = export(model_folder(tmp_path / "model", grok), "gguf", "f32", None, quiet).path
    rewrite(file, tmp_path / "plain.gguf", without=MODEL_KEY)
    again, tokens = load(tmp_path / "plain.gguf").grok, torch.randint(5, VOCABULARY, (2, 20))
    torch.testing.assert_close(again(tokens), grok(tokens), rtol=1e-4, atol=1e-4)


BROKEN = {
    "cut short": "not a whole GGUF file",
    "no gguf": "not a whole GGUF file",
    "another architecture": "a model of architecture 'llama'",
    "without its tokenizer": "has no tokenizer.huggingface.json",
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    file = export(model_folder(tmp_path / "model", random_grok()), "gguf", "f32", None, quiet).path
    broken = tmp_path / "broken.gguf"
    if name == "cut short":
        broken.write_bytes(file.read_bytes()[:-1000])
    elif name == "no gguf":
        broken.write_text("no model at all")
    elif name == "another architecture":
        rewrite(file, broken, architecture="llama")
    else:
        rewrite(file, broken, without="tokenizer.huggingface.json")
    with pytest.raises(BadInput, match=BROKEN[name]) as raised:
        load(broken)
    assert "\n" not in raised.value.message


def test_what_the_file_says_of_itself(tmp_path: Path) -> None:
    file = export(model_folder(tmp_path / "model", random_grok()), "gguf", "q8_0", None, quiet).path
    reader = gguf.GGUFReader(file)

    def value(key: str) -> Any:
        field = reader.get_field(key)
        assert field is not None, key
        return field.contents()

    assert value("general.architecture") == "grok" and value("general.name") == "model-q8_0"
    assert value("tokenizer.chat_template") == TEMPLATE and value("tokenizer.ggml.pre") == "tekken"
    assert len(value("tokenizer.ggml.tokens")) == VOCABULARY
    assert json.loads(value(MODEL_KEY))["hidden"] == 64
    kinds = {tensor.name: tensor.tensor_type.name for tensor in reader.tensors}
    assert kinds["blk.0.attn_q.weight"] == kinds["blk.1.ffn_down_exps.weight"] == "Q8_0"
    assert kinds["blk.0.attn_norm.weight"] == kinds["blk.1.ffn_gate_inp.weight"] == "F32"
    assert "output.weight" not in kinds  # tied: llama.cpp takes the embedding
