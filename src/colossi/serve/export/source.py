"""A model that lies in a run, a Hugging Face folder or a GGUF file, read part by part."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from colossi.data.tokenizer import Tokenizer
from colossi.errors import CheckpointFailed, RunError
from colossi.ledger.run import Run, is_run, open_run, step_of
from colossi.model.grok import Grok
from colossi.model.weights import read_config, read_parts
from colossi.spec.model import ModelSpec
from colossi.train.checkpoint import load_into, newest_whole


@dataclass(frozen=True, slots=True)
class Source:
    """Where weights are from. `parts` gives our tensors: outside the blocks first, then each block."""

    model: ModelSpec
    tokenizer: Tokenizer
    origin: str  # for people
    parts: Callable[[], Iterator[dict[str, Tensor]]]
    run: Run | None = None
    step: int | None = None

    def whole(self) -> Grok:
        """The model in memory, ready to answer."""
        with torch.device("meta"):
            grok = Grok(self.model)
        state: dict[str, Tensor] = {}
        for part in self.parts():
            state |= part
        grok.load_state_dict(state, assign=True)
        return grok.eval()


def open_source(path: Path) -> Source:
    """The newest whole checkpoint of a run; a folder with config.json and safetensors; or a GGUF file."""
    if path.suffix == ".gguf" and path.is_file():
        # Here, as only this needs gguf: a run is read where nothing but the extra `train` is installed.
        from colossi.serve.export.gguf_read import GGUFFile

        file = GGUFFile(path)
        return Source(file.model(), file.tokenizer(), str(path), file.parts)
    if is_run(path) or not (path / "config.json").is_file():
        return open_run_source(open_run(path))
    model, tokenizer = read_config(path), Tokenizer.load(path / "tokenizer.json")
    return Source(model, tokenizer, str(path), partial(read_parts, path, model))


def open_run_source(run: Run) -> Source:
    """The newest whole checkpoint of a run."""
    found = newest_whole(run.checkpoints)
    if found.folder is None:
        why = f" ({found.damaged[0][0]}: {found.damaged[0][1]})" if found.damaged else ""
        raise CheckpointFailed(
            f"{run.folder}: no whole checkpoint yet{why}", "train it first: colossi train SPEC"
        )
    if not run.tokenizer_file.is_file():
        raise RunError(f"{run.tokenizer_file}: missing", "run colossi train again: it writes it")
    model, tokenizer = run.spec().model, Tokenizer.load(run.tokenizer_file)
    parts = partial(_checkpoint_parts, found.folder, model)
    return Source(model, tokenizer, str(found.folder), parts, run, step_of(found.folder))


def _checkpoint_parts(folder: Path, model: ModelSpec) -> Iterator[dict[str, Tensor]]:
    with torch.device("meta"):
        shapes = {name: parameter.shape for name, parameter in Grok(model).named_parameters()}
    blocks = [f"blocks.{layer}." for layer in range(model.layers)]
    outside = [name for name in shapes if not name.startswith("blocks.")]
    for names in (outside, *([name for name in shapes if name.startswith(block)] for block in blocks)):
        part = {name: torch.empty(shapes[name]) for name in names}
        load_into(folder, {f"model.{name}": tensor for name, tensor in part.items()})
        yield part
