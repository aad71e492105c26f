"""Every sample once per epoch, weights exact in every cycle, and any sample found without those before it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from colossi.data.order import Mixture, permutation, quotas

COUNTS = st.lists(st.integers(1, 40), min_size=1, max_size=4)


@given(n=st.integers(1, 3000), key=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_a_permutation_is_a_bijection(n: int, key: int) -> None:
    shuffled = permutation(np.arange(n), n, key)
    assert np.array_equal(np.sort(shuffled), np.arange(n))


@given(index=st.integers(0, 10**15 - 1), key=st.integers(0, 2**64 - 1))
@settings(max_examples=30, deadline=None)
def test_one_index_of_very_many(index: int, key: int) -> None:
    assert 0 <= permutation(np.array([index]), 10**15, key)[0] < 10**15


def test_shuffles_differ_and_mix() -> None:
    a, b = (permutation(np.arange(10_000), 10_000, key) for key in (1, 2))
    assert (a == b).mean() < 0.01
    assert abs(np.corrcoef(a, np.arange(10_000))[0, 1]) < 0.05  # standard error 0.01


def test_outside_the_domain() -> None:
    with pytest.raises(ValueError, match="outside"):
        permutation(np.array([5]), 5, 0)


QUOTAS = {
    "one source": ((3.0,), (1,)),
    "equal": ((1.0, 1.0, 1.0), (1, 1, 1)),
    "exact in a short cycle": ((0.5, 0.3, 0.2), (5, 3, 2)),
    "a third and two": ((1 / 3, 2 / 3), (1, 2)),
    # 1024 * (1/(1+pi), pi/(1+pi)) = (247.25, 776.75): the larger remainder gets the odd one
    "by the largest remainder": ((1.0, 3.141592653589793), (247, 777)),
    "never nothing": ((1.0, 1e9), (1, 1023)),
}


@pytest.mark.parametrize(("weights", "expected"), QUOTAS.values(), ids=QUOTAS.keys())
def test_quotas(weights: tuple[float, ...], expected: tuple[int, ...]) -> None:
    assert quotas(weights) == expected


@given(counts=COUNTS, seed=st.integers(0, 1000), data=st.data())
@settings(max_examples=40, deadline=None)
def test_no_sample_is_skipped_or_repeated_within_an_epoch(
    counts: list[int], seed: int, data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.integers(1, 9).map(float), min_size=len(counts), max_size=len(counts)))
    mixture = Mixture(tuple(counts), tuple(weights), seed)
    length = sum(mixture.quotas)
    sources, which = mixture.locate(np.arange(length * 60))
    for source, count in enumerate(counts):
        drawn = which[sources == source]
        assert len(drawn) == 60 * mixture.quotas[source]
        for epoch in range(len(drawn) // count):
            assert sorted(drawn[epoch * count : (epoch + 1) * count]) == list(range(count))
    in_cycles = sources.reshape(60, length)
    assert all(((in_cycles == s).sum(1) == quota).all() for s, quota in enumerate(mixture.quotas))


@given(sample=st.integers(0, 10**12), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_sample_alone_is_the_sample_among_others(sample: int, seed: int) -> None:
    mixture = Mixture((7, 1000, 3), (1.0, 2.0, 0.5), seed)
    many = mixture.locate(np.arange(sample, sample + 20))
    for offset in (0, 13, 19):
        alone = mixture.locate(np.array([sample + offset]))
        assert (alone[0][0], alone[1][0]) == (many[0][offset], many[1][offset])
