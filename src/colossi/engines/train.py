"""
What happens before the workers of a run start: its folder, and its data.

Knows specs, runs and corpora; who shows the progress is not known here.
"""

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from colossi.data.batches import prepare
from colossi.data.corpus import Corpus
from colossi.errors import SpecError
from colossi.ledger.events import Event
from colossi.ledger.run import Run, begin_run, write_whole
from colossi.spec import Spec


def begin(spec: Spec, folder: Path) -> Run:
    """The folder of a run of this spec, new or to go on with; what cannot be trained is refused."""
    refuse_incomplete(spec)
    return begin_run(folder, spec)


def refuse_incomplete(spec: Spec) -> None:
    """Training needs tables that other commands do without."""
    for table in ("data", "training"):
        if getattr(spec, table) is None:
            raise SpecError(f"[{table}] is missing", f"colossi train needs it: see [{table}] in docs/spec.md")


def is_finished(run: Run, spec: Spec) -> bool:
    """Whether the ledger says that the last of the spec's steps is done and saved."""
    assert spec.training is not None
    with run.ledger() as ledger:
        return any(event.step == spec.training.total_steps for _, event in ledger.events("finished"))


def prepare_data(run: Run, spec: Spec, progress: Callable[[str, int, int], None]) -> Corpus:
    """Tokenise what the spec names, beside the run so that other runs use it too, and note it in the run."""
    assert spec.data is not None and spec.training is not None
    start = time.monotonic()
    corpus = prepare(
        spec.data,
        vocabulary=spec.model.vocabulary,
        sequence_length=spec.training.sequence_length,
        seed=spec.training.seed,
        folder=run.folder.parent / "data",
        progress=progress,
    )
    corpus_folder = os.path.relpath(corpus.folder, run.folder)
    if run.corpus_file.exists() and run.corpus_file.read_text(encoding="utf-8").strip() == corpus_folder:
        return corpus
    for name in (run.tokenizer_file.name, run.questions_file.name):
        shutil.copyfile(corpus.tokens_folder / name, run.folder / name)
    write_whole(run.corpus_file, corpus_folder + "\n")
    facts = {
        "tokens": sum(source.tokens for source in corpus.report),
        "samples": corpus.samples_per_epoch,
        "seconds": time.monotonic() - start,
        "skipped": sum(source.skipped for source in corpus.report),
    }
    with run.ledger() as ledger:
        ledger.append(Event(time=time.time(), kind="data_prepared", incarnation=0, data=facts))
    return corpus
