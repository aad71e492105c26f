"""A model to talk to, from a run folder or from a Hugging Face folder."""

from dataclasses import dataclass
from pathlib import Path

import torch

from colossi.data.tokenizer import Tokenizer
from colossi.errors import CheckpointFailed, RunError
from colossi.ledger.run import Run, is_run, open_run, step_of
from colossi.model.grok import Grok
from colossi.train.checkpoint import load_into, newest_whole


@dataclass(frozen=True, slots=True)
class Loaded:
    """Weights and tokenizer, and where they are from."""

    grok: Grok
    tokenizer: Tokenizer
    origin: str
    run: Run | None = None
    step: int | None = None


def load(folder: Path) -> Loaded:
    """The newest whole checkpoint of a run, or a folder with config.json, safetensors and tokenizer.json."""
    if is_run(folder) or not (folder / "config.json").is_file():
        return load_run(open_run(folder))
    tokenizer = Tokenizer.load(folder / "tokenizer.json")
    return Loaded(Grok.from_pretrained(folder).eval(), tokenizer, str(folder))


def load_run(run: Run) -> Loaded:
    """The newest whole checkpoint of a run."""
    found = newest_whole(run.checkpoints)
    if found.folder is None:
        why = f" ({found.damaged[0][0]}: {found.damaged[0][1]})" if found.damaged else ""
        raise CheckpointFailed(
            f"{run.folder}: no whole checkpoint yet{why}", "train it first: colossi train SPEC"
        )
    if not run.tokenizer_file.is_file():
        raise RunError(f"{run.tokenizer_file}: missing", "run colossi train again: it writes it")
    with torch.device("meta"):
        grok = Grok(run.spec().model)
    grok.to_empty(device="cpu")
    load_into(found.folder, {f"model.{name}": p.detach() for name, p in grok.named_parameters()})
    tokenizer = Tokenizer.load(run.tokenizer_file)
    return Loaded(grok.eval(), tokenizer, str(found.folder), run, step_of(found.folder))
