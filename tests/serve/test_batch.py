"""The cache's pages and the batch, by their rules, under random orders; no model."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.serve.batch import Batch, Sequence
from colossi.serve.pages import ROOT, Pages, key_of


def test_a_page_is_found_by_all_tokens_up_to_its_end() -> None:
    pages = Pages(4, 2)
    first, second = pages.take(), pages.take()
    key = key_of(ROOT, [7, 8])
    pages.publish(first, key)
    pages.publish(second, key_of(key, [9, 9]))
    assert pages.reuse([7, 8, 9, 9, 1])[0] == [first, second]
    assert pages.reuse([7, 8, 9, 9])[0] == [first]  # the last token is always computed
    assert pages.reuse([6, 8, 9, 9, 1])[0] == []
    assert pages.reuse([9, 9, 1])[0] == []  # the same tokens at another place are another page


def test_what_is_longest_unused_is_forgotten_first_and_ends_before_beginnings() -> None:
    pages = Pages(3, 1)
    taken = [pages.take() for _ in range(3)]
    key = ROOT
    for token, page in zip((1, 2, 3), taken, strict=True):
        key = key_of(key, [token])
        pages.publish(page, key)
    pages.release(taken)
    assert pages.free == pages.kept == 3
    assert pages.take() == taken[2]
    found, _ = pages.reuse([1, 2, 3, 4])
    assert found == taken[:2]
    with pytest.raises(IndexError):
        pages.take()


def test_a_page_given_back_twice_is_a_bug() -> None:
    pages = Pages(1, 1)
    page = pages.take()
    pages.release([page])
    with pytest.raises(ValueError, match="more often"):
        pages.release([page])


def test_who_does_not_fit_the_cache_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="do not fit"):
        Batch(Pages(2, 4), 2).add(Sequence([1] * 6, 6, 3))


class World:
    """What a cache would hold: each slot's token and all before it, checked whenever it is read."""

    def __init__(self, batch: Batch) -> None:
        self.batch, self.size = batch, batch.pages.size
        self.held: dict[tuple[int, int], tuple[int, ...]] = {}

    def step(self, rng: random.Random) -> list[Sequence]:
        """Compute what the batch says, as a model would; gives who spoke."""
        pieces = self.batch.next_step()
        assert sum(piece.stop - piece.start for piece in pieces) <= self.batch.tokens
        assert len({piece.sequence for piece in pieces}) == len(pieces)
        assert len(self.batch.running) <= self.batch.most
        spoken = []
        for piece in pieces:
            sequence = piece.sequence
            assert sequence in self.batch.running and piece.start == sequence.cached < piece.stop
            for at in range(piece.start, piece.stop):
                self.held[sequence.pages[at // self.size], at % self.size] = tuple(sequence.tokens[: at + 1])
        for piece in pieces:  # after all have written: nobody wrote over another
            tokens = piece.sequence.tokens
            for at in range(piece.stop):
                held = self.held[piece.sequence.pages[at // self.size], at % self.size]
                assert held == tuple(tokens[: at + 1])
            self.batch.done(piece)
            if piece.speaks:
                tokens.append(rng.randrange(3))
                spoken.append(piece.sequence)
        return spoken


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    count=st.integers(4, 30),
    size=st.integers(1, 4),
    most=st.integers(1, 6),
    tokens=st.integers(1, 30),
)
def test_everybody_reads_what_is_theirs_and_everybody_finishes(
    seed: int, count: int, size: int, most: int, tokens: int
) -> None:
    """Few tokens and few pages, so that beginnings are shared and room is short."""
    rng = random.Random(seed)
    batch = Batch(Pages(count, size), most, tokens)
    world = World(batch)
    finished, added, steps = 0, 0, 0
    while finished < 25:
        if added < 25 and rng.random() < 0.4:
            longest = count * size
            prompt = [rng.randrange(3) for _ in range(rng.randint(1, max(1, longest - 1)))]
            batch.add(Sequence(prompt, len(prompt), rng.randint(1, longest - len(prompt))))
            added += 1
        for sequence in world.step(rng):
            if sequence.said == sequence.most:
                batch.remove(sequence)
                finished += 1
        everybody = [*batch.running, *batch.waiting]
        if everybody and rng.random() < 0.05:
            batch.remove(rng.choice(everybody))
            finished += 1
        steps += 1
        assert steps < 20_000, "somebody starves"
    assert batch.pages.free == count
