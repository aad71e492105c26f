"""Files of text and of JSON lines as documents, a bounded piece at a time.

A text file is one document, read exactly as it is written; a line of a jsonl file is one document.
"""

import codecs
import glob
import json
import sysconfig
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from colossi.data.chat import check_messages
from colossi.data.documents import PART_SIZE, Chat, Complaints, Document, Span, Text
from colossi.errors import DataError

TEXT_SUFFIXES = (".txt", ".md", ".py")
SUFFIXES = (*TEXT_SUFFIXES, ".jsonl", ".parquet")
PIECE_SIZE = 256 << 10  # bytes of text in a piece
_SEARCH = 64 << 10  # how far to look for the end of a line, so that a piece ends there
_READS = "colossi reads " + " ".join(suffix[1:] for suffix in SUFFIXES)
_UTF8 = "save the file as UTF-8, or set skip_bad = true to leave such lines out"


def list_files(path: str) -> list[Path]:
    """The files that `path` names, sorted: a file, those below a folder, or those of a glob."""
    place = Path(path).expanduser()
    if place.is_file():
        if place.suffix not in SUFFIXES:
            raise DataError(f"{path}: files of type {place.suffix or 'none'} are not read", _READS)
        return [place]
    if place.is_dir():
        found = [f for f in place.rglob("*") if not _hidden(f.relative_to(place))]
    else:
        found = [Path(name) for name in glob.glob(str(place), recursive=True)]
        if not found:
            raise DataError(f"{path}: no such file or folder", "give a file, a folder or a glob that exists")
    files = sorted(f for f in found if f.suffix in SUFFIXES and f.is_file())
    if not files:
        raise DataError(f"{path}: holds no file that can be read", _READS)
    return files


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def list_stdlib() -> list[Path]:
    """The library sources of this interpreter, without its tests and what was installed beside it."""
    root = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"}
    files = [f for f in root.rglob("*.py") if not left_out & set(f.relative_to(root).parts[:-1])]
    files = sorted(f for f in files if f.stat().st_size)
    if not files:
        raise DataError(f"{root}: this Python has no library sources", "use a source of kind files")
    return files


def split_file(file: Path) -> Iterator[Span]:
    """The byte ranges that a text or jsonl file is read in."""
    size = file.stat().st_size
    for start in range(0, max(size, 1), PART_SIZE):
        stop = min(size, start + PART_SIZE)
        yield Span(str(file), start, stop, stop - start)


def read_text(span: Span, complaints: Complaints) -> Iterator[Text]:
    """The pieces of a text file that begin in the span."""
    with open(span.name, "rb") as file:
        size = file.seek(0, 2)
        if size == 0:
            complaints.add(f"{span.name}: the file is empty", "remove it, or set skip_bad = true")
            return
        position, stop = _boundary(file, span.start), _boundary(file, span.stop)
        while position < stop:
            end = min(stop, _boundary(file, position + PIECE_SIZE))
            file.seek(position)
            text = _decode(file.read(end - position), span.name, file, position, complaints)
            yield Text(text, starts=position == 0, ends=end == size)
            position = end


def _boundary(file: BinaryIO, offset: int) -> int:
    """The first place at or after `offset` where a line begins, or, in a very long line, a character."""
    if offset == 0:
        return 0
    size = file.seek(0, 2)
    if offset >= size:
        return size
    file.seek(offset - 1)
    line = file.readline(_SEARCH)
    if line.endswith(b"\n") or offset - 1 + len(line) == size:
        return offset - 1 + len(line)
    continuation = next((i for i, byte in enumerate(line[1:]) if byte & 0xC0 != 0x80), 0)
    return offset + continuation


def _decode(raw: bytes, name: str, file: BinaryIO, start: int, complaints: Complaints) -> str:
    """UTF-8 as text, without the lines that are none."""
    try:
        return codecs.decode(raw, "utf-8")
    except UnicodeDecodeError:
        kept = []
        line_number = _lines_before(file, start)
        for line in raw.split(b"\n"):
            line_number += 1
            try:
                kept.append(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                byte = error.object[error.start]
                message = f"{name}:{line_number}: byte 0x{byte:02x} at column {error.start + 1} is not UTF-8"
                complaints.add(message, _UTF8)
        return "\n".join(kept)


def _lines_before(file: BinaryIO, offset: int) -> int:
    """How many lines end before `offset`: only an error needs to know."""
    file.seek(0)
    count = 0
    while offset > 0:
        block = file.read(min(offset, 1 << 20))
        count += block.count(b"\n")
        offset -= len(block)
    return count


def read_jsonl(span: Span, column: str, complaints: Complaints) -> Iterator[Document]:
    """The rows of a jsonl file whose lines begin in the span."""
    with open(span.name, "rb") as file:
        if file.seek(0, 2) == 0:
            complaints.add(f"{span.name}: the file is empty", "remove it, or set skip_bad = true")
            return
        start = _line_start(file, span.start)
        file.seek(start)
        position, number = start, 0
        while position < span.stop and (line := file.readline()):
            position += len(line)
            number += 1
            try:
                document = _row_of_line(line, column)
            except DataError as error:
                where = f"{span.name}:{_lines_before(file, start) + number}"
                complaints.add(f"{where}: {error.message}", error.hint)
                file.seek(position)
                continue
            if document is not None:
                yield document


def _line_start(file: BinaryIO, offset: int) -> int:
    if offset == 0:
        return 0
    file.seek(offset - 1)
    return offset - 1 + len(file.readline())


def _row_of_line(line: bytes, column: str) -> Document | None:
    """The document of one line; none for an empty line. A DataError does not know the line."""
    skip = "mend the line, or set skip_bad = true to leave such lines out"
    if not line.strip():
        return None
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(
            f"byte 0x{line[error.start]:02x} at column {error.start + 1} is not UTF-8", _UTF8
        ) from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"not JSON: {error}", skip) from error
    if not isinstance(row, dict):
        raise DataError(f"a {type(row).__name__}, not a JSON object", skip)
    return row_document(row, column)


def row_document(row: Mapping[str, Any], column: str) -> Document | None:
    """A row as a document: the text of its column, or else its messages; none where the text is empty."""
    value = row.get(column)
    if value is None and row.get("messages") is not None:
        return Chat(check_messages(row["messages"], "the row"))
    if column not in row:
        raise DataError(f"no column {column!r}", missing_column(list(row)))
    if not isinstance(value, str):
        raise DataError(
            f"column {column!r} holds {type(value).__name__}, not text", "set skip_bad = true to skip it"
        )
    return Text(_without_surrogates(value)) if value else None


def missing_column(columns: list[str]) -> str:
    """The hint for a column that is not there."""
    return f"set the source's column to one of: {', '.join(sorted(columns)) or '(the row has none)'}"


def _without_surrogates(text: str) -> str:
    """JSON may spell half a surrogate pair, which is no character."""
    return text.encode("utf-8", errors="replace").decode("utf-8") if not text.isascii() else text
