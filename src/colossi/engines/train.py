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
from colossi.files import write_whole
from colossi.ledger.events import Event
from colossi.ledger.run import Run, begin_run, complete, step_of
from colossi.spec import Spec


def is_finished(run: Run, spec: Spec) -> bool:
    """Whether the last of the spec's steps is done, and its checkpoint is still there."""
    assert spec.training is not None
    last = spec.training.total_steps
    if not run.ledger_file.is_file() or not any(step_of(path) >= last for path in complete(run.checkpoints)):
        return False
    with run.ledger() as ledger:
        return any(event.step == last for _, event in ledger.events("finished"))


def begin(folder: Path, spec: Spec, progress: Callable[[str, int, int], None]) -> tuple[Run, Corpus]:
    """A run folder that is ready for its workers; nothing is written into it before the data is sound."""
    start = time.monotonic()
    corpus = prepare_data(folder.parent / "data", spec, progress)
    run = begin_run(folder, spec)
    link_data(run, corpus, time.monotonic() - start)
    return run, corpus


def prepare_data(folder: Path, spec: Spec, progress: Callable[[str, int, int], None]) -> Corpus:
    """Tokenise what the spec names into a folder beside the runs, so that other runs use it too."""
    assert spec.data is not None and spec.training is not None
    return prepare(
        spec.data,
        vocabulary=spec.model.vocabulary,
        sequence_length=spec.training.sequence_length,
        seed=spec.training.seed,
        folder=folder,
        progress=progress,
    )


def link_data(run: Run, corpus: Corpus, seconds: float) -> None:
    """Note in the run where its data is, with copies of what talking and evaluating need."""
    corpus_folder = os.path.relpath(corpus.folder, run.folder)
    if run.corpus_file.exists() and run.corpus_file.read_text(encoding="utf-8").strip() == corpus_folder:
        return
    for name in (run.tokenizer_file.name, run.questions_file.name):
        shutil.copyfile(corpus.tokens_folder / name, run.folder / name)
    write_whole(run.corpus_file, corpus_folder + "\n")
    facts = {
        "tokens": sum(source.tokens for source in corpus.report),
        "samples": corpus.samples_per_epoch,
        "seconds": seconds,
        "skipped": sum(source.skipped for source in corpus.report),
    }
    with run.ledger() as ledger:
        ledger.append(Event(time=time.time(), kind="data_prepared", incarnation=0, data=facts))
