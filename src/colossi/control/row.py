"""
The names of a world's nodes by place: a sequence that never changes, and whose changed copies share the rest.

Each incarnation tells all of its nodes anew, and differs from the one before in a few. Copying 25,000 names
for each failure was most of what a simulated month cost; here a copy costs as much as one block, and a
pointer to each of the others.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import overload

BITS = 8  # of a place within its block: 256 names, near the square root of 25,600, so that a block costs
# as much as the pointers to all of them
BLOCK = 1 << BITS


class Row(Sequence[str]):
    """Equal to a tuple of the same names."""

    __slots__ = ("_blocks", "_even", "_starts")

    def __init__(self, names: Iterable[str] = ()) -> None:
        whole = tuple(names)
        self._blocks = tuple(whole[begin : begin + BLOCK] for begin in range(0, len(whole), BLOCK))
        self._starts = tuple(accumulate(map(len, self._blocks), initial=0))  # of each block, and the end
        self._even = True  # all blocks but the last have BLOCK names

    def changed(self, names: Mapping[int, str]) -> "Row":
        """With other names at some places."""
        if not names:
            return self
        blocks = list(self._blocks)
        for number, found in self._by_block(names).items():
            block = list(blocks[number])
            for within, place in found:
                block[within] = names[place]
            blocks[number] = tuple(block)
        return Row._of(tuple(blocks), self._starts, self._even)

    def without(self, places: Iterable[int]) -> "Row":
        """Those at all other places, in their order."""
        touched = self._by_block(places)
        if not touched:
            return self
        blocks = list(self._blocks)
        for number, found in touched.items():
            block = list(blocks[number])
            for within in sorted({within for within, _ in found}, reverse=True):
                del block[within]
            blocks[number] = tuple(block)
        return Row._of(tuple(blocks), tuple(accumulate(map(len, blocks), initial=0)), even=False)

    @classmethod
    def _of(cls, blocks: tuple[tuple[str, ...], ...], starts: tuple[int, ...], even: bool) -> "Row":
        row = cls.__new__(cls)
        row._blocks, row._starts, row._even = blocks, starts, even
        return row

    def _by_block(self, places: Iterable[int]) -> dict[int, list[tuple[int, int]]]:
        """For each block some of these are in, the places in it and in all."""
        found: dict[int, list[tuple[int, int]]] = {}
        for place in places:
            number, within = self._find(place)
            found.setdefault(number, []).append((within, place))
        return found

    def _find(self, place: int) -> tuple[int, int]:
        """The number of the block, and the place in it."""
        if not 0 <= place < len(self):
            raise IndexError(place)
        number = bisect_right(self._starts, place) - 1
        return number, place - self._starts[number]

    def __len__(self) -> int:
        return self._starts[-1]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._blocks)

    @overload
    def __getitem__(self, place: int) -> str: ...

    @overload
    def __getitem__(self, place: slice) -> tuple[str, ...]: ...

    def __getitem__(self, place: int | slice) -> str | tuple[str, ...]:
        if isinstance(place, slice):
            return tuple(self)[place]
        if self._even and place >= 0:
            return self._blocks[place >> BITS][place & (BLOCK - 1)]  # past the end: an IndexError as well
        number, within = self._find(place if place >= 0 else place + len(self))
        return self._blocks[number][within]

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Row) and self._blocks == other._blocks:
            return True
        return tuple(self) == tuple(other) if isinstance(other, Row | tuple) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return repr(tuple(self))
