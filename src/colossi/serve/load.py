"""A model to talk to: from a run folder, a Hugging Face folder, or a GGUF file."""

from dataclasses import dataclass
from pathlib import Path

from colossi.data.tokenizer import Tokenizer
from colossi.ledger.run import Run
from colossi.model.grok import Grok
from colossi.serve.export.source import Source, open_run_source, open_source


@dataclass(frozen=True, slots=True)
class Loaded:
    """Weights and tokenizer, and where they are from."""

    grok: Grok
    tokenizer: Tokenizer
    origin: str
    run: Run | None = None
    step: int | None = None


def load(path: Path) -> Loaded:
    """The newest whole checkpoint of a run; a folder with config.json, safetensors and tokenizer.json; or a
    .gguf file.
    """
    return _loaded(open_source(path))


def load_run(run: Run) -> Loaded:
    """The newest whole checkpoint of a run."""
    return _loaded(open_run_source(run))


def _loaded(source: Source) -> Loaded:
    return Loaded(source.whole(), source.tokenizer, source.origin, source.run, source.step)
