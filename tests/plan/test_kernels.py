"""Times of kernels against the limits of the machine, and what must be true of any."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossi.plan.efficiency import Efficiency
from colossi.plan.kernels import Products, fused_attention, moved

from .cases import H100

E = Efficiency()
RUN = Products(H100, E, H100.peak_16 * H100.product_share)
sizes = st.integers(1, 20000)


@given(m=sizes, n=sizes, k=sizes)
def test_no_product_beats_the_machine(m: int, n: int, k: int) -> None:
    seconds = RUN.seconds(m, n, k)
    assert seconds >= 2 * m * n * k / RUN.peak
    assert seconds >= 2 * (m * k + k * n + m * n) / H100.memory_rate


@given(m=sizes, n=sizes, k=sizes)
def test_a_whole_tile_more_is_never_cheaper_than_its_share_of_waves(m: int, n: int, k: int) -> None:
    assert RUN.seconds(m + 128, n, k) > 0.45 * RUN.seconds(m, n, k) + 0.0
    assert RUN.seconds(2 * m, 2 * n, 2 * k) > RUN.seconds(m, n, k)


def test_a_large_product_reaches_nearly_the_share_of_large_products() -> None:
    m, n, k = 128 * 132, 128 * 80, 65536  # whole waves, and deep
    assert RUN.seconds(m, n, k) == pytest.approx(
        2 * m * n * k / RUN.peak * (1 + E.product_depth / k), rel=1e-12
    )


def test_tiles_are_computed_whole() -> None:
    # 8,193 columns are 65 tiles of 128: as long as 8,320.
    assert RUN.seconds(16384, 8193, 8192) == pytest.approx(RUN.seconds(16384, 8320, 8192), rel=1e-9)


def test_groups_fill_waves_together() -> None:
    # 288 tiles take three waves of 132, the last of them a fifth full; 11 times as many take 24, all full.
    one = RUN.seconds(1152, 4096, 4096)
    assert RUN.seconds(1152, 4096, 4096, groups=11) == pytest.approx(
        11 * one * (1 - E.product_wave * (1 - 288 / 396)), rel=1e-9
    )


def test_both_are_three_products_of_equal_work() -> None:
    forward, backward = RUN.both(4096, 4096, 4096)
    assert backward == pytest.approx(2 * forward)


def test_attention_going_back_is_two_and_a_half_times_the_work() -> None:
    forward, backward = fused_attention(1e15, 1e9, H100, E)
    assert backward / forward == pytest.approx(2.5 / E.attention_backward)
    assert forward == pytest.approx(1e15 / (H100.peak_16 * H100.attention_share), rel=1e-6)


def test_moved_bytes_take_the_memory_s_rate() -> None:
    assert moved(3.35e12 * E.memory_share, H100, E) == pytest.approx(1.0)


def test_columns_are_each_what_they_are_alone() -> None:
    m, n, k = (np.random.default_rng(i).integers(1, 9999, 50).astype(float) for i in range(3))
    together = RUN.seconds(m, n, k)
    assert [float(RUN.seconds(*each)) for each in zip(m, n, k, strict=True)] == together.tolist()
