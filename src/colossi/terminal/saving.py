"""Files that the user named: where one cannot be written, that is an error of a line."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from colossi.errors import BadInput


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """While this file is written."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}", "give a file in a folder") from None
