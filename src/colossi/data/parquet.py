"""Rows of parquet files as documents, a batch of rows at a time."""

from collections.abc import Iterator
from pathlib import Path

import pyarrow as arrow  # type: ignore[import-untyped]
import pyarrow.parquet as parquet  # type: ignore[import-untyped]

from colossi.data.documents import Complaints, Document, Span
from colossi.data.files import missing_column, row_document
from colossi.errors import DataError

ROWS_AT_ONCE = 256
_SKIP = "mend the file, or set skip_bad = true to leave it out"


def split_file(file: Path) -> Iterator[Span]:
    """The row groups of a file, each by itself; a file that is no parquet is left for reading to find."""
    try:
        metadata = parquet.read_metadata(file)
    except (arrow.ArrowInvalid, OSError):
        yield Span(str(file), 0, 1, file.stat().st_size)
        return
    if metadata.num_row_groups == 0:
        yield Span(str(file), 0, 0, 0)
    for group in range(metadata.num_row_groups):
        yield Span(str(file), group, group + 1, metadata.row_group(group).total_byte_size)


def read(span: Span, column: str, complaints: Complaints) -> Iterator[Document]:
    """The rows of the span's row groups."""
    if span.start == span.stop:
        complaints.add(f"{span.name}: the file has no rows", "remove it, or set skip_bad = true")
        return
    try:
        with parquet.ParquetFile(span.name) as file:
            yield from _rows(file, span, column, complaints)
    except (arrow.ArrowInvalid, OSError) as error:
        first_line = str(error).splitlines()[0]
        complaints.add(f"{span.name}: not a parquet file that can be read: {first_line}", _SKIP)


def _rows(file: parquet.ParquetFile, span: Span, column: str, complaints: Complaints) -> Iterator[Document]:
    names = file.schema_arrow.names
    columns = [name for name in (column, "messages") if name in names]
    if not columns:
        complaints.add(f"{span.name}: no column {column!r}", missing_column(names))
        return
    number = sum(file.metadata.row_group(group).num_rows for group in range(span.start))
    groups = list(range(span.start, span.stop))
    for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=groups, columns=columns):
        for row in batch.to_pylist():
            number += 1
            try:
                document = row_document(row, column)
            except DataError as error:
                complaints.add(f"{span.name}: row {number}: {error.message}", error.hint)
                continue
            if document is not None:
                yield document
