"""Documents as tokens on disk: a folder per part, written whole or not at all, and read through memory maps.

    tokens-FINGERPRINT/  plan.json  tokenizer.json  questions.json  manifest.json (last)
        0-00000/         text.tokens text.targets  chat.tokens chat.targets chat.lengths  part.json

A part is written under a temporary name, flushed to disk and renamed, so a kill at any moment loses at
most the parts in work. Text documents are [BOS] text [EOS]: there is a token to start from without a
prompt and one to stop at. BOS is never a target, since nobody has to predict it. Chats have neither, as
in Grok's template: the separator ends a turn.
"""

import json
import os
import shutil
import tempfile
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from colossi.data.documents import Chat, Complaints, Document, Part, Span, Text
from colossi.data.sources import documents, skips_bad
from colossi.data.tokenizer import Tokenizer, token_type
from colossi.files import sync_folder, write_whole
from colossi.spec.data import DataSpec

Stream = Literal["text", "chat"]
STREAMS: tuple[Stream, ...] = ("text", "chat")
COUNTS = ("documents", "text_tokens", "chat_tokens", "targets", "skipped", "left_out")
_BATCH_CHARACTERS = 512 << 10
_BATCH_DOCUMENTS = 1024


@dataclass(frozen=True)
class Plan:
    """What is to be written, and the order of the parts."""

    data: DataSpec
    parts: tuple[Part, ...]

    def save(self, folder: Path) -> None:
        """Write plan.json."""
        content = {"data": self.data.model_dump(mode="json"), "parts": [asdict(part) for part in self.parts]}
        write_json(folder / "plan.json", content)

    @classmethod
    def load(cls, folder: Path) -> "Plan":
        """Read plan.json."""
        content = read_json(folder / "plan.json")
        parts = (
            Part(part["source"], part["number"], tuple(Span(*span) for span in part["spans"]))
            for part in content["parts"]
        )
        return cls(DataSpec.model_validate_json(json.dumps(content["data"])), tuple(parts))

    def missing(self, folder: Path) -> list[Part]:
        """The parts that are not there yet."""
        return [part for part in self.parts if not part_folder(folder, part).is_dir()]


def part_folder(folder: Path, part: Part) -> Path:
    """Where a part lies."""
    return folder / f"{part.source}-{part.number:05d}"


def write_part(
    folder: Path, plan: Plan, part: Part, tokenizer: Tokenizer, excluded: AbstractSet[str]
) -> None:
    """Read, tokenise and write one part; who else has written it has written the same."""
    source = plan.data.sources[part.source]
    complaints, left_out = Complaints(skips_bad(source)), Complaints(skip=True)
    final = part_folder(folder, part)
    temporary = Path(tempfile.mkdtemp(prefix=f"tmp-{final.name}-", dir=folder))
    try:
        items = documents(source, part.spans, complaints, left_out, excluded)
        with _Writer(temporary, tokenizer, plan.data.loss_on == "everything") as writer:
            for batch in _batches(items):
                writer.write(batch)
        writer.counts |= {"skipped": complaints.count, "left_out": left_out.count}
        write_json(temporary / "part.json", writer.counts | {"complaints": complaints.first})
        _rename(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _rename(temporary: Path, final: Path) -> None:
    try:
        os.rename(temporary, final)
    except OSError:
        if not final.is_dir():
            raise
    sync_folder(final.parent)


def _batches(items: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    characters = 0
    for item in items:
        batch.append(item)
        characters += (
            len(item.text) if isinstance(item, Text) else sum(len(m["content"]) for m in item.messages)
        )
        if characters >= _BATCH_CHARACTERS or len(batch) == _BATCH_DOCUMENTS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


class _Writer:
    """The open files of one part."""

    def __init__(self, folder: Path, tokenizer: Tokenizer, everything: bool) -> None:
        self._folder, self._tokenizer, self._everything = folder, tokenizer, everything
        self._type = token_type(tokenizer.vocabulary)
        self._open = ExitStack()
        self._files: dict[str, IO[bytes]] = {}
        self.counts = dict.fromkeys(COUNTS, 0)

    def __enter__(self) -> "_Writer":
        names = ("text.tokens", "text.targets", "chat.tokens", "chat.targets", "chat.lengths")
        for name in names:
            self._files[name] = self._open.enter_context(open(self._folder / name, "wb"))
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            for file in self._files.values():
                file.flush()
                os.fsync(file.fileno())
        self._open.close()

    def write(self, batch: Sequence[Document]) -> None:
        """Tokenise these documents and append them."""
        texts = [item for item in batch if isinstance(item, Text)]
        chats = [item for item in batch if isinstance(item, Chat)]
        for text, ids in zip(texts, self._tokenizer.encode_many([text.text for text in texts]), strict=True):
            self._write_text(text, ids)
        encoded = self._tokenizer.encode_chats([chat.messages for chat in chats])
        if encoded:
            self._write_chats(encoded)

    def _write_text(self, text: Text, ids: list[int]) -> None:
        ids = [self._tokenizer.bos] * text.starts + ids + [self._tokenizer.eos] * text.ends
        targets = np.ones(len(ids), dtype=np.uint8)
        targets[: int(text.starts)] = 0
        self.counts["documents"] += text.ends
        self._append("text", ids, targets)

    def _write_chats(self, encoded: list[tuple[list[int], list[bool]]]) -> None:
        lengths = np.array([len(ids) for ids, _ in encoded], dtype=np.uint32)
        answers = np.array([answer for _, chat in encoded for answer in chat], dtype=np.uint8)
        targets = np.ones_like(answers) if self._everything else answers
        targets[np.cumsum(lengths) - lengths] = 0  # nothing in the same chat comes before its first token
        self._files["chat.lengths"].write(lengths.tobytes())
        self.counts["documents"] += len(encoded)
        self._append("chat", [token for ids, _ in encoded for token in ids], targets)

    def _append(self, stream: Stream, ids: list[int], targets: NDArray[np.uint8]) -> None:
        self._files[f"{stream}.tokens"].write(np.array(ids, dtype=self._type).tobytes())
        self._files[f"{stream}.targets"].write(targets.tobytes())
        self.counts[f"{stream}_tokens"] += len(ids)
        self.counts["targets"] += int(targets.sum())


@dataclass
class Tokens:
    """One stream of a source, as if its parts were one array. Maps are opened when they are first read."""

    folders: tuple[Path, ...]
    counts: tuple[int, ...]
    stream: Stream
    type: "np.dtype[np.uint16] | np.dtype[np.uint32]"
    _maps: dict[int, tuple[Any, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._starts = [0, *np.cumsum(self.counts, dtype=np.int64).tolist()]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def read(self, start: int, stop: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Tokens [start, stop) and which of them are targets."""
        tokens = np.empty(stop - start, dtype=np.int64)
        targets = np.empty(stop - start, dtype=np.bool_)
        position, number = start, bisect_right(self._starts, start) - 1
        while position < stop:
            end = min(stop, self._starts[number + 1])
            if end > position:
                here = slice(position - self._starts[number], end - self._starts[number])
                there = slice(position - start, end - start)
                token_map, target_map = self._map(number)
                tokens[there], targets[there] = token_map[here], target_map[here]
            position, number = end, number + 1
        return tokens, targets

    def _map(self, number: int) -> tuple[Any, Any]:
        if number not in self._maps:
            path = self.folders[number] / self.stream
            self._maps[number] = (
                np.memmap(f"{path}.tokens", dtype=self.type, mode="r"),
                np.memmap(f"{path}.targets", dtype=np.uint8, mode="r"),
            )
        return self._maps[number]

    def lengths(self) -> NDArray[np.int64]:
        """The lengths of the documents of a chat stream."""
        files = (folder / "chat.lengths" for folder in self.folders)
        return np.concatenate([np.fromfile(file, dtype=np.uint32) for file in files]).astype(np.int64)


def open_tokens(folder: Path, manifest: dict[str, Any], source: int, stream: Stream) -> Tokens:
    """A stream of one source of a finished folder."""
    names = manifest["parts"][source]
    counts = [manifest["counts"][name][f"{stream}_tokens"] for name in names]
    kind = token_type(manifest["vocabulary"])
    return Tokens(tuple(folder / name for name in names), tuple(counts), stream, kind)


def write_manifest(folder: Path, plan: Plan, tokenizer: Tokenizer) -> dict[str, Any]:
    """Say that every part is there, and what is in each."""
    of_source: list[list[str]] = [[] for _ in plan.data.sources]
    for part in plan.parts:
        of_source[part.source].append(part_folder(folder, part).name)
    counts = {name: read_json(folder / name / "part.json") for names in of_source for name in names}
    manifest = {"vocabulary": tokenizer.vocabulary, "parts": of_source, "counts": counts}
    write_json(folder / "manifest.json", manifest)
    return manifest


def read_json(path: Path) -> Any:
    """A JSON document."""
    return json.loads(path.read_text(encoding="utf-8"))


def write_json(path: Path, content: Any) -> None:
    """Write a JSON document so that it is there whole or not at all."""
    write_whole(path, json.dumps(content, ensure_ascii=False, indent=1))
