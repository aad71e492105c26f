"""
Which page of the cache holds what: taken, shared, kept for later, forgotten.

A page holds the keys and values of `size` positions in a row. A page that is full is known by all tokens up
to its end, so that another sequence that begins alike takes it instead of computing it. A page that nobody
uses any more is kept until its room is needed, the one longest unused going first. Knows numbers only.

The idea of pages is of W. Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", 2023; pages are found by the hash of their beginning, as no two beginnings share one.
"""

import hashlib
from array import array
from collections import OrderedDict
from collections.abc import Sequence

Key = bytes
ROOT: Key = b""


def key_of(before: Key, tokens: Sequence[int]) -> Key:
    """Of a full page: a hash of 128 bits of all tokens up to its end, from that of the page before it."""
    return hashlib.blake2b(before + array("I", tokens).tobytes(), digest_size=16).digest()


class Pages:
    """The pages of one cache, by number; references count who uses each."""

    def __init__(self, count: int, size: int) -> None:
        self.count, self.size = count, size
        self._unused = list(range(count - 1, -1, -1))
        self._users = [0] * count
        self._page_of: dict[Key, int] = {}
        self._key_of: dict[int, Key] = {}
        self._kept: OrderedDict[int, None] = OrderedDict()  # full, used by nobody, longest unused first

    @property
    def free(self) -> int:
        """Pages that can be taken."""
        return len(self._unused) + len(self._kept)

    @property
    def kept(self) -> int:
        """Of these, how many hold a beginning that may be asked for again."""
        return len(self._kept)

    def needed(self, positions: int) -> int:
        """Pages for so many positions."""
        return -(-positions // self.size)

    def take(self) -> int:
        """A page to write into; IndexError where none is free."""
        if self._unused:
            page = self._unused.pop()
        elif self._kept:
            page, _ = self._kept.popitem(last=False)
            del self._page_of[self._key_of.pop(page)]
        else:
            raise IndexError("no page is free")
        self._users[page] = 1
        return page

    def reuse(self, tokens: Sequence[int]) -> tuple[list[int], list[Key]]:
        """The pages that hold the beginning of these tokens, now used once more, and their keys.

        The last token is never among them: it must be computed to know what follows.
        """
        pages: list[int] = []
        keys: list[Key] = []
        key = ROOT
        for start in range(0, (len(tokens) - 1) // self.size * self.size, self.size):
            key = key_of(key, tokens[start : start + self.size])
            page = self._page_of.get(key)
            if page is None:
                break
            self._kept.pop(page, None)
            self._users[page] += 1
            pages.append(page)
            keys.append(key)
        return pages, keys

    def publish(self, page: int, key: Key) -> None:
        """Say what a page holds that is full; where another page holds the same, this one stays private."""
        if key not in self._page_of:
            self._page_of[key] = page
            self._key_of[page] = key

    def release(self, pages: Sequence[int]) -> None:
        """One user fewer of each; a sequence's last pages are forgotten before its first."""
        for page in reversed(pages):
            if self._users[page] < 1:
                raise ValueError(f"page {page} is released more often than it was taken")
            self._users[page] -= 1
            if self._users[page]:
                continue
            if page in self._key_of:
                self._kept[page] = None
            else:
                self._unused.append(page)
