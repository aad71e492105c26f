"""From a `[data]` table to a corpus: the stages in order, each reused when nothing that it depends on has
changed.

The cache holds a folder for each distinct set of tokens and one for each way of cutting and ordering
them. A lock beside each lets one process at a time prepare it; the others wait and then find it done.
"""

import fcntl
import hashlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from colossi.data.chat import pieces
from colossi.data.corpus import Batch, Corpus, SourceReport
from colossi.data.documents import Complaints, Text
from colossi.data.question import Question
from colossi.data.shards import COUNTS, Plan, open_tokens, read_json, write_json, write_manifest
from colossi.data.sources import documents, facts, parts
from colossi.data.tokenizer import Tokenizer
from colossi.data.windows import chat_windows, count_text, starts
from colossi.data.workers import excluded_questions, write_parts
from colossi.errors import DataError
from colossi.files import sync_folder
from colossi.spec.data import UNITS, DataSpec, ReasoningSource, Source

__all__ = ["Batch", "Corpus", "prepare"]

Progress = Callable[[str, int, int], None]
# Characters that a tokenizer is learned from: so many for each token, shared among the sources by weight.
# 4096 give even the rarest of 512 words some dozens of examples; over 64 million only cost time and memory.
SAMPLE_PER_TOKEN, SAMPLE_LIMIT = 4096, 64 << 20
_FORMAT = 1  # raise it when what is written of tokens changes
_CUT_FORMAT = 2  # and this for windows


def prepare(
    data: DataSpec,
    *,
    vocabulary: int,
    sequence_length: int,
    seed: int,
    folder: Path,
    progress: Progress | None = None,
) -> Corpus:
    """Tokenise the sources into `folder`, or find there what was tokenised before, and open it.

    `progress(stage, done, total)` is called as "tokenizer" and "tokens" go on. Paths in `data` are relative
    to the current folder.
    """
    tell = progress or _silent
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    tokens = folder / f"tokens-{_fingerprint(data, vocabulary)}"
    with _locked(tokens):
        if not (tokens / "manifest.json").is_file():
            _tokenise(data, vocabulary, tokens, tell)
    corpus = folder / f"corpus-{_digest([_CUT_FORMAT, tokens.name, sequence_length, seed])}"
    with _locked(corpus):
        if not (corpus / "corpus.json").is_file():
            _cut(data, tokens, corpus, sequence_length, seed)
    return Corpus.open(corpus)


def _silent(stage: str, done: int, total: int) -> None:
    pass


def _fingerprint(data: DataSpec, vocabulary: int) -> str:
    """A name for everything that the tokens depend on."""
    own = Path(data.tokenizer).read_bytes().hex() if _own_tokenizer(data) else ""
    content = {
        "format": _FORMAT,
        "data": data.model_dump(mode="json"),
        "sources": [facts(source) for source in data.sources],
        "tokenizer": hashlib.sha256(own.encode()).hexdigest(),
        "vocabulary": vocabulary,
        "versions": [version("tokenizers"), version("numpy")],
        "interpreter": [platform.python_implementation(), platform.python_version(), sys.byteorder],
    }
    return _digest(content)


def _own_tokenizer(data: DataSpec) -> bool:
    if data.tokenizer in UNITS:
        return False
    if not Path(data.tokenizer).is_file():
        raise DataError(
            f"{data.tokenizer}: no such tokenizer file", "give a tokenizer.json, or words or subwords"
        )
    return True


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold `folder` against other processes; the system frees the lock of a process that is killed."""
    with open(folder.with_suffix(".lock"), "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        folder.mkdir(exist_ok=True)
        yield


def _tokenise(data: DataSpec, vocabulary: int, folder: Path, tell: Progress) -> None:
    """Every stage up to the manifest, each left out if a killed process has finished it."""
    _remove_leftovers(folder)
    if not (folder / "questions.json").is_file():
        write_json(folder / "questions.json", [asdict(question) for question in _questions(data)])
    if not (folder / "plan.json").is_file():
        Plan(data, tuple(parts(data))).save(folder)
    plan = Plan.load(folder)
    if not (folder / "tokenizer.json").is_file():
        _write_tokenizer(plan, vocabulary, folder, tell)
    missing = plan.missing(folder)
    done, total = len(plan.parts) - len(missing), len(plan.parts)
    tell("tokens", done, total)

    def one_more() -> None:
        nonlocal done
        done += 1
        tell("tokens", done, total)

    write_parts(folder, plan, missing, one_more)
    write_manifest(folder, plan, Tokenizer.load(folder / "tokenizer.json"))


def _remove_leftovers(folder: Path) -> None:
    """Half-written files and folders of processes that were killed."""
    for path in folder.glob("tmp-*"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _questions(data: DataSpec) -> list[Question]:
    """The held-out questions of all tasks."""
    found: list[Question] = []
    for source in data.sources:
        if isinstance(source, ReasoningSource):
            from colossi.data import reasoning

            found += reasoning.held_out(source, data.held_out)
    return found


def _write_tokenizer(plan: Plan, vocabulary: int, folder: Path, tell: Progress) -> None:
    """Learn the tokenizer, or copy the user's own."""
    tell("tokenizer", 0, 1)
    if plan.data.tokenizer in UNITS:
        sample = _sample(plan, min(SAMPLE_LIMIT, SAMPLE_PER_TOKEN * vocabulary), excluded_questions(folder))
        tokenizer = Tokenizer.train(sample, vocabulary, plan.data.tokenizer)
    else:
        tokenizer = Tokenizer.load(plan.data.tokenizer)
    if tokenizer.vocabulary > vocabulary:
        raise DataError(
            f"{plan.data.tokenizer}: {tokenizer.vocabulary} tokens, the model's vocabulary is {vocabulary}",
            f"set model.vocabulary to {tokenizer.vocabulary} or more",
        )
    temporary = folder / f"tmp-tokenizer-{os.getpid()}.json"
    tokenizer.save(temporary)
    os.replace(temporary, folder / "tokenizer.json")
    sync_folder(folder)
    tell("tokenizer", 1, 1)


def _sample(plan: Plan, characters: int, excluded: frozenset[str]) -> Iterator[str]:
    """Text of every source in proportion to its weight, from its start; bad input is met later."""
    weights = sum(source.weight for source in plan.data.sources)
    for number, source in enumerate(plan.data.sources):
        left = int(characters * source.weight / weights)
        spans = [span for part in plan.parts if part.source == number for span in part.spans]
        for document in documents(source, spans, Complaints(skip=True), Complaints(skip=True), excluded):
            texts = (
                [document.text] if isinstance(document, Text) else [p.text for p in pieces(document.messages)]
            )
            yield from texts
            left -= sum(map(len, texts))
            if left <= 0:
                break


def _cut(data: DataSpec, tokens: Path, folder: Path, sequence_length: int, seed: int) -> None:
    """Windows and report; corpus.json last, since it says that all is there."""
    manifest = read_json(tokens / "manifest.json")
    report = []
    for number, source in enumerate(data.sources):
        chats = open_tokens(tokens, manifest, number, "chat")
        packed, cut = chat_windows(chats, sequence_length)
        windows = len(packed) + count_text(
            len(open_tokens(tokens, manifest, number, "text")), sequence_length
        )
        if windows == 0:
            raise _nothing_left(number, source, cut)
        np.save(folder / f"windows-{number}.npy", packed)
        np.save(folder / f"chats-{number}.npy", starts(chats.lengths()))
        report.append(_report(manifest, number, source, windows, cut))
    content = {
        "tokens": tokens.name,
        "sequence_length": sequence_length,
        "seed": seed,
        "weights": [source.weight for source in data.sources],
        "report": [asdict(entry) for entry in report],
    }
    write_json(folder / "corpus.json", content)


def _nothing_left(number: int, source: Source, cut: int) -> DataError:
    where = f"data.sources[{number}] ({name(source)})"
    if cut:
        message = f"{where}: each of its {cut:,} chats is too long: no answer begins inside a window"
        return DataError(message, "raise training.sequence_length")
    return DataError(
        f"{where}: nothing to train on", "give it more documents, or more questions than are held out"
    )


def _report(manifest: dict[str, Any], number: int, source: Source, windows: int, cut: int) -> SourceReport:
    counted = [manifest["counts"][part] for part in manifest["parts"][number]]
    totals = {count: sum(part[count] for part in counted) for count in COUNTS}
    return SourceReport(
        name=name(source),
        documents=totals["documents"],
        tokens=totals["text_tokens"] + totals["chat_tokens"],
        targets=totals["targets"],
        windows=windows,
        skipped=totals["skipped"],
        left_out=totals["left_out"],
        cut=cut,
        complaints=tuple(line for part in counted for line in part["complaints"])[:5],
    )


def name(source: Source) -> str:
    """What people call a source."""
    for key in ("path", "task", "name"):
        if hasattr(source, key):
            return str(getattr(source, key))
    return source.kind
