"""Small models with random weights, variants of the block, and folders and runs that can be exported."""

from pathlib import Path
from typing import Any

import torch

from colossi.data.tokenizer import Tokenizer
from colossi.ledger.run import Run, begin_run, checkpoint_name
from colossi.model import Grok
from colossi.spec.model import ModelSpec
from colossi.spec.read import read_spec
from colossi.train.checkpoint import write_checkpoint

ROOT = Path(__file__).parents[2]
LAPTOP = read_spec(ROOT / "examples" / "laptop.toml").model
TEXTS = ["What is 12 + 30? 42.", "the quick brown fox — naïve café, 東京", "  two  spaces\n\n\tand tabs"] * 3
VOCABULARY = 384

SIZES: dict[str, Any] = dict(
    layers=2,
    hidden=64,
    heads=4,
    kv_heads=2,
    ffn_hidden=96,
    vocabulary=VOCABULARY,
    experts=4,
    experts_per_token=2,
)
# What transformers and llama.cpp compute alike, and what only transformers does.
EVERYWHERE: dict[str, dict[str, Any]] = {
    "Grok-1's block": {},
    "the laptop's sizes": LAPTOP.model_dump() | {"vocabulary": VOCABULARY},
    "dense": {"experts": 1, "experts_per_token": 1},
    "one expert a token": {"experts_per_token": 1},
    "an output table of its own": {"tied_embeddings": False},
    "no attention cap": {"attention_cap": 0.0},
    "a dense FFN beside all experts": {"shared_expert_ffn": 64, "experts": 3, "experts_per_token": 3},
    "final cap, other constants": {
        "final_cap": 50.0,
        "attention_multiplier": 0.3,
        "embedding_multiplier": 5.5,
        "output_multiplier": 0.4,
        "rope_base": 5e5,
        "norm_eps": 1e-6,
    },
}
NOT_IN_LLAMA: dict[str, dict[str, Any]] = {
    "does not cap router logits": {"router_cap": 30.0},
    "sum to one": {"shared_expert_ffn": 128},
    "heads * head_dim = hidden": {"head_dim": 24},
    "is not 64": {"head_dim": 24, "shared_expert_ffn": 128, "router_cap": 3.0, "final_cap": 5.0},
}


def random_grok(**keys: object) -> Grok:
    """A small model that hides nothing: uneven norms and routers, attention logits that reach the cap."""
    torch.manual_seed(5)
    model = ModelSpec.model_validate(SIZES | keys)
    grok = Grok(model)
    for name, parameter in grok.named_parameters():
        spread = 1.2 * model.hidden**-0.5 if parameter.dim() > 1 else 0.15
        torch.nn.init.normal_(
            parameter,
            mean=0.0 if parameter.dim() > 1 else 1.0,
            std=2 * spread if name.endswith(("q.weight", "k.weight")) else spread,
        )
    return grok.eval().requires_grad_(False)


def small_tokenizer(units: str = "subwords") -> Tokenizer:
    """At most VOCABULARY tokens."""
    return Tokenizer.train(iter(TEXTS), VOCABULARY, units)


def model_folder(folder: Path, grok: Grok, units: str = "subwords") -> Path:
    """A folder as `Grok.save_pretrained` leaves it, with a tokenizer: what `colossi export` can read."""
    grok.save_pretrained(folder)
    small_tokenizer(units).save(folder / "tokenizer.json")
    return folder


def run_of(folder: Path, grok: Grok, step: int = 7) -> Run:
    """A run that has this model in its only checkpoint; nothing was trained."""
    spec = read_spec(ROOT / "examples" / "laptop.toml").model_copy(update={"model": grok.model})
    run = begin_run(folder, spec)
    state = {f"model.{name}": parameter.detach() for name, parameter in grok.named_parameters()}
    write_checkpoint(run.checkpoints / checkpoint_name(step), state, None)
    small_tokenizer("words").save(run.tokenizer_file)
    return run


def quiet(label: str, done: int, total: int) -> None:
    """No bar."""
