"""
A GGUF file that llama.cpp loads: sizes, tokenizer and weights in one, written tensor by tensor.

Matrices are f32, f16 or q8_0; norms and routers stay f32, as llama.cpp's own converter leaves them.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from colossi.data.chat import TEMPLATE
from colossi.data.tokenizer import SPECIALS, Tokenizer
from colossi.errors import WorkFailed
from colossi.model.grok import Grok
from colossi.serve.export import llama
from colossi.serve.export.source import Source
from colossi.spec.model import ModelSpec

TYPES = {
    "f32": gguf.GGMLQuantizationType.F32,
    "f16": gguf.GGMLQuantizationType.F16,
    "q8_0": gguf.GGMLQuantizationType.Q8_0,
}
FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0,
}
Progress = Callable[[str, int, int], None]


def write_gguf(path: Path, source: Source, type_: str, name: str, progress: Progress) -> None:
    """Write the file. One part of the model is in memory at a time: the tables, or a block."""
    writer = gguf.GGUFWriter(path, llama.ARCHITECTURE)
    try:
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[type_])
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _add_model(writer, source.model)
        _add_tokenizer(writer, source.tokenizer, source.model.vocabulary)
        for tensor_name, shape in _shapes(source.model):
            ggml = _type_of(tensor_name, shape, type_)
            block, size = gguf.GGML_QUANT_SIZES[ggml]
            nbytes = int(np.prod(shape)) // block * size
            writer.add_tensor_info(tensor_name, shape, np.dtype(np.float32), nbytes, raw_dtype=ggml)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        parts = 1 + source.model.layers
        for number, part in enumerate(source.parts()):
            for tensor_name, tensor in _named(source.model, number, part):
                writer.write_tensor_data(_pack(tensor_name, tensor, type_))
            progress("weights", number + 1, parts)
    finally:
        writer.close()


def _add_model(writer: gguf.GGUFWriter, model: ModelSpec) -> None:
    for ours, key in llama.SIZE_KEYS.items():
        writer.add_uint32(key, getattr(model, ours))
    for ours, key in llama.FLOAT_KEYS.items():
        value = getattr(model, ours)
        writer.add_float32(key, llama.NO_CAP if ours == "attention_cap" and not value else value)
    writer.add_value_length(model.head_dim)
    writer.add_rope_dimension_count(model.head_dim)
    writer.add_feed_forward_length(model.shared_expert_ffn or model.ffn_hidden)
    writer.add_string(llama.MODEL_KEY, model.model_dump_json())


def _add_tokenizer(writer: gguf.GGUFWriter, tokenizer: Tokenizer, vocabulary: int) -> None:
    """The tokenizer in llama.cpp's terms, and tokenizer.json itself for those who read that."""
    document: dict[str, Any] = json.loads(tokenizer.inner.to_str())
    pieces = {number: piece for piece, number in tokenizer.inner.get_vocab().items()}
    specials = {*range(len(SPECIALS[:4])), tokenizer.separator}
    tokens, types = [], []
    for number in range(vocabulary):  # the table may have more rows than there are tokens
        tokens.append(pieces.get(number, f"[UNUSED{number}]"))
        kind = gguf.TokenType.CONTROL if number in specials else gguf.TokenType.NORMAL
        types.append(kind if number in pieces else gguf.TokenType.UNUSED)
    merges = [" ".join(merge) for merge in document["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(llama.PRE_TOKENIZER)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    # llama.cpp wants a list that is not empty; no text is split into these two.
    writer.add_token_merges(merges or [" ".join(SPECIALS[:2])])
    writer.add_bos_token_id(tokenizer.bos)
    writer.add_eos_token_id(tokenizer.eos)
    writer.add_eot_token_id(tokenizer.separator)
    writer.add_pad_token_id(tokenizer.pad)
    writer.add_unk_token_id(tokenizer.unk)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)
    writer.add_string(llama.TOKENIZER_KEY, tokenizer.inner.to_str())


def _shapes(model: ModelSpec) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Every tensor of the file, in the order that they are written in."""
    with torch.device("meta"):
        state = {name: p.detach() for name, p in Grok(model).named_parameters()}
    for number in range(1 + model.layers):
        prefix = f"blocks.{number - 1}."
        part = {
            n: t
            for n, t in state.items()
            if n.startswith(prefix if number else ("embedding", "norm", "head"))
        }
        yield from ((name, tuple(tensor.shape)) for name, tensor in _named(model, number, part))


def _named(model: ModelSpec, number: int, part: dict[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Part `number` (0 the tables, then the blocks) under llama.cpp's names."""
    if number == 0:
        yield from ((name, part[ours]) for ours, name in llama.TABLE_NAMES.items() if ours in part)
        return
    prefix = f"blocks.{number - 1}."
    block = {name.removeprefix(prefix): tensor for name, tensor in part.items()}
    if model.experts == 1:  # it has no dense Grok: one expert, whose weight is 1 whatever its router says
        for ours, stack in llama.DENSE_NAMES.items():
            block[stack] = block.pop(ours)[None]
        block["moe.router.weight"] = torch.zeros(1, model.hidden, device=block["pre_moe.weight"].device)
    for ours, name in llama.BLOCK_NAMES.items():
        if ours in block:
            yield f"blk.{number - 1}.{name}", block[ours]


def _type_of(name: str, shape: tuple[int, ...], type_: str) -> gguf.GGMLQuantizationType:
    return TYPES["f32" if len(shape) == 1 or "ffn_gate_inp" in name else type_]


def _pack(name: str, tensor: Tensor, type_: str) -> "np.ndarray[Any, Any]":
    ggml = _type_of(name, tuple(tensor.shape), type_)
    numbers = np.ascontiguousarray(tensor.detach().float().numpy())
    if ggml is not TYPES["f32"] and np.abs(numbers).max(initial=0) > np.finfo(np.float16).max:
        raise WorkFailed(f"{name}: holds a number that {type_} cannot", "use --type f32")
    return gguf.quants.quantize(numbers, ggml)
