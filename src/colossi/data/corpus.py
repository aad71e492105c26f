"""Prepared data, opened by its folder: the batch of step s is a pure function of what was prepared and s.

    corpus-FINGERPRINT/corpus.json  windows-0.npy  chats-0.npy ...   beside the tokens-FINGERPRINT it names

A worker process is given the folder and opens it; it reads the rows that it is asked for and nothing
else.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from colossi.data.order import Mixture
from colossi.data.question import Question
from colossi.data.shards import open_tokens, read_json
from colossi.data.tokenizer import Tokenizer
from colossi.data.windows import Windows
from colossi.errors import DataError


@dataclass(frozen=True)
class SourceReport:
    """What became of one source."""

    name: str
    documents: int
    tokens: int
    targets: int
    windows: int
    skipped: int  # bad input that was left out, as skip_bad asks
    left_out: int  # reasoning items that are held out or have no answer
    cut: int  # chats that are longer than a window
    complaints: tuple[str, ...]  # the first few of what was skipped


@dataclass(frozen=True)
class Batch:
    """Rows of a global batch, B rows of T tokens; a target that does not count has is_target False."""

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    is_target: NDArray[np.bool_]
    first: NDArray[np.int32] | None = None  # the first token that each may attend to; None: the row's first


@dataclass(frozen=True)
class Corpus:
    """Prepared data. `report` has an entry for each source, in the order of the spec."""

    folder: Path
    tokenizer: Tokenizer
    sequence_length: int
    mixture: Mixture
    sources: tuple[Windows, ...]
    report: tuple[SourceReport, ...]

    @classmethod
    def open(cls, folder: str | Path) -> "Corpus":
        """Open what `prepare` has made, without doing any of it again."""
        folder = Path(folder)
        if not (folder / "corpus.json").is_file():
            raise DataError(f"{folder}: no prepared data", "prepare it first; the folder is Corpus.folder")
        content = read_json(folder / "corpus.json")
        tokens = folder.parent / content["tokens"]
        manifest = read_json(tokens / "manifest.json")
        length = content["sequence_length"]
        sources = tuple(
            Windows(
                open_tokens(tokens, manifest, number, "text"),
                open_tokens(tokens, manifest, number, "chat"),
                np.load(folder / f"windows-{number}.npy", mmap_mode="r"),
                length,
                np.load(folder / f"chats-{number}.npy", mmap_mode="r"),
                Tokenizer.bos,
            )
            for number in range(len(manifest["parts"]))
        )
        mixture = Mixture(tuple(map(len, sources)), tuple(content["weights"]), content["seed"])
        report = tuple(
            SourceReport(**entry | {"complaints": tuple(entry["complaints"])}) for entry in content["report"]
        )
        return cls(folder, Tokenizer.load(tokens / "tokenizer.json"), length, mixture, sources, report)

    @property
    def tokens_folder(self) -> Path:
        """The folder of the shards, tokenizer.json and questions.json."""
        return self.folder.parent / str(read_json(self.folder / "corpus.json")["tokens"])

    @property
    def samples_per_epoch(self) -> int:
        """The windows of all sources together."""
        return sum(map(len, self.sources))

    @cached_property
    def questions(self) -> tuple[Question, ...]:
        """The held-out questions of every reasoning task."""
        return tuple(Question(**entry) for entry in read_json(self.tokens_folder / "questions.json"))

    def batch(self, step: int, global_batch: int, rows: slice, documents: bool = False) -> Batch:
        """These rows of the global batch of `step`, counted from 0; only they are read.

        With `documents` it says where in its row each token's document begins.
        """
        samples = step * global_batch + np.arange(global_batch, dtype=np.int64)[rows]
        sources, windows = self.mixture.locate(samples)
        shape = (len(samples), self.sequence_length)
        inputs = np.full(shape, self.tokenizer.pad, dtype=np.int64)
        targets = np.full(shape, self.tokenizer.pad, dtype=np.int64)
        is_target = np.zeros(shape, dtype=np.bool_)
        first = np.zeros(shape, dtype=np.int32) if documents else None
        for row, (source, window) in enumerate(zip(sources.tolist(), windows.tolist(), strict=True)):
            tokens, counts = self.sources[source].read(window)
            inputs[row, : len(tokens) - 1] = tokens[:-1]
            targets[row, : len(tokens) - 1] = tokens[1:]
            is_target[row, : len(tokens) - 1] = counts[1:]
            if first is not None:
                of_tokens = self.sources[source].first(window, tokens[:-1])
                first[row, : len(tokens) - 1], first[row, len(tokens) - 1 :] = of_tokens, of_tokens[-1]
        return Batch(inputs, targets, is_target, first)

    def overlap(self) -> int:
        """How many training chats open with a held-out question, by the tokens themselves: none."""
        separator = self.tokenizer.separator
        asked = {
            tuple(ids[: ids.index(separator)])
            for ids in (self.tokenizer.encode_prompt(question.messages) for question in self.questions)
        }
        longest = max(map(len, asked), default=0)
        found = 0
        for windows in self.sources:
            start = 0
            for length in windows.chat.lengths().tolist():
                ids = windows.chat.read(start, start + min(length, longest + 1))[0].tolist()
                found += separator in ids and tuple(ids[: ids.index(separator)]) in asked
                start += length
        return found
