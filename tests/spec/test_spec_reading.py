"""What a spec may say: overrides, presets, what is filled in, and that writing and reading gives the same."""

import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.spec import build_spec, read_spec
from colossi.spec.read import apply_override, preset_names

ROOT = Path(__file__).parents[2]
PRESET = {"model": {"preset": "laptop"}}

# override, and what it makes of {"a": {"b": 1, "c": [{"d": 1}, {"d": 2}]}}
OVERRIDES: dict[str, dict[str, Any]] = {
    "a.b=2": {"b": 2},
    " a.b =2": {"b": 2},
    "a.b=2.5": {"b": 2.5},
    "a.b=1e-3": {"b": 0.001},
    "a.b=true": {"b": True},
    "a.b=muon": {"b": "muon"},  # text needs no quotes
    'a.b="2"': {"b": "2"},  # but may have them
    "a.b=x=y": {"b": "x=y"},
    "a.b=/data/#1/books": {"b": "/data/#1/books"},
    "a.b=": {"b": ""},
    "a.b=1\nz=2": {"b": "1\nz=2"},  # one value, never more of a document
    "a.b=[1, 2]": {"b": [1, 2]},
    "a.b={e=1}": {"b": {"e": 1}},
    "a.e.f.g=1": {"b": 1, "e": {"f": {"g": 1}}},
    "a.c.1.d=3": {"b": 1, "c": [{"d": 1}, {"d": 3}]},
    "a.c.0=3": {"b": 1, "c": [3, {"d": 2}]},
}


@pytest.mark.parametrize(("override", "expected"), OVERRIDES.items(), ids=map(repr, OVERRIDES))
def test_override(override: str, expected: dict[str, Any]) -> None:
    document = {"a": {"b": 1, "c": [{"d": 1}, {"d": 2}]}}
    apply_override(document, override)
    assert document == {"a": {"b": 1, "c": [{"d": 1}, {"d": 2}]} | expected}


def test_the_last_override_wins() -> None:
    spec = read_spec(ROOT / "examples/laptop.toml", ["training.steps=7", "training.steps=9"])
    assert spec.training and spec.training.steps == 9


def test_a_preset_names_the_run_and_keys_beside_it_win() -> None:
    spec = build_spec({"model": {"preset": "laptop", "layers": 7}}, "x.toml")
    assert (spec.name, spec.model.layers, spec.model.hidden) == ("laptop", 7, 192)
    assert build_spec(PRESET | {"name": "mine"}, "x.toml").name == "mine"


def test_a_whole_number_may_stand_for_any_number() -> None:
    spec = build_spec({"model": {"preset": "laptop", "rope_base": 500}}, "x.toml")
    assert spec.model.rope_base == 500.0 and type(spec.model.rope_base) is float


def test_what_the_workers_leave_open_is_filled_in() -> None:
    # 8 workers, 2 of them share a copy: 4 copies, and 16 / (4 * 2) = 2 sequences for each worker
    training = {"sequence_length": 8, "global_batch": 16, "tokens": 1000}
    cluster, layout = {"nodes": 2, "workers_per_node": 4}, {"shard": 2}
    spec = build_spec(PRESET | {"training": training, "cluster": cluster, "layout": layout}, "x.toml")
    assert (spec.layout.replicate, spec.layout.micro_batch) == (4, 2)
    assert spec.training and spec.training.total_steps == 8  # 1000 tokens at 128 a step, rounded up


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_examples_are_good_and_round_trip(path: Path) -> None:
    alone = "[model]" not in path.read_text()  # it is for those who build
    spec = read_spec(path, needs=("site",) if alone else ())
    assert build_spec(tomllib.loads(spec.to_toml()), "again") == spec


def test_presets() -> None:
    assert preset_names() == ["grok-1", "grok-2", "laptop"]


def numbers(**bounds: Any) -> st.SearchStrategy[float]:
    return st.floats(allow_nan=False, allow_infinity=False, **bounds)


text = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20)
weight = {"weight": numbers(min_value=1e-300)}
sources = st.lists(
    st.fixed_dictionaries({"kind": st.just("python-stdlib")}, optional=weight)
    | st.fixed_dictionaries({"kind": st.just("files"), "path": text}, optional={"column": text, **weight})
    | st.fixed_dictionaries(
        {"kind": st.just("huggingface"), "name": text}, optional={"config": text, **weight}
    )
    | st.fixed_dictionaries(
        {"kind": st.just("reasoning"), "task": text, "samples": st.integers(1, 10**12)},
        optional={
            "options": st.dictionaries(
                st.text(max_size=9).filter(lambda key: key not in ("seed", "size")),
                st.integers() | numbers() | st.booleans() | text | st.lists(st.integers()) | st.dates(),
            )
        },
    ),
    min_size=1,
    max_size=3,
)


@st.composite
def documents(draw: st.DrawFn) -> dict[str, Any]:
    """Any good document: sizes are built up from the layout, so that everything divides."""
    small = st.integers(1, 4)
    replicate, shard, expert, tensor, share = (draw(small) for _ in range(5))
    kv_heads, experts = tensor * draw(small), expert * draw(small)
    heads = kv_heads * draw(small)
    head_dim = 2 * draw(small)
    hidden = heads * head_dim * shard * expert
    model = {
        "layers": draw(small),
        "hidden": hidden,
        "heads": heads,
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "ffn_hidden": tensor * draw(small),
        "vocabulary": 8 * tensor,
        "experts": experts,
        "experts_per_token": draw(st.integers(1, experts)),
        "tied_embeddings": draw(st.booleans()),
        "attention_cap": draw(numbers(min_value=0)),
        "rope_base": draw(numbers(min_value=1, exclude_min=True)),
    }
    if hidden // heads != head_dim or draw(st.booleans()):
        del model["head_dim"]
    training = {
        "sequence_length": draw(st.integers(2, 8192)),
        "global_batch": replicate * shard * expert * share,
        draw(st.sampled_from(["steps", "tokens"])): draw(st.integers(1, 10**15)),
        "learning_rate": draw(numbers(min_value=0, exclude_min=True)),
        "optimizer": draw(st.sampled_from(["adamw", "muon"])),
        "compile": draw(st.booleans()),
    }
    document: dict[str, Any] = {
        "name": draw(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]*", fullmatch=True)),
        "model": model,
        "layout": {"shard": shard, "expert": expert, "tensor": tensor},
        "cluster": {"nodes": replicate, "workers_per_node": shard * expert * tensor},
        "checkpoint": {"every": draw(st.integers(0, 10**6))},
    }
    document |= {"data": {"sources": draw(sources)}} if draw(st.booleans()) else {}
    return document | ({"training": training} if draw(st.booleans()) else {})


@settings(max_examples=100, deadline=None)
@given(documents())
def test_round_trip(document: dict[str, Any]) -> None:
    spec = build_spec(document, "drawn")
    assert build_spec(tomllib.loads(spec.to_toml()), "again") == spec
