"""Who holds what: a partition of blocks, batch and experts, as the trainer's own mesh and tensors are."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from colossi.errors import BadInput
from colossi.model.context import positions
from colossi.model.matrix import local
from colossi.spec.layout import AXES
from colossi.spec.model import ModelSpec
from colossi.spec.ranks import chosen_ranks, coordinates, shares
from colossi.spec.size import block_parameters
from colossi.spec.spec import Spec
from colossi.spec.stages import parts_of
from colossi.train.mesh import World
from colossi.train.parallel import build_model

from .ranks import run_ranks, spec_of

LAYOUTS: list[dict[str, Any]] = [
    {"pipeline": 2, "shard": 2, "tensor": 2, "micro_batch": 1},
    {"pipeline": 2, "context": 2, "expert": 2, "micro_batch": 1},
    {"replicate": 2, "pipeline": 2, "expert": 2, "micro_batch": 1, "interleave": 2},
    {"pipeline": 2, "shard": 2, "micro_batch": 1, "interleave": 2, "schedule": "zero-bubble-v"},
    {"replicate": 2, "shard": 2, "context": 2},
]


def size(layout: dict[str, Any]) -> int:
    product = 1
    for axis in AXES:
        product *= layout.get(axis, 1)
    return product


def seen_by_trainer(rank: int, ranks: int, spec: Spec) -> list[Any]:
    world = World.make(spec.layout, torch.device("cpu"), ranks)
    parts = build_model(spec, world)
    context = world.size("context")
    mine = [
        {axis: world.coordinate(axis) for axis in AXES},
        world.data_rank(),
        positions(world.coordinate("context"), context, 16).tolist(),
        [block for stage in parts.stages() for block in stage.part.blocks],
        sum(local(parameter).numel() for parameter in parts.parameters()),
    ]
    everyone: list[Any] = [None] * ranks
    torch.distributed.all_gather_object(everyone, mine)
    return everyone


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_the_trainer_holds_what_is_drawn(layout: dict[str, Any], tmp_path: Path) -> None:
    spec = spec_of(layout, size(layout))
    for share, (at, data_rank, columns, blocks, numbers) in zip(
        shares(spec), run_ranks(size(layout), seen_by_trainer, spec, folder=tmp_path), strict=True
    ):
        assert share.coordinates == at
        assert share.sequences is not None and share.sequences.start == data_rank * len(share.sequences)
        assert [position for span in share.positions for position in span] == columns
        assert share.blocks == blocks
        assert share.parameters == numbers


def test_ranks_by_name() -> None:
    assert chosen_ranks("", 8) == [0, 7] and chosen_ranks("", 1) == [0]
    assert chosen_ranks("3, 0,3", 8) == [0, 3]
    for wrong in ("8", "0,", "-1", "all"):
        with pytest.raises(BadInput, match="is no rank of this run"):
            chosen_ranks(wrong, 8)


@given(st.tuples(*[st.integers(1, 5)] * 6), st.data())
def test_coordinates_count_through_the_ranks(sizes: tuple[int, ...], data: st.DataObject) -> None:
    layout = spec_of().layout.model_copy(update=dict(zip(AXES, sizes, strict=True)))
    rank = data.draw(st.integers(0, layout.copy_ranks * sizes[0] - 1))
    again = 0
    for axis, place in coordinates(layout, rank).items():
        assert 0 <= place < getattr(layout, axis)
        again = again * getattr(layout, axis) + place
    assert again == rank


@given(
    layers=st.integers(1, 40),
    stages=st.integers(1, 8),
    vocabulary=st.integers(8, 200_000),
    experts=st.integers(2, 8),
)
def test_stages_are_as_even_as_they_can_be(layers: int, stages: int, vocabulary: int, experts: int) -> None:
    if stages > layers:
        layers = stages
    model = ModelSpec(
        layers=layers, hidden=64, heads=4, kv_heads=2, ffn_hidden=96, vocabulary=vocabulary, experts=experts
    )
    parts = parts_of(model, stages)
    assert [block for part in parts for block in part.blocks] == list(range(layers))
    assert all(part.blocks for part in parts)
    head, block = vocabulary * 64, block_parameters(model)

    def worst(counts: list[int]) -> int:
        return max(count * block + (head if stage == stages - 1 else 0) for stage, count in enumerate(counts))

    best = min(  # the last stage has some, the others share the rest evenly
        worst([-(-(layers - last) // (stages - 1))] * (stages - 1) + [last]) if stages > 1 else worst([last])
        for last in (range(1, layers - stages + 2) if stages > 1 else [layers])
    )
    assert worst([len(part.blocks) for part in parts]) == best


def test_every_sequence_and_position_is_somebodys() -> None:
    spec = spec_of({"replicate": 2, "context": 2, "expert": 2}, 8)
    seen = Counter(
        (row, column)
        for share in shares(spec)
        for row in share.sequences or ()
        for span in share.positions
        for column in span
    )
    assert set(seen.values()) == {1} and len(seen) == 8 * 16
