"""Small models with random weights in folders that can be exported, and variants of the block."""

from pathlib import Path

import torch

from colossi.data.tokenizer import Tokenizer
from colossi.model import Grok
from colossi.spec.model import ModelSpec

TEXTS = ["What is 12 + 30? 42.", "the quick brown fox — naïve café, 東京", "  two  spaces\n\n\tand tabs"] * 3

SIZES = dict(
    layers=2, hidden=64, heads=4, kv_heads=2, ffn_hidden=96, vocabulary=384, experts=4, experts_per_token=2
)
VARIANTS: dict[str, dict[str, object]] = {
    "Grok-1's block": {},
    "dense": {"experts": 1, "experts_per_token": 1},
    "one expert a token": {"experts_per_token": 1},
    "an output table of its own": {"tied_embeddings": False},
    "no attention cap": {"attention_cap": 0.0},
    "caps and a shared expert, Grok-2's block": {
        "shared_expert_ffn": 128,
        "router_cap": 30.0,
        "final_cap": 50.0,
        "tied_embeddings": False,
    },
    "heads that are not hidden / heads": {"head_dim": 24},
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


def random_grok(std: float = 0.15, **keys: object) -> Grok:
    """A small model that hides nothing: uneven norms and routers, attention logits that reach the cap."""
    torch.manual_seed(5)
    grok = Grok(ModelSpec.model_validate(SIZES | keys))
    for name, parameter in grok.named_parameters():
        mean = 1.0 if parameter.dim() == 1 else 0.0
        torch.nn.init.normal_(
            parameter, mean=mean, std=2 * std if name.endswith(("q.weight", "k.weight")) else std
        )
    return grok.eval().requires_grad_(False)


def small_tokenizer(units: str = "subwords") -> Tokenizer:
    return Tokenizer.train(iter(TEXTS), SIZES["vocabulary"], units)


def model_folder(folder: Path, grok: Grok, units: str = "subwords") -> Path:
    """A folder as `Grok.save_pretrained` leaves it, with a tokenizer: what `colossi export` can read."""
    grok.save_pretrained(folder)
    small_tokenizer(units).save(folder / "tokenizer.json")
    return folder
