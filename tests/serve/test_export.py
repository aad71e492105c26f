"""Round trips through the exported formats, whole files only, and the command."""

import json
import os
import shutil
import signal
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colossi.errors import BadInput
from colossi.model import Grok
from colossi.serve.export.export import export
from colossi.serve.export.llama import refusal
from colossi.serve.export.source import open_source
from colossi.serve.load import load

from ..train.runs import colossi
from .models import model_folder, quiet, random_grok, run_of


@st.composite
def models(draw: st.DrawFn) -> dict[str, Any]:
    """Sizes of any variant that the spec allows and the trainer can train."""
    experts = draw(st.integers(1, 5))
    kv_heads = draw(st.sampled_from((1, 2, 4)))
    number = st.floats(0.01, 100.0)
    keys: dict[str, Any] = {
        "layers": draw(st.integers(1, 3)),
        "hidden": draw(st.sampled_from((32, 64, 96))),
        "heads": kv_heads * draw(st.sampled_from((1, 2))),
        "kv_heads": kv_heads,
        "ffn_hidden": draw(st.sampled_from((32, 64))),
        "experts": experts,
        "experts_per_token": draw(st.integers(1, experts)),
        "shared_expert_ffn": draw(st.sampled_from((0, 0, 32))),
        "tied_embeddings": draw(st.booleans()),
        "attention_cap": draw(st.sampled_from((0.0, 30.0)) | number),
        "router_cap": draw(st.sampled_from((0.0, 30.0))),
        "final_cap": draw(st.sampled_from((0.0, 50.0))),
        "max_positions": draw(st.integers(64, 10**6)),
        "norm_eps": draw(st.floats(1e-8, 1e-2)),
        "rope_base": draw(st.floats(100.0, 1e9)),
    }
    for name in ("embedding_multiplier", "attention_multiplier", "output_multiplier"):
        if draw(st.booleans()):
            keys[name] = draw(number)
    if draw(st.booleans()):
        keys["head_dim"] = 2 * draw(st.integers(1, 20))
    return keys


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def assert_equal(ours: Grok, theirs: Grok) -> None:
    """The same sizes, the same weights to the last bit, and so the same logits."""
    assert ours.model == theirs.model
    for (name, a), (other, b) in zip(ours.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other and torch.equal(a, b), name
    tokens = torch.randint(1, ours.model.vocabulary, (2, 9))
    with torch.no_grad():
        assert torch.equal(ours(tokens), theirs(tokens))


anything = settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@anything
@given(keys=models())
def test_f32_comes_back_exactly_from_every_format(keys: dict[str, Any], tmp_path: Path) -> None:
    grok = random_grok(**keys)
    source = model_folder(fresh(tmp_path / "model"), grok)
    folder = export(source, "hf", "f32", fresh(tmp_path / "hf"), quiet).path
    assert_equal(grok, load(folder).grok)
    assert load(folder).tokenizer.encode("a — b") == load(source).tokenizer.encode("a — b")
    (tmp_path / "one.gguf").unlink(missing_ok=True)
    if refusal(grok.model, "f32"):
        with pytest.raises(BadInput, match=r"llama\.cpp"):
            export(source, "gguf", "f32", tmp_path / "one.gguf", quiet)
        return
    file = export(folder, "gguf", "f32", tmp_path / "one.gguf", quiet).path
    assert_equal(grok, load(file).grok)
    back = export(file, "hf", "f32", fresh(tmp_path / "back"), quiet).path
    assert {p.name: p.read_bytes() for p in back.iterdir()} == {
        p.name: p.read_bytes() for p in folder.iterdir()
    }


@anything
@given(keys=models())
def test_q8_and_f16_come_back_as_near_as_they_can(keys: dict[str, Any], tmp_path: Path) -> None:
    grok = random_grok(
        **(
            keys
            | {"router_cap": 0.0, "shared_expert_ffn": 0, "head_dim": 16, "heads": 4}
            | {"kv_heads": 2, "hidden": 64}
        )
    )
    source = model_folder(fresh(tmp_path / "model"), grok)
    for type_ in ("f16", "q8_0"):
        (tmp_path / "one.gguf").unlink(missing_ok=True)
        again = load(export(source, "gguf", type_, tmp_path / "one.gguf", quiet).path).grok
        for (name, ours), theirs in zip(grok.named_parameters(), again.parameters(), strict=True):
            if ours.dim() == 1 or "router" in name:
                assert torch.equal(ours, theirs), name
            elif type_ == "f16":
                assert torch.equal(ours.half().float(), theirs), name
            else:  # half a step of 1/127 of the block's largest, and the 16-bit scale's own rounding
                blocks, found = ours.reshape(-1, 32), theirs.reshape(-1, 32)
                largest = blocks.abs().amax(1, keepdim=True)
                assert ((blocks - found).abs() <= largest * (0.5 / 127 + 2**-11)).all(), name


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_of(tmp_path_factory.mktemp("runs") / "sums", random_grok()).folder


def test_the_command_exports_a_run_and_chat_reads_it_back(run: Path, tmp_path: Path) -> None:
    said = colossi("export", run, "--format", "hf", "--json")
    assert said.returncode == 0, said.stderr
    done = json.loads(said.stdout)
    folder = run.parent / "sums-step-7-hf"
    assert done == {
        "source": str(run / "checkpoints" / "step-00000007"),
        "path": str(folder),
        "format": "hf",
        "type": "f32",
        "step": 7,
        "bytes": sum(p.stat().st_size for p in folder.iterdir()),
    }
    assert "100%" in said.stderr
    assert {p.name for p in folder.iterdir()} == {
        "config.json",
        "configuration_grok.py",
        "generation_config.json",
        "model.safetensors",
        "modeling_grok.py",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    assert (folder / "model.safetensors").stat().st_mode & 0o777 == (
        folder / "config.json"
    ).stat().st_mode & 0o777
    said = colossi("export", folder, "--format", "gguf", "--type", "f16", "--out", tmp_path / "new")
    assert said.returncode == 0 and said.stdout == "", said.stderr
    file = tmp_path / "new" / "sums-step-7-f16.gguf"
    assert f"{file}: " in said.stderr
    chat = colossi("chat", file, "--prompt", "What is 2 + 2?", "--tokens", "4")
    assert chat.returncode == 0 and chat.stdout.endswith("\n"), chat.stderr


def test_a_checkpoint_is_read_a_block_at_a_time(run: Path) -> None:
    source = open_source(run)
    parts = [set(part) for part in source.parts()]
    assert parts[0] == {"embedding.weight", "norm.weight"} and len(parts) == 3
    assert all(name.startswith("blocks.1.") for name in parts[2])
    assert_equal(random_grok(), source.whole())


REFUSED = {
    "--format onnx: no such format": ("onnx", "f32", ""),
    "--type q8_0: hf has no such type": ("hf", "q8_0", ""),
    "cannot be written": ("hf", "f32", "/dev/null/x"),
    "exists": ("hf", "f32", "{here}"),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_exported_is_refused(run: Path, tmp_path: Path, message: str) -> None:
    format_, type_, out = REFUSED[message]
    with pytest.raises(BadInput, match=message):
        export(run, format_, type_, Path(out.format(here=tmp_path)) if out else None, quiet)
    assert list(tmp_path.iterdir()) == [] and list(run.parent.glob("*.partial")) == []


def test_a_full_disk_is_noticed_before_anything_is_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage(2**30, 2**30 - 10**6, 10**6))
    with pytest.raises(BadInput, match=r"needs 0\.1 GiB, and 0\.0 GiB are free"):
        export(run, "hf", "f32", tmp_path / "a" / "b", quiet)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", ["hf", "gguf"])
def test_an_export_that_is_killed_leaves_nothing_that_has_its_name(
    run: Path, tmp_path: Path, format_: str
) -> None:
    target = tmp_path / ("out.gguf" if format_ == "gguf" else "out")
    child = os.fork()
    if child == 0:
        export(run, format_, "f32", target, lambda label, done, total: os.kill(os.getpid(), signal.SIGKILL))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [f"{target.name}.partial"]

    def interrupt(label: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export(run, format_, "f32", target, interrupt)
    assert list(tmp_path.iterdir()) == []
    assert_equal(random_grok(), load(export(run, format_, "f32", target, quiet).path).grok)
    assert list(tmp_path.iterdir()) == [target]
