"""A compiled block computes what the eager one does, in other forms of RoPE, the gate and the products."""

import pytest
import torch

from colossi.model.attention import Rope
from colossi.model.collectives import Groups
from colossi.model.grok import Block
from colossi.spec.model import ModelSpec

MODEL = ModelSpec(layers=1, hidden=64, ffn_hidden=128, heads=2, kv_heads=1, head_dim=32, vocabulary=128)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_compiled_block_gives_the_same_values_and_gradients() -> None:
    torch.manual_seed(0)
    block = Block(MODEL, Groups())
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    rope = Rope.at(torch.arange(32)[None], MODEL.head_dim, MODEL.rope_base)
    h = torch.randn(2, 32, 64, requires_grad=True)
    counted = torch.ones(2, 32, dtype=torch.bool)

    def run() -> list[torch.Tensor]:
        y, _ = block(h, rope, counted)
        return [y.detach(), *torch.autograd.grad(y.square().sum(), [h, *block.parameters()])]

    eager = run()
    block.compile()
    for expected, found in zip(eager, run(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_a_mixture_of_experts_in_float32_can_be_compiled() -> None:
    # The compiler refuses grouped products in float32. Traced only, which is where it does, and faster.
    torch.manual_seed(0)
    routed = MODEL.model_copy(update={"experts": 4, "experts_per_token": 2})
    block = Block(routed, Groups())
    for parameter in block.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    rope = Rope.at(torch.arange(32)[None], routed.head_dim, routed.rope_base)
    h, counted = torch.randn(2, 32, 64, requires_grad=True), torch.ones(2, 32, dtype=torch.bool)

    def run() -> list[torch.Tensor]:
        y, _ = block(h, rope, counted)
        leaves = [h, *block.parameters()]
        return [y.detach(), *torch.autograd.grad(y.square().sum(), leaves)]

    eager = run()
    block.compile(backend="aot_eager")
    for expected, found in zip(eager, run(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
