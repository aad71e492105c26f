"""In which order samples come: pure functions of (seed, index), with no table of the size of the data.

Knows how many samples each source has, and nothing of what they are.

[BR02]  J. Black, P. Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002: a Feistel network on
     the next power of two, walked until it lands inside the domain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.int64]
LONGEST_CYCLE = 1024
_ROUNDS = 6


def key(*parts: int | str) -> int:
    """A 64-bit key that depends on every part."""
    return int.from_bytes(blake2b(repr(parts).encode(), digest_size=8).digest(), "little")


def permutation(index: Indices, n: int, key: int) -> Indices:
    """Where each `index` of [0, n) goes under the shuffle named `key`: a bijection on [0, n) [BR02]."""
    value = np.asarray(index, dtype=np.uint64)
    if value.size and (int(value.max()) >= n or int(np.min(index)) < 0):
        raise ValueError(f"an index is outside [0, {n})")
    value = _feistel(value, n, key)
    outside = np.flatnonzero(value >= n)
    while outside.size:
        flat = value.reshape(-1)
        flat[outside] = _feistel(flat[outside], n, key)
        outside = outside[flat[outside] >= n]
    return value.astype(np.int64)


def _feistel(value: NDArray[np.uint64], n: int, key: int) -> NDArray[np.uint64]:
    """One pass over the smallest power of two that holds n; its halves may differ by a bit."""
    bits = max(1, (n - 1).bit_length())
    low_bits = np.uint64(bits - bits // 2)
    low_mask = np.uint64((1 << (bits - bits // 2)) - 1)
    high_mask = np.uint64((1 << bits // 2) - 1)
    low, high = value & low_mask, value >> low_bits
    for number in range(0, _ROUNDS, 2):
        low = (low ^ _mix(high, _round_key(key, number))) & low_mask
        high = (high ^ _mix(low, _round_key(key, number + 1))) & high_mask
    return (high << low_bits) | low


@lru_cache(maxsize=4096)
def _round_key(name: int, number: int) -> np.uint64:
    return np.uint64(key(name, number))


def _mix(value: NDArray[np.uint64], round_key: np.uint64) -> NDArray[np.uint64]:
    """The finaliser of splitmix64."""
    mixed = value ^ round_key
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def quotas(weights: Sequence[float]) -> tuple[int, ...]:
    """How many samples of a cycle each source gives: the largest remainder, and at least one.

    The cycle is the shortest one that gives the weights exactly, or else of LONGEST_CYCLE samples.
    """
    shares = np.asarray(weights, dtype=np.float64) / np.sum(weights)
    for length in range(1, LONGEST_CYCLE + 1):
        wanted = shares * length
        whole = np.rint(wanted)
        if whole.min() >= 1 and np.abs(wanted - whole).max() < 1e-9:
            return tuple(int(count) for count in whole)
    given = np.maximum(1, np.floor(wanted)).astype(int)
    missing = max(0, LONGEST_CYCLE - int(given.sum()))
    given[np.argsort(given - wanted, kind="stable")[:missing]] += 1
    return tuple(int(count) for count in given)


@dataclass(frozen=True)
class Mixture:
    """Sources of `counts` samples, mixed by `weights`; each has its own epochs, each in a new order."""

    counts: tuple[int, ...]
    weights: tuple[float, ...]
    seed: int

    @cached_property
    def quotas(self) -> tuple[int, ...]:
        """Samples of each source in every cycle."""
        return quotas(self.weights)

    def locate(self, samples: Indices) -> tuple[Indices, Indices]:
        """The source of each global sample, and which of that source's samples it is."""
        samples = np.asarray(samples, dtype=np.int64)
        sources, drawn = np.empty_like(samples), np.empty_like(samples)
        length = sum(self.quotas)
        cycles = samples // length
        for cycle in np.unique(cycles):
            here = cycles == cycle
            pattern, rank = _pattern(self.quotas, key(self.seed, "cycle", int(cycle)))
            position = samples[here] - cycle * length
            sources[here] = pattern[position]
            drawn[here] = rank[position] + cycle * np.asarray(self.quotas)[pattern[position]]
        return sources, self._shuffled(sources, drawn)

    def _shuffled(self, sources: Indices, drawn: Indices) -> Indices:
        """Which sample of its source the draw number `drawn` is: a new permutation in every epoch."""
        which = np.empty_like(drawn)
        for source in np.unique(sources):
            count = self.counts[int(source)]
            of_source = sources == source
            epochs = drawn // count
            for epoch in np.unique(epochs[of_source]):
                here = of_source & (epochs == epoch)
                shuffle = key(self.seed, "epoch", int(source), int(epoch))
                which[here] = permutation(drawn[here] - epoch * count, count, shuffle)
        return which


@lru_cache(maxsize=64)
def _pattern(quotas: tuple[int, ...], shuffle: int) -> tuple[Indices, Indices]:
    """The sources of one cycle in order, and how many draws of the same source came before each."""
    length = sum(quotas)
    ordered = np.repeat(np.arange(len(quotas), dtype=np.int64), quotas)
    pattern = ordered[permutation(np.arange(length, dtype=np.int64), length, shuffle)]
    rank = np.empty(length, dtype=np.int64)
    for source, quota in enumerate(quotas):
        rank[pattern == source] = np.arange(quota)
    return pattern, rank
