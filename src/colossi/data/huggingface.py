"""Datasets of the Hugging Face hub, or local dataset folders, streamed through the `datasets` library."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets  # type: ignore[import-untyped]

from colossi.data.documents import PART_SIZE, Complaints, Document, Span
from colossi.data.files import row_document
from colossi.errors import DataError
from colossi.spec.data import HuggingFaceSource

_SAVED = ("state.json", "dataset_dict.json")  # what Dataset.save_to_disk leaves in a folder


def split(source: HuggingFaceSource) -> Iterator[Span]:
    """The dataset's own shards; one span where the number of documents is limited, which is one count."""
    shards = 1 if source.documents else max(1, _open(source).num_shards)
    for shard in range(shards):
        yield Span(source.name, shard, shards, PART_SIZE)


def read(source: HuggingFaceSource, span: Span, complaints: Complaints) -> Iterator[Document]:
    """The rows of one shard."""
    dataset = _open(source)
    if span.stop > 1:
        dataset = dataset.shard(num_shards=span.stop, index=span.start)
    kept = 0
    for number, row in enumerate(_rows(source, dataset), 1):
        try:
            document = row_document(row, source.column)
        except DataError as error:
            complaints.add(
                f"{_name(source)}: row {number} of shard {span.start}: {error.message}", error.hint
            )
            continue
        if document is not None:
            yield document
            kept += 1
            if kept == source.documents:
                return


def _open(source: HuggingFaceSource) -> Any:
    folder = Path(source.name).expanduser()
    try:
        if any((folder / name).is_file() for name in _SAVED):
            return _saved(source, folder).to_iterable_dataset()
        name = str(folder) if folder.is_dir() else source.name
        return datasets.load_dataset(name, source.config, split=source.split, streaming=True)
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise _unreadable(source, error) from error


def _saved(source: HuggingFaceSource, folder: Path) -> Any:
    saved = datasets.load_from_disk(str(folder))
    if isinstance(saved, datasets.Dataset):
        return saved
    if source.split not in saved:
        raise ValueError(f"no split {source.split!r} among {', '.join(saved)}")
    return saved[source.split]


def _rows(source: HuggingFaceSource, dataset: Any) -> Iterator[dict[str, Any]]:
    try:
        yield from dataset
    except (OSError, ValueError, RuntimeError, datasets.exceptions.DatasetsError) as error:
        raise _unreadable(source, error) from error


def _unreadable(source: HuggingFaceSource, error: Exception) -> DataError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    hint = "check name, config and split, and the connection; a local dataset folder works too"
    return DataError(f"{_name(source)}: cannot be read: {reason}", hint)


def _name(source: HuggingFaceSource) -> str:
    return f"huggingface dataset {source.name!r} split {source.split!r}"
