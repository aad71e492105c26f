"""Bubbles: the step's formula against the schedule played out by its dependencies."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from colossi.plan.efficiency import Efficiency
from colossi.plan.layer import layer_times
from colossi.plan.step import step

from .cases import run
from .schedule import Operation, makespan, order_1f1b

SHAPES = [(2, 1, 2), (4, 1, 8), (4, 2, 8), (8, 3, 16), (16, 1, 64), (4, 4, 4), (6, 2, 18)]


@pytest.mark.parametrize(("ranks", "stages", "count"), SHAPES)
def test_1f1b_waits_p_minus_1_over_v(ranks: int, stages: int, count: int) -> None:
    each = ranks * stages
    seconds = makespan(ranks, stages, count, [1 / stages] * each, [2 / stages] * each)
    assert seconds == pytest.approx(3 * count + (ranks - 1) / stages * 3)


@pytest.mark.parametrize(("ranks", "count"), [(2, 4), (4, 8), (8, 32)])
def test_zero_bubble_waits_f_plus_b_minus_w(ranks: int, count: int) -> None:
    seconds = makespan(ranks, 1, count, [1] * ranks, [1] * ranks, [1] * ranks)
    assert seconds == pytest.approx(3 * count + (ranks - 1) * (1 + 1 - 1))


def test_one_slow_stage_sets_the_pace() -> None:
    # The last of four takes 2 and 4 where the others take 1 and 2; nobody can start before its turn.
    forward, backward = [1, 1, 1, 2], [2, 2, 2, 4]
    assert makespan(4, 1, 32, forward, backward) == pytest.approx(32 * 6 + 3 * 3, rel=0.01)


@given(ranks=st.integers(1, 6), stages=st.integers(1, 4), rounds=st.integers(1, 4))
def test_every_operation_is_done_once(ranks: int, stages: int, rounds: int) -> None:
    count = rounds * ranks
    done = [op for rank in range(ranks) for op in order_1f1b(rank, ranks, stages, count)]
    wanted = itertools.product("FB", range(ranks * stages), range(count))
    assert sorted(done, key=str) == sorted((Operation(*each) for each in wanted), key=str)  # type: ignore[arg-type]


@pytest.mark.parametrize(("ranks", "stages", "split"), [(4, 1, 0), (8, 2, 0), (8, 1, 1)])
def test_the_step_s_bubble_is_the_schedule_s(ranks: int, stages: int, split: int) -> None:
    case = run(pipeline=ranks, interleave=stages, split_backward=split, optimizer_shard=8, overlap_pipeline=1)
    e = Efficiency(host_layer=0.0, host_experts=0.0, pipeline_exposed=0.0)
    one, layers, count = layer_times(case, e), 96 / ranks, int(case.micro_batches)
    each = ranks * stages
    forward, backward = ([layers * float(t) / stages] * each for t in (one.forward, one.backward))
    if split:
        half = [b / 2 for b in backward]
        seconds = makespan(ranks, 1, count, forward, half, half)
    else:
        seconds = makespan(ranks, stages, count, forward, backward)
    waited = seconds - count * stages * (forward[0] + backward[0])
    assert float(step(case, e).bubble) == pytest.approx(waited, rel=1e-6)
