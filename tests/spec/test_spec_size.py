"""Sizes against published numbers, against hand counts, and against the tensors of the real model."""

import tomllib
from importlib import resources

import pytest
import torch

from colossi.model import Grok
from colossi.spec import build_spec
from colossi.spec.model import ModelSpec
from colossi.spec.size import count_parameters, flops_per_token


def preset(name: str, **keys: object) -> ModelSpec:
    return build_spec({"model": {"preset": name, **keys}}, "test").model


# preset -> parameters, active parameters [1e9]: GROK.md of the project's sources; xAI says 314 and a quarter.
PUBLISHED = {"grok-1": (315.7, 83.8), "grok-2": (269.5, 115)}


@pytest.mark.parametrize(("name", "billions"), PUBLISHED.items(), ids=PUBLISHED.keys())
def test_published_sizes(name: str, billions: tuple[float, float]) -> None:
    counts = count_parameters(preset(name))
    assert round(counts.total / 1e9, 1) == billions[0]
    assert counts.active / 1e9 == pytest.approx(billions[1], abs=0.05 if name == "grok-1" else 0.5)


@pytest.mark.parametrize("name", ["grok-1", "laptop"])
def test_presets_obey_what_every_export_needs(name: str) -> None:
    model = preset(name)
    assert model.head_dim == model.hidden / model.heads and model.head_dim in (64, 128)
    assert model.hidden % 96 == 0 and model.ffn_hidden % 32 == 0
    assert model.rope_base == 10000 and model.attention_multiplier == model.head_dim**-0.5
    assert model.embedding_multiplier == model.hidden**0.5


def test_grok_1_is_what_was_released() -> None:
    model = preset("grok-1")
    assert model.embedding_multiplier == pytest.approx(78.38367176906169, rel=1e-15)
    assert model.output_multiplier == 0.5773502691896257
    assert model.attention_multiplier == pytest.approx(0.08838834764831845, rel=1e-15)
    assert (model.attention_cap, model.router_cap, model.final_cap, model.norm_eps) == (30, 0, 0, 1e-5)


def test_every_preset_is_only_a_model() -> None:
    for entry in (resources.files("colossi.spec") / "catalogue" / "models").iterdir():
        assert list(tomllib.loads(entry.read_text())) == ["model"]


# What is changed in the laptop preset.
VARIANTS: dict[str, dict[str, object]] = {
    "as it is": {},
    "dense": {"experts": 1, "experts_per_token": 1},
    "with a table of its own for the output": {"tied_embeddings": False},
    "with a shared expert": {"shared_expert_ffn": 96},
    "heads that do not fill the width": {"heads": 5, "kv_heads": 5, "head_dim": 32},
    "deep and with many experts": {"layers": 9, "experts": 16, "experts_per_token": 4},
}


@pytest.mark.parametrize("keys", VARIANTS.values(), ids=VARIANTS.keys())
def test_counts_are_those_of_the_tensors(keys: dict[str, object]) -> None:
    model = preset("laptop", **keys)
    with torch.device("meta"):
        grok = Grok(model)
    sizes = {name: parameter.numel() for name, parameter in grok.named_parameters()}

    def of(*parts: str) -> int:
        return sum(size for name, size in sizes.items() if any(part in name for part in parts))

    counts = count_parameters(model)
    assert counts.total == sum(sizes.values())
    assert counts.embedding == of("embedding.", "head.")
    assert counts.attention == of(".attention.")
    assert counts.router == of(".router.")
    assert counts.experts == of(".experts.", ".ffn.", ".shared.")
    idle = of(".experts.") // model.experts * (model.experts - model.experts_per_token)
    assert counts.active == counts.total - idle


TINY = {
    "layers": 2,
    "hidden": 8,
    "heads": 2,
    "kv_heads": 1,
    "head_dim": 4,
    "ffn_hidden": 16,
    "vocabulary": 32,
    "experts": 4,
    "experts_per_token": 2,
}
# Multiply-adds that one token meets in matrices: a layer has q and o 8*8, k and v 8*4, a router 8*4 and two
# experts of three 8*16: 128 + 64 + 32 + 768 = 992. Two layers and the output 8*32: 2240.
MATRICES = 2 * 992 + 256
# And with keys: 9 tokens see 1 to 9, on average 5; q.k and p.v are 2 * 4 multiply-adds for each of 2 heads.
ATTENTION = 2 * (5 * 2 * 2 * 4)


# A multiply-add is two FLOP, and going back costs twice as much as going forward.
@pytest.mark.parametrize("tied", [True, False])
def test_flops_per_token_by_hand(tied: bool) -> None:
    model = build_spec({"name": "tiny", "model": TINY | {"tied_embeddings": tied}}, "test").model
    assert flops_per_token(model, 9) == 2 * 3 * (MATRICES + ATTENTION)
