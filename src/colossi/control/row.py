"""
The names of a world's nodes by place: a sequence that never changes, and whose changed copies share the rest.

Each incarnation tells all of its nodes anew, and differs from the one before in a few. Copying 25,000 names
for each failure was most of what a simulated month cost; here a copy costs as much as one block, and a
pointer to each of the others.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate, chain
from typing import Self, overload

BLOCK = 256  # names; near the square root of 25,600, so that a block costs as much as the pointers to all


class Row(Sequence[str]):
    """Equal to a tuple of the same names."""

    __slots__ = ("_blocks", "_starts")

    def __init__(self, names: Iterable[str] = ()) -> None:
        whole = tuple(names)
        self._set([whole[begin : begin + BLOCK] for begin in range(0, len(whole), BLOCK)])

    def _set(self, blocks: Iterable[tuple[str, ...]]) -> None:
        self._blocks = tuple(blocks)
        self._starts = tuple(accumulate(map(len, self._blocks), initial=0))  # of each block, and the end

    def changed(self, names: Mapping[int, str]) -> Self:
        """With other names at some places."""
        return self._with(names)

    def without(self, places: Iterable[int]) -> Self:
        """Those at all other places, in their order."""
        return self._with(dict.fromkeys(places))

    def _with(self, names: Mapping[int, str | None]) -> Self:
        if not names:
            return self
        touched: dict[int, list[str | None]] = {}
        for place, name in names.items():
            number, within = self._find(place)
            block = touched.setdefault(number, list(self._blocks[number]))
            block[within] = name
        blocks = list(self._blocks)
        for number, block in touched.items():
            blocks[number] = tuple(name for name in block if name is not None)
        row = type(self).__new__(type(self))
        row._set(blocks)
        return row

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
