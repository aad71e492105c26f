"""
A Hugging Face folder that transformers and vLLM load, with modelling code of our own in it.

    config.json                in xai-org/grok-2's keys; auto_map names the two files below
    configuration_grok.py      modeling_grok.py      copies of those beside this file
    model.safetensors          or many files and model.safetensors.index.json
    tokenizer.json             tokenizer_config.json with the chat template      generation_config.json
"""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from colossi.data.chat import SEPARATOR, TEMPLATE
from colossi.data.tokenizer import SPECIALS, Tokenizer
from colossi.files import write_whole
from colossi.model.weights import block_to_their_names, tables_to_their_names, to_config, write_tensors
from colossi.serve.export.source import Source
from colossi.spec.model import ModelSpec

CODE = ("configuration_grok.py", "modeling_grok.py")
DTYPES = {"f32": torch.float32, "f16": torch.float16}
Progress = Callable[[str, int, int], None]


def write_huggingface(folder: Path, source: Source, type_: str, progress: Progress) -> None:
    """Write all files of the folder, which is empty; last config.json, without which it is none."""
    model, dtype = source.model, DTYPES[type_]
    write_tensors(folder, _tensors(source, dtype, progress))
    for name in CODE:
        shutil.copyfile(Path(__file__).with_name(name), folder / name)
    source.tokenizer.save(folder / "tokenizer.json")
    _write_json(folder / "tokenizer_config.json", tokenizer_config(model))
    _write_json(folder / "generation_config.json", generation_config(source.tokenizer))
    _write_json(folder / "config.json", exported_config(model, dtype))


def exported_config(model: ModelSpec, dtype: torch.dtype) -> dict[str, Any]:
    """config.json, with what transformers and vLLM look for beside the sizes."""
    return to_config(model) | {
        "torch_dtype": str(dtype).removeprefix("torch."),
        "auto_map": {
            "AutoConfig": "configuration_grok.GrokConfig",
            "AutoModel": "modeling_grok.GrokModel",
            "AutoModelForCausalLM": "modeling_grok.Grok1ForCausalLM",
        },
        "logit_scale": model.output_multiplier,  # vLLM computes logits itself, and looks for it
        "final_logit_softcapping": model.final_cap or None,  # it would take 0 for a cap
        "use_cache": True,
    }


def tokenizer_config(model: ModelSpec) -> dict[str, Any]:
    """tokenizer_config.json: byte-level pieces, special tokens, the chat template."""
    pad, bos, eos, unk = SPECIALS[:4]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": pad,
        "bos_token": bos,
        "eos_token": eos,
        "unk_token": unk,
        "additional_special_tokens": [SEPARATOR],
        "add_bos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": model.max_positions,
        "chat_template": TEMPLATE,
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """generation_config.json: an answer ends with the separator, and padding is never said."""
    return {
        "bos_token_id": tokenizer.bos,
        "eos_token_id": [tokenizer.separator, tokenizer.eos],
        "pad_token_id": tokenizer.pad,
        "suppress_tokens": [tokenizer.pad],
        "do_sample": False,
    }


def _tensors(source: Source, dtype: torch.dtype, progress: Progress) -> Iterator[tuple[str, Tensor]]:
    parts = 1 + source.model.layers
    for number, part in enumerate(source.parts()):
        named = (
            tables_to_their_names(source.model, part)
            if number == 0
            else block_to_their_names(source.model, number - 1, part)
        )
        yield from ((name, tensor.to(dtype)) for name, tensor in named)
        progress("weights", number + 1, parts)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    write_whole(path, json.dumps(content, indent=1) + "\n")
