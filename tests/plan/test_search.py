"""The search against brute force: one layout after the other, with plain numbers."""

from dataclasses import fields, replace

import numpy as np
import pytest

from colossi.plan.case import Layout
from colossi.plan.efficiency import Efficiency
from colossi.plan.memory import memory
from colossi.plan.search import divisors, layouts, search
from colossi.plan.step import step

from .cases import GPT, GROK, run

E = Efficiency()


@pytest.mark.parametrize("model", [GPT, GROK], ids=["dense", "mixture"])
def test_search_agrees_with_brute_force(model) -> None:  # type: ignore[no-untyped-def]
    case = run(model, gpus=64, batch=64)
    found = search(case, E)
    columns = found.layouts
    best = (np.inf, -1)
    for i in range(len(found.seconds)):
        alone = Layout(**{f.name: _at(getattr(columns, f.name), i) for f in fields(columns)})
        one = replace(case, layout=alone)
        seconds, bytes_ = float(step(one, E).seconds), float(memory(one).total)
        assert found.seconds[i] == pytest.approx(seconds, rel=1e-12)
        assert found.memory[i] == pytest.approx(bytes_, rel=1e-12)
        if bytes_ <= case.machine.memory and seconds < best[0]:
            best = (seconds, i)
    if best[1] >= 0:
        assert found.seconds[found.best(1)[0]] == pytest.approx(best[0], rel=1e-12)


def _at(value, i: int) -> float:  # type: ignore[no-untyped-def]
    return float(value[i]) if np.ndim(value) else float(value)


def test_every_layout_uses_every_gpu_and_every_sequence() -> None:
    case = run(GROK, gpus=96, batch=192)
    found = layouts(case)
    data = 96 / (found.tensor * found.pipeline * found.context)
    assert np.all(data == np.floor(data))
    assert np.all(192 % (data * found.micro_batch) == 0)
    keys = ("tensor", "pipeline", "context", "interleave", "expert", "micro_batch", "recompute", "shard")
    columns = np.stack([*(getattr(found, key) for key in keys), found.recompute_attention])
    assert len(np.unique(columns, axis=1).T) == len(data)


def test_the_front_is_not_beaten() -> None:
    found = search(run(GROK, gpus=64, batch=256), E)
    front = found.front()
    for i in front:
        better = (found.seconds <= found.seconds[i]) & (found.memory <= found.memory[i])
        assert np.all(found.seconds[better] == found.seconds[i]) or better.sum() == 1
    assert np.all(np.diff(found.seconds[front]) >= 0) and np.all(np.diff(found.memory[front]) < 0)


def test_divisors() -> None:
    assert divisors(12) == [1, 2, 3, 4, 6, 12]
    assert divisors(100_000)[-3:] == [25000, 50000, 100000]
