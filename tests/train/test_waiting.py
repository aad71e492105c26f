"""A step waits for its device once, at its end: on the meta device there are no numbers to wait for."""

import pytest
import torch

from colossi.model import loss
from colossi.train import step
from colossi.train.mesh import World
from colossi.train.parallel import build_model

from .ranks import spec_of
from .test_layouts import batch_of


class Ended(Exception):
    """The step has got to the place where it waits."""


@pytest.mark.parametrize(
    "model",
    [{}, {"experts": 1, "experts_per_token": 1}, {"shared_expert_ffn": 64, "final_cap": 30.0}],
    ids=["experts", "dense", "Grok-2's block"],
)
def test_nothing_is_read_from_the_device_before_the_step_ends(
    model: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Whatever asks a meta tensor for a number, or for how many of its elements are true, fails. (Grouped
    # products exist there in bfloat16 only.)
    monkeypatch.setattr(loss, "_kernels", lambda _: (loss._scores, loss._slopes))  # not compiled: no device

    def ended(*_: object) -> None:
        raise Ended

    monkeypatch.setattr(step._Sums, "result", ended)
    spec = spec_of({"micro_batch": 4}, training={"precision": "bf16"}, model={"attention_cap": 0.0} | model)
    world = World.make(spec.layout, torch.device("meta"), 1)
    parts = build_model(spec, world, with_values=False)
    with pytest.raises(Ended):
        step.forward_backward(parts, batch_of(spec, world, 1), spec, world)
    assert all(p.grad is not None and p.grad.is_meta for p in parts.parameters())
    with pytest.raises(RuntimeError):
        torch.zeros((), device="meta").item()
