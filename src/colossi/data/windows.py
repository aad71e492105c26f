"""A source as windows of at most sequence_length + 1 tokens: inputs are w[:-1] and targets are w[1:].

Text is one long stream, cut every sequence_length tokens; neighbours share one token, so that every token
after the first is a target exactly once. Chats stay whole: they are packed in order while they fit, and
the rest is padding. A window is a range of a stream; nothing here reads more of the tokens than it must.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from colossi.data.shards import Tokens

Ranges = NDArray[np.int64]


def count_text(tokens: int, sequence_length: int) -> int:
    """How many windows a text stream gives; a single token has nothing to predict."""
    return -(-max(0, tokens - 1) // sequence_length)


def starts(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where documents that lie end to end begin."""
    return np.asarray(np.cumsum(lengths) - lengths)


def pack(lengths: NDArray[np.int64], sequence_length: int) -> tuple[Ranges, NDArray[np.bool_]]:
    """Windows [start, stop) over documents laid end to end, and which windows are cut documents.

    A document is added while the window holds at most sequence_length + 1 tokens; a longer one is cut there.
    """
    room = sequence_length + 1
    ends = np.cumsum(lengths)
    windows: list[tuple[int, int]] = []
    cut: list[bool] = []
    first = start = 0
    while first < len(lengths):
        following = int(np.searchsorted(ends, start + room, side="right"))
        too_long = following == first
        following += too_long
        windows.append((start, start + room if too_long else int(ends[following - 1])))
        cut.append(too_long)
        first, start = following, int(ends[following - 1])
    return np.array(windows, dtype=np.int64).reshape(-1, 2), np.array(cut, dtype=np.bool_)


def chat_windows(tokens: Tokens, sequence_length: int) -> tuple[Ranges, int]:
    """The windows of a chat stream, and how many chats were cut; without a target a cut one is left out."""
    windows, cut = pack(tokens.lengths(), sequence_length)
    keep = np.ones(len(windows), dtype=np.bool_)
    for number in np.flatnonzero(cut):
        keep[number] = tokens.read(*windows[number])[1].any()
    return windows[keep], int(cut.sum())


@dataclass(frozen=True)
class Windows:
    """All windows of a source: those of its text, then those of its chats."""

    text: Tokens
    chat: Tokens
    packed: Ranges
    sequence_length: int
    chat_starts: NDArray[np.int64]  # of all chats in their stream, ascending
    bos: int  # the token that begins a text document, and stands nowhere else

    @property
    def text_count(self) -> int:
        """Windows of text."""
        return count_text(len(self.text), self.sequence_length)

    def __len__(self) -> int:
        return self.text_count + len(self.packed)

    def read(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """The tokens of a window, and which of them are targets."""
        if number >= self.text_count:
            start, stop = self.packed[number - self.text_count].tolist()
            return self.chat.read(start, stop)
        start = number * self.sequence_length
        return self.text.read(start, min(len(self.text), start + self.sequence_length + 1))

    def first(self, number: int, tokens: NDArray[np.int64]) -> NDArray[np.int32]:
        """For each token of a window, where in the window its document begins; a cut one at 0."""
        begins = tokens == self.bos
        if number >= self.text_count:
            start, stop = self.packed[number - self.text_count].tolist()
            low, high = np.searchsorted(self.chat_starts, (start, stop))
            begins = np.zeros(len(tokens), dtype=np.bool_)
            begins[self.chat_starts[low:high] - start] = True
        places = np.where(begins, np.arange(len(tokens), dtype=np.int32), np.int32(0))
        return np.maximum.accumulate(places).astype(np.int32)
