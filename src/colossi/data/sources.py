"""A source of any kind as parts, as documents, and as the facts that change when it changes.

The modules of single kinds are imported where that kind is used: pyarrow, datasets and reasoning-gym are
heavy.
"""

from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import Any

from colossi.data import files
from colossi.data.documents import Complaints, Document, Part, Span, grouped
from colossi.spec.data import (
    DataSpec,
    FilesSource,
    HuggingFaceSource,
    PythonStdlibSource,
    ReasoningSource,
    Source,
)


def parts(data: DataSpec) -> list[Part]:
    """What is to be read, in order."""
    return [
        part
        for number, source in enumerate(data.sources)
        for part in grouped(number, _spans(source, data.held_out))
    ]


def _spans(source: Source, held_out: int) -> Iterator[Span]:
    match source:
        case FilesSource() | PythonStdlibSource():
            return chain.from_iterable(_file_spans(file) for file in source_files(source))
        case ReasoningSource():
            from colossi.data import reasoning

            return reasoning.split(source, held_out)
        case HuggingFaceSource():
            from colossi.data import huggingface

            return huggingface.split(source)


def _file_spans(file: Path) -> Iterator[Span]:
    if file.suffix != ".parquet":
        return files.split_file(file)
    from colossi.data import parquet

    return parquet.split_file(file)


def source_files(source: Source) -> list[Path]:
    """The local files that a source reads."""
    match source:
        case FilesSource():
            return files.list_files(source.path)
        case PythonStdlibSource():
            return files.list_stdlib()
        case HuggingFaceSource():
            folder = Path(source.name).expanduser()
            return sorted(f for f in folder.rglob("*") if f.is_file()) if folder.is_dir() else []
    return []


def documents(
    source: Source,
    spans: Sequence[Span],
    complaints: Complaints,
    left_out: Complaints,
    excluded: AbstractSet[str],
) -> Iterator[Document]:
    """The documents of these spans of a source."""
    for span in spans:
        yield from _read(source, span, complaints, left_out, excluded)


def _read(
    source: Source, span: Span, complaints: Complaints, left_out: Complaints, excluded: AbstractSet[str]
) -> Iterator[Document]:
    match source:
        case ReasoningSource():
            from colossi.data import reasoning

            return reasoning.read(source, span, excluded, left_out)
        case HuggingFaceSource():
            from colossi.data import huggingface

            return huggingface.read(source, span, complaints)
        case PythonStdlibSource():
            return files.read_text(span, complaints)
    if span.name.endswith(".jsonl"):
        return files.read_jsonl(span, source.column, complaints)
    if span.name.endswith(".parquet"):
        from colossi.data import parquet

        return parquet.read(span, source.column, complaints)
    return files.read_text(span, complaints)


def skips_bad(source: Source) -> bool:
    """Whether bad input of this source is skipped."""
    return not isinstance(source, ReasoningSource) and source.skip_bad


_LIBRARIES = {
    "files": ("pyarrow",),
    "python-stdlib": (),
    "reasoning": ("reasoning-gym",),
    "huggingface": ("datasets", "pyarrow"),
}


def facts(source: Source) -> dict[str, Any]:
    """What its documents depend on besides its table: files by name, size and time; versions of libraries."""
    stats = [(str(file), file.stat()) for file in source_files(source)]
    return {
        "files": [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats],
        "versions": {name: version(name) for name in _LIBRARIES[source.kind]},
    }
