"""
Weights and sizes in the format that others load: a Hugging Face folder in xai-org/grok-2's naming.

Turns (ModelSpec, tensors by our names) into config.json and safetensors, and back. Knows names and shapes
only; which program loads what is written in docs/model.md.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from colossi.errors import BadInput
from colossi.files import write_whole
from colossi.spec.model import ModelSpec

SHARD_BYTES = 4 << 30  # a file of the folder holds at most this much

# The keys of config.json that are our keys under another name.
CONFIG_KEYS = {
    "layers": "num_hidden_layers",
    "hidden": "hidden_size",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "vocabulary": "vocab_size",
    "experts": "num_local_experts",
    "experts_per_token": "num_experts_per_tok",
    "max_positions": "max_position_embeddings",
    "norm_eps": "rms_norm_eps",
    "rope_base": "rope_theta",
    "attention_cap": "attn_logit_softcapping",
    "router_cap": "router_logit_softcapping",
    "final_cap": "final_logit_softcapping",
    "attention_multiplier": "attn_output_multiplier",
    "embedding_multiplier": "embedding_multiplier_scale",
    "output_multiplier": "output_multiplier_scale",
}
OPTIONAL_KEYS = {"head_dim", "router_cap", "final_cap", "attention_multiplier", "embedding_multiplier"}

# Our module -> theirs, within a block.
BLOCK_NAMES = {
    "pre_attention.weight": "pre_attn_norm.weight",
    "post_attention.weight": "post_attn_norm.weight",
    "pre_moe.weight": "pre_moe_norm.weight",
    "post_moe.weight": "post_moe_norm.weight",
    "attention.q.weight": "self_attn.q_proj.weight",
    "attention.k.weight": "self_attn.k_proj.weight",
    "attention.v.weight": "self_attn.v_proj.weight",
    "attention.o.weight": "self_attn.o_proj.weight",
    "moe.router.weight": "block_sparse_moe.gate.weight",
    "moe.shared.gate.weight": "mlp.gate_proj.weight",
    "moe.shared.value.weight": "mlp.up_proj.weight",
    "moe.shared.down.weight": "mlp.down_proj.weight",
}
EXPERT_NAMES = {"gate": "w1", "value": "w3", "down": "w2"}


def to_config(model: ModelSpec) -> dict[str, Any]:
    """config.json of a model."""
    config = {theirs: getattr(model, ours) for ours, theirs in CONFIG_KEYS.items()}
    residual = model.shared_expert_ffn > 0
    return config | {
        "architectures": ["Grok1ForCausalLM"],
        "model_type": "git",
        "hidden_act": "gelu",
        "intermediate_size": model.shared_expert_ffn or model.ffn_hidden,
        "moe_intermediate_size": model.ffn_hidden,
        "num_experts": model.experts,
        "residual_moe": residual,
        "tie_word_embeddings": False,  # lm_head is always written out
        "tied_in_training": model.tied_embeddings,
        "torch_dtype": "float32",
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }


def from_config(config: dict[str, Any], where: Path) -> ModelSpec:
    """The sizes that a config.json describes; a missing or impossible key is named."""
    missing = [t for o, t in CONFIG_KEYS.items() if t not in config and o not in OPTIONAL_KEYS]
    if missing:
        raise BadInput(f"{where}: {missing[0]} is missing", "a Grok folder has it in its config.json")
    keys = {ours: config[theirs] for ours, theirs in CONFIG_KEYS.items() if config.get(theirs) is not None}
    residual = bool(config.get("residual_moe"))
    keys["ffn_hidden"] = config.get("moe_intermediate_size", config.get("intermediate_size"))
    keys["shared_expert_ffn"] = config["intermediate_size"] if residual else 0
    keys["tied_embeddings"] = config.get("tied_in_training", True)
    try:
        return ModelSpec.model_validate(keys)
    except ValidationError as error:
        first = error.errors()[0]
        raise BadInput(
            f"{where}: {'.'.join(map(str, first['loc']))}: {first['msg']}", "mend the config"
        ) from None


def to_their_names(model: ModelSpec, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Our tensors under Grok-2's names, stacks of experts taken apart."""
    yield from tables_to_their_names(model, state)
    for layer in range(model.layers):
        yield from block_to_their_names(model, layer, state)


def tables_to_their_names(model: ModelSpec, state: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """What stands outside the blocks."""
    yield "model.embed_tokens.weight", state["embedding.weight"]
    yield "model.norm.weight", state["norm.weight"]
    yield "lm_head.weight", state["embedding.weight" if model.tied_embeddings else "head.weight"]


def block_to_their_names(
    model: ModelSpec, layer: int, state: Mapping[str, Tensor]
) -> Iterator[tuple[str, Tensor]]:
    """One block; `state` needs its tensors only."""
    ours, theirs = f"blocks.{layer}.", f"model.layers.{layer}."
    for name, other in BLOCK_NAMES.items():
        if ours + name in state:
            yield theirs + other, state[ours + name]
    for name, other in EXPERT_NAMES.items():
        for expert in range(model.experts):
            tensor = (
                state[f"{ours}moe.ffn.{name}.weight"]
                if model.experts == 1
                else state[f"{ours}moe.experts.{name}"][expert]
            )
            yield f"{theirs}block_sparse_moe.experts.{expert}.{other}.weight", tensor


def tables_to_our_names(model: ModelSpec, theirs: Mapping[str, Tensor], where: Path) -> dict[str, Tensor]:
    """The way back for what stands outside the blocks; a missing tensor is named."""
    state = {
        "embedding.weight": _take(theirs, "model.embed_tokens.weight", where),
        "norm.weight": _take(theirs, "model.norm.weight", where),
    }
    if not model.tied_embeddings:
        state["head.weight"] = _take(theirs, "lm_head.weight", where)
    elif "lm_head.weight" in theirs and not torch.equal(
        theirs["lm_head.weight"].float(), state["embedding.weight"]
    ):
        raise BadInput(
            f"{where}: lm_head.weight differs from model.embed_tokens.weight",
            'the output is not tied: put "tied_in_training": false into config.json',
        )
    return state


def block_to_our_names(
    model: ModelSpec, layer: int, theirs: Mapping[str, Tensor], where: Path
) -> dict[str, Tensor]:
    """The same for one block."""
    ours, other = f"blocks.{layer}.", f"model.layers.{layer}."
    state = {}
    for name, their_name in BLOCK_NAMES.items():
        if name == "moe.router.weight" and model.experts == 1:
            continue
        if name.startswith("moe.shared") and not model.shared_expert_ffn:
            continue
        state[ours + name] = _take(theirs, other + their_name, where)
    for name, their_name in EXPERT_NAMES.items():
        each = [
            _take(theirs, f"{other}block_sparse_moe.experts.{e}.{their_name}.weight", where)
            for e in range(model.experts)
        ]
        if model.experts == 1:
            state[f"{ours}moe.ffn.{name}.weight"] = each[0]
        else:
            state[f"{ours}moe.experts.{name}"] = torch.stack(each)
    return state


def _take(theirs: Mapping[str, Tensor], name: str, where: Path) -> Tensor:
    if name not in theirs:
        raise BadInput(f"{where}: tensor {name} is missing", "is it a Grok model in Grok-2's naming?")
    return theirs[name].float()


def write_folder(folder: Path, model: ModelSpec, state: Mapping[str, Tensor]) -> None:
    """config.json and model.safetensors, in many files above SHARD_BYTES; config.json is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder, ((name, t.detach().float()) for name, t in to_their_names(model, state)))
    write_whole(folder / "config.json", json.dumps(to_config(model), indent=1))


def write_tensors(folder: Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Safetensors of these, taken as they come: one file of them is in memory at a time."""
    written: list[list[str]] = []
    total = 0
    for file in _files(tensors):
        # A copy, as the format refuses tensors that share memory: a tied output, an expert of a stack.
        copies = {name: tensor.contiguous().clone() for name, tensor in file.items()}
        total += sum(tensor.nbytes for tensor in copies.values())
        save_file(copies, folder / f"part-{len(written)}.safetensors", metadata={"format": "pt"})
        written.append(list(copies))
    if len(written) == 1:
        (folder / "part-0.safetensors").replace(folder / "model.safetensors")
        return
    index: dict[str, str] = {}
    for number, names in enumerate(written):
        name = f"model-{number + 1:05}-of-{len(written):05}.safetensors"
        (folder / f"part-{number}.safetensors").replace(folder / name)
        index |= dict.fromkeys(names, name)
    content = {"metadata": {"total_size": total}, "weight_map": index}
    write_whole(folder / "model.safetensors.index.json", json.dumps(content, indent=1))


def _files(tensors: Iterable[tuple[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    file: dict[str, Tensor] = {}
    size = 0
    for name, tensor in tensors:
        if file and size + tensor.nbytes > SHARD_BYTES:
            yield file
            file, size = {}, 0
        file[name] = tensor
        size += tensor.nbytes
    yield file


def read_folder(folder: Path) -> tuple[ModelSpec, dict[str, Tensor]]:
    """The sizes and our tensors of a folder that `write_folder`, or somebody else, wrote."""
    model = read_config(folder)
    state: dict[str, Tensor] = {}
    for part in read_parts(folder, model):
        state |= part
    return model, state


def read_parts(folder: Path, model: ModelSpec) -> Iterator[dict[str, Tensor]]:
    """Our tensors of a folder, float32: first those outside the blocks, then block by block."""
    theirs = _open_tensors(folder)
    yield tables_to_our_names(model, theirs, folder)
    for layer in range(model.layers):
        yield block_to_our_names(model, layer, theirs, folder)


def read_config(folder: Path) -> ModelSpec:
    """The sizes in a folder's config.json."""
    config_path = folder / "config.json"
    try:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(
            f"{config_path}: no such file", "give a folder with config.json and safetensors"
        ) from None
    except ValueError as error:
        raise BadInput(f"{config_path}: not valid JSON: {error}", "mend or download it again") from None
    return from_config(config, config_path)


class _Tensors(Mapping[str, Tensor]):
    """Tensors of safetensors files, each read when it is asked for."""

    def __init__(self, file_of: dict[str, Any]) -> None:
        self._file_of = file_of

    def __getitem__(self, name: str) -> Tensor:
        return self._file_of[name].get_tensor(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._file_of)

    def __len__(self) -> int:
        return len(self._file_of)


def _open_tensors(folder: Path) -> _Tensors:
    index = folder / "model.safetensors.index.json"
    names = ["model.safetensors"]
    if index.exists():
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    file_of: dict[str, Any] = {}
    for name in names:
        try:
            file = safe_open(folder / name, framework="pt")
            file_of |= dict.fromkeys(file.keys(), file)
        except (FileNotFoundError, SafetensorError) as error:
            raise BadInput(f"{folder / name}: {error}", "download or copy the file again") from None
    return _Tensors(file_of)
