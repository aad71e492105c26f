"""What every source is read as: pieces of text documents, and chats; and what could not be read.

A `Part` is what one worker reads in one go. Knows nothing of tokens and nothing of file formats.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from colossi.errors import DataError

PART_SIZE = 8 << 20  # bytes of text in a part: a few seconds of work to lose when a worker is killed
KEPT_COMPLAINTS = 5


class Text(NamedTuple):
    """A piece of a text document; a long document comes in several."""

    text: str
    starts: bool = True
    ends: bool = True


class Chat(NamedTuple):
    """A chat, always whole."""

    messages: tuple[dict[str, str], ...]


Document = Text | Chat


class Span(NamedTuple):
    """A range of one file: bytes, or row groups; or of items; or one of the shards of a dataset."""

    name: str
    start: int
    stop: int
    size: int  # bytes of text, roughly


@dataclass(frozen=True)
class Part:
    """A share of one source: `number` counts the parts of that source."""

    source: int
    number: int
    spans: tuple[Span, ...]

    @property
    def size(self) -> int:
        """How much work it is, roughly. [bytes]"""
        return sum(span.size for span in self.spans)


@dataclass
class Complaints:
    """What to do about bad input: stop at the first, or skip, count, and keep a few to show."""

    skip: bool
    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, message: str, hint: str) -> None:
        """Something cannot be read."""
        if not self.skip:
            raise DataError(message, hint)
        self.count += 1
        if len(self.first) < KEPT_COMPLAINTS:
            self.first.append(message)


def grouped(source: int, spans: Iterator[Span]) -> Iterator[Part]:
    """Consecutive spans as parts of about PART_SIZE."""
    group: list[Span] = []
    number = 0
    for span in spans:
        group.append(span)
        if sum(other.size for other in group) >= PART_SIZE:
            yield Part(source, number, tuple(group))
            group, number = [], number + 1
    if group:
        yield Part(source, number, tuple(group))
