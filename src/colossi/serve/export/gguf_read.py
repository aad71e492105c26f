"""A GGUF file read back: sizes, tokenizer and weights, dequantised to float32 part by part."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import tokenizers
import torch
from pydantic import ValidationError
from torch import Tensor

from colossi.data.tokenizer import Tokenizer
from colossi.errors import BadInput
from colossi.serve.export import llama
from colossi.spec.model import ModelSpec


class GGUFFile:
    """An open file of architecture grok; its weights stay on disk until they are asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._reader = gguf.GGUFReader(path)
        except (OSError, ValueError, IndexError, OverflowError) as error:
            raise BadInput(f"{path}: not a whole GGUF file: {error}", "export or download it again") from None
        architecture = self.value("general.architecture")
        if architecture != llama.ARCHITECTURE:
            raise BadInput(f"{path}: a model of architecture {architecture!r}", "give a Grok")
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}

    def value(self, key: str) -> Any:
        """What a key holds, None where it is missing."""
        field = self._reader.get_field(key)
        return None if field is None else field.contents()

    def model(self) -> ModelSpec:
        """The sizes: ours as they were, or from llama.cpp's keys in a file of somebody else's."""
        ours = self.value(llama.MODEL_KEY)
        try:
            if ours is not None:
                return ModelSpec.model_validate_json(ours)
            return ModelSpec.model_validate(self._keys())
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise BadInput(f"{self.path}: {where}: {first['msg']}", "is it a Grok model?") from None

    def _keys(self) -> dict[str, Any]:
        keys = {ours: self.value(key) for ours, key in (llama.SIZE_KEYS | llama.FLOAT_KEYS).items()}
        keys = {ours: value for ours, value in keys.items() if value is not None}
        keys["vocabulary"] = len(self.value("tokenizer.ggml.tokens") or ())
        keys.setdefault("ffn_hidden", self.value("grok.feed_forward_length"))
        if keys.get("attention_cap", 0) >= llama.NO_CAP:
            keys["attention_cap"] = 0.0
        if "blk.0.ffn_up.weight" in self._tensors:
            keys["shared_expert_ffn"] = self.value("grok.feed_forward_length")
        return keys | {"tied_embeddings": "output.weight" not in self._tensors}

    def tokenizer(self) -> Tokenizer:
        """The tokenizer.json that it holds."""
        text = self.value(llama.TOKENIZER_KEY)
        if text is None:
            raise BadInput(
                f"{self.path}: has no {llama.TOKENIZER_KEY}",
                "only a GGUF file with its tokenizer.json can be read; colossi export writes it",
            )
        return Tokenizer(tokenizers.Tokenizer.from_str(text), str(self.path))

    def parts(self) -> Iterator[dict[str, Tensor]]:
        """Our tensors, float32: first those outside the blocks, then block by block."""
        model = self.model()
        tables = dict(llama.TABLE_NAMES)
        if model.tied_embeddings:
            del tables["head.weight"]
        yield {ours: self._tensor(name) for ours, name in tables.items()}
        for layer in range(model.layers):
            block = {
                ours: self._tensor(f"blk.{layer}.{name}")
                for ours, name in llama.BLOCK_NAMES.items()
                if model.shared_expert_ffn or not ours.startswith("moe.shared")
            }
            if model.experts == 1:
                del block["moe.router.weight"]
                for ours, stack in llama.DENSE_NAMES.items():
                    block[ours] = block.pop(stack)[0]
            yield {f"blocks.{layer}.{ours}": tensor for ours, tensor in block.items()}

    def _tensor(self, name: str) -> Tensor:
        if name not in self._tensors:  # the last norm of a block has two names
            name = name.replace("layer_output_norm", "post_ffw_norm")
        if name not in self._tensors:
            raise BadInput(f"{self.path}: tensor {name} is missing", "is it a Grok model?")
        found = self._tensors[name]
        try:
            numbers = gguf.quants.dequantize(found.data, found.tensor_type)
        except NotImplementedError:
            raise BadInput(
                f"{self.path}: {name} is {found.tensor_type.name}, which the gguf library cannot read",
                "take a file of f32, f16 or q8_0",
            ) from None
        return torch.from_numpy(np.array(numbers, dtype=np.float32))
